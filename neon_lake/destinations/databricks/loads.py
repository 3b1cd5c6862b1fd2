"""Whole tables from staged snapshots.

A snapshot's rows get the last `_lsn` before its position: they are older than every change that follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from neon_lake.apply.staged import StagedFile, StagedSnapshot
from neon_lake.change import COMMITTED_AT, DELETED_AT, LSN, OP, READ, ROW_ID, SEQUENCE, TIMESTAMP, TRUNCATE
from neon_lake.config import Pipeline, WriteMode
from neon_lake.destinations.databricks.rows import row_id
from neon_lake.destinations.databricks.sql import file, moment, null, properties, quoted, text
from neon_lake.errors import TableRefused
from neon_lake.schema import RESCUED, Relation

PART: Final = "_neon_lake_part"
"""Column of a table that is being loaded: which group of files a row is of. Of one that is read: which row of a key."""

LOAD_BYTES: Final = 8 << 30
"""Bytes of staged files that one statement loads; a larger table is loaded group by group, beside the old one."""
LOAD_FILES: Final = 256

_CLUSTERING: Final = 4
_WITH_STATISTICS: Final = 32


@dataclass(frozen=True, kw_only=True)
class Load:
    """The statements that make `table`, of the columns of `schema`, what a snapshot is."""

    table: str
    snapshot: StagedSnapshot
    schema: pa.Schema
    root: str
    fence: str

    def create(self, options: Mapping[str, str], source: str | None = None, kept: pa.Schema | None = None) -> str:
        """Make the table, or put another in its place, by one commit; from the staged files, or from `source`.

        `kept` is the schema of the table that is there, when its rows are to stay which the snapshot lacks.
        """
        rows = f"SELECT {self._columns} FROM {source}" if source else self._rows(self.snapshot.files)
        if kept is not None:
            rows = self._with_deleted(rows, kept)
        comment = self.snapshot.relation.comment
        clauses = [
            f"CREATE OR REPLACE TABLE {self.table} USING DELTA",
            *([f"CLUSTER BY ({', '.join(map(quoted, chosen))})"] if (chosen := clustering(self.schema)) else []),
            *([f"COMMENT {text(comment)}"] if comment else []),
            properties(dict(options)),
            f"AS SELECT * FROM ({rows}) WHERE {self.fence}",
        ]
        return " ".join(clauses)

    def create_side(self, side: str) -> str:
        """Make the table that groups of files are put into, one after another, unless it is there."""
        nothing = ", ".join(f"{null(field.type)} AS {quoted(field.name)}" for field in self.schema)
        return (
            f"CREATE TABLE IF NOT EXISTS {side} USING DELTA {properties(SIDE_OPTIONS)} "
            f"AS SELECT {nothing}, CAST(NULL AS int) AS {PART} WHERE false"
        )

    def fill_side(self, side: str, part: int, files: Sequence[StagedFile]) -> str:
        """Put one group into the side table, unless it has it."""
        return (
            f"INSERT INTO {side} SELECT {self._columns}, {part} AS {PART} FROM ({self._rows(files)}) "
            f"WHERE NOT EXISTS (SELECT 1 FROM {side} WHERE {PART} = {part}) AND {self.fence}"
        )

    def append(self) -> str:
        """Put the snapshot behind the changes that the table has (mode append), unless it is there."""
        lsn = int(self.snapshot.lsn) - 1
        emptied = {OP: text(TRUNCATE), LSN: str(lsn), SEQUENCE: "CAST(-1 AS bigint)", COMMITTED_AT: self._taken}
        first = ", ".join(f"{emptied.get(f.name, null(f.type))} AS {quoted(f.name)}" for f in self.schema)
        there = f"EXISTS (SELECT 1 FROM {self.table} WHERE {LSN} = {lsn} AND {OP} = {text(TRUNCATE)})"
        return (
            f"INSERT INTO {self.table} ({self._columns}) SELECT {self._columns} FROM "
            f"(SELECT {first} UNION ALL {self._rows(self.snapshot.files)}) WHERE NOT {there} AND {self.fence}"
        )

    def _with_deleted(self, rows: str, old: pa.Schema) -> str:
        """The rows, and of every other key the newest row of the table, marked as deleted."""
        alive = f"{DELETED_AT} IS NULL"
        own = {
            DELETED_AT: f"coalesce({DELETED_AT}, {self._taken})",
            COMMITTED_AT: f"CASE WHEN {alive} THEN {self._taken} ELSE {COMMITTED_AT} END",
            LSN: f"CASE WHEN {alive} THEN CAST({int(self.snapshot.lsn) - 1} AS bigint) ELSE {LSN} END",
        }
        there = {name: quoted(name) for name in old.names} | own
        chosen = ", ".join(f"{there.get(f.name, null(f.type))} AS {quoted(f.name)}" for f in self.schema)
        keys = [quoted(column.name) for column in self.snapshot.relation.key]
        newest = f"row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {LSN} DESC) AS {PART}"
        return (
            f"WITH s AS ({rows}) SELECT {self._columns} FROM s UNION ALL "
            f"SELECT {chosen} FROM (SELECT *, {newest} FROM {self.table}) AS o "
            f"LEFT ANTI JOIN s ON {' AND '.join(f'o.{key} = s.{key}' for key in keys)} WHERE {PART} = 1"
        )

    @property
    def _columns(self) -> str:
        return ", ".join(quoted(field.name) for field in self.schema)

    @property
    def _taken(self) -> str:
        return moment(self.snapshot.taken_at)

    def _rows(self, files: Sequence[StagedFile]) -> str:
        if not files:
            nothing = ", ".join(f"{null(field.type)} AS {quoted(field.name)}" for field in self.schema)
            return f"SELECT {nothing} WHERE false"
        return " UNION ALL ".join(self._file(staged) for staged in files)

    def _file(self, staged: StagedFile) -> str:
        own = {
            LSN: f"CAST({int(self.snapshot.lsn) - 1} AS bigint)",
            COMMITTED_AT: self._taken,
            DELETED_AT: null(TIMESTAMP),
            OP: text(READ),
            SEQUENCE: "CAST(0 AS bigint)",
            RESCUED: RESCUED,
        }
        if ROW_ID in self.schema.names:
            columns = [(c.name, c.arrow, quoted(c.name)) for c in self.snapshot.relation.columns]
            own[ROW_ID] = row_id(columns, RESCUED)
        names = {column.name for column in self.snapshot.relation.columns}
        chosen = []
        for field in self.schema:
            value = quoted(field.name) if field.name in names else own.get(field.name, null(field.type))
            chosen.append(f"{value} AS {quoted(field.name)}")
        return f"SELECT {', '.join(chosen)} FROM {file('parquet', f'{self.root}/{staged.path}')}"


SIDE_OPTIONS: Final = {"delta.isolationLevel": "Serializable", "delta.columnMapping.mode": "name"}


def options(relation: Relation, pipeline: Pipeline) -> dict[str, str]:
    """The properties of a table: how Delta is to keep it, and whose it is; of the source, host and database."""
    url = urlsplit(pipeline.source.url)
    return {
        **SIDE_OPTIONS,
        "delta.enableDeletionVectors": "true",
        "neon_lake.pipeline": pipeline.name,
        "neon_lake.source": f"{url.hostname or ''}{unquote(url.path)}",
        "neon_lake.table": str(relation.table),
    }


def clustering(schema: pa.Schema) -> Sequence[str]:
    """The columns that a table is clustered by: its key, as far as liquid clustering takes it.

    Source: https://docs.databricks.com/delta/clustering
    """
    from neon_lake.schema import KEY  # noqa: PLC0415

    key = [(place, f) for place, f in enumerate(schema) if f.metadata and KEY in f.metadata and f.name != ROW_ID]
    if any(place >= _WITH_STATISTICS or _unclustered(f.type) for place, f in key):
        return ()
    return [f.name for _, f in key[:_CLUSTERING]]


def _unclustered(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_boolean(kind) or pa.types.is_nested(kind))


def dressing(table: str, name: str, snapshot: StagedSnapshot) -> Sequence[str]:
    """What a table that was made from a query lacks: its primary key, and the comments of its columns."""
    of_columns = [
        f"ALTER TABLE {table} ALTER COLUMN {quoted(column.name)} COMMENT {text(column.comment)}"
        for column in snapshot.relation.columns
        if column.comment is not None
    ]
    if snapshot.mode is WriteMode.APPEND or not snapshot.relation.key:
        return of_columns
    keys = [quoted(column.name) for column in snapshot.relation.key]
    return [
        *of_columns,
        *(f"ALTER TABLE {table} ALTER COLUMN {key} SET NOT NULL" for key in keys),
        f"ALTER TABLE {table} ADD CONSTRAINT {quoted(f'{name}_pk')} PRIMARY KEY ({', '.join(keys)})",
    ]


def refuse_twins(snapshot: StagedSnapshot) -> None:
    """Raise `TableRefused` when two columns differ by upper and lower case alone: Databricks takes them for one."""
    seen: dict[str, str] = {}
    for column in snapshot.relation.columns:
        if other := seen.get(column.name.casefold()):
            raise TableRefused(
                f"{snapshot.relation.table} has the columns {other} and {column.name}, which Databricks does not tell "
                "apart; leave one out with exclude, or rename it."
            )
        seen[column.name.casefold()] = column.name


def groups(files: Sequence[StagedFile]) -> Sequence[Sequence[StagedFile]]:
    """Files in groups that one statement can load."""
    found: list[list[StagedFile]] = [[]]
    size = 0
    for staged in files:
        if found[-1] and (size + staged.bytes > LOAD_BYTES or len(found[-1]) >= LOAD_FILES):
            found.append([])
            size = 0
        found[-1].append(staged)
        size += staged.bytes
    return found
