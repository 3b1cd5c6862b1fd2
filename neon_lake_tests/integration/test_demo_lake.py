"""The demonstration's schema in a Databricks workspace: there while it lasts, and gone with all that is in it."""

from pathlib import Path

import pytest

from neon_lake.demo.lake import UnityLake, lasting
from neon_lake.demo.place import Place
from neon_lake.errors import DestinationError, NeonLakeError
from neon_lake.pipeline import Replication
from neon_lake.pipeline_file import load
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.workspaces import Workspace

pytestmark = pytest.mark.engines("sail")


def environment(workspace: Workspace) -> dict[str, str]:
    return {
        "DATABRICKS_HOST": workspace.host,
        "DATABRICKS_TOKEN": workspace.token,
        "DATABRICKS_WAREHOUSE_ID": workspace.warehouse,
        "NEON_LAKE_DEMO_CATALOG": workspace.catalog,
    }


def schemas(workspace: Workspace) -> list[str]:
    listed = workspace.client().schemas.list(workspace.catalog)
    return [str(schema.name) for schema in listed if str(schema.name).startswith("neon_lake_demo_")]


def test_it_is_all_that_a_pipeline_needs(workspace: Workspace, database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    with lasting(UnityLake(environment(workspace)), say=pytest.fail) as lake:
        assert schemas(workspace) == [lake.destination["schema"]]
        place = Place(root=tmp_path)
        place.furnish(database.url, lake, code_port=4000, hurry=True)
        found = Replication.open(load(place.pipeline_file, environment(workspace))).check()
        assert [finding.problem for finding in found if finding.problem] == []
    assert schemas(workspace) == []


def test_whoever_signs_in_without_a_token_needs_none(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", workspace.client_id)
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", workspace.client_secret)
    given = {name: value for name, value in environment(workspace).items() if name != "DATABRICKS_TOKEN"}
    with lasting(UnityLake(given), say=pytest.fail) as lake:
        assert schemas(workspace) == [lake.destination["schema"]]
    assert "token" not in lake.destination
    assert workspace.client_secret not in repr(lake.destination)


def test_tables_that_have_landed_are_counted(workspace: Workspace) -> None:
    names = [TableName("public", name) for name in ("orders", "events")]
    with lasting(UnityLake(environment(workspace)), say=pytest.fail) as lake:
        for name in ("orders", "orders__neon_lake_00000001"):
            workspace.sql(f"CREATE TABLE {workspace.catalog}.{lake.destination['schema']}.{name} (id INT) USING DELTA")
        assert lake.landed(names) == 1
    assert schemas(workspace) == []


def test_it_goes_too_when_the_demonstration_fails(workspace: Workspace) -> None:
    def interrupted() -> None:
        with lasting(UnityLake(environment(workspace)), say=pytest.fail) as lake:
            workspace.sql(f"CREATE TABLE {workspace.catalog}.{lake.destination['schema']}.orders (id INT) USING DELTA")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert schemas(workspace) == []


def test_a_catalog_that_is_not_there_is_named(workspace: Workspace) -> None:
    told = list[str]()
    elsewhere = environment(workspace) | {"NEON_LAKE_DEMO_CATALOG": "nowhere"}
    with pytest.raises(NeonLakeError, match="nowhere"), lasting(UnityLake(elsewhere), say=told.append):
        pass
    assert told == []


def test_a_schema_that_cannot_be_removed_is_named(workspace: Workspace) -> None:
    told = list[str]()
    lake = UnityLake(environment(workspace))
    with lasting(lake, say=told.append):
        workspace.fault(method="POST", path="statements", body="DROP SCHEMA", do="status", status=403)
    (line,) = told
    assert line.startswith(f"Remove the schema {workspace.catalog}.{lake.destination['schema']} at {workspace.host}")


def test_a_token_that_is_refused_is_not_told(workspace: Workspace) -> None:
    wrong = environment(workspace) | {"DATABRICKS_TOKEN": "dapi-of-somebody-else"}
    with pytest.raises(DestinationError) as refused, lasting(UnityLake(wrong), say=pytest.fail):
        pass
    assert workspace.warehouse in str(refused.value)
    assert "somebody" not in str(refused.value)
