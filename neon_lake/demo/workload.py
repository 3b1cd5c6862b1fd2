"""Customers and staff of the shop: a few connections that go on writing until they are told to stop."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import errors

from neon_lake.demo.actions import ACTIONS, Kind, Nothing, Transaction
from neon_lake.demo.shop import TABLES
from neon_lake.errors import NeonLakeError
from neon_lake.staging.segment import Counts

_CONFLICTS: Final = (errors.DeadlockDetected, errors.ForeignKeyViolation, errors.UniqueViolation)
"""What two writers that meet get from the server: one of them rolls back, as an application would."""

_REGRETTED: Final = 0.04
"""The share of transactions that are rolled back at their end."""


class WorkloadFailed(NeonLakeError):
    """The demonstration's workload stopped writing."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a workload has done: transactions that committed and that were rolled back, and committed changes of rows.

    `tables` has an entry for every table of the shop.
    """

    committed: int
    rolled_back: int
    tables: Mapping[str, Counts]


class Workload:
    """Writes to the shop at a steady rate, over several connections at once. A context manager: it stops at the end.

    `rate` is in transactions per second, over all `writers`; `seed` makes the choices repeatable (what the writers
    meet is not).
    """

    def __init__(self, url: str, *, rate: float = 100, writers: int = 2, seed: int = 1) -> None:
        self._url, self._pause = url, writers / rate
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._changes: Counter[tuple[str, Kind]] = Counter()
        self._committed = self._rolled_back = 0
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._write, args=(Random(f"{seed}/{n}"),), name=f"writer-{n}")  # noqa: S311 (no secret)
            for n in range(writers)
        ]

    @property
    def done(self) -> Done:
        """What was committed so far. Raises `WorkloadFailed` when a writer had to stop."""
        if self._failure is not None:
            raise WorkloadFailed(f"The demonstration's workload stopped: {self._failure}") from self._failure
        with self._lock:
            tables = {table: _counts(self._changes, table) for table in TABLES}
            return Done(committed=self._committed, rolled_back=self._rolled_back, tables=tables)

    def stop(self) -> None:
        """End every writer after the transaction that it is in."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _write(self, random: Random) -> None:
        try:
            with psycopg.connect(self._url, application_name="shop") as connection:
                due = time.monotonic()
                for action in _deck(random):
                    if self._stop.wait(due - time.monotonic()):
                        return
                    # A writer that was held up does not catch up: the rate is a limit.
                    due = max(due + self._pause, time.monotonic())
                    self._perform(connection, action, random)
        except psycopg.Error as exc:
            self._failure = exc

    def _perform(
        self, connection: psycopg.Connection[Any], action: Callable[[Transaction], None], random: Random
    ) -> None:
        changes = perform(connection, action, random)
        with self._lock:
            if changes is None:
                self._rolled_back += 1
            else:
                self._committed += 1
                self._changes += changes


def perform(
    connection: psycopg.Connection[Any],
    action: Callable[[Transaction], None],
    random: Random,
    *,
    regretted: float = _REGRETTED,
) -> Counter[tuple[str, Kind]] | None:
    """Carry out an action in a transaction; gives the rows that it changed, or None when it was rolled back."""
    regret = random.random() < regretted
    try:
        with connection.transaction(force_rollback=regret):
            transaction = Transaction(connection, random)
            action(transaction)
    except (Nothing, *_CONFLICTS):
        return None
    return None if regret else transaction.changes


def _deck(random: Random) -> Iterator[Callable[[Transaction], None]]:
    """The actions for ever, in rounds: each round holds each as often as its weight says, in another order."""
    while True:
        yield from random.sample(list(ACTIONS), k=sum(ACTIONS.values()), counts=list(ACTIONS.values()))


def _counts(changes: Mapping[tuple[str, Kind], int], table: str) -> Counts:
    return Counts(
        inserts=changes.get((table, "inserts"), 0),
        updates=changes.get((table, "updates"), 0),
        deletes=changes.get((table, "deletes"), 0),
    )
