"""Tables of Unity Catalog: what their log says, and what only the workspace knows.

Source: https://docs.databricks.com/api/workspace/tables
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
from neon_lake_tests.workspace.metastore import Metastore, Table
from neon_lake_tests.workspace.unity_api import BASE, made, parts_of


class TablesApi:
    """The routes for tables."""

    def __init__(self, metastore: Metastore, execution: Execution) -> None:
        self._metastore, self._execution = metastore, execution

    def routes(self) -> list[Route]:
        """What this answers to."""
        return [
            Route(f"{BASE}/tables", self._tables, methods=["GET"]),
            Route(f"{BASE}/tables/{{name}}", self._table, methods=["GET"]),
            Route(f"{BASE}/tables/{{name}}/exists", self._exists, methods=["GET"]),
            Route(f"{BASE}/tables/{{name}}", self._delete_table, methods=["DELETE"]),
            Route("/test/tables", self._paths, methods=["GET"]),
        ]

    def _tables(self, request: Request) -> Response:
        query = request.query_params
        schema = self._metastore.schema(query["catalog_name"], query["schema_name"])
        return JSONResponse({"tables": [self._described(each) for _, each in sorted(schema.tables.items())]})

    def _table(self, request: Request) -> Response:
        return JSONResponse(self._described(self._metastore.table(*parts_of(request, 3))))

    def _exists(self, request: Request) -> Response:
        return JSONResponse({"table_exists": self._metastore.find_table(*parts_of(request, 3)) is not None})

    def _delete_table(self, request: Request) -> Response:
        self._execution.drop_table(self._metastore.table(*parts_of(request, 3)))
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
            **made(table),
        }
        if table.primary_key is not None:
            name, columns = table.primary_key
            key = {"name": name, "child_columns": list(columns)}
            found["table_constraints"] = [{"primary_key_constraint": key}]
        return found

    def _paths(self, _: Request) -> Response:
        """Where tables lie, for tests: by their full names."""
        return JSONResponse({name: table.location for name, table in self._metastore.tables().items()})


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
