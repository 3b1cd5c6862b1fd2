"""Looking at a pipeline, and the verb `expire`, which needs to know where every table stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from neon_lake.change import Lsn
from neon_lake.destinations.base import Target
from neon_lake.failpoints import failpoint
from neon_lake.lifecycle import Mark, State, state_of
from neon_lake.pipeline import slots
from neon_lake.pipeline.parts import Parts
from neon_lake.pipeline.results import Expired, Status, TableStatus
from neon_lake.schema import Relation, TableName
from neon_lake.staging.log import ORIGIN
from neon_lake.staging.manifest import Manifest
from neon_lake.staging.retention import expired


def status(
    parts: Parts, relations: Sequence[Relation], refused: Mapping[TableName, str], wanted: Sequence[Relation]
) -> Status:
    """Where the slot, the log and each table stand. Changes nothing.

    `refused` are tables that cannot be replicated, and why; `wanted` are all tables of the pipeline.
    """
    parts.log.claim(parts.owner)
    head, slot = slots.standing(parts)
    position, marks = parts.source.position(), parts.log.marks()
    trouble = None if head is None and slot is None else slots.problem(parts, head, slot, wanted)
    return Status(
        pipeline=parts.config.name,
        slot=f"neon_lake_{parts.config.name}",
        slot_problem=str(trouble) if trouble else None,
        position=position,
        checkpoint=head.end if head else None,
        lag=max(position - head.end, 0) if head else None,
        retained=slot.retained if slot else None,
        last_commit_at=head.transactions.last_commit_at if head else None,
        tables=tuple(
            _status(parts, name, head, marks.get(name), refused.get(name))
            for name in [*(relation.table for relation in relations), *refused]
        ),
    )


def _status(
    parts: Parts, table: TableName, head: Manifest | None, mark: Mark | None, refused: str | None
) -> TableStatus:
    target = parts.destination.target(table)
    watermark = effective_watermark(parts, target)
    return TableStatus(
        table=table,
        state=State.PARKED if refused else state_of(watermark, mark),
        watermark=watermark,
        lag=max(head.end - watermark, 0) if head and watermark is not None else None,
        reason=refused or (mark.reason if mark else None),
        version=target.version if target else None,
    )


def effective_watermark(parts: Parts, target: Target | None) -> Lsn | None:
    """The watermark, moved on over stretches of the log that hold nothing for the table."""
    if target is None or target.watermark is None:
        return None
    reached = target.watermark
    for manifest in parts.log.since(reached):
        if manifest.start > reached or manifest.gap or manifest.of(target.table):
            break
        reached = manifest.end
    return reached


def expire(parts: Parts, relations: Sequence[Relation], now: datetime) -> Expired:
    """Remove what is older than `staging.retention_days` and applied to every table, orphans, and old table files."""
    targets = [parts.destination.target(relation.table) for relation in relations]
    watermarks = [effective_watermark(parts, target) or ORIGIN for target in targets]
    chain = tuple(parts.log.manifests())
    choice = expired(
        chain,
        parts.log.snapshots(),
        parts.log.segment_files(),
        applied=min(watermarks, default=ORIGIN),
        cutoff=now - timedelta(days=parts.config.staging.retention_days),
        now=now,
    )
    kept_from = chain[len(choice.manifests)].start if chain else None
    for target, reached in zip(targets, watermarks, strict=True):
        # a table that had no change in what goes must not look as if it had missed some
        if target and target.watermark is not None and kept_from is not None and target.watermark < kept_from:
            parts.destination.advance(target, target.schema, reached)
    unfinished = parts.log.remove(choice, now)
    failpoint("expire.log-removed")
    return Expired(
        files=sum(parts.destination.remove_old_files(target) for target in targets if target and target.watermark),
        manifests=len(choice.manifests),
        segments=len(choice.segments),
        orphans=len(choice.orphans) + unfinished,
        kept_from=kept_from,
    )
