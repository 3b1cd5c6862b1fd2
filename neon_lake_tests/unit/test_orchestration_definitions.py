"""The code location: what it holds, and what a wrong pipeline file gets."""

import json
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from neon_lake.config import Orchestration, Parity
from neon_lake.errors import ConfigError
from neon_lake.orchestration import NeonLakeComponent, PostgresResource, build_definitions
from neon_lake.orchestration.known_tables import FILE, known_tables
from neon_lake.pipeline_file import load, parse
from neon_lake.schema import Column, Relation, TableName

ROOT = Path(__file__).resolve().parents[2]
AWAY = "postgresql://me:hush@127.0.0.1:1/away"
USERS = Relation(
    table=TableName("public", "users"),
    columns=(Column(name="id", type="integer", arrow=pa.int32(), key=True),),
    comment="Who buys.",
)


def pipeline_file(folder: Path, tables: str = "[public.users]", more: str = "") -> Path:
    path = folder / "neon_lake.yaml"
    path.write_text(
        f"pipeline: shop\nsource: {{url: '{AWAY}'}}\nstaging: {{path: staging}}\ndestination: {{path: lake}}\n"
        f"tables: {tables}\n{more}",
        encoding="utf-8",
    )
    return path


def remember(folder: Path, *relations: Relation) -> None:
    (folder / "staging").mkdir()
    entries = [relation.to_json() | {"comment": relation.comment} for relation in relations]
    (folder / "staging" / FILE).write_text(json.dumps(entries), encoding="utf-8")


def test_a_pipeline_has_its_assets_checks_jobs_sensor_and_schedules(tmp_path: Path) -> None:
    definitions = build_definitions(pipeline_file(tmp_path))
    repository = definitions.get_repository_def()
    assert {"sync", "resync", "verify", "expire"} <= set(repository.job_names)
    sensor = repository.get_sensor_def("lag")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 9
    running = {schedule.name: schedule.default_status for schedule in repository.schedule_defs}
    assert running == {
        "sync_schedule": dg.DefaultScheduleStatus.STOPPED,
        "verify_schedule": dg.DefaultScheduleStatus.STOPPED,
        "expire_schedule": dg.DefaultScheduleStatus.RUNNING,
    }
    graph = definitions.resolve_asset_graph()
    (asset,) = graph.materializable_asset_keys
    assert graph.external_asset_keys == {
        dg.AssetKey(["shop", "source", "public", "users"]),
        dg.AssetKey(["shop", "source", "replication_slot"]),
    }
    assert {key.name for key in graph.asset_check_keys} == {"row_count_parity", "content_parity"}
    assert graph.get(asset).backfill_policy == dg.BackfillPolicy.single_run()
    assert isinstance(graph.get(asset).partitions_def, dg.HourlyPartitionsDefinition)


@pytest.mark.parametrize("modes", [{"users", "events", "notes"}, {"events", "notes"}, {"notes"}])
def test_a_table_has_the_checks_that_can_be_made_of_it(tmp_path: Path, modes: set[str]) -> None:
    mirrored, counted = USERS, replace(USERS, table=TableName("public", "events"))
    unkeyed = tuple(replace(column, key=False) for column in USERS.columns)
    known = (mirrored, counted, replace(USERS, table=TableName("public", "notes"), columns=unkeyed))
    remember(tmp_path, *(relation for relation in known if relation.table.name in modes))
    tables = "['public.*', {name: public.event*, mode: append}, {name: public.note*, mode: append}]"
    definitions = build_definitions(pipeline_file(tmp_path, tables))
    wanted = {"users": {"row_count_parity", "content_parity"}, "events": {"row_count_parity"}, "notes": set()}
    found: dict[str, set[str]] = {name: set() for name in modes}
    for key in definitions.resolve_asset_graph().asset_check_keys:
        found[key.asset_key.path[-1]].add(key.name)
    assert found == {name: wanted[name] for name in modes}
    jobs = set(definitions.get_repository_def().job_names)
    assert {"sync", "resync", "expire"} <= jobs
    assert "verify" in jobs


def test_all_steps_that_touch_the_slot_share_one_pool(tmp_path: Path) -> None:
    repository = build_definitions(pipeline_file(tmp_path)).get_repository_def()
    for name in ("sync", "resync", "verify", "expire"):
        pools = [node.definition.pools for node in repository.get_job(name).nodes]
        assert all(pool == {"neon_lake_shop"} for pool in pools), name


