"""Changes on their way into segments, in bounded memory."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, Self

import pyarrow as pa

from neon_lake.change import OP, ChangeBatch, change_schema
from neon_lake.schema import RESCUED, Relation
from neon_lake.staging import segment as segments
from neon_lake.staging.segment import Counts, Segment, Summary
from neon_lake.staging.storage import Storage

SEGMENT_BYTES: Final = 64 << 20
"""Arrow bytes at which a segment is written."""


def snapshot_schema(relation: Relation) -> pa.Schema:
    """The Arrow schema of a snapshot's segments: the relation's columns and `_rescued_data`."""
    return relation.row_schema.append(pa.field(RESCUED, pa.string()))


class _Buffer:
    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.bytes = 0


class SegmentWriter:
    """Collects batches per relation and writes them as segments below a folder of its own.

    At most `memory` bytes of Arrow data are held, counting what is on its way to the disk; Parquet is written by one
    thread beside the caller's. The folder's name is random, so nothing of another writer is ever overwritten; what no
    manifest names is an orphan, and `expire` removes it.
    """

    def __init__(self, storage: Storage, folder: str, *, memory: int) -> None:
        self._storage, self._memory = storage, memory
        self._folder = f"{folder}-{secrets.token_hex(4)}"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="segments")
        self._buffers: dict[Relation, _Buffer] = {}
        self._written: list[tuple[int, Future[Segment]]] = []
        self._relations: list[Relation] = []
        self.bytes = 0

    def write_changes(self, batch: ChangeBatch) -> None:
        """Take a batch of changes; its order is kept among the batches of its table."""
        self._take(batch.relation, batch.rows)

    def write_rows(self, relation: Relation, rows: pa.RecordBatch) -> None:
        """Take rows of a snapshot."""
        self._take(relation, rows)

    def finish(self) -> tuple[tuple[Relation, ...], tuple[Segment, ...]]:
        """Write what is held; gives the relations and the segments, durable, in the order of their changes."""
        for relation in list(self._buffers):
            self._flush(relation)
        done = tuple(future.result() for _, future in self._written)
        self._pool.shutdown()
        return tuple(self._relations), done

    def abort(self) -> None:
        """Stop writing, and leave what is written to `expire`."""
        self._pool.shutdown(cancel_futures=True)

    @classmethod
    @contextmanager
    def open(cls, storage: Storage, folder: str, *, memory: int) -> Iterator[Self]:
        """A writer that is stopped when the context fails."""
        writer = cls(storage, folder, memory=memory)
        try:
            yield writer
        finally:
            writer.abort()

    def _take(self, relation: Relation, rows: pa.RecordBatch) -> None:
        for other in [r for r in self._buffers if r.table == relation.table and r != relation]:
            self._flush(other)
        buffer = self._buffers.setdefault(relation, _Buffer())
        size = rows.nbytes
        buffer.batches.append(rows)
        buffer.bytes += size
        self.bytes += size
        if buffer.bytes >= SEGMENT_BYTES:
            self._flush(relation)
        elif sum(b.bytes for b in self._buffers.values()) > self._memory // 2:
            self._flush(max(self._buffers, key=lambda r: self._buffers[r].bytes))

    def _flush(self, relation: Relation) -> None:
        buffer = self._buffers.pop(relation)
        self._await_room(self._memory // 2 - buffer.bytes)
        if relation not in self._relations:
            self._relations.append(relation)
        path = f"{self._folder}/{relation.table.path.replace('/', '.')}-{len(self._written)}.parquet"
        future = self._pool.submit(self._write, path, self._relations.index(relation), relation, buffer.batches)
        self._written.append((buffer.bytes, future))

    def _await_room(self, room: int) -> None:
        """Wait until what is on its way to the disk is at most `room` bytes."""
        waiting = [(size, future) for size, future in self._written if not future.done()]
        pending = sum(size for size, _ in waiting)
        for size, future in waiting:
            if pending <= max(room, 0):
                return
            future.result()
            pending -= size

    def _write(self, path: str, index: int, relation: Relation, batches: list[pa.RecordBatch]) -> Segment:
        is_changes = OP in batches[0].schema.names
        schema = change_schema(relation) if is_changes else snapshot_schema(relation)
        described = pa.Table.from_batches([batch.select(Summary.COLUMNS) for batch in batches]) if is_changes else None
        with self._storage.sink(path) as file:
            rows, size, sha256 = segments.write(file, schema, batches)
        loaded = sum(batch.nbytes for batch in batches)
        return Segment(
            path=path,
            relation=index,
            rows=rows,
            bytes=size,
            loaded=loaded,
            sha256=sha256,
            counts=Counts.of(described) if described is not None else Counts(),
            summary=Summary.of(described) if described is not None else None,
        )
