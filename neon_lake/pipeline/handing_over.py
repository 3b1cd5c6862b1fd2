"""Writing to a warehouse: the files of the log are handed over as they lie in staging, and nothing is read."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.apply.plan import Truncation, target_schema
from neon_lake.apply.staged import StagedChanges, StagedFile, StagedSnapshot, resolved, resolved_schema
from neon_lake.change import LSN, Lsn
from neon_lake.config import Table, WriteMode
from neon_lake.destinations.base import Target, Warehouse
from neon_lake.pipeline.parts import Parts
from neon_lake.pipeline.portions import check_follows, joined, within
from neon_lake.pipeline.writing import Step
from neon_lake.schema import Relation
from neon_lake.staging import segment as segments
from neon_lake.staging.log import RESOLVED
from neon_lake.staging.manifest import Manifest, SnapshotManifest
from neon_lake.staging.segment import Counts, Segment, Summary

FILES: Final = 500
"""Files that one statement reads, at most; but a manifest is not divided."""


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A segment of the batch, with its relation and what its changes within the batch are."""

    segment: Segment
    relation: Relation
    summary: Summary


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """What one statement is to apply."""

    pieces: Sequence[_Piece]
    since: Lsn
    until: Lsn

    @cached_property
    def relation(self) -> Relation:
        return self.pieces[-1].relation

    @cached_property
    def counts(self) -> Counts:
        return sum((count for piece in self.pieces for count in piece.summary.hours.values()), Counts())

    @property
    def tangled(self) -> bool:
        """Whether rows may have changed their key while values of theirs were not sent.

        Which row has such a value then depends on a chain of changes, which is followed here.
        """
        moved = any(piece.summary.moved for piece in self.pieces) and bool(self.relation.key)
        return moved and any(piece.summary.unsent for piece in self.pieces)

    @property
    def hours(self) -> Mapping[datetime, Counts]:
        found: dict[datetime, Counts] = {}
        for piece in self.pieces:
            for hour, counts in piece.summary.hours.items():
                found[hour] = found.get(hour, Counts()) + counts
        return found

    @property
    def last_commit_at(self) -> datetime | None:
        return max((p.summary.last_commit_at for p in self.pieces if p.summary.last_commit_at), default=None)

    def staged(self, settings: Table) -> StagedChanges:
        """The batch as a warehouse is given it."""
        truncation = max((p.summary.truncation for p in self.pieces if p.summary.truncation), default=None)
        if settings.mode is WriteMode.APPEND:
            # a TRUNCATE is a row there, and ends nothing
            truncation = None
        only_inserts = self.counts.inserts == self.counts.total
        return StagedChanges(
            relation=self.relation,
            files=[_file(piece.segment, piece.relation) for piece in self.pieces],
            since=self.since,
            until=self.until,
            mode=settings.mode,
            deletes=settings.deletes,
            unsent=frozenset(name for piece in self.pieces for name in piece.summary.unsent),
            moved=any(piece.summary.moved for piece in self.pieces),
            grows=only_inserts,
            truncation=Truncation(lsn=Lsn(truncation[0]), committed_at=truncation[2]) if truncation else None,
            after=truncation[:2] if truncation else None,
        )


