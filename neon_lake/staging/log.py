"""The change log of one pipeline: what was captured, in order, and what was snapshotted."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa

from neon_lake.change import NO_TRANSACTIONS, Lsn, Transactions
from neon_lake.errors import LogConflict, LogDamaged, StagingForeign
from neon_lake.failpoints import failpoint
from neon_lake.lifecycle import Mark
from neon_lake.schema import Relation, TableName
from neon_lake.staging import segment as segments
from neon_lake.staging.manifest import Manifest, Owner, SnapshotManifest, check_chain
from neon_lake.staging.retention import Expiry
from neon_lake.staging.segment import Segment
from neon_lake.staging.storage import Entry, Storage
from neon_lake.staging.writer import SegmentWriter

MANIFESTS: Final = "manifests"
BATCHES: Final = "batches"
SNAPSHOTS: Final = "snapshots"
MARKS: Final = "marks"
ORIGIN: Final = Lsn(0)


class ChangeLog:
    """The log in a storage. Every method may raise `StagingUnavailable`; every read `LogDamaged`."""

    def __init__(self, storage: Storage, *, memory: int) -> None:
        self.storage = storage
        self._memory = memory
        self._read: dict[str, Manifest] = {}

    # --- the chain of manifests

    def head(self) -> Manifest | None:
        """The last manifest, whose end is the checkpoint; None when the log has not begun."""
        names = self.storage.names(MANIFESTS)
        return self._manifest(names[-1]) if names else None

    def since(self, position: Lsn) -> tuple[Manifest, ...]:
        """The manifests that reach past `position`, in order; an unbroken chain.

        The first one may start after `position`, when what came before has expired.
        """
        names = self.storage.names(MANIFESTS)
        # names sort as their positions do
        first = max(bisect_right(names, _name(position)) - 1, 0)
        chain = [self._manifest(name) for name in names[first:]]
        check_chain(chain)
        return tuple(m for m in chain if m.end > position)

    def claim(self, owner: Owner) -> None:
        """Raise `StagingForeign` when the log belongs to another pipeline or database."""
        head = self.head()
        if head is None or head.owner == owner:
            return
        if head.owner.pipeline != owner.pipeline:
            what = f"the pipeline {head.owner.pipeline}, not to {owner.pipeline}"
        else:
            what = (
                f"database {head.owner.database} of the server {head.owner.system_identifier}, "
                f"not to {owner.database} of {owner.system_identifier}"
            )
        raise StagingForeign(f"The staging directory belongs to {what}; give this pipeline a staging.path of its own.")

    def batch(self, start: Lsn) -> AbstractContextManager[SegmentWriter]:
        """A writer for the changes from `start` on; `publish` makes them count."""
        return SegmentWriter.open(self.storage, f"{BATCHES}/{start.hex}", memory=self._memory)

    def publish(
        self,
        owner: Owner,
        *,
        start: Lsn,
        end: Lsn,
        transactions: Transactions = NO_TRANSACTIONS,
        written: tuple[tuple[Relation, ...], tuple[Segment, ...]] = ((), ()),
        gap: str | None = None,
    ) -> Manifest:
        """Extend the log from its checkpoint `start` to `end`, in one atomic step.

        Raises `LogConflict` when another capture extended it first.
        """
        manifest = Manifest(
            owner=owner,
            start=start,
            end=end,
            published_at=datetime.now(UTC),
            transactions=transactions,
            relations=written[0],
            segments=written[1],
            gap=gap,
        )
        failpoint("capture.segments-written")
        if not self.storage.create(f"{MANIFESTS}/{_name(start)}", manifest.to_bytes()):
            raise LogConflict(f"Another capture has extended the log from {start}; let it finish, then run this again.")
        failpoint("capture.manifest-published")
        return manifest

    def read(self, segment: Segment, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a segment, its checksum verified."""
        try:
            data = self.storage.read(segment.path)
        except KeyError:
            raise LogDamaged(f"The segment {segment.path} is missing; restore the file, or resync its table.") from None
        return segments.read(segment, data, columns)

    def _manifest(self, name: str) -> Manifest:
        path = f"{MANIFESTS}/{name}"
        if path not in self._read:
            try:
                data = self.storage.read(path)
            except KeyError:
                raise LogDamaged(f"The manifest {path} vanished while the log was read; run this again.") from None
            manifest = Manifest.from_bytes(data, path)
            if _name(manifest.start) != name:
                raise LogDamaged(f"The manifest {path} is of another stretch ({manifest.start}); restore the file.")
            self._read[path] = manifest
        return self._read[path]

    # --- snapshots

    def snapshot_writer(self, table: TableName, lsn: Lsn) -> AbstractContextManager[SegmentWriter]:
        """A writer for the rows of a table at `lsn`."""
        return SegmentWriter.open(self.storage, f"{SNAPSHOTS}/{table.path}/{lsn.hex}", memory=self._memory)

    def publish_snapshot(self, snapshot: SnapshotManifest) -> None:
        """Make a snapshot count."""
        failpoint("snapshot.segments-written")
        path = f"{SNAPSHOTS}/{snapshot.relation.table.path}/{_name(snapshot.lsn)}"
        if not self.storage.create(path, snapshot.to_bytes()):
            raise LogConflict(f"Another run has stored a snapshot of {snapshot.relation.table}; run this again.")
        failpoint("snapshot.published")

    def snapshot(self, table: TableName) -> SnapshotManifest | None:
        """The newest published snapshot of a table."""
        position = self.snapshot_position(table)
        if position is None:
            return None
        path = f"{SNAPSHOTS}/{table.path}/{_name(position)}"
        return SnapshotManifest.from_bytes(self.storage.read(path), path)

    def snapshot_position(self, table: TableName) -> Lsn | None:
        """The LSN of the newest published snapshot of a table, without reading it."""
        names = self.storage.names(f"{SNAPSHOTS}/{table.path}")
        return max((Lsn.from_hex(n.removesuffix(".json")) for n in names if n.endswith(".json")), default=None)

    # --- marks

    def marks(self) -> dict[TableName, Mark]:
        """The marks of all tables that have one."""
        found = (Mark.from_json(json.loads(self.storage.read(entry.path))) for entry in self.storage.list(MARKS))
        return {mark.table: mark for mark in found}

    def mark(self, mark: Mark) -> None:
        """Store a table's mark, in place of an older one."""
        self.storage.replace(_mark_path(mark.table), json.dumps(mark.to_json()).encode())

    def unmark(self, table: TableName) -> None:
        """Remove a table's mark."""
        self.storage.delete([_mark_path(table)])

    # --- retention

    def manifests(self) -> Iterator[Manifest]:
        """All manifests, in order."""
        return (self._manifest(name) for name in self.storage.names(MANIFESTS))

    def newest_first(self) -> Iterator[Manifest]:
        """All manifests, from the last one back; each is read when it is asked for."""
        return (self._manifest(name) for name in reversed(self.storage.names(MANIFESTS)))

    def snapshots(self) -> dict[str, SnapshotManifest]:
        """All published snapshots, by the path of their manifest."""
        paths = [entry.path for entry in self.storage.list(SNAPSHOTS) if entry.path.endswith(".json")]
        return {path: SnapshotManifest.from_bytes(self.storage.read(path), path) for path in paths}

    def segment_files(self) -> Iterator[Entry]:
        """Every file of changes or snapshot rows, whether or not a manifest names it."""
        for folder in (BATCHES, SNAPSHOTS):
            yield from (entry for entry in self.storage.list(folder) if entry.path.endswith(".parquet"))

    def remove(self, choice: Expiry) -> None:
        """Carry out a decision of `expired`; a manifest goes before its segments, the oldest first."""
        for manifest in choice.manifests:
            self.storage.delete([f"{MANIFESTS}/{_name(manifest.start)}"])
        self.storage.delete(sorted(choice.segments, key=lambda path: not path.endswith(".json")))
        self.storage.delete(choice.orphans)


def _name(start: Lsn) -> str:
    return f"{start.hex}.json"


def _mark_path(table: TableName) -> str:
    return f"{MARKS}/{table.path}.json"
