"""The Statement Execution API.

Source: https://docs.databricks.com/api/workspace/statementexecution
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import pyarrow as pa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from neon_lake_tests.workspace.execution import Execution
from neon_lake_tests.workspace.metastore import Metastore
from neon_lake_tests.workspace.refusals import Refused, invalid
from neon_lake_tests.workspace.results import INLINE_BYTES, Result
from neon_lake_tests.workspace.statements import Statement, Statements
from neon_lake_tests.workspace.translation import Parameter, Scope
from neon_lake_tests.workspace.volumes import Volumes
from neon_lake_tests.workspace.warehouses import Warehouse

STATEMENT_BYTES: Final = 16 << 20
_LINKS_LIVE: Final = timedelta(minutes=15)
_NO_LINK: Final = ("", 0, datetime.min.replace(tzinfo=UTC))
_KNOWN: Final = frozenset(
    {
        "byte_limit",
        "catalog",
        "disposition",
        "format",
        "on_wait_timeout",
        "parameters",
        "query_tags",
        "row_limit",
        "schema",
        "statement",
        "wait_timeout",
        "warehouse_id",
    }
)
_FORMS: Final = frozenset(
    {("INLINE", "JSON_ARRAY"), ("EXTERNAL_LINKS", "ARROW_STREAM"), ("EXTERNAL_LINKS", "JSON_ARRAY")}
)


class StatementsApi:
    """The routes under `/api/2.0/sql/statements`, and the addresses of results. `chunk_rows`: rows of a chunk."""

    def __init__(
        self,
        statements: Statements,
        execution: Execution,
        warehouse: Warehouse,
        volumes: Volumes,
        metastore: Metastore,
        *,
        chunk_rows: int,
    ) -> None:
        self._statements, self._execution, self._warehouse = statements, execution, warehouse
        self._volumes, self._metastore, self._chunk_rows = volumes, metastore, chunk_rows
        self._links: dict[str, tuple[str, int, datetime]] = {}

    def routes(self) -> list[Route]:
        """What this answers to; older SDKs send a slash at the end."""
        base = "/api/2.0/sql/statements"
        return [
            Route(base, self._execute, methods=["POST"]),
            Route(f"{base}/", self._execute, methods=["POST"]),
            Route(f"{base}/{{id}}", self._get, methods=["GET"]),
            Route(f"{base}/{{id}}/result/chunks/{{index:int}}", self._chunk, methods=["GET"]),
            Route(f"{base}/{{id}}/cancel", self._cancel, methods=["POST"]),
            Route("/api/2.0/sql/warehouses/{id}/stop", self._stop, methods=["POST"]),
            Route("/presigned/results/{token}", self._fetch, methods=["GET"]),
        ]

    # --- one statement

    async def _execute(self, request: Request) -> Response:
        body = await request.json()
        if unknown := set(body) - _KNOWN:
            raise invalid(f"Unknown field(s): {', '.join(sorted(unknown))}.")
        self._warehouse.ensure(str(body.get("warehouse_id")))
        sql = body.get("statement") or ""
        if not sql.strip():
            raise invalid("The statement is empty.")
        if len(sql.encode()) > STATEMENT_BYTES:
            raise invalid(f"The statement is longer than {STATEMENT_BYTES} bytes.")
        seconds, cancel = _waiting(body)
        form = (body.get("disposition", "INLINE"), body.get("format", "JSON_ARRAY"))
        if form not in _FORMS:
            raise invalid(f"The format {form[1]} is not supported with the disposition {form[0]}.")
        scope = Scope(
            metastore=self._metastore,
            volumes=self._volumes,
            catalog=body.get("catalog"),
            schema=body.get("schema"),
            parameters=_parameters(body.get("parameters") or []),
        )
        statement = Statement(
            sql=sql, arrow=form[1] == "ARROW_STREAM", links=form[0] == "EXTERNAL_LINKS", limit=body.get("row_limit")
        )
        self._statements.begin(statement, partial(self._execution.run, sql, scope))
        with suppress(TimeoutError):
            await asyncio.wait_for(statement.ended.wait(), seconds)
        if cancel and not statement.ended.is_set():
            self._statements.cancel(statement)
        return JSONResponse(self._answer(statement, request))

    async def _get(self, request: Request) -> Response:
        return JSONResponse(self._answer(self._statements.get(request.path_params["id"]), request))

    async def _cancel(self, request: Request) -> Response:
        self._statements.cancel(self._statements.get(request.path_params["id"]))
        return JSONResponse({})

    async def _stop(self, request: Request) -> Response:
        self._warehouse.ensure(request.path_params["id"])
        self._statements.stop_warehouse()
        return JSONResponse({})

    def _answer(self, statement: Statement, request: Request) -> dict[str, Any]:
        result = self._result(statement)
        answer: dict[str, Any] = {"statement_id": statement.id, "status": {"state": statement.state}}
        if statement.error is not None:
            code, said = statement.error
            answer["status"]["error"] = {"error_code": code, "message": said}
        if result is not None:
            answer["manifest"] = result.manifest()
            answer["result"] = self._part(statement.id, result, 0, request)
        return answer

    def _result(self, statement: Statement) -> Result | None:
        if statement.state != "SUCCEEDED" or statement.table is None:
            return None
        if statement.result is None:
            table: pa.Table = statement.table
            truncated = statement.limit is not None and table.num_rows > statement.limit
            result = Result(
                table=table.slice(0, statement.limit) if truncated else table,
                arrow=statement.arrow,
                links=statement.links,
                truncated=truncated,
                chunk_rows=self._chunk_rows,
            )
            if result.too_large:
                said = (
                    "Inline byte limit exceeded. Statements executed with disposition=INLINE can have a result size of "
                    f"at most {INLINE_BYTES} bytes. Please execute the statement with disposition=EXTERNAL_LINKS."
                )
                statement.state, statement.error = "FAILED", ("BAD_REQUEST", said)
                return None
            statement.result = result
        return statement.result

    # --- results

    async def _chunk(self, request: Request) -> Response:
        statement, index = self._statements.get(request.path_params["id"]), int(request.path_params["index"])
        result = self._result(statement)
        if result is None:
            raise invalid(f"The statement {statement.id} has no result: its state is {statement.state}.")
        if index >= max(len(result.chunks), 1):
            raise invalid(f"The statement {statement.id} has no chunk {index}.")
        return JSONResponse(self._part(statement.id, result, index, request))

    def _part(self, statement: str, result: Result, index: int, request: Request) -> dict[str, Any]:
        if not (result.links and result.chunks):
            return result.part(statement, index)
        token, until = secrets.token_urlsafe(24), datetime.now(UTC) + _LINKS_LIVE
        self._links[token] = (statement, index, until)
        host = f"{request.url.scheme}://{request.url.netloc}"
        expiration = until.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return result.part(statement, index, link=f"{host}/presigned/results/{token}", expiration=expiration)

    def _fetch(self, request: Request) -> Response:
        statement, index, until = self._links.get(
            request.path_params["token"], ("", 0, datetime.min.replace(tzinfo=UTC))
        )
        if datetime.now(UTC) >= until:
            raise Refused(403, "AccessDenied", "Request has expired")
        result = self._statements.get(statement).result
        assert result is not None
        kind = "application/vnd.apache.arrow.stream" if result.arrow else "application/json"
        return Response(result.bodies[index], media_type=kind)


def _waiting(body: Mapping[str, Any]) -> tuple[float, bool]:
    """For how many seconds the answer waits for the statement's end, and whether it is cancelled then."""
    written, then = str(body.get("wait_timeout") or "10s"), body.get("on_wait_timeout") or "CONTINUE"
    found = re.fullmatch(r"(\d+)s", written)
    seconds = int(found[1]) if found else -1
    if then not in ("CONTINUE", "CANCEL") or not (seconds == 0 or 5 <= seconds <= 50):
        raise invalid(f"wait_timeout must be 0s, or between 5s and 50s; on_wait_timeout CONTINUE or CANCEL: {written}.")
    if seconds == 0 and then == "CANCEL":
        raise invalid("on_wait_timeout CANCEL needs a wait_timeout.")
    return float(seconds), then == "CANCEL"


def _parameters(given: list[Mapping[str, Any]]) -> dict[str, Parameter]:
    return {str(each["name"]): Parameter(value=each.get("value"), kind=each.get("type") or "STRING") for each in given}
