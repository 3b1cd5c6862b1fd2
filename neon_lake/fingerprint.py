"""Fingerprints of rows: 64 bits each, computed a column at a time, and sums of them per bucket of keys.

Two tables with equal sums in every bucket hold, but for a collision of 64-bit hashes, the same rows; where sums
differ, only the rows of those buckets have to be looked at one by one. Memory does not grow with the table.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BUCKETS: Final = 4096

_PIECE: Final = 1 << 15
"""Bytes of values that are hashed at once. Each takes some forty bytes meanwhile, which then stay in the cache."""

Hashes = npt.NDArray[np.uint64]

_NONE: Final = np.uint64(0)
_NULL: Final = np.uint64(0x9AE16A3B2F90404F)
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_SALTS: Final = (np.uint64(0xD1B54A32D192ED03), np.uint64(0x8CB92BA72F3D8DD7))
"""What makes the halves of a row's id independent of each other."""


def hashes(columns: Sequence[pa.Array]) -> Hashes:
    """One 64-bit hash per row of these columns of equal length. The order of the columns matters; chunking does not."""
    total = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        total = _mixed(total * _ODD + column_hashes(column))
    return total


def column_hashes(column: pa.Array) -> Hashes:
    """One 64-bit hash per value; nulls are equal to each other and to nothing else."""
    return _nullable(column, _NONE)


