"""Fixtures that several integration tests ask for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest

from neon_lake.orchestration import build_definitions
from neon_lake.orchestration.hours import HOUR, hour_of
from neon_lake_tests.fixtures.dagster_shop import SHOP, Dagster
from neon_lake_tests.fixtures.exported import Exported
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.source import Streamed
from neon_lake_tests.workspace.sail import Sail

_TABLES = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE a (
    id int PRIMARY KEY, name varchar(20), price numeric(10,2), big numeric, ok bool, at timestamptz, day date,
    local timestamp, ratio float8, small real, tags text[], nums int[], data jsonb, raw bytea, who uuid, feeling mood,
    clock time, fixed char(5), s int2, l int8
);
CREATE TABLE "Odd Name" ("Key.1" int, "K2" text, doc text, PRIMARY KEY ("Key.1", "K2"));
"""
_FILL = """
INSERT INTO a SELECT g, 'n' || g, g * 1.25, g::numeric / 7, g % 2 = 0, now() - g * interval '1 hour',
    date '2026-01-01' + g, timestamp '2026-01-01' + g * interval '1 minute', g / 3.0, g / 7.0,
    ARRAY['x', NULL, 'y"z\\', '', ' {,} '], ARRAY[g, NULL, -g], jsonb_build_object('g', g), decode('00ff', 'hex'),
    gen_random_uuid(), 'ok', time '10:00' + g * interval '1 second', 'ab', g % 100, g::int8 * 1000000000
FROM generate_series(1, 500) g;
INSERT INTO a (id) VALUES (1000);
INSERT INTO "Odd Name" SELECT g, 'k', (SELECT string_agg(md5(g::text || h), '') FROM generate_series(1, 400) h)
FROM generate_series(1, 20) g;
"""


@pytest.fixture
def filled(lab: Lab) -> Lab:
    """A pipeline over `a`, with a column of each everyday type, and `Odd Name` with long documents: 501 rows and 20."""
    lab.database.execute(_TABLES + _FILL)
    return lab


@pytest.fixture
def dagster(lab: Lab) -> Iterator[Dagster]:
    """The shop, its definitions and an instance."""
    until_the_hour_ends = (hour_of(datetime.now(UTC)) + HOUR - datetime.now(UTC)).total_seconds()
    if until_the_hour_ends < 30:
        # a test speaks of one hour, and the server's clock cannot be set: it begins with the next one
        time.sleep(until_the_hour_ends)
    lab.database.execute(SHOP)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Dagster(lab=lab, instance=instance, definitions=build_definitions(lab.file))


@pytest.fixture
def orders(database: Database) -> Streamed:
    """A table with a document that is TOASTed."""
    database.execute(
        "CREATE TABLE orders (id integer PRIMARY KEY, state text, document text);"
        "ALTER TABLE orders ALTER COLUMN document SET STORAGE EXTERNAL;"
        "INSERT INTO orders SELECT g, 'new', repeat('x', 10000) FROM generate_series(1, 3) AS g"
    )
    return Streamed.begun(database, "public.orders")


@pytest.fixture(scope="module")
def sail() -> Iterator[Sail]:
    """An engine for an exported pipeline, in this process."""
    engine = Sail()
    yield engine
    engine.close()


@pytest.fixture
def exported(lab: Lab, sail: Sail) -> Exported:
    """A pipeline over all tables, and the one that is exported from it."""
    return Exported(lab=lab, engine=sail)


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """A role that may log in, and no more; it goes with the test, and so does what it was granted."""
    name = f"role_of_{database.name}"
    database.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture(autouse=True)
def no_thread_outlives_its_stream() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("neon_lake")] == []
