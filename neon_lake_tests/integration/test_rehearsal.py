"""`check --start`: what the warehouse may do is tried before the first sync, and nothing is left of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from neon_lake.errors import Finding
from neon_lake_tests.fixtures.databricks import DatabricksLab
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.workspaces import Workspace

pytestmark = pytest.mark.engines("sail")


@pytest.fixture
def lab(database: Database, tmp_path: Path, workspace: Workspace) -> DatabricksLab:
    database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE SCHEMA s; CREATE TABLE s.b (id int PRIMARY KEY)")
    return DatabricksLab(
        database=database, root=tmp_path, workspace=workspace, volume=workspace.volume(), tables=("public.*", "s.*")
    )


def checked(lab: DatabricksLab) -> Sequence[Finding]:
    """What check finds. Of what it made to find it, nothing is left."""
    found = lab.opened().check(start=True)
    left = [path for path in lab.workspace.local(f"{lab.volume}/lab").rglob("*") if path.is_file()]
    assert [path.name for path in left if path.name != "pipeline.json"] == []
    assert lab.workspace.sql(f"SHOW TABLES IN {lab.workspace.catalog}.public") == []
    return found


def problems(found: Sequence[Finding]) -> list[str]:
    return [str(finding.problem) for finding in found if finding.problem]


def test_a_table_is_made_merged_read_and_dropped_in_each_schema_that_is_there(lab: DatabricksLab) -> None:
    public = lab.workspace.schema("public")
    found = checked(lab)
    assert problems(found) == []
    said = [finding.detail for finding in found]
    assert f"tables can be made, merged and read in {public}" in said
    assert any(f"schema {lab.workspace.catalog}.s is made by the first sync" in detail for detail in said)
    sent = lab.statements()
    assert [sum(word in each for each in sent) for word in ("CREATE TABLE", "MERGE INTO", "DROP TABLE")] == [1, 1, 1]


@pytest.mark.parametrize("privilege", ["CREATE TABLE", "MODIFY", "SELECT", "READ VOLUME"])
def test_a_privilege_that_is_missing_is_named(lab: DatabricksLab, privilege: str) -> None:
    lab.workspace.schema("public")
    on = "default.staging" if "VOLUME" in privilege else "public"
    lab.workspace.take(f"{lab.workspace.catalog}.{on}", privilege)
    (problem,) = problems(lab.opened().check(start=True))
    assert privilege in problem
    assert "\n" not in problem
    lab.workspace.forget()
    assert problems(checked(lab)) == []


def test_a_warehouse_that_is_stopped_is_started_only_when_it_is_asked_for(lab: DatabricksLab) -> None:
    lab.workspace.schema("public")
    lab.workspace.client().warehouses.stop_and_wait(lab.workspace.warehouse)
    found = lab.opened().check()
    assert problems(found) == []
    assert any("no statement was tried; check --start starts it" in finding.detail for finding in found)
    assert lab.statements() == []
    assert problems(checked(lab)) == []
