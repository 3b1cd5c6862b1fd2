"""The workspace as one web application."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from neon_lake_tests.workspace.engines import Engine
from neon_lake_tests.workspace.execution import Execution
from neon_lake_tests.workspace.files_api import FilesApi
from neon_lake_tests.workspace.grants import Grants
from neon_lake_tests.workspace.identity import Authorized, Identity
from neon_lake_tests.workspace.metastore import Metastore
from neon_lake_tests.workspace.refusals import Refused, refused
from neon_lake_tests.workspace.statements import Statements
from neon_lake_tests.workspace.statements_api import StatementsApi
from neon_lake_tests.workspace.unity_api import UnityApi
from neon_lake_tests.workspace.uploads import Uploads
from neon_lake_tests.workspace.volumes import Volumes
from neon_lake_tests.workspace.warehouses import Warehouse


class Workspace:
    """A workspace whose files lie under `root`. `chunk_rows`: how many rows of a result come at a time."""

    def __init__(self, root: Path, engine: Engine, *, chunk_rows: int) -> None:
        self.identity, self.warehouse = Identity(), Warehouse(engine.title)
        metastore, grants = Metastore(root), Grants()
        volumes, execution = Volumes(metastore), Execution(metastore, engine)
        self.statements = Statements(engine, self.warehouse)
        routes = [
            *self.identity.routes(),
            *UnityApi(metastore, execution, grants).routes(),
            *FilesApi(volumes, Uploads(volumes, root / "uploads")).routes(),
            *self.warehouse.routes(),
            *StatementsApi(
                self.statements, execution, self.warehouse, volumes, metastore, chunk_rows=chunk_rows
            ).routes(),
        ]
        app = Starlette(routes=routes, exception_handlers={Refused: refused, ClientDisconnect: _gone})
        self.application: ASGIApp = Authorized(app, self.identity)


async def _gone(_request: Request, _exc: Exception) -> Response:
    """The caller is not there any more: this is sent to nobody."""
    return Response(status_code=400)
