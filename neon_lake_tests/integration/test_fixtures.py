import subprocess
from contextlib import ExitStack

import psycopg
import pytest

from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake_tests.fixtures.postgres import Database, fresh_database

pytest_plugins = ["pytester"]


def test_each_database_is_empty_and_separate(database: Database, postgres_server: EmbeddedPostgres) -> None:
    database.execute("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 3)")
    database.execute("INSERT INTO t VALUES (%s)", 4)
    assert database.query("SELECT sum(id) FROM t WHERE id > %s", 1) == [(9,)]
    assert database.query("SELECT count(*) FROM t WHERE 10 % id = 0") == [(2,)]
    with fresh_database(postgres_server) as other:
        assert other.name != database.name
        assert other.query("SELECT count(*) FROM pg_class WHERE relname = 't'") == [(0,)]


def test_a_connection_sees_only_what_is_committed(database: Database) -> None:
    database.execute("CREATE TABLE t (id int)")
    writer = database.connect(autocommit=False)
    writer.execute("INSERT INTO t VALUES (1)")
    assert database.query("SELECT id FROM t") == []
    writer.commit()
    assert database.query("SELECT id FROM t") == [(1,)]


def test_database_goes_with_its_slots_while_one_is_streaming(postgres_server: EmbeddedPostgres) -> None:
    with ExitStack() as ends_last, fresh_database(postgres_server) as fresh:
        fresh.execute("CREATE PUBLICATION p FOR ALL TABLES")
        fresh.execute("SELECT pg_create_logical_replication_slot('held', 'pgoutput')")
        reader = ends_last.enter_context(stream(postgres_server, fresh, slot="held"))
        assert reader.stderr is not None
        assert any("streaming initiated" in line for line in reader.stderr)
    assert reader.returncode != 0
    with psycopg.connect(postgres_server.url()) as admin:
        assert admin.execute("SELECT count(*) FROM pg_replication_slots").fetchall() == [(0,)]
        found = admin.execute("SELECT count(*) FROM pg_database WHERE datname = %s", [fresh.name]).fetchall()
        assert found == [(0,)]


def stream(server: EmbeddedPostgres, database: Database, *, slot: str) -> subprocess.Popen[str]:
    program = [str(server.bindir / "pg_recvlogical"), "-d", database.url, "--slot", slot]
    options = ["-o", "proto_version=1", "-o", "publication_names=p"]
    return subprocess.Popen(
        [*program, *options, "--start", "--no-loop", "-v", "-f", "/dev/null"],
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("ci", "outcome"), [("true", "failed"), ("", "skipped")])
def test_a_skip_is_a_failure_in_ci(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: str
) -> None:
    monkeypatch.setenv("CI", ci)
    pytester.makepyfile("import pytest\ndef test_it(): pytest.importorskip('a_module_that_nobody_has')")
    result = pytester.runpytest_subprocess("-p", "neon_lake_tests.fixtures.no_skips")
    result.assert_outcomes(**{outcome: 1})
