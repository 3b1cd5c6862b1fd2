"""Snapshots of the source, and the rows of a table in one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pyarrow as pa
from psycopg import sql

from neon_lake.change import Lsn, XidSnapshot
from neon_lake.errors import SourceError
from neon_lake.schema import RESCUED, Column, Relation, TableName
from neon_lake.sources.base import Snapshot
from neon_lake.sources.postgres import arrow_reader, catalog, slot
from neon_lake.sources.postgres.connection import Connection, ConnectionSettings
from neon_lake.sources.postgres.queries import query
from neon_lake.sources.postgres.type_map import NATIVE, SqlType, arrow_type, cast, rescue

RANGE_BLOCKS: Final = 16384
"""Blocks of a table that one statement reads (128 MiB at the usual size)."""

_ISOLATION: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

_FLUSH_PATIENCE: Final = 1.2
"""Seconds. The WAL writer flushes commits that did not wait for it within three times wal_writer_delay (0.2 s)."""


@contextmanager
def of_slot(settings: ConnectionSettings, name: str, *, temporary: bool) -> Iterator[Snapshot]:
    """Create a slot and hold the snapshot at its consistent point."""
    with settings.replicate() as walsender:
        lsn, exported = slot.create(walsender, name, temporary=temporary)
        with settings.connect(autocommit=False) as connection:
            _begin(settings, connection, exported)
            taken_at, visible = _facts(connection)
            yield Snapshot(name=exported, lsn=lsn, taken_at=taken_at, visible=visible)


@contextmanager
def plain(settings: ConnectionSettings) -> Iterator[Snapshot]:
    """Hold a snapshot of this moment."""
    with settings.connect(autocommit=False) as connection:
        _begin(settings, connection, None)
        taken_at, visible = _facts(connection)
        row = connection.execute(query("export_snapshot")).fetchone()
        assert row is not None
        yield Snapshot(name=row[0], lsn=_flushed(connection), taken_at=taken_at, visible=visible)


def _flushed(connection: Connection) -> Lsn:
    """A flushed position past every commit that is visible: commits may become visible before they are flushed."""
    deadline = time.monotonic() + _FLUSH_PATIENCE
    target, flushed = _progress(connection)
    while flushed < target and time.monotonic() < deadline:
        time.sleep(0.02)
        _, flushed = _progress(connection)
    return min(target, flushed)


def _progress(connection: Connection) -> tuple[Lsn, Lsn]:
    row = connection.execute(query("flush_progress")).fetchone()
    assert row is not None
    return Lsn.parse(row[0]), Lsn.parse(row[1])


def _begin(settings: ConnectionSettings, connection: Connection, exported: str | None) -> None:
    """Begin a transaction that sees one moment; `exported` imports that of another session."""
    connection.execute(_ISOLATION)
    if exported is None:
        return
    with settings.importing():
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(exported))


def _facts(connection: Connection) -> tuple[datetime, XidSnapshot]:
    row = connection.execute(query("snapshot_facts")).fetchone()
    assert row is not None
    return row[0], XidSnapshot.parse(row[1])


def count(settings: ConnectionSettings, snapshot: Snapshot, table: TableName) -> int:
    """The number of rows that a table itself, or its partitions, have in the snapshot."""
    with settings.connect(autocommit=False) as connection:
        _begin(settings, connection, snapshot.name)
        total = 0
        for leaf, _ in _leaves(connection, table):
            statement = sql.SQL("SELECT pg_catalog.count(*) FROM ONLY {}").format(sql.Identifier(*leaf))
            row = connection.execute(statement).fetchone()
            assert row is not None
            total += row[0]
        return total


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """How one column is read: the SQL that selects it, and the type of its text, or None when it comes typed."""

    column: Column
    expression: sql.Composable
    text: SqlType | None


def read(settings: ConnectionSettings, snapshot: Snapshot, relation: Relation) -> Iterator[pa.RecordBatch]:
    """The rows of a table in the snapshot: the relation's columns, then `_rescued_data`."""
    with settings.connect(autocommit=False) as connection:
        _begin(settings, connection, snapshot.name)
        readings = _readings(connection, relation)
        statements = [
            _statement(readings, leaf, first, end).as_string(connection)
            for leaf, blocks in _leaves(connection, relation.table)
            for first, end in _ranges(blocks)
        ]
    begin = (_ISOLATION, sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot.name).as_string())
    for batch in arrow_reader.read(settings, begin, statements):
        yield _typed(batch, readings, relation)


