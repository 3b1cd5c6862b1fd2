"""The servers that implementations of the protocols need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from neon_lake_tests.fixtures.object_stores import Bucket, ObjectStore, object_store


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStore]:
    """An object store, for all tests."""
    with object_store() as store:
        yield store


@pytest.fixture
def bucket(s3: ObjectStore) -> Bucket:
    """A fresh bucket in it."""
    return s3.bucket()
