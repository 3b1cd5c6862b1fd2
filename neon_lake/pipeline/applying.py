"""The verb `apply`: the log into the lake, one table at a time, each commit with its watermark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from neon_lake.change import Lsn
from neon_lake.config import Table
from neon_lake.destinations.base import Target, Warehouse
from neon_lake.errors import ChainDamaged, DestinationError, ResyncNeeded
from neon_lake.failpoints import failpoint
from neon_lake.lifecycle import Event as Happening
from neon_lake.lifecycle import Mark, State, after, event_of, sentence, state_of
from neon_lake.pipeline.following import check_imprint, check_partitions, check_settings, follow
from neon_lake.pipeline.handing_over import WarehouseWriter
from neon_lake.pipeline.parts import Parts, Progress
from neon_lake.pipeline.planning import PlanWriter
from neon_lake.pipeline.portions import behind
from neon_lake.pipeline.results import TableResult
from neon_lake.pipeline.snapshots import apply_snapshot, usable
from neon_lake.pipeline.writing import Writer
from neon_lake.schema import Relation, TableName
from neon_lake.staging.segment import Counts

QUIET: Final = 64
"""After so many manifests without a change of a table, an empty commit moves its watermark on."""


def writer_of(parts: Parts) -> Writer:
    """Who writes the lake."""
    if isinstance(parts.destination, Warehouse):
        return WarehouseWriter(parts, parts.destination)
    return PlanWriter(parts, parts.destination)


def apply(parts: Parts, relations: Sequence[Relation], until: Lsn | None = None) -> dict[TableName, TableResult]:
    """Apply the log to each table up to `until` (default: the checkpoint). A table that fails stops only itself."""
    marks, results = parts.log.marks(), {}
    for relation in relations:
        name = relation.table
        results[name] = apply_table(parts, relation, parts.settings(name), marks.get(name), until)
        parts.progress(Progress(verb="apply", table=name, rows=results[name].counts.total, done=True))
    return results


def apply_table(parts: Parts, relation: Relation, settings: Table, mark: Mark | None, until: Lsn | None) -> TableResult:
    """Apply to one table what is staged for it. What goes wrong is in the result, and marked if it will stay wrong.

    Raises only `ChainDamaged`, which is about all tables.

    `relation` is the table as the source has it now.
    """
    name = relation.table
    result = TableResult(table=name, state=state_of(None, mark), relation=relation)
    try:
        target = parts.destination.target(name)
        watermark = target.watermark if target else None
        result = replace(result, state=state_of(watermark, mark), watermark=watermark)
        if result.state is State.PARKED:
            assert mark is not None
            return replace(result, error=_parked(mark))
        _refuse_foreign(parts, target)
        stored = parts.log.snapshot_position(name)
        if usable(stored, watermark, mark.lsn if mark else None) and (snapshot := parts.log.snapshot(name)):
            target = apply_snapshot(parts, writer_of(parts), snapshot, target, settings)
            if mark:
                failpoint("apply.before-unmark")
                parts.log.unmark(name)
            result = replace(result, state=after(result.state, Happening.SNAPSHOT_APPLIED), snapshot_rows=snapshot.rows)
        if target is None or result.state is not State.LIVE:
            reason = mark.reason if mark else "It has no snapshot yet."
            return replace(result, error=f"{name} waits for a snapshot: {reason}")
        check_settings(target, settings)
        check_imprint(target, relation)
        result, target = _carry_on(parts, target, settings, result, until)
        return replace(result, version=follow(parts, target, relation, settings).version)
    except ChainDamaged:
        raise
    except Exception as exc:  # noqa: BLE001 - one table's fault must not stop the others; it is told and shown
        return failed(parts, result, exc)


def _refuse_foreign(parts: Parts, target: Target | None) -> None:
    if target and target.watermark is None:
        raise DestinationError(
            f"The Delta table of {target.table} was not written by the pipeline {parts.config.name}; "
            "move it away, or change destination.path."
        )


def _parked(mark: Mark) -> str:
    return (
        f"{mark.reason} The table is parked since {mark.since:%Y-%m-%d %H:%M} UTC; "
        f"run neon-lake resync {mark.table}, or neon-lake sync {mark.table} to try again."
    )


def failed(parts: Parts, result: TableResult, exc: Exception) -> TableResult:
    """The result of a step that failed; the table is marked when trying again as it is cannot help."""
    happening = event_of(exc)
    if happening is None:
        return replace(result, error=sentence(exc), transient=True)
    state = after(result.state, happening)
    put_mark(parts, result.table, state, sentence(exc))
    return replace(result, state=state, error=sentence(exc))


def put_mark(parts: Parts, table: TableName, state: State, reason: str) -> None:
    """Mark a table from now on; a snapshot that is to mend it must be newer than the log and any that is stored."""
    head, stored = parts.log.head(), parts.log.snapshot_position(table)
    lsn = max(head.end if head else Lsn(0), stored or Lsn(0))
    parts.log.mark(Mark(table=table, state=state, reason=reason, since=datetime.now(UTC), lsn=lsn))


def _carry_on(
    parts: Parts, target: Target, settings: Table, result: TableResult, until: Lsn | None
) -> tuple[TableResult, Target]:
    """Apply the changes behind the watermark, in commits of bounded size."""
    assert target.watermark is not None
    hours: dict[datetime, Counts] = {}
    first = target.watermark
    chain = behind(parts, target)
    assert result.relation is not None
    check_partitions(result.relation, chain)
    if until is not None:
        chain = tuple(m for m in chain if m.start < until)
    end = max(first, min(chain[-1].end, until or chain[-1].end)) if chain else first
    applied = False
    for step in writer_of(parts).changes(target, settings, chain, end):
        applied, target = True, step.target
        for hour, counts in step.hours.items():
            hours[hour] = hours.get(hour, Counts()) + counts
        result = replace(
            result,
            incomplete=result.incomplete + step.incomplete,
            last_commit_at=step.last_commit_at or result.last_commit_at,
        )
        parts.progress(Progress(verb="apply", table=result.table, rows=summed(hours).total))
    # changes of before the watermark would be read again and again, and hold back the log
    if not applied and (len(chain) >= QUIET or any(manifest.of(target.table) for manifest in chain)):
        target = parts.destination.advance(target, target.schema, end)
    result = replace(
        result,
        state=after(result.state, Happening.BATCH_APPLIED),
        first=first,
        watermark=max(end, target.watermark or end),
        hours=hours,
        counts=summed(hours),
    )
    if result.incomplete:
        raise ResyncNeeded(
            f"{result.incomplete} changed rows of {result.table} were not in the lake, "
            "so their unchanged values are unknown."
        )
    return result, target


def summed(hours: Mapping[datetime, Counts]) -> Counts:
    """All hours together."""
    return sum(hours.values(), Counts())
