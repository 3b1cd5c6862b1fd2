"""What every storage of the change log keeps to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from neon_lake.errors import StagingUnavailable
from neon_lake.staging.local import LocalStorage
from neon_lake.staging.object_store import ObjectStorage
from neon_lake.staging.storage import Storage
from neon_lake_tests.fixtures.object_stores import LOST, Bucket


@pytest.fixture
def local(tmp_path: Path) -> Storage:
    return LocalStorage(tmp_path / "staging")


@pytest.fixture
def remote(bucket: Bucket) -> Storage:
    return ObjectStorage(f"{bucket.url}/lab/staging", options=bucket.store.options)


@pytest.fixture(params=["local", "remote", "on_a_volume"])
def storage(request: pytest.FixtureRequest) -> Storage:
    return cast(Storage, request.getfixturevalue(request.param))


def test_what_is_created_is_read_and_listed(storage: Storage) -> None:
    assert storage.create("a/b.json", b"1")
    assert storage.read("a/b.json") == b"1"
    assert [(e.path, e.bytes) for e in storage.list("a")] == [("a/b.json", 1)]


def test_only_the_first_of_many_creates(storage: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: storage.create("x", str(n).encode()), range(32)))
    assert won.count(True) == 1
    assert storage.read("x") == str(won.index(True)).encode()


def test_replace_replaces(storage: Storage) -> None:
    storage.replace("x", b"1")
    storage.replace("x", b"2")
    assert storage.read("x") == b"2"


def test_a_sink_that_fails_leaves_nothing(storage: Storage) -> None:
    def write_half() -> None:
        with storage.sink("a/x") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert list(storage.list("")) == []


def test_a_sink_is_not_listed_until_it_is_whole(storage: Storage) -> None:
    with storage.sink("a/x") as file:
        file.write(b"half")
        assert list(storage.list("")) == []
    assert [e.path for e in storage.list("")] == ["a/x"]


def test_a_listing_is_in_the_order_of_paths_and_of_one_folder(storage: Storage) -> None:
    for path in ("b/2", "b/1/z", "b.c", "a", "b/10"):
        storage.create(path, b"")
    assert [e.path for e in storage.list("")] == sorted(["b/2", "b/1/z", "b.c", "a", "b/10"])
    assert [e.path for e in storage.list("b")] == ["b/1/z", "b/10", "b/2"]
    assert list(storage.list("none")) == []


def test_names_are_those_of_one_folder_in_order(storage: Storage) -> None:
    for path in ("a/2.json", "a/10.json", "a/b/3.json", "c"):
        storage.create(path, b"")
    with storage.sink("a/unfinished"):
        assert [n for n in storage.names("a") if n != "b"] == ["10.json", "2.json"]
    assert storage.names("none") == []


def test_what_a_dead_writer_left_is_swept_when_it_is_old(local: Storage) -> None:
    storage = local
    storage.create("a/whole", b"1")
    with storage.sink("a/x") as file:
        file.write(b"half")
        assert storage.sweep(datetime.now(UTC) - timedelta(hours=1)) == 0, "somebody may still be writing it"
    unfinished = storage.sink("a/y")
    unfinished.__enter__()
    assert storage.sweep(datetime.now(UTC) + timedelta(hours=1)) == 1
    assert storage.sweep(datetime.now(UTC) + timedelta(hours=1)) == 0
    assert [e.path for e in storage.list("")] == ["a/whole", "a/x"]
    with pytest.raises(StagingUnavailable):
        unfinished.__exit__(None, None, None)


def test_a_dead_writer_leaves_nothing_in_an_object_store(remote: Storage, bucket: Bucket) -> None:
    unfinished = remote.sink("a/y")
    unfinished.__enter__().write(bytes(30 << 20))
    assert bucket.paths() == []
    assert bucket.uploads() == 0
    assert remote.sweep(datetime.now(UTC) + timedelta(hours=1)) == 0


@pytest.mark.parametrize("size", [0, 1, (8 << 20) + 1, 30 << 20])
def test_a_sink_keeps_every_byte(storage: Storage, size: int) -> None:
    data = bytes(i % 251 for i in range(min(size, 1 << 16))) * (size // (1 << 16) + 1)
    with storage.sink("a/x") as file:
        file.write(data[:size])
    assert storage.read("a/x") == data[:size]


def test_a_create_whose_answer_is_lost_is_not_taken_for_another_ones(remote: Storage, bucket: Bucket) -> None:
    bucket.put(LOST, b"1")
    assert remote.create("x", b"1")
    assert not remote.create("x", b"1")
    bucket.put(LOST, b"2")
    assert not remote.create("x", b"2")
    assert remote.read("x") == b"1"


def test_folders_may_come_and_go_under_many_writers(storage: Storage) -> None:
    def put_and_remove(n: int) -> None:
        for _ in range(50):
            storage.replace(f"a/b/{n}", b"1")
            storage.delete([f"a/b/{n}"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put_and_remove, range(4)))
    assert list(storage.list("")) == []


def test_deleting_is_idempotent(storage: Storage) -> None:
    storage.create("a/x", b"")
    storage.delete(["a/x", "a/y"])
    storage.delete(["a/x"])
    assert list(storage.list("")) == []


def test_what_is_not_there_is_a_key_error(storage: Storage) -> None:
    with pytest.raises(KeyError):
        storage.read("a/x")


def test_a_usable_storage_has_no_problem_and_keeps_nothing_of_the_check(storage: Storage) -> None:
    assert storage.check().problem is None
    assert list(storage.list("")) == []


def test_a_storage_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = LocalStorage(tmp_path / "file" / "staging")
    assert "cannot be used" in str(storage.check().problem)
    with pytest.raises(StagingUnavailable, match=r"staging\.path"):
        storage.create("x", b"")


def test_a_missing_bucket_is_not_taken_for_a_missing_object(bucket: Bucket) -> None:
    storage = ObjectStorage(f"{bucket.url}-of-nobody/lab", options=bucket.store.options)
    assert "NoSuchBucket" in str(storage.check().problem)
    for use in (lambda: storage.read("x"), lambda: storage.names("x"), lambda: storage.delete(["x", "y"])):
        with pytest.raises(StagingUnavailable, match=r"s3://.*NoSuchBucket.*staging\.path"):
            use()
