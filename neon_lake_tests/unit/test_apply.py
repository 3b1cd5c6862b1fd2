"""The law of apply: whatever the changes and wherever the batches are cut, the target becomes what the source is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neon_lake.apply.events import events, key_numbers
from neon_lake.apply.mirror import mirror
from neon_lake.apply.plan import MergePlan
from neon_lake.change import change_schema
from neon_lake.config import Deletes
from neon_lake.schema import Column, Relation, TableName
from neon_lake_tests.fixtures.batches import cut

RELATION = Relation(
    table=TableName("public", "t"),
    columns=(
        Column(name="v", type="integer", arrow=pa.int32()),
        Column(name="a", type="bigint", arrow=pa.int64(), key=True, nullable=False),
        Column(name="doc", type="text", arrow=pa.string()),
        Column(name="b", type="text", arrow=pa.string(), key=True, nullable=False),
        Column(name="more", type="text", arrow=pa.string()),
    ),
)
TOASTED = ("doc", "more")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
Key = tuple[int, str]


@dataclass
class Source:
    """A table that records what pgoutput would send of it."""

    rows: dict[Key, dict[str, Any]] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    def send(self, op: str, row: dict[str, Any], unchanged: list[str] | None = None, old: Key | None = None) -> None:
        number = len(self.log)
        sent = {k: v for k, v in row.items() if k not in (unchanged or ())}
        self.log.append(
            {
                "_op": op,
                "_lsn": 100 + number // 3,
                "_seq": number % 3,
                "_xid": number // 3,
                "_committed_at": BEGIN + timedelta(minutes=number // 3),
                "_unchanged": unchanged or None,
                "_old_key": None if old is None else {"a": old[0], "b": old[1]},
                "_rescued_data": None,
                **sent,
            }
        )

    def do(self, step: tuple[str, Key, Key, int, tuple[bool, bool]]) -> None:
        """Carry out a random step, as far as it is possible."""
        kind, key, other, value, keep = step
        kept = [name for name, same in zip(TOASTED, keep, strict=True) if same]
        if kind == "insert" and key not in self.rows:
            row = {"a": key[0], "b": key[1], "v": value, "doc": f"d{value}", "more": None}
            self.rows[key] = row
            self.send("I", row)
        elif kind == "truncate":
            self.rows.clear()
            self.send("T", {})
        elif key in self.rows and kind == "delete":
            del self.rows[key]
            self.send("D", {"a": key[0], "b": key[1]})
        elif key in self.rows and kind == "update":
            self._change(key, key, value, kept)
        elif key in self.rows and kind == "move" and other not in self.rows:
            self._change(key, other, value, kept)

    def _change(self, key: Key, to: Key, value: int, kept: list[str]) -> None:
        row = self.rows.pop(key)
        row = row | {"a": to[0], "b": to[1], "v": value}
        row |= {name: f"{name}{value}" for name in TOASTED if name not in kept}
        self.rows[to] = row
        self.send("U", row, kept, None if key == to else key)


@dataclass
class Target:
    """A target table that obeys plans, and refuses what would corrupt it."""

    rows: dict[Key, dict[str, Any]] = field(default_factory=dict)

    def lookup(self, keys: pa.Table, columns: Any) -> pa.Table:
        wanted = [(row["a"], row["b"]) for row in keys.to_pylist()]
        found = [{n: self.rows[k][n] for n in ("a", "b", *columns)} for k in wanted if k in self.rows]
        types = {c.name: c.arrow for c in RELATION.columns} | {"_rescued_data": pa.string()}
        return pa.Table.from_pylist(found, pa.schema([(name, types[name]) for name in ("a", "b", *columns)]))

    def obey(self, plan: MergePlan) -> None:
        if plan.truncate:
            self.rows.clear()
        put = {(row["a"], row["b"]): row for row in plan.rows.to_pylist()}
        gone = {(row["a"], row["b"]) for row in plan.deletes.to_pylist()}
        assert len(put) == len(plan.rows)
        assert not put.keys() & gone
        if plan.only_new:
            assert not put.keys() & self.rows.keys(), "an append of a key that is there doubles a row"
        assert plan.incomplete == 0
        for key in gone:
            del self.rows[key]
        self.rows |= put


def changes_of(log: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(log, change_schema(RELATION))


keys = st.tuples(st.integers(0, 3), st.sampled_from(["x", "ü"]))
kinds = st.sampled_from(["insert"] * 4 + ["update"] * 4 + ["move"] * 3 + ["delete"] * 2 + ["truncate"])
steps = st.lists(st.tuples(kinds, keys, keys, st.integers(0, 99), st.tuples(st.booleans(), st.booleans())), max_size=60)


@settings(max_examples=400, deadline=None)
@given(steps=steps, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_any_changes_in_any_batches_give_the_source(steps: list[Any], cuts: list[int]) -> None:
    source, target = Source(), Target()
    for step in steps:
        source.do(step)
    for batch in cut(source.log, cuts):
        target.obey(mirror(RELATION, changes_of(batch), target.lookup, deletes=Deletes.HARD))
    assert {k: {n: r[n] for n in ("a", "b", "v", "doc", "more")} for k, r in target.rows.items()} == source.rows


@settings(max_examples=200, deadline=None)
@given(steps=steps, begin=st.integers(0, 60))
def test_a_replay_mends_every_key_that_it_speaks_of_and_harms_none(steps: list[Any], begin: int) -> None:
    source, target = Source(), Target()
    for step in steps:
        source.do(step)
    if not source.log:
        return
    target.obey(mirror(RELATION, changes_of(source.log), target.lookup, deletes=Deletes.HARD))
    whole = dict(target.rows)
    replayed = source.log[min(begin, len(source.log) - 1) :]
    sent_whole = {(r["a"], r["b"]) for r in replayed if r["_op"] in "IU" and not r["_unchanged"]}
    for key in sent_whole & whole.keys():
        target.rows[key] = target.rows[key] | {"v": -1}
    plan = mirror(RELATION, changes_of(replayed), target.lookup, deletes=Deletes.HARD, fresh=False)
    for key in plan.deletes.to_pylist():
        assert (key["a"], key["b"]) not in whole
    assert not plan.only_new or plan.truncate or not len(plan.rows)
    if plan.truncate:
        target.rows.clear()
    target.rows |= {(row["a"], row["b"]): row for row in plan.rows.to_pylist()}
    assert target.rows == whole


@pytest.mark.parametrize("deletes", Deletes)
def test_a_replay_finds_unsent_values_where_rows_have_moved_to(deletes: Deletes) -> None:
    source, target = Source(), Target()
    for number in (1, 2):
        source.do(("insert", (number, "x"), (0, ""), number, (False, False)))
    swap = [((1, "x"), (3, "x")), ((2, "x"), (1, "x")), ((3, "x"), (2, "x"))]
    for key, to in swap:
        source.do(("move", key, to, 5, (True, True)))
    target.obey(mirror(RELATION, changes_of(source.log), target.lookup, deletes=Deletes.HARD))
    target.rows[3, "x"] = target.rows[2, "x"] | {"a": 3}
    plan = mirror(RELATION, changes_of(source.log[2:]), target.lookup, deletes=deletes, fresh=False)
    found = {row["a"]: row["doc"] for row in plan.rows.to_pylist()}
    assert (found[1], found[2]) == ("d2", "d1")
    assert plan.incomplete == 0


def test_soft_deletes_keep_the_row_and_say_when_it_went() -> None:
    source, target = Source(), Target()
    source.do(("insert", (1, "x"), (1, "x"), 7, (False, False)))
    source.do(("insert", (2, "x"), (2, "x"), 8, (False, False)))
    source.do(("delete", (1, "x"), (1, "x"), 0, (False, False)))
    plan = mirror(RELATION, changes_of(source.log), target.lookup, deletes=Deletes.SOFT)
    rows = {row["a"]: row for row in plan.rows.to_pylist()}
    assert rows[1]["doc"] == "d7"
    assert rows[1]["_deleted_at"] == BEGIN
    assert rows[2]["_deleted_at"] is None
    assert not plan.only_new
    assert not len(plan.deletes)


def test_a_soft_delete_takes_its_values_from_the_target() -> None:
    source = Source()
    source.do(("insert", (1, "x"), (1, "x"), 7, (False, False)))
    row = {"a": 1, "b": "x", "v": 7, "doc": "d7", "more": "m", "_rescued_data": '{"v": "1e"}'}
    target = Target(rows={(1, "x"): row})
    source.do(("delete", (1, "x"), (1, "x"), 0, (False, False)))
    plan = mirror(RELATION, changes_of(source.log[1:]), target.lookup, deletes=Deletes.SOFT)
    (row,) = plan.rows.to_pylist()
    assert (row["v"], row["doc"], row["more"], row["_rescued_data"]) == (7, "d7", "m", '{"v": "1e"}')


def test_an_unchanged_value_that_was_rescued_stays_rescued() -> None:
    source = Source()
    source.do(("insert", (1, "x"), (1, "x"), 7, (False, False)))
    source.log[0] |= {"doc": None, "_rescued_data": '{"doc": "odd", "v": "other"}'}
    source.do(("update", (1, "x"), (1, "x"), 9, (True, False)))
    (row,) = mirror(RELATION, changes_of(source.log), Target().lookup, deletes=Deletes.HARD).rows.to_pylist()
    assert row["_rescued_data"] == '{"doc": "odd"}'
    assert row["doc"] is None


def test_a_row_that_the_target_lacks_is_counted_and_left_out() -> None:
    source = Source(rows={(1, "x"): {"a": 1, "b": "x", "v": 1, "doc": "d", "more": None}})
    source.do(("update", (1, "x"), (1, "x"), 2, (True, False)))
    plan = mirror(RELATION, changes_of(source.log), Target().lookup, deletes=Deletes.HARD)
    assert plan.incomplete == 1
    assert not len(plan.rows)


def test_inserts_alone_are_appended_without_looking() -> None:
    source = Source()
    for n in range(4):
        source.do(("insert", (n, "x"), (n, "x"), n, (False, False)))
    source.do(("update", (1, "x"), (1, "x"), 50, (True, True)))
    plan = mirror(RELATION, changes_of(source.log), Target().lookup, deletes=Deletes.HARD)
    assert plan.only_new
    assert len(plan.rows) == 4


@pytest.mark.parametrize(
    ("left", "right"),
    [([1, 2, 1], ["a", "a", "b"]), ([None, 1, None], ["a", "a", "a"]), ([1, 1, 1], [None, "", None])],
)
def test_equal_keys_and_only_they_have_equal_numbers(left: list[Any], right: list[Any]) -> None:
    columns = [pa.chunked_array([pa.array(left, pa.int64())]), pa.chunked_array([pa.array(right, pa.string())])]
    numbers = key_numbers(columns).tolist()
    pairs = list(zip(left, right, strict=True))
    for i, a in enumerate(pairs):
        for j, b in enumerate(pairs):
            assert (numbers[i] == numbers[j]) == (a == b)


def test_a_moved_row_goes_on_from_its_old_key() -> None:
    source = Source()
    source.do(("insert", (1, "x"), (1, "x"), 7, (False, False)))
    source.do(("move", (1, "x"), (2, "x"), 8, (True, True)))
    found = events(RELATION, changes_of(source.log))
    assert found.previous.tolist() == [-1, 0, 0]
    assert found.ends.tolist() == [False, True, False]
    assert found.begins.tolist() == [True, False, True]
