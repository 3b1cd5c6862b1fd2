"""Hourly partitions, and the hours that a run covers."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neon_lake.config import Orchestration
from neon_lake.orchestration.hours import HOUR, LONGEST, Hours, first_hour, hour_of, key_of, partitions, recent

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
moments = st.integers(-800, 10_000).map(lambda hours: FIRST + hours * HOUR + timedelta(minutes=hours % 60))


def test_the_hour_that_is_going_on_is_a_partition() -> None:
    keys = partitions(Orchestration()).get_partition_keys(current_time=datetime(2026, 1, 1, 2, 30, tzinfo=UTC))
    assert list(keys) == ["2026-01-01-00:00", "2026-01-01-01:00", "2026-01-01-02:00"]


@pytest.mark.parametrize(
    ("start", "first"),
    [
        (datetime.fromisoformat("2026-03-01T07:45"), datetime(2026, 3, 1, 7, tzinfo=UTC)),
        (datetime(2026, 3, 1, 7, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 3, 1, 5, tzinfo=UTC)),
    ],
)
def test_the_first_partition_is_a_full_hour_in_utc(start: datetime, first: datetime) -> None:
    settings = Orchestration(start=start)
    assert first_hour(settings) == first
    keys = partitions(settings).get_partition_keys(current_time=first + 2 * HOUR)
    assert keys[0] == key_of(first)


def test_a_key_is_what_dagster_makes_of_the_hour() -> None:
    now = datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC)
    assert key_of(hour_of(now)) == partitions(Orchestration()).get_partition_keys(current_time=now)[-1]


@given(moments, st.none() | moments)
def test_a_run_covers_the_hour_that_is_going_on_and_a_day_at_most(now: datetime, since: datetime | None) -> None:
    hours = recent(since, now, FIRST)
    assert hour_of(now) in hours
    assert hours.end == hour_of(now) + HOUR
    assert HOUR <= hours.end - hours.start <= LONGEST * HOUR
    if now >= FIRST:
        assert hours.start >= FIRST
    if since is not None and FIRST <= since <= now and now - since < (LONGEST - 1) * HOUR:
        assert hour_of(since) == hours.start
    if since is None:
        assert hours.end - hours.start == HOUR


def test_one_hour_is_a_partition_and_several_are_a_range() -> None:
    start = datetime(2026, 11, 21, 22, tzinfo=UTC)
    assert Hours(start=start, end=start + HOUR).tags == {"dagster/partition": "2026-11-21-22:00"}
    assert Hours(start=start, end=start + 2 * HOUR).tags == {
        "dagster/asset_partition_range_start": "2026-11-21-22:00",
        "dagster/asset_partition_range_end": "2026-11-21-23:00",
    }


def test_only_hours_that_are_over_are_of_the_past() -> None:
    start = datetime(2026, 11, 21, 20, tzinfo=UTC)
    hours = Hours(start=start, end=start + 3 * HOUR)
    assert hours.before(start + timedelta(minutes=59)) is None
    assert hours.before(start + timedelta(minutes=61)) == Hours(start=start, end=start + HOUR)
    assert hours.before(start + timedelta(days=1)) == hours
