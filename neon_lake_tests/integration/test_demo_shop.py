"""The demonstration's shop holds what a replication has to cope with."""

from collections.abc import Iterator

import psycopg
import pytest

from neon_lake.demo import shop
from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake_tests.fixtures.postgres import Database, fresh_database

EVERYDAY = {
    "bigint", "boolean", "bytea", "character varying", "date", "double precision", "integer", "interval", "jsonb",
    "numeric", "real", "smallint", "text", "time without time zone", "timestamp with time zone",
    "timestamp without time zone", "uuid", "ARRAY", "USER-DEFINED",
}  # fmt: skip


@pytest.fixture(scope="module")
def full_shop(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    with fresh_database(postgres_server) as database:
        shop.load(database.connect())
        yield database


def test_the_shop_has_the_promised_size(full_shop: Database) -> None:
    rows = shop.counts(full_shop.connect())
    assert tuple(rows) == shop.TABLES
    assert len(rows) >= 6
    assert sum(rows.values()) >= 200_000
    assert all(count >= 1000 for count in rows.values())


def test_every_step_is_told_and_the_rows_counted(database: Database) -> None:
    told: list[str] = []
    rows = shop.load(database.connect(), scale=0.01, progress=told.append)
    assert told == [title for title, _ in shop.steps()]
    assert set(shop.TABLES) <= set(told)
    assert rows == sum(shop.counts(database.connect()).values())
    assert 1500 < rows < 5000


def test_the_rows_are_the_same_each_time(database: Database, postgres_server: EmbeddedPostgres) -> None:
    def content(of: Database) -> list[tuple[object, ...]]:
        shop.load(of.connect(), scale=0.01)
        return [
            of.query(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} AS t")[0]
            for table in shop.TABLES
        ]

    with fresh_database(postgres_server) as other:
        assert content(database) == content(other)


def test_a_shop_that_cannot_be_finished_leaves_nothing(database: Database) -> None:
    database.execute("CREATE TABLE documents (id integer)")
    with pytest.raises(psycopg.errors.DuplicateTable):
        shop.load(database.connect(), scale=0.01)
    assert database.query("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [
        ("documents",)
    ]


def test_everyday_types_are_there(full_shop: Database) -> None:
    found = full_shop.query("SELECT DISTINCT data_type FROM information_schema.columns WHERE table_schema = 'public'")
    assert {name for (name,) in found} >= EVERYDAY


def test_events_are_partitioned_by_month(full_shop: Database) -> None:
    spread = full_shop.query("SELECT tableoid::regclass::text, count(*) FROM events GROUP BY 1")
    assert len(spread) >= 3
    ((today,),) = full_shop.query("SELECT to_char(now(), '\"events_\"YYYY_MM')")
    partitions = full_shop.query("SELECT relid::regclass::text FROM pg_partition_tree('events') WHERE isleaf")
    assert (today,) in partitions
    assert ("events_other",) in partitions


def test_a_table_has_a_composite_key(full_shop: Database) -> None:
    keys = full_shop.query(
        "SELECT conrelid::regclass::text, cardinality(conkey) FROM pg_constraint WHERE contype = 'p'"
    )
    assert {table for table, _ in keys} >= set(shop.TABLES)
    assert {table for table, columns in keys if columns > 1} >= {"order_items", "inventory", "events"}


def test_the_tables_are_related(full_shop: Database) -> None:
    pairs = full_shop.query(
        "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f' AND conparentid = 0"
    )
    assert len({table for pair in pairs for table in pair} & set(shop.TABLES)) == len(shop.TABLES)


def test_the_bodies_of_documents_are_stored_apart(full_shop: Database) -> None:
    ((smallest, stored, bodies, apart),) = full_shop.query(
        "SELECT min(octet_length(body)), min(pg_column_size(body)), sum(octet_length(body)),"
        " (SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'documents'::regclass) FROM documents"
    )
    assert smallest > 8192
    assert stored > 0.9 * smallest, "the bodies compress"
    assert apart > bodies
