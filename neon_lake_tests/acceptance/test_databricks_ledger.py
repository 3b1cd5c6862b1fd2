"""The ledger of a lake on Databricks says less than the tables have, or more; or a statement comes late."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from neon_lake.errors import NeonLakeError
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.databricks import DatabricksLab
from neon_lake_tests.fixtures.judging import MODES, NAMES, assert_whole, changed, filled
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.workspaces import Workspace

pytestmark = pytest.mark.engines("sail")


@pytest.fixture
def lab(database: Database, tmp_path: Path, workspace: Workspace) -> DatabricksLab:
    """A pipeline of four tables that are written in four ways, after a first sync."""
    workspace.schema("public")
    lab = DatabricksLab(database=database, root=tmp_path, workspace=workspace, volume=workspace.volume(), tables=MODES)
    filled(lab)
    synced(lab)
    return lab


def synced(lab: DatabricksLab) -> None:
    """Sync, as somebody who knows nothing of what was before."""
    done = lab.opened().sync()
    assert done.ok, {str(name): result.error for name, result in done.tables.items()}


def assert_equal(lab: DatabricksLab, *, history: bool = True) -> None:
    """Both sides are equal, also by what verify says; and later changes follow without a new snapshot."""
    assert_whole(lab, history=history)
    found = lab.opened().verify(deep=True)
    assert found.ok, found.to_json()
    changed(lab, 9)
    done = lab.opened().sync()
    assert done.ok, done
    assert [name for name, result in done.tables.items() if result.snapshot_rows is not None] == []
    assert_whole(lab, history=history)


def ledger(lab: DatabricksLab) -> Path:
    return lab.workspace.local(f"{lab.volume}/lab/ledger")


# --- behind


@pytest.mark.parametrize("back", [1, 2])
def test_a_ledger_that_was_set_back_does_no_harm(lab: DatabricksLab, tmp_path: Path, back: int) -> None:
    kept = []
    for round_ in (1, 2):
        kept.append(tmp_path / f"ledger-{round_}")
        shutil.copytree(ledger(lab), kept[-1])
        changed(lab, round_)
        synced(lab)
    shutil.rmtree(ledger(lab))
    shutil.copytree(kept[-back], ledger(lab))
    changed(lab, 3)
    synced(lab)
    assert_equal(lab)


@pytest.mark.parametrize("back", [1, 2])
def test_a_ledger_that_was_set_back_alone_is_brought_on(lab: DatabricksLab, tmp_path: Path, back: int) -> None:
    kept = []
    for round_ in (1, 2):
        kept.append(tmp_path / f"ledger-{round_}")
        shutil.copytree(ledger(lab), kept[-1])
        changed(lab, round_)
        synced(lab)
    shutil.rmtree(ledger(lab))
    shutil.copytree(kept[-back], ledger(lab))
    # nothing is new: what is applied is applied again, and changes nothing
    before = {name: lab.delta(name).version() for name in NAMES}
    synced(lab)
    assert {name: changes_since(lab, name, version) for name, version in before.items()} == dict.fromkeys(NAMES, 0)
    assert_equal(lab)


def changes_since(lab: DatabricksLab, name: str, version: int) -> int:
    """How many rows the versions after one have changed, by what the engine says."""
    answer = lab.workspace.statement(f"DESCRIBE HISTORY {lab.full_name(name)}")
    names = [column["name"] for column in answer["manifest"]["schema"]["columns"]]
    told = [dict(zip(names, row, strict=True)) for row in answer["result"]["data_array"]]
    later = [json.loads(row["operationMetrics"]) for row in told if int(row["version"]) > version]
    effects = ("numTargetRowsInserted", "numTargetRowsUpdated", "numTargetRowsDeleted")
    return sum(int(metrics.get(effect, 0)) for metrics in later for effect in effects)


def test_a_ledger_that_is_lost_is_begun_anew(lab: DatabricksLab) -> None:
    changed(lab, 1)
    synced(lab)
    for path in ledger(lab).iterdir():
        path.unlink()
    changed(lab, 2)
    synced(lab)
    assert_equal(lab)


# --- ahead: what it speaks of is not there any more

OTHERS = {
    "set back": "RESTORE TABLE {table} TO VERSION AS OF {version}",
    "dropped": "DROP TABLE {table}",
    "replaced": "CREATE OR REPLACE TABLE {table} USING DELTA AS SELECT 1 AS something",
    "replaced by some of it": "CREATE OR REPLACE TABLE {table} USING DELTA AS SELECT * FROM {table} LIMIT 3",
    "without rows": "TRUNCATE TABLE {table}",
    "with fewer rows": "DELETE FROM {table} WHERE {some}",
    "with more rows": "INSERT INTO {table} SELECT * FROM {table} WHERE {some}",
    "with other rows": "UPDATE {table} SET {value} = 'other' WHERE {some}",
    "with merged rows": (
        "MERGE INTO {table} AS t USING (SELECT DISTINCT {value} AS x FROM {table} WHERE {some}) AS s "
        "ON t.{value} = s.x WHEN MATCHED THEN DELETE"
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_others_do_to_a_table_is_found_and_made_good(lab: DatabricksLab, other: str) -> None:
    changed(lab, 1)
    synced(lab)
    for name in NAMES:
        bag = name == "public.bag"
        words = {"value": "b" if bag else "v", "some": "a < 4" if bag else "id < 40"}
        version = lab.delta(name).version() - 1
        lab.workspace.sql(OTHERS[other].format(table=lab.full_name(name), version=version, **words))
    # by the next verify: each table for itself, since what is not there cannot be counted
    for name in NAMES:
        if name == "public.log" and other == "with other rows":
            # changes are counted up only
            continue
        assert not verified(lab, name), name
    # by the next sync that has a change
    changed(lab, 3)
    synced(lab)
    assert_equal(lab, history=other != "with more rows")


def verified(lab: DatabricksLab, name: str) -> bool:
    """Whether a table is found to be equal."""
    try:
        return lab.opened().verify([TableName.parse(name)], deep=True).ok
    except NeonLakeError:
        return False


# --- late


@pytest.mark.timeout(300)
def test_no_statement_that_comes_late_changes_anything(lab: DatabricksLab) -> None:
    for round_ in (1, 2):
        changed(lab, round_)
        synced(lab)
    lab.database.execute("ALTER TABLE keyed ADD more int; UPDATE keyed SET more = id WHERE id < 9")
    synced(lab)
    assert lab.opened().resync().ok
    changed(lab, 3)
    synced(lab)
    sent = lab.statements()
    assert sum("MERGE INTO" in each for each in sent) >= 13
    assert sum("CREATE OR REPLACE" in each for each in sent) >= 6
    versions = {name: lab.delta(name).version() for name in NAMES}
    again = [each for each in sent if "DESCRIBE" not in each and "SELECT count" not in each]
    states = [(lab.workspace.statement(each)["status"]["state"], each) for each in again]
    assert_whole(lab)
    writes = [
        state for state, each in states if "MERGE INTO" in each or "CREATE OR REPLACE" in each or "INSERT" in each
    ]
    assert set(writes) == {"FAILED"}
    assert {name: lab.delta(name).version() for name in NAMES} == versions
    assert_equal(lab)
