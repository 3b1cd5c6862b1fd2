"""The change log: an unbroken chain of sealed manifests, and segments that are what they were."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neon_lake.change import ChangeBatch, Lsn, Transactions, change_schema
from neon_lake.errors import LogConflict, LogDamaged, StagingForeign
from neon_lake.lifecycle import Mark, State
from neon_lake.schema import Column, Relation, TableName
from neon_lake.staging.local import LocalStorage
from neon_lake.staging.log import ChangeLog
from neon_lake.staging.manifest import Manifest, Owner, SnapshotManifest
from neon_lake.staging.retention import ORPHAN_AGE, expired
from neon_lake.staging.seal import opened, sealed
from neon_lake.staging.segment import Counts, Segment
from neon_lake.staging.storage import Entry

OWNER = Owner(pipeline="shop", system_identifier="71", database="app")
RELATION = Relation(
    table=TableName("public", "orders"),
    columns=(
        Column(name="id", type="bigint", arrow=pa.int64(), key=True, nullable=False),
        Column(name="tags", type="text[]", arrow=pa.list_(pa.string())),
        Column(name="paid", type="numeric(12,2)", arrow=pa.decimal128(12, 2), has_default=True),
    ),
)
OTHER = replace(RELATION, table=TableName("public", "events"))
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def batch(*ops: str, relation: Relation = RELATION, lsn: int = 0) -> ChangeBatch:
    data = [
        {"_op": op, "_lsn": lsn + n, "_seq": 0, "_xid": 7, "_committed_at": NOW, "id": n, "tags": ["é", None]}
        for n, op in enumerate(ops)
    ]
    rows = pa.RecordBatch.from_pylist(data, change_schema(relation))
    return ChangeBatch(relation=relation, rows=rows)


@pytest.fixture
def log(tmp_path: Path) -> ChangeLog:
    return ChangeLog(LocalStorage(tmp_path), memory=64 << 20)


def extend(log: ChangeLog, start: int, end: int, *batches: ChangeBatch) -> Manifest:
    with log.batch(Lsn(start)) as writer:
        for item in batches:
            writer.write_changes(item)
        written = writer.finish()
        return log.publish(
            OWNER,
            start=Lsn(start),
            end=Lsn(end),
            transactions=Transactions(count=1),
            written=written,
            partitions=((OTHER.table, 16384),),
        )


def test_a_new_log_has_no_head(log: ChangeLog) -> None:
    assert log.head() is None
    assert log.since(Lsn(0)) == ()


def test_what_is_published_is_read_back(log: ChangeLog) -> None:
    extend(log, 0, 10)
    published = extend(log, 10, 30, batch("I", "U"), batch("D", relation=OTHER), batch("D", "T", lsn=5))
    fresh = ChangeLog(log.storage, memory=1 << 20)
    head = fresh.head()
    assert head == published
    assert head.counts(RELATION.table) == Counts(inserts=1, updates=1, deletes=1, truncates=1)
    (segment,) = head.of(OTHER.table)
    assert fresh.read(segment)["_op"].to_pylist() == ["D"]
    rows = [op for s in head.of(RELATION.table) for op in fresh.read(s)["_op"].to_pylist()]
    assert rows == ["I", "U", "D", "T"]
    assert fresh.read(head.of(RELATION.table)[0]).schema.equals(change_schema(RELATION))


def test_a_manifest_without_partitions_is_read(log: ChangeLog) -> None:
    body = opened(extend(log, 0, 10).to_bytes(), what="manifest", remedy="")
    del body["partitions"]
    older = Manifest.from_bytes(sealed(body), "an older manifest")
    assert older.partitions == ()
    assert older.end == Lsn(10)


def test_since_gives_the_manifests_that_reach_past_a_position(log: ChangeLog) -> None:
    for start, end in ((0, 10), (10, 20), (20, 30)):
        extend(log, start, end)
    assert [m.start for m in log.since(Lsn(0))] == [0, 10, 20]
    assert [m.start for m in log.since(Lsn(15))] == [10, 20]
    assert [m.start for m in log.since(Lsn(20))] == [20]
    assert [m.start for m in log.since(Lsn(30))] == []


class Listings(LocalStorage):
    """Counts how often the manifests are listed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.count = 0

    def names(self, folder: str) -> list[str]:
        self.count += folder == "manifests"
        return super().names(folder)


def test_the_manifests_are_listed_once_and_then_followed(log: ChangeLog, tmp_path: Path) -> None:
    extend(log, 0, 10)
    extend(log, 10, 20)
    storage = Listings(tmp_path)
    reader = ChangeLog(storage, memory=1)
    for start in range(20, 100, 10):
        head = reader.head()
        assert head is not None
        assert head.end == start
        assert reader.since(Lsn(start)) == ()
        extend(log, start, start + 10)
        assert [m.start for m in reader.since(Lsn(start))] == [start]
    assert [m.start for m in reader.since(Lsn(0))] == list(range(0, 100, 10))
    assert storage.count == 1


