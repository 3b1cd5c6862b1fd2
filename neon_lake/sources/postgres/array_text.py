"""Postgres' text form of one-dimensional arrays, read over all rows at once.

Source: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neon_lake.sources.postgres.columns import Mask, binary_array, binary_parts, mask_buffer

_OPEN, _CLOSE, _QUOTE, _ESCAPE = b'{}"\\'


@dataclass(frozen=True, kw_only=True)
class Elements:
    """The elements of many arrays, one after the other.

    `values` is the elements' own text (binary); row i's are those from `offsets[i]` to `offsets[i + 1]`.
    Rows in `other` are not one-dimensional arrays that start at 1 (or are no arrays at all): they have no elements.
    """

    values: pa.Array
    offsets: npt.NDArray[np.int32]
    other: Mask


def parse(text: pa.Array, delimiter: str) -> Elements:
    """Read the arrays of a binary array; a null row has no elements."""
    data, starts, ends, valid = binary_parts(text)
    size = int(ends[-1]) if len(ends) else 0
    escaped = _escaped(data)
    quotes = (data == _QUOTE) & ~escaped
    quoted = np.cumsum(quotes, dtype=np.int32) & 1 == 1
    bare = ~quoted & ~quotes

    opens = bare & (data == _OPEN)
    closes = bare & (data == _CLOSE)
    commas = bare & (data == ord(delimiter))

    def per_row(marks: Mask) -> npt.NDArray[np.int64]:
        total = np.concatenate([[0], np.cumsum(marks, dtype=np.int64)])
        counts: npt.NDArray[np.int64] = total[ends] - total[starts]
        return counts

    padded = np.concatenate([data, np.zeros(1, np.uint8)])
    good = valid & (ends - starts >= 2)
    good &= (per_row(opens) == 1) & (per_row(closes) == 1) & (per_row(quotes) % 2 == 0)
    good &= (padded[starts] == _OPEN) & (padded[np.maximum(ends - 1, 0)] == _CLOSE)
    # Parity runs over all rows: after a row whose quotes do not pair, nothing that follows can be trusted.
    if (per_row(quotes) % 2)[valid].any():
        good[:] = False

    counts = np.where(good & (ends - starts > 2), per_row(commas) + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    filled = np.flatnonzero(counts)

    inside = np.zeros(size + 1, np.int8)
    inside[starts[filled]] += 1
    inside[ends[filled]] -= 1
    within = np.cumsum(inside[:-1], dtype=np.int8) == 1
    first = np.concatenate([starts[filled], np.flatnonzero(commas & within)]) + 1
    last = np.concatenate([ends[filled] - 1, np.flatnonzero(commas & within)])
    first.sort()
    last.sort()

    keep = ~(quotes | ((data == _ESCAPE) & ~escaped))
    kept = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
    null = _is_null(padded, first, last)
    values = binary_array(data[keep], kept[first], kept[last], mask_buffer(~null))
    return Elements(values=values, offsets=offsets, other=valid & ~good)


def _escaped(data: npt.NDArray[np.uint8]) -> Mask:
    """Which bytes follow a backslash that is not itself escaped: those after a run of backslashes of odd length."""
    slashes = data == _ESCAPE
    if not slashes.any():
        return np.zeros(len(data), np.bool_)
    position = np.arange(len(data), dtype=np.int64)
    other = np.maximum.accumulate(np.where(slashes, -1, position))
    before = np.concatenate([[-1], other[:-1]])
    escaped: Mask = (position - 1 - before) & 1 == 1
    return escaped


def _is_null(data: npt.NDArray[np.uint8], first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> Mask:
    """Which elements are the bare word NULL; the server quotes a string that reads so."""
    null: Mask = last - first == 4
    candidates = np.flatnonzero(null)
    for place, letter in enumerate(b"NULL"):
        candidates = candidates[data[first[candidates] + place] == letter]
    null[:] = False
    null[candidates] = True
    return null
