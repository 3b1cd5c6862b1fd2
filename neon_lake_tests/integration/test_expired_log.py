"""What can be replayed once the log's beginning has expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from neon_lake.errors import ConfigError
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.pipelines import Lab

A = TableName("public", "a")


@pytest.fixture
def cut(lab: Lab) -> Lab:
    """A pipeline whose log begins with its last batch."""
    lab.database.execute("CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a VALUES (1, 0), (2, 0)")
    lab.replication.sync()
    for n in range(2):
        lab.database.execute("UPDATE a SET n = %s", str(n))
        lab.replication.sync()
    assert lab.replication.expire(datetime.now(UTC) + timedelta(days=31)).manifests == 2
    return lab


def test_a_time_in_which_nothing_was_committed_is_no_mistake(cut: Lab) -> None:
    result = cut.replication.replay(A, datetime.now(UTC) + timedelta(seconds=1))
    assert result.ok
    assert result.counts.total == 0


def test_what_is_left_is_replayed(cut: Lab) -> None:
    (last,) = cut.replication.parts.log.manifests()
    assert last.transactions.first_commit_at is not None
    cut.delta("public.a").delete("id = 1")
    assert cut.replication.replay(A, last.transactions.first_commit_at).counts.total == 2
    cut.assert_equal("public.a")


def test_a_time_before_it_is_refused(cut: Lab) -> None:
    (last,) = cut.replication.parts.log.manifests()
    assert last.transactions.first_commit_at is not None
    with pytest.raises(ConfigError, match="reaches back to"):
        cut.replication.replay(A, last.transactions.first_commit_at - timedelta(milliseconds=1))
