"""The exported pipeline over a log that was really written, with Postgres as the judge of what AUTO CDC makes of it."""

# ruff: noqa: E501, ISC004 - a script of SQL is read as a whole

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise

import pytest

from neon_lake.schema import TableName
from neon_lake_tests.fixtures.exported import DOCUMENTS, Exported
from neon_lake_tests.fixtures.following import PLAIN
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.workspace.sail import Sail

CHANGES = {
    "insert, update, delete": (
        PLAIN,
        ("INSERT INTO t VALUES (10, 'x'); UPDATE t SET v = NULL WHERE id = 1; DELETE FROM t WHERE id = 2",),
    ),
    "keys move": (
        PLAIN,
        (
            "UPDATE t SET id = 100 WHERE id = 1; INSERT INTO t VALUES (1, 'new')",
            "BEGIN; UPDATE t SET id = 0 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 0;"
            "COMMIT",
            "UPDATE t SET id = -id; UPDATE t SET id = 1 - id; DELETE FROM t WHERE id = 101",
        ),
    ),
    "the same key again and again": (
        PLAIN,
        (
            "BEGIN; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'again'); COMMIT; INSERT INTO t VALUES (50, 'a');"
            "DELETE FROM t WHERE id = 50; INSERT INTO t VALUES (50, 'b'); DELETE FROM t WHERE id = 3",
        ),
    ),
    "truncate": (
        PLAIN,
        (
            "INSERT INTO t VALUES (10, 'x'); TRUNCATE t; INSERT INTO t VALUES (1, 'one'), (20, 'y')",
            "BEGIN; UPDATE t SET v = 'z'; TRUNCATE t; INSERT INTO t VALUES (20, 'zz'); COMMIT",
            "UPDATE t SET v = 'last' WHERE id = 20",
            "TRUNCATE t",
        ),
    ),
    "values that were not sent": (
        DOCUMENTS,
        (
            "UPDATE t SET v = 'a' WHERE id < 5; UPDATE t SET doc = NULL WHERE id = 2; UPDATE t SET v = NULL WHERE id < 4",
            "UPDATE t SET doc = repeat('z', 9000) WHERE id = 2; UPDATE t SET v = 'b', tags = NULL WHERE id < 4",
            "DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'n', NULL, NULL); UPDATE t SET v = 'm' WHERE id = 1",
            "UPDATE t SET id = id + 100, doc = repeat('y', 9000) WHERE id > 6",
        ),
    ),
    "a key of several columns, and names of every kind": (
        'CREATE TABLE t ("Key.1" int, "K 2" text, "a;b" int[], "it\'s `é`" jsonb, rows text, "select" numeric(9,3),'
        'lsn int, op text, PRIMARY KEY ("Key.1", "K 2"));'
        "INSERT INTO t SELECT g % 3, 'k' || g, ARRAY[g, NULL], '{\"a\": 1}', 'r', g / 7.0, g, 'x'"
        "FROM generate_series(1, 9) AS g;",
        (
            'UPDATE t SET "K 2" = "K 2" || \'!\' WHERE lsn < 4; DELETE FROM t WHERE lsn = 5',
            "UPDATE t SET \"Key.1\" = 7, op = NULL WHERE lsn = 6; INSERT INTO t VALUES (0, 'k6')",
        ),
    ),
}


VERSIONS = ("keys move", "truncate", "values that were not sent")


@pytest.mark.parametrize(("name", "scd"), [*((name, 1) for name in CHANGES), *((name, 2) for name in VERSIONS)])
def test_changes_are_followed(exported: Exported, name: str, scd: int) -> None:
    setup, batches = CHANGES[name]
    exported.begin(setup, scd)
    exported.assert_equal()
    for batch in batches:
        exported.change(batch)
        exported.assert_equal()


def test_every_everyday_type_and_several_tables(filled: Lab, sail: Sail) -> None:
    exported = Exported(lab=filled, engine=sail)
    exported.begin("SELECT 1")
    exported.change('UPDATE a SET price = price + 1 WHERE id < 100; UPDATE "Odd Name" SET "K2" = \'m\' WHERE false')
    exported.assert_equal("a")
    lake = filled.lake('public."Odd Name"')
    assert exported.lakeflow.rows("`public_lakeflow`.`odd_name`") == exported.now("odd_name")
    assert exported.now("odd_name") == lake


def test_values_that_no_column_holds_are_beside_it(exported: Exported) -> None:
    exported.begin(
        "CREATE TABLE t (id int PRIMARY KEY, day date, n numeric(8, 2), grid int[]);"
        "INSERT INTO t VALUES (1, '2026-01-01', 1, '{1,2}'), (2, 'infinity', 'NaN', '{{1,2},{3,4}}')"
    )
    for batch in (
        "INSERT INTO t VALUES (3, '-infinity', 2, NULL); UPDATE t SET n = 5 WHERE id = 2; UPDATE t SET day = 'infinity'",
        "UPDATE t SET day = '2026-02-02', grid = '{7}' WHERE id = 2",
    ):
        exported.change(batch)
        # the lake's are held against Postgres elsewhere: psycopg has no such values
        lake = exported.lab.delta("public.t").to_pyarrow_table().sort_by("id").to_pylist()
        found = sorted(exported.lakeflow.targets["`public_lakeflow`.`t`"].rows(), key=lambda row: int(row["id"]))
        assert [{name: row[name] for name in lake[0]} for row in found] == lake
        assert any(row["_rescued_data"] for row in found)


