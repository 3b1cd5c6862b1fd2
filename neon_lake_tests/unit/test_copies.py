"""The law of tables without a key: whatever the changes, the target has each row as often as the source."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from neon_lake.apply.copies import copies
from neon_lake.apply.plan import MergePlan
from neon_lake.change import ROW_ID, change_schema
from neon_lake.schema import Column, Relation, ReplicaIdentity, TableName
from neon_lake_tests.fixtures.batches import cut

RELATION = Relation(
    table=TableName("public", "t"),
    columns=(
        Column(name="a", type="integer", arrow=pa.int32()),
        Column(name="tags", type="text[]", arrow=pa.list_(pa.string())),
        Column(name="x", type="double precision", arrow=pa.float64()),
    ),
    identity=ReplicaIdentity.FULL,
)
Row = tuple[int | None, tuple[str, ...] | None, float | None, str | None]
"""The columns, and what of them was rescued."""


class Source:
    """A table without a key that records what is sent of it."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.log: list[dict[str, Any]] = []

    def do(self, step: tuple[str, Row, int]) -> None:
        kind, row, which = step
        if kind == "insert":
            self.rows.append(row)
            self._send("I", row)
        elif kind == "truncate":
            self.rows.clear()
            self._send("T", (None, None, None, None))
        elif self.rows:
            old = self.rows.pop(which % len(self.rows))
            if kind == "delete":
                self._send("D", old)
            else:
                self.rows.append(row)
                self._send("U", row, old if repr(old) != repr(row) else None)

    def _send(self, op: str, row: Row, old: Row | None = None) -> None:
        number = len(self.log)
        head = {"_op": op, "_lsn": number, "_seq": 0, "_xid": number, "_committed_at": datetime(2026, 1, 1, tzinfo=UTC)}
        self.log.append(head | fields(row) | {"_unchanged": None, "_old_key": fields(old) if old else None})


def fields(row: Row) -> dict[str, Any]:
    return dict(zip(("a", "tags", "x", "_rescued_data"), row, strict=True))


class Target:
    """Rows by their id; obeys plans."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def held(self, ids: pa.Table) -> pa.Table:
        wanted = set(ids[ROW_ID].to_pylist())
        return pa.table({ROW_ID: pa.array([r[ROW_ID] for r in self.rows if r[ROW_ID] in wanted], pa.binary())})

    def obey(self, plan: MergePlan) -> None:
        assert plan.incomplete == 0
        if plan.truncate:
            self.rows.clear()
        gone = plan.deletes[ROW_ID].to_pylist()
        assert len(gone) == len(set(gone))
        present = {row[ROW_ID] for row in self.rows}
        assert present.issuperset(gone)
        assert not (gone and plan.only_new)
        self.rows = [row for row in self.rows if row[ROW_ID] not in gone] + plan.rows.to_pylist()


some = st.tuples(
    st.none() | st.integers(0, 1),
    st.none() | st.sampled_from([(), ("x",)]),
    st.none() | st.sampled_from([0.0, -0.0, float("nan")]),
    st.none() | st.just('{"x": "odd"}'),
)
kinds = st.sampled_from(["insert"] * 4 + ["update"] * 4 + ["delete"] * 3 + ["truncate"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(kinds, some, st.integers(0, 9)), max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_any_changes_in_any_batches_give_as_many_copies(steps: list[Any], cuts: list[int]) -> None:
    source, target = Source(), Target()
    for step in steps:
        source.do(step)
    for batch in cut(source.log, cuts):
        target.obey(copies(RELATION, pa.Table.from_pylist(batch, change_schema(RELATION)), target.held))
    names = ("a", "tags", "x", "_rescued_data")
    found = Counter(str([row[name] for name in names]) for row in target.rows)
    assert found == Counter(str([list(v) if isinstance(v, tuple) else v for v in row]) for row in source.rows)


def test_a_row_that_the_target_lacks_is_told() -> None:
    source = Source()
    source.do(("insert", (1, None, None, None), 0))
    source.do(("delete", (1, None, None, None), 0))
    changes = pa.Table.from_pylist(source.log[1:], change_schema(RELATION))
    assert copies(RELATION, changes, Target().held).incomplete == 1
