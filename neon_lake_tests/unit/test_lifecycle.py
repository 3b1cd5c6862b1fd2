"""A table's states: the table of transitions is whole, and every state has a way back to live."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from neon_lake.change import Lsn
from neon_lake.errors import (
    DestinationConflict,
    DestinationUnavailable,
    LogDamaged,
    ResyncNeeded,
    SlotInUse,
    SourceUnavailable,
    retry_policy,
)
from neon_lake.lifecycle import TRANSITIONS, Event, Mark, State, after, event_of, sentence, state_of
from neon_lake.schema import TableName

MARK = Mark(
    table=TableName("a", "b"), state=State.PARKED, reason="why", since=datetime(2026, 1, 1, tzinfo=UTC), lsn=Lsn(7)
)


def test_from_every_state_a_table_can_come_back_to_live() -> None:
    reached = {State.LIVE}
    while more := {state for (state, _), to in TRANSITIONS.items() if to in reached} - reached:
        reached |= more
    assert reached == set(State)


def test_a_resync_can_be_asked_for_in_every_state() -> None:
    assert {after(state, Event.RESYNC_ASKED) for state in State} == {State.STALE}


def test_what_cannot_happen_is_refused() -> None:
    with pytest.raises(ValueError, match="a parked table cannot be batch applied"):
        after(State.PARKED, Event.BATCH_APPLIED)


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (ResyncNeeded("x"), Event.OUTGROWN),
        (LogDamaged("x"), Event.FAILED),
        (ValueError("x"), Event.FAILED),
        (DestinationConflict("x"), None),
        (DestinationUnavailable("x"), None),
        (SourceUnavailable("x"), None),
        (OSError("disk full"), None),
    ],
)
def test_only_a_fault_of_the_table_itself_marks_it(error: Exception, event: Event | None) -> None:
    assert event_of(error) is event


def test_retries_are_for_what_passes() -> None:
    assert retry_policy(SlotInUse("x")) is not None
    assert retry_policy(LogDamaged("x")) is None
    assert retry_policy(KeyError("x")) is None


def test_the_state_is_told_by_watermark_and_mark() -> None:
    assert state_of(None, None) is State.NEW
    assert state_of(Lsn(1), None) is State.LIVE
    assert state_of(Lsn(1), MARK) is State.PARKED


def test_a_mark_survives_its_storage() -> None:
    assert Mark.from_json(MARK.to_json()) == MARK


def test_an_unknown_error_is_told_with_its_kind() -> None:
    assert sentence(KeyError("x")) == "KeyError: 'x'"
    assert sentence(LogDamaged("The segment x is damaged.")) == "The segment x is damaged."
