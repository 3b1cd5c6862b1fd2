"""Replay, expire and drop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from neon_lake.errors import ConfigError
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.pipelines import Lab

A = TableName("public", "a")


def test_replay_mends_rows_and_moves_none_back(filled: Lab) -> None:
    filled.replication.sync()
    begin = datetime.now(UTC) - timedelta(minutes=5)
    filled.database.execute("UPDATE a SET name = 'one' WHERE id IN (1, 2)")
    filled.replication.sync()
    filled.database.execute(
        "UPDATE a SET name = 'two' WHERE id = 1; DELETE FROM a WHERE id = 2; INSERT INTO a (id) VALUES (9000)"
    )
    filled.replication.sync()
    watermark = filled.watermark("public.a")
    filled.delta("public.a").update(updates={"name": "'wrong'"}, predicate="id = 1")
    filled.delta("public.a").delete("id = 9000")
    assert filled.lake("public.a") != filled.source("public.a")
    result = filled.replication.replay(A, begin)
    assert result.ok
    assert result.counts.total == 5
    filled.assert_equal("public.a")
    assert filled.watermark("public.a") == watermark
    filled.database.execute("UPDATE a SET name = 'three' WHERE id = 1")
    assert filled.replication.sync().ok
    filled.assert_equal("public.a")


def test_a_replay_needs_a_table_that_is_there(filled: Lab) -> None:
    with pytest.raises(ConfigError, match="not in the lake yet"):
        filled.replication.replay(A, datetime.now(UTC))
    with pytest.raises(ConfigError, match="not a table of the pipeline"):
        filled.replication.replay(TableName("public", "nowhere"), datetime.now(UTC))


def test_expire_removes_what_is_old_and_applied(filled: Lab) -> None:
    filled.replication.sync()
    for n in range(3):
        filled.database.execute("UPDATE a SET name = %s WHERE id = 1", str(n))
        filled.replication.sync()
    assert filled.replication.expire().manifests == 0
    later = datetime.now(UTC) + timedelta(days=31)
    removed = filled.replication.expire(later)
    assert removed.manifests == 3
    assert removed.segments >= 4
    filled.database.execute("UPDATE a SET name = 'on' WHERE id = 1")
    assert filled.replication.sync().ok
    filled.assert_equal("public.a", "public.Odd Name")
    with pytest.raises(ConfigError, match="reaches back"):
        filled.replication.replay(A, datetime.now(UTC) - timedelta(days=3))


def test_drop_leaves_nothing_at_the_source(filled: Lab) -> None:
    filled.replication.sync()
    filled.replication.drop()
    filled.replication.drop()
    assert filled.database.query("SELECT count(*) FROM pg_publication") == [(0,)]
    assert filled.replication.status().slot_problem is not None
