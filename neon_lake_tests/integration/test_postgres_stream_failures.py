"""How the change stream of a real server fails: each with the error that says what to do."""

from __future__ import annotations

import threading

import pytest

from neon_lake.change import Lsn
from neon_lake.errors import SlotGap, SlotInUse, SlotLost, SourceRefused, SourceRewound, SourceUnavailable
from neon_lake.sources.postgres import stream as stream_module
from neon_lake.sources.postgres.messages import RelationMessage
from neon_lake_tests.fixtures.postgres import Database, StartServer, fresh_database
from neon_lake_tests.fixtures.source import Streamed


def test_a_slot_in_use_is_named_with_its_process(
    database: Database, orders: Streamed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "_PATIENCE", 0.2)
    with orders.source.changes(orders.position, None):
        slot = orders.slot
        with (
            pytest.raises(SlotInUse, match=f"in use by process {slot.active_pid}"),
            orders.source.changes(orders.position, None),
        ):
            pass


def test_a_slot_that_is_about_to_be_free_is_waited_for(database: Database, orders: Streamed) -> None:
    database.execute("INSERT INTO orders VALUES (10)")
    opened, release = threading.Event(), threading.Event()

    def hold() -> None:
        with orders.source.changes(orders.position, None):
            opened.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    opened.wait()
    threading.Timer(0.3, release.set).start()
    assert orders.drain()["public.orders"]["id"].to_pylist() == [10]
    holder.join()


def test_a_slot_that_is_gone_is_lost(database: Database, orders: Streamed) -> None:
    orders.source.drop()
    with pytest.raises(SlotLost, match="is gone"), orders.source.changes(orders.position, None):
        pass


def test_a_slot_that_was_advanced_past_the_log_has_a_gap(database: Database, orders: Streamed) -> None:
    database.execute("INSERT INTO orders VALUES (10)")
    database.execute(
        "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_flush_lsn()) FROM pg_replication_slots "
        "WHERE database = current_database()"
    )
    with pytest.raises(SlotGap, match=str(orders.position)), orders.source.changes(orders.position, None):
        pass


def test_a_source_that_was_rewound_is_noticed(orders: Streamed) -> None:
    with (
        pytest.raises(SourceRewound, match="restored or is another server"),
        orders.source.changes(Lsn(orders.source.position() + (1 << 30)), None),
    ):
        pass


def test_a_slot_whose_wal_was_removed_is_lost(start_server: StartServer) -> None:
    keep = {"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    with start_server(**keep) as server, fresh_database(server) as database:
        database.execute("CREATE TABLE t (id serial PRIMARY KEY, v text)")
        streamed = Streamed.begun(database, "public.t")
        for _ in range(4):
            database.execute("INSERT INTO t (v) SELECT repeat('x', 900) FROM generate_series(1, 20000)")
            database.execute("SELECT pg_switch_wal(); CHECKPOINT")
        assert streamed.slot.lost is not None
        with pytest.raises(SlotLost, match="is lost"), streamed.source.changes(streamed.position, None):
            pass


def test_a_connection_that_is_cut_is_unavailable(database: Database, orders: Streamed) -> None:
    with orders.source.changes(orders.position, None) as stream:
        database.query("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        with pytest.raises(SourceUnavailable, match=r"ended the replication stream|connection was lost"):
            list(stream)


def test_a_publication_that_is_gone_is_named(database: Database, orders: Streamed) -> None:
    slot = orders.slot
    database.execute(f"DROP PUBLICATION {slot.name}; INSERT INTO orders VALUES (10)")
    with (
        pytest.raises(SourceRefused, match=f"The publication {slot.name} is gone"),
        orders.source.changes(orders.position, None),
    ):
        pass


def test_an_error_while_decoding_reaches_the_caller(database: Database, orders: Streamed) -> None:
    def fail(message: RelationMessage) -> None:
        raise RuntimeError(message.name)

    database.execute("INSERT INTO orders VALUES (10)")
    slot = orders.slot
    with (
        pytest.raises(RuntimeError, match="orders"),
        stream_module.opened(
            orders.source._settings,
            slot_name=slot.name,
            publication=slot.name,
            describe=fail,
            start=orders.position,
            until=orders.source.position(),
        ) as stream,
    ):
        list(stream)
