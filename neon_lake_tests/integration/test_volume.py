"""The change log on a volume: whatever happens to requests, it is what was published, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace as replace_parts
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from databricks.sdk.mixins.files import FilesExt

from neon_lake.change import ChangeBatch, Lsn, Transactions, change_schema
from neon_lake.errors import LogConflict, StagingUnavailable
from neon_lake.lifecycle import Mark, State
from neon_lake.pipeline import Replication
from neon_lake.schema import Column, Relation, TableName
from neon_lake.staging.log import ChangeLog
from neon_lake.staging.manifest import Manifest, Owner, SnapshotManifest
from neon_lake.staging.retention import expired
from neon_lake.staging.volume import VolumeStorage
from neon_lake.workspace.files import PARTS, Traffic, VolumeUnavailable
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.volumes import ACTS, Act, Gateway, Place, gateway, workspace

OWNER = Owner(pipeline="shop", system_identifier="71", database="app")
RELATION = Relation(
    table=TableName("public", "orders"),
    columns=(Column(name="id", type="bigint", arrow=pa.int64(), key=True, nullable=False),),
)
NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with workspace(tmp_path_factory.mktemp("workspace")) as made:
        yield made


@pytest.fixture(scope="module")
def module_gate(place: Place) -> Iterator[Gateway]:
    with gateway(place) as made:
        yield made


@pytest.fixture
def gate(module_gate: Gateway) -> Iterator[Gateway]:
    module_gate.asked.clear()
    yield module_gate
    module_gate.mend()


@pytest.fixture
def root(place: Place) -> str:
    return f"{place.volume()}/shop"


@pytest.fixture
def clean(place: Place, root: str) -> VolumeStorage:
    """The volume without a gateway."""
    return place.storage(root)


@pytest.fixture
def faulty(gate: Gateway, root: str) -> VolumeStorage:
    """The volume through the gateway."""
    return gate.place.storage(root)


def changes(first: int, count: int, relation: Relation = RELATION) -> ChangeBatch:
    data = [
        {"_op": "I", "_lsn": first + n, "_seq": 0, "_xid": 7, "_committed_at": NOW, "id": first + n}
        for n in range(count)
    ]
    return ChangeBatch(relation=relation, rows=pa.RecordBatch.from_pylist(data, change_schema(relation)))


def extend(log: ChangeLog, start: int, end: int) -> Manifest:
    with log.batch(Lsn(start)) as writer:
        writer.write_changes(changes(start, end - start))
        return log.publish(
            OWNER, start=Lsn(start), end=Lsn(end), transactions=Transactions(count=1), written=writer.finish()
        )


def ids(log: ChangeLog) -> list[int]:
    return [n for m in log.manifests() for s in m.segments for n in log.read(s)["id"].to_pylist()]


def stored(place: Place, root: str) -> list[str]:
    """Every file that there is in a folder of a volume, by the workspace's own disk."""
    folder = place.local(root)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- faults


def create(storage: VolumeStorage) -> None:
    assert storage.create("a/new", b"mine")
    assert storage.read("a/new") == b"mine"


def create_what_is_there(storage: VolumeStorage) -> None:
    assert not storage.create("a/old", b"mine")
    assert storage.read("a/old") == b"old"


def replace(storage: VolumeStorage) -> None:
    storage.replace("a/old", b"mine")
    assert storage.read("a/old") == b"mine"


def sink(storage: VolumeStorage) -> None:
    data = bytes(range(256)) * 40_000
    with storage.sink("a/new") as file:
        file.write(data)
    assert storage.read("a/new") == data


def read(storage: VolumeStorage) -> None:
    assert storage.read("a/old") == b"old"
    with pytest.raises(KeyError):
        storage.read("a/none")


def listing(storage: VolumeStorage) -> None:
    assert storage.names("a") == ["deep", "old"]
    assert storage.names("none") == []
    assert [entry.path for entry in storage.list("")] == ["a/deep/old", "a/old"]


