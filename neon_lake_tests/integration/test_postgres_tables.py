"""Which tables a source has, and what it says of them."""

from __future__ import annotations

import pytest

from neon_lake.config import Deletes, Table
from neon_lake.schema import ReplicaIdentity, TableName
from neon_lake.sources.postgres import PostgresSource
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.source import source_of

T = TableName("public", "t")


def named(source: PostgresSource) -> list[str]:
    return [str(relation.table) for relation in source.survey().relations]


SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id integer PRIMARY KEY, note text);
CREATE TABLE shop.order_lines (order_id integer, line integer, PRIMARY KEY (order_id, line));
CREATE TABLE shop."Odd.Name" (id integer PRIMARY KEY);
CREATE VIEW shop.recent AS SELECT * FROM shop.orders;
CREATE UNLOGGED TABLE shop.scratch (id integer PRIMARY KEY);
CREATE TABLE t (id integer PRIMARY KEY);
"""


def test_patterns_choose_tables_and_pass_over_what_cannot_be_replicated(database: Database) -> None:
    database.execute(SHOP)
    assert named(source_of(database, "shop.*")) == ['shop."Odd.Name"', "shop.order_lines", "shop.orders"]
    assert named(source_of(database, "*.order*", "public.t")) == ["public.t", "shop.order_lines", "shop.orders"]
    assert named(source_of(database, 'shop."Odd.Name"')) == ['shop."Odd.Name"']
    survey = source_of(database, "shop.*").survey()
    assert survey.refused == {}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("shop.nowhere", "does not exist"),
        ("shop.recent", "is a view"),
        ("shop.scratch", "is unlogged"),
    ],
)
def test_a_table_that_is_named_must_be_one_that_can_be_replicated(database: Database, table: str, words: str) -> None:
    database.execute(SHOP)
    survey = source_of(database, "shop.order*", table).survey()
    assert len(survey.relations) == 2
    ((name, why),) = survey.refused.items()
    assert str(name) == table
    assert words in why


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("(id integer)", "has no key; add a primary key"),
        ("(id integer PRIMARY KEY DEFERRABLE)", "has no key"),
        ("(id integer UNIQUE)", "REPLICA IDENTITY USING INDEX"),
        ("(id integer PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING", "REPLICA IDENTITY NOTHING"),
        ("(id integer UNIQUE)", "or take its inserts alone with mode: append"),
        ("(id integer PRIMARY KEY, _lsn bigint)", "a column _lsn, a name that the lake uses"),
    ],
)
def test_a_table_that_could_not_be_followed_is_refused(database: Database, definition: str, words: str) -> None:
    database.execute(f"CREATE TABLE t {definition}; CREATE TABLE fine (id integer PRIMARY KEY)")
    survey = source_of(database, "public.*").survey()
    assert [str(relation.table) for relation in survey.relations] == ["public.fine"]
    assert words in survey.refused[T]


def test_a_table_without_a_key_is_followed_by_its_whole_rows(database: Database) -> None:
    database.execute("CREATE TABLE t (id integer); ALTER TABLE t REPLICA IDENTITY FULL")
    (relation,) = source_of(database, "public.*").survey().relations
    assert (relation.table, relation.keyless, relation.key) == (T, True, ())
    refused = source_of(database, Table(name="public.t", deletes=Deletes.SOFT)).survey().refused
    assert "its deletes cannot be soft" in refused[T]


def test_columns_are_excluded_but_never_a_key(database: Database) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, secret text, _op text)")
    lines = (Table(name="public.*"), Table(name="public.t", exclude=("secret", "_op")))
    (relation,) = source_of(database, *lines).survey().relations
    assert [column.name for column in relation.columns] == ["id"]
    refused = source_of(database, Table(name="public.t", exclude=("id", "_op"))).survey().refused
    assert "part of its key" in refused[T]
    refused = source_of(database, Table(name="public.t", exclude=("absent", "_op"))).survey().refused
    assert "has no column absent" in refused[T]
    assert source_of(database, Table(name="public.*", exclude=("absent", "_op"))).survey().refused == {}


def test_a_partition_is_replicated_through_its_root(database: Database) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY) PARTITION BY HASH (id);"
        "CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
    )
    assert named(source_of(database, "public.*")) == ["public.t"]
    refused = source_of(database, "public.t_0").survey().refused
    assert "name its partitioned table" in refused[TableName("public", "t_0")]


def test_a_relation_tells_what_the_table_is(database: Database) -> None:
    database.execute(
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text NOT NULL, w integer DEFAULT 3);"
        "ALTER TABLE t REPLICA IDENTITY FULL; COMMENT ON TABLE t IS 'things'"
    )
    (relation,) = source_of(database, "public.t").survey().relations
    assert (relation.identity, relation.comment) == (ReplicaIdentity.FULL, "things")
    assert [column.name for column in relation.key] == ["id"]
    assert [(c.name, c.type, c.nullable, c.has_default) for c in relation.columns] == [
        ("id", "bigint", False, True),
        ("v", "text", False, False),
        ("w", "integer", True, True),
    ]
