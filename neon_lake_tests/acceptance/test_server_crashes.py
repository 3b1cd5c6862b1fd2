"""Postgres itself is killed in the middle of a snapshot or a stream, and started again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake.errors import NeonLakeError, retry_policy
from neon_lake.pipeline import Replication
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.postgres import Database, StartServer, fresh_database
from neon_lake_tests.fixtures.proxy import Proxy, says

MANY = 30_000


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Iterator[EmbeddedPostgres]:
    """A server that these tests may kill; what it has committed must outlive that."""
    with start_server(fsync="on", full_page_writes="on") as started:
        yield started


@pytest.fixture
def mortal(server: EmbeddedPostgres, tmp_path: Path) -> Iterator[tuple[Lab, Proxy]]:
    with fresh_database(server) as database:
        execute(
            database,
            "CREATE TABLE a (id int PRIMARY KEY, v text)",
            f"INSERT INTO a SELECT g, repeat('x', 400) || g FROM generate_series(1, {MANY}) g",
            "CREATE TABLE b (id int PRIMARY KEY)",
            "INSERT INTO b VALUES (1)",
        )
        proxy = Proxy(server.port)
        yield Lab(database=database, root=tmp_path), proxy
        proxy.close()


def execute(database: Database, *statements: str) -> None:
    # not the test's own session: it dies with the server
    with psycopg.connect(database.url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.mark.parametrize("moment", ["COPY (", "START_REPLICATION"])
def test_what_it_left_is_made_good(mortal: tuple[Lab, Proxy], server: EmbeddedPostgres, moment: str) -> None:
    lab, proxy = mortal
    if moment == "START_REPLICATION":
        assert Replication.open(lab.config).sync().ok
        execute(lab.database, "UPDATE a SET v = v || 'y' WHERE id <= 9000", "DELETE FROM a WHERE id > 29000")
    fault = proxy.expect(says(moment.encode()), "freeze", after=1_000_000)
    config = replace(lab.config, source=replace(lab.config.source, url=proxy.url(lab.database)))
    with ThreadPoolExecutor(1) as pool:
        syncing = pool.submit(Replication.open(config).sync)
        assert fault.happened.wait(60)
        server.restart("immediate")
        proxy.mend()
        try:
            errors = [(r.error, r.transient) for r in syncing.result().tables.values() if r.error]
        except NeonLakeError as exc:
            errors = [(str(exc), retry_policy(exc) is not None)]
    assert errors
    assert all(transient for _, transient in errors), errors
    execute(lab.database, "UPDATE a SET v = 'later' WHERE id < 100", "INSERT INTO b VALUES (2)")
    assert Replication.open(lab.config).sync().ok
    lab.assert_equal("public.a", "public.b")
    versions = [lab.delta(table).version() for table in ("public.a", "public.b")]
    assert Replication.open(lab.config).sync().ok
    assert [lab.delta(table).version() for table in ("public.a", "public.b")] == versions