def delete(storage: VolumeStorage) -> None:
    storage.delete(["a/old", "a/none"])
    assert storage.names("a") == ["deep"]


OPERATIONS = (create, create_what_is_there, replace, sink, read, listing, delete)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_carried_out_in_spite_of(
    operation: Callable[[VolumeStorage], None], act: Act, gate: Gateway, clean: VolumeStorage, faulty: VolumeStorage
) -> None:
    clean.replace("a/old", b"old")
    clean.replace("a/deep/old", b"old")
    fault = gate.expect(act, each=True)
    operation(faulty)
    assert fault.happened or (act == "cut_upload" and operation in (read, listing, delete))


@pytest.mark.parametrize("act", ACTS)
def test_the_log_is_exact_in_spite_of(
    act: Act, gate: Gateway, place: Place, root: str, clean: VolumeStorage, faulty: VolumeStorage
) -> None:
    fault = gate.expect(act, each=True)
    log = ChangeLog(faulty, memory=1 << 20)
    log.claim(OWNER)
    published = [extend(log, start, start + 10) for start in (0, 10, 20, 30)]
    log.publish_snapshot(SnapshotManifest(owner=OWNER, relation=RELATION, lsn=Lsn(5), taken_at=NOW, segments=()))
    mark = Mark(table=RELATION.table, state=State.PARKED, reason="why", since=NOW, lsn=Lsn(5))
    log.mark(mark)
    assert log.head() == published[-1]
    assert log.since(Lsn(20)) == tuple(published[2:])
    with pytest.raises(LogConflict, match="Another capture"):
        extend(log, 20, 30)
    log.unmark(RELATION.table)
    assert ids(log) == list(range(40))
    choice = expired(published, {}, log.segment_files(), applied=Lsn(20), cutoff=NOW + timedelta(days=999), now=NOW)
    assert log.remove(choice, NOW) == 0
    gate.mend()

    assert fault.happened > 5
    fresh = ChangeLog(clean, memory=1 << 20)
    assert tuple(fresh.manifests()) == tuple(published[2:])
    assert ids(fresh) == list(range(20, 40))
    assert fresh.marks() == {}
    snapshot = fresh.snapshot(RELATION.table)
    assert snapshot is not None
    named = {f"manifests/{m.start.hex}.json" for m in published[2:]} | {
        s.path for m in published[2:] for s in m.segments
    }
    left = set(stored(place, root)) - named - {f"snapshots/public/orders/{Lsn(5).hex}.json"}
    # what the refused capture has written is an orphan
    assert all(path.startswith(f"batches/{Lsn(20).hex}-") for path in left)
    assert len(left) == 1


@pytest.mark.parametrize("act", ["429", "503", "500", "drop_before", "late"])
def test_a_workspace_that_stays_away_is_named_after_a_while(
    act: Act, gate: Gateway, root: str, faulty: VolumeStorage
) -> None:
    gate.expect(act, times=10_000)
    for operation in (lambda: faulty.create("x", b"1"), lambda: faulty.read("x"), lambda: faulty.names("")):
        with pytest.raises(VolumeUnavailable, match="does not answer") as caught:
            operation()
        assert root in str(caught.value)
        assert gate.place.identity.token not in str(caught.value)
    assert "does not answer" in str(faulty.check().problem)


# --- uploads


