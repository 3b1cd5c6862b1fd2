"""The servers that implementations of the protocols need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from neon_lake.staging.volume import VolumeStorage
from neon_lake_tests.fixtures.object_stores import Bucket, ObjectStore, object_store
from neon_lake_tests.fixtures.volumes import Place, workspace


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStore]:
    """An object store, for all tests."""
    with object_store() as store:
        yield store


@pytest.fixture
def bucket(s3: ObjectStore) -> Bucket:
    """A fresh bucket in it."""
    return s3.bucket()


@pytest.fixture(scope="session")
def files_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A workspace with volumes, for all tests."""
    with workspace(tmp_path_factory.mktemp("workspace")) as place:
        yield place


@pytest.fixture
def on_a_volume(files_workspace: Place) -> VolumeStorage:
    """A folder of a fresh volume in it."""
    return files_workspace.storage(f"{files_workspace.volume()}/lab/staging")
