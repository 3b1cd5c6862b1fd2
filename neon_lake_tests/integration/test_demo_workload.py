"""The demonstration's workload does what it says, and its counts are the server's."""

import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import psycopg
import pytest

from neon_lake.demo import shop
from neon_lake.demo.actions import (
    ACTIONS,
    Transaction,
    correct_time,
    discontinue_product,
    read_document,
    rename_document,
)
from neon_lake.demo.workload import Done, Workload, WorkloadFailed, perform
from neon_lake_tests.fixtures.postgres import Database

SCALE = 0.05
KINDS = {"I": "inserts", "U": "updates", "D": "deletes"}


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change as pgoutput sends it; `values` holds the kind of each value of the new row, `keyed` that a key changed.

    Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
    """

    table: str
    kind: str
    values: str = ""
    keyed: bool = False


@pytest.fixture
def watched(database: Database) -> Database:
    """A small shop whose changes a slot keeps."""
    shop.load(database.connect(), scale=SCALE)
    database.execute("CREATE PUBLICATION watch FOR ALL TABLES WITH (publish_via_partition_root = true)")
    database.query("SELECT pg_create_logical_replication_slot('watch', 'pgoutput')")
    return database


def logged(database: Database) -> Iterator[Change]:
    """The changes since the last look, in the order of commits."""
    names: dict[int, str] = {}
    rows = database.query(
        "SELECT data FROM pg_logical_slot_get_binary_changes('watch', NULL, NULL, 'proto_version', '1',"
        " 'publication_names', 'watch')"
    )
    for (data,) in rows:
        tag = chr(data[0])
        if tag == "R":
            names[struct.unpack_from("!I", data, 1)[0]] = data[5:].split(b"\0")[1].decode()
        elif tag in KINDS:
            table, rest = names[struct.unpack_from("!I", data, 1)[0]], data[5:]
            keyed = tag == "U" and rest[:1] == b"K"
            if keyed:
                _, rest = tuple_of(rest[1:])
            yield Change(table=table, kind=KINDS[tag], values=tuple_of(rest[1:])[0], keyed=keyed)


def tuple_of(data: bytes) -> tuple[str, bytes]:
    kinds, place = "", 2
    for _ in range(struct.unpack_from("!H", data)[0]):
        kind = chr(data[place])
        kinds, place = kinds + kind, place + 1
        if kind == "t":
            place += 4 + struct.unpack_from("!I", data, place)[0]
    return kinds, data[place:]


def counted(changes: Iterator[Change]) -> Counter[tuple[str, str]]:
    return Counter((change.table, change.kind) for change in changes)


def told(done: Done) -> Counter[tuple[str, str]]:
    return Counter({(t, k): getattr(c, k) for t, c in done.tables.items() for k in KINDS.values() if getattr(c, k)})


def run_until(workload: Workload, committed: int) -> Done:
    """Let the workload go on until it has committed so much."""
    pause = threading.Event()
    with workload:
        while workload.done.committed < committed:
            pause.wait(0.02)
    return workload.done


def test_two_writers_count_what_the_server_logs(watched: Database) -> None:
    before = shop.counts(watched.connect())
    done = run_until(Workload(watched.url, rate=2000, writers=2), 600)
    after = shop.counts(watched.connect())
    assert told(done) == counted(logged(watched))
    assert {t: after[t] - before[t] for t in shop.TABLES} == {t: c.inserts - c.deletes for t, c in done.tables.items()}
    assert done.rolled_back > 0


def test_every_table_sees_every_kind_of_change(watched: Database) -> None:
    done = run_until(Workload(watched.url, rate=2000, writers=2), 600)
    assert set(done.tables) == set(shop.TABLES)
    missing = [(t, k) for t, c in done.tables.items() for k in KINDS.values() if not getattr(c, k)]
    assert missing == []


def test_keys_change_in_tables_with_simple_and_composite_keys(watched: Database) -> None:
    run_until(Workload(watched.url, rate=2000, writers=1), 250)
    assert {change.table for change in logged(watched) if change.keyed} == {"documents", "inventory", "order_items"}


def test_transactions_span_several_tables(watched: Database) -> None:
    with watched.connect() as connection:
        changes = perform(connection, next(a for a in ACTIONS if a.__name__ == "place_order"), Random(1), regretted=0)
    assert changes is not None
    assert {table for table, _ in +changes} == {"orders", "order_items", "inventory", "customers", "events"}
    assert counted(logged(watched)) == +changes


@pytest.mark.parametrize("action", [read_document, rename_document])
def test_documents_change_without_their_bodies_being_sent(watched: Database, action: object) -> None:
    chosen = next(a for a in ACTIONS if a is action)
    with watched.connect() as connection:
        assert perform(connection, chosen, Random(5), regretted=0) == {("documents", "updates"): 1}
    (change,) = logged(watched)
    columns = [name for (name,) in watched.query(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'documents'::regclass AND attnum > 0 ORDER BY attnum"
    )]  # fmt: skip
    assert change.values[columns.index("body")] == "u"
    assert change.keyed == (action is rename_document)


def test_an_event_that_moves_to_another_month_is_a_delete_and_an_insert(watched: Database) -> None:
    with watched.connect() as connection:
        assert perform(connection, correct_time, Random(2), regretted=0)
    assert [(c.table, c.kind) for c in logged(watched)] == [("events", "deletes"), ("events", "inserts")]


def test_what_is_regretted_is_neither_kept_nor_counted(watched: Database) -> None:
    before = shop.counts(watched.connect())
    with watched.connect() as connection:
        for action in ACTIONS:
            assert perform(connection, action, Random(1), regretted=1) is None
    assert shop.counts(watched.connect()) == before
    assert list(logged(watched)) == []


def test_an_action_without_a_row_to_act_on_is_rolled_back(watched: Database) -> None:
    with watched.connect() as connection:
        assert perform(connection, discontinue_product, Random(1), regretted=0) is None
        connection.execute("SELECT 1")


def test_the_rate_is_a_limit(watched: Database) -> None:
    pause = threading.Event()
    with Workload(watched.url, rate=0.001, writers=1) as workload:
        while not workload.done.committed + workload.done.rolled_back:
            pause.wait(0.01)
        workload.stop()
    assert workload.done.committed + workload.done.rolled_back == 1


def test_a_workload_whose_server_refuses_says_so(watched: Database) -> None:
    watched.execute("DROP TABLE events CASCADE")
    with Workload(watched.url, rate=2000, writers=1) as workload:
        for thread in workload._threads:
            thread.join()
        with pytest.raises(WorkloadFailed, match='relation "events" does not exist'):
            _ = workload.done


def test_changes_are_counted_by_the_rows_that_they_touch(watched: Database) -> None:
    with watched.connect() as connection, connection.transaction():
        transaction = Transaction(connection, Random(1))
        returned = transaction.change(
            "products", "updates", "UPDATE products SET rating = 1 WHERE id <= 3 RETURNING id"
        )
    assert sorted(returned) == [(1,), (2,), (3,)]
    assert transaction.changes == {("products", "updates"): 3}


def test_a_writer_survives_a_conflict(watched: Database) -> None:
    def collide(t: Transaction) -> None:
        t.change("customers", "deletes", "DELETE FROM customers WHERE id = (SELECT customer_id FROM orders LIMIT 1)")

    with psycopg.connect(watched.url) as connection:
        assert perform(connection, collide, Random(1), regretted=0) is None
        assert perform(connection, read_document, Random(1), regretted=0)
