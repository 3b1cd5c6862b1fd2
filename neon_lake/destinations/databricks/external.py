"""Delta tables in an object store, written by delta-rs, which Unity Catalog knows as external tables.

The warehouse is asked when a table is made, and when its columns change; merges do without it.
Source: https://docs.databricks.com/sql/language-manual/sql-ref-external-tables
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from neon_lake.apply.plan import MergePlan
from neon_lake.change import Lsn
from neon_lake.config import DeltaConfig, Pipeline
from neon_lake.destinations.base import Target
from neon_lake.destinations.databricks.inspection import Inspection
from neon_lake.destinations.databricks.sql import quoted, text
from neon_lake.destinations.delta import DeltaDestination
from neon_lake.errors import DestinationError, DestinationUnavailable, Finding
from neon_lake.schema import TableName
from neon_lake.workspace.connection import in_path, translated
from neon_lake.workspace.statements import StatementFailed, Warehouse

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


class ExternalDestination(DeltaDestination):
    """`Lake` in an object store, registered in Unity Catalog.

    A run that died between a table and its registration is made up for by the next one that writes the table.
    """

    def __init__(
        self, client: WorkspaceClient, pipeline: Pipeline, *, warehouse: Warehouse, options: Mapping[str, str]
    ) -> None:
        assert isinstance(pipeline.destination, DeltaConfig)
        super().__init__(pipeline.destination.path, pipeline=pipeline.name, options=options)
        self._client, self._file, self._warehouse = client, pipeline, warehouse
        self._columns: dict[TableName, list[str] | None] = {}

    def inspect(self) -> Sequence[Finding]:
        """See `Destination.inspect`."""
        assert isinstance(self._file.destination, DeltaConfig)
        unity = self._file.destination.unity
        assert unity is not None
        return [self.check(), *Inspection(self._client, unity).findings()]

    def replace(
        self,
        table: TableName,
        old: Target | None,
        schema: pa.Schema,
        rows: Iterator[pa.RecordBatch],
        watermark: Lsn,
        *,
        keep: bool = False,
    ) -> Target:
        """See `Lake.replace`."""
        self._look(table)
        return self._registered(super().replace(table, old, schema, rows, watermark, keep=keep))

    def merge(self, old: Target, schema: pa.Schema, plan: MergePlan, watermark: Lsn, within: int = 0) -> Target:
        """See `Lake.merge`."""
        self._look(old.table)
        return self._registered(super().merge(old, schema, plan, watermark, within))

    def _look(self, table: TableName) -> None:
        """Ask Unity Catalog, once, for the columns that it has of a table."""
        if table not in self._columns:
            self._columns[table] = self._known(table, ".".join(self._parts(table)))

    def _registered(self, target: Target) -> Target:
        """See to it that Unity Catalog has the table with its columns."""
        table, names, known = target.table, target.schema.names, self._columns[target.table]
        full = quoted(*self._parts(table))
        if known is None:
            self._run(table, f"CREATE TABLE IF NOT EXISTS {full} USING DELTA LOCATION {text(self.path(table))}")
        elif known != names:
            self._run(table, f"MSCK REPAIR TABLE {full} SYNC METADATA")
        self._columns[table] = names
        return target

    def _run(self, table: TableName, statement: str) -> None:
        try:
            self._warehouse.run(statement, str(table))
        except StatementFailed as exc:
            # the table itself is well, and is not to be parked for it
            raise DestinationUnavailable(f"{table} is in the lake, and not known to Unity Catalog: {exc}") from exc

    def _parts(self, table: TableName) -> tuple[str, str, str]:
        parts = self._file.unity_name(table)
        assert parts is not None, "the lake is registered"
        return parts

    def _known(self, table: TableName, full: str) -> list[str] | None:
        """The columns that Unity Catalog has of a table; None when it has no such table."""
        from databricks.sdk.errors import NotFound  # noqa: PLC0415 - see `workspace.connection.connect`

        with translated(f"table {full}", "grant this identity USE CATALOG, USE SCHEMA and SELECT there"):
            try:
                found = self._client.tables.get(in_path(full))
            except NotFound:
                return None
        if str(found.storage_location).rstrip("/") != self.path(table).rstrip("/"):
            raise DestinationError(
                f"{full} is there and lies elsewhere ({found.storage_location}); rename it, or give {table} another "
                "name with target."
            )
        return [str(column.name) for column in found.columns or ()]
