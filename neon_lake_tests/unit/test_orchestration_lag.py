"""The sensor's decisions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neon_lake.change import Lsn
from neon_lake.config import Orchestration
from neon_lake.orchestration.lag import (
    IDLE,
    LONGEST_PAUSE,
    Decision,
    Ending,
    LastRun,
    Memory,
    Seen,
    confirmed,
    decide,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SETTINGS = Orchestration(interval_seconds=10, lag_kb=64, max_age_seconds=30)
KB = 1024


def at(seconds: float, position: int = 1000, checkpoint: int | None = 1000, **more: object) -> Seen:
    return replace(
        Seen(
            now=NOW + timedelta(seconds=seconds),
            position=Lsn(position),
            checkpoint=None if checkpoint is None else Lsn(checkpoint),
        ),
        **more,  # type: ignore[arg-type]
    )


def ended(ending: Ending, seconds: float = 0, run_id: str = "run-1") -> LastRun:
    return LastRun(run_id=run_id, ending=ending, ended_at=NOW + timedelta(seconds=seconds))


def settled(seen: Seen, memory: Memory | None = None) -> Decision:
    return decide(seen, memory or Memory(settled=seen.checkpoint), SETTINGS)


def test_the_first_tick_asks_for_the_first_run() -> None:
    decision = decide(at(0, checkpoint=None), Memory(), SETTINGS)
    assert decision.ask
    assert "first run" in decision.reason


def test_a_log_that_was_taken_away_begins_anew() -> None:
    assert decide(at(0, checkpoint=None, last=ended(Ending.WELL)), Memory(asked=Lsn(9000)), SETTINGS).ask


def test_a_problem_asks_for_nothing_and_says_its_sentence() -> None:
    decision = settled(at(0, position=10**9, problem="The slot is gone."))
    assert (decision.ask, decision.reason) == (False, "The slot is gone.")


def test_no_second_run_is_asked_for_while_one_is_in_flight() -> None:
    assert not settled(at(0, position=10**9, busy="0123456789")).ask
    assert not decide(at(0, checkpoint=None, busy="0123456789"), Memory(), SETTINGS).ask


@pytest.mark.parametrize(("waiting", "ask"), [(64 * KB - 1, False), (64 * KB, True), (64 * KB + 1, True)])
def test_enough_wal_asks_at_once(waiting: int, ask: bool) -> None:
    assert settled(at(0, position=1000 + waiting)).ask is ask


@pytest.mark.parametrize(("age", "ask"), [(29, False), (30, True), (31, True)])
def test_any_wal_asks_when_it_has_waited_long_enough(age: float, ask: bool) -> None:
    first = settled(at(0, position=1001))
    assert not first.ask
    later = settled(at(age, position=1001), first.memory)
    assert (later.ask, later.by_age) == (ask, ask)


def test_age_counts_from_the_first_sight_of_what_waits_not_from_the_last_growth() -> None:
    memory = settled(at(0, position=1001)).memory
    for second in range(5, 30, 5):
        decision = settled(at(second, position=1001 + second), memory)
        assert not decision.ask
        memory = decision.memory
    assert settled(at(30, position=1031), memory).ask


def test_what_was_asked_for_is_not_asked_for_again() -> None:
    asked = settled(at(0, position=10**6))
    assert asked.ask
    assert asked.memory.asked == Lsn(10**6)
    after = at(3600, position=10**6, last=ended(Ending.WELL))
    assert not settled(after, asked.memory).ask


def test_wal_behind_what_was_asked_for_is_not_counted_twice() -> None:
    memory = replace(settled(at(0, position=10**6)).memory, settled=Lsn(1000))
    assert not settled(at(5, position=10**6 + KB, last=ended(Ending.WELL)), memory).ask
    assert settled(at(5, position=10**6 + 64 * KB, last=ended(Ending.WELL)), memory).ask


@given(
    st.lists(st.tuples(st.floats(1, 100_000), st.booleans()), max_size=40),
    st.integers(0, 10**7),
)
def test_a_database_in_which_nothing_happens_gets_one_run_at_most(
    ticks: list[tuple[float, bool]], position: int
) -> None:
    memory, seconds, asked, last = Memory(), 0.0, 0, None
    checkpoint = 500
    for pause, captured in ticks:
        seconds += pause
        decision = decide(at(seconds, position, checkpoint, last=last, behind=()), memory, SETTINGS)
        memory = Memory.from_cursor(decision.memory.to_cursor())
        if decision.ask:
            asked += 1
            last = ended(Ending.WELL, seconds)
            checkpoint = max(checkpoint, position) if captured else checkpoint
    assert asked <= 1


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 40 * KB)), min_size=1, max_size=60))
def test_nothing_waits_longer_than_age_and_one_tick(steps: list[tuple[int, int]]) -> None:
    memory, position, checkpoint, seconds = Memory(settled=Lsn(1000)), 1000, 1000, 0.0
    waiting_since: float | None = None
    for pause, written in steps:
        seconds += pause
        position += written
        if waiting_since is None and position > checkpoint:
            waiting_since = seconds
        decision = decide(at(seconds, position, checkpoint), memory, SETTINGS)
        memory = decision.memory
        if decision.ask:
            checkpoint, waiting_since = position, None
            memory = replace(memory, settled=Lsn(checkpoint))
        elif waiting_since is not None:
            assert seconds - waiting_since < SETTINGS.max_age_seconds
            assert position - checkpoint < 64 * KB


# --- failed runs


def test_a_failed_run_is_followed_by_growing_pauses() -> None:
    memory, seconds, pauses = settled(at(0, position=10**6)).memory, 0.0, []
    for number in range(8):
        last = ended(Ending.BADLY, seconds, f"run-{number}")
        tick = seconds
        while not (decision := decide(at(tick, 10**6, last=last), memory, SETTINGS)).ask:
            memory = decision.memory
            tick += 1
        pauses.append(tick - seconds)
        memory, seconds = decision.memory, tick
    assert pauses == [20, 40, 80, 160, 320, 600, 600, 600]
    assert max(pauses) == LONGEST_PAUSE.total_seconds()


def test_a_pause_is_the_same_however_often_it_is_looked_at() -> None:
    last = ended(Ending.BADLY)
    once = decide(at(1, 10**6, last=last), Memory(asked=Lsn(10**6)), SETTINGS)
    twice = decide(at(2, 10**6, last=last), once.memory, SETTINGS)
    assert once.memory == twice.memory
    assert once.reason == twice.reason


def test_a_good_run_forgets_the_failures() -> None:
    failing = decide(at(1, 10**6, last=ended(Ending.BADLY)), Memory(asked=Lsn(10**6)), SETTINGS).memory
    assert failing.failures == 1
    assert decide(at(2, 10**6, last=ended(Ending.WELL, run_id="run-2")), failing, SETTINGS).memory.failures == 0


def test_new_wal_waits_for_the_pause_of_a_run_that_brought_nothing_on() -> None:
    memory = Memory(asked=Lsn(1000), settled=Lsn(1000))
    assert not decide(at(5, 10**6, last=ended(Ending.BADLY)), memory, SETTINGS).ask
    assert decide(at(20, 10**6, last=ended(Ending.BADLY)), memory, SETTINGS).ask


def test_new_wal_does_not_wait_for_a_table_that_is_parked() -> None:
    memory = Memory(asked=Lsn(1000), settled=Lsn(1000))
    assert decide(at(5, 10**6, last=ended(Ending.PARTLY), behind=()), memory, SETTINGS).ask


def test_a_parked_table_alone_asks_for_nothing() -> None:
    memory = settled(at(0, position=10**6)).memory
    for second in range(1, 4000, 60):
        decision = decide(at(second, 10**6, 10**6, last=ended(Ending.PARTLY), behind=()), memory, SETTINGS)
        assert not decision.ask
        memory = decision.memory


# --- tables behind the log


def test_tables_that_lack_what_the_log_holds_get_a_run() -> None:
    decision = decide(at(0, behind=("public.orders",)), Memory(), SETTINGS)
    assert decision.ask
    assert "public.orders" in decision.reason


def test_they_are_asked_for_once_for_each_state_of_the_log() -> None:
    memory = decide(at(0, behind=("public.orders",)), Memory(), SETTINGS).memory
    assert not decide(at(1, last=ended(Ending.WELL), behind=("public.orders",)), memory, SETTINGS).ask
    assert decide(at(2, 2000, 2000, last=ended(Ending.WELL), behind=("public.orders",)), memory, SETTINGS).ask


def test_and_again_after_a_pause_when_the_run_failed() -> None:
    memory = decide(at(0, behind=("public.orders",)), Memory(), SETTINGS).memory
    last = ended(Ending.PARTLY, 1)
    assert not decide(at(20, last=last, behind=("public.orders",)), memory, SETTINGS).ask
    assert decide(at(21, last=last, behind=("public.orders",)), memory, SETTINGS).ask


# --- who wrote it


def test_what_no_transaction_wrote_starts_no_run_for_an_hour() -> None:
    first = confirmed(settled(at(0, position=10**6)), at(0, position=10**6), Memory(), "700:700:")
    assert first.ask
    memory, asked_after = first.memory, None
    for second in range(10, int(IDLE.total_seconds()) + 60, 10):
        seen = at(second, 10**6 + 100, 10**6, last=ended(Ending.WELL), behind=())
        decision = decide(seen, memory, SETTINGS)
        if decision.ask:
            decision = confirmed(decision, seen, memory, "700:700:")
        memory = Memory.from_cursor(decision.memory.to_cursor())
        if decision.ask:
            asked_after = second
            break
    assert asked_after is not None
    assert IDLE.total_seconds() <= asked_after <= IDLE.total_seconds() + SETTINGS.max_age_seconds


def test_what_a_transaction_wrote_is_found_at_the_next_look() -> None:
    seen = at(0, position=10**6)
    memory = confirmed(settled(seen), seen, Memory(), "700:700:").memory
    asked = {}
    for second, writers in ((10, "700:700:"), (40, "700:700:"), (70, "700:701:")):
        seen = at(second, 10**6 + 100, 10**6, last=ended(Ending.WELL), behind=())
        decision = decide(seen, memory, SETTINGS)
        if decision.ask:
            decision = confirmed(decision, seen, memory, writers)
        asked[second], memory = decision.ask, decision.memory
    assert asked == {10: False, 40: False, 70: True}


def test_much_wal_is_read_whoever_wrote_it() -> None:
    seen = at(5, position=10**6)
    memory = Memory(asked=Lsn(1000), settled=Lsn(1000), asked_at=NOW, writers="700:700:")
    assert confirmed(decide(seen, memory, SETTINGS), seen, memory, "700:700:").ask


# --- the cursor

memories = st.builds(
    Memory,
    asked=st.none() | st.integers(0, 2**63).map(Lsn),
    settled=st.none() | st.integers(0, 2**63).map(Lsn),
    waiting_since=st.none() | st.datetimes(timezones=st.just(UTC)),
    asked_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    observed_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    writers=st.none() | st.text(),
    observed=st.none() | st.text(),
    failures=st.integers(0, 100),
    run_id=st.none() | st.text(),
)


@given(memories)
def test_the_cursor_keeps_the_memory(memory: Memory) -> None:
    assert Memory.from_cursor(memory.to_cursor()) == memory


@pytest.mark.parametrize("cursor", [None, "", "{", "[]", "7", '{"asked": "x"}', '{"what": 1}', '{"asked_at": 5}'])
def test_a_cursor_that_cannot_be_read_is_no_memory(cursor: str | None) -> None:
    assert Memory.from_cursor(cursor) == Memory()