def test_a_head_far_ahead_and_a_position_far_behind_are_found_by_listing(log: ChangeLog, tmp_path: Path) -> None:
    extend(log, 0, 10)
    storage = Listings(tmp_path)
    reader = ChangeLog(storage, memory=1)
    assert reader.head() == log.head()
    for start in range(10, 1000, 10):
        extend(log, start, start + 10)
    assert reader.head() == log.head()
    assert storage.count == 2
    assert [m.start for m in reader.since(Lsn(0))] == list(range(0, 1000, 10))
    assert storage.count == 3
    assert [m.start for m in reader.since(Lsn(15))] == list(range(10, 1000, 10))


def test_what_has_expired_is_not_given_though_it_was_read_before(log: ChangeLog) -> None:
    for start in (0, 10, 20):
        extend(log, start, start + 10)
    reader = ChangeLog(log.storage, memory=1)
    assert len(reader.since(Lsn(0))) == 3
    log.storage.delete([f"manifests/{Lsn(0).hex}.json"])
    assert [m.start for m in reader.since(Lsn(0))] == [10, 20]


def test_a_log_that_was_removed_has_no_head_though_it_was_read_before(log: ChangeLog) -> None:
    extend(log, 0, 10)
    reader = ChangeLog(log.storage, memory=1)
    assert reader.head() is not None
    log.storage.delete([f"manifests/{Lsn(0).hex}.json"])
    assert reader.head() is None
    assert reader.since(Lsn(0)) == ()
    extend(log, 0, 20)
    head = reader.head()
    assert head is not None
    assert head.end == 20


@pytest.mark.parametrize("position", [0, 5, 20])
def test_a_missing_manifest_is_named_wherever_one_starts(log: ChangeLog, position: int) -> None:
    for start in (0, 10, 20, 30, 40):
        extend(log, start, start + 10)
    log.storage.delete([f"manifests/{Lsn(30).hex}.json"])
    with pytest.raises(LogDamaged, match="from 0/1E to 0/28"):
        ChangeLog(log.storage, memory=1).since(Lsn(position))


def test_a_stretch_is_published_once(log: ChangeLog) -> None:
    extend(log, 0, 10)
    extend(log, 10, 20)
    with pytest.raises(LogConflict, match="0/A"):
        extend(log, 10, 25)


def test_a_missing_manifest_is_named(log: ChangeLog) -> None:
    for start, end in ((0, 10), (10, 20), (20, 30)):
        extend(log, start, end)
    log.storage.delete([f"manifests/{Lsn(10).hex}.json"])
    with pytest.raises(LogDamaged, match="from 0/A to 0/14"):
        ChangeLog(log.storage, memory=1).since(Lsn(5))


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-9], lambda d: d.replace(b'"0/A"', b'"0/B"'), lambda _: b"", lambda d: d + b"x"]
)
def test_a_damaged_manifest_is_named(log: ChangeLog, damage: object) -> None:
    extend(log, 0, 10)
    path = f"manifests/{Lsn(0).hex}.json"
    log.storage.replace(path, damage(log.storage.read(path)))  # type: ignore[operator]
    with pytest.raises(LogDamaged, match=path):
        ChangeLog(log.storage, memory=1).head()


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d[:40] + bytes([d[40] ^ 1]) + d[41:], lambda _: b""])
def test_a_damaged_segment_is_named_and_not_read(log: ChangeLog, damage: object) -> None:
    (segment,) = extend(log, 0, 10, batch("I")).segments
    log.storage.replace(segment.path, damage(log.storage.read(segment.path)))  # type: ignore[operator]
    with pytest.raises(LogDamaged, match=segment.path):
        log.read(segment)


def test_a_missing_segment_is_named(log: ChangeLog) -> None:
    (segment,) = extend(log, 0, 10, batch("I")).segments
    log.storage.delete([segment.path])
    with pytest.raises(LogDamaged, match="is missing"):
        log.read(segment)


@pytest.mark.parametrize(
    ("owner", "names"),
    [(replace(OWNER, pipeline="other"), "pipeline shop"), (replace(OWNER, system_identifier="72"), "server 71")],
)
def test_a_log_serves_one_pipeline_and_one_database(log: ChangeLog, owner: Owner, names: str) -> None:
    log.claim(owner)
    extend(log, 0, 10)
    log.claim(OWNER)
    with pytest.raises(StagingForeign, match=names):
        log.claim(owner)


