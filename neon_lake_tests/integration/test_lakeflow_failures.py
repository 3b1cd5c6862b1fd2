"""What the exported pipeline cannot follow ends its update, and is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neon_lake.schema import TableName
from neon_lake_tests.fixtures.exported import DOCUMENTS, Exported
from neon_lake_tests.fixtures.following import PLAIN
from neon_lake_tests.fixtures.lakeflow import Lakeflow


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
