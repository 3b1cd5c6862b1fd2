"""Dagster runs on a real instance, a real Postgres and real Delta tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest

from neon_lake.lifecycle import State
from neon_lake.orchestration import PostgresResource, build_definitions, metadata, sensors
from neon_lake.orchestration.hours import HOUR, Hours, hour_of, key_of
from neon_lake.orchestration.names import CONTENT, ROW_COUNT, STARTED_BY_TAG
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.pipelines import Lab

USERS, ORDERS = TableName("public", "users"), TableName("public", "orders")
SHOP = """
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE orders (id bigint PRIMARY KEY, buyer int, total numeric(10,2));
COMMENT ON TABLE orders IS 'What was bought.';
INSERT INTO users SELECT g, 'user ' || g FROM generate_series(1, 100) g;
INSERT INTO orders SELECT g, g % 100, g * 1.5 FROM generate_series(1, 300) g;
"""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a run told Dagster."""

    result: dg.ExecuteInProcessResult

    @property
    def ok(self) -> bool:
        return self.result.success

    @property
    def materialized(self) -> dict[tuple[str, str | None], dict[str, Any]]:
        """Metadata by table and partition."""
        found = {}
        for event in self.result.all_events:
            if event.is_step_materialization:
                made = event.step_materialization_data.materialization
                facts = {name: cast("Any", value).value for name, value in made.metadata.items()}
                found[made.asset_key.path[-1], made.partition] = facts
        return found

    @property
    def checks(self) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
        """Evaluations by table and check."""
        found = self.result.get_asset_check_evaluations()
        return {(evaluation.asset_key.path[-1], evaluation.check_name): evaluation for evaluation in found}

    @property
    def failure(self) -> str:
        """The sentence with which the step failed."""
        (event,) = [event for event in self.result.all_events if event.is_step_failure]
        assert event.step_failure_data.user_failure_data is not None
        return str(event.step_failure_data.user_failure_data.description)


@dataclass(frozen=True, kw_only=True)
class Ticked:
    """What a tick of the sensor told Dagster."""

    requests: list[dg.RunRequest]
    skipped: str | None
    cursor: str | None
    observed: list[dg.AssetObservation]


@dataclass(frozen=True, kw_only=True)
class Dagster:
    """A pipeline's definitions, and an instance of their own."""

    lab: Lab
    instance: dg.DagsterInstance

    @cached_property
    def definitions(self) -> dg.Definitions:
        return build_definitions(self.lab.file)

    def run(
        self,
        job: str,
        tags: Mapping[str, str] | None = None,
        tables: tuple[str, ...] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Ran:
        """Run a job here; of the tables named, or all."""
        chosen = [dg.AssetKey(["lab", "public", table]) for table in tables] if tables else None
        return Ran(
            result=self.definitions.resolve_job_def(job).execute_in_process(
                instance=self.instance,
                tags=dict(tags or {}),
                asset_selection=chosen,
                run_config=config,
                raise_on_error=False,
            )
        )

    def sync(self, *tables: str) -> Ran:
        """The job `sync`, as the sensor starts it."""
        now = hour_of(metadata.utc_now())
        hours = Hours(start=now, end=now + HOUR)
        return self.run("sync", {**hours.tags, STARTED_BY_TAG: "sensor"}, tables or None)

    def tick(self, cursor: str | None = None) -> Ticked:
        """The sensor, once."""
        repository = self.definitions.get_repository_def()
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=cursor,
            definitions=self.definitions,
            resources=dict(self.definitions.resources or {}),
        ) as context:
            data = repository.get_sensor_def("lag").evaluate_tick(context)
        requests = list(data.run_requests or ())
        observed = [event for event in data.asset_events if isinstance(event, dg.AssetObservation)]
        return Ticked(requests=requests, skipped=data.skip_message, cursor=data.cursor, observed=observed)


