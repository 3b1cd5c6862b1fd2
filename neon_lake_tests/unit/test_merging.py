"""Which keys a MERGE says that it is about."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from neon_lake.destinations.delta.merging import ranges

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(INT64, min_size=1), st.integers(1, 20))
def test_every_key_lies_in_a_range_that_begins_and_ends_with_a_key(keys: list[int], most: int) -> None:
    found = ranges(np.array(keys, dtype=np.int64), most)
    assert len(found) == min(most, len(set(keys)))
    assert all(any(first <= key <= last for first, last in found) for key in keys)
    assert {end for bounds in found for end in bounds} <= set(keys)
    assert sorted(found) == found
    assert all(last < first for (_, last), (first, _) in pairwise(found))


@given(st.sets(INT64, min_size=2), st.integers(2, 20))
def test_no_gap_within_a_range_is_wider_than_one_between_two(keys: set[int], most: int) -> None:
    found = ranges(np.array(sorted(keys), dtype=np.int64), most)
    between = [first - last for (_, last), (first, _) in pairwise(found)]
    ordered = sorted(keys)
    gaps = sorted(b - a for a, b in pairwise(ordered))
    assert sorted(between) == gaps[len(gaps) - len(between) :]


def test_an_old_row_and_new_ones_are_two_ranges() -> None:
    assert ranges(np.array([1000, 3, 1001, 1002], dtype=np.int32), 2) == [(3, 3), (1000, 1002)]
