"""The demonstration's directory."""

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from neon_lake.config import DeltaConfig
from neon_lake.demo.lake import LocalLake
from neon_lake.demo.place import PIPELINE, Place, free_port
from neon_lake.demo.shop import TABLES
from neon_lake.pipeline_file import load
from neon_lake.schema import TableName

URL = "postgresql://postgres@127.0.0.1:5/postgres"


@pytest.mark.parametrize("hurry", [True, False])
def test_the_pipeline_file_is_one_and_takes_every_table_of_the_shop(tmp_path: Path, hurry: bool) -> None:
    place = Place(root=tmp_path)
    lake = LocalLake(root=tmp_path)
    place.furnish(URL, lake, code_port=4000, hurry=hurry)
    pipeline = load(place.pipeline_file)
    assert (pipeline.name, pipeline.source.url) == (PIPELINE, URL)
    assert all(pipeline.table(TableName("public", table)) for table in TABLES)
    assert isinstance(pipeline.destination, DeltaConfig)
    assert Path(pipeline.destination.path) == lake.path
    assert Path(pipeline.staging.path).parent == tmp_path
    assert pipeline.orchestration.sensor_on
    assert (pipeline.orchestration.interval_seconds == 5) == hurry
    age = datetime.now(UTC) - pipeline.orchestration.start.replace(tzinfo=UTC)
    assert timedelta(days=1) <= age <= timedelta(days=1, hours=1, minutes=1)


def test_dagster_finds_the_code_location_and_tells_nobody(tmp_path: Path) -> None:
    place = Place(root=tmp_path)
    place.furnish(URL, LocalLake(root=tmp_path), code_port=4711, hurry=True)
    (location,) = yaml.safe_load(place.workspace_file.read_text())["load_from"]
    assert location["grpc_server"]["port"] == 4711
    settings = yaml.safe_load((place.dagster_home / "dagster.yaml").read_text())
    assert settings["telemetry"] == settings["nux"] == {"enabled": False}


def test_children_see_this_pipeline_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NEON_LAKE_CONFIG", "NEON_LAKE_FAILPOINT", "DAGSTER_HOME", "DAGSTER_PG_URL", "PGHOST"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("LANG", "C.UTF-8")
    environment = Place(root=tmp_path).environment()
    assert "mine" not in environment.values()
    assert environment["LANG"] == "C.UTF-8"
    assert environment["DAGSTER_HOME"] == str(tmp_path / "dagster")


def test_a_port_that_is_taken_is_not_given() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) not in (0, port)
    assert free_port() != 0
