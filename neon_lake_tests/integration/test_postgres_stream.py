"""The change stream of a real server: in which pieces it comes, where it ends, and what is confirmed."""

from __future__ import annotations

import threading
from itertools import dropwhile

import pytest

from neon_lake.change import Lsn
from neon_lake.sources.postgres import reader
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.source import Streamed, changes_of


def test_a_large_transaction_comes_in_pieces_and_ends_at_its_commit(
    database: Database, orders: Streamed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CHUNK_FRAMES", 100)
    database.execute("INSERT INTO orders SELECT g, 'x', 'y' FROM generate_series(1000, 5999) AS g")
    # the server may say how far it is before it sends anything
    pieces = list(dropwhile(lambda piece: not piece.changes, orders.pieces()))
    assert len(pieces) > 10
    assert [piece.committed is None for piece in pieces[:10]] == [True] * 10
    assert pieces[-1].committed is not None
    changes = changes_of(pieces)["public.orders"]
    assert changes["id"].to_pylist() == list(range(1000, 6000))
    assert changes["_seq"].to_pylist() == list(range(5000))
    assert sum(piece.transactions.count for piece in pieces) >= 1


def test_a_value_larger_than_a_chunk_comes_whole(database: Database, orders: Streamed) -> None:
    size = 3 * reader.CHUNK_BYTES
    database.execute("INSERT INTO orders VALUES (7, 'big', repeat('ü', %s))", size // 2)
    assert orders.drain()["public.orders"]["document"].to_pylist() == ["ü" * (size // 2)]


def test_a_stream_without_end_brings_what_is_committed_while_it_is_open(database: Database, orders: Streamed) -> None:
    with orders.source.changes(orders.position, None) as stream:
        for number in (10, 11, 12):
            database.execute(f"INSERT INTO orders VALUES ({number})")
            ids: list[int] = []
            for piece in stream:
                ids += [i for batch in piece.changes for i in batch.rows.column("id").to_pylist()]
                if ids:
                    break
            assert ids == [number]


def test_an_empty_drain_gives_nothing_and_leaves_nobody_connected(database: Database, orders: Streamed) -> None:
    orders.pieces()
    assert changes_of(orders.pieces()) == {}
    assert orders.slot.active_pid is None
    connected = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'neon_lake' AND datname = current_database()"
    while database.query(connected):  # a connection that is closed takes a moment to end at the server
        pass


def test_a_position_inside_a_record_ends_the_drain_too(database: Database, orders: Streamed) -> None:
    database.execute("INSERT INTO orders VALUES (10)")
    beyond = Lsn(orders.source.position() + 1)
    with orders.source.changes(orders.position, beyond) as stream:
        pieces = list(stream)
    assert changes_of(pieces)["public.orders"]["id"].to_pylist() == [10]
    assert pieces[-1].committed is not None


def test_what_was_not_confirmed_is_sent_again_and_what_was_passed_is_not(database: Database, orders: Streamed) -> None:
    start = orders.position
    database.execute("INSERT INTO orders VALUES (10)")
    first = orders.drain()["public.orders"]
    database.execute("INSERT INTO orders VALUES (11)")
    assert orders.drain()["public.orders"]["id"].to_pylist() == [11]
    orders.position = start
    again = orders.drain()["public.orders"]
    assert again["id"].to_pylist() == [10, 11]
    assert again.slice(0, 1).to_pylist() == first.to_pylist()


def test_confirming_moves_the_slot_and_never_back(database: Database, orders: Streamed) -> None:
    database.execute("INSERT INTO orders VALUES (10)")
    orders.pieces(confirm=True)
    assert orders.slot.confirmed == orders.position
    with orders.source.changes(orders.position, orders.source.position()) as stream:
        stream.confirm(Lsn(1))
    assert orders.slot.confirmed == orders.position


def test_confirming_reaches_the_server_while_the_stream_is_open(database: Database, orders: Streamed) -> None:
    database.execute("INSERT INTO orders VALUES (10)")
    until = orders.source.position()
    with orders.source.changes(orders.position, until) as stream:
        end = max(piece.committed for piece in stream if piece.committed is not None)
        stream.confirm(end)
        while (slot := orders.source.slot()) is not None and slot.confirmed < end:
            threading.Event().wait(0.01)
        assert slot is not None
        assert slot.active_pid is not None


def test_a_stream_that_is_left_early_frees_the_slot(database: Database, orders: Streamed) -> None:
    database.execute("INSERT INTO orders SELECT g FROM generate_series(1000, 200000) AS g")
    with orders.source.changes(orders.position, orders.source.position()) as stream:
        next(iter(stream))
    with pytest.raises(KeyboardInterrupt), orders.source.changes(orders.position, None):
        raise KeyboardInterrupt
    assert orders.slot.active_pid is None
