"""Runs on a real Dagster instance: what they materialize, what they check, and what they tell of it."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import dagster as dg

from neon_lake.orchestration import build_definitions
from neon_lake.orchestration.names import CONTENT, ROW_COUNT
from neon_lake_tests.fixtures.dagster_shop import Dagster, this_hour


def test_the_first_run_snapshots_every_table(dagster: Dagster) -> None:
    ran = dagster.sync()
    assert ran.ok
    facts = ran.materialized["users", this_hour()]
    assert facts["dagster/row_count"] == facts["snapshot_rows"] == 100
    assert facts["state"] == "live"
    assert facts["lsn_from"] == facts["lsn_to"] == str(dagster.lab.watermark("public.users"))
    assert facts["delta_version"] == 0
    assert [column.name for column in facts["dagster/column_schema"].columns[:2]] == ["id", "name"]
    assert {ran.checks[table, ROW_COUNT].passed for table in ("users", "orders")} == {True}
    assert ("users", CONTENT) not in ran.checks
    dagster.lab.assert_equal("public.users", "public.orders")


def test_the_next_run_brings_the_changes_and_says_how_many(dagster: Dagster) -> None:
    dagster.sync()
    before = dagster.lab.watermark("public.users")
    dagster.lab.database.execute(
        "INSERT INTO users VALUES (101, 'new'), (102, 'newer'); UPDATE users SET name = 'x' WHERE id <= 3;"
        "DELETE FROM users WHERE id = 50"
    )
    ran = dagster.sync()
    facts = ran.materialized["users", this_hour()]
    assert (facts["inserts"], facts["updates"], facts["deletes"]) == (2, 3, 1)
    assert facts["dagster/row_count"] == 101
    assert facts["lsn_from"] == str(before)
    assert facts["lsn_to"] == str(dagster.lab.watermark("public.users")) != str(before)
    assert facts["delta_version"] == 1
    assert 0 <= facts["lag_seconds"] < 60
    assert ran.checks["users", ROW_COUNT].description == (
        f"Source and lake both have 101 rows at {ran.checks['users', ROW_COUNT].metadata['lsn'].value}."
    )
    quiet = ran.materialized["orders", this_hour()]
    assert (quiet["inserts"], quiet["updates"], quiet["deletes"], quiet["lag_seconds"]) == (0, 0, 0, 0.0)
    dagster.lab.assert_equal("public.users", "public.orders")


def test_a_run_of_one_table_leaves_the_others(dagster: Dagster) -> None:
    dagster.sync()
    dagster.lab.database.execute("DELETE FROM users WHERE id = 1; DELETE FROM orders WHERE id = 1")
    ran = dagster.sync("orders")
    assert set(ran.materialized) == {("orders", this_hour())}
    assert {table for table, _ in ran.checks} == {"orders"}
    assert len(dagster.lab.lake("public.users")) == 100
    assert dagster.sync().ok
    dagster.lab.assert_equal("public.users", "public.orders")


def test_what_was_tampered_with_is_found_and_named_and_mended(dagster: Dagster) -> None:
    dagster.sync()
    delta = dagster.lab.delta("public.users")
    delta.update(predicate="id = 7", updates={"name": "'tampered'"})
    delta.delete("id = 8")
    ran = dagster.run("verify")
    content, count = ran.checks["users", CONTENT], ran.checks["users", ROW_COUNT]
    assert (content.passed, count.passed) == (False, False)
    assert content.severity is dg.AssetCheckSeverity.ERROR
    assert "id=7 differs in name" in str(content.description)
    assert "id=8 is missing in the lake" in str(content.description)
    differences = cast("dg.TableMetadataValue", content.metadata["differences"])
    assert [dict(record.data) for record in differences.records] == [
        {"key": "id=7", "row": "different", "columns": "name"},
        {"key": "id=8", "row": "missing", "columns": ""},
    ]
    assert (count.metadata["source_rows"].value, count.metadata["lake_rows"].value) == (100, 99)
    assert ran.checks["orders", CONTENT].passed
    assert dagster.sync().checks["users", ROW_COUNT].passed is False

    mended = dagster.run("resync", config={"ops": {"lab_resync": {"config": {"tables": ["public.us*"]}}}})
    assert mended.materialized["users", this_hour()]["snapshot_rows"] == 100
    assert dagster.run("verify").checks["users", CONTENT].passed
    dagster.lab.assert_equal("public.users", "public.orders")


def test_a_check_that_is_run_by_itself_tells_what_it_brought_on(dagster: Dagster) -> None:
    dagster.sync()
    dagster.lab.database.execute("DELETE FROM users WHERE id = 1")
    ran = dagster.run("verify")
    assert ran.ok
    assert ran.materialized["users", this_hour()]["deletes"] == 1
    assert ("orders", this_hour()) not in ran.materialized
    assert ran.checks["users", CONTENT].metadata["source_rows"].value == 99


def test_tables_above_the_limit_are_counted_by_the_job_verify_alone(dagster: Dagster) -> None:
    file = replace(dagster.lab, extra="parity: {max_rows: 200}").file
    limited = replace(dagster, definitions=build_definitions(file))
    ran = limited.sync()
    assert set(ran.checks) == {("users", ROW_COUNT)}
    assert ran.materialized["orders", this_hour()]["dagster/row_count"] == 300
    assert limited.run("verify").checks["orders", ROW_COUNT].passed


def test_a_table_that_comes_later_is_brought_along_by_a_run_of_all(dagster: Dagster) -> None:
    assert dagster.sync().ok
    dagster.lab.database.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1), (2)")
    assert dagster.tick().requests
    ran = dagster.sync()
    assert ran.ok
    assert ran.materialized["later", this_hour()]["snapshot_rows"] == 2
    assert ("later", ROW_COUNT) not in ran.checks


def test_tables_that_have_every_change_as_a_row_are_counted_only(dagster: Dagster) -> None:
    lines = ("public.users", "{name: public.orders, mode: append}", "{name: public.notes, mode: append}")
    lab = replace(dagster.lab, tables=lines)
    lab.database.execute("CREATE TABLE notes (text text); INSERT INTO notes VALUES ('one')")
    appending = replace(dagster, lab=lab, definitions=build_definitions(lab.file))
    ran = appending.sync()
    assert ran.ok
    assert set(ran.checks) == {("users", ROW_COUNT), ("orders", ROW_COUNT)}
    lab.database.execute("DELETE FROM orders WHERE id <= 10; UPDATE notes SET text = 'two'")
    ran = appending.run("verify")
    assert ran.ok
    assert set(ran.checks) == {("users", ROW_COUNT), ("orders", ROW_COUNT), ("users", CONTENT)}
    assert all(check.passed for check in ran.checks.values())
    assert ran.checks["orders", ROW_COUNT].metadata["lake_rows"].value == 290
    assert lab.delta("public.notes").to_pyarrow_table()["_op"].to_pylist() == ["R"]
