"""Unity Catalog: catalogs, schemas, volumes, tables, and what the caller may do with them.

Source: https://docs.databricks.com/api/workspace/catalogs
"""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from neon_lake_tests.workspace import delta_log
from neon_lake_tests.workspace.data_types import catalog_text_of, name_of
from neon_lake_tests.workspace.engines import relation_of
from neon_lake_tests.workspace.execution import Execution
from neon_lake_tests.workspace.grants import Grants
from neon_lake_tests.workspace.identity import USER
from neon_lake_tests.workspace.metastore import Catalog, Metastore, Schema, Table, Volume
from neon_lake_tests.workspace.refusals import invalid, not_found

_BASE = "/api/2.1/unity-catalog"


class UnityApi:
    """The routes under `/api/2.1/unity-catalog`."""

    def __init__(self, metastore: Metastore, execution: Execution, grants: Grants) -> None:
        self._metastore, self._execution, self._grants = metastore, execution, grants

    def routes(self) -> list[Route]:
        """What this answers to."""
        return [
            Route(f"{_BASE}/catalogs", self._catalogs, methods=["GET"]),
            Route(f"{_BASE}/catalogs", self._create_catalog, methods=["POST"]),
            Route(f"{_BASE}/catalogs/{{name}}", self._catalog, methods=["GET"]),
            Route(f"{_BASE}/catalogs/{{name}}", self._delete_catalog, methods=["DELETE"]),
            Route(f"{_BASE}/schemas", self._schemas, methods=["GET"]),
            Route(f"{_BASE}/schemas", self._create_schema, methods=["POST"]),
            Route(f"{_BASE}/schemas/{{name}}", self._schema, methods=["GET"]),
            Route(f"{_BASE}/schemas/{{name}}", self._delete_schema, methods=["DELETE"]),
            Route(f"{_BASE}/volumes", self._volumes, methods=["GET"]),
            Route(f"{_BASE}/volumes", self._create_volume, methods=["POST"]),
            Route(f"{_BASE}/volumes/{{name}}", self._volume, methods=["GET"]),
            Route(f"{_BASE}/volumes/{{name}}", self._delete_volume, methods=["DELETE"]),
            Route(f"{_BASE}/tables", self._tables, methods=["GET"]),
            Route(f"{_BASE}/tables/{{name}}", self._table, methods=["GET"]),
            Route(f"{_BASE}/tables/{{name}}/exists", self._exists, methods=["GET"]),
            Route(f"{_BASE}/tables/{{name}}", self._delete_table, methods=["DELETE"]),
            Route(f"{_BASE}/effective-permissions/{{type}}/{{name}}", self._effective, methods=["GET"]),
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
        self._execution.drop_catalog(request.path_params["name"], force=_force(request))
        return JSONResponse({})

    # --- schemas

    def _schemas(self, request: Request) -> Response:
        catalog = self._metastore.catalog(request.query_params["catalog_name"])
        return JSONResponse({"schemas": [_schema(each) for _, each in sorted(catalog.schemas.items())]})

    async def _create_schema(self, request: Request) -> Response:
        body = await request.json()
        made = self._metastore.create_schema(body["catalog_name"], body["name"], comment=body.get("comment"))
        return JSONResponse(_schema(made))

    def _schema(self, request: Request) -> Response:
        return JSONResponse(_schema(self._metastore.schema(*_parts(request, 2))))

    def _delete_schema(self, request: Request) -> Response:
        catalog, name = _parts(request, 2)
        self._execution.drop_schema(catalog, name, force=_force(request))
        return JSONResponse({})

    # --- volumes

    def _volumes(self, request: Request) -> Response:
        query = request.query_params
        schema = self._metastore.schema(query["catalog_name"], query["schema_name"])
        return JSONResponse({"volumes": [_volume(each) for _, each in sorted(schema.volumes.items())]})

    async def _create_volume(self, request: Request) -> Response:
        body = await request.json()
        made = self._metastore.create_volume(
            body["catalog_name"], body["schema_name"], body["name"], comment=body.get("comment")
        )
        return JSONResponse(_volume(made))

    def _volume(self, request: Request) -> Response:
        return JSONResponse(_volume(self._metastore.volume(*_parts(request, 3))))

    def _delete_volume(self, request: Request) -> Response:
        self._execution.drop_volume(self._metastore.volume(*_parts(request, 3)))
        return JSONResponse({})

    # --- tables

    def _tables(self, request: Request) -> Response:
        query = request.query_params
        schema = self._metastore.schema(query["catalog_name"], query["schema_name"])
        return JSONResponse({"tables": [self._described(each) for _, each in sorted(schema.tables.items())]})

    def _table(self, request: Request) -> Response:
        return JSONResponse(self._described(self._metastore.table(*_parts(request, 3))))

    def _exists(self, request: Request) -> Response:
        return JSONResponse({"table_exists": self._metastore.find_table(*_parts(request, 3)) is not None})

    def _delete_table(self, request: Request) -> Response:
        self._execution.drop_table(self._metastore.table(*_parts(request, 3)))
        return JSONResponse({})

    def _described(self, table: Table) -> dict[str, Any]:
        now = delta_log.snapshot(table.location)
        local = not delta_log.is_url(table.location)
        found: dict[str, Any] = {
            "name": table.name,
            "catalog_name": table.catalog,
            "schema_name": table.schema,
            "full_name": table.full_name,
            "table_type": "EXTERNAL" if table.external else "MANAGED",
            "data_source_format": "DELTA",
            "columns": [_column(place, each) for place, each in enumerate(now.fields)],
            "storage_location": f"file://{table.location}" if local else table.location,
            "properties": dict(self._execution.engine.properties(relation_of(table))),
            "table_id": table.id,
            **_made(table),
        }
        if table.primary_key is not None:
            name, columns = table.primary_key
            key = {"name": name, "child_columns": list(columns)}
            found["table_constraints"] = [{"primary_key_constraint": key}]
        return found

    # --- privileges

    def _effective(self, request: Request) -> Response:
        kind, name = request.path_params["type"].lower(), request.path_params["name"]
        looks = {"catalog": 1, "schema": 2, "volume": 3, "table": 3}
        if kind not in looks:
            raise invalid(f"'{kind}' is not a kind of securable that this workspace has.")
        parts = _parts(request, looks[kind])
        getattr(self._metastore, kind)(*parts)
        return JSONResponse({"privilege_assignments": self._grants.effective(kind, name.lower())})


def _parts(request: Request, count: int) -> list[str]:
    name: str = request.path_params["name"]
    parts = name.split(".")
    if len(parts) != count:
        raise not_found(f"'{name}' is not a name of {count} parts.")
    return parts


def _force(request: Request) -> bool:
    return request.query_params.get("force", "false").lower() == "true"


def _made(entity: Catalog | Schema | Table | Volume) -> dict[str, Any]:
    made: dict[str, Any] = {
        "owner": USER,
        "created_at": entity.created,
        "created_by": USER,
        "updated_at": entity.created,
        "updated_by": USER,
    }
    if entity.comment is not None:
        made["comment"] = entity.comment
    return made


def _catalog(catalog: Catalog) -> dict[str, Any]:
    return {
        "name": catalog.name,
        "full_name": catalog.name,
        "catalog_type": "MANAGED_CATALOG",
        "securable_type": "CATALOG",
        "isolation_mode": "OPEN",
        "id": catalog.id,
        **_made(catalog),
    }


def _schema(schema: Schema) -> dict[str, Any]:
    return {
        "name": schema.name,
        "catalog_name": schema.catalog,
        "full_name": f"{schema.catalog}.{schema.name}",
        "catalog_type": "MANAGED_CATALOG",
        "schema_id": schema.id,
        **_made(schema),
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
        **_made(volume),
    }


def _column(place: int, field: dict[str, Any]) -> dict[str, Any]:
    kind = field["type"]
    found = {
        "name": field["name"],
        "type_text": catalog_text_of(kind),
        "type_name": name_of(kind),
        "type_json": json.dumps(field),
        "position": place,
        "nullable": field["nullable"],
    }
    if isinstance(kind, str) and kind.startswith("decimal"):
        precision, scale = kind[len("decimal(") : -1].split(",")
        found |= {"type_precision": int(precision), "type_scale": int(scale)}
    if "comment" in field["metadata"]:
        found["comment"] = field["metadata"]["comment"]
    return found
