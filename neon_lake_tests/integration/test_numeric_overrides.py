"""Numeric columns that the pipeline file gives a type: what they hold, what is rescued, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from neon_lake.pipeline.capture import capture
from neon_lake_tests.fixtures.pipelines import Lab

TABLE = """
CREATE DOMAIN rate AS numeric;
CREATE TABLE items (
    id int PRIMARY KEY, amount numeric, ratio numeric, exact numeric(10,2), huge numeric(60,3), per rate, rest numeric
);
"""
LINE = """{name: public.items, types: {
    amount: "decimal(38,9)", ratio: double, exact: string, huge: "decimal(20,2)", per: double}}"""
BIG = "9" * 400


def fill(lab: Lab, first: int) -> None:
    """Five rows: fine, with what is rounded, with what no number is, extreme, and null."""
    lab.database.execute(
        f"INSERT INTO items VALUES ({first}, 1.5, 0.1, 1.50, 1.23, 2.5, 1.50),"
        f"({first + 1}, 0.1234567891, {'1' * 30}.5, -0.01, 1.234, 1e-400, 1),"
        f"({first + 2}, 'NaN', 'NaN', 'NaN', 'NaN', 'NaN', 'NaN'),"
        f"({first + 3}, 'Infinity', '-Infinity', 0, {'9' * 18}.99, {BIG}, {BIG}),"
        f"({first + 4}, NULL, NULL, NULL, NULL, NULL, NULL)"
    )


def shown(lab: Lab, first: int) -> list[Mapping[str, Any]]:
    """The five rows as the lake has them, with what was rescued in an entry `rescued`."""
    rows = lab.delta("public.items").to_pyarrow_table().sort_by("id").to_pylist()
    found = [row for row in rows if first <= row["id"] < first + 5]
    names = ("amount", "ratio", "exact", "huge", "per", "rest")
    return [
        {name: row[name] for name in names} | {"rescued": json.loads(row["_rescued_data"] or "{}")} for row in found
    ]


HELD: list[dict[str, Any]] = [
    {
        "amount": Decimal("1.500000000"),
        "ratio": 0.1,
        "exact": "1.50",
        "huge": Decimal("1.23"),
        "per": 2.5,
        "rest": "1.50",
    },
    {"amount": None, "ratio": float("1" * 30), "exact": "-0.01", "huge": None, "per": 0.0, "rest": "1"},
    {"amount": None, "ratio": math.nan, "exact": "NaN", "huge": None, "per": math.nan, "rest": "NaN"},
    {"amount": None, "ratio": -math.inf, "exact": "0.00", "huge": Decimal("9" * 18 + ".99"), "per": None, "rest": BIG},
    dict.fromkeys(("amount", "ratio", "exact", "huge", "per", "rest")),
]
RESCUED: list[dict[str, str]] = [
    {},
    {"amount": "0.1234567891", "huge": "1.234"},
    {"amount": "NaN", "huge": "NaN"},
    {"amount": "Infinity", "per": BIG},
    {},
]


def sync(lab: Lab) -> None:
    synced = lab.replication.sync()
    assert {str(name): result.error for name, result in synced.tables.items() if result.error} == {}
    assert lab.replication.verify(deep=True).ok


def test_numerics_land_as_they_are_asked_for(lab: Lab) -> None:
    lab = replace(lab, tables=(LINE,))
    lab.database.execute(TABLE)
    fill(lab, 0)
    sync(lab)
    fill(lab, 10)
    lab.database.execute("UPDATE items SET exact = 7 WHERE id = 13")
    (followed,) = lab.replication.sync().tables.values()
    assert (followed.snapshot_rows, followed.counts.inserts, followed.counts.updates) == (None, 5, 1)
    assert lab.replication.verify(deep=True).ok
    expected = [held | {"rescued": rescued} for held, rescued in zip(HELD, RESCUED, strict=True)]
    assert repr(shown(lab, 0)) == repr(expected)
    expected[3]["exact"] = "7.00"
    assert repr(shown(lab, 10)) == repr(expected)


def test_a_changed_line_is_answered_by_a_new_snapshot(lab: Lab) -> None:
    lab.database.execute(TABLE)
    fill(lab, 0)
    sync(lab)
    kinds = []
    for line in (LINE, "{name: public.items, types: {amount: double}}", "public.items"):
        changed = replace(lab, tables=(line,))
        synced = changed.replication.sync()
        (result,) = synced.tables.values()
        assert result.error is None
        assert result.snapshot_rows == 5
        assert changed.replication.verify(deep=True).ok
        assert changed.replication.sync().tables[result.table].snapshot_rows is None
        schema = changed.delta("public.items").to_pyarrow_table().schema
        kinds.append([schema.field(name).type for name in ("amount", "ratio", "exact")])
    assert kinds == [
        [pa.decimal128(38, 9), pa.float64(), pa.string()],
        [pa.float64(), pa.string(), pa.decimal128(10, 2)],
        [pa.string(), pa.string(), pa.decimal128(10, 2)],
    ]


def test_changes_that_wait_in_the_log_are_applied_as_they_were_captured(lab: Lab) -> None:
    lab.database.execute(TABLE)
    fill(lab, 0)
    sync(lab)
    fill(lab, 10)
    parts = lab.replication.parts
    assert capture(parts, parts.source.position()).changes == 5
    asked = replace(lab, tables=(LINE,))
    sync(asked)
    assert repr(shown(asked, 10)) == repr(shown(asked, 0))


@pytest.mark.parametrize(
    ("table", "line", "sentence"),
    [
        ("v numeric", "{name: public.t, types: {w: double}}", "has no column w to give a type"),
        (
            "v text",
            "{name: public.t, types: {v: double}}",
            "The column v of public.t is text, and types: is for numeric",
        ),
        ("v numeric[]", "{name: public.t, types: {v: double}}", "The column v of public.t is numeric[], and types:"),
        ("v int", "{name: public.*, types: {v: string}}", "The column v of public.t is integer, and types: is for"),
        (
            "v numeric, UNIQUE (v)",
            "{name: public.t, types: {k: double}}",
            "The column k of public.t is part of its key",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(lab: Lab, table: str, line: str, sentence: str) -> None:
    lab = replace(lab, tables=(line,))
    lab.database.execute(f"CREATE TABLE t (k numeric PRIMARY KEY, {table})")
    for verb in ("check", "sync"):
        done = lab.run(verb)
        assert done.returncode != 0, verb
        assert sentence in done.stdout + done.stderr, verb
    assert not (lab.root / "lake" / "public").exists()


def test_under_a_pattern_tables_without_the_column_are_as_they_were(lab: Lab) -> None:
    lab = replace(lab, tables=("{name: public.*, types: {v: 'decimal(10,3)'}}",))
    lab.database.execute(
        "CREATE TABLE t (k numeric PRIMARY KEY, v numeric); CREATE TABLE u (k int PRIMARY KEY, w text);"
        "INSERT INTO t VALUES (1.50, 1.5), ('NaN', 2); INSERT INTO u VALUES (1, 'x')"
    )
    sync(lab)
    assert [row["v"] for row in lab.lake("public.t")] == [Decimal("1.500"), Decimal("2.000")]
    assert lab.lake("public.u") == [{"k": 1, "w": "x"}]


def test_a_numeric_key_lands_as_it_is_asked_for(lab: Lab) -> None:
    lab = replace(lab, tables=("{name: public.t, types: {k: 'decimal(10,3)'}}", "{name: public.u, types: {k: string}}"))
    lab.database.execute(
        "CREATE TABLE t (k numeric PRIMARY KEY, n int); CREATE TABLE u (k numeric(9,2) PRIMARY KEY, n int);"
        "INSERT INTO t VALUES (1.50, 1), (2, 2), (3, 3); INSERT INTO u SELECT * FROM t"
    )
    sync(lab)
    for table in ("t", "u"):
        lab.database.execute(f"UPDATE {table} SET n = 10 WHERE k = 1.5; UPDATE {table} SET k = 4 WHERE k = 2")
        lab.database.execute(f"DELETE FROM {table} WHERE k = 3")
    sync(lab)
    assert lab.lake("public.t") == [{"k": Decimal("1.500"), "n": 10}, {"k": Decimal("4.000"), "n": 2}]
    assert lab.lake("public.u") == [{"k": "1.50", "n": 10}, {"k": "4.00", "n": 2}]
    lab.database.execute("INSERT INTO t VALUES (0.0001, 1)")
    (error,) = [result.error for result in lab.replication.sync().tables.values() if result.error]
    assert "A key of public.t has a value that decimal128(10, 3) cannot hold" in error
