"""Connections to the source, and what `check` finds: what is wrong is said, and no secret with it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from neon_lake.config import Table
from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake.errors import NeonLakeError, SourceRefused, SourceUnreachable
from neon_lake.schema import TableName
from neon_lake.sources.postgres import ConnectionSettings, PostgresSource
from neon_lake_tests.fixtures.postgres import Database, StartServer
from neon_lake_tests.fixtures.source import source_of

T = TableName("public", "t")


@pytest.fixture(scope="module")
def guarded(start_server: StartServer) -> Iterator[EmbeddedPostgres]:
    """A server that asks the role `locked` for a password, and does not have wal_level = logical."""
    with start_server(wal_level="replica") as server:
        rules = server.data_dir / "pg_hba.conf"
        rules.write_text("host all locked 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("CREATE ROLE locked LOGIN PASSWORD 'right one'")
            admin.execute("SELECT pg_reload_conf()")
        yield server


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("postgresql://locked:sesame@127.0.0.1:{port}/postgres", SourceRefused, "password authentication failed"),
        ("postgresql://locked@127.0.0.1:{port}/postgres", SourceRefused, "no password supplied"),
        ("postgresql://postgres:sesame@127.0.0.1:{port}/nowhere", SourceRefused, 'database "nowhere" does not exist'),
        ("postgresql://nobody:sesame@127.0.0.1:{port}/postgres", SourceRefused, 'role "nobody" does not exist'),
        ("postgresql://postgres:sesame@127.0.0.1:{port}/postgres?sslmode=require", SourceRefused, "SSL"),
        ("postgresql://postgres:sesame@127.0.0.1:1/postgres", SourceUnreachable, "cannot be reached"),
        ("postgresql://postgres:sesame@host.invalid/postgres", SourceUnreachable, "host.invalid"),
        (
            "postgresql://a:sesame@ep-cool-1-pooler.eu.aws.neon.tech/db",
            SourceRefused,
            "host ep-cool-1.eu.aws.neon.tech",
        ),
        ("postgresql://a:sesame@[half/db", SourceRefused, "postgresql://role:password@host/database"),
    ],
)
def test_a_connection_that_fails_says_why_and_keeps_its_secrets(
    guarded: EmbeddedPostgres, url: str, error: type[NeonLakeError], words: str
) -> None:
    settings = ConnectionSettings(url=url.format(port=guarded.port))
    source = PostgresSource(settings, pipeline="x", tables=[])
    with pytest.raises(error, match=words) as raised:
        source.position()
    (finding,) = source.check()
    assert finding.problem == str(raised.value)
    exception: BaseException | None = raised.value
    while exception is not None:
        assert "sesame" not in str(exception)
        exception = exception.__cause__ or (None if exception.__suppress_context__ else exception.__context__)
    assert "sesame" not in repr(settings)


def test_settings_override_what_the_url_says() -> None:
    url = "postgresql://r:p@h/d?sslmode=disable&application_name=theirs&connect_timeout=99"
    parameters = ConnectionSettings(url=url, sslmode="verify-full", sslrootcert="system").parameters()
    assert parameters["sslmode"] == "verify-full"
    assert parameters["sslrootcert"] == "system"
    assert (parameters["application_name"], parameters["connect_timeout"]) == ("neon_lake", 10)


def test_no_timeout_of_the_database_ends_a_long_snapshot(database: Database) -> None:
    names = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"]
    if database.server.major >= 17:
        names.append("transaction_timeout")
    for name in names:
        database.execute(f"ALTER DATABASE {database.name} SET {name} = '1min'")
    asked = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    settings = ConnectionSettings(url=database.url)
    with settings.connect() as connection:
        assert connection.execute(asked.encode()).fetchone() == ("0",) * len(names)
    with settings.replicate() as connection:
        assert connection.execute(asked.encode()).fetchone() == ("0",) * len(names)
    with settings.adbc() as arrow, arrow.cursor() as cursor:
        cursor.execute(asked)
        assert cursor.fetchone() == ("0",) * len(names)


def test_a_role_that_may_not_replicate_is_told_what_to_run(database: Database, role: str) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY)")
    source = source_of(database, "public.t", url=database.server.url(database.name, role))
    with pytest.raises(SourceRefused, match="ALTER ROLE … REPLICATION"), source.slot_snapshot():
        pass
    problems = [finding.problem for finding in source.check() if finding.problem]
    assert any(f"run ALTER ROLE {role} REPLICATION" in problem for problem in problems)
    assert any('run GRANT SELECT ON "public"."t"' in problem for problem in problems)
    with pytest.raises(SourceRefused, match=r"may not publish public\.t"):
        source.publish(source_of(database, "public.t").survey().relations)


# --- check


def test_check_finds_nothing_wrong_where_nothing_is(database: Database) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY)")
    found = source_of(database, "public.t").check()
    assert [finding.problem for finding in found if finding.problem] == []
    assert {finding.subject for finding in found} >= {"version", "wal_level", "role", "slots", "public.t"}


def test_check_goes_on_after_a_problem(guarded: EmbeddedPostgres) -> None:
    settings = ConnectionSettings(url=guarded.url())
    found = PostgresSource(settings, pipeline="x", tables=[Table(name="public.nope"), Table(name="none.*")]).check()
    problems = {finding.subject: finding.problem for finding in found if finding.problem}
    assert "set it to logical and restart" in str(problems["wal_level"])
    assert "does not exist" in str(problems["public.nope"])


def test_check_names_a_database_without_an_encoding(database: Database) -> None:
    name = f"ascii_{database.name}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    database.execute(create.format(sql.Identifier(name)).as_string())
    source = PostgresSource(ConnectionSettings(url=database.server.url(name)), pipeline="x", tables=[])
    problems = {finding.subject: finding.problem for finding in source.check() if finding.problem}
    assert "SQL_ASCII" in str(problems["encoding"])
    database.execute(f"DROP DATABASE {name}")