def test_the_job_sync_compares_no_contents(tmp_path: Path) -> None:
    repository = build_definitions(pipeline_file(tmp_path)).get_repository_def()
    assert {node.name for node in repository.get_job("sync").nodes} == {"shop_micro_batch"}
    assert {node.name for node in repository.get_job("verify").nodes} == {"shop_micro_batch", "shop_content_parity"}


def test_the_sensor_can_be_off(tmp_path: Path) -> None:
    definitions = build_definitions(pipeline_file(tmp_path, more="orchestration: {sensor_on: false}"))
    sensor = definitions.get_repository_def().get_sensor_def("lag")
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


def test_a_source_that_is_away_shows_the_tables_that_it_had(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remember(tmp_path, USERS, replace(USERS, table=TableName("other", "users")))
    config = load(pipeline_file(tmp_path, tables="['public.*', public.orders]"))
    known = known_tables(config, PostgresResource())
    assert known == (USERS, Relation(table=TableName("public", "orders"), columns=()))
    assert known[0].comment == "Who buys."
    assert "cannot be reached" in caplog.text
    assert "hush" not in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"schema": "public"}]', '{"a": 1}'])
def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    remember(tmp_path)
    (tmp_path / "staging" / FILE).write_text(text, encoding="utf-8")
    assert known_tables(load(pipeline_file(tmp_path, tables="['public.*']")), PostgresResource()) == ()


def test_a_location_without_a_known_table_loads_and_says_why(tmp_path: Path) -> None:
    definitions = build_definitions(pipeline_file(tmp_path, tables="['public.*']"))
    repository = definitions.get_repository_def()
    assert {"resync", "expire"} <= set(repository.job_names)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(
            instance=instance, definitions=definitions, resources=dict(definitions.resources or {})
        ) as context,
    ):
        said = str(repository.get_sensor_def("lag").evaluate_tick(context).skip_message)
    assert "No table is known yet" in said
    assert "cannot be reached" in said
    assert "hush" not in said


def test_a_missing_pipeline_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from neon_lake.definitions import defs

    monkeypatch.setenv("NEON_LAKE_CONFIG", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read .*; give its path with") as raised:
        defs()
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_a_wrong_pipeline_file_is_one_sentence_with_its_line(tmp_path: Path) -> None:
    path = pipeline_file(tmp_path, more="orchestration: {intervall_seconds: 5}")
    with pytest.raises(ConfigError, match="line 6: unknown key 'intervall_seconds'"):
        build_definitions(path)


def test_a_wrong_resource_is_a_sentence_without_the_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resource postgres is configured wrongly: url must be") as raised:
        build_definitions(pipeline_file(tmp_path), postgres=PostgresResource(url="mysql://me:hush@host/db"))
    assert "hush" not in str(raised.value)


def test_the_sample_pipeline_file_says_the_defaults() -> None:
    text = (ROOT / "neon_lake.yaml").read_text("utf-8")
    sample = parse(text, ROOT / "neon_lake.yaml", {"NEON_DATABASE_URL": AWAY})
    assert sample.orchestration == Orchestration()
    assert sample.parity == Parity()
    assert sample.source.url == AWAY


def test_the_workspace_names_the_definitions() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text("utf-8"))
    assert workspace == {"load_from": [{"python_module": "neon_lake.definitions"}]}


def test_dagster_takes_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text("utf-8"), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_monitoring_enabled


# Dagster's own loader of components calls what pydantic calls deprecated, and what Dagster calls beta.
@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated", "ignore:.* is currently in beta")
def test_a_component_is_a_pipeline_with_names_of_its_own() -> None:
    line = {"type": "neon_lake.orchestration.NeonLakeComponent", "attributes": {"config_path": "neon_lake.yaml"}}
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.scaffold_component(component_cls=NeonLakeComponent, defs_yaml_contents=line)
        pipeline_file(folder)
        with sandbox.load_component_and_build_defs(defs_path=folder) as (component, definitions):
            assert isinstance(component, NeonLakeComponent)
            repository = definitions.get_repository_def()
    assert {"shop_sync", "shop_resync", "shop_verify", "shop_expire"} <= set(repository.job_names)
    assert repository.get_sensor_def("shop_lag").name == "shop_lag"
    assert set(definitions.resources or {}) == {"shop_replication", "shop_postgres"}
