from __future__ import annotations

import struct

import numpy as np
import pytest

from neon_lake.errors import ProtocolError
from neon_lake.sources.postgres.columns import PADDING, Positions, Wire, gather, walk
from neon_lake_tests.fixtures.wire import Toast, Value, tuple_data


def laid_out(
    rows: list[list[Value]],
) -> tuple[Wire, Positions, Positions]:
    parts = [tuple_data(row) for row in rows]
    sizes = np.array([len(part) for part in parts], np.int64)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    return Wire(b"".join(parts) + bytes(PADDING)), starts, ends


def test_a_walk_ends_where_the_rows_end() -> None:
    wire, starts, ends = laid_out([["1", None, "abc"], ["", Toast.UNCHANGED, "ü"], [None, "x", ""]])
    fields, after = walk(wire, starts, ends, 3)
    assert after.tolist() == ends.tolist()
    texts = [gather(wire, field).to_pylist() for field in fields]
    assert texts == [[b"1", b"", None], [None, None, b"x"], [b"abc", "ü".encode(), b""]]
    assert fields[1].unchanged.tolist() == [False, True, False]


def test_no_rows_and_no_columns_are_fine() -> None:
    wire, starts, ends = laid_out([])
    fields, after = walk(wire, starts, ends, 2)
    assert len(after) == 0
    assert gather(wire, fields[0]).to_pylist() == []
    wire, starts, ends = laid_out([[], []])
    assert walk(wire, starts, ends, 0)[1].tolist() == ends.tolist()


def test_a_length_that_overflows_its_row_is_refused() -> None:
    for length in (2, 2**31 - 1, 2**32 - 1):
        data = struct.pack(">H", 1) + b"t" + struct.pack(">I", length) + b"x"
        with pytest.raises(ProtocolError):
            walk(Wire(data + bytes(PADDING)), np.array([0]), np.array([len(data)]), 1)


def test_numbers_are_read_at_any_position() -> None:
    wire = Wire(b"\xff" + struct.pack(">HIq", 7, 2**32 - 2, -5) + bytes(PADDING))
    at = np.array([1], np.int64)
    assert wire.u2(at).tolist() == [7]
    assert wire.u4(at + 2).tolist() == [2**32 - 2]
    assert wire.i8(at + 6).tolist() == [-5]


def test_an_unchanged_value_is_taken_from_the_old_row_where_that_has_it() -> None:
    unsent = Toast.UNCHANGED
    wire, starts, ends = laid_out([[unsent], ["new"], [unsent], [unsent], ["old"], ["no"], [None], [unsent]])
    (new,), _ = walk(wire, starts[:4], ends[:4], 1)
    (old,), _ = walk(wire, starts[4:], ends[4:], 1)
    everywhere = np.ones(4, np.bool_)
    found = new.filled(np.arange(4), old, everywhere)
    assert [bytes([kind]) for kind in found.kinds] == [b"t", b"t", b"u", b"u"]
    assert gather(wire, new.filled(np.arange(4), old, ~everywhere)).to_pylist() == [None, b"new", None, None]
    assert wire.bytes[found.starts[0] : found.ends[0]].tobytes() == b"old"
