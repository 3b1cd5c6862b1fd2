"""What every lake that this process writes keeps to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import cast

import pyarrow as pa
import pytest

from neon_lake.apply.plan import MergePlan, Truncation, target_schema
from neon_lake.change import DELETED_AT, Lsn
from neon_lake.config import Deletes
from neon_lake.destinations.base import Lake, Target
from neon_lake.destinations.delta import DeltaDestination, object_creation, upkeep
from neon_lake.errors import DestinationConflict
from neon_lake.objects import Options
from neon_lake.schema import Column, Relation, TableName
from neon_lake_tests.fixtures.object_stores import LOST, Bucket

TABLE = TableName("Shop", 'odd "name"')
KEY = 'Id "`.'
RELATION = Relation(
    table=TABLE,
    columns=(
        Column(name=KEY, type="bigint", arrow=pa.int64(), key=True, nullable=False),
        Column(name="when", type="timestamp with time zone", arrow=pa.timestamp("us", tz="UTC")),
        Column(name="Großes", type="numeric(12,2)", arrow=pa.decimal128(12, 2)),
        Column(name="a.b", type="text[]", arrow=pa.list_(pa.string())),
        Column(name="raw", type="bytea", arrow=pa.binary()),
    ),
)
MOMENT = datetime(2026, 1, 2, 3, tzinfo=UTC)


def rows(*ids: int, soft: bool = False, lsn: int = 5, relation: Relation = RELATION) -> pa.Table:
    schema = target_schema(relation, Deletes.SOFT if soft else Deletes.HARD)
    data = [
        {KEY: i, "when": MOMENT, "Großes": None, "a.b": ["x", None], "raw": b"\0", "_lsn": lsn, "_committed_at": MOMENT}
        for i in ids
    ]
    return pa.Table.from_pylist(data, schema)


def plan(put: pa.Table, *gone: int, only_new: bool = False, truncate: Truncation | None = None) -> MergePlan:
    deletes = pa.table({KEY: pa.array(gone, pa.int64())})
    return MergePlan(rows=put, deletes=deletes, only_new=only_new, truncate=truncate)


@pytest.fixture
def local(tmp_path: Path) -> DeltaDestination:
    return DeltaDestination(tmp_path / "lake", pipeline="shop")


@pytest.fixture
def remote(bucket: Bucket) -> DeltaDestination:
    return DeltaDestination(f"{bucket.url}/lab/lake", pipeline="shop", options=bucket.store.options)


@pytest.fixture(params=["local", "remote"])
def destination(request: pytest.FixtureRequest) -> Lake:
    return cast(Lake, request.getfixturevalue(request.param))


def made(destination: Lake, *ids: int, soft: bool = False, watermark: int = 10) -> Target:
    first = rows(*ids, soft=soft)
    return destination.replace(TABLE, None, first.schema, iter(first.to_batches()), Lsn(watermark))


def ids(destination: Lake, target: Target) -> list[int]:
    return sorted(i for batch in destination.read(target, [KEY]) for i in batch[KEY].to_pylist())


def test_a_table_that_is_not_there_has_no_target(destination: Lake) -> None:
    assert destination.target(TABLE) is None


def test_what_is_put_is_read_back_with_its_types_and_its_watermark(destination: Lake) -> None:
    made(destination, 1, 2)
    target = destination.target(TABLE)
    assert target is not None
    assert target.watermark == Lsn(10)
    assert target.key == (KEY,)
    assert target.schema.equals(rows().schema, check_metadata=False)
    assert [f.metadata for f in target.schema] == [f.metadata for f in rows().schema]
    batches = list(destination.read(target, [c.name for c in RELATION.columns]))
    assert pa.Table.from_batches(batches).sort_by(KEY).to_pylist() == [
        {k: v for k, v in row.items() if not k.startswith("_")} for row in rows(1, 2).to_pylist()
    ]


def test_a_merge_puts_and_removes_in_one_commit(destination: Lake) -> None:
    old = made(destination, 1, 2, 3)
    new = destination.merge(old, rows().schema, plan(rows(2, 4, lsn=9), 1), Lsn(20))
    assert new.version == old.version + 1
    assert new.watermark == Lsn(20)
    assert ids(destination, new) == [2, 3, 4]
    assert destination.count(new) == 3
    lsns = {k: v for b in destination.read(new, [KEY, "_lsn"]) for k, v in zip(*b.to_pydict().values(), strict=True)}
    assert lsns == {2: 9, 3: 5, 4: 9}


def test_new_rows_are_appended(destination: Lake) -> None:
    old = made(destination, 1)
    new = destination.merge(old, rows().schema, plan(rows(2), only_new=True), Lsn(20))
    assert ids(destination, new) == [1, 2]


def test_an_empty_plan_and_one_that_finds_nothing_still_move_the_watermark(destination: Lake) -> None:
    old = made(destination, 1)
    moved = destination.merge(old, rows().schema, plan(rows()), Lsn(20))
    assert moved.watermark == Lsn(20)
    again = destination.merge(moved, rows().schema, plan(rows(), 77), Lsn(30))
    assert again.watermark == Lsn(30)
    assert ids(destination, again) == [1]


def test_a_commit_can_stand_inside_of_a_transaction(destination: Lake) -> None:
    old = made(destination, 1)
    inside = destination.merge(old, rows().schema, plan(rows(2), only_new=True), Lsn(15), 4)
    assert (inside.watermark, inside.within) == (Lsn(15), 4)
    assert destination.target(TABLE) == inside
    further = destination.merge(inside, rows().schema, plan(rows(3), only_new=True), Lsn(15), 9)
    assert further.within == 9
    with pytest.raises(DestinationConflict):
        destination.merge(inside, rows().schema, plan(rows(3), only_new=True), Lsn(15), 9)
    done = destination.merge(further, rows().schema, plan(rows(4)), Lsn(20))
    assert (done.watermark, done.within) == (Lsn(20), 0)
    assert ids(destination, done) == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.list_(pa.timestamp("us")), pa.timestamp("us", tz="UTC")])
@pytest.mark.parametrize("only_new", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_a_column_of_any_type_is_added(destination: Lake, kind: pa.DataType, only_new: bool, soft: bool) -> None:
    old = made(destination, 1, soft=soft)
    added = Column(name="later", type="timestamp", arrow=kind)
    wider = Relation(table=TABLE, columns=(*RELATION.columns, added))
    put = rows(2, relation=wider, soft=soft)
    new = destination.merge(old, put.schema, plan(put, only_new=only_new), Lsn(20))
    assert destination.target(TABLE) == new
    assert new.schema.field("later").type == kind
    found = pa.Table.from_batches(destination.read(new, ["later"]))
    assert found["later"].to_pylist() == [None, None]


def test_of_two_that_make_a_table_one_is_refused(destination: Lake) -> None:
    first = rows(1, 2)

    def overtaken() -> Iterator[pa.RecordBatch]:
        yield from first.to_batches()
        # a thread of its own: delta-rs waits for this one
        other = Thread(target=made, args=(destination, 7))
        other.start()
        other.join()

    with pytest.raises(DestinationConflict):
        destination.replace(TABLE, None, first.schema, overtaken(), Lsn(10))
    target = destination.target(TABLE)
    assert target is not None
    assert ids(destination, target) == [7]


def test_what_is_left_of_a_table_that_was_never_made_is_removed(local: DeltaDestination, tmp_path: Path) -> None:
    target = made(local, 1)
    left, recent = (tmp_path / "lake" / "Shop" / f".unfinished-{name}" / "table" for name in ("old", "new"))
    for folder in (left, recent):
        folder.mkdir(parents=True)
        (folder / "part.parquet").write_bytes(b"")
    os.utime(left.parent, (0, 0))
    assert local.remove_old_files(target) == 1
    assert not left.parent.exists()
    assert recent.exists()


def unfinished(bucket: Bucket, *, made_first: bool) -> list[str]:
    """Make a table in a bucket, and leave what a run leaves that dies before it is made, or before it cleans up."""
    folder = "lab/lake/Shop"
    for path in bucket.paths(f"{folder}/odd"):
        bucket.put(path.replace("Shop/", "Shop/.unfinished-dead/"), bucket.read(path))
        if path.endswith(".json") and not made_first:
            bucket.store.client().delete_object(Bucket=bucket.name, Key=path)
    return bucket.paths(f"{folder}/.unfinished-")


@pytest.mark.parametrize("made_first", [False, True])
def test_what_is_left_of_a_table_in_an_object_store_is_removed(
    remote: DeltaDestination, bucket: Bucket, made_first: bool
) -> None:
    store = Options(f"{bucket.url}/lab/lake", bucket.store.options).store
    made(remote, 1)
    assert len(unfinished(bucket, made_first=made_first)) == 2
    assert object_creation.sweep(store, "Shop", datetime.now(UTC) - timedelta(hours=1)) == 0
    assert object_creation.sweep(store, "Shop", datetime.now(UTC) + timedelta(hours=1)) == 2 + (not made_first)
    assert len(bucket.paths()) == (2 if made_first else 0)
    target = remote.target(TABLE)
    assert (ids(remote, target) if target else None) == ([1] if made_first else None)


def test_another_ones_table_stays_when_what_is_left_beside_it_is_removed(
    remote: DeltaDestination, bucket: Bucket
) -> None:
    store = Options(f"{bucket.url}/lab/lake", bucket.store.options).store
    made(remote, 1)
    unfinished(bucket, made_first=False)
    target = made(remote, 7)
    assert object_creation.sweep(store, "Shop", datetime.now(UTC) + timedelta(hours=1)) == 3
    assert len(bucket.paths()) == 2
    assert ids(remote, target) == [7]


def test_a_table_whose_maker_got_no_answer_is_made(remote: DeltaDestination, bucket: Bucket) -> None:
    first = rows(1, 2)

    def unheard() -> Iterator[pa.RecordBatch]:
        yield from first.to_batches()
        # delta-rs' two puts aside, of which the second is the first one again, and then ours
        bucket.put(LOST, b"3")

    target = remote.replace(TABLE, None, first.schema, unheard(), Lsn(10))
    assert ids(remote, target) == [1, 2]
    assert not [path for path in bucket.paths() if ".unfinished-" in path]


def test_a_commit_whose_answer_is_lost_is_made_once(remote: DeltaDestination, bucket: Bucket) -> None:
    old = made(remote, 1)
    bucket.put(LOST, b"1")
    with pytest.raises(DestinationConflict):
        remote.merge(old, rows().schema, plan(rows(2), only_new=True), Lsn(20))
    target = remote.target(TABLE)
    assert target is not None
    assert target.watermark == Lsn(20)
    assert ids(remote, target) == [1, 2]


def test_the_loser_of_two_that_make_a_table_leaves_nothing(remote: DeltaDestination, bucket: Bucket) -> None:
    test_of_two_that_make_a_table_one_is_refused(remote)
    assert len(bucket.paths()) == 2


def test_a_replaced_table_stands_inside_of_nothing(destination: Lake) -> None:
    inside = destination.merge(made(destination, 1), rows().schema, plan(rows(2), only_new=True), Lsn(15), 4)
    new = destination.replace(TABLE, inside, rows().schema, iter(rows(7).to_batches()), Lsn(12))
    assert (new.watermark, new.within) == (Lsn(12), 0)


def test_a_truncation_leaves_only_what_the_plan_puts(destination: Lake) -> None:
    old = made(destination, 1, 2)
    cut = Truncation(lsn=Lsn(15), committed_at=MOMENT)
    new = destination.merge(old, rows().schema, plan(rows(7), only_new=True, truncate=cut), Lsn(20))
    assert ids(destination, new) == [7]
    empty = destination.merge(new, rows().schema, plan(rows(), only_new=True, truncate=cut), Lsn(21))
    assert destination.count(empty) == 0
    assert empty.watermark == Lsn(21)


def test_a_soft_truncation_marks_what_was_there(destination: Lake) -> None:
    old = made(destination, 1, 2, soft=True)
    cut = Truncation(lsn=Lsn(15), committed_at=MOMENT)
    schema = rows(soft=True).schema
    new = destination.merge(old, schema, plan(rows(2, soft=True), truncate=cut), Lsn(20))
    assert ids(destination, new) == [2]
    assert destination.count(new) == 1
    found = destination.lookup(new, pa.table({KEY: [1, 2]}), [DELETED_AT, "_lsn"]).sort_by(KEY).to_pylist()
    assert [(row[DELETED_AT], row["_lsn"]) for row in found] == [(MOMENT, 15), (None, 5)]


def test_columns_are_added(destination: Lake) -> None:
    old = made(destination, 1, 2)
    wider = Relation(table=TABLE, columns=(*RELATION.columns, Column(name="New one", type="integer", arrow=pa.int32())))
    put = (
        rows(2, relation=wider)
        .set_column(5, "New one", pa.array([3], pa.int32()))
        .cast(target_schema(wider, Deletes.HARD))
    )
    new = destination.merge(old, put.schema, plan(put), Lsn(20))
    assert dict(
        zip(*pa.Table.from_batches(destination.read(new, [KEY, "New one"])).to_pydict().values(), strict=True)
    ) == {1: None, 2: 3}
    assert new.schema.field("New one").metadata == put.schema.field("New one").metadata


@pytest.mark.parametrize("only_new", [True, False])
def test_of_two_writers_of_one_watermark_one_is_refused(destination: Lake, only_new: bool) -> None:
    old = made(destination, 1)
    destination.merge(old, rows().schema, plan(rows(2), only_new=True), Lsn(20))
    with pytest.raises(DestinationConflict):
        destination.merge(old, rows().schema, plan(rows(2), only_new=only_new), Lsn(20))
    current = destination.target(TABLE)
    assert current is not None
    assert ids(destination, current) == [1, 2]


def test_a_watermark_does_not_go_back(destination: Lake) -> None:
    old = made(destination, 1)
    with pytest.raises(DestinationConflict):
        destination.merge(old, rows().schema, plan(rows(2), only_new=True), Lsn(9))


def test_replacing_swaps_content_and_schema(destination: Lake) -> None:
    old = made(destination, 1, 2)
    other = Relation(table=TABLE, columns=(Column(name=KEY, type="text", arrow=pa.string(), key=True),))
    schema = target_schema(other, Deletes.HARD)
    put = pa.Table.from_pylist([{KEY: "k", "_lsn": 1, "_committed_at": MOMENT}], schema)
    new = destination.replace(TABLE, old, schema, iter(put.to_batches()), Lsn(30))
    assert new.schema.names == schema.names
    assert pa.Table.from_batches(destination.read(new, [KEY]))[KEY].to_pylist() == ["k"]
    assert new.watermark == Lsn(30)


def test_lookup_gives_the_rows_that_are_there(destination: Lake) -> None:
    target = made(destination, *range(100))
    found = destination.lookup(target, pa.table({KEY: [5, 500, 7]}), ["a.b", "raw"])
    assert sorted(found[KEY].to_pylist()) == [5, 7]
    assert found["a.b"].to_pylist() == [["x", None]] * 2


@pytest.mark.parametrize(("kind", "keys"), [(pa.string(), ["a", "b", "c"]), (pa.binary(), [b"\0", b"b", b"\xff"])])
def test_lookup_finds_keys_of_text_and_bytes_in_what_a_merge_wrote(
    destination: Lake, kind: pa.DataType, keys: list[str | bytes]
) -> None:
    key = Column(name="k", type="text", arrow=kind, key=True, nullable=False)
    relation = Relation(table=TABLE, columns=(key, Column(name="body", type="text", arrow=pa.string())))
    schema = target_schema(relation, Deletes.HARD)
    first = pa.Table.from_pylist([{"k": k, "body": "old", "_lsn": 1, "_committed_at": MOMENT} for k in keys], schema)
    old = destination.replace(TABLE, None, schema, iter(first.to_batches()), Lsn(10))
    put = pa.Table.from_pylist([{"k": keys[1], "body": "new", "_lsn": 15, "_committed_at": MOMENT}], schema)
    change = MergePlan(rows=put, deletes=put.select(["k"]).slice(0, 0), only_new=False)
    target = destination.merge(old, schema, change, Lsn(20))
    for wanted in ([keys[1]], keys[1:], keys[:1]):
        found = destination.lookup(target, pa.table({"k": pa.array(wanted, kind)}), ["body"])
        expected = {k: "new" if k == keys[1] else "old" for k in wanted}
        assert dict(zip(found["k"].to_pylist(), found["body"].to_pylist(), strict=True)) == expected


def test_a_destination_that_can_be_written_has_no_problem(destination: Lake) -> None:
    assert destination.check().problem is None


@pytest.mark.parametrize(("kind", "every"), [("local", upkeep.EVERY), ("remote", 10)])
def test_small_files_are_joined_and_nothing_else_changes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str, every: int
) -> None:
    destination: DeltaDestination = request.getfixturevalue(kind)
    # each commit over the network takes a while
    monkeypatch.setattr(upkeep, "EVERY", every)
    target = made(destination, 0)
    for n in range(1, every + 1):
        target = destination.merge(target, rows().schema, plan(rows(n), only_new=True), Lsn(10 + n))
    assert len(destination._place.open(TABLE).file_uris()) == 1
    assert target == destination.target(TABLE)
    assert target.watermark == Lsn(10 + every)
    assert target.key == (KEY,)
    assert ids(destination, target) == list(range(every + 1))
    assert destination.remove_old_files(target) == 0
    after = destination.merge(target, rows().schema, plan(rows(500), 3), Lsn(200))
    assert destination.count(after) == every + 1
