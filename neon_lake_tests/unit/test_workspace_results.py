"""Results look as those of real workspaces do."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from neon_lake_tests.workspace.data_types import arrow_type, catalog_text_of, name_of, sql_type, storable, text_of
from neon_lake_tests.workspace.results import INLINE_BYTES, Result
from neon_lake_tests.workspace.sql_errors import SqlFailed

STRUCT = pa.struct([pa.field("street", pa.string()), pa.field("zip", pa.int32())])
MOMENT = datetime(2021, 6, 15, 12, 34, 56, 789_999, UTC)


def _result(table: pa.Table, **fields: Any) -> Result:
    return Result(**{"table": table, "arrow": False, "links": False, "truncated": False, "chunk_rows": 100, **fields})


@pytest.mark.parametrize(
    ("kind", "text", "name"),
    [
        (pa.int64(), "BIGINT", "LONG"),
        (pa.int32(), "INT", "INT"),
        (pa.int16(), "SMALLINT", "SHORT"),
        (pa.int8(), "TINYINT", "BYTE"),
        (pa.string(), "STRING", "STRING"),
        (pa.float64(), "DOUBLE", "DOUBLE"),
        (pa.float32(), "FLOAT", "FLOAT"),
        (pa.bool_(), "BOOLEAN", "BOOLEAN"),
        (pa.date32(), "DATE", "DATE"),
        (pa.binary(), "BINARY", "BINARY"),
        (pa.null(), "VOID", "NULL"),
        (pa.timestamp("us", "UTC"), "TIMESTAMP", "TIMESTAMP"),
        (pa.timestamp("us"), "TIMESTAMP_NTZ", "TIMESTAMP_NTZ"),
        (pa.decimal128(7, 2), "DECIMAL(7,2)", "DECIMAL"),
        (pa.list_(pa.int32()), "ARRAY<INT>", "ARRAY"),
        (pa.map_(pa.string(), pa.string()), "MAP<STRING, STRING>", "MAP"),
        (STRUCT, "STRUCT<street: STRING, zip: INT>", "STRUCT"),
        (pa.duration("us"), "INTERVAL DAY TO SECOND", "INTERVAL"),
    ],
)
def test_types_have_the_names_of_the_recordings(kind: pa.DataType, text: str, name: str) -> None:
    assert (text_of(arrow_type(kind)), name_of(arrow_type(kind))) == (text, name)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("BIGINT", "bigint"),
        ("int", "int"),
        ("DECIMAL(10, 2)", "decimal(10,2)"),
        ("DECIMAL", "decimal(10,0)"),
        ("VARCHAR(20)", "string"),
        ("ARRAY<STRUCT<a: INT NOT NULL COMMENT 'x', `b c`: MAP<STRING,ARRAY<DATE>>>>", None),
        ("TIMESTAMP_NTZ", "timestamp_ntz"),
        ("VARIANT", "variant"),
    ],
)
def test_types_are_read_from_sql(written: str, text: str | None) -> None:
    assert catalog_text_of(sql_type(written)) == (text or "array<struct<a:int,b c:map<string,array<date>>>>")


@pytest.mark.parametrize("written", ["NOTHING", "DECIMAL(x)", "ARRAY<INT", "INT INT"])
def test_types_that_are_none(written: str) -> None:
    with pytest.raises(SqlFailed):
        sql_type(written)


def test_files_have_no_views_and_no_null_checks() -> None:
    given = pa.struct([pa.field("a", pa.string_view(), nullable=False), pa.field("b", pa.large_list(pa.int8()))])
    assert storable(given) == pa.struct([pa.field("a", pa.string()), pa.field("b", pa.list_(pa.int8()))])


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (5, pa.int64(), "5"),
        (True, pa.bool_(), "true"),
        (1.5, pa.float64(), "1.5"),
        (1e300, pa.float64(), "1E300"),
        (math.nan, pa.float64(), "NaN"),
        (-math.inf, pa.float64(), "-Infinity"),
        (Decimal("1.50"), pa.decimal128(5, 2), "1.50"),
        (date(2026, 1, 2), pa.date32(), "2026-01-02"),
        # a recording of a real workspace has milliseconds and no more
        (MOMENT, pa.timestamp("us", "UTC"), "2021-06-15T12:34:56.789Z"),
        (MOMENT.replace(tzinfo=None), pa.timestamp("us"), "2021-06-15T12:34:56.789"),
        (b"\x00\xff", pa.binary(), "AP8="),
        ([1, None], pa.list_(pa.int32()), '["1", null]'),
        ([], pa.map_(pa.string(), pa.int32()), "{}"),
        ([("é", 1)], pa.map_(pa.string(), pa.int32()), '{"é": "1"}'),
        ({"street": "a", "zip": None}, STRUCT, '{"street": "a", "zip": null}'),
        ([True], pa.list_(pa.bool_()), '["true"]'),
        ([MOMENT], pa.list_(pa.timestamp("us", "UTC")), '["2021-06-15T12:34:56.789Z"]'),
        (None, STRUCT, None),
        (None, pa.null(), None),
    ],
)
def test_values_are_text_in_json(value: Any, kind: pa.DataType, text: str | None) -> None:
    table = pa.table({"c": pa.array([value], kind)})
    assert _result(table).inline(0) == [[text]]


def test_a_statement_without_rows() -> None:
    result = _result(pa.table({}))
    assert result.manifest()["schema"] == {"column_count": 0}
    assert result.part("id", 0) == {}


def test_chunks() -> None:
    table = pa.table({"n": range(25)})
    result = _result(table, chunk_rows=10)
    assert [chunk["row_offset"] for chunk in result.manifest()["chunks"]] == [0, 10, 20]
    first, last = result.part("id", 0), result.part("id", 2)
    assert first["next_chunk_index"] == 1
    assert first["next_chunk_internal_link"] == "/api/2.0/sql/statements/id/result/chunks/1"
    assert "next_chunk_index" not in last
    assert (last["row_offset"], last["row_count"]) == (20, 5)
    rows = [row for index in range(3) for row in result.part("id", index)["data_array"]]
    assert rows == [[str(n)] for n in range(25)]


def test_chunks_behind_links_are_arrow() -> None:
    result = _result(pa.table({"n": range(25)}), arrow=True, links=True, chunk_rows=20)
    tables = [pa.ipc.open_stream(body).read_all() for body in result.bodies]
    assert pa.concat_tables(tables)["n"].to_pylist() == list(range(25))
    (link,) = result.part("id", 0, link="http://x", expiration="then")["external_links"]
    assert (link["external_link"], link["expiration"]) == ("http://x", "then")
    assert link["byte_count"] == len(result.bodies[0])
    assert result.manifest()["total_byte_count"] == sum(map(len, result.bodies))


def test_wide_rows_make_small_chunks() -> None:
    result = _result(pa.table({"doc": ["x" * (1 << 20)] * 40}), chunk_rows=100_000)
    assert len(result.chunks) > 1


def test_what_does_not_fit_into_an_answer() -> None:
    table = pa.table({"doc": ["x" * (1 << 20)] * (INLINE_BYTES // (1 << 20) + 1)})
    assert _result(table).too_large
    assert not _result(table, links=True).too_large
