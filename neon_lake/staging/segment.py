"""Segments: immutable Parquet files that hold the changes, or the snapshot rows, of one table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, BinaryIO, ClassVar, Final, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from neon_lake.change import COMMITTED_AT, DELETE, INSERT, LSN, OLD_KEY, OP, SEQUENCE, TRUNCATE, UNCHANGED, UPDATE
from neon_lake.errors import LogDamaged

ROW_GROUP: Final = 1 << 17


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many changes of each kind."""

    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    truncates: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            inserts=self.inserts + other.inserts,
            updates=self.updates + other.updates,
            deletes=self.deletes + other.deletes,
            truncates=self.truncates + other.truncates,
        )

    @property
    def total(self) -> int:
        """All of them."""
        return self.inserts + self.updates + self.deletes + self.truncates

    @classmethod
    def of(cls, rows: pa.Table) -> Self:
        """Count the changes in rows of `change_schema`."""
        found = {item["values"]: item["counts"] for item in pc.value_counts(rows[OP]).to_pylist()}
        return cls(
            inserts=found.get(INSERT, 0),
            updates=found.get(UPDATE, 0),
            deletes=found.get(DELETE, 0),
            truncates=found.get(TRUNCATE, 0),
        )


NO_CHANGES: Final = Counts()


def by_hour(changes: pa.Table) -> dict[datetime, Counts]:
    """Count changes by the hour of their commit (UTC)."""
    hours = pc.floor_temporal(changes[COMMITTED_AT], unit="hour")
    operations = changes.select([OP])
    distinct = pc.unique(hours).sort()
    if len(distinct) == 1:
        return {distinct[0].as_py(): Counts.of(operations)}
    return {h.as_py(): Counts.of(operations.filter(pc.equal(hours, h))) for h in distinct}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the changes of a segment are, for who applies them without reading them.

    hours: counts by the hour of the commit (UTC); last_commit_at: of the last commit; unsent: columns whose TOASTed
    value some change did not send; moved: whether a change altered a key; truncation: (`_lsn`, `_seq`, commit time) of
    the last TRUNCATE.
    """

    COLUMNS: ClassVar = (OP, LSN, SEQUENCE, COMMITTED_AT, UNCHANGED, OLD_KEY)

    hours: Mapping[datetime, Counts]
    last_commit_at: datetime | None
    unsent: tuple[str, ...] = ()
    moved: bool = False
    truncation: tuple[int, int, datetime] | None = None

    @classmethod
    def of(cls, changes: pa.Table) -> Self:
        """Sum up changes, of which the columns `COLUMNS` are needed."""
        truncates = np.flatnonzero(np.asarray(pc.equal(changes[OP], TRUNCATE)))
        last = changes.slice(int(truncates[-1]), 1).to_pylist()[0] if len(truncates) else None
        return cls(
            hours=by_hour(changes),
            last_commit_at=pc.max(changes[COMMITTED_AT]).as_py(),
            unsent=tuple(sorted(pc.unique(pc.list_flatten(changes[UNCHANGED])).to_pylist())),
            moved=changes[OLD_KEY].null_count < len(changes),
            truncation=(last[LSN], last[SEQUENCE], last[COMMITTED_AT]) if last else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The summary as a manifest holds it."""
        lsn, sequence, moment = self.truncation or (None, None, None)
        return {
            "hours": {hour.isoformat(): asdict(counts) for hour, counts in self.hours.items()},
            "last_commit_at": self.last_commit_at.isoformat() if self.last_commit_at else None,
            "unsent": list(self.unsent),
            "moved": self.moved,
            "truncation": [lsn, sequence, moment.isoformat()] if moment else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        at, last = data["last_commit_at"], data["truncation"]
        return cls(
            hours={datetime.fromisoformat(hour): Counts(**counts) for hour, counts in data["hours"].items()},
            last_commit_at=datetime.fromisoformat(at) if at else None,
            unsent=tuple(data["unsent"]),
            moved=data["moved"],
            truncation=(last[0], last[1], datetime.fromisoformat(last[2])) if last else None,
        )


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A segment as its manifest names it: path in staging, rows, size in bytes, SHA-256 of the file.

    `relation` is the index of its relation in the manifest; `loaded` is its size in memory, in bytes. Segments of
    snapshots, and of changes that were captured before there were summaries, have no `summary`.
    """

    path: str
    relation: int
    rows: int
    bytes: int
    loaded: int
    sha256: str
    counts: Counts = NO_CHANGES
    summary: Summary | None = None

    def to_json(self) -> dict[str, Any]:
        """The segment as a manifest holds it."""
        data = asdict(replace(self, summary=None))
        return data | {"summary": self.summary.to_json() if self.summary else None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        summary = data.get("summary")
        return cls(
            **{
                **data,
                "counts": Counts(**data["counts"]),
                "summary": Summary.from_json(summary) if summary else None,
            }
        )


class _Hashing:
    """A file that hashes what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.bytes = file, hashlib.sha256(), 0
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        self._hash.update(view)
        self.bytes += view.nbytes
        self._file.write(view)
        return view.nbytes

    def flush(self) -> None:
        pass

    @property
    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def write(file: BinaryIO, schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> tuple[int, int, str]:
    """Write batches as one Parquet file; gives rows, bytes and SHA-256.

    Values are not dictionary-encoded: a segment is read once or twice, and finding the dictionary costs more than it
    saves. The operation, which has four values, is the exception.
    """
    hashing = _Hashing(file)
    table = pa.Table.from_batches(batches, schema)
    with pq.ParquetWriter(
        pa.PythonFile(cast(Any, hashing), mode="w"),
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[OP] if OP in schema.names else False,
        write_statistics=False,
    ) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP)
    return table.num_rows, hashing.bytes, hashing.hexdigest


def read(segment: Segment, data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a segment from its file's bytes. Raises `LogDamaged` when they are not what the manifest says."""
    if len(data) != segment.bytes or hashlib.sha256(data).hexdigest() != segment.sha256:
        raise LogDamaged(
            f"The segment {segment.path} is damaged (its checksum is not the manifest's); "
            "restore the file, or resync its table."
        )
    return pq.read_table(pa.BufferReader(data), columns=columns)
