"""Fingerprints of rows: 64 bits each, computed a column at a time, and sums of them per bucket of keys.

Two tables with equal sums in every bucket hold, but for a collision of 64-bit hashes, the same rows; where sums
differ, only the rows of those buckets have to be looked at one by one. Memory does not grow with the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BUCKETS: Final = 4096

Hashes = npt.NDArray[np.uint64]

_NULL: Final = np.uint64(0x9AE16A3B2F90404F)
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)


def hashes(columns: Sequence[pa.Array]) -> Hashes:
    """One 64-bit hash per row of these columns of equal length. The order of the columns matters; chunking does not."""
    total = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        total = _mixed(total * _ODD + column_hashes(column))
    return total


def column_hashes(column: pa.Array) -> Hashes:
    """One 64-bit hash per value; nulls are equal to each other and to nothing else."""
    valid = np.asarray(pc.is_valid(column))
    return np.where(valid, _values(column), _NULL)


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


def _values(column: pa.Array) -> Hashes:
    kind = column.type
    if pa.types.is_list(kind):
        return _of_lists(column)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _of_bytes(column)
    if pa.types.is_boolean(kind):
        return _mixed(np.asarray(column.fill_null(False)).astype(np.uint64))
    if pa.types.is_decimal(kind):
        halves = np.frombuffer(column.buffers()[1], dtype=np.uint64)[2 * column.offset :][: 2 * len(column)]
        return _mixed(_mixed(halves[0::2].copy()) * _ODD + halves[1::2])
    width = kind.bit_width // 8
    raw = np.frombuffer(column.buffers()[1], dtype=f"u{width}")[column.offset :][: len(column)]
    return _mixed(raw.astype(np.uint64))


def _of_bytes(column: pa.Array) -> Hashes:
    """Each value as a polynomial of its bytes, with its length: a sum per value over all bytes at once."""
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset :][: len(column) + 1].astype(np.int64)
    data = column.buffers()[2]
    count = int(offsets[-1] - offsets[0])
    content = np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]] if count else np.empty(0, np.uint8)
    lengths = np.diff(offsets)
    terms = _weights(lengths)
    terms *= content + np.uint64(1)
    return _mixed(_sums(terms, lengths) * _ODD + lengths.astype(np.uint64))


def _of_lists(column: pa.ListArray) -> Hashes:
    offsets = np.asarray(column.offsets).astype(np.int64)
    elements = column_hashes(column.values.slice(offsets[0], offsets[-1] - offsets[0]))
    lengths = np.diff(offsets)
    return _mixed(_sums(elements * _weights(lengths), lengths) * _ODD + lengths.astype(np.uint64))


def _weights(lengths: npt.NDArray[np.int64]) -> Hashes:
    """For each of consecutive runs, one weight for every place in it: the same for the same place of any run."""
    starts = np.cumsum(lengths) - lengths
    place = np.arange(int(lengths.sum()))
    place -= np.repeat(starts, lengths)
    table = _mixed(np.arange(1, int(lengths.max(initial=0)) + 1, dtype=np.uint64) * _ODD)
    return table[place]


def _sums(terms: Hashes, lengths: npt.NDArray[np.int64]) -> Hashes:
    """Sum of consecutive runs of `terms`, modulo 2⁶⁴."""
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    ends = np.cumsum(lengths)
    result: Hashes = total[ends] - total[ends - lengths]
    return result
