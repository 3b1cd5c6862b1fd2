"""Fingerprints: equal rows have equal ones, however they are chunked, and others do not."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neon_lake import fingerprint
from neon_lake.fingerprint import BucketSums, column_hashes, hashes, row_ids

PAIRS = st.tuples(st.text("ab", max_size=2), st.none() | st.text("ab", max_size=2))
KINDS: list[tuple[pa.DataType, Any]] = [
    (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.text(max_size=8)),
    (pa.binary(), st.binary(max_size=8)),
    (pa.date32(), st.dates()),
    (pa.timestamp("us", tz="UTC"), st.datetimes(timezones=st.just(UTC))),
    (pa.decimal128(20, 3), st.decimals(min_value=-(10**12), max_value=10**12, places=3)),
    (pa.list_(pa.string()), st.lists(st.none() | st.text(max_size=3), max_size=3)),
    (pa.map_(pa.string(), pa.string()), st.lists(PAIRS, max_size=3, unique_by=lambda pair: pair[0])),
]


@pytest.mark.parametrize(("kind", "values"), KINDS, ids=lambda k: str(k) if isinstance(k, pa.DataType) else "")
def test_values_are_equal_when_and_only_when_their_hashes_are(kind: pa.DataType, values: Any) -> None:
    @given(st.lists(st.none() | values, min_size=1, max_size=20), st.integers(0, 20))
    def law(column: list[Any], cut: int) -> None:
        array = pa.array(column, kind)
        found = column_hashes(array)
        bits = [str(v) if kind in (pa.float64(), pa.float32()) else v for v in array.to_pylist()]
        for i, a in enumerate(bits):
            for j, b in enumerate(bits):
                assert (found[i] == found[j]) == (a == b)
        assert np.array_equal(column_hashes(array.slice(cut)), found[cut:])

    law()


def test_not_a_number_is_equal_to_itself() -> None:
    negative = np.frombuffer(b"\xff\xf8" + bytes(6), ">f8")[0]
    for kind in (pa.float64(), pa.float32()):
        found = column_hashes(pa.array([float("nan"), negative, 0.0, -0.0], kind))
        assert found[0] == found[1]
        assert found[2] != found[3]


@pytest.mark.parametrize(("kind", "values"), KINDS, ids=lambda k: str(k) if isinstance(k, pa.DataType) else "")
def test_rows_share_an_id_when_and_only_when_they_are_the_same(kind: pa.DataType, values: Any) -> None:
    @given(st.lists(st.tuples(st.none() | values, st.integers(0, 2)), min_size=1, max_size=20), st.integers(0, 20))
    def law(rows: list[Any], cut: int) -> None:
        table = pa.table({"a": pa.array([a for a, _ in rows], kind), "b": pa.array([b for _, b in rows])})
        found = row_ids(table, ["a", "b"]).to_pylist()
        bits = [str(row) for row in table.to_pylist()]
        assert [[x == y for y in bits] for x in bits] == [[x == y for y in found] for x in found]
        assert row_ids(table.slice(cut), ["b", "a"]).to_pylist() == found[cut:]
        wider = table.append_column("later", pa.nulls(len(table), kind))
        assert row_ids(wider, wider.column_names).to_pylist() == found

    law()


def test_a_value_in_another_column_is_another_row() -> None:
    rows = pa.table({"a": pa.array([1, None]), "b": pa.array([None, 1])})
    one, two = row_ids(rows, ["a", "b"]).to_pylist()
    assert one != two
    assert len(one) == 16
    assert one[:8] != one[8:]


def test_the_order_of_columns_matters() -> None:
    one, two = pa.array([1, 2]), pa.array([2, 1])
    assert hashes([one, two])[0] != hashes([two, one])[0]
    assert hashes([one, two])[0] == hashes([two, one])[1]


def test_sums_differ_in_the_bucket_of_the_row_that_differs() -> None:
    keys = pa.array(range(10_000))
    values = [Decimal(n) for n in range(10_000)]
    left, right = BucketSums(), BucketSums()
    for side, change in ((left, None), (right, 77)):
        column = pa.array([v if n != change else v + 1 for n, v in enumerate(values)], pa.decimal128(12, 2))
        for begin in range(0, 10_000, 999 if change else 1234):
            part = [keys.slice(begin, 999 if change else 1234), column.slice(begin, 999 if change else 1234)]
            side.add(hashes(part[:1]), hashes(part))
    (bucket,) = left.differing(right).tolist()
    assert bucket == int(hashes([pa.array([77])])[0] % np.uint64(4096))
    assert left.rows.sum() == right.rows.sum() == 10_000


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 100])
def test_long_values_are_hashed_piece_by_piece_to_the_same(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    column = pa.array([b"", b"abcdefgh" * 3, None, b"ab", b"b", b"abcdefghi", b""])
    whole = column_hashes(column)
    monkeypatch.setattr(fingerprint, "_PIECE", piece)
    assert column_hashes(column).tolist() == whole.tolist()
    assert column_hashes(column[2:]).tolist() == whole[2:].tolist()
