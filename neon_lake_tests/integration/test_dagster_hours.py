"""The hourly partitions: backfills replay the log, and changes are told where they belong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from neon_lake.orchestration import metadata
from neon_lake.orchestration.hours import HOUR, Hours, hour_of, key_of
from neon_lake.orchestration.names import ROW_COUNT, STARTED_BY_TAG
from neon_lake_tests.fixtures.dagster_shop import Dagster, this_hour


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