def test_memory_bounds_what_is_held_and_order_is_kept(tmp_path: Path) -> None:
    log = ChangeLog(LocalStorage(tmp_path), memory=4096)
    manifest = extend(log, 0, 10, *(batch("I", "U", lsn=n * 2) for n in range(50)))
    assert max(s.loaded for s in manifest.segments) <= 4096 // 2 + batch("I", "U").rows.nbytes
    lsns = [lsn for s in manifest.of(RELATION.table) for lsn in log.read(s)["_lsn"].to_pylist()]
    assert lsns == list(range(100))


def test_a_changed_relation_begins_a_new_segment(log: ChangeLog) -> None:
    wider = replace(RELATION, columns=(*RELATION.columns, Column(name="n", type="integer", arrow=pa.int32())))
    manifest = extend(log, 0, 10, batch("I"), batch("U", relation=wider), batch("D", relation=wider))
    assert [manifest.relations[s.relation] for s in manifest.segments] == [RELATION, wider]
    assert manifest.segments[1].rows == 2


def test_marks_are_kept_until_they_are_removed(log: ChangeLog) -> None:
    mark = Mark(table=RELATION.table, state=State.PARKED, reason="why", since=NOW, lsn=Lsn(5))
    log.mark(mark)
    log.mark(replace(mark, state=State.STALE))
    assert log.marks() == {RELATION.table: replace(mark, state=State.STALE)}
    log.unmark(RELATION.table)
    assert log.marks() == {}


def test_the_newest_snapshot_is_found(log: ChangeLog) -> None:
    for lsn in (9, 255, 16):
        manifest = SnapshotManifest(owner=OWNER, relation=RELATION, lsn=Lsn(lsn), taken_at=NOW, segments=())
        log.publish_snapshot(manifest)
    newest = log.snapshot(RELATION.table)
    assert newest is not None
    assert newest.lsn == 255
    assert newest.relation == RELATION
    assert log.snapshot(OTHER.table) is None


# --- retention


def stretch(start: int, end: int, age_days: int, *paths: str) -> Manifest:
    segments = tuple(Segment(path=p, relation=0, rows=1, bytes=1, loaded=1, sha256="") for p in paths)
    published = NOW - timedelta(days=age_days)
    return Manifest(owner=OWNER, start=Lsn(start), end=Lsn(end), published_at=published, segments=segments)


CHAIN = (stretch(0, 10, 50), stretch(10, 20, 45, "a"), stretch(20, 30, 40, "b"), stretch(30, 40, 5, "c"))


@pytest.mark.parametrize(
    ("applied", "days", "removed"),
    [
        (40, 30, ["a", "b"]),
        (25, 30, ["a"]),
        (20, 30, ["a"]),
        (19, 30, []),
        (40, 42, ["a"]),
        (0, 0, []),
        (40, 0, ["a", "b"]),
    ],
)
def test_what_is_old_and_applied_goes(applied: int, days: int, removed: list[str]) -> None:
    choice = expired(CHAIN, {}, (), applied=Lsn(applied), cutoff=NOW - timedelta(days=days), now=NOW)
    assert list(choice.segments) == removed


@given(
    ages=st.lists(st.integers(0, 90), min_size=1, max_size=12),
    applied=st.integers(0, 130),
    days=st.integers(0, 90),
)
def test_the_chain_is_only_cut_from_its_start_and_keeps_its_head(ages: list[int], applied: int, days: int) -> None:
    chain = [stretch(n * 10, n * 10 + 10, age, f"s{n}") for n, age in enumerate(ages)]
    choice = expired(chain, {}, (), applied=Lsn(applied), cutoff=NOW - timedelta(days=days), now=NOW)
    assert list(choice.manifests) == chain[: len(choice.manifests)]
    assert len(choice.manifests) < len(chain)
    assert all(m.end <= applied for m in choice.manifests)


def test_orphans_go_after_a_day_and_unapplied_snapshots_stay() -> None:
    snapshot = SnapshotManifest(
        owner=OWNER,
        relation=RELATION,
        lsn=Lsn(50),
        taken_at=NOW - timedelta(days=90),
        segments=(Segment(path="snap", relation=0, rows=1, bytes=1, loaded=1, sha256=""),),
    )
    stored = [
        Entry(path="a", bytes=1, modified=NOW - ORPHAN_AGE * 9),
        Entry(path="snap", bytes=1, modified=NOW - ORPHAN_AGE * 9),
        Entry(path="old", bytes=1, modified=NOW - ORPHAN_AGE * 2),
        Entry(path="young", bytes=1, modified=NOW - ORPHAN_AGE / 2),
    ]
    cutoff = NOW - timedelta(days=60)
    choice = expired(CHAIN, {"snap.json": snapshot}, stored, applied=Lsn(40), cutoff=cutoff, now=NOW)
    assert choice.orphans == ("old",)
    assert choice.segments == ()
    later = expired(CHAIN, {"snap.json": snapshot}, stored, applied=Lsn(50), cutoff=cutoff, now=NOW)
    assert set(later.segments) == {"snap", "snap.json"}
