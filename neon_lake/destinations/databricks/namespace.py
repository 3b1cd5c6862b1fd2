"""Where tables are to be made: their schema, and whether the name is free.

`databricks.sdk` is loaded by the functions that need it: half a second, which only its users pay.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from neon_lake.errors import DestinationError
from neon_lake.schema import TableName
from neon_lake.workspace.connection import asked, in_path, translated

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


def has_schema(client: WorkspaceClient, full: str) -> bool:
    """Whether a schema is there, as far as this identity may see. Raises what the SDK raises."""
    from databricks.sdk.errors import NotFound  # noqa: PLC0415

    try:
        asked(client, lambda: client.schemas.get(in_path(full)))
    except NotFound:
        return False
    return True


def make_schema(client: WorkspaceClient, catalog: str, schema: str) -> None:
    """Make a schema, if it is not there. Raises `DestinationUnavailable` and `DestinationError`."""
    from databricks.sdk.errors import AlreadyExists, BadRequest  # noqa: PLC0415

    full = f"{catalog}.{schema}"
    with translated(f"schema {full}", f"grant this identity USE SCHEMA on it, or CREATE SCHEMA on {catalog}"):
        if has_schema(client, full):
            return
        # another run may make it at the same time
        with suppress(AlreadyExists, BadRequest):
            asked(client, lambda: client.schemas.create(name=schema, catalog_name=catalog))
        asked(client, lambda: client.schemas.get(in_path(full)))


def refuse_foreign(client: WorkspaceClient, full: str, pipeline: str, table: TableName) -> None:
    """Raise `DestinationError` when a table of that full name is there that this pipeline has not made of `table`."""
    from databricks.sdk.errors import NotFound  # noqa: PLC0415

    with translated(f"table {full}", "grant this identity USE CATALOG, USE SCHEMA and SELECT there"):
        try:
            found = asked(client, lambda: client.tables.get(in_path(full))).properties or {}
        except NotFound:
            return
    if (found.get("neon_lake.pipeline"), found.get("neon_lake.table")) != (pipeline, str(table)):
        raise DestinationError(
            f"{full} is there and was not written by the pipeline {pipeline} from {table}; rename it, or give the "
            "table another name with target, or another schema."
        )
