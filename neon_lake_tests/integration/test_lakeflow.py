"""The exported pipeline over a log that was really written, with Postgres as the judge of what AUTO CDC makes of it."""

# ruff: noqa: E501, ISC004 - a script of SQL is read as a whole

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import pytest

from neon_lake.config import DatabricksConfig, StagingConfig
from neon_lake.lakeflow import export
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.following import PLAIN
from neon_lake_tests.fixtures.lakeflow import Lakeflow, Row
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.workspace.sail import Sail

DOCUMENTS = (
    "CREATE TABLE t (id int PRIMARY KEY, v text, doc text, tags text[]);"
    "ALTER TABLE t ALTER doc SET STORAGE EXTERNAL;"
    "INSERT INTO t SELECT g, 'v' || g, repeat(g::text, 9000), ARRAY['a'] FROM generate_series(1, 9) AS g;"
)


@pytest.fixture(scope="module")
def sail() -> Iterator[Sail]:
    engine = Sail()
    yield engine
    engine.close()


@dataclass
class Exported:
    """A pipeline, and the one that was exported from it."""

    lab: Lab
    engine: Sail

    @cached_property
    def lakeflow(self) -> Lakeflow:
        """The exported one."""
        work = self.lab.root / "lakeflow"
        work.mkdir()
        return Lakeflow(self.engine, self.lab.root / "staging", work)

    def deploy(self, scd: int = 1) -> None:
        """Export the tables as they are now, and deploy."""
        config = replace(
            self.lab.config,
            staging=StagingConfig(path="/Volumes/main/staging/log/lab"),
            destination=DatabricksConfig(kind="databricks", catalog="main", warehouse="w"),
        )
        survey = self.lab.replication.parts.source.survey()
        self.lakeflow.deploy(export(config, survey.relations, survey.refused, scd=scd).files)

    def begin(self, sql: str, scd: int = 1) -> None:
        """Make tables, copy them, and export."""
        self.lab.database.execute(sql)
        assert self.lab.replication.sync().ok
        self.deploy(scd)
        self.lakeflow.update()

    def change(self, sql: str) -> None:
        """Change rows, capture that, and let the exported pipeline follow."""
        self.lab.database.execute(sql)
        assert self.lab.replication.sync().ok
        self.lakeflow.update()

    def rows(self, table: str = "t") -> list[Row]:
        """The rows of an exported table."""
        return self.lakeflow.rows(f"`public_lakeflow`.`{table}`")

    def now(self, table: str = "t") -> list[Row]:
        """The rows that have not ended."""
        kept = self.lakeflow.targets[f"`public_lakeflow`.`{table}`"].rows()
        found = [row for row in kept if row["__END_AT"] is None]
        return sorted(({n: v for n, v in row.items() if n[:2] != "__" and n not in OWN} for row in found), key=repr)

    def assert_equal(self, table: str = "t") -> None:
        """Source, lake and the exported pipeline's table have the same rows."""
        self.lab.assert_equal(f'public."{table}"')
        lake, found = self.lab.lake(f'public."{table}"'), self.now(table)
        assert found == lake, ([r for r in found if r not in lake][:3], [r for r in lake if r not in found][:3])


OWN = ("_lsn", "_committed_at", "_rescued_data")


@pytest.fixture
def exported(lab: Lab, sail: Sail) -> Exported:
    return Exported(lab=lab, engine=sail)


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


# --- what cannot be followed ends the update, and is said


def failing(exported: Exported, sentence: str) -> None:
    with pytest.raises(Exception, match="neon_lake: ") as caught:
        exported.lakeflow.update()
    assert sentence in str(caught.value)


@pytest.mark.parametrize("scd", [1, 2])
def test_a_row_that_moved_without_a_value(exported: Exported, scd: int) -> None:
    exported.begin(DOCUMENTS, scd)
    exported.lab.database.execute("UPDATE t SET id = 100 WHERE id = 1; UPDATE t SET v = 'x' WHERE id = 100")
    assert exported.lab.replication.sync().ok
    failing(exported, "a row of public.t moved to another key without all of its values")
    failing(exported, 'ALTER TABLE "public"."t" REPLICA IDENTITY FULL')
    exported.lab.database.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    assert exported.lab.replication.resync([TableName.parse("t")]).ok
    exported.lakeflow.update()
    exported.assert_equal()
    exported.deploy(scd)
    exported.change("UPDATE t SET id = 200 WHERE id = 2; UPDATE t SET v = 'y' WHERE id = 200")
    exported.assert_equal()
    assert "COLUMNS TO UPDATE" not in "".join(exported.lakeflow.statements)


def test_a_segment_that_is_not_there_yet(exported: Exported) -> None:
    exported.begin(PLAIN)
    exported.lab.database.execute("INSERT INTO t VALUES (10, 'x')")
    assert exported.lab.replication.sync().ok
    (segment,) = (exported.lab.root / "staging" / "batches").glob("*/public.t-0.parquet")
    data = segment.read_bytes()
    segment.unlink()
    failing(exported, "a segment of public.t is not whole")
    segment.write_bytes(data)
    exported.lakeflow.update()
    exported.assert_equal()


def test_changes_that_were_removed_before_they_were_read(exported: Exported) -> None:
    exported.begin(PLAIN)
    exported.lab.database.execute("INSERT INTO t VALUES (10, 'x')")
    assert exported.lab.replication.sync().ok
    last = max((exported.lab.root / "staging" / "manifests").iterdir())
    exported.lab.database.execute("INSERT INTO t VALUES (11, 'x')")
    assert exported.lab.replication.sync().ok
    last.unlink()
    failing(exported, "changes of public.t are missing in the change log; run neon-lake resync for it")
    assert exported.lab.replication.resync([TableName.parse("t")]).ok
    exported.lakeflow.update()
    exported.assert_equal()


