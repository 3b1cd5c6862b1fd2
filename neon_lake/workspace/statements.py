"""SQL on a warehouse, each statement followed to its end.

The SDK sends a POST again when its answer was lost, so a statement may be carried out twice, and late: every statement
that is given to `Warehouse.run` has to be safe against that. So one that ended for a passing reason is sent again.
Source: https://docs.databricks.com/api/workspace/statementexecution
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pyarrow as pa

from neon_lake.errors import DestinationError, DestinationUnavailable
from neon_lake.workspace.connection import asked, brief, translated

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.sql import ResultData, StatementResponse

_T = TypeVar("_T")

WAIT: Final = "10s"
"""How long the request that starts a statement waits for its end."""
POLL_SECONDS: Final = (0.1, 5.0)
"""The first and the longest pause between two looks at a running statement, or a starting warehouse."""
START_SECONDS: Final = 900.0
ATTEMPTS: Final = 4

PASSING: Final = frozenset(
    {
        "ABORTED",
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "INTERNAL_ERROR",
        "IO_ERROR",
        "RESOURCE_EXHAUSTED",
        "SERVICE_UNDER_MAINTENANCE",
        "TEMPORARILY_UNAVAILABLE",
        "UNKNOWN",
        "WORKSPACE_TEMPORARILY_UNAVAILABLE",
    }
)
"""Error codes of a failed statement that say nothing against the statement itself."""


class StatementFailed(DestinationError):
    """The warehouse carried a statement out, and it failed. `error_class` is Databricks' name of why, or empty."""

    def __init__(self, sentence: str, *, error_class: str, said: str) -> None:
        super().__init__(sentence)
        self.error_class, self.said = error_class, said


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What was asked of a warehouse: statements, seconds from their start to their end, and those it took to start."""

    statements: int = 0
    seconds: float = 0.0
    starting: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            statements=self.statements + other.statements,
            seconds=self.seconds + other.seconds,
            starting=self.starting + other.starting,
        )


class Warehouse:
    """A SQL warehouse. It is started by the first statement, and by nothing else.

    `label` says whose statements these are, in a comment before each. `notice` is told of waiting, in words.
    """

    def __init__(
        self, client: WorkspaceClient, warehouse: str, *, label: str, notice: Callable[[str], None] = lambda _: None
    ) -> None:
        self._client, self.id, self._label, self._notice = client, warehouse, label, notice
        self._clock = client.config.clock
        self.usage = Usage()
        self._awake = False

    def run(self, sql: str, about: str) -> Mapping[str, int]:
        """Carry a statement out; gives the counts of rows that it reports, such as `num_affected_rows`.

        `about` names the table, and stands in the comment and in errors. Raises `StatementFailed`, and
        `DestinationUnavailable` when the warehouse cannot be used.
        """
        rows = self.rows(sql, about)
        found = rows.to_pylist()[0] if rows.num_rows == 1 else {}
        return {name: int(value) for name, value in found.items() if name.startswith("num_") and value is not None}

    def rows(self, sql: str, about: str) -> pa.Table:
        """The result of a statement that gives few rows; every value as text."""
        response = self._followed(sql, about, arrow=False)
        manifest, result = response.manifest, response.result
        columns = manifest.schema.columns if manifest and manifest.schema else None
        names = [str(column.name) for column in columns or ()]
        data: list[list[str]] = []
        while result is not None:
            data += result.data_array or []
            if result.next_chunk_index is None:
                break
            result = self._chunk(str(response.statement_id), result.next_chunk_index)
        arrays = [pa.array([row[place] for row in data], pa.string()) for place in range(len(names))]
        return pa.table(arrays, names=names) if names else pa.table({})

    def batches(self, sql: str, about: str) -> Iterator[pa.RecordBatch]:
        """The result of a statement that may give many rows, chunk by chunk, as Arrow."""
        response = self._followed(sql, about, arrow=True)
        statement, result = str(response.statement_id), response.result
        while result is not None and result.external_links:
            link = result.external_links[0]
            yield from pa.ipc.open_stream(self._fetched(statement, link.chunk_index or 0, str(link.external_link)))
            if link.next_chunk_index is None:
                return
            result = self._chunk(statement, link.next_chunk_index)

    def _chunk(self, statement: str, chunk: int) -> ResultData:
        execution = self._client.statement_execution
        return self._asked(lambda: execution.get_statement_result_chunk_n(statement, chunk))

    def _fetched(self, statement: str, chunk: int, url: str) -> bytes:
        """The bytes behind a link, which lives for some minutes and wants no credentials; a dead one is asked anew."""
        import requests  # noqa: PLC0415 - the SDK's own; see `connect`

        for attempt in range(ATTEMPTS):
            with suppress(requests.RequestException):
                answer = requests.get(url, timeout=60)
                if answer.ok:
                    return answer.content
            self._clock.sleep(min(0.2 * 2**attempt, 2.0))
            anew = self._chunk(statement, chunk)
            url = str((anew.external_links or [])[0].external_link)
        raise DestinationUnavailable(f"A result of the statement {statement} cannot be fetched; run this again.")

    # --- one statement

    def _followed(self, sql: str, about: str, *, arrow: bool) -> StatementResponse:
        """Send a statement, and again when it ended for a reason that may pass."""
        for attempt in range(1, ATTEMPTS + 1):
            self._ensure_running()
            response = self._once(f"/* {self._label} {_comment(about)} */ {sql}", arrow=arrow)
            state = _name(response.status.state) if response.status else "UNKNOWN"
            if state == "SUCCEEDED":
                return response
            error = response.status.error if response.status else None
            code = (
                _name(error.error_code) if error and error.error_code else "CANCELLED" if state == "CANCELED" else state
            )
            said = " ".join((error.message if error and error.message else state).split())
            conflict = "CONCURRENT" in error_class(said) or "METADATA_CHANGED" in error_class(said)
            if attempt == ATTEMPTS or not (code in PASSING or conflict):
                break
            self._awake = False
            self._notice(f"{about}: the statement {response.statement_id} ended with {code}, and is sent again")
            self._clock.sleep(min(0.2 * 4**attempt, 10.0))
        sentence = (
            f"The statement {response.statement_id} for {about} failed on the warehouse {self.id} "
            f"({brief_message(said)}); its page in Databricks' query history says more."
        )
        if code in PASSING:
            raise DestinationUnavailable(sentence)
        raise StatementFailed(sentence, error_class=error_class(said), said=said)

    def _once(self, sql: str, *, arrow: bool) -> StatementResponse:
        """Send a statement and follow it to a terminal state; cancel it when this process is interrupted."""
        began = time.monotonic()
        response: StatementResponse | None = None
        # A thread of its own: an interrupt must not lose the id that cancelling needs.
        with ThreadPoolExecutor(1, thread_name_prefix="statement") as pool:
            sent = pool.submit(self._send, sql, arrow=arrow)
            try:
                response = sent.result()
                pause = POLL_SECONDS[0]
                while response.status and _name(response.status.state) in ("PENDING", "RUNNING"):
                    time.sleep(pause)
                    pause = min(pause * 1.5, POLL_SECONDS[1])
                    statement = str(response.statement_id)
                    response = self._asked(partial(self._client.statement_execution.get_statement, statement))
            except BaseException:
                self._cancel(response, sent)
                raise
            finally:
                self.usage += Usage(statements=1, seconds=time.monotonic() - began)
        return response

    def _send(self, sql: str, *, arrow: bool) -> StatementResponse:
        from databricks.sdk.service import sql as api  # noqa: PLC0415 - see `connect`

        return self._asked(
            lambda: self._client.statement_execution.execute_statement(
                statement=sql,
                warehouse_id=self.id,
                wait_timeout=WAIT,
                on_wait_timeout=api.ExecuteStatementRequestOnWaitTimeout.CONTINUE,
                disposition=api.Disposition.EXTERNAL_LINKS if arrow else api.Disposition.INLINE,
                format=api.Format.ARROW_STREAM if arrow else api.Format.JSON_ARRAY,
            )
        )

    def _cancel(self, response: StatementResponse | None, sent: Future[StatementResponse]) -> None:
        with suppress(Exception):
            response = response or sent.result(timeout=60)
            self._client.statement_execution.cancel_execution(str(response.statement_id))

    # --- the warehouse's life

    def _ensure_running(self) -> None:
        if self._awake:
            return
        began, pause, told = self._clock.time(), POLL_SECONDS[0], False
        while (state := self._state()) != "RUNNING":
            if state in ("DELETED", "DELETING"):
                raise DestinationUnavailable(
                    f"The warehouse {self.id} is deleted; name another one as destination.warehouse."
                )
            if not told:
                self._notice(f"the SQL warehouse {self.id} is {state.lower()}: it is started")
                told = True
            if state == "STOPPED":
                self._asked(lambda: self._client.warehouses.start(self.id))
            if self._clock.time() - began > START_SECONDS:
                raise DestinationUnavailable(
                    f"The warehouse {self.id} is {state.lower()} since {START_SECONDS / 60:.0f} minutes; look at its "
                    "page in Databricks, then run this again."
                )
            self._clock.sleep(pause)
            pause = min(pause * 1.5, POLL_SECONDS[1])
        if told:
            seconds = self._clock.time() - began
            self._notice(f"the SQL warehouse {self.id} runs after {seconds:.0f} s")
            self.usage += Usage(starting=seconds)
        self._awake = True

    def running(self) -> bool:
        """Whether the warehouse runs, without starting it."""
        return self._state() == "RUNNING"

    def _state(self) -> str:
        return _name(self._asked(lambda: self._client.warehouses.get(self.id)).state)

    def _asked(self, action: Callable[[], _T]) -> _T:
        remedy = "name one as destination.warehouse that there is, and grant this identity CAN USE on it"
        with translated(f"the SQL warehouse {self.id}", remedy):
            return asked(self._client, action)


def _name(state: Any) -> str:
    return str(getattr(state, "value", state))


def _comment(text: str) -> str:
    """Text that cannot end the comment that it stands in."""
    return json.dumps(text, ensure_ascii=False).strip('"').replace("*/", "* /")


def error_class(said: str) -> str:
    """Databricks' name of an error, from a message such as `[TABLE_OR_VIEW_NOT_FOUND] …`; else empty."""
    found = re.search(r"\[([A-Z][A-Z0-9_.]+)\]", said)
    return found[1] if found else ""


def brief_message(said: str) -> str:
    """The message without the plan and the stack that may follow it."""
    return brief(Exception(said))