def test_a_sync_that_was_cut_while_it_uploaded_is_started_over(
    gate: Gateway, place: Place, root: str, clean: VolumeStorage, faulty: VolumeStorage
) -> None:
    other = Relation(table=TableName("public", "events"), columns=RELATION.columns)
    log = ChangeLog(faulty, memory=1 << 20)
    first = extend(log, 0, 10)

    def capture(log: ChangeLog) -> Manifest:
        with log.batch(Lsn(10)) as writer:
            writer.write_changes(changes(10, 5))
            writer.write_changes(changes(15, 5, other))
            return log.publish(OWNER, start=Lsn(10), end=Lsn(20), written=writer.finish())

    gate.expect("cut_upload", r"events", times=10_000)
    with pytest.raises(StagingUnavailable, match=r"public\.events"):
        capture(log)
    gate.mend()

    fresh = ChangeLog(clean, memory=1 << 20)
    assert fresh.head() == first
    assert ids(fresh) == list(range(10))
    left = [path for path in stored(place, root) if path.startswith(f"batches/{Lsn(10).hex}")]
    assert len(left) == 1, "the first segment was whole, and the second is not there at all"
    second = capture(fresh)
    assert ids(fresh) == list(range(20))

    later = datetime.now(UTC) + timedelta(days=2)
    for moment, gone in ((datetime.now(UTC), []), (later, left)):
        choice = expired((first, second), {}, fresh.segment_files(), applied=Lsn(0), cutoff=NOW, now=moment)
        assert list(choice.orphans) == gone
        fresh.remove(choice, moment)
    assert not set(left) & set(stored(place, root))
    assert not place.local(f"{root}/{left[0]}").parent.exists()
    assert ids(ChangeLog(clean, memory=1 << 20)) == list(range(20))


def test_a_pipeline_goes_on_where_its_upload_was_cut(
    lab: Lab, gate: Gateway, clean: VolumeStorage, faulty: VolumeStorage
) -> None:
    def pipeline(storage: VolumeStorage) -> Replication:
        return Replication(replace_parts(lab.replication.parts, log=ChangeLog(storage, memory=64 << 20)))

    lab.database.execute("CREATE TABLE a (id int PRIMARY KEY, t text)")
    lab.database.execute("INSERT INTO a SELECT g, repeat('x', g) FROM generate_series(1, 500) g")
    gate.expect("cut_upload", r"/snapshots/", times=10_000)
    result = pipeline(faulty).sync().tables[TableName("public", "a")]
    assert "does not answer" in str(result.error)
    gate.mend()
    assert pipeline(faulty).sync().ok
    lab.assert_equal("public.a")
    lab.database.execute("UPDATE a SET t = 'new' WHERE id % 2 = 0")
    lab.database.execute("DELETE FROM a WHERE id % 3 = 0")
    gate.expect("cut_upload", r"/batches/", times=10_000)
    with pytest.raises(StagingUnavailable, match="does not answer"):
        pipeline(faulty).sync()
    gate.mend()
    assert pipeline(clean).sync().captured.changes > 0
    lab.assert_equal("public.a")
    assert pipeline(clean).verify(deep=True).ok


def test_what_is_old_and_applied_goes_from_the_volume(clean: VolumeStorage, place: Place, root: str) -> None:
    log = ChangeLog(clean, memory=1 << 20)
    chain = [extend(log, start, start + 10) for start in (0, 10, 20)]
    later = datetime.now(UTC) + timedelta(days=31)
    cutoff = later - timedelta(days=30)
    choice = expired(chain, log.snapshots(), log.segment_files(), applied=Lsn(20), cutoff=cutoff, now=later)
    log.remove(choice, later)
    assert stored(place, root) == sorted([f"manifests/{Lsn(20).hex}.json", chain[2].segments[0].path])
    assert [path.name for path in place.local(f"{root}/batches").iterdir()] == [chain[2].segments[0].path.split("/")[1]]
    assert ids(ChangeLog(clean, memory=1 << 20)) == list(range(20, 30))


