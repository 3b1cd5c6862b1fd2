"""The text form of the extension hstore's maps, read over all rows at once.

It is what `hstore_out` writes: `"key"=>"value", "other"=>NULL`, keys and values always quoted.
Source: https://www.postgresql.org/docs/current/hstore.html#HSTORE-EXTERNAL-REP
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from neon_lake.errors import ProtocolError
from neon_lake.sources.postgres.columns import mask_buffer
from neon_lake.sources.postgres.quoted_text import QuotedText

MAP: Final = pa.map_(pa.string(), pa.string())

_QUOTE, _EQUALS, _ARROW, _COMMA, _SPACE = b'"=>, '
_ENTRY: Final = [pa.field("key", pa.string(), nullable=False), pa.field("value", pa.string())]


def parse(text: pa.Array) -> pa.Array:
    """The maps of a binary array of UTF-8 texts, in the order of their text. Raises `ProtocolError`."""
    quoted = QuotedText(text)
    data, starts, ends = quoted.data, quoted.starts, quoted.ends
    signs = quoted.bare & (data == _EQUALS)
    commas = quoted.bare & (data == _COMMA)
    counts = quoted.count(signs)
    filled = np.flatnonzero(ends > starts)
    if not quoted.paired or (quoted.count(commas) != np.maximum(counts - 1, 0)).any() or not counts[filled].all():
        raise _damaged()

    sign = np.flatnonzero(signs)
    comma = np.flatnonzero(commas)
    first = np.sort(np.concatenate([starts[filled], comma + 2]))
    last = np.sort(np.concatenate([ends[filled], comma]))
    whole = (first + 2 <= sign) & (sign + 4 <= last)
    if not whole.all():
        raise _damaged()
    null = quoted.is_null(sign + 2, last)
    whole = (data[first] == _QUOTE) & (data[sign - 1] == _QUOTE) & (data[sign + 1] == _ARROW)
    whole &= null | ((data[sign + 2] == _QUOTE) & (data[last - 1] == _QUOTE))
    if not whole.all() or (data[comma + 1] != _SPACE).any():
        raise _damaged()

    keys = quoted.pieces(first, sign, np.zeros(len(sign), np.bool_)).cast(pa.string())
    values = quoted.pieces(sign + 2, last, null).cast(pa.string())
    entries = pa.StructArray.from_arrays([keys, values], fields=_ENTRY)
    offsets = pa.py_buffer(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    bitmap = None if quoted.valid.all() else mask_buffer(quoted.valid)
    return pa.Array.from_buffers(MAP, len(text), [bitmap, offsets], children=[entries])


def _damaged() -> ProtocolError:
    return ProtocolError("the source sent hstore in another form than its output function's")
