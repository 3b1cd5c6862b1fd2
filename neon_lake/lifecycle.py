"""The states of a table, and the one table of transitions between them.

A table's state has two sources and no third: the watermark in its Delta log, and a mark in staging that is there
only when something has to be done. Without a mark a table is LIVE, or NEW while it has no watermark.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from neon_lake.change import Lsn
from neon_lake.errors import (
    DestinationUnavailable,
    NeonLakeError,
    ResyncNeeded,
    StagingUnavailable,
    retry_policy,
)
from neon_lake.schema import TableName


class State(enum.StrEnum):
    """Where a table stands."""

    NEW = "new"
    LIVE = "live"
    STALE = "stale"
    PARKED = "parked"


class Event(enum.StrEnum):
    """What can happen to a table."""

    SNAPSHOT_APPLIED = "snapshot applied"
    BATCH_APPLIED = "batch applied"
    OUTGROWN = "outgrown"
    FAILED = "failed"
    RETRIED = "retried"
    RESYNC_ASKED = "resync asked"


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.NEW, Event.SNAPSHOT_APPLIED): State.LIVE,
    (State.NEW, Event.FAILED): State.PARKED,
    (State.NEW, Event.RESYNC_ASKED): State.STALE,
    (State.LIVE, Event.BATCH_APPLIED): State.LIVE,
    (State.LIVE, Event.SNAPSHOT_APPLIED): State.LIVE,
    (State.LIVE, Event.OUTGROWN): State.STALE,
    (State.LIVE, Event.FAILED): State.PARKED,
    (State.LIVE, Event.RESYNC_ASKED): State.STALE,
    (State.STALE, Event.SNAPSHOT_APPLIED): State.LIVE,
    (State.STALE, Event.FAILED): State.PARKED,
    (State.STALE, Event.RESYNC_ASKED): State.STALE,
    (State.PARKED, Event.RETRIED): State.LIVE,
    (State.PARKED, Event.RESYNC_ASKED): State.STALE,
}


def after(state: State, event: Event) -> State:
    """The state that follows. Raises ValueError when the event cannot happen in that state."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"a {state} table cannot be {event}") from None


def event_of(error: BaseException) -> Event | None:
    """What a failed step does to its table; None leaves it as it is, to be tried again by the next sync.

    Only a fault in the table's own data parks it: a cut connection or a full disk is not the table's.
    """
    if isinstance(error, ResyncNeeded):
        return Event.OUTGROWN
    if isinstance(error, DestinationUnavailable | StagingUnavailable | OSError) or retry_policy(error):
        return None
    return Event.FAILED


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A note in staging that a table is not simply live: which state, why, since when, and where the log stood."""

    table: TableName
    state: State
    reason: str
    since: datetime
    lsn: Lsn

    def to_json(self) -> dict[str, Any]:
        """The mark as it is stored."""
        return {
            "schema": self.table.schema,
            "name": self.table.name,
            "state": self.state.value,
            "reason": self.reason,
            "since": self.since.isoformat(),
            "lsn": str(self.lsn),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            table=TableName(data["schema"], data["name"]),
            state=State(data["state"]),
            reason=data["reason"],
            since=datetime.fromisoformat(data["since"]),
            lsn=Lsn.parse(data["lsn"]),
        )


def state_of(watermark: Lsn | None, mark: Mark | None) -> State:
    """The state that the two sources tell."""
    if mark is not None:
        return mark.state
    return State.NEW if watermark is None else State.LIVE


def sentence(error: BaseException) -> str:
    """The reason that is kept and shown for a failed table."""
    return str(error) if isinstance(error, NeonLakeError) else f"{type(error).__name__}: {error}"
