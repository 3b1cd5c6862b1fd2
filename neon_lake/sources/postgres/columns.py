"""Tuples of the replication stream as columns: positions are walked for all rows at once, values move once.

A tuple is a column count and then, per column, a kind byte and for text a length and the bytes. Every row's position
is one element of a vector that steps from column to column, so the work per value is a few numpy operations.

Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html (TupleData)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neon_lake.errors import ProtocolError

Mask: TypeAlias = npt.NDArray[np.bool_]
Positions: TypeAlias = npt.NDArray[np.int64]

PADDING: Final = 16
"""Bytes that follow the last message in a buffer, so that a look-ahead of a whole number never leaves it."""

_NULL, _UNCHANGED, _TEXT = b"nut"


class Wire:
    """The bytes of many messages, with big-endian numbers readable at any position (`u8[positions]` and so on)."""

    def __init__(self, data: bytes) -> None:
        """Take over `data`, whose last `PADDING` bytes are not part of any message."""
        self.buffer = pa.py_buffer(data)
        self.bytes = np.frombuffer(data, np.uint8)
        size = len(data)

        def view(dtype: str, width: int) -> npt.NDArray[np.unsignedinteger]:
            return np.ndarray((size - width + 1,), dtype, data, strides=(1,))

        self._u2 = view(">u2", 2)
        self._u4 = view(">u4", 4)
        self._i8 = np.ndarray((size - 7,), ">i8", data, strides=(1,))

    def u2(self, at: Positions) -> Positions:
        """Unsigned 16-bit numbers."""
        return self._u2[at].astype(np.int64)

    def u4(self, at: Positions) -> Positions:
        """Unsigned 32-bit numbers."""
        return self._u4[at].astype(np.int64)

    def i8(self, at: Positions) -> Positions:
        """Signed 64-bit numbers."""
        return self._i8[at].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Field:
    """One column of many tuples: each value's kind byte, and where its text starts and ends in the wire."""

    kinds: npt.NDArray[np.uint8]
    starts: Positions
    ends: Positions

    @property
    def sent(self) -> Mask:
        """Which values are there as text."""
        mask: Mask = self.kinds == _TEXT
        return mask

    @property
    def unchanged(self) -> Mask:
        """Which values are TOASTed, not modified, and therefore not sent."""
        mask: Mask = self.kinds == _UNCHANGED
        return mask

    def filled(self, rows: Positions, other: Field, among: Mask) -> Field:
        """A copy whose unchanged values come from `other`, which holds the old tuples of `rows`, where `among`.

        Such a value is never null. Where the old tuple has null nevertheless, a partition logs less than its table
        promises.
        """
        chosen = among & self.unchanged[rows] & other.sent
        if not chosen.any():
            return self
        copy = Field(self.kinds.copy(), self.starts.copy(), self.ends.copy())
        for mine, theirs in ((copy.kinds, other.kinds), (copy.starts, other.starts), (copy.ends, other.ends)):
            mine[rows[chosen]] = theirs[chosen]
        return copy


def walk(wire: Wire, at: Positions, limit: Positions, count: int) -> tuple[list[Field], Positions]:
    """Step through the tuples of `count` columns that begin at `at`; also returns where they end.

    Raises `ProtocolError` when a tuple has another number of columns, an unknown kind, or passes its `limit`.
    """
    if (at + 2 > limit).any() or (wire.u2(at) != count).any():
        raise ProtocolError("the replication stream has a row that does not fit its relation")
    position = at + 2
    fields = []
    for _ in range(count):
        if (position >= limit).any():
            raise ProtocolError("the replication stream has a row that ends too early")
        kinds = wire.bytes[position]
        text = kinds == _TEXT
        if text.all():
            starts = position + 5
            ends = starts + wire.u4(position + 1)
        else:
            if (~text & (kinds != _NULL) & (kinds != _UNCHANGED)).any():
                raise ProtocolError("the replication stream has a value of an unknown kind")
            starts = position + 1 + 4 * text
            ends = starts + np.where(text, wire.u4(position + 1), 0)
        if (ends > limit).any():
            raise ProtocolError("the replication stream has a value that passes the end of its row")
        fields.append(Field(kinds, starts, ends))
        position = ends
    return fields, position


def gather(wire: Wire, field: Field) -> pa.Array:
    """The values of a column as a binary array; null where nothing was sent.

    The values lie in the wire in row order, so starts and ends interleaved are the offsets of an array over the
    whole wire, of which every second element is a value: Arrow's `take` copies them in one pass.
    """
    rows = len(field.starts)
    sent = field.sent
    bitmap = None if sent.all() else mask_buffer(sent)
    return _take(wire.buffer, field.starts, field.ends, bitmap, rows)


def binary_array(data: npt.NDArray[np.uint8], starts: Positions, ends: Positions, bitmap: pa.Buffer | None) -> pa.Array:
    """The pieces `starts[i]:ends[i]` of `data`, which must follow one another, as a binary array."""
    return _take(pa.py_buffer(np.ascontiguousarray(data)), starts, ends, bitmap, len(starts))


def _take(buffer: pa.Buffer, starts: Positions, ends: Positions, bitmap: pa.Buffer | None, rows: int) -> pa.Array:
    if not rows:
        return pa.array([], pa.binary())
    offsets = np.empty(2 * rows, np.int32)
    offsets[0::2] = starts
    offsets[1::2] = ends
    pieces = pa.Array.from_buffers(pa.binary(), 2 * rows - 1, [None, pa.py_buffer(offsets), buffer])
    values = pieces.take(pa.array(np.arange(0, 2 * rows, 2, dtype=np.int64)))
    if bitmap is None:
        return values
    return pa.Array.from_buffers(pa.binary(), rows, [bitmap, *values.buffers()[1:]])


def binary_parts(values: pa.Array) -> tuple[npt.NDArray[np.uint8], Positions, Positions, Mask]:
    """A binary array's bytes, and each value's start, end and validity. A null value is empty."""
    rows = len(values)
    bitmap, offsets, data = values.buffers()
    valid = np.ones(rows, np.bool_)
    if bitmap is not None and values.null_count:
        bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
        valid = bits[values.offset : values.offset + rows].astype(np.bool_)
    if not rows:
        return np.zeros(0, np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64), valid
    edges = np.frombuffer(offsets, np.int32)[values.offset : values.offset + rows + 1].astype(np.int64)
    everything = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    edges -= edges[0]
    base = int(np.frombuffer(offsets, np.int32)[values.offset])
    return everything[base : base + int(edges[-1])], edges[:-1], edges[1:], valid


def mask_buffer(mask: Mask) -> pa.Buffer:
    """A boolean mask as an Arrow bitmap."""
    return pa.py_buffer(np.packbits(mask, bitorder="little"))
