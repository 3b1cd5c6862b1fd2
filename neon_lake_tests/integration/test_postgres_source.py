"""The source's own questions: connections, tables, publication, snapshots, and what `check` finds."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from neon_lake.config import Table
from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake.errors import NeonLakeError, SourceRefused, SourceUnreachable
from neon_lake.schema import ReplicaIdentity, TableName
from neon_lake.sources.postgres import ConnectionSettings, PostgresSource, snapshots
from neon_lake_tests.fixtures.postgres import Database, StartServer
from neon_lake_tests.fixtures.source import Streamed, source_of

T = TableName("public", "t")


def named(source: PostgresSource) -> list[str]:
    return [str(relation.table) for relation in source.survey().relations]


# --- connections


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


def test_a_role_that_may_not_replicate_is_told_what_to_run(database: Database) -> None:
    role = f"plain_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN; CREATE TABLE t (id integer PRIMARY KEY)")
    source = source_of(database, "public.t", url=database.server.url(database.name, role))
    with pytest.raises(SourceRefused, match="ALTER ROLE … REPLICATION"), source.slot_snapshot():
        pass
    problems = [finding.problem for finding in source.check() if finding.problem]
    assert any(f"run ALTER ROLE {role} REPLICATION" in problem for problem in problems)
    assert any('run GRANT SELECT ON "public"."t"' in problem for problem in problems)
    with pytest.raises(SourceRefused, match=r"may not publish public\.t"):
        source.publish([T])
    database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# --- tables


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
        ("(id integer); ALTER TABLE t REPLICA IDENTITY FULL", "has no key"),
        ("(id integer PRIMARY KEY, _lsn bigint)", "a column _lsn, a name that the lake uses"),
    ],
)
def test_a_table_that_could_not_be_followed_is_refused(database: Database, definition: str, words: str) -> None:
    database.execute(f"CREATE TABLE t {definition}; CREATE TABLE fine (id integer PRIMARY KEY)")
    survey = source_of(database, "public.*").survey()
    assert [str(relation.table) for relation in survey.relations] == ["public.fine"]
    assert words in survey.refused[T]


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


# --- publication and slot


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


def test_what_is_right_already_needs_no_rights(database: Database) -> None:
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN REPLICATION; CREATE TABLE t (id integer PRIMARY KEY)")
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
    owner.drop()
    database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


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


# --- snapshots


def test_a_slots_snapshot_and_stream_meet_without_gap_or_overlap(database: Database) -> None:
    database.execute("CREATE TABLE t (id serial PRIMARY KEY)")
    source = source_of(database, "public.t")
    streamed, stop = Streamed(source), threading.Event()

    def write() -> None:
        with database.connect() as session:
            while not stop.is_set():
                session.execute("INSERT INTO t DEFAULT VALUES")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        before = streamed.begin()["public.t"]["id"].to_pylist()
        (relation,) = source.survey().relations
        with source.slot_snapshot() as later:
            between = [row for batch in source.read(later, relation) for row in batch.column("id").to_pylist()]
            count = source.count(later, T)
    finally:
        stop.set()
        writer.join()
    changes = streamed.drain()["public.t"]
    everything = sorted(before + changes["id"].to_pylist())
    assert everything == [number for (number,) in database.query("SELECT id FROM t ORDER BY id")]
    seen = [row["id"] for row in changes.to_pylist() if row["_lsn"] < later.lsn]
    assert sorted(before + seen) == sorted(between)
    assert count == len(between)


def test_a_plain_snapshot_knows_which_transactions_it_sees(database: Database) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY)")
    source = source_of(database, "public.t")
    streamed = Streamed(source)
    streamed.begin()
    hidden = database.connect(autocommit=False)
    hidden.execute("INSERT INTO t VALUES (1)")
    database.execute("SET synchronous_commit = off; INSERT INTO t VALUES (2)")
    with source.snapshot() as snapshot:
        hidden.commit()
        database.execute("INSERT INTO t VALUES (3)")
        (relation,) = source.survey().relations
        assert source.count(snapshot, T) == 1
        assert [batch.column("id").to_pylist() for batch in source.read(snapshot, relation)] == [[2]]
    database.execute("SET synchronous_commit = on; INSERT INTO t VALUES (4)")
    changes = streamed.drain()["public.t"]
    visible = snapshot.visible.sees(changes["_xid"].to_numpy())
    assert dict(zip(changes["id"].to_pylist(), visible.tolist(), strict=True)) == {
        1: False,
        2: True,
        3: False,
        4: False,
    }
    assert [row["_lsn"] < snapshot.lsn for row in changes.to_pylist() if row["id"] == 2] == [True]


def test_a_temporary_slot_goes_with_its_snapshot(database: Database) -> None:
    source = source_of(database, "public.*")
    with source.slot_snapshot():
        assert database.query("SELECT temporary FROM pg_replication_slots WHERE database = current_database()") == [
            (True,)
        ]
    while database.query("SELECT 1 FROM pg_replication_slots WHERE database = current_database()"):
        pass  # a connection that is closed takes a moment to end at the server, and its slot with it


def test_a_large_table_is_read_in_ranges_without_loss(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "RANGE_BLOCKS", 3)
    monkeypatch.setattr(snapshots, "BATCH_BYTES", 4096)
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    database.execute(
        "INSERT INTO t SELECT g, repeat('x', 50) FROM generate_series(1, 2000) AS g; DELETE FROM t WHERE id % 7 = 0"
    )
    source = source_of(database, "public.t")
    (relation,) = source.survey().relations
    with source.snapshot() as snapshot:
        batches = list(source.read(snapshot, relation))
    assert len(batches) > 5
    assert sorted(i for batch in batches for i in batch.column("id").to_pylist()) == [
        number for number in range(1, 2001) if number % 7
    ]


def test_heirs_of_a_table_are_not_its_rows(database: Database) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY); CREATE TABLE heir (PRIMARY KEY (id)) INHERITS (t);"
        "INSERT INTO t VALUES (1); INSERT INTO heir VALUES (2)"
    )
    source = source_of(database, "public.*")
    with source.snapshot() as snapshot:
        counts = {str(r.table): source.count(snapshot, r.table) for r in source.survey().relations}
    assert counts == {"public.t": 1, "public.heir": 1}


def test_hidden_rows_are_refused_and_not_left_out(database: Database) -> None:
    role = f"sheltered_{database.name}"
    database.execute(
        f"CREATE ROLE {role} LOGIN REPLICATION; CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1);"
        f"ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON t TO {role}"
    )
    source = source_of(database, "public.t", url=database.server.url(database.name, role))
    (relation,) = source.survey().relations
    with source.snapshot() as snapshot, pytest.raises(SourceRefused, match="row-level security"):
        list(source.read(snapshot, relation))
    assert any("BYPASSRLS" in str(finding.problem) for finding in source.check())
    database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_position_is_the_end_of_what_is_flushed(database: Database) -> None:
    source = source_of(database, "public.*")
    first = source.position()
    database.execute("CREATE TABLE t (id integer PRIMARY KEY)")
    assert source.position() > first
    identity = source.identity()
    assert (identity.database, identity.server_version // 10000) == (database.name, database.server.major)


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
