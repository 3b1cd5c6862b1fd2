"""The sensor asks for runs when there is something to bring, and touches nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

import dagster as dg
import pytest

from neon_lake.orchestration import sensors
from neon_lake_tests.fixtures.dagster_shop import Dagster, this_hour


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
