"""What the pipeline asks of a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from neon_lake.change import Lsn, Piece, XidSnapshot
from neon_lake.errors import Finding
from neon_lake.schema import Relation, TableName


@dataclass(frozen=True, kw_only=True)
class SourceIdentity:
    """Which server and database this is: positions of one are meaningless on another."""

    system_identifier: str
    database: str
    server_version: int


@dataclass(frozen=True, kw_only=True)
class Slot:
    """The replication slot as the server sees it.

    `confirmed` is the position that the server believes we have; `retained` is how many bytes of WAL it keeps for us;
    `lost` is the server's reason when the slot can no longer be used; `active_pid` is the connection that streams from
    it.
    """

    name: str
    confirmed: Lsn
    retained: int
    active_pid: int | None = None
    lost: str | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A consistent view of the source that several connections can import while it is held open.

    `lsn`: of a slot's snapshot, the consistent point: it sees exactly the transactions that commit before it.
    Of a plain snapshot, a position that every visible transaction's commit record lies before, and that is flushed.
    `taken_at` is the server's clock. `visible` tells which transactions it sees.
    """

    name: str
    lsn: Lsn
    taken_at: datetime
    visible: XidSnapshot


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The tables that a pipeline asks for: those that can be replicated, and the reason for each that cannot."""

    relations: tuple[Relation, ...]
    refused: Mapping[TableName, str]


class ChangeStream(Protocol):
    """The changes from a position on; iterate to read, in commit order."""

    def __iter__(self) -> Iterator[Piece]:
        """Yield pieces until the wanted position is passed; the last one ends at a commit (`committed` not None)."""
        ...

    def confirm(self, position: Lsn) -> None:
        """Tell the source that everything before `position` is durable here. Idempotent; never moves back."""
        ...


class Source(Protocol):
    """A database with a change stream. Every method may raise `SourceUnavailable` and `SourceRefused`."""

    def identity(self) -> SourceIdentity:
        """Which server and database this is."""
        ...

    def check(self) -> Sequence[Finding]:
        """Everything about the source that would go wrong later: settings, privileges, tables, keys."""
        ...

    def survey(self) -> Survey:
        """The tables of the pipeline, as they are now."""
        ...

    def position(self) -> Lsn:
        """The end of the flushed WAL. One cheap query."""
        ...

    def slot(self) -> Slot | None:
        """The pipeline's slot, or None when there is none. One cheap query."""
        ...

    def published(self, wanted: Sequence[Relation]) -> frozenset[TableName]:
        """Those of `wanted` of which everything is sent that can be. A table that is not in it may lose changes."""
        ...

    def publish(self, wanted: Sequence[Relation]) -> None:
        """Publish exactly these tables. Of one whose updates cannot be sent, no update is held up. Idempotent."""
        ...

    def create_slot(self) -> AbstractContextManager[Snapshot]:
        """Create the pipeline's slot; the snapshot at its consistent point can be read inside the context."""
        ...

    def slot_snapshot(self) -> AbstractContextManager[Snapshot]:
        """A snapshot at an exact position, through a temporary slot that goes with the context.

        Transactions that were writing when it was asked for have ended before its consistent point.
        """
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """A plain snapshot of this moment; waits for no transaction and holds up none."""
        ...

    def read(self, snapshot: Snapshot, relation: Relation) -> Iterator[pa.RecordBatch]:
        """The rows of a table in a snapshot: the relation's columns and `_rescued_data`, in batches of bounded size."""
        ...

    def count(self, snapshot: Snapshot, table: TableName) -> int:
        """The number of rows of a table in a snapshot."""
        ...

    def changes(self, start: Lsn, until: Lsn | None) -> AbstractContextManager[ChangeStream]:
        """Stream what commits from `start` on, up to the first position at or past `until` (None: for ever).

        Raises `SlotInUse`, `SlotLost`, and `SlotGap` when the slot is already past `start`.
        """
        ...

    def drop_slot(self) -> None:
        """Remove the slot. Idempotent."""
        ...

    def drop(self) -> None:
        """Remove slot and publication. Idempotent."""
        ...