@pytest.mark.parametrize("scd", [1, 2])
def test_a_new_snapshot_takes_the_place_of_what_was(exported: Exported, scd: int) -> None:
    exported.begin(PLAIN, scd)
    exported.lab.database.execute("DELETE FROM t WHERE id < 4; UPDATE t SET v = 'x' WHERE id = 4")
    assert exported.lab.replication.resync([TableName.parse("t")]).ok
    exported.lakeflow.update()
    exported.assert_equal()
    exported.change("INSERT INTO t VALUES (1, 'back'); UPDATE t SET v = 'y' WHERE id = 5")
    exported.assert_equal()


def test_all_versions_are_kept(exported: Exported) -> None:
    exported.begin(DOCUMENTS, scd=2)
    exported.change("UPDATE t SET v = 'second' WHERE id = 1; UPDATE t SET v = 'third' WHERE id = 1")
    exported.change("DELETE FROM t WHERE id = 1; UPDATE t SET v = v WHERE id = 2")
    versions = [row for row in exported.lakeflow.targets["`public_lakeflow`.`t`"].rows() if row["id"] == 1]
    assert [row["v"] for row in versions] == ["v1", "second", "third"]
    # a value that was not sent is in each of them
    assert {row["doc"] for row in versions} == {"1" * 9000}
    assert all(before["__END_AT"] == behind["__START_AT"] for before, behind in pairwise(versions))
    # a snapshot of the same rows makes no version
    assert exported.lab.replication.resync([TableName.parse("t")]).ok
    count = len(exported.rows())
    exported.lakeflow.update()
    assert len(exported.rows()) == count


def test_files_of_a_capture_that_died_do_not_count(exported: Exported) -> None:
    exported.begin(PLAIN)
    exported.lab.database.execute("INSERT INTO t VALUES (10, 'x'); DELETE FROM t WHERE id = 1")
    died = exported.lab.run("sync", NEON_LAKE_FAILPOINT="capture.segments-written")
    assert died.returncode not in (0, 2), died
    staging = exported.lab.root / "staging"
    # and of a snapshot that died
    (snapshot,) = (staging / "snapshots" / "public" / "t").glob("*-*")
    shutil.copytree(snapshot, snapshot.with_name(f"{snapshot.name[:16]}-0badf00d"))
    assert len(list((staging / "batches").iterdir())) > len(
        [path for path in (staging / "manifests").iterdir() if "public.t-" in path.read_text("utf-8")]
    )
    exported.lakeflow.update()
    assert len(exported.rows()) == 9
    exported.change("UPDATE t SET v = 'y' WHERE id = 2")
    exported.assert_equal()


def test_a_deleted_row_stays_where_deletes_are_soft(lab: Lab, sail: Sail) -> None:
    exported = Exported(lab=replace(lab, tables=("{name: public.t, deletes: soft}",)), engine=sail)
    exported.begin(DOCUMENTS)
    for batch in (
        "UPDATE t SET v = 'a' WHERE id = 1; DELETE FROM t WHERE id IN (1, 2)",
        "INSERT INTO t VALUES (2, 'again'); DELETE FROM t WHERE id = 3",
        "TRUNCATE t; INSERT INTO t VALUES (4, 'four'), (90, 'new')",
        "TRUNCATE t",
    ):
        exported.change(batch)
        assert exported.now() == exported.lab.lake("public.t")
    assert all(row["_deleted_at"] is not None for row in exported.now())


def test_every_change_is_a_row_in_the_mode_append(lab: Lab, sail: Sail) -> None:
    lines = ("{name: public.t, mode: append}", "{name: public.free, mode: append}")
    exported = Exported(lab=replace(lab, tables=lines), engine=sail)
    exported.begin(
        PLAIN
        + "CREATE TABLE free (a int, b text); ALTER TABLE free REPLICA IDENTITY FULL; INSERT INTO free VALUES (1, 'x')"
    )
    exported.change(
        "UPDATE t SET id = 100 WHERE id = 1; DELETE FROM t WHERE id = 2; UPDATE free SET b = 'y'; TRUNCATE t"
    )
    for table in ("t", "free"):
        names = ["_op", "_seq", "_lsn"]
        lake = lab.delta(f"public.{table}").to_pyarrow_table()
        found = exported.lakeflow.table(f"`public_lakeflow`.`{table}`")
        columns = [name for name in found.column_names if name in lake.column_names]
        assert set(names) < set(columns)
        # a snapshot is a TRUNCATE and its rows here, also the first one
        rows = [row for row in found.select(columns).to_pylist() if not (row["_op"] == "T" and row["_seq"] == -1)]
        lakes = lake.select(columns).to_pylist()
        for row in [*rows, *lakes]:
            # the first rows of a table that delta-rs writes are at the snapshot's place, and not before it
            row["_lsn"] = row["_lsn"] if row["_op"] != "R" else None
        assert sorted(map(repr, rows)) == sorted(map(repr, lakes))
        assert len(rows) < len(found)
