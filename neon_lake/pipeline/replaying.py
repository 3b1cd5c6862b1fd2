"""Applying again what the log still has."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from neon_lake.change import OP, ROW_ID, Lsn
from neon_lake.destinations.base import Target
from neon_lake.errors import ConfigError, DestinationConflict, ResyncNeeded
from neon_lake.pipeline.applying import summed
from neon_lake.pipeline.parts import Parts
from neon_lake.pipeline.results import TableResult
from neon_lake.pipeline.writing import Writer
from neon_lake.schema import TableName
from neon_lake.staging.log import ORIGIN
from neon_lake.staging.manifest import Manifest


def replay(
    parts: Parts,
    writer: Writer,
    table: TableName,
    before: TableResult,
    since: datetime,
    until: datetime | None,
) -> TableResult:
    """Give the keys of a table that changed in [since, until) the state that they have at its watermark.

    Reads the log from `since` up to the watermark, so it repairs rows and moves none back; the watermark stays. Raises
    `ConfigError` when the log does not reach back so far.
    """
    target = parts.destination.target(table)
    if target is None or target.watermark is None:
        raise ConfigError(f"{table} is not in the lake yet; run neon-lake sync first.")
    if ROW_ID in target.schema.names:
        raise ConfigError(f"{table} has no key, so that no change of it can be applied again; run neon-lake resync.")
    if OP in target.schema.names:
        raise ConfigError(f"{table} has every change of it as a row (mode: append), so that none is applied again.")
    if target.within or target.pending is not None:
        raise DestinationConflict(f"{table} has a batch that was not finished; run neon-lake sync first.")
    manifests = _touched(parts, target, since)
    stored = parts.log.snapshot_position(table)
    # a snapshot holds also what no change carried (a column's default): nothing older may be put over it
    fence = stored if stored is not None and stored <= target.watermark else Lsn(0)
    try:
        done = writer.replay(target, parts.settings(table), manifests, fence=fence, since=since, until=until)
    except ResyncNeeded as exc:
        return replace(before, error=f"{str(exc).removesuffix('.')}; run neon-lake resync {table}.")
    if done is None:
        return replace(before, version=target.version)
    lacking = f"{done.incomplete} rows of {table} cannot be made whole from the log; run neon-lake resync {table}."
    return replace(
        before,
        version=done.target.version,
        first=done.first,
        hours=done.hours,
        counts=summed(done.hours),
        last_commit_at=done.last_commit_at,
        incomplete=done.incomplete,
        error=lacking if done.incomplete else None,
    )


def _touched(parts: Parts, target: Target, since: datetime) -> list[Manifest]:
    """The manifests with commits from `since` on, up to the watermark; none before a gap. Raises `ConfigError`."""
    assert target.watermark is not None
    chain = [m for m in parts.log.manifests() if m.start < target.watermark]
    if chain and chain[0].start > ORIGIN:
        # what was before it has expired
        oldest = chain[0].transactions.first_commit_at or chain[0].published_at
        if since < oldest:
            raise ConfigError(
                f"The log of {target.table} reaches back to {oldest:%Y-%m-%d %H:%M:%S} UTC only; "
                f"replay from there on, or run neon-lake resync {target.table}."
            )
    touched = [m for m in chain if m.transactions.last_commit_at and m.transactions.last_commit_at >= since]
    # what lies before a gap may have been overtaken inside it
    last_gap = max((m.end for m in chain if m.gap), default=ORIGIN)
    return [m for m in touched if m.start >= last_gap]
