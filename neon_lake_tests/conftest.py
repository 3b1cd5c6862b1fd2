"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake_tests.fixtures import engines, lakes, no_skips, workspaces
from neon_lake_tests.fixtures.postgres import Database, StartServer, fresh_database, programs_of, starter, version_of

# A slow machine is not a wrong answer, and CI tries the same examples each time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    engines.add_option(parser)
    parser.addoption("--pg", type=int, default=18, metavar="MAJOR", help="PostgreSQL to test with (default: 18)")
    parser.addoption(
        "--version-dependent", action="store_true", help="only the tests that use a server of the version under test"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(no_skips, "no_skips")
    for plugin in (engines, lakes, workspaces):
        config.pluginmanager.register(plugin, plugin.__name__)
    try:
        programs_of(config.getoption("--pg"))
    except LookupError as exc:
        raise pytest.UsageError(str(exc)) from exc
    # What a developer's shell sets for a database of their own must not reach a test.
    for name in [name for name in os.environ if name.startswith(("PG", "NEON_"))]:
        del os.environ[name]


def pytest_report_header(config: pytest.Config) -> str:
    return f"server under test: {version_of(programs_of(config.getoption('--pg')))}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --version-dependent, leaves out what never asks for the server: its outcome cannot depend on its version.

    Nor can that of what a workspace does with the log: what is in the log is tried without one.
    """
    if not config.getoption("--version-dependent"):
        return
    chosen: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        wanted = set(getattr(item, "fixturenames", ()))
        chosen["start_server" in wanted and "engine" not in wanted].append(item)
    config.hook.pytest_deselected(items=chosen[False])
    items[:] = chosen[True]


@pytest.fixture(scope="session")
def start_server(pytestconfig: pytest.Config) -> Iterator[StartServer]:
    """Starts servers of the version under test, with logical replication on: the one way to get one of it."""
    with starter(pytestconfig.getoption("--pg")) as start:
        yield start


@pytest.fixture(scope="session")
def postgres_server(start_server: StartServer) -> Iterator[EmbeddedPostgres]:
    """The test process's own Postgres."""
    with start_server() as server:
        yield server


@pytest.fixture
def database(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    """An empty database that lives as long as the test; its replication slots go with it."""
    with fresh_database(postgres_server) as fresh:
        yield fresh
