"""Tables that are made and changed through their log, for an engine that only reads and writes rows.

Some properties are not written, only remembered: those that would make a table one that the engine cannot write.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
from deltalake import DeltaTable

from neon_lake_tests.workspace import commands as c
from neon_lake_tests.workspace import delta_log
from neon_lake_tests.workspace.data_types import DeltaType, arrow_type, field, sql_type, storable
from neon_lake_tests.workspace.engines import NewTable, Relation, quoted
from neon_lake_tests.workspace.sql_errors import SqlFailed, unsupported
from neon_lake_tests.workspace.table_rules import ensure_fit, ensure_known, ensure_unique, kept, place, written


class LogTables(ABC):
    """The part of an engine that is about tables as a whole."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._remembered: dict[str, dict[str, str]] = {}
        self._clustered: dict[str, tuple[str, ...]] = {}

    @abstractmethod
    def run(self, sql: str) -> pa.Table:
        """The rows of a statement."""

    # --- tables that come

    def create(self, relation: Relation, new: NewTable) -> int:
        """Make a table, or replace all of the one that is there, in one commit; gives the number of its rows."""
        ensure_known(new.properties)
        rows = None
        if new.query is not None:
            rows = self.run(new.query)
            rows = rows.cast(pa.schema([pa.field(each.name, storable(each.type)) for each in rows.schema]))
            fields = [field(each.name, _stored(arrow_type(each.type))) for each in rows.schema]
        else:
            fields = [_field(column) for column in new.columns]
        ensure_unique(fields)
        ensure_fit(fields, new.properties)
        with self._lock:
            location = relation.location
            version = delta_log.version_of(location)
            described = delta_log.metadata(fields, properties=written(new.properties), comment=new.comment)
            actions = [{"protocol": delta_log.protocol(fields)}, {"metaData": described}]
            if version >= 0:
                actions += delta_log.removals(location)
            count = 0 if rows is None else rows.num_rows
            if rows is not None and count:
                actions.append(delta_log.add_file(location, rows))
            operation = "CREATE TABLE" if new.query is None else "CREATE TABLE AS SELECT"
            if version >= 0:
                operation = operation.replace("CREATE", "CREATE OR REPLACE")
            metrics = {"numFiles": str(int(count > 0)), "numOutputRows": str(count)}
            delta_log.commit(location, version + 1, operation, actions, operationMetrics=metrics if rows else {})
            self._remembered[location] = kept(new.properties)
            self._clustered[location] = tuple(new.cluster_by)
        return count

    # --- tables that change

    def alter(self, relation: Relation, action: c.Action) -> None:
        """Change a table, in one of the ways that are not the metastore's alone."""
        with self._lock:
            now = delta_log.snapshot(relation.location)
            if isinstance(action, c.AddColumns):
                self._add_columns(relation, now, action)
            elif isinstance(action, c.DropColumns | c.RenameColumn):
                self._remap(relation, now, action)
            elif isinstance(action, c.ChangeColumn):
                self._change_column(relation, now, action)
            elif isinstance(action, c.SetProperties):
                self._set_properties(relation, now, action)
            elif isinstance(action, c.ClusterBy):
                for name in action.columns:
                    place(now.fields, name)
                self._clustered[relation.location] = action.columns
            else:
                raise unsupported("such change of a table")

    def _add_columns(self, relation: Relation, now: delta_log.Snapshot, action: c.AddColumns) -> None:
        fields = now.fields + [_field(column) for column in action.columns]
        there = {each["name"].lower() for each in now.fields}
        for column in action.columns:
            if column.name.lower() in there:
                said = f"Cannot add column, because `{column.name}` already exists."
                raise SqlFailed("FIELD_ALREADY_EXISTS", said, "42710")
            if not column.nullable:
                raise SqlFailed("DELTA_ADDING_COLUMN_WITH_NOT_NULL", "A new column cannot be NOT NULL.", "42601")
        ensure_fit(fields, self.properties(relation))
        delta_log.change_metadata(relation.location, "ADD COLUMNS", delta_log.with_fields(fields))

    def _remap(self, relation: Relation, now: delta_log.Snapshot, action: c.DropColumns | c.RenameColumn) -> None:
        """Rewrites the rows, where column mapping would do with the log."""
        if self.properties(relation).get("delta.columnMapping.mode") != "name":
            said = "Column drop and rename are supported for tables with column mapping mode 'name' only."
            raise SqlFailed("DELTA_UNSUPPORTED_COLUMN_MAPPING_OPERATION", said, "0AKDC")
        fields, rows = now.fields, self._rows(relation)
        if isinstance(action, c.RenameColumn):
            at = place(fields, action.old)
            fields[at]["name"] = action.new
            ensure_unique(fields)
            self._rewrite(
                relation, now, fields, rows.rename_columns([each["name"] for each in fields]), "RENAME COLUMN"
            )
            return
        there = {each["name"].lower() for each in fields}
        for name in action.names:
            if not (action.if_exists and name.lower() not in there):
                del fields[place(fields, name)]
        self._rewrite(relation, now, fields, rows.select([each["name"] for each in fields]), "DROP COLUMNS")

    def _change_column(self, relation: Relation, now: delta_log.Snapshot, action: c.ChangeColumn) -> None:
        fields = now.fields
        changed = fields[place(fields, action.name)]
        if action.kind is not None:
            if self.properties(relation).get("delta.enableTypeWidening") != "true":
                said = f"ALTER TABLE CHANGE COLUMN is not supported for changing column `{action.name}`'s type."
                raise SqlFailed("DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP", said, "0AKDC")
            changed["type"] = sql_type(action.kind)
            chosen = ", ".join(
                f"CAST({quoted(each['name'])} AS {action.kind}) AS {quoted(each['name'])}"
                if each is changed
                else quoted(each["name"])
                for each in fields
            )
            rows = self.run(f"SELECT {chosen} FROM {relation.quoted}")
            self._rewrite(relation, now, fields, rows, "CHANGE COLUMN")
            return
        if action.nullable is not None:
            changed["nullable"] = action.nullable
        if action.comment is not None:
            changed["metadata"] = {**changed["metadata"], "comment": action.comment}
        delta_log.change_metadata(relation.location, "CHANGE COLUMN", delta_log.with_fields(fields))

    def _rows(self, relation: Relation) -> pa.Table:
        return self.run(f"SELECT * FROM {relation.quoted}")

    def _rewrite(
        self, relation: Relation, now: delta_log.Snapshot, fields: list[dict[str, Any]], rows: pa.Table, operation: str
    ) -> None:
        location = relation.location
        described = {**now.metadata, **delta_log.with_fields(fields)}
        rows = rows.cast(pa.schema([pa.field(each.name, storable(each.type)) for each in rows.schema]))
        actions = [{"metaData": described}, *delta_log.removals(location), delta_log.add_file(location, rows)]
        delta_log.commit(location, now.version + 1, operation, actions)

    def _set_properties(self, relation: Relation, now: delta_log.Snapshot, action: c.SetProperties) -> None:
        ensure_known(action.values)
        set_ = {**now.properties, **written(action.values)}
        hidden = {**self._remembered.get(relation.location, {}), **kept(action.values)}
        for name in action.gone:
            set_.pop(name, None)
            hidden.pop(name, None)
        self._remembered[relation.location] = hidden
        operation = "SET TBLPROPERTIES" if action.values else "UNSET TBLPROPERTIES"
        delta_log.change_metadata(relation.location, operation, {"configuration": set_})

    def comment(self, relation: Relation, text: str | None) -> None:
        """Say what a table is."""
        with self._lock:
            delta_log.change_metadata(relation.location, "SET TBLPROPERTIES", {"description": text})

    def truncate(self, relation: Relation) -> int:
        """Remove all rows; gives their number."""
        with self._lock:
            count = self.run(f"SELECT count(*) AS n FROM {relation.quoted}")["n"][0].as_py()
            removals = delta_log.removals(relation.location)
            delta_log.commit(
                relation.location,
                delta_log.version_of(relation.location) + 1,
                "TRUNCATE",
                removals,
                operationMetrics={"numRemovedFiles": str(len(removals)), "numDeletedRows": str(count)},
            )
        return int(count)

    # --- tables as they are

    def properties(self, relation: Relation) -> Mapping[str, str]:
        """The table's properties."""
        return {**delta_log.snapshot(relation.location).properties, **self._remembered.get(relation.location, {})}

    def history(self, relation: Relation, limit: int | None) -> pa.Table:
        """The commits of a table, the last one first."""
        rows = [
            {
                "version": each["version"],
                "timestamp": datetime.fromtimestamp(each["timestamp"] / 1000, UTC),
                "userId": None,
                "userName": None,
                "operation": each.get("operation"),
                "operationParameters": _texts(each.get("operationParameters")),
                "readVersion": each.get("readVersion"),
                "isolationLevel": each.get("isolationLevel"),
                "isBlindAppend": each.get("isBlindAppend"),
                "operationMetrics": _texts(each.get("operationMetrics")),
                "userMetadata": each.get("userMetadata"),
                "engineInfo": each.get("engineInfo"),
            }
            for each in DeltaTable(relation.location).history(limit)
        ]
        return pa.Table.from_pylist(rows, schema=_HISTORY)

    def detail(self, relation: Relation) -> pa.Table:
        """One row about a table."""
        table = DeltaTable(relation.location)
        files, now = pa.table(table.get_add_actions()), delta_log.snapshot(relation.location)
        commits = table.history()
        row = {
            "format": "delta",
            "id": now.metadata["id"],
            "name": None,
            "description": now.metadata.get("description"),
            "location": relation.location,
            "createdAt": datetime.fromtimestamp(commits[-1]["timestamp"] / 1000, UTC),
            "lastModified": datetime.fromtimestamp(commits[0]["timestamp"] / 1000, UTC),
            "partitionColumns": [],
            "clusteringColumns": list(self._clustered.get(relation.location, ())),
            "numFiles": files.num_rows,
            "sizeInBytes": sum(files["size_bytes"].to_pylist()),
            "properties": list(self.properties(relation).items()),
            "minReaderVersion": table.protocol().min_reader_version,
            "minWriterVersion": table.protocol().min_writer_version,
        }
        return pa.Table.from_pylist([row], schema=_DETAIL)

    def restore(self, relation: Relation, version: int) -> pa.Table:
        """Bring back a table as it was; gives what that took."""
        with self._lock:
            table = DeltaTable(relation.location)
            if not 0 <= version <= table.version():
                said = (
                    f"Cannot time travel Delta table to version {version}. Available versions: [0, {table.version()}]."
                )
                raise SqlFailed("DELTA_VERSION_NOT_FOUND", said, "22003")
            metrics = table.restore(version)
            files = pa.table(DeltaTable(relation.location).get_add_actions())
        return pa.table(
            {
                "table_size_after_restore": pa.array([sum(files["size_bytes"].to_pylist())], pa.int64()),
                "num_of_files_after_restore": pa.array([files.num_rows], pa.int64()),
                "num_removed_files": pa.array([metrics["numRemovedFile"]], pa.int64()),
                "num_restored_files": pa.array([metrics["numRestoredFile"]], pa.int64()),
                "removed_files_size": pa.array([None], pa.int64()),
                "restored_files_size": pa.array([None], pa.int64()),
            }
        )

    def optimize(self, relation: Relation) -> pa.Table:
        """Make few large files of many small ones."""
        with self._lock:
            metrics = DeltaTable(relation.location).optimize.compact()
        said = {"numFilesAdded": metrics["numFilesAdded"], "numFilesRemoved": metrics["numFilesRemoved"]}
        return pa.table({"path": [relation.location], "metrics": [said]})

    def vacuum(self, relation: Relation, hours: int | None) -> pa.Table:
        """Remove files that no version needs which is younger than so many hours."""
        with self._lock:
            DeltaTable(relation.location).vacuum(retention_hours=hours, dry_run=False)
        return pa.table({"path": [relation.location]})


