"""The verb `snapshot`: whole tables into staging, each exact at one position of the log.

Every snapshot is read in the exported snapshot of a replication slot, whose consistent point P is its fence: what
commits before P is in it, and what the stream sends from P on is not. So P is the table's first watermark.
Source: https://www.postgresql.org/docs/current/logicaldecoding-explanation.html#LOGICALDECODING-EXPLANATION-EXPORTED-SNAPSHOTS
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from neon_lake.apply.plan import target_schema
from neon_lake.change import DELETED_AT, LSN, OP, Lsn
from neon_lake.config import Deletes, Table, WriteMode
from neon_lake.destinations.base import Target
from neon_lake.errors import SourceUnreachable, TableRefused
from neon_lake.pipeline.following import check_keys, note_excluded, note_imprint
from neon_lake.pipeline.parts import Parts, Progress
from neon_lake.pipeline.writing import Writer
from neon_lake.schema import Relation, difference
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


def apply_snapshot(
    parts: Parts, writer: Writer, manifest: SnapshotManifest, old: Target | None, settings: Table
) -> Target:
    """Bring the target to a snapshot by one commit; its watermark becomes the snapshot's LSN.

    With soft deletes, rows of an older target that the snapshot lacks stay, marked as deleted. With mode append the
    snapshot comes behind the changes that are there. Raises `TableRefused`.
    """
    relation = manifest.relation
    schema = target_schema(relation, settings.deletes, settings.exclude, settings.mode)
    if not (old and _keeps(old, manifest, settings)):
        return writer.snapshot(old, manifest, schema, settings, keep=False)
    kept = writer.snapshot(old, manifest, _as_noted(old, schema), settings, keep=True)
    return note_imprint(parts, note_excluded(parts, kept, settings), relation)


def _keeps(old: Target, manifest: SnapshotManifest, settings: Table) -> bool:
    """Whether what the target has is worth keeping, and can be kept."""
    found = difference(old.schema, manifest.relation)
    if settings.mode is WriteMode.APPEND and OP in old.schema.names:
        if found.changed:
            raise TableRefused(
                f"Column {found.changed[0]} of {old.table} changed its type, and the lake holds older changes of it; "
                f"move its Delta table away, so that a new one is begun, and run neon-lake resync {old.table}."
            )
        return True
    soft = settings.deletes is Deletes.SOFT and DELETED_AT in old.schema.names
    return soft and not found.obstacle and (old.watermark or 0) <= manifest.lsn


def _as_noted(old: Target, schema: pa.Schema) -> pa.Schema:
    """The schema with what the target notes now: a table that keeps its rows is brought up to date afterwards."""
    return schema.set(schema.get_field_index(LSN), old.schema.field(LSN))


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