def test_changes_that_were_never_captured(exported: Exported) -> None:
    exported.begin(PLAIN + "CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)")
    exported.lab.database.execute("SELECT pg_drop_replication_slot('neon_lake_lab'); INSERT INTO t VALUES (10, 'x')")
    assert exported.lab.replication.resync([TableName.parse("t"), TableName.parse("u")]).ok
    manifests = (exported.lab.root / "staging" / "manifests").iterdir()
    assert [path for path in manifests if '"gap": "' in path.read_text("utf-8")]
    snapshot = max((exported.lab.root / "staging" / "snapshots" / "public" / "t").glob("*.json"))
    there = snapshot.read_bytes()
    snapshot.unlink()
    failing(exported, "changes of public.t are missing in the change log")
    snapshot.write_bytes(there)
    exported.lakeflow.update()
    exported.assert_equal()
    exported.assert_equal("u")


def test_a_damaged_manifest(exported: Exported) -> None:
    exported.begin(PLAIN)
    exported.lab.database.execute("INSERT INTO t VALUES (10, 'x')")
    assert exported.lab.replication.sync().ok
    last = max((exported.lab.root / "staging" / "manifests").iterdir())
    last.write_text(re.sub(r'"rows": 1', '"rows": 0', last.read_text("utf-8")), "utf-8")
    failing(exported, "a manifest is damaged")


def test_a_column_that_came_behind_the_export(exported: Exported) -> None:
    exported.begin(PLAIN)
    exported.change("ALTER TABLE t ADD COLUMN extra text; INSERT INTO t (id, v) VALUES (10, 'x')")
    exported.lab.database.execute("UPDATE t SET extra = 'e' WHERE id = 10")
    assert exported.lab.replication.sync().ok
    failing(exported, "public.t has columns that this SQL does not know")
    exported.deploy()
    exported.lakeflow.full_refresh("neon_lake_public__t_staged")
    exported.lakeflow.update()
    exported.assert_equal()


def test_a_dropped_column_is_followed_by_a_new_export(exported: Exported, tmp_path: Path) -> None:
    exported.begin(PLAIN + "ALTER TABLE t ADD COLUMN extra text DEFAULT 'e'")
    exported.change("ALTER TABLE t DROP COLUMN extra; UPDATE t SET v = 'x' WHERE id = 1")
    again = Exported(lab=exported.lab, engine=exported.engine)
    again.lakeflow = Lakeflow(exported.engine, exported.lab.root / "staging", tmp_path)
    again.deploy()
    again.lakeflow.update()
    again.assert_equal()


# --- the command

WORKSPACE = "{kind: databricks, catalog: main, warehouse: w, host: 'https://127.0.0.1', token: '${WORKSPACE_TOKEN}'}"


def test_the_command_writes_a_bundle_and_overwrites_nothing(lab: Lab) -> None:
    lab.database.execute(PLAIN + "CREATE TABLE free (a int); ALTER TABLE free REPLICA IDENTITY FULL")
    lab.file.write_text(
        lab.text()
        .replace("{path: staging}", "{path: /Volumes/main/staging/log/lab}")
        .replace("{path: lake}", WORKSPACE)
    )
    command = [
        sys.executable,
        "-m",
        "neon_lake.cli",
        "--config",
        str(lab.root / "neon_lake.yaml"),
        "export",
        "lakeflow",
    ]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"WORKSPACE_TOKEN": "the-secret"}
        return subprocess.run(
            [*command, *arguments], env=environment, cwd=lab.root, capture_output=True, text=True, check=False
        )

    first = run("--json")
    assert first.returncode == 0, first
    told = json.loads(first.stdout)
    assert told["written"] == told["files"] == ["databricks.yml", "src/log.sql", "src/public.t.sql"]
    assert told["tables"]["public.t"] | {"needs": None} == {
        "mode": "mirror",
        "scd": 1,
        "schema": "public",
        "name": "t",
        "needs": None,
    }
    assert told["left_out"]["public.free"].startswith("It has no key")
    written = {path: path.read_text() for path in (lab.root / "lakeflow").rglob("*") if path.is_file()}
    assert not any("the-secret" in text for text in written.values())
    assert "lakeflow has all of it already" in run().stdout
    second = run("--scd", "2")
    assert (second.returncode, "src/public.t.sql would be overwritten" in second.stderr) == (2, True), second
    assert written == {path: path.read_text() for path in (lab.root / "lakeflow").rglob("*") if path.is_file()}
    assert run("--scd", "2", "--force").returncode == 0
    assert "SCD TYPE 2" in (lab.root / "lakeflow" / "src" / "public.t.sql").read_text()


def test_the_command_refuses_a_lake_elsewhere_before_it_asks_the_source(lab: Lab) -> None:
    (lab.root / "neon_lake.yaml").write_text(lab.text().replace(lab.database.url, "postgresql://nobody@127.0.0.1:1/x"))
    command = [
        sys.executable,
        "-m",
        "neon_lake.cli",
        "--config",
        str(lab.root / "neon_lake.yaml"),
        "export",
        "lakeflow",
    ]
    done = subprocess.run([*command, "--to", str(lab.root / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "not a Databricks workspace" in done.stderr
    assert not (lab.root / "out").exists()