class WarehouseWriter:
    """`Writer` for a `Warehouse`."""

    def __init__(self, parts: Parts, warehouse: Warehouse) -> None:
        self._parts, self._warehouse = parts, warehouse

    def snapshot(
        self, old: Target | None, manifest: SnapshotManifest, schema: pa.Schema, settings: Table, *, keep: bool
    ) -> Target:
        """See `Writer.snapshot`."""
        staged = StagedSnapshot(
            relation=manifest.relation,
            files=[_file(segment, manifest.relation) for segment in manifest.segments],
            lsn=manifest.lsn,
            taken_at=manifest.taken_at,
            mode=settings.mode,
            deletes=settings.deletes,
            keep=keep,
        )
        return self._warehouse.load(old, schema, staged)

    def changes(self, target: Target, settings: Table, chain: Sequence[Manifest], end: Lsn) -> Iterator[Step]:
        """See `Writer.changes`. What was begun before is carried out first, just as it was begun."""
        assert target.watermark is not None
        if target.pending is not None:
            batch = self._batch(target, chain, target.watermark, target.pending)
            if batch is not None:
                yield (step := self._carry_out(target, settings, batch))
                target = step.target
        assert target.watermark is not None
        for until in self._cuts(target, chain, end):
            batch = self._batch(target, chain, target.watermark, until)
            if batch is not None:
                yield (step := self._carry_out(target, settings, batch))
                target = step.target
                assert target.watermark is not None

    def _cuts(self, target: Target, chain: Sequence[Manifest], end: Lsn) -> Iterator[Lsn]:
        """Where batches end: as late as their number of files, and what would have to be read of them, allow."""
        assert target.watermark is not None
        files, loaded, tangled = 0, 0, False
        for before, manifest in zip([None, *chain], chain, strict=False):
            found = manifest.of(target.table)
            if not found or manifest.end <= target.watermark or manifest.start >= end:
                continue
            summaries = [segment.summary for segment in found]
            tangled = tangled or any(s is None or (s.moved and target.key) for s in summaries)
            files += len(found)
            loaded += sum(segment.loaded for segment in found)
            if files > len(found) and (files > FILES or (tangled and loaded > self._parts.memory // 2)):
                assert before is not None
                yield before.end
                files, loaded = len(found), sum(segment.loaded for segment in found)
        if files:
            yield end

    def _batch(self, target: Target, chain: Sequence[Manifest], since: Lsn, until: Lsn) -> _Batch | None:
        """The changes that commit in [since, until); None when there is none."""
        pieces = []
        for manifest in chain:
            if manifest.end <= since or manifest.start >= until:
                continue
            whole = manifest.start >= since and manifest.end <= until
            for segment in manifest.of(target.table):
                relation = manifest.relations[segment.relation]
                if (summary := self._summary(segment, since, until, whole=whole)) is not None:
                    pieces.append(_Piece(segment=segment, relation=relation, summary=summary))
        return _Batch(pieces=pieces, since=since, until=until) if pieces else None

    def _summary(self, segment: Segment, since: Lsn, until: Lsn, *, whole: bool) -> Summary | None:
        """What the changes of a segment that commit in [since, until) are; None when there is none.

        Only a segment that is cut, or was written before there were summaries, is read.
        """
        if whole and segment.summary is not None:
            return segment.summary
        rows = self._parts.log.read(segment, list(Summary.COLUMNS))
        rows = rows.filter(pc.and_(pc.greater_equal(rows[LSN], int(since)), pc.less(rows[LSN], int(until))))
        return Summary.of(rows) if len(rows) else None

    def _carry_out(self, target: Target, settings: Table, batch: _Batch) -> Step:
        check_follows(target, [piece.relation for piece in batch.pieces])
        schema = target_schema(batch.relation, settings.deletes, mode=settings.mode)
        with_notes = schema.set(schema.get_field_index(LSN), target.schema.field(LSN))
        staged, worked_over = batch.staged(settings), None
        if batch.tangled:
            staged, worked_over = self._resolved(target, batch, staged, batch.since)
        done = self._warehouse.carry_out(target, with_notes, staged)
        if worked_over is not None:
            self._parts.log.storage.delete([worked_over])
        return Step(
            target=done,
            hours=batch.hours,
            last_commit_at=batch.last_commit_at,
            first=batch.since,
        )

    def _resolved(self, target: Target, batch: _Batch, staged: StagedChanges, since: Lsn) -> tuple[StagedChanges, str]:
        """A batch whose chains of keys were followed here, as one file."""
        found = [(piece.segment, piece.relation) for piece in batch.pieces]
        rows = list(within(self._parts, found, since=since, until=batch.until))
        changes, relation = joined(target, rows)
        events = resolved(relation, changes, mode=staged.mode, deletes=staged.deletes)
        path = f"{RESOLVED}/{target.table.path.replace('/', '.')}-{since.hex}-{secrets.token_hex(4)}.parquet"
        with self._parts.log.storage.sink(path) as file:
            _, size, _ = segments.write(file, resolved_schema(relation), events.to_batches())
        return replace(
            staged,
            files=[StagedFile(path=path, relation=relation, bytes=size)],
            resolved=True,
            truncation=staged.truncation,
        ), path

    def replay(
        self,
        target: Target,
        settings: Table,
        chain: Sequence[Manifest],
        *,
        fence: Lsn,
        since: datetime,
        until: datetime | None,
    ) -> Step | None:
        """See `Writer.replay`. Whole manifests are replayed, from the first that has a commit of then."""
        assert target.watermark is not None
        start = max(fence, min((m.start for m in chain), default=fence))
        batch = self._batch(target, chain, start, target.watermark)
        if batch is None or batch.last_commit_at is None or batch.last_commit_at < since:
            return None
        staged, worked_over = batch.staged(settings), None
        check_follows(target, [piece.relation for piece in batch.pieces])
        if batch.tangled:
            staged, worked_over = self._resolved(target, batch, staged, start)
        target = self._warehouse.repair(target, staged, until)
        if worked_over is not None:
            self._parts.log.storage.delete([worked_over])
        return Step(
            target=target,
            hours=batch.hours,
            last_commit_at=batch.last_commit_at,
            first=start,
        )


def _file(segment: Segment, relation: Relation) -> StagedFile:
    return StagedFile(path=segment.path, relation=relation, bytes=segment.bytes)
