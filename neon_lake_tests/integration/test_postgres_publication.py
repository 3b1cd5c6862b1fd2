"""The publication and the slot: made, put right, and removed."""

from __future__ import annotations

import pytest

from neon_lake.config import Table
from neon_lake.errors import SourceRefused
from neon_lake.schema import TableName
from neon_lake.sources.postgres import ConnectionSettings, PostgresSource
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.source import Streamed, source_of

T = TableName("public", "t")


def test_a_publication_holds_what_it_is_told_to(database: Database) -> None:
    database.execute("CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (id integer PRIMARY KEY)")
    database.execute('CREATE TABLE "C %s" (id integer PRIMARY KEY); CREATE TABLE heir () INHERITS (a)')
    a, b, odd = (TableName("public", name) for name in ("a", "b", "C %s"))
    source = source_of(database, "public.*")
    assert source.published() == frozenset()
    for tables in ([a], [a, b], [b, odd], [b, odd], [], [a]):
        source.publish(tables)
        assert source.published() == frozenset(tables)
        assert database.query('SELECT tablename FROM pg_publication_tables ORDER BY tablename COLLATE "C"') == [
            (table.name,) for table in sorted(tables)
        ]


def test_a_publication_that_was_altered_is_put_right(database: Database) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY)")
    source = source_of(database, "public.t")
    source.publish([T])
    (name,) = database.query("SELECT pubname FROM pg_publication")[0]
    for change in ("publish = 'insert'", "publish_via_partition_root = false"):
        database.execute(f"ALTER PUBLICATION {name} SET ({change})")
        assert source.published() == frozenset()
        source.publish([T])
        assert source.published() == {T}


def test_what_is_right_already_needs_no_rights(database: Database, role: str) -> None:
    database.execute(f"ALTER ROLE {role} REPLICATION; CREATE TABLE t (id integer PRIMARY KEY)")
    database.execute(f"GRANT SELECT ON t TO {role}")
    owner = source_of(database, "public.t")
    owner.publish([T])
    source = PostgresSource(
        ConnectionSettings(url=database.server.url(database.name, role)),
        pipeline=owner._name.removeprefix("neon_lake_"),
        tables=[Table(name="public.t")],
    )
    source.publish([T])
    streamed = Streamed(source)
    assert streamed.begin()["public.t"].num_rows == 0
    database.execute("INSERT INTO t VALUES (1)")
    assert streamed.drain()["public.t"]["id"].to_pylist() == [1]
    assert [finding.problem for finding in source.check() if finding.problem] == []


def test_dropping_removes_both_and_may_be_done_twice(database: Database) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY)")
    source = source_of(database, "public.t")
    Streamed(source).begin()
    assert source.slot() is not None
    source.drop()
    source.drop()
    assert source.slot() is None
    assert database.query("SELECT pubname FROM pg_publication") == []


def test_a_slot_is_not_created_twice(database: Database) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY)")
    source = source_of(database, "public.t")
    Streamed(source).begin()
    with pytest.raises(SourceRefused, match="exists already"), source.create_slot():
        pass