def test_a_large_file_goes_up_in_parts_where_the_sdk_can(gate: Gateway, root: str) -> None:
    storage = gate.place.storage(root, enable_experimental_files_api_client=True)
    data = bytes(range(256)) * (PARTS // 256) + b"end"
    for name, size in (("large", len(data)), ("small", PARTS // 2)):
        with storage.sink(f"a/{name}") as file:
            file.write(data[:size])
        assert storage.read(f"a/{name}") == data[:size]
    initiated = [line for line in gate.asked if "action=initiate-upload" in line]
    assert len(initiated) == (1 if "upload" in vars(FilesExt) else 0)


@pytest.mark.parametrize("act", ["500", "drop_before", "drop_after", "repeat"])
def test_a_large_file_is_whole_in_spite_of(act: Act, gate: Gateway, place: Place, root: str) -> None:
    storage = gate.place.storage(root, enable_experimental_files_api_client=True)
    fault = gate.expect(act, "action=complete-upload")
    with storage.sink("a/large") as file:
        file.write(bytes(PARTS) + b"end")
    assert stored(place, root) == ["a/large"]
    assert storage.read("a/large") == bytes(PARTS) + b"end"
    assert fault.happened == (1 if "upload" in vars(FilesExt) else 0)


def test_a_full_disk_under_a_sink_is_named(clean: VolumeStorage, place: Place, root: str) -> None:
    def write() -> None:
        with clean.sink("a/x") as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(StagingUnavailable, match=r"No space left on device.*TMPDIR"):
        write()
    assert stored(place, root) == []


# --- names of many files


def test_pages_of_a_folder_are_followed(clean: VolumeStorage, place: Place, root: str) -> None:
    folder = place.local(f"{root}/manifests")
    folder.mkdir(parents=True)
    names = [f"{n:05}.json" for n in range(2500)]
    for name in names:
        (folder / name).touch()
    before = clean.files.traffic.requests
    assert clean.names("manifests") == names
    assert clean.files.traffic.requests - before == 3


def test_what_was_moved_is_counted(clean: VolumeStorage) -> None:
    clean.create("x", b"1234")
    clean.read("x")
    clean.read("x")
    assert clean.files.traffic == Traffic(uploaded=4, downloaded=8, requests=3)
    assert Traffic(uploaded=1) + Traffic(downloaded=2, requests=3) == Traffic(uploaded=1, downloaded=2, requests=3)


# --- refusals


def test_a_volume_that_is_not_there_is_not_taken_for_an_empty_log(place: Place) -> None:
    storage = place.storage("/Volumes/main/default/nowhere/shop")
    log = ChangeLog(storage, memory=1 << 20)
    for operation in (log.head, log.marks, lambda: storage.create("x", b""), lambda: storage.read("x")):
        with pytest.raises(VolumeUnavailable, match=r"create the volume main\.default\.nowhere, or grant USE CATALOG"):
            operation()
    assert "READ VOLUME and WRITE VOLUME on main.default.nowhere" in str(storage.check().problem)


def test_a_token_that_is_not_accepted_is_named_and_not_shown(place: Place, root: str) -> None:
    storage = place.storage(root, token="dapi0123456789")
    with pytest.raises(VolumeUnavailable, match="does not accept the credentials") as caught:
        storage.names("")
    assert "dapi0123456789" not in str(caught.value)
    assert root in str(caught.value)


def test_a_token_that_expires_is_fetched_anew(place: Place, root: str) -> None:
    identity = place.identity
    storage = place.storage(
        root, client_id=identity.client_id, client_secret=identity.client_secret, auth_type="oauth-m2m"
    )
    log = ChangeLog(storage, memory=1 << 20)
    extend(log, 0, 10)
    identity.expire()
    extend(log, 10, 20)
    identity.expire()
    assert ids(log) == list(range(20))


def test_a_probe_that_was_cut_is_swept_and_not_listed(clean: VolumeStorage, place: Place, root: str) -> None:
    assert clean.check().problem is None
    assert stored(place, root) == []
    probe = place.local(f"{root}/.unfinished-probe-1")
    probe.touch()
    assert list(clean.list("")) == []
    assert clean.sweep(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert clean.sweep(datetime.now(UTC) + timedelta(hours=1)) == 1
    assert not probe.exists()
