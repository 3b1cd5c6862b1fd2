"""Writing to a lake whose tables this process makes: changes are read, compacted, and committed as plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import chain as chained

import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.apply.append import append
from neon_lake.apply.copies import copies
from neon_lake.apply.mirror import mirror
from neon_lake.apply.plan import MergePlan, Truncation, target_schema
from neon_lake.change import COMMITTED_AT, DELETED_AT, LSN, OP, READ, ROW_ID, SEQUENCE, TIMESTAMP, TRUNCATE, Lsn
from neon_lake.config import Table, WriteMode
from neon_lake.destinations.base import Lake, Target
from neon_lake.fingerprint import row_ids
from neon_lake.pipeline.parts import Parts
from neon_lake.pipeline.portions import changes_of, joined, portions
from neon_lake.pipeline.writing import Step
from neon_lake.schema import RESCUED
from neon_lake.staging.manifest import Manifest, SnapshotManifest
from neon_lake.staging.segment import by_hour


class PlanWriter:
    """`Writer` for a `Lake`."""

    def __init__(self, parts: Parts, lake: Lake) -> None:
        self._parts, self._lake = parts, lake

    def snapshot(
        self, old: Target | None, manifest: SnapshotManifest, schema: pa.Schema, settings: Table, *, keep: bool
    ) -> Target:
        """See `Writer.snapshot`."""
        table, rows = manifest.relation.table, self._rows(manifest, schema)
        if keep and settings.mode is WriteMode.APPEND:
            emptied = {OP: TRUNCATE, LSN: int(manifest.lsn), SEQUENCE: -1, COMMITTED_AT: manifest.taken_at}
            rows = chained([pa.RecordBatch.from_pylist([emptied], schema)], rows)
            return self._lake.replace(table, old, schema, rows, manifest.lsn, keep=True)
        if keep and old is not None:
            plan = MergePlan(
                rows=pa.Table.from_batches(rows, schema),
                deletes=schema.empty_table().select([column.name for column in manifest.relation.key]),
                only_new=False,
                truncate=Truncation(lsn=manifest.lsn, committed_at=manifest.taken_at),
            )
            return self._lake.merge(old, schema, plan, manifest.lsn)
        return self._lake.replace(table, old, schema, rows, manifest.lsn)

    def _rows(self, manifest: SnapshotManifest, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The snapshot's rows as rows of the target. Their `_committed_at` is when the snapshot was taken."""
        constants = {
            LSN: pa.scalar(int(manifest.lsn), pa.int64()),
            COMMITTED_AT: pa.scalar(manifest.taken_at, TIMESTAMP),
            DELETED_AT: pa.scalar(None, TIMESTAMP),
            OP: READ,
            SEQUENCE: pa.scalar(0, pa.int64()),
        }
        content = [*(column.name for column in manifest.relation.columns), RESCUED]
        for segment in manifest.segments:
            rows = self._parts.log.read(segment)
            for name, value in constants.items():
                if name in schema.names:
                    rows = rows.append_column(name, pa.repeat(value, len(rows)))
            if ROW_ID in schema.names:
                rows = rows.append_column(ROW_ID, row_ids(rows, content))
            yield from rows.select(schema.names).cast(schema).to_batches()

    def changes(self, target: Target, settings: Table, chain: Sequence[Manifest], end: Lsn) -> Iterator[Step]:
        """See `Writer.changes`. A commit takes changes of at most half of `parts.memory`."""
        for portion in portions(self._parts, target, chain, end):
            changes, relation = joined(target, portion.pieces)
            schema = target_schema(relation, settings.deletes, mode=settings.mode)
            lookup = partial(self._lake.lookup, target)
            if settings.mode is WriteMode.APPEND:
                plan = append(relation, changes, lookup)
            elif relation.keyless:
                plan = copies(relation, changes, partial(lookup, columns=()))
            else:
                plan = mirror(relation, changes, lookup, deletes=settings.deletes)
            target = self._lake.merge(target, schema, plan, portion.watermark, portion.within)
            yield _step(target, changes, plan)

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
        """See `Writer.replay`. Memory grows with the number of changes that are replayed."""
        assert target.watermark is not None
        pieces = list(changes_of(self._parts, target, chain, since=fence, until=target.watermark))
        if not pieces:
            return None
        changes, relation = joined(target, pieces)
        recent = changes.filter(pc.greater_equal(changes[COMMITTED_AT], pa.scalar(since)))
        if not len(recent):
            return None
        changes = changes.filter(pc.greater_equal(changes[LSN], pc.min(recent[LSN])))
        lookup = partial(self._lake.lookup, target)
        plan = mirror(relation, changes, lookup, deletes=settings.deletes, fresh=False, touched_before=until)
        schema = target_schema(relation, settings.deletes)
        return _step(self._lake.merge(target, schema, plan, target.watermark), changes, plan)


def _step(target: Target, changes: pa.Table, plan: MergePlan) -> Step:
    return Step(
        target=target,
        hours=by_hour(changes),
        last_commit_at=pc.max(changes[COMMITTED_AT]).as_py(),
        first=Lsn(pc.min(changes[LSN]).as_py()),
        incomplete=plan.incomplete,
    )
