"""The change log of one pipeline: what was captured, in order, and what was snapshotted."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa

from neon_lake.change import NO_TRANSACTIONS, Lsn, Transactions
from neon_lake.errors import ChainDamaged, LogConflict, LogDamaged, StagingForeign
from neon_lake.failpoints import failpoint
from neon_lake.lifecycle import Mark, State
from neon_lake.schema import Relation, TableName
from neon_lake.staging import segment as segments
from neon_lake.staging.manifest import Manifest, Owner, SnapshotManifest, check_chain
from neon_lake.staging.retention import ORPHAN_AGE, Expiry
from neon_lake.staging.seal import opened, sealed
from neon_lake.staging.segment import Segment
from neon_lake.staging.storage import Entry, Storage
from neon_lake.staging.writer import SegmentWriter

MANIFESTS: Final = "manifests"
BATCHES: Final = "batches"
SNAPSHOTS: Final = "snapshots"
RESOLVED: Final = "resolved"
"""Folder for batches that were worked over before they were applied; each file goes when that is done."""
MARKS: Final = "marks"
ORIGIN: Final = Lsn(0)
UNKNOWN: Final = Lsn((1 << 64) - 1)
"""The position in a mark that cannot be read: no snapshot is newer."""

_RACES: Final = 10
"""How often another run may cut the log's beginning while it is read."""
_STEPS: Final = 32
"""How many manifests are read one behind the other before all are listed: a listing tells a thousand names at once."""
_READERS: Final = 5
"""How many manifests are read at the same time when their names are known, …"""
_AHEAD: Final = 1000
"""… of how many at most the bytes are held."""


class _Cut(LogConflict):
    """A manifest that was listed is gone: its stretch has expired."""


