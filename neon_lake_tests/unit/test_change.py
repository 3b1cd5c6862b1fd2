from __future__ import annotations

import io
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neon_lake.change import Lsn, Transactions, XidSnapshot, change_schema
from neon_lake.schema import Column, Relation, TableName

lsns = st.integers(0, 2**64 - 1).map(Lsn)


@given(lsns)
def test_an_lsn_reads_what_it_writes(lsn: Lsn) -> None:
    assert Lsn.parse(str(lsn)) == lsn
    assert Lsn.from_hex(lsn.hex) == lsn


@given(lsns, lsns)
def test_names_made_of_lsns_sort_by_position(a: Lsn, b: Lsn) -> None:
    assert (a < b) == (a.hex < b.hex)


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "0/g", "123456789/0", "0/123456789", "-1/0"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an LSN"):
        Lsn.parse(text)


def test_an_lsn_shows_as_postgres_shows_it() -> None:
    assert f"{Lsn(0x16B374D848)}" == str(Lsn(0x16B374D848)) == "16/B374D848"


def test_a_snapshot_sees_what_committed_before_it() -> None:
    snapshot = XidSnapshot.parse("100:105:101,103")
    xids = np.array([99, 100, 101, 102, 103, 104, 105, 106], np.int64)
    assert snapshot.sees(xids).tolist() == [True, True, False, True, False, True, False, False]


def test_a_snapshot_reads_short_xids_across_the_wrap() -> None:
    snapshot = XidSnapshot(xmin=2**32 + 1, xmax=2**32 + 5, xip=(2**32 + 3,))
    xids = np.array([2**32 - 1, 1, 3, 4, 5], np.int64)
    assert snapshot.sees(xids).tolist() == [True, True, False, True, False]


def _transactions(at: int, xid: int) -> Transactions:
    time = datetime.fromtimestamp(at, UTC)
    return Transactions(count=1, first_commit_at=time, last_commit_at=time, max_xid=xid)


@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 2**30)), min_size=1))
def test_summaries_add_up(parts: list[tuple[int, int]]) -> None:
    total = sum((_transactions(at, xid) for at, xid in parts), Transactions())
    assert total.count == len(parts)
    assert total.first_commit_at == datetime.fromtimestamp(parts[0][0], UTC)
    assert total.last_commit_at == datetime.fromtimestamp(parts[-1][0], UTC)
    assert total.max_xid == max(xid for _, xid in parts)


def test_the_highest_xid_of_a_sum_is_found_across_the_wrap() -> None:
    assert (_transactions(0, 2**32 - 1) + _transactions(1, 4)).max_xid == 4
    assert (_transactions(0, 4) + _transactions(1, 2**32 - 1)).max_xid == 4


def test_the_change_schema_has_the_key_before_an_update_and_every_column() -> None:
    relation = Relation(
        table=TableName("public", "t"),
        columns=(
            Column(name="id", type="integer", arrow=pa.int32(), key=True),
            Column(name="v", type="text", arrow=pa.string()),
        ),
    )
    schema = change_schema(relation)
    assert schema.field("_old_key").type == pa.struct([pa.field("id", pa.int32())])
    assert schema.names[-2:] == ["id", "v"]


def test_changes_of_a_table_without_key_can_be_stored() -> None:
    column = Column(name="v", type="text", arrow=pa.string())
    schema = change_schema(Relation(table=TableName("public", "t"), columns=(column,)))
    stored = io.BytesIO()
    pq.write_table(schema.empty_table(), stored)
    assert pq.read_table(stored).schema.equals(schema)
