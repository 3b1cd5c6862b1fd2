"""Manifests: the documents that make segments count, chained from start LSN to start LSN.

The chain is the log. A manifest's name is its start LSN, which is its predecessor's end LSN, so that storing it only
where nothing of that name exists admits exactly one successor. The first manifest, the origin, starts at 0/0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Self

from neon_lake.change import NO_TRANSACTIONS, Lsn, Transactions
from neon_lake.errors import ChainDamaged
from neon_lake.schema import Relation, TableName
from neon_lake.staging.seal import opened, sealed
from neon_lake.staging.segment import Counts, Segment


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose log this is: a log serves one pipeline and one database."""

    pipeline: str
    system_identifier: str
    database: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A stretch of the log, [start, end): a batch of changes, an idle stretch (no segments), or a gap.

    `partitions` are oids of partitions whose rows are in it, each with its table, as they first came in a stream.
    `gap` is the reason why changes of this stretch were not captured; no table may be carried across it.
    """

    owner: Owner
    start: Lsn
    end: Lsn
    published_at: datetime
    transactions: Transactions = NO_TRANSACTIONS
    relations: tuple[Relation, ...] = ()
    segments: tuple[Segment, ...] = ()
    partitions: tuple[tuple[TableName, int], ...] = ()
    gap: str | None = None

    def of(self, table: TableName) -> tuple[Segment, ...]:
        """The segments of one table, in the order of their changes."""
        return tuple(s for s in self.segments if self.relations[s.relation].table == table)

    def counts(self, table: TableName) -> Counts:
        """The changes of one table."""
        return sum((s.counts for s in self.of(table)), Counts())

    @property
    def size(self) -> int:
        """Bytes of its segments."""
        return sum(s.bytes for s in self.segments)

    def to_bytes(self) -> bytes:
        """The stored document."""
        return sealed(
            {
                "owner": vars(self.owner),
                "start": str(self.start),
                "end": str(self.end),
                "published_at": self.published_at.isoformat(),
                "transactions": {
                    "count": self.transactions.count,
                    "first_commit_at": _iso(self.transactions.first_commit_at),
                    "last_commit_at": _iso(self.transactions.last_commit_at),
                    "max_xid": self.transactions.max_xid,
                },
                "relations": [relation.to_json() for relation in self.relations],
                "segments": [segment.to_json() for segment in self.segments],
                "partitions": [{"schema": t.schema, "name": t.name, "oid": oid} for t, oid in self.partitions],
                "gap": self.gap,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> Self:
        """The inverse of `to_bytes`. Raises `ChainDamaged` with the path when the document is not what was stored."""
        body = opened(
            data,
            what=f"manifest {path}",
            remedy="restore the file, or give the pipeline a new staging.path and run neon-lake resync --all",
            of_chain=True,
        )
        t = body["transactions"]
        return cls(
            owner=Owner(**body["owner"]),
            start=Lsn.parse(body["start"]),
            end=Lsn.parse(body["end"]),
            published_at=datetime.fromisoformat(body["published_at"]),
            transactions=Transactions(
                count=t["count"],
                first_commit_at=_moment(t["first_commit_at"]),
                last_commit_at=_moment(t["last_commit_at"]),
                max_xid=t["max_xid"],
            ),
            relations=tuple(Relation.from_json(r) for r in body["relations"]),
            segments=tuple(Segment.from_json(s) for s in body["segments"]),
            # logs that were begun before partitions were noted do not have them
            partitions=tuple((TableName(p["schema"], p["name"]), p["oid"]) for p in body.get("partitions", ())),
            gap=body["gap"],
        )


@dataclass(frozen=True, kw_only=True)
class SnapshotManifest:
    """A whole table as it was at `lsn`: what commits before it is in the segments, and nothing later."""

    owner: Owner
    relation: Relation
    lsn: Lsn
    taken_at: datetime
    segments: tuple[Segment, ...]

    @property
    def rows(self) -> int:
        """How many rows the table had."""
        return sum(s.rows for s in self.segments)

    def to_bytes(self) -> bytes:
        """The stored document."""
        return sealed(
            {
                "owner": vars(self.owner),
                "relation": self.relation.to_json(),
                "lsn": str(self.lsn),
                "taken_at": self.taken_at.isoformat(),
                "segments": [segment.to_json() for segment in self.segments],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> Self:
        """The inverse of `to_bytes`. Raises `LogDamaged`."""
        body = opened(
            data,
            what=f"manifest {path} of a snapshot",
            remedy="restore the file, or remove it and run neon-lake resync for its table",
        )
        return cls(
            owner=Owner(**body["owner"]),
            relation=Relation.from_json(body["relation"]),
            lsn=Lsn.parse(body["lsn"]),
            taken_at=datetime.fromisoformat(body["taken_at"]),
            segments=tuple(Segment.from_json(s) for s in body["segments"]),
        )


def check_chain(manifests: Sequence[Manifest]) -> None:
    """Raise `ChainDamaged` unless each manifest starts where the one before it ends."""
    for before, behind in pairwise(manifests):
        if before.end != behind.start:
            raise ChainDamaged(
                f"The log has no manifest from {before.end} to {behind.start}; "
                f"restore the file manifests/{before.end.hex}.json, or give the pipeline a new staging.path and run "
                "neon-lake resync --all."
            )


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
