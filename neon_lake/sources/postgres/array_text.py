"""Postgres' text form of one-dimensional arrays, read over all rows at once.

Source: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neon_lake.sources.postgres.columns import Mask
from neon_lake.sources.postgres.quoted_text import QuotedText

_OPEN, _CLOSE = b"{}"


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
    quoted = QuotedText(text)
    data, starts, ends, valid = quoted.data, quoted.starts, quoted.ends, quoted.valid
    opens = quoted.bare & (data == _OPEN)
    closes = quoted.bare & (data == _CLOSE)
    commas = quoted.bare & (data == ord(delimiter))

    good = valid & (ends - starts >= 2)
    good &= (quoted.count(opens) == 1) & (quoted.count(closes) == 1)
    good &= (data[starts] == _OPEN) & (data[np.maximum(ends - 1, 0)] == _CLOSE)
    if not quoted.paired:
        good[:] = False

    counts = np.where(good & (ends - starts > 2), quoted.count(commas) + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    filled = np.flatnonzero(counts)

    inside = np.zeros(len(data), np.int8)
    inside[starts[filled]] += 1
    inside[ends[filled]] -= 1
    within = np.cumsum(inside, dtype=np.int8) == 1
    first = np.concatenate([starts[filled], np.flatnonzero(commas & within)]) + 1
    last = np.concatenate([ends[filled] - 1, np.flatnonzero(commas & within)])
    first.sort()
    last.sort()
    values = quoted.pieces(first, last, quoted.is_null(first, last))
    return Elements(values=values, offsets=offsets, other=valid & ~good)
