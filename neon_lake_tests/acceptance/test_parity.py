"""Verification tells the truth, also while the source is being written."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from neon_lake.schema import TableName
from neon_lake.sources.base import Snapshot
from neon_lake_tests.fixtures.pipelines import Lab

A = TableName("public", "a")


@pytest.fixture
def synced(lab: Lab) -> Lab:
    lab.database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v text, n numeric(8,2)); CREATE TABLE b (id int PRIMARY KEY)"
    )
    lab.database.execute(
        "INSERT INTO a SELECT g, 'v' || g, g FROM generate_series(1, 2000) g; INSERT INTO b VALUES (1)"
    )
    lab.replication.sync()
    return lab


def test_equal_is_equal(synced: Lab) -> None:
    result = synced.replication.verify(deep=True)
    assert result.ok
    assert result.parity[A].content_equal is True
    assert (result.parity[A].source_rows, result.parity[A].lake_rows) == (2000, 2000)


def test_a_value_changed_behind_our_back_is_named(synced: Lab) -> None:
    synced.delta("public.a").update(updates={"v": "'wrong'"}, predicate="id = 77")
    assert synced.replication.verify().ok
    result = synced.replication.verify(deep=True)
    assert not result.ok
    assert [str(d) for d in result.parity[A].differences] == ["id=77 differs in v"]
    assert result.parity[TableName("public", "b")].ok
    assert synced.replication.resync([A]).ok
    assert synced.replication.verify(deep=True).ok
    synced.assert_equal("public.a")


def test_a_row_dropped_behind_our_back_is_counted_and_named(synced: Lab) -> None:
    since = datetime.now(UTC) - timedelta(hours=1)
    synced.database.execute("UPDATE a SET v = 'again' WHERE id = 78")
    synced.replication.sync()
    synced.delta("public.a").delete("id = 78")
    counted = synced.replication.verify().parity[A]
    assert (counted.source_rows, counted.lake_rows, counted.ok) == (2000, 1999, False)
    deep = synced.replication.verify(deep=True).parity[A]
    assert [str(d) for d in deep.differences] == ["id=78 is missing in the lake"]
    assert synced.replication.replay(A, since).ok
    assert synced.replication.verify(deep=True).ok


def test_an_extra_row_is_named_and_the_command_line_fails(synced: Lab) -> None:
    table = synced.delta("public.a")
    row = table.to_pyarrow_table().slice(0, 1)
    write_deltalake(table, row.set_column(0, row.schema.field(0), pa.array([999_999], pa.int32())), mode="append")
    ended = synced.run("verify", "--deep", "--json")
    assert ended.returncode == 1
    found = json.loads(ended.stdout)["tables"]["public.a"]
    assert found["differences"] == [{"key": {"id": "999999"}, "kind": "extra", "columns": []}]
    assert not found["counts_equal"]
    shown = synced.run("verify", "--deep")
    assert "id=999999 is only in the lake" in shown.stdout


@contextmanager
def writing(lab: Lab, work: Callable[[int, int], str], *, writers: int = 3) -> Iterator[threading.Event]:
    """Writers that commit as fast as they can until the block ends; the event is set when all have begun."""
    stop, begun = threading.Event(), threading.Barrier(writers + 1)

    def write(writer: int) -> None:
        with lab.database.connect() as connection:
            connection.execute("SET synchronous_commit = %s" % ("off" if writer else "on"))
            begun.wait()
            step = 0
            while not stop.is_set():
                connection.execute(work(writer, step).encode())
                step += 1

    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    begun.wait()
    try:
        yield stop
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def churn(writer: int, step: int) -> str:
    key = 10_000 * (writer + 1) + step % 200
    return (
        f"BEGIN; INSERT INTO a VALUES ({key}, 'w{step}', 1) ON CONFLICT (id) DO UPDATE SET v = 'u{step}'; "
        f"DELETE FROM a WHERE id = {10_000 * (writer + 1) + (step * 7) % 200}; "
        f"UPDATE a SET n = {step % 1000} WHERE id = {writer * 100 + step % 100 + 1}; COMMIT"
    )


def test_parity_is_exact_while_the_source_is_written(synced: Lab) -> None:
    with writing(synced, churn):
        for deep in (False, True, False, True, True):
            result = synced.replication.verify(deep=deep)
            assert result.ok, result.to_json()
    assert synced.replication.verify(deep=True).ok
    synced.assert_equal("public.a", "public.b")


def test_a_fault_is_found_while_the_source_is_written(synced: Lab) -> None:
    with writing(synced, churn):
        synced.delta("public.a").update(updates={"v": "'wrong'"}, predicate="id = 1777")
        result = synced.replication.verify(deep=True)
    assert [str(d) for d in result.parity[A].differences] == ["id=1777 differs in v"]


def test_an_open_transaction_holds_nothing_up(synced: Lab) -> None:
    with synced.database.connect(autocommit=False) as open_:
        open_.execute("UPDATE a SET v = 'not yet' WHERE id = 5")
        assert synced.replication.verify(deep=True).ok
        open_.commit()
    assert synced.replication.verify(deep=True).ok
    synced.assert_equal("public.a")


def test_a_truncate_beside_the_snapshot_is_no_difference(synced: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRUNCATE empties a table for snapshots that are older than it: such a difference is looked at again."""
    source, real, left = synced.replication.parts.source, synced.replication.parts.source.count, [1]

    def count(snapshot: Snapshot, table: TableName) -> int:
        if left:
            left.pop()
            synced.database.execute("TRUNCATE a; INSERT INTO a VALUES (1, 'new', 1)")
        return real(snapshot, table)

    monkeypatch.setattr(source, "count", count)
    result = synced.replication.verify(deep=True)
    assert result.ok
    assert result.parity[A].source_rows == 1
    assert result.synced.tables[A].counts.truncates == 1
