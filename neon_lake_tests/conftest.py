"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake_tests.fixtures import no_skips
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.postgres import TEST_SETTINGS, Database, fresh_database, programs_of

# A slow machine is not a wrong answer, and CI tries the same examples each time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pg", type=int, default=18, metavar="MAJOR", help="PostgreSQL to test with (default: 18)")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(no_skips, "no_skips")
    try:
        programs_of(config.getoption("--pg"))
    except LookupError as exc:
        raise pytest.UsageError(str(exc)) from exc
    # What a developer's shell sets for a database of their own must not reach a test.
    for name in [name for name in os.environ if name.startswith(("PG", "NEON_"))]:
        del os.environ[name]


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[EmbeddedPostgres]:
    """The test process's own Postgres, with logical replication on."""
    major = pytestconfig.getoption("--pg")
    with EmbeddedPostgres.start(settings=TEST_SETTINGS, major=major, bindir=programs_of(major)) as server:
        yield server


@pytest.fixture
def database(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    """An empty database that lives as long as the test; its replication slots go with it."""
    with fresh_database(postgres_server) as fresh:
        yield fresh


@pytest.fixture
def lab(database: Database, tmp_path: Path) -> Lab:
    """A pipeline over all tables of an empty database."""
    return Lab(database=database, root=tmp_path)
