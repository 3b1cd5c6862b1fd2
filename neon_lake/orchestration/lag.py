"""When the sensor asks for a run: a decision on what it saw and on what it asked for before. Pure.

Where replication stands is read from the log and the lake each time. The memory between two looks holds only what no
place records: which position was asked for already, and since when something waits.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

from neon_lake.change import Lsn
from neon_lake.config import Orchestration
from neon_lake.errors import listed

LONGEST_PAUSE: Final = timedelta(minutes=10)
IDLE: Final = timedelta(hours=1)
"""WAL that no transaction wrote is asked for after so long: it has to be confirmed to the server, or fills its disk."""


class Ending(StrEnum):
    """How the last run that the sensor asked for ended. PARTLY: it failed, and some tables were brought on."""

    WELL = "well"
    PARTLY = "partly"
    BADLY = "badly"


@dataclass(frozen=True, kw_only=True)
class LastRun:
    """The last run that the sensor asked for, once it has ended."""

    run_id: str
    ending: Ending
    ended_at: datetime


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the sensor sees.

    `position`: the end of the source's WAL; `checkpoint`: the end of the log, None before the first run; `behind`: the
    tables that wait for a run though the log holds what they need, None when they were not looked at; `busy`: a run of
    the pipeline that is queued or at work; `problem`: why no run can help.
    """

    now: datetime
    position: Lsn
    checkpoint: Lsn | None
    behind: tuple[str, ...] | None = None
    busy: str | None = None
    last: LastRun | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the sensor remembers.

    `asked`: the position that the last request was made for; `settled`: the checkpoint for which it is known that no
    table is behind, or a run was asked for those that are; `waiting_since`: when WAL past checkpoint and `asked` was
    first seen; `failures`: how many runs have failed in a row, `run_id` the last of them; `observed_at` and
    `observed`: when lag was last recorded, and between which positions; `asked_at` and `writers`: when the last request
    was made, and which transactions had ended then.
    """

    asked: Lsn | None = None
    asked_at: datetime | None = None
    writers: str | None = None
    settled: Lsn | None = None
    waiting_since: datetime | None = None
    failures: int = 0
    run_id: str | None = None
    observed_at: datetime | None = None
    observed: str | None = None

    def after(self, last: LastRun | None) -> Self:
        """Count a run that has failed, once; forget the failures after one that has not."""
        if last is None or last.ending is Ending.WELL:
            return replace(self, failures=0, run_id=None)
        if last.run_id == self.run_id:
            return self
        return replace(self, failures=self.failures + 1, run_id=last.run_id, settled=None)

    def to_cursor(self) -> str:
        """The memory as Dagster keeps it."""
        return json.dumps({key: _plain(value) for key, value in asdict(self).items() if value is not None})

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Self:
        """The inverse of `to_cursor`. A cursor that cannot be read is no memory: nothing depends on it."""
        try:
            data = json.loads(cursor or "{}")
            for key in {"asked", "settled"} & data.keys():
                data[key] = Lsn.parse(data[key])
            for key in {"asked_at", "waiting_since", "observed_at"} & data.keys():
                data[key] = datetime.fromisoformat(data[key])
            return cls(**data)
        except (ValueError, TypeError, AttributeError):
            return cls()


def _plain(value: object) -> Any:
    if isinstance(value, Lsn):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else value


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether to ask for a run, the reason in words, and the memory to keep.

    `by_age` is set when only the age of what waits speaks for a run: it is worth a look at who wrote it.
    """

    ask: bool
    reason: str
    memory: Memory
    by_age: bool = False


def decide(seen: Seen, memory: Memory, settings: Orchestration) -> Decision:
    """Ask for a run when something waits long enough, or is enough, and nothing is at work on it.

    A position is asked for once: a database in which nothing happens gets no further run. After a failed run the same
    position is asked for again, with pauses that grow up to `LONGEST_PAUSE`; WAL that is new meanwhile has to wait for
    that only if the run brought no table on.
    """
    if seen.problem is not None:
        return Decision(ask=False, reason=seen.problem, memory=memory)
    if seen.busy is not None:
        return Decision(ask=False, reason=f"Run {seen.busy[:8]} is queued or at work.", memory=memory)
    memory = memory.after(seen.last)
    again_at = _again_at(memory, seen.last, settings)
    badly = again_at is not None and seen.last is not None and seen.last.ending is Ending.BADLY
    paused = again_at is not None and seen.now < again_at
    if badly and paused:
        return Decision(
            ask=False, reason=f"The last run failed; the next one is at {again_at:%H:%M:%S} UTC.", memory=memory
        )
    if seen.checkpoint is None:
        return _ask(seen, memory, "The first run: a snapshot of every table.")
    if seen.behind is not None and not seen.behind:
        memory = replace(memory, settled=seen.checkpoint)
    if seen.behind and memory.settled != seen.checkpoint and not paused:
        return _ask(seen, memory, f"{listed(seen.behind)} did not get what the log holds.")
    return _by_lag(seen, memory, settings, badly=badly)


def _by_lag(seen: Seen, memory: Memory, settings: Orchestration, *, badly: bool) -> Decision:
    assert seen.checkpoint is not None
    known = seen.checkpoint if badly or memory.asked is None else max(seen.checkpoint, memory.asked)
    lag = seen.position - known
    if lag <= 0:
        reason = f"Nothing was written since {known}."
        return Decision(ask=False, reason=reason, memory=replace(memory, waiting_since=None))
    since = memory.waiting_since or seen.now
    age = (seen.now - since).total_seconds()
    waiting = f"{lag / 1024:,.1f} kB of WAL are waiting"
    if badly:
        return _ask(seen, memory, f"{waiting}, and the last run failed.")
    if lag >= settings.lag_kb * 1024:
        return _ask(seen, memory, f"{waiting}.")
    if age >= settings.max_age_seconds:
        return replace(_ask(seen, memory, f"{waiting}, for {age:.0f} s."), by_age=True)
    return Decision(ask=False, reason=f"{waiting}, for {age:.0f} s.", memory=replace(memory, waiting_since=since))


def confirmed(decision: Decision, seen: Seen, memory: Memory, writers: str) -> Decision:
    """A decision to ask, looked at again: a server also writes WAL of its own when nobody does anything.

    `writers` says which transactions have ended by now. When they are those of the last request, what waits by its age
    alone goes on waiting, for `IDLE` at most. It is looked at again after the same time, because a transaction can be
    in the WAL shortly before it is seen to have ended.
    """
    recently = memory.asked_at is not None and seen.now - memory.asked_at < IDLE
    if decision.by_age and recently and writers == memory.writers:
        reason = f"{decision.reason} No transaction wrote it."
        return Decision(ask=False, reason=reason, memory=replace(memory.after(seen.last), waiting_since=seen.now))
    return replace(decision, memory=replace(decision.memory, asked_at=seen.now, writers=writers))


def _ask(seen: Seen, memory: Memory, reason: str) -> Decision:
    asked = replace(memory, asked=seen.position, settled=seen.checkpoint, waiting_since=None)
    return Decision(ask=True, reason=reason, memory=asked)


def _again_at(memory: Memory, last: LastRun | None, settings: Orchestration) -> datetime | None:
    """When to ask again after a failed run; None when the last one did not fail."""
    if last is None or not memory.failures:
        return None
    pause = timedelta(seconds=settings.interval_seconds * (1 << min(memory.failures, 16)))
    return last.ended_at + min(pause, LONGEST_PAUSE)
