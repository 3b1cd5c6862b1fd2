"""Whether the warehouse may do what a sync will ask of it: tried on a table that goes again."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from neon_lake.destinations.databricks.ledger import FOLDER, Shelf
from neon_lake.destinations.databricks.namespace import has_schema
from neon_lake.destinations.databricks.sql import file, quoted
from neon_lake.errors import DestinationError, Finding
from neon_lake.workspace.connection import translated
from neon_lake.workspace.statements import Warehouse

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

NEEDED: Final = ("USE CATALOG", "USE SCHEMA", "CREATE TABLE", "SELECT", "MODIFY")
"""Privileges on a schema that tables are made in, or on what holds it."""


def rehearse(
    client: WorkspaceClient,
    warehouse: Warehouse,
    shelf: Shelf,
    root: str,
    schemas: Sequence[tuple[str, str]],
    *,
    start: bool,
) -> Sequence[Finding]:
    """Make, fill, merge, read and drop a table in each schema, from a file on the volume.

    `schemas` are (catalog, schema). A warehouse that is stopped is started only when it is to `start`; else nothing is
    tried, which is no problem.
    """
    if not start and not warehouse.running():
        asleep = f"SQL warehouse {warehouse.id} is not running, so no statement was tried; check --start starts it"
        return [Finding(subject="destination", detail=asleep)]
    path = f"{FOLDER}/check-{secrets.token_hex(8)}"
    found = []
    try:
        shelf.create(path, b'{"n": 1}')
        for catalog, schema in schemas:
            found.append(_of_schema(client, warehouse, f"{root}/{path}", catalog, schema))
    finally:
        shelf.delete([path])
    return found


def _of_schema(client: WorkspaceClient, warehouse: Warehouse, path: str, catalog: str, schema: str) -> Finding:
    full, problem = f"{catalog}.{schema}", None
    with translated(f"schema {full}", "grant this identity USE CATALOG and USE SCHEMA there"):
        there = has_schema(client, full)
    if not there:
        detail = f"schema {full} is made by the first sync, with CREATE SCHEMA on {catalog}"
        return Finding(subject="destination", detail=detail)
    name = f"neon_lake_check_{secrets.token_hex(8)}"
    table, about = quoted(catalog, schema, name), f"{full}.{name}"
    try:
        warehouse.run(f"CREATE TABLE {table} USING DELTA AS SELECT n FROM {file('json', path)}", about)
        try:
            warehouse.run(
                f"MERGE INTO {table} AS t USING (SELECT 1 AS n) AS s ON t.n = s.n WHEN MATCHED THEN DELETE", about
            )
            warehouse.rows(f"SELECT count(*) AS n FROM {table}", about)
        finally:
            warehouse.run(f"DROP TABLE IF EXISTS {table}", about)
    except DestinationError as exc:
        problem = f"{exc} A sync needs {', '.join(NEEDED)} on {full}, and READ VOLUME where staging lies."
    return Finding(subject="destination", detail=f"tables can be made, merged and read in {full}", problem=problem)
