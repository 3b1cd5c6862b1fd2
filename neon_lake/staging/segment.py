"""Segments: immutable Parquet files that hold the changes, or the snapshot rows, of one table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final, Self, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from neon_lake.change import DELETE, INSERT, OP, TRUNCATE, UPDATE
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


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A segment as its manifest names it: path in staging, rows, size in bytes, SHA-256 of the file.

    `relation` is the index of its relation in the manifest; `loaded` is its size in memory, in bytes.
    """

    path: str
    relation: int
    rows: int
    bytes: int
    loaded: int
    sha256: str
    counts: Counts = NO_CHANGES

    def to_json(self) -> dict[str, Any]:
        """The segment as a manifest holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{**data, "counts": Counts(**data["counts"])})


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
