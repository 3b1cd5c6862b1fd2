"""The verb `snapshot`: whole tables into staging, each exact at one position of the log.

Every snapshot is read in the exported snapshot of a replication slot, whose consistent point P is its fence: what
commits before P is in it, and what the stream sends from P on is not. So P is the table's first watermark.
Source: https://www.postgresql.org/docs/current/logicaldecoding-explanation.html#LOGICALDECODING-EXPLANATION-EXPORTED-SNAPSHOTS
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import pyarrow as pa

from neon_lake.apply.plan import MergePlan, Truncation, target_schema
from neon_lake.change import COMMITTED_AT, DELETED_AT, LSN, OP, READ, ROW_ID, SEQUENCE, TIMESTAMP, TRUNCATE, Lsn
from neon_lake.config import Deletes, Table, WriteMode
from neon_lake.destinations.base import Target
from neon_lake.errors import SourceUnreachable, TableRefused
from neon_lake.fingerprint import row_ids
from neon_lake.pipeline.following import check_keys, note_excluded, note_imprint
from neon_lake.pipeline.parts import Parts, Progress
from neon_lake.schema import RESCUED, Relation, difference
from neon_lake.sources.base import Snapshot
from neon_lake.staging.manifest import SnapshotManifest


def stage(
    parts: Parts, snapshot: Snapshot, relations: Sequence[Relation], failed: Callable[[Relation, Exception], None]
) -> None:
    """Store the rows of each relation as the snapshot sees them. One that fails is told to `failed`; others go on."""
    for relation in relations:
        try:
            _stage_one(parts, snapshot, relation)
        except SourceUnreachable:
            # what is staged stays; the others would wait in vain, one after another
            raise
        except Exception as exc:  # noqa: BLE001 - one table's fault must not stop the others; it is told and shown
            failed(relation, exc)


def _stage_one(parts: Parts, snapshot: Snapshot, relation: Relation) -> None:
    done = 0
    with parts.log.snapshot_writer(relation.table, snapshot.lsn) as writer:
        for batch in parts.source.read(snapshot, relation):
            check_keys(relation, batch)
            writer.write_rows(relation, batch)
            done += batch.num_rows
            parts.progress(Progress(verb="snapshot", table=relation.table, rows=done))
        _, segments = writer.finish()
        parts.log.publish_snapshot(
            SnapshotManifest(
                owner=parts.owner,
                relation=relation,
                lsn=snapshot.lsn,
                taken_at=snapshot.taken_at,
                segments=segments,
            )
        )
    parts.progress(Progress(verb="snapshot", table=relation.table, rows=done, done=True))


def apply_snapshot(parts: Parts, manifest: SnapshotManifest, old: Target | None, settings: Table) -> Target:
    """Bring the target to a snapshot by one commit; its watermark becomes the snapshot's LSN.

    With soft deletes, rows of an older target that the snapshot lacks stay, marked as deleted.
    """
    relation = manifest.relation
    schema = target_schema(relation, settings.deletes, settings.exclude, settings.mode)
    if old and settings.mode is WriteMode.APPEND and OP in old.schema.names:
        return _noted(parts, _append_snapshot(parts, manifest, old, _as_noted(old, schema)), relation, settings)
    keeps = old and settings.deletes is Deletes.SOFT and DELETED_AT in old.schema.names and not _obstacle(old, relation)
    if old and keeps and (old.watermark or 0) <= manifest.lsn:
        schema = _as_noted(old, schema)
        plan = MergePlan(
            rows=pa.Table.from_batches(_rows(parts, manifest, schema), schema),
            deletes=schema.empty_table().select([column.name for column in relation.key]),
            only_new=False,
            truncate=Truncation(lsn=manifest.lsn, committed_at=manifest.taken_at),
        )
        merged = parts.destination.merge(old, schema, plan, manifest.lsn)
        return _noted(parts, merged, relation, settings)
    return parts.destination.replace(relation.table, old, schema, _rows(parts, manifest, schema), manifest.lsn)


def _append_snapshot(parts: Parts, manifest: SnapshotManifest, old: Target, schema: pa.Schema) -> Target:
    """Put a snapshot behind the changes that are there, as a TRUNCATE and the rows. Raises `TableRefused`."""
    if changed := difference(old.schema, manifest.relation).changed:
        raise TableRefused(
            f"Column {changed[0]} of {old.table} changed its type, and the lake holds older changes of it; move its "
            f"Delta table away, so that a new one is begun, and run neon-lake resync {old.table}."
        )
    emptied = {OP: TRUNCATE, LSN: int(manifest.lsn), SEQUENCE: -1, COMMITTED_AT: manifest.taken_at}
    first = pa.RecordBatch.from_pylist([emptied], schema)
    rows = chain([first], _rows(parts, manifest, schema))
    return parts.destination.replace(old.table, old, schema, rows, manifest.lsn, keep=True)


def _as_noted(old: Target, schema: pa.Schema) -> pa.Schema:
    """The schema with what the target notes now: a table that keeps its rows is brought up to date afterwards."""
    return schema.set(schema.get_field_index(LSN), old.schema.field(LSN))


def _noted(parts: Parts, target: Target, relation: Relation, settings: Table) -> Target:
    """Let a target that kept its schema note what a new one would."""
    return note_imprint(parts, note_excluded(parts, target, settings), relation)


def _obstacle(old: Target, relation: Relation) -> str | None:
    return difference(old.schema, relation).obstacle


def _rows(parts: Parts, manifest: SnapshotManifest, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
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
        rows = parts.log.read(segment)
        for name, value in constants.items():
            if name in schema.names:
                rows = rows.append_column(name, pa.repeat(value, len(rows)))
        if ROW_ID in schema.names:
            rows = rows.append_column(ROW_ID, row_ids(rows, content))
        yield from rows.select(schema.names).cast(schema).to_batches()


def usable(stored: Lsn | None, watermark: Lsn | None, since: Lsn | None) -> bool:
    """Whether a snapshot stored at a position is newer than the target; or, when one was called for, than that moment.

    A target that waits for a snapshot may stand further on: in the positions of another server, or of a database that
    was restored since.
    """
    if stored is None:
        return False
    if since is not None:
        return stored > since
    return watermark is None or stored > watermark
