"""Snapshots of tables: what they see, and how they meet the stream."""

from __future__ import annotations

import threading

import pytest

from neon_lake.errors import SourceRefused
from neon_lake.schema import TableName
from neon_lake.sources.postgres import arrow_reader, snapshots
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.source import Streamed, source_of

T = TableName("public", "t")


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
    monkeypatch.setattr(arrow_reader, "BATCH_BYTES", 4096)
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


def test_hidden_rows_are_refused_and_not_left_out(database: Database, role: str) -> None:
    database.execute(
        f"ALTER ROLE {role} REPLICATION; CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1);"
        f"ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON t TO {role}"
    )
    source = source_of(database, "public.t", url=database.server.url(database.name, role))
    (relation,) = source.survey().relations
    with source.snapshot() as snapshot, pytest.raises(SourceRefused, match="row-level security"):
        list(source.read(snapshot, relation))
    assert any("BYPASSRLS" in str(finding.problem) for finding in source.check())


def test_a_position_is_the_end_of_what_is_flushed(database: Database) -> None:
    source = source_of(database, "public.*")
    first = source.position()
    database.execute("CREATE TABLE t (id integer PRIMARY KEY)")
    assert source.position() > first
    identity = source.identity()
    assert (identity.database, identity.server_version // 10000) == (database.name, database.server.major)
