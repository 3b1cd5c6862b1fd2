"""Hourly partitions: the hours, in UTC, in which changes were committed at the source."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg

from neon_lake.config import Orchestration
from neon_lake.staging.manifest import Manifest

HOUR: Final = timedelta(hours=1)
FORMAT: Final = "%Y-%m-%d-%H:%M"
LONGEST: Final = 24
"""Most hours that a run started by sensor or schedule is said to cover."""

PARTITION_TAG: Final = "dagster/partition"
RANGE_START_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"


def partitions(settings: Orchestration) -> dg.HourlyPartitionsDefinition:
    """The partitions that all assets of a pipeline share; the hour that is going on is one of them."""
    return dg.HourlyPartitionsDefinition(start_date=first_hour(settings), timezone="UTC", end_offset=1, fmt=FORMAT)


def first_hour(settings: Orchestration) -> datetime:
    """The first partition. A `start` without a zone is in UTC; one that is not a full hour is cut to it."""
    start = settings.start
    return hour_of(start.replace(tzinfo=UTC) if start.tzinfo is None else start)


def hour_of(moment: datetime) -> datetime:
    """The hour (UTC) that a moment with a zone lies in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def key_of(hour: datetime) -> str:
    """The partition key of an hour."""
    return hour.strftime(FORMAT)


@dataclass(frozen=True, kw_only=True)
class Hours:
    """Some hours in a row: [start, end)."""

    start: datetime
    end: datetime

    @property
    def tags(self) -> Mapping[str, str]:
        """Run tags that choose these partitions."""
        first, last = key_of(self.start), key_of(self.end - HOUR)
        return {PARTITION_TAG: first} if first == last else {RANGE_START_TAG: first, RANGE_END_TAG: last}

    def __contains__(self, hour: datetime) -> bool:
        return self.start <= hour < self.end

    def before(self, moment: datetime) -> "Hours | None":
        """Those of the hours that were over at a moment, or None."""
        end = min(self.end, hour_of(moment))
        return Hours(start=self.start, end=end) if self.start < end else None


def newest(head: Manifest | None) -> datetime | None:
    """When the log's last manifest was last known to be at one with the source: its last commit, else its making."""
    return (head.transactions.last_commit_at or head.published_at) if head else None


def recent(since: datetime | None, now: datetime, first: datetime) -> Hours:
    """The hours that a run of this moment covers: from the one of `since` to the one that is going on.

    Never more than `LONGEST`, and none before `first`, the first partition.
    """
    current = hour_of(now)
    start = min(hour_of(since), current) if since else current
    start = max(start, current - (LONGEST - 1) * HOUR, min(first, current))
    return Hours(start=start, end=current + HOUR)
