"""The workspace as one web application."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from neon_lake_tests.workspace.engines import Engine
from neon_lake_tests.workspace.execution import Execution
from neon_lake_tests.workspace.faults import Faults
from neon_lake_tests.workspace.files_api import FilesApi
from neon_lake_tests.workspace.grants import Grants
from neon_lake_tests.workspace.identity import LIFETIME, Authorized, Identity
from neon_lake_tests.workspace.metastore import Metastore
from neon_lake_tests.workspace.refusals import Refused, refused
from neon_lake_tests.workspace.statements import Statements
from neon_lake_tests.workspace.statements_api import StatementsApi
from neon_lake_tests.workspace.tables_api import TablesApi
from neon_lake_tests.workspace.unity_api import UnityApi
from neon_lake_tests.workspace.uploads import Uploads
from neon_lake_tests.workspace.volumes import Volumes
from neon_lake_tests.workspace.warehouses import Warehouse


class Workspace:
    """A workspace whose files lie under `root`. `chunk_rows`: how many rows of a result come at a time."""

    def __init__(self, root: Path, engine: Engine, *, chunk_rows: int) -> None:
        self.identity, self.warehouse = Identity(), Warehouse(engine.title)
        metastore, grants = Metastore(root), Grants()
        volumes, execution = Volumes(metastore, grants), Execution(metastore, engine, grants)
        self.statements = Statements(engine, self.warehouse)
        routes = [
            *self.identity.routes(),
            *UnityApi(metastore, execution, grants).routes(),
            *TablesApi(metastore, execution).routes(),
            *FilesApi(volumes, Uploads(volumes, root / "uploads")).routes(),
            *self.warehouse.routes(),
            *StatementsApi(
                self.statements, execution, self.warehouse, volumes, metastore, chunk_rows=chunk_rows
            ).routes(),
        ]
        app = Starlette(routes=routes, exception_handlers={Refused: refused, ClientDisconnect: _gone})
        self._grants, self._faults = grants, Faults(Authorized(app, self.identity), self.identity, self.statements)
        app.routes.extend(
            [
                *self._faults.routes(),
                Route("/test", self._forget, methods=["DELETE"]),
                Route("/test/privileges", self._take, methods=["POST"]),
                Route("/test/tokens", self._live, methods=["POST"]),
            ]
        )
        self.application: ASGIApp = self._faults

    def _forget(self, _: Request) -> Response:
        """Nothing of what tests asked for is left."""
        self._faults.clear()
        self._grants.give_back()
        self.identity.lifetime = LIFETIME
        self.warehouse.run()
        return JSONResponse({})

    async def _take(self, request: Request) -> Response:
        body = await request.json()
        self._grants.take(body["name"], body["privilege"])
        return JSONResponse({})

    async def _live(self, request: Request) -> Response:
        """Tokens that are fetched from now on live so many seconds."""
        self.identity.lifetime = float((await request.json())["lifetime"])
        return JSONResponse({})


async def _gone(_request: Request, _exc: Exception) -> Response:
    """The caller is not there any more: this is sent to nobody."""
    return Response(status_code=400)