def _readings(connection: Connection, relation: Relation) -> list[_Reading]:
    row = connection.execute(query("table_oid"), {"table": relation.table.sql}).fetchone()
    assert row is not None
    now = {column.name: column for column in catalog.columns(connection, [row[0]])[row[0]]}
    types = catalog.types(connection, {column.type_oid for column in now.values()})
    readings = []
    for column in relation.columns:
        facts = now.get(column.name)
        if facts is None or facts.type_name != column.type:
            raise SourceError(
                f"The column {column.name} of {relation.table} was dropped or altered just now; run the sync again."
            )
        of_type = catalog.sql_type(facts.type_name, facts.type_oid, facts.modifier, types)
        asked = None if column.arrow == arrow_type(of_type) else column.arrow
        of_type = catalog.landing(of_type, key=column.key, override=asked)
        name = sql.Identifier(column.name)
        if of_type.base in NATIVE:
            readings.append(_Reading(column=column, expression=name, text=None))
            continue
        # Not ::text: for some types that is another function than the one whose text the stream carries.
        output = types[facts.type_oid].output
        if output is None:
            form = "CASE WHEN pg_catalog.num_nonnulls({0}) = 1 THEN pg_catalog.format('%s', {0}) END AS {0}"
            as_text = sql.SQL(form).format(name)
        else:
            as_text = sql.SQL("pg_catalog.textin({1}({0})) AS {0}").format(name, sql.Identifier(*output))
        readings.append(_Reading(column=column, expression=as_text, text=of_type))
    return readings


def _leaves(connection: Connection, table: TableName) -> list[tuple[tuple[str, str], int]]:
    rows = connection.execute(query("leaves"), {"table": table.sql})
    return [((schema, name), blocks) for schema, name, blocks in rows]


def _ranges(blocks: int) -> Iterator[tuple[int, int | None]]:
    """The table's blocks in stretches of `RANGE_BLOCKS`; the last has no end, as the table may have grown."""
    firsts = list(range(0, max(blocks, 1), RANGE_BLOCKS))
    return zip(firsts, [*firsts[1:], None], strict=True)


def _statement(readings: Sequence[_Reading], leaf: tuple[str, str], first: int, end: int | None) -> sql.Composed:
    selected = sql.SQL(", ").join(reading.expression for reading in readings)
    bounds = []
    if first:
        bounds.append(sql.SQL("ctid >= {}::pg_catalog.tid").format(f"({first},0)"))
    if end is not None:
        bounds.append(sql.SQL("ctid < {}::pg_catalog.tid").format(f"({end},0)"))
    where = sql.SQL(" WHERE ") + sql.SQL(" AND ").join(bounds) if bounds else sql.SQL("")
    return sql.SQL("SELECT {} FROM ONLY {}{}").format(selected, sql.Identifier(*leaf), where)


def _typed(batch: pa.RecordBatch, readings: Sequence[_Reading], relation: Relation) -> pa.RecordBatch:
    """Turn the columns that came as text into values, as the stream's decoder does."""
    columns, misfits = [], []
    for reading, values in zip(readings, batch.columns, strict=True):
        if reading.text is None:
            columns.append(values.cast(reading.column.arrow))
            continue
        text = values.cast(pa.binary())
        typed, rescued = cast(text, reading.text)
        columns.append(typed)
        if rescued is not None:
            misfits.append((reading.column.name, text, rescued))
    schema = relation.row_schema.append(pa.field(RESCUED, pa.string()))
    return pa.record_batch([*columns, rescue(misfits, batch.num_rows)], schema=schema)
