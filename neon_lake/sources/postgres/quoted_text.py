"""Text with double quotes and backslash escapes, read over all rows at once: what arrays and hstore are written in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neon_lake.sources.postgres.columns import Mask, Positions, binary_array, binary_parts, mask_buffer

_QUOTE, _ESCAPE = b'"\\'


class QuotedText:
    """The bytes of many texts (a binary array), and which of them stand outside of quotes.

    `data` is followed by a zero, so that the byte at a text's end can be looked at; row i's text lies from `starts[i]`
    to `ends[i]`. `bare` marks the bytes that are neither quoted nor quotes. Quotes are paired over all rows: unless
    `paired`, nothing of that can be trusted.
    """

    def __init__(self, text: pa.Array) -> None:
        bytes_, self.starts, self.ends, self.valid = binary_parts(text)
        self.data = np.concatenate([bytes_, np.zeros(1, np.uint8)])
        escaped = _escaped(self.data)
        self.quotes: Mask = (self.data == _QUOTE) & ~escaped
        quoted = np.cumsum(self.quotes, dtype=np.int32) & 1 == 1
        self.bare: Mask = ~quoted & ~self.quotes
        self.paired = not (self.count(self.quotes) % 2).any()
        self._keep: Mask = ~(self.quotes | ((self.data == _ESCAPE) & ~escaped))

    def count(self, marks: Mask) -> Positions:
        """How many of the marked bytes each row has."""
        total = np.concatenate([[0], np.cumsum(marks, dtype=np.int64)])
        counts: Positions = total[self.ends] - total[self.starts]
        return counts

    def pieces(self, first: Positions, last: Positions, null: Mask) -> pa.Array:
        """The texts `first[i]:last[i]`, in their order, without their quotes and escapes; a binary array.

        Nothing is behind those that are null, as `binary_parts` promises.
        """
        kept = np.concatenate([[0], np.cumsum(self._keep, dtype=np.int64)])
        return binary_array(
            self.data[self._keep], kept[first], np.where(null, kept[first], kept[last]), mask_buffer(~null)
        )

    def is_null(self, first: Positions, last: Positions) -> Mask:
        """Which pieces are the bare word NULL; the server quotes a string that reads so."""
        null: Mask = last - first == 4
        candidates = np.flatnonzero(null)
        for place, letter in enumerate(b"NULL"):
            candidates = candidates[self.data[first[candidates] + place] == letter]
        null[:] = False
        null[candidates] = True
        return null


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