def _field(column: c.ColumnSpec) -> dict[str, Any]:
    metadata = {} if column.comment is None else {"comment": column.comment}
    return field(column.name, _stored(sql_type(column.kind)), nullable=column.nullable, metadata=metadata)


def _stored(kind: DeltaType) -> DeltaType:
    if "variant" in json.dumps(kind):
        raise unsupported("VARIANT on Sail; run it on Spark")
    if kind == "void":
        raise SqlFailed("DELTA_NULL_SCHEMA_IN_CREATE_TABLE", "A column of a new table has the type VOID.", "42K0D")
    return kind


def _texts(values: Mapping[str, Any] | None) -> list[tuple[str, str]] | None:
    return None if values is None else [(name, str(value)) for name, value in values.items()]


_HISTORY: Final = pa.schema(
    {
        "version": pa.int64(),
        "timestamp": pa.timestamp("us", "UTC"),
        "userId": pa.string(),
        "userName": pa.string(),
        "operation": pa.string(),
        "operationParameters": pa.map_(pa.string(), pa.string()),
        "readVersion": pa.int64(),
        "isolationLevel": pa.string(),
        "isBlindAppend": pa.bool_(),
        "operationMetrics": pa.map_(pa.string(), pa.string()),
        "userMetadata": pa.string(),
        "engineInfo": pa.string(),
    }
)
_DETAIL: Final = pa.schema(
    {
        "format": pa.string(),
        "id": pa.string(),
        "name": pa.string(),
        "description": pa.string(),
        "location": pa.string(),
        "createdAt": pa.timestamp("us", "UTC"),
        "lastModified": pa.timestamp("us", "UTC"),
        "partitionColumns": pa.list_(pa.string()),
        "clusteringColumns": pa.list_(pa.string()),
        "numFiles": pa.int64(),
        "sizeInBytes": pa.int64(),
        "properties": pa.map_(pa.string(), pa.string()),
        "minReaderVersion": pa.int32(),
        "minWriterVersion": pa.int32(),
    }
)
