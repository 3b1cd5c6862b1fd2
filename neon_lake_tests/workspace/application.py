"""The workspace as one web application."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from neon_lake_tests.workspace.files_api import FilesApi
from neon_lake_tests.workspace.identity import Authorized, Identity
from neon_lake_tests.workspace.metastore import Metastore
from neon_lake_tests.workspace.refusals import Refused, refused
from neon_lake_tests.workspace.unity_api import UnityApi
from neon_lake_tests.workspace.uploads import Uploads
from neon_lake_tests.workspace.volumes import Volumes


def application(root: Path, identity: Identity) -> ASGIApp:
    """A workspace whose files lie under `root`."""
    metastore = Metastore(root)
    volumes = Volumes(metastore)
    files = FilesApi(volumes, Uploads(volumes, root / "uploads"))
    app = Starlette(
        routes=[*identity.routes(), *UnityApi(metastore).routes(), *files.routes()],
        exception_handlers={Refused: refused, ClientDisconnect: _gone},
    )
    return Authorized(app, identity)


async def _gone(_request: Request, _exc: Exception) -> Response:
    """The caller is not there any more: this is sent to nobody."""
    return Response(status_code=400)
