"""The publication and the slot: made, put right, and removed."""

from __future__ import annotations

import pytest

from neon_lake.config import Table, WriteMode
from neon_lake.errors import SourceRefused
from neon_lake.schema import TableName
from neon_lake.sources.postgres import ConnectionSettings, PostgresSource
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.source import Streamed, source_of

T = TableName("public", "t")


def test_a_publication_holds_what_it_is_told_to(database: Database) -> None:
    database.execute("CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (id integer PRIMARY KEY)")
    database.execute('CREATE TABLE "C %s" (id integer PRIMARY KEY); CREATE TABLE heir () INHERITS (a)')
    source = source_of(database, "public.*")
    everything = {relation.table.name: relation for relation in source.survey().relations}
    a, b, odd = (everything[name] for name in ("a", "b", "C %s"))
    assert source.published([a, b]) == frozenset()
    for tables in ([a], [a, b], [b, odd], [b, odd], [], [a]):
        source.publish(tables)
        assert source.published(list(everything.values())) == {relation.table for relation in tables}
        assert database.query('SELECT tablename FROM pg_publication_tables ORDER BY tablename COLLATE "C"') == [
            (name,) for name in sorted(relation.table.name for relation in tables)
        ]


def test_a_publication_that_was_altered_is_put_right(database: Database) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY)")
    source = source_of(database, "public.t")
    relations = source.survey().relations
    source.publish(relations)
    (name,) = database.query("SELECT pubname FROM pg_publication WHERE pubupdate")[0]
    for change in ("publish = 'insert'", "publish_via_partition_root = false"):
        database.execute(f"ALTER PUBLICATION {name} SET ({change})")
        assert source.published(relations) == frozenset()
        source.publish(relations)
        assert source.published(relations) == {T}


def test_of_a_table_without_identity_only_the_inserts_are_published(database: Database) -> None:
    database.execute("CREATE TABLE t (id integer); CREATE TABLE u (id integer PRIMARY KEY)")
    database.execute("ALTER TABLE u REPLICA IDENTITY NOTHING")
    source = source_of(database, Table(name="public.*", mode=WriteMode.APPEND))
    streamed = Streamed(source)
    streamed.begin()
    relations = source.survey().relations
    assert [relation.inserts_only for relation in relations] == [True, True]
    assert source.published(relations) == {relation.table for relation in relations}
    # nobody's update is refused for our sake
    for name in ("t", "u"):
        database.execute(f"INSERT INTO {name} VALUES (1); UPDATE {name} SET id = 2; DELETE FROM {name}")
        database.execute(f"INSERT INTO {name} VALUES (3); TRUNCATE {name}")
    assert {name: table["_op"].to_pylist() for name, table in streamed.drain().items()} == {
        "public.t": ["I", "I", "T"],
        "public.u": ["I", "I", "T"],
    }
    database.execute("ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE u REPLICA IDENTITY DEFAULT")
    now = source.survey().relations
    assert source.published(now) == frozenset()
    source.publish(now)
    assert source.published(now) == {relation.table for relation in relations}


def test_of_a_partitioned_table_without_identity_the_inserts_come(database: Database) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p (id integer NOT NULL)"
    )
    database.execute("ALTER TABLE t ATTACH PARTITION p DEFAULT; ALTER TABLE t REPLICA IDENTITY NOTHING")
    streamed = Streamed.begun(database, Table(name="public.t", mode=WriteMode.APPEND))
    database.execute("INSERT INTO t VALUES (1), (2); UPDATE t SET id = 3 WHERE id = 1")
    assert streamed.drain()["public.t"]["id"].to_pylist() == [1, 2]


def test_changes_are_not_decoded_with_a_publication_that_is_younger(database: Database) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY)")
    source = source_of(database, Table(name="public.*", mode=WriteMode.APPEND))
    streamed = Streamed(source)
    streamed.begin()
    database.execute(
        f"DROP PUBLICATION inserts_of_{source._name}; INSERT INTO t VALUES (1); CREATE TABLE u (id integer)"
    )
    source.publish([relation for relation in source.survey().relations if not relation.inserts_only])
    assert streamed.drain()["public.t"]["id"].to_pylist() == [1]
    with pytest.raises(
        SourceRefused, match=r"inserts_of_.* is missing, and changes were captured without it; run neon-lake"
    ):
        source.publish(source.survey().relations)


def test_what_is_right_already_needs_no_rights(database: Database, role: str) -> None:
    database.execute(f"ALTER ROLE {role} REPLICATION; CREATE TABLE t (id integer PRIMARY KEY)")
    database.execute(f"GRANT SELECT ON t TO {role}")
    owner = source_of(database, "public.t")
    owner.publish(owner.survey().relations)
    source = PostgresSource(
        ConnectionSettings(url=database.server.url(database.name, role)),
        pipeline=owner._name.removeprefix("neon_lake_"),
        tables=[Table(name="public.t")],
    )
    source.publish(source.survey().relations)
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
