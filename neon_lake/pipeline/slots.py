"""Do slot, log and lake fit together, and what makes them fit again."""

from __future__ import annotations

from collections.abc import Sequence

from neon_lake.change import Lsn
from neon_lake.errors import NeonLakeError, SlotGap, SlotLost, SourceRewound, listed
from neon_lake.failpoints import failpoint
from neon_lake.lifecycle import State
from neon_lake.pipeline.applying import put_mark
from neon_lake.pipeline.parts import Parts
from neon_lake.schema import Relation, TableName
from neon_lake.sources.base import Slot
from neon_lake.staging.log import ORIGIN
from neon_lake.staging.manifest import Manifest


def standing(parts: Parts) -> tuple[Manifest | None, Slot | None]:
    """Where the log ends, and the slot.

    The slot is asked first: another run moves the log on, then the slot. But it makes the slot, then the log; so where
    a slot is missing that the log has begun with, both are asked again.
    """
    slot = parts.source.slot()
    head = parts.log.head()
    if slot is None and head is not None:
        slot = parts.source.slot()
        head = parts.log.head()
    return head, slot


def problem(parts: Parts, head: Manifest | None, slot: Slot | None, wanted: Sequence[Relation]) -> NeonLakeError | None:
    """Why changes are lost, or None when the log can be carried on from its checkpoint.

    `wanted` are the pipeline's tables, here and below.
    """
    name = f"neon_lake_{parts.config.name}"
    if head is None:
        return _without_log(parts, name, slot, wanted)
    lost = f"so changes since {head.end} are lost; run neon-lake resync --all."
    found: NeonLakeError | None = None
    if slot is None:
        found = SlotLost(f"The slot {name} is gone, {lost}")
    elif slot.lost:
        found = SlotLost(f"The slot {name} can no longer be used ({slot.lost}), {lost}")
    elif slot.confirmed > head.end:
        found = SlotGap(
            f"The slot {name} was advanced to {slot.confirmed} by something else, or the log has lost its end, {lost}"
        )
    elif (position := parts.source.position()) < head.end:
        found = SourceRewound(
            f"The source's WAL ends at {position} and the log at {head.end}, so the database was restored to an "
            "earlier state; run neon-lake drop, give the pipeline a new staging.path, and run neon-lake resync --all."
        )
    return found


def _without_log(parts: Parts, name: str, slot: Slot | None, wanted: Sequence[Relation]) -> NeonLakeError | None:
    if written := [relation.table for relation in wanted if _has_watermark(parts, relation.table)]:
        return SlotGap(
            f"Staging holds no log, so changes of {listed(written)} since they were last applied are lost; "
            "restore the staging directory, or run neon-lake resync --all."
        )
    if slot and slot.lost:
        return SlotLost(f"The slot {name} can no longer be used ({slot.lost}); run neon-lake resync --all.")
    return None


def publish(parts: Parts, wanted: Sequence[Relation]) -> None:
    """Publish the pipeline's tables. One that was not published for a while has lost changes: it is marked stale."""
    marks = parts.log.marks()
    published = parts.source.published(wanted)
    for table in (relation.table for relation in wanted):
        if table not in published and table not in marks and _has_watermark(parts, table):
            reason = "It was not published for a while, so changes of it are lost."
            put_mark(parts, table, State.STALE, reason)
    parts.source.publish(wanted)


def _has_watermark(parts: Parts, table: TableName) -> bool:
    """Whether this pipeline has written the table before."""
    target = parts.destination.target(table)
    return target is not None and target.watermark is not None


def mend(parts: Parts, wanted: Sequence[Relation]) -> None:
    """Make a lost slot anew, and record in the log what was not captured, so that no table is carried across it."""
    head, slot = standing(parts)
    trouble = problem(parts, head, slot, wanted)
    if trouble is None:
        return
    if isinstance(trouble, SourceRewound):
        raise trouble
    start = head.end if head else ORIGIN
    if slot is not None and slot.lost:
        parts.source.drop_slot()
        failpoint("resync.slot-dropped")
        slot = None
    publish(parts, wanted)
    if slot is None:
        with parts.source.create_slot() as snapshot:
            _record_gap(parts, start, snapshot.lsn, trouble)
    else:
        _record_gap(parts, start, slot.confirmed, trouble)


def _record_gap(parts: Parts, start: Lsn, end: Lsn, trouble: NeonLakeError) -> None:
    parts.log.publish(parts.owner, start=start, end=end, gap=str(trouble))
    failpoint("resync.gap-recorded")
