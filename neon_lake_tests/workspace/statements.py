"""Statements on their way: each is carried out in a thread, and is asked for by its id until it has ended."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from neon_lake_tests.workspace.engines import STATEMENT, Engine
from neon_lake_tests.workspace.refusals import Refused
from neon_lake_tests.workspace.results import Result
from neon_lake_tests.workspace.sql_errors import SqlFailed
from neon_lake_tests.workspace.warehouses import Warehouse

KEPT = 1000
"""How many statements are known by their id; older ones, with their results, are not."""
TERMINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "CLOSED"})


@dataclass(kw_only=True)
class Statement:
    """A statement. `error` is the code and the message of one that failed; `table` the rows of one that succeeded.

    `ended` and `over` say in the event loop, and in other threads, that it is over.
    `arrow`, `links` and `limit` say how its rows are wanted; `result` has them so, once somebody asked for them.
    """

    sql: str
    arrow: bool = False
    links: bool = False
    limit: int | None = None
    result: Result | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid1()))
    state: str = "PENDING"
    error: tuple[str, str] | None = None
    table: pa.Table | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    over: threading.Event = field(default_factory=threading.Event)


class Statements:
    """All of them. Its methods are called from the event loop, but for `stop_warehouse`."""

    def __init__(self, engine: Engine, warehouse: Warehouse) -> None:
        self._engine, self._warehouse = engine, warehouse
        self._pool = ThreadPoolExecutor(engine.workers, thread_name_prefix="statement")
        self._lock = threading.Lock()
        self._statements: dict[str, Statement] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_next: bool | None = None
        self._slow_next: tuple[float, bool] | None = None

    def get(self, id: str) -> Statement:  # noqa: A002 - as the interface calls it
        """The statement of this id."""
        found = self._statements.get(id)
        if found is None:
            raise Refused(404, "NOT_FOUND", f"The statement {id} was not found.")
        return found

    def begin(self, statement: Statement, work: Callable[[], pa.Table]) -> None:
        """Start a statement, when the warehouse runs; it starts the warehouse if need be."""
        self._statements[statement.id] = statement
        while len(self._statements) > KEPT:
            del self._statements[next(iter(self._statements))]
        loop = asyncio.get_running_loop()
        self._warehouse.start()
        task = loop.create_task(self._carried_out(statement, work, loop))
        # the loop itself holds tasks by weak references only
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carried_out(
        self, statement: Statement, work: Callable[[], pa.Table], loop: asyncio.AbstractEventLoop
    ) -> None:
        while self._warehouse.look() != "RUNNING":
            await asyncio.sleep(0.05)
            if statement.state in TERMINAL:
                return
        await loop.run_in_executor(self._pool, self._run, statement, work, loop)

    def _run(self, statement: Statement, work: Callable[[], pa.Table], loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if statement.state in TERMINAL:
                return
            statement.state = "RUNNING"
        STATEMENT.set(statement.id)
        stop, self._stop_next = self._stop_next, None
        if stop is not None:
            stopped = threading.Event()
            loop.call_soon_threadsafe(self._stop_and_say, stopped)
            stopped.wait()
        if stop is False:
            return
        slow, self._slow_next = self._slow_next, None
        if slow is not None and statement.over.wait(slow[0]) and not slow[1]:
            return
        try:
            table = work()
        except SqlFailed as exc:
            self._end(statement, "FAILED", error=(exc.code, str(exc)), loop=loop)
        except Exception as exc:  # noqa: BLE001 - a fault of this server is the statement's end, and is seen there
            said = f"[INTERNAL_ERROR] {type(exc).__name__}: {exc} SQLSTATE: XX000"
            self._end(statement, "FAILED", error=("INTERNAL_ERROR", said), loop=loop)
        else:
            self._end(statement, "SUCCEEDED", table=table, loop=loop)

    def _end(
        self,
        statement: Statement,
        state: str,
        *,
        loop: asyncio.AbstractEventLoop,
        error: tuple[str, str] | None = None,
        table: pa.Table | None = None,
    ) -> None:
        with self._lock:
            if statement.state in TERMINAL:
                return
            statement.error, statement.table, statement.state = error, table, state
        statement.over.set()
        loop.call_soon_threadsafe(statement.ended.set)

    def cancel(self, statement: Statement) -> None:
        """End a statement; what the engine is doing for it may happen all the same."""
        self._end(statement, "CANCELED", loop=asyncio.get_running_loop())
        self._engine.interrupt(statement.id)

    def stop_warehouse(self) -> None:
        """Stop the warehouse; what runs on it fails."""
        self._warehouse.stop()
        loop = asyncio.get_running_loop()
        for statement in list(self._statements.values()):
            if statement.state not in TERMINAL:
                said = "The SQL warehouse was stopped while the statement was running."
                self._end(statement, "FAILED", error=("ABORTED", said), loop=loop)
                self._engine.interrupt(statement.id)

    def _stop_and_say(self, stopped: threading.Event) -> None:
        self.stop_warehouse()
        stopped.set()

    def stop_next(self, *, carry: bool) -> None:
        """Stop the warehouse as soon as the next statement runs; with `carry`, that is done all the same."""
        self._stop_next = carry

    def slow_next(self, seconds: float, *, carry: bool) -> None:
        """Have the next statement run for so long before the engine does its work, or until it is cancelled.

        With `carry`, the engine does its work then all the same.
        """
        self._slow_next = (seconds, carry)

    def forget(self) -> None:
        """Nothing happens to the next statement."""
        self._stop_next = self._slow_next = None

    def close(self) -> None:
        """Wait for nothing any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