class ChangeLog:
    """The log in a storage. Every method may raise `StagingUnavailable`; every read `LogDamaged`."""

    def __init__(self, storage: Storage, *, memory: int) -> None:
        self.storage = storage
        self._memory = memory
        self._read: dict[str, Manifest] = {}
        self._last: Manifest | None = None

    # --- the chain of manifests

    def head(self) -> Manifest | None:
        """The last manifest, whose end is the checkpoint; None when the log has not begun.

        The manifests are listed once; from then on the chain is followed from where it ended then.
        """
        last = self._followed()
        if last is None:
            names = self.storage.names(MANIFESTS)
            last = self._manifest(names[-1]) if names else None
        self._last = last
        return last

    def since(self, position: Lsn) -> tuple[Manifest, ...]:
        """The manifests that reach past `position`, in order; an unbroken chain.

        The first one may start after `position`, when what came before has expired. The manifests are listed only when
        none begins at `position`, when many are behind it, or when the chain is broken.
        """
        head = self.head()
        if head is None or position >= head.end:
            return ()
        chain = self._between(position, head.end)
        return self._listed(position) if chain is None else chain

    def _followed(self) -> Manifest | None:
        """The chain's end, some steps from where it was last; None when it is farther, or that manifest is gone."""
        last = self._last
        for _ in range(_STEPS if last else 0):
            assert last is not None
            try:
                last = self._manifest(_name(last.end))
            except _Cut:
                if self._data(_name(last.start)) is None:
                    # the whole log was removed, and another one may have begun
                    self._read.clear()
                    return None
                return last
        return None

    def _between(self, start: Lsn, end: Lsn) -> tuple[Manifest, ...] | None:
        """The chain from `start` to `end`, manifest by manifest; None when that does not lead there in a few steps."""
        chain: list[Manifest] = []
        # the log is cut from its beginning: when its first one is there, so are those behind it
        if _name(start) in self._read and self._data(_name(start)) is None:
            return None
        at, unread = start, 0
        while at < end:
            unread += _name(at) not in self._read
            if unread > _STEPS:
                return None
            try:
                chain.append(self._manifest(_name(at)))
            except _Cut:
                return None
            at = chain[-1].end
        return tuple(chain)

    def _listed(self, position: Lsn) -> tuple[Manifest, ...]:
        for attempt in range(_RACES):
            names = self.storage.names(MANIFESTS)
            # names sort as their positions do
            first = max(bisect_right(names, _name(position)) - 1, 0)
            try:
                chain = self._manifests(names[first:])
            except _Cut:
                if attempt == _RACES - 1:
                    raise
            else:
                check_chain(chain)
                return tuple(m for m in chain if m.end > position)
        raise AssertionError("the last attempt raises")

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
        partitions: tuple[tuple[TableName, int], ...] = (),
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
            partitions=partitions,
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
            folder, named = segment.path.rsplit("/", 2)[:2]
            start = named.partition("-")[0]
            if f"{start}.json" not in self.storage.names(MANIFESTS if folder == BATCHES else folder):
                raise LogConflict(f"The segment {segment.path} expired while it was read; run this again.") from None
            raise LogDamaged(
                f"The segment {segment.path} is missing; restore the file, or run neon-lake resync for its table."
            ) from None
        return segments.read(segment, data, columns)

    def _manifests(self, names: Sequence[str]) -> list[Manifest]:
        unread = [name for name in names if name not in self._read]
        if len(unread) > _STEPS:
            with ThreadPoolExecutor(_READERS, thread_name_prefix="manifests") as pool:
                for first in range(0, len(unread), _AHEAD):
                    some = unread[first : first + _AHEAD]
                    for name, data in zip(some, pool.map(self._data, some), strict=True):
                        self._take(name, data)
        return [self._manifest(name) for name in names]

    def _manifest(self, name: str) -> Manifest:
        if name not in self._read:
            self._take(name, self._data(name))
        return self._read[name]

    def _data(self, name: str) -> bytes | None:
        """What is stored as a manifest, if it is there."""
        try:
            return self.storage.read(f"{MANIFESTS}/{name}")
        except KeyError:
            return None

    def _take(self, name: str, data: bytes | None) -> None:
        path = f"{MANIFESTS}/{name}"
        if data is None:
            raise _Cut(f"The manifest {path} expired while the log was read; run this again.")
        manifest = Manifest.from_bytes(data, path)
        if _name(manifest.start) != name:
            raise ChainDamaged(
                f"The manifest {path} is of another stretch ({manifest.start}); restore the file, or give the "
                "pipeline a new staging.path and run neon-lake resync --all."
            )
        self._read[name] = manifest

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
        try:
            return SnapshotManifest.from_bytes(self.storage.read(path), path)
        except KeyError:
            raise _Cut(f"The manifest {path} expired while it was read; run this again.") from None

    def snapshot_position(self, table: TableName) -> Lsn | None:
        """The LSN of the newest published snapshot of a table, without reading it."""
        names = self.storage.names(f"{SNAPSHOTS}/{table.path}")
        return max((Lsn.from_hex(n.removesuffix(".json")) for n in names if n.endswith(".json")), default=None)

    # --- marks

    def marks(self) -> dict[TableName, Mark]:
        """The marks of all tables that have one.

        One that is damaged says that its table is stale, at the position `UNKNOWN`: that is right whatever it said.
        """
        found: dict[TableName, Mark] = {}
        for entry in self.storage.list(MARKS):
            # another run may just have removed it
            with suppress(KeyError):
                table = _table_of(entry.path)
                found[table] = _mark(self.storage.read(entry.path), entry, table)
        return found

    def mark(self, mark: Mark) -> None:
        """Store a table's mark, in place of an older one."""
        self.storage.replace(_mark_path(mark.table), sealed(mark.to_json()))
        failpoint("mark.put")

    def unmark(self, table: TableName) -> None:
        """Remove a table's mark."""
        self.storage.delete([_mark_path(table)])
        failpoint("mark.removed")

    # --- retention

    def manifests(self) -> Iterator[Manifest]:
        """All manifests, in order."""
        return iter(self.since(ORIGIN))

    def newest_first(self) -> Iterator[Manifest]:
        """All manifests, from the last one back; each is read when it is asked for."""
        with suppress(_Cut):
            for name in reversed(self.storage.names(MANIFESTS)):
                yield self._manifest(name)

    def snapshots(self) -> dict[str, SnapshotManifest]:
        """All published snapshots, by the path of their manifest."""
        found: dict[str, SnapshotManifest] = {}
        for entry in self.storage.list(SNAPSHOTS):
            if entry.path.endswith(".json"):
                # another run may just have removed it
                with suppress(KeyError):
                    found[entry.path] = SnapshotManifest.from_bytes(self.storage.read(entry.path), entry.path)
        return found

    def segment_files(self) -> Iterator[Entry]:
        """Every file of changes or snapshot rows, whether or not a manifest names it."""
        for folder in (BATCHES, SNAPSHOTS, RESOLVED):
            yield from (entry for entry in self.storage.list(folder) if entry.path.endswith(".parquet"))

    def remove(self, choice: Expiry, now: datetime) -> int:
        """Carry out a decision of `expired`; a manifest goes before its segments, the oldest first.

        Files that writers left unfinished a day ago go too; gives how many.
        """
        for manifest in choice.manifests:
            self.storage.delete([f"{MANIFESTS}/{_name(manifest.start)}"])
            failpoint("expire.manifest-removed")
        for path in sorted(choice.segments, key=lambda path: not path.endswith(".json")):
            self.storage.delete([path])
            failpoint("expire.segment-removed")
        for path in choice.orphans:
            self.storage.delete([path])
            failpoint("expire.orphan-removed")
        return self.storage.sweep(now - ORPHAN_AGE)


def _name(start: Lsn) -> str:
    return f"{start.hex}.json"


def _mark_path(table: TableName) -> str:
    return f"{MARKS}/{table.path}.json"


def _table_of(path: str) -> TableName:
    """The table of a mark's path: the inverse of `_mark_path`."""
    parts = path.removeprefix(f"{MARKS}/").removesuffix(".json").split("/")
    named = [re.sub(rb"~([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), part.encode()).decode() for part in parts]
    return TableName(*named)


def _mark(data: bytes, entry: Entry, table: TableName) -> Mark:
    try:
        return Mark.from_json(opened(data, what=f"mark {entry.path}", remedy="its table needs a new snapshot"))
    except LogDamaged as exc:
        return Mark(table=table, state=State.STALE, reason=str(exc), since=entry.modified, lsn=UNKNOWN)