def row_ids(rows: pa.Table | pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    """16 bytes per row, the same for rows that have the same values in these columns.

    A null counts as if its column was not there, and the order of the columns does not matter: so a row keeps its id
    when a column is added. Two rows of different content share an id with a chance of 2⁻¹²⁸.
    """
    halves = []
    for salt in _SALTS:
        total = np.zeros(len(rows) if isinstance(rows, pa.Table) else rows.num_rows, dtype=np.uint64)
        for name in names:
            column = rows[name].combine_chunks() if isinstance(rows, pa.Table) else rows[name]
            digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
            of_column = _mixed(_values(column, salt) + np.uint64(int.from_bytes(digest, "big")))
            total += np.where(np.asarray(pc.is_valid(column)), of_column, np.uint64(0))
        halves.append(_mixed(total + salt))
    data = np.ascontiguousarray(np.column_stack(halves))
    offsets = pa.py_buffer((np.arange(len(data) + 1) * 16).astype(np.int32))
    return pa.Array.from_buffers(pa.binary(), len(data), [None, offsets, pa.py_buffer(data)])


class BucketSums:
    """Row count and sum of row hashes (modulo 2⁶⁴) for each bucket of keys."""

    def __init__(self) -> None:
        self.rows = np.zeros(BUCKETS, dtype=np.int64)
        self.sums = np.zeros(BUCKETS, dtype=np.uint64)

    def add(self, keys: Hashes, rows: Hashes) -> None:
        """Count rows in, given the hashes of their keys and of their whole content."""
        place = buckets(keys)
        self.rows += np.bincount(place, minlength=BUCKETS)
        np.add.at(self.sums, place, rows)

    def differing(self, other: BucketSums) -> npt.NDArray[np.int64]:
        """The buckets that are not the same on both sides."""
        return np.flatnonzero((self.rows != other.rows) | (self.sums != other.sums))


def buckets(keys: Hashes) -> npt.NDArray[np.int64]:
    """The bucket of each key, by its hash."""
    return (keys % np.uint64(BUCKETS)).astype(np.int64)


def _mixed(x: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _values(column: pa.Array, salt: np.uint64) -> Hashes:
    kind = column.type
    if pa.types.is_list(kind):
        return _of_lists(column, salt)
    if pa.types.is_map(kind):
        return _of_maps(column, salt)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _of_bytes(column, salt)
    if pa.types.is_boolean(kind):
        return _mixed(np.asarray(column.fill_null(False)).astype(np.uint64) ^ salt)
    if pa.types.is_decimal(kind):
        halves = np.frombuffer(column.buffers()[1], dtype=np.uint64)[2 * column.offset :][: 2 * len(column)]
        return _mixed(_mixed(halves[0::2] ^ salt) * _ODD + halves[1::2])
    if pa.types.is_floating(kind):
        # the sign and the payload of a NaN mean nothing, and get lost in text
        column = pc.if_else(pc.is_nan(column), pa.scalar(math.nan, kind), column)
    width = kind.bit_width // 8
    raw = np.frombuffer(column.buffers()[1], dtype=f"u{width}")[column.offset :][: len(column)]
    return _mixed(raw.astype(np.uint64) ^ salt)


def _of_bytes(column: pa.Array, salt: np.uint64) -> Hashes:
    """Each value as a polynomial of its bytes, with its length: a sum per value over many values at once."""
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset :][: len(column) + 1].astype(np.int64)
    data = column.buffers()[2]
    content = np.frombuffer(data, dtype=np.uint8) if data else np.empty(0, np.uint8)
    lengths = np.diff(offsets)
    sums = np.empty(len(lengths), np.uint64)
    first = 0
    while first < len(lengths):
        last = int(np.searchsorted(offsets, offsets[first] + _PIECE, side="right")) - 1
        if last > first:
            terms = _weights(lengths[first:last], salt)
            terms *= content[offsets[first] : offsets[last]] + np.uint64(1)
            sums[first:last] = _sums(terms, lengths[first:last])
        else:
            last = first + 1
            sums[first] = _of_long(content[offsets[first] : offsets[last]], salt)
        first = last
    return _mixed(sums * _ODD + lengths.astype(np.uint64))


def _of_long(content: npt.NDArray[np.uint8], salt: np.uint64) -> np.uint64:
    """The polynomial of one value, piece by piece."""
    total = np.zeros(1, np.uint64)
    for at in range(0, len(content), _PIECE):
        piece = content[at : at + _PIECE]
        total += ((piece + np.uint64(1)) * _weights_at(at, at + len(piece), salt)).sum(dtype=np.uint64)
    return np.uint64(total[0])


def _of_lists(column: pa.ListArray, salt: np.uint64) -> Hashes:
    offsets = np.asarray(column.offsets).astype(np.int64)
    elements = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    return _of_runs(_nullable(elements, salt), offsets, salt)


def _of_maps(column: pa.MapArray, salt: np.uint64) -> Hashes:
    """The pairs in their order: the source writes equal maps alike."""
    offsets = np.asarray(column.offsets).astype(np.int64)
    keys, values = (part.slice(offsets[0], offsets[-1] - offsets[0]) for part in (column.keys, column.items))
    return _of_runs(_mixed(_nullable(keys, salt) * _ODD + _nullable(values, salt)), offsets, salt)


def _nullable(elements: pa.Array, salt: np.uint64) -> Hashes:
    return np.where(np.asarray(pc.is_valid(elements)), _values(elements, salt), _NULL)


def _of_runs(terms: Hashes, offsets: npt.NDArray[np.int64], salt: np.uint64) -> Hashes:
    """Consecutive runs of hashes as polynomials, with their lengths."""
    lengths = np.diff(offsets)
    return _mixed(_sums(terms * _weights(lengths, salt), lengths) * _ODD + lengths.astype(np.uint64))


def _weights(lengths: npt.NDArray[np.int64], salt: np.uint64) -> Hashes:
    """For each of consecutive runs, one weight for every place in it: the same for the same place of any run."""
    starts = np.cumsum(lengths) - lengths
    place = np.arange(int(lengths.sum()))
    place -= np.repeat(starts, lengths)
    return _weights_at(0, int(lengths.max(initial=0)), salt)[place]


def _weights_at(start: int, end: int, salt: np.uint64) -> Hashes:
    """The weights of the places from `start` to `end` of a run."""
    return _mixed(np.arange(start + 1, end + 1, dtype=np.uint64) * _ODD ^ salt)


def _sums(terms: Hashes, lengths: npt.NDArray[np.int64]) -> Hashes:
    """Sum of consecutive runs of `terms`, modulo 2⁶⁴."""
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    ends = np.cumsum(lengths)
    result: Hashes = total[ends] - total[ends - lengths]
    return result
