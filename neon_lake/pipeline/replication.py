"""A pipeline at work: the five verbs, and what people do with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from neon_lake.change import Lsn
from neon_lake.config import Pipeline
from neon_lake.errors import (
    ConfigError,
    DestinationUnavailable,
    Finding,
    NeonLakeError,
    ParityBroken,
    SlotsExhausted,
    SourceRefused,
    StagingUnavailable,
    TableRefused,
    listed,
)
from neon_lake.lifecycle import Event, Mark, State, after, state_of
from neon_lake.pipeline import applying, overview, slots, snapshots
from neon_lake.pipeline.capture import capture
from neon_lake.pipeline.opening import open_parts
from neon_lake.pipeline.parity import compare, frontier
from neon_lake.pipeline.parts import Parts, Progress
from neon_lake.pipeline.replaying import replay
from neon_lake.pipeline.results import Captured, Expired, Parity, Status, Synced, TableResult, Verified
from neon_lake.schema import Relation, TableName
from neon_lake.sources.base import Snapshot
from neon_lake.staging.log import ORIGIN, UNKNOWN

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

ATTEMPTS: Final = 30
"""How many snapshots `verify` takes before it gives up on finding one that is a prefix of the commit order."""


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """The tables that a verb is about, those among them that cannot be replicated, and all that are to be published."""

    relations: tuple[Relation, ...]
    refused: Mapping[TableName, TableResult]
    wanted: tuple[Relation, ...]


class Replication:
    """One pipeline's source, log and lake, and what can be done with them.

    Not for use by several threads at once. Two processes may: the slot admits one capture, the log one successor of
    each manifest, and Delta one commit of each watermark; the other one gets a transient error.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @classmethod
    def open(
        cls,
        config: Pipeline,
        *,
        progress: Callable[[Progress], None] = lambda _: None,
        client: WorkspaceClient | None = None,
    ) -> Self:
        """The pipeline that a pipeline file describes. Touches nothing yet.

        `client` is a Databricks workspace's, in place of the one that the file says how to make. Raises `ConfigError`.
        """
        return cls(open_parts(config, progress, client))

    # --- the micro-batch

    def sync(self, tables: Sequence[TableName] = ()) -> Synced:
        """Snapshot new tables, capture up to the source's position of now, and apply.

        `tables` restricts snapshot and apply to some tables, and gives parked ones among them another try; capture is
        of the whole slot always. Raises what stops all tables; what stops one is in its result.
        """
        before = self.parts.costs()
        chosen = self._choose(tables)
        self._ready()
        if tables:
            self._retry(chosen.relations)
        captured, results = self._micro_batch(chosen.relations, chosen.wanted)
        if stale := [r for r in chosen.relations if results[r.table].state is State.STALE]:
            # a table that outgrew its target is snapshotted at once: nothing else may ever call for it
            more, anew = self._micro_batch(stale, chosen.wanted)
            captured, results = captured + more, results | anew
        costs = self.parts.costs() - before
        return Synced(captured=captured, tables={**results, **chosen.refused}, costs=costs)

    def _micro_batch(
        self, relations: Sequence[Relation], wanted: Sequence[Relation]
    ) -> tuple[Captured, dict[TableName, TableResult]]:
        failed = self._prepare(relations, wanted)
        captured = capture(self.parts, self.parts.source.position())
        return captured, applying.apply(self.parts, [r for r in relations if r.table not in failed]) | failed

    def _prepare(self, relations: Sequence[Relation], wanted: Sequence[Relation]) -> dict[TableName, TableResult]:
        """Publication, slot, origin of the log, and snapshots of the tables that wait for one; gives what failed."""
        parts, failed = self.parts, dict[TableName, TableResult]()
        head, slot = slots.standing(parts)
        if trouble := slots.problem(parts, head, slot, wanted):
            raise trouble
        if head is None:
            self._check_source()
        slots.publish(parts, wanted)
        marks = parts.log.marks()

        def note(relation: Relation, exc: Exception) -> None:
            failed[relation.table] = applying.failed(parts, self._standing(relation, marks.get(relation.table)), exc)

        waiting = [relation for relation in relations if self._waits(relation, marks.get(relation.table))]
        if head is None and slot is None:
            with parts.source.create_slot() as snapshot:
                parts.log.publish(parts.owner, start=ORIGIN, end=snapshot.lsn)
                snapshots.stage(parts, snapshot, waiting, note)
            return failed
        if head is None and slot is not None:
            parts.log.publish(parts.owner, start=ORIGIN, end=slot.confirmed)
        if not waiting:
            return failed
        try:
            with parts.source.slot_snapshot() as snapshot:
                snapshots.stage(parts, snapshot, waiting, note)
        except SlotsExhausted as exc:
            # only these tables need another slot
            for relation in waiting:
                note(relation, exc)
        return failed

    def _standing(self, relation: Relation, mark: Mark | None) -> TableResult:
        """Where a table stands, as a result in which nothing has happened to it."""
        target = self.parts.destination.target(relation.table)
        watermark = target.watermark if target else None
        return TableResult(
            table=relation.table, state=state_of(watermark, mark), relation=relation, watermark=watermark
        )

    def _waits(self, relation: Relation, mark: Mark | None) -> bool:
        """Whether the table needs a snapshot that is not in staging yet."""
        now = self._standing(relation, mark)
        if now.state not in (State.NEW, State.STALE):
            return False
        stored = self.parts.log.snapshot_position(relation.table)
        return not snapshots.usable(stored, now.watermark, mark.lsn if mark else None)

    # --- repair

    def resync(self, tables: Sequence[TableName] = ()) -> Synced:
        """Snapshot tables anew (all when none is named); a lost slot is made anew first, and the gap recorded.

        The old content stays readable until the new one takes its place by one commit.
        """
        chosen = self._choose(tables)
        self._ready()
        slots.mend(self.parts, chosen.wanted)
        marks = self.parts.log.marks()
        for relation in chosen.relations:
            if (now := self._standing(relation, marks.get(relation.table))).state is not State.NEW:
                state = after(now.state, Event.RESYNC_ASKED)
                applying.put_mark(self.parts, relation.table, state, "A resync was asked for.")
        return self.sync(tables)

    def _retry(self, relations: Sequence[Relation]) -> None:
        marks = self.parts.log.marks()
        for relation in relations:
            mark = marks.get(relation.table)
            if mark and mark.state is State.PARKED:
                self.parts.log.unmark(relation.table)

    def replay(self, table: TableName, since: datetime, until: datetime | None = None) -> TableResult:
        """Apply again what the log has of a table's keys that changed in [since, until): see `replaying.replay`."""
        chosen = self._choose([table])
        if table in chosen.refused:
            return chosen.refused[table]
        self._ready()
        before = self._standing(chosen.relations[0], self.parts.log.marks().get(table))
        return replay(self.parts, applying.writer_of(self.parts), table, before, since, until)

    # --- parity

    def verify(
        self, tables: Sequence[TableName] = (), *, deep: bool = False, only: Callable[[Relation], bool] = lambda _: True
    ) -> Verified:
        """Compare source and lake at one position, which a micro-batch brings the lake to.

        `deep` compares contents, else rows are counted; `only` chooses among the tables that were brought along.

        A difference is looked at twice: TRUNCATE, and DDL that rewrites a table, empty it for older snapshots too
        (https://www.postgresql.org/docs/current/mvcc-caveats.html). Raises `ParityBroken` when other runs move the
        lake on all the time.
        """
        found = self._compare(tables, deep=deep, only=only)
        if not (differing := [name for name, parity in found.parity.items() if not parity.ok]):
            return found
        again = self._compare(differing, deep=deep, only=only)
        return Verified(
            synced=found.synced.then(again.synced),
            parity={**found.parity, **again.parity},
            unchecked={**found.unchecked, **again.unchecked},
            left_out=found.left_out,
        )

    def _compare(self, tables: Sequence[TableName], *, deep: bool, only: Callable[[Relation], bool]) -> Verified:
        for attempt in range(ATTEMPTS):
            with self.parts.source.snapshot() as snapshot:
                synced, position = self._sync_to(snapshot, tables)
                if synced is None:
                    # let the transactions that the snapshot fell between become visible
                    time.sleep(min(0.01 * 2**attempt, 1.0))
                    continue
                parity: dict[TableName, Parity] = {}
                unchecked: dict[TableName, str] = {}
                left_out: dict[TableName, str] = {}
                for name, result in synced.tables.items():
                    relation = result.relation
                    if relation is None or not only(relation):
                        continue
                    if relation.inserts_only:
                        left_out[name] = "only its inserts are sent, so that there is nothing to compare"
                        continue
                    target = self.parts.destination.target(name)
                    if result.error or target is None:
                        unchecked[name] = result.error or "not in the lake"
                    else:
                        parity[name] = compare(self.parts, snapshot, relation, target, at=position, deep=deep)
                return Verified(synced=synced, parity=parity, unchecked=unchecked, left_out=left_out)
        raise ParityBroken(
            "No snapshot of the source could be compared: other runs moved the lake on each time; "
            "stop them, then run this again."
        )

    def _sync_to(self, snapshot: Snapshot, tables: Sequence[TableName]) -> tuple[Synced | None, Lsn]:
        """Sync exactly to what a snapshot shows, and where that is; None when this snapshot is no use."""
        chosen = self._choose(tables)
        self._ready()
        if self._had_to_prepare(chosen):
            return None, ORIGIN
        captured = capture(self.parts, snapshot.lsn)
        names = [relation.table for relation in chosen.relations]
        position = frontier(self.parts, snapshot, names)
        if position is None or any(self._past(name, position) for name in names):
            return None, ORIGIN
        results = applying.apply(self.parts, chosen.relations, position)
        if any(result.state is State.STALE for result in results.values()):
            # a table outgrew its target: the snapshot that it needs will be newer than this one
            return None, ORIGIN
        return Synced(captured=captured, tables={**results, **chosen.refused}), position

    def _had_to_prepare(self, chosen: _Chosen) -> bool:
        """Sync tables that are not ready to be brought along; what a snapshot that is older shows is no use then."""
        published, marks = self.parts.source.published(chosen.relations), self.parts.log.marks()
        names = [relation.table for relation in chosen.relations]
        ready = published.issuperset(names) and not any(
            self._waits(relation, marks.get(relation.table)) for relation in chosen.relations
        )
        head, slot = slots.standing(self.parts)
        if not ready or head is None:
            self.sync(names)
            return True
        if trouble := slots.problem(self.parts, head, slot, chosen.wanted):
            raise trouble
        return False

    def _past(self, table: TableName, position: Lsn) -> bool:
        target = self.parts.destination.target(table)
        if target is None or target.watermark is None:
            return False
        return (max(target.watermark, target.pending or target.watermark), target.within) > (position, 0)

    # --- looking, and cleaning up

    def check(self, *, start: bool = False) -> tuple[Finding, ...]:
        """Look at source, staging and destination; what would go wrong is said before it does.

        `start`: a SQL warehouse that is stopped is started, to try what it is allowed to do.
        """
        found = [*self.parts.source.check(), self.parts.log.storage.check(), *self.parts.destination.inspect()]
        if not any(finding.problem for finding in found):
            try:
                self.parts.log.claim(self.parts.owner)
                wanted = self.relations()
                found += self.parts.destination.rehearse([relation.table for relation in wanted], start=start)
                if trouble := slots.problem(self.parts, *slots.standing(self.parts), wanted):
                    raise trouble
            except NeonLakeError as exc:
                found.append(Finding(subject="log", detail="slot and log", problem=str(exc)))
            else:
                found.append(Finding(subject="log", detail="slot and log fit together"))
        return tuple(found)

    def status(self, tables: Sequence[TableName] = ()) -> Status:
        """Where the slot, the log and every table stand. Changes nothing."""
        chosen = self._choose(tables)
        refused = {name: str(result.error) for name, result in chosen.refused.items()}
        return overview.status(self.parts, chosen.relations, refused, chosen.wanted)

    def expire(self, now: datetime | None = None) -> Expired:
        """Remove what is older than `staging.retention_days` and applied to every table, and orphans."""
        chosen = self._choose(())
        self._ready()
        return overview.expire(self.parts, chosen.relations, now or datetime.now(UTC))

    def drop(self) -> None:
        """Remove slot and publication, so that nothing holds WAL. Staging and lake stay as they are."""
        self.parts.source.drop()

    # --- what every verb begins with

    def relations(self) -> tuple[Relation, ...]:
        """The pipeline's tables as the source has them now, without those that cannot be replicated."""
        return self.parts.source.survey().relations

    def _choose(self, tables: Sequence[TableName]) -> _Chosen:
        """The named tables, or all.

        Raises `ConfigError` for one that is not of the pipeline; and `TableRefused` for the first that cannot be
        replicated as long as the pipeline has not begun: later it must not stop the others.
        """
        survey = self.parts.source.survey()
        found = {relation.table: relation for relation in survey.relations}
        if survey.refused and self.parts.log.head() is None:
            more = f" ({len(survey.refused) - 1} more tables are refused too.)" if len(survey.refused) > 1 else ""
            raise TableRefused(next(iter(survey.refused.values())) + more)
        if unknown := [name for name in tables if name not in found and name not in survey.refused]:
            raise ConfigError(
                f"{listed(unknown)} is not a table of the pipeline {self.parts.config.name}; "
                f"its tables are {listed(list(found), most=20)}."
            )
        names = tables or [*found, *survey.refused]
        refused = {
            name: TableResult(table=name, state=State.PARKED, error=survey.refused[name])
            for name in names
            if name in survey.refused
        }
        relations = tuple(found[name] for name in names if name in found)
        return _Chosen(relations=relations, refused=refused, wanted=survey.relations)

    def _check_source(self) -> None:
        """Refuse a source that could not be followed, before anything is made there."""
        problem = next((finding.problem for finding in self.parts.source.check() if finding.problem), None)
        if problem:
            raise SourceRefused(problem)

    def _ready(self) -> None:
        """Refuse early: staging or lake that cannot be written, or another pipeline's log."""
        if problem := self.parts.log.storage.check().problem:
            raise StagingUnavailable(problem)
        if problem := self.parts.destination.check().problem:
            raise DestinationUnavailable(problem)
        self.parts.log.claim(self.parts.owner)
        for mark in self.parts.log.marks().values():
            if mark.lsn == UNKNOWN:
                applying.put_mark(self.parts, mark.table, mark.state, mark.reason)
