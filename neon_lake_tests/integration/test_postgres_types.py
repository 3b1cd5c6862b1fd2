"""Every type twice, from the snapshot and from the stream, with Postgres itself as the judge."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake.sources.postgres.type_map import SqlType, cast
from neon_lake_tests.fixtures.postgres import Database, fresh_database
from neon_lake_tests.fixtures.source import Streamed, source_of
from neon_lake_tests.fixtures.type_rows import TypeRow, rows_for, setup
from neon_lake_tests.fixtures.wide_tables import WideTable, wide_tables
from neon_lake_tests.soak import oracle

STREAMED = 1000
"""What is added to the `id` of a row that comes by the stream."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        rows = rows_for(metafunc.config.getoption("--pg"))
        metafunc.parametrize("row", rows, ids=[row.sql for row in rows])


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The same rows of a table, as they came by snapshot and by stream, and as Postgres writes them."""

    table: WideTable
    snapshot: pa.Table
    stream: pa.Table
    told: list[oracle.Row]


@pytest.fixture(scope="module")
def seen(postgres_server: EmbeddedPostgres, pytestconfig: pytest.Config) -> Iterator[dict[str, Seen]]:
    """By type: the table with its column."""
    rows = rows_for(pytestconfig.getoption("--pg"))
    tables = wide_tables(rows)
    with fresh_database(postgres_server) as database:
        database.execute(setup(rows) + "".join(table.create for table in tables))
        streamed = Streamed(source_of(database, "public.w*"))
        for table in tables:
            database.execute("".join(table.insert(place, place) for place in range(table.count + 1)))
        snapshots = streamed.begin()
        for table in tables:
            database.execute("".join(table.insert(STREAMED + place, place) for place in range(table.count + 1)))
        streams = streamed.drain()
        found: dict[str, Seen] = {}
        for table in tables:
            snapshot, stream = (part[f"public.{table.called}"] for part in (snapshots, streams))
            kinds = [snapshot.schema.field(column).type for column in table.found.columns]
            told = oracle.source_rows(database.url, table.found, kinds)
            one = Seen(table=table, snapshot=snapshot, stream=stream, told=sorted(told, key=lambda row: int(row[0])))
            found |= {row.sql: one for row in table.types}
        yield found


def test_snapshot_and_stream_give_what_postgres_holds(seen: dict[str, Seen], row: TypeRow) -> None:
    here = seen[row.sql]
    column = here.table.found.columns.index(row.sql)
    for way, unsorted, offset in (("snapshot", here.snapshot, 0), ("stream", here.stream, STREAMED)):
        data = unsorted.sort_by("id")
        assert data.schema.field(row.sql).type == row.arrow, way
        told = [r[column] for r in here.told if (int(r[0]) >= STREAMED) == bool(offset)]
        assert [r[column] for r, _ in oracle.lake_rows(data, here.table.found)] == told, way
        texts = [json.loads(fields).get(row.sql) for fields in data["_rescued_data"].to_pylist() if fields]
        assert [text for text in texts if text is not None] == list(row.rescued), way
        assert told[len(row.values) :] == [None] * (len(told) - len(row.values)) != []
        assert None not in told[: len(row.values)]
        assert data[row.sql].null_count == len(told) - len(row.fine), way


def test_types_whose_rows_need_something_are_collected_where_it_is(pytestconfig: pytest.Config) -> None:
    rows = rows_for(pytestconfig.getoption("--pg"))
    named = [row.sql for row in rows]
    assert len(named) == len(set(named))
    assert {row.needs for row in rows} >= {None}
    # A server has more than one of them, or it has none: the wheel's have pgvector, the system's have contrib.
    assert len({row.needs for row in rows}) > 1


def test_settings_of_the_database_do_not_reach_the_text(database: Database) -> None:
    for setting in (
        "timezone = 'America/New_York'",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -5",
        "search_path = 'public'",
    ):
        database.execute(f"ALTER DATABASE {database.name} SET {setting}")
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, day date, raw bytea, x float8, i interval, a float8[],"
        "                r regclass);"
        "INSERT INTO t VALUES (1, '2026-07-01 12:00:00+00', '2026-07-01', '\\x00ff', 1.0 / 3, '1 day 2 hours',"
        "                      ARRAY[1.0 / 3], 't')"
    )
    streamed = Streamed(source_of(database, "public.t"))
    before = streamed.begin()["public.t"].to_pylist()
    database.execute("UPDATE t SET id = 1")
    names = ["id", "at", "day", "raw", "x", "i", "a", "r", "_rescued_data"]
    assert streamed.drain()["public.t"].select(names).to_pylist() == before
    assert before == [
        {
            "id": 1,
            "at": datetime(2026, 7, 1, 12, tzinfo=UTC),
            "day": date(2026, 7, 1),
            "raw": b"\x00\xff",
            "x": 1.0 / 3,
            "i": "P1DT2H",
            "a": [1.0 / 3],
            "r": "public.t",
            "_rescued_data": None,
        }
    ]


def test_floats_keep_every_bit(database: Database) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, r real, d double precision)")
    streamed = Streamed(source_of(database, "public.t"))
    streamed.begin()
    database.execute(
        "INSERT INTO t SELECT g, (random() * 10 ^ (random() * 60 - 30))::real, random() * 10 ^ (random() * 600 - 300) "
        "FROM generate_series(1, 2000) AS g"
    )
    told = database.query("SELECT encode(float4send(r), 'hex'), encode(float8send(d), 'hex') FROM t ORDER BY id")
    rows = streamed.drain()["public.t"]
    pairs = zip(rows["r"].to_pylist(), rows["d"].to_pylist(), strict=True)
    assert [(struct.pack(">f", single).hex(), struct.pack(">d", double).hex()) for single, double in pairs] == told


def test_arrays_are_read_as_postgres_reads_them(database: Database) -> None:
    connection: psycopg.Connection[Any] = database.connect()
    element = SqlType(name="text", base="text")
    array = SqlType(name="text[]", base="_text", element=element)
    tricky = st.none() | st.text(st.sampled_from('a{},"\\ \n\tü€NUL'), max_size=8) | st.sampled_from(["NULL", "null"])

    @settings(max_examples=60)
    @given(st.lists(st.lists(tricky, max_size=6), min_size=1, max_size=20))
    def judged(rows: list[list[str | None]]) -> None:
        texts = [connection.execute("SELECT format('%%s', %s::text[])", [row]).fetchone() for row in rows]
        values, rescued = cast(pa.array([text[0].encode() for text in texts if text]), array)
        assert values.to_pylist() == rows
        assert rescued is None

    judged()
