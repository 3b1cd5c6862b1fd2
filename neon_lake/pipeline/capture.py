"""The verb `capture`: the source's changes into the log, from its checkpoint on.

The order of durability is segments, then the manifest, then the slot; never another.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

from neon_lake.change import NO_TRANSACTIONS, Lsn
from neon_lake.errors import SlotGap
from neon_lake.pipeline.parts import Parts, Progress
from neon_lake.pipeline.results import Captured
from neon_lake.schema import TableName
from neon_lake.sources.base import ChangeStream
from neon_lake.staging.manifest import Manifest

IDLE_BYTES: Final = 16 << 20
IDLE_AGE: Final = timedelta(hours=1)
"""An idle stretch is worth a manifest, and so a confirmation, when it is this long."""


def capture(parts: Parts, until: Lsn | None) -> Captured:
    """Capture what commits from the checkpoint on, up to the first commit at or past `until`.

    A manifest is published whenever `limits.batch_mb` or `limits.batch_seconds` have passed, at the next commit.
    Raises what `Source.changes` raises, and `LogConflict`.
    """
    head = parts.log.head()
    assert head is not None, "the log has its origin before anything is captured"
    total = Captured(start=head.end, end=head.end)
    if until is not None and until <= head.end:
        return total
    try:
        with parts.source.changes(head.end, until) as stream:
            stream.confirm(head.end)
            pieces = _Pieces(parts, stream)
            while (batch := pieces.next_batch(head)) is not None:
                total += _captured(batch)
                head = batch
            parts.progress(Progress(verb="capture", rows=total.changes, done=True))
    except SlotGap:
        # while this one waited for the slot, another capture may have moved both on
        moved = parts.log.head()
        if moved is None or moved.end <= head.end:
            raise
        return capture(parts, until)
    return total


class _Pieces:
    """Cuts the stream into batches."""

    def __init__(self, parts: Parts, stream: ChangeStream) -> None:
        self._parts, self._stream, self._pieces = parts, stream, iter(stream)
        self._rows = 0

    def next_batch(self, head: Manifest) -> Manifest | None:
        """Read on, publish and confirm one batch behind `head`; None when the stream has ended."""
        limits, began = self._parts.config.limits, time.monotonic()
        transactions, end, partitions = NO_TRANSACTIONS, head.end, dict[tuple[TableName, int], None]()
        with self._parts.log.batch(head.end) as writer:
            for piece in self._pieces:
                for batch in piece.changes:
                    writer.write_changes(batch)
                    self._rows += batch.rows.num_rows
                transactions += piece.transactions
                partitions |= dict.fromkeys(piece.partitions)
                self._parts.progress(Progress(verb="capture", rows=self._rows))
                if piece.committed is None:
                    continue
                end = max(end, piece.committed)
                full = writer.bytes >= limits.batch_mb << 20 or time.monotonic() - began >= limits.batch_seconds
                if full and (writer.bytes or _worth_it(head, end)):
                    break
            if end == head.end or not (writer.bytes or _worth_it(head, end)):
                return None
            manifest = self._parts.log.publish(
                self._parts.owner,
                start=head.end,
                end=end,
                transactions=transactions,
                written=writer.finish(),
                partitions=tuple(partitions),
            )
        self._stream.confirm(end)
        return manifest


def _worth_it(head: Manifest, end: Lsn) -> bool:
    return end - head.end >= IDLE_BYTES or datetime.now(UTC) - head.published_at >= IDLE_AGE


def _captured(batch: Manifest) -> Captured:
    return Captured(
        start=batch.start,
        end=batch.end,
        changes=sum(s.counts.total for s in batch.segments),
        transactions=batch.transactions.count,
        bytes=batch.size,
        manifests=1,
        last_commit_at=batch.transactions.last_commit_at,
    )