@pytest.fixture
def dagster(lab: Lab) -> Iterator[Dagster]:
    """The shop, its definitions and an instance."""
    until_the_hour_ends = (hour_of(datetime.now(UTC)) + HOUR - datetime.now(UTC)).total_seconds()
    if until_the_hour_ends < 30:
        # a test speaks of one hour, and the server's clock cannot be set: it begins with the next one
        time.sleep(until_the_hour_ends)
    lab.database.execute(SHOP)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Dagster(lab=lab, instance=instance)


def this_hour() -> str:
    return key_of(hour_of(datetime.now(UTC)))


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


def test_tables_above_the_limit_are_counted_by_the_job_verify_alone(lab: Lab) -> None:
    lab.database.execute(SHOP)
    limited = Lab(database=lab.database, root=lab.root, extra="parity: {max_rows: 200}")
    with dg.DagsterInstance.ephemeral() as instance:
        dagster = Dagster(lab=limited, instance=instance)
        ran = dagster.sync()
        assert set(ran.checks) == {("users", ROW_COUNT)}
        assert ran.materialized["orders", this_hour()]["dagster/row_count"] == 300
        assert dagster.run("verify").checks["orders", ROW_COUNT].passed


# --- hours


def later(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """Let hours go by on our clock."""
    monkeypatch.setattr(metadata, "utc_now", lambda: datetime.now(UTC) + hours * HOUR)


def test_a_backfill_of_two_hours_of_one_table_replays_them(dagster: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    dagster.sync()
    current = hour_of(datetime.now(UTC))
    dagster.lab.database.execute("UPDATE users SET name = 'changed' WHERE id <= 5; DELETE FROM orders WHERE id = 1")
    dagster.sync()
    delta = dagster.lab.delta("public.users")
    delta.update(predicate="id = 3", updates={"name": "'tampered'"})
    dagster.lab.database.execute("INSERT INTO users VALUES (101, 'new')")
    later(monkeypatch, 2)
    hours = Hours(start=current - HOUR, end=current + HOUR)
    ran = dagster.run("sync", hours.tags, tables=("users",))
    assert ran.ok
    assert set(ran.materialized) == {("users", key_of(current - HOUR)), ("users", key_of(current))}
    facts = ran.materialized["users", key_of(current)]
    assert facts["replayed_changes"] == 5
    assert (facts["updates"], facts["inserts"]) == (5, 1)
    assert ran.materialized["users", key_of(current - HOUR)]["dagster/row_count"] == 101
    assert ran.checks["users", ROW_COUNT].passed
    dagster.lab.assert_equal("public.users")


def test_hours_that_the_sensor_asks_for_are_not_replayed(dagster: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    dagster.sync()
    hours = Hours(start=hour_of(datetime.now(UTC)), end=hour_of(datetime.now(UTC)) + HOUR)
    later(monkeypatch, 2)
    ran = dagster.run("sync", {**hours.tags, STARTED_BY_TAG: "sensor"})
    assert ran.ok
    assert all("replayed_changes" not in facts for facts in ran.materialized.values())


def test_a_backfill_of_hours_that_the_log_has_lost_fails_with_the_sentence(
    dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.sync()
    for number in range(3):
        dagster.lab.database.execute(f"UPDATE users SET name = 'u{number}' WHERE id = {number + 1}")
        dagster.sync()
    replication = dagster.lab.replication
    replication.expire(datetime.now(UTC) + timedelta(days=60))
    later(monkeypatch, 2)
    current = hour_of(datetime.now(UTC))
    ran = dagster.run("sync", Hours(start=current - 48 * HOUR, end=current - 47 * HOUR).tags, tables=("users",))
    assert not ran.ok
    assert "public.users" in ran.failure
    assert "resync" in ran.failure
    assert "users" not in {table for table, _ in ran.materialized}


def test_a_backfill_of_a_table_that_is_not_there_yet_is_its_snapshot(dagster: Dagster) -> None:
    current = hour_of(datetime.now(UTC))
    ran = dagster.run("sync", Hours(start=current - 2 * HOUR, end=current).tags, tables=("users",))
    assert ran.ok
    assert ran.materialized["users", key_of(current - HOUR)]["snapshot_rows"] == 100


def test_changes_of_other_hours_are_told_where_they_belong(dagster: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    dagster.sync()
    written = this_hour()
    dagster.lab.database.execute("DELETE FROM users WHERE id <= 4")
    current = hour_of(datetime.now(UTC))
    later(monkeypatch, 1)
    ran = dagster.run("sync", Hours(start=current - 3 * HOUR, end=current - 2 * HOUR).tags, tables=("users",))
    assert ran.ok
    assert ran.materialized["users", written]["deletes"] == 4
    assert ("users", key_of(current - 3 * HOUR)) in ran.materialized


# --- what goes wrong


def park(dagster: Dagster, table: str) -> None:
    """Damage the table's only segment of changes."""
    replication = dagster.lab.replication
    (segment,) = [
        segment for manifest in replication.parts.log.manifests() for segment in manifest.of(TableName("public", table))
    ]
    path = dagster.lab.root / "staging" / segment.path
    path.write_bytes(path.read_bytes()[:-1])


def test_a_parked_table_fails_its_step_and_hides_no_other(dagster: Dagster) -> None:
    dagster.sync()
    dagster.lab.database.execute("UPDATE users SET name = 'x' WHERE id = 1; UPDATE orders SET total = 1 WHERE id = 1")
    assert dagster.sync("orders").ok
    park(dagster, "users")
    dagster.lab.database.execute("DELETE FROM orders WHERE id = 2")
    ran = dagster.sync()
    assert not ran.ok
    assert set(ran.materialized) == {("orders", this_hour())}
    assert set(ran.checks) == {("orders", ROW_COUNT)}
    assert "segment" in ran.failure
    assert dagster.lab.replication.status([USERS]).tables[0].state is State.PARKED
    dagster.lab.assert_equal("public.orders")
    again = dagster.sync()
    assert "neon-lake resync public.users" in again.failure
    assert ("orders", this_hour()) in again.materialized


def test_a_source_that_is_away_fails_with_one_sentence(lab: Lab) -> None:
    lab.database.execute(SHOP)
    with dg.DagsterInstance.ephemeral() as instance:
        dagster = Dagster(lab=lab, instance=instance)
        assert dagster.sync().ok
        lab.file.write_text(lab.text().replace(str(lab.database.server.port), "1"), encoding="utf-8")
        away = Dagster(lab=lab, instance=instance)
        definitions = build_definitions(lab.root / "neon_lake.yaml")
        away.__dict__["definitions"] = definitions
        skipped = away.tick()
        assert "cannot be reached" in str(skipped.skipped)
        keys = {key.path[-1] for key in definitions.resolve_asset_graph().materializable_asset_keys}
        assert keys == {"users", "orders"}


def test_a_lost_slot_is_the_step_s_sentence(dagster: Dagster) -> None:
    dagster.sync()
    dagster.lab.database.execute("SELECT pg_drop_replication_slot('neon_lake_lab')")
    ran = dagster.sync()
    assert not ran.ok
    assert "neon-lake resync" in ran.failure
    assert ran.materialized == {}
    tick = dagster.tick()
    assert tick.requests == []
    assert "is gone" in str(tick.skipped)
    everything = {"ops": {"lab_resync": {"config": {"tables": ["*.*"]}}}}
    assert dagster.run("resync", config=everything).ok
    assert dagster.sync().ok


@pytest.mark.parametrize("wanted", ["public.nothing", "not a.table.name.at all"])
def test_a_resync_of_what_is_no_table_is_refused(dagster: Dagster, wanted: str) -> None:
    ran = dagster.run("resync", config={"ops": {"lab_resync": {"config": {"tables": [wanted]}}}})
    assert not ran.ok
    assert wanted in ran.failure


# --- the sensor


def test_the_sensor_asks_for_the_first_run_then_for_what_is_new(dagster: Dagster) -> None:
    first = dagster.tick()
    (request,) = first.requests
    assert request.tags["dagster/partition"] == this_hour()
    assert dagster.run("sync", request.tags).ok

    quiet = dagster.tick(first.cursor)
    assert not quiet.requests
    for _ in range(30):
        dagster.lab.database.execute("UPDATE orders SET total = total + 1")
    lot = dagster.tick(quiet.cursor)
    assert lot.requests
    (observed,) = lot.observed
    assert observed.asset_key == dg.AssetKey(["lab", "source", "replication_slot"])
    assert cast("int", observed.metadata["lag_bytes"].value) > 100_000


def test_lag_that_does_not_change_is_recorded_once(dagster: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    dagster.sync()
    first = dagster.tick()
    assert len(first.observed) == 1
    monkeypatch.setattr(sensors, "OBSERVED_EVERY", timedelta(0))
    again = dagster.tick(first.cursor)
    assert again.observed == [] or again.observed[0].metadata != first.observed[0].metadata


def test_the_sensor_takes_no_slot_and_confirms_nothing(dagster: Dagster) -> None:
    dagster.sync()
    source = dagster.lab.replication.parts.source
    before = source.slot()
    dagster.lab.database.execute("UPDATE orders SET total = 0")
    dagster.tick()
    after = source.slot()
    assert before is not None
    assert after is not None
    assert (after.confirmed, after.active_pid) == (before.confirmed, None)


def test_the_sensor_sees_tables_that_a_run_of_others_left_behind(dagster: Dagster) -> None:
    dagster.sync()
    cursor = dagster.tick().cursor
    dagster.lab.database.execute("UPDATE users SET name = 'x'; UPDATE orders SET total = 0")
    dagster.sync("orders")
    tick = dagster.tick(cursor)
    assert tick.requests
    assert dagster.run("sync", tick.requests[0].tags).ok
    dagster.lab.assert_equal("public.users", "public.orders")
    assert not dagster.tick(tick.cursor).requests


def test_the_sensor_waits_for_a_run_in_flight(dagster: Dagster) -> None:
    job = dagster.definitions.resolve_implicit_global_asset_job_def()
    run = dagster.instance.create_run_for_job(
        job, asset_selection=frozenset({dg.AssetKey(["lab", "public", "users"])}), status=dg.DagsterRunStatus.STARTED
    )
    tick = dagster.tick()
    assert not tick.requests
    assert run.run_id[:8] in str(tick.skipped)


# --- definitions


def test_a_table_that_comes_later_is_brought_along_by_a_run_of_all(dagster: Dagster) -> None:
    assert dagster.sync().ok
    dagster.lab.database.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1), (2)")
    assert dagster.tick().requests
    ran = dagster.sync()
    assert ran.ok
    assert ran.materialized["later", this_hour()]["snapshot_rows"] == 2
    assert ("later", ROW_COUNT) not in ran.checks


def test_the_url_of_the_resource_goes_before_that_of_the_file(lab: Lab) -> None:
    lab.database.execute(SHOP)
    url = lab.database.url
    lab.file.write_text(lab.text().replace(url, "postgresql://nobody@127.0.0.1:1/nowhere"), encoding="utf-8")
    definitions = build_definitions(lab.root / "neon_lake.yaml", postgres=PostgresResource(url=url))
    with dg.DagsterInstance.ephemeral() as instance:
        dagster = Dagster(lab=lab, instance=instance)
        dagster.__dict__["definitions"] = definitions
        assert dagster.sync().ok


def test_the_postgres_resource_connects(lab: Lab) -> None:
    with PostgresResource(url=lab.database.url, application_name="somebody").connect() as connection:
        row = connection.execute("SHOW application_name").fetchone()
    assert row == ("somebody",)


def test_names_without_a_pattern_need_no_database(tmp_path: Path) -> None:
    (tmp_path / "neon_lake.yaml").write_text(
        "pipeline: lab\nsource: {url: 'postgresql://me@127.0.0.1:1/away'}\nstaging: {path: s}\n"
        "destination: {path: l}\ntables: [public.users, public.orders]\n",
        encoding="utf-8",
    )
    definitions = build_definitions(tmp_path / "neon_lake.yaml")
    keys = {key.path[-1] for key in definitions.resolve_asset_graph().materializable_asset_keys}
    assert keys == {"users", "orders"}
