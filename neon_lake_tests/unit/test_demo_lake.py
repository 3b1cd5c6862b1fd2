"""What the demonstration writes of its lake into the pipeline file, and what it asks for."""

import re
from pathlib import Path

import pytest

from neon_lake.config import DatabricksConfig
from neon_lake.demo.lake import UnityLake
from neon_lake.demo.place import Place
from neon_lake.demo.shop import TABLES
from neon_lake.errors import ConfigError
from neon_lake.pipeline_file import load
from neon_lake.schema import TableName

URL = "postgresql://postgres@127.0.0.1:5/postgres"
ENVIRONMENT = {
    "DATABRICKS_HOST": "http://127.0.0.1:9",
    "DATABRICKS_TOKEN": "a-token-that-nobody-may-see",
    "DATABRICKS_WAREHOUSE_ID": "1a2b3c4d",
    "NEON_LAKE_DEMO_CATALOG": "lake",
}


def test_the_pipeline_file_names_the_token_s_variable_and_a_schema_and_a_volume_of_its_own(tmp_path: Path) -> None:
    place = Place(root=tmp_path)
    place.furnish(URL, UnityLake(ENVIRONMENT), code_port=4000, hurry=True)
    assert "nobody-may-see" not in place.pipeline_file.read_text("utf-8")
    pipeline = load(place.pipeline_file, ENVIRONMENT)
    unity = pipeline.destination
    assert isinstance(unity, DatabricksConfig)
    assert (unity.host, unity.token) == (ENVIRONMENT["DATABRICKS_HOST"], ENVIRONMENT["DATABRICKS_TOKEN"])
    assert (unity.catalog, unity.warehouse_id) == ("lake", "1a2b3c4d")
    assert re.fullmatch(r"neon_lake_demo_[0-9a-f]{8}", str(unity.schema))
    assert pipeline.staging.path == f"/Volumes/lake/{unity.schema}/staging/shop"
    names = {pipeline.unity_name(TableName("public", table)) for table in TABLES}
    assert names == {("lake", unity.schema, table) for table in TABLES}


def test_two_demonstrations_have_two_schemas() -> None:
    assert UnityLake(ENVIRONMENT).destination["schema"] != UnityLake(ENVIRONMENT).destination["schema"]


@pytest.mark.parametrize("name", ["DATABRICKS_HOST", "DATABRICKS_WAREHOUSE_ID", "NEON_LAKE_DEMO_CATALOG"])
def test_what_the_environment_lacks_is_one_sentence(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^The demonstration on Databricks needs .*: {name} \([^;]*\)\.$"):
        UnityLake(ENVIRONMENT | {name: ""})


def test_all_that_the_environment_lacks_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        UnityLake({})
    assert all(name in str(refused.value) for name in ENVIRONMENT if name != "DATABRICKS_TOKEN")
