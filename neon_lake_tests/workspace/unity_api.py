"""Unity Catalog: catalogs, schemas, volumes, and what the caller may do with them.

Source: https://docs.databricks.com/api/workspace/catalogs
"""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from neon_lake_tests.workspace.execution import Execution
from neon_lake_tests.workspace.grants import Grants
from neon_lake_tests.workspace.identity import USER
from neon_lake_tests.workspace.metastore import Catalog, Metastore, Schema, Table, Volume
from neon_lake_tests.workspace.refusals import invalid, not_found

BASE: Final = "/api/2.1/unity-catalog"


class UnityApi:
    """The routes for catalogs, schemas, volumes and privileges. Without `execution` there are no tables."""

    def __init__(self, metastore: Metastore, execution: Execution | None = None, grants: Grants | None = None) -> None:
        self._metastore, self._drops, self._grants = metastore, execution or metastore, grants or Grants()

    def routes(self) -> list[Route]:
        """What this answers to."""
        return [
            Route(f"{BASE}/catalogs", self._catalogs, methods=["GET"]),
            Route(f"{BASE}/catalogs", self._create_catalog, methods=["POST"]),
            Route(f"{BASE}/catalogs/{{name}}", self._catalog, methods=["GET"]),
            Route(f"{BASE}/catalogs/{{name}}", self._delete_catalog, methods=["DELETE"]),
            Route(f"{BASE}/schemas", self._schemas, methods=["GET"]),
            Route(f"{BASE}/schemas", self._create_schema, methods=["POST"]),
            Route(f"{BASE}/schemas/{{name}}", self._schema, methods=["GET"]),
            Route(f"{BASE}/schemas/{{name}}", self._delete_schema, methods=["DELETE"]),
            Route(f"{BASE}/volumes", self._volumes, methods=["GET"]),
            Route(f"{BASE}/volumes", self._create_volume, methods=["POST"]),
            Route(f"{BASE}/volumes/{{name}}", self._volume, methods=["GET"]),
            Route(f"{BASE}/volumes/{{name}}", self._delete_volume, methods=["DELETE"]),
            Route(f"{BASE}/effective-permissions/{{type}}/{{name}}", self._effective, methods=["GET"]),
        ]

    # --- catalogs

    def _catalogs(self, _: Request) -> Response:
        return JSONResponse({"catalogs": [_catalog(each) for each in self._metastore.catalogs()]})

    async def _create_catalog(self, request: Request) -> Response:
        body = await request.json()
        return JSONResponse(_catalog(self._metastore.create_catalog(body["name"], comment=body.get("comment"))))

    def _catalog(self, request: Request) -> Response:
        return JSONResponse(_catalog(self._metastore.catalog(request.path_params["name"])))

    def _delete_catalog(self, request: Request) -> Response:
        self._drops.drop_catalog(request.path_params["name"], force=_force(request))
        return JSONResponse({})

    # --- schemas

    def _schemas(self, request: Request) -> Response:
        catalog = self._metastore.catalog(request.query_params["catalog_name"])
        return JSONResponse({"schemas": [_schema(each) for _, each in sorted(catalog.schemas.items())]})

    async def _create_schema(self, request: Request) -> Response:
        body = await request.json()
        self._grants.ensure(body["catalog_name"], "USE_CATALOG", "CREATE_SCHEMA")
        made = self._metastore.create_schema(body["catalog_name"], body["name"], comment=body.get("comment"))
        return JSONResponse(_schema(made))

    def _schema(self, request: Request) -> Response:
        return JSONResponse(_schema(self._metastore.schema(*parts_of(request, 2))))

    def _delete_schema(self, request: Request) -> Response:
        catalog, name = parts_of(request, 2)
        self._drops.drop_schema(catalog, name, force=_force(request))
        return JSONResponse({})

    # --- volumes

    def _volumes(self, request: Request) -> Response:
        query = request.query_params
        schema = self._metastore.schema(query["catalog_name"], query["schema_name"])
        return JSONResponse({"volumes": [_volume(each) for _, each in sorted(schema.volumes.items())]})

    async def _create_volume(self, request: Request) -> Response:
        body = await request.json()
        above = f"{body['catalog_name']}.{body['schema_name']}"
        self._grants.ensure(above, "USE_CATALOG", "USE_SCHEMA", "CREATE_VOLUME")
        made = self._metastore.create_volume(
            body["catalog_name"], body["schema_name"], body["name"], comment=body.get("comment")
        )
        return JSONResponse(_volume(made))

    def _volume(self, request: Request) -> Response:
        return JSONResponse(_volume(self._metastore.volume(*parts_of(request, 3))))

    def _delete_volume(self, request: Request) -> Response:
        self._drops.drop_volume(*parts_of(request, 3))
        return JSONResponse({})

    # --- privileges

    def _effective(self, request: Request) -> Response:
        kind, name = request.path_params["type"].lower(), request.path_params["name"]
        looks = {"catalog": 1, "schema": 2, "volume": 3, "table": 3}
        if kind not in looks:
            raise invalid(f"'{kind}' is not a kind of securable that this workspace has.")
        parts = parts_of(request, looks[kind])
        getattr(self._metastore, kind)(*parts)
        return JSONResponse({"privilege_assignments": self._grants.effective(kind, name.lower())})


def parts_of(request: Request, count: int) -> list[str]:
    name: str = request.path_params["name"]
    parts = name.split(".")
    if len(parts) != count:
        raise not_found(f"'{name}' is not a name of {count} parts.")
    return parts


def _force(request: Request) -> bool:
    return request.query_params.get("force", "false").lower() == "true"


def made(entity: Catalog | Schema | Table | Volume) -> dict[str, Any]:
    """Who made something, and when."""
    found: dict[str, Any] = {
        "owner": USER,
        "created_at": entity.created,
        "created_by": USER,
        "updated_at": entity.created,
        "updated_by": USER,
    }
    if entity.comment is not None:
        found["comment"] = entity.comment
    return found


def _catalog(catalog: Catalog) -> dict[str, Any]:
    return {
        "name": catalog.name,
        "full_name": catalog.name,
        "catalog_type": "MANAGED_CATALOG",
        "securable_type": "CATALOG",
        "isolation_mode": "OPEN",
        "id": catalog.id,
        **made(catalog),
    }


def _schema(schema: Schema) -> dict[str, Any]:
    return {
        "name": schema.name,
        "catalog_name": schema.catalog,
        "full_name": f"{schema.catalog}.{schema.name}",
        "catalog_type": "MANAGED_CATALOG",
        "schema_id": schema.id,
        **made(schema),
    }


def _volume(volume: Volume) -> dict[str, Any]:
    return {
        "name": volume.name,
        "catalog_name": volume.catalog,
        "schema_name": volume.schema,
        "full_name": volume.full_name,
        "volume_type": "MANAGED",
        "storage_location": volume.folder.as_uri(),
        "volume_id": volume.id,
        **made(volume),
    }
