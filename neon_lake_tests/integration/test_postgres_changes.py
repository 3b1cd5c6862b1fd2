"""What the change stream of a real server carries."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from neon_lake.config import Table
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.source import Streamed, source_of


def rows(table: pa.Table, *columns: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.select(list(columns)).to_pylist()
    return found


def test_an_update_names_the_values_that_were_not_sent(database: Database, orders: Streamed) -> None:
    database.execute("UPDATE orders SET state = 'paid' WHERE id = 1; UPDATE orders SET document = NULL WHERE id = 2")
    assert rows(orders.drain()["public.orders"], "_op", "id", "state", "document", "_unchanged", "_old_key") == [
        {"_op": "U", "id": 1, "state": "paid", "document": None, "_unchanged": ["document"], "_old_key": None},
        {"_op": "U", "id": 2, "state": "new", "document": None, "_unchanged": None, "_old_key": None},
    ]


def test_a_key_change_is_one_update_with_its_old_key(database: Database, orders: Streamed) -> None:
    database.execute("UPDATE orders SET id = 10, document = 'short' WHERE id = 1")
    assert rows(orders.drain()["public.orders"], "_op", "id", "_old_key", "_unchanged") == [
        {"_op": "U", "id": 10, "_old_key": {"id": 1}, "_unchanged": None}
    ]


def test_a_delete_has_the_key(database: Database, orders: Streamed) -> None:
    database.execute("DELETE FROM orders WHERE id = 2")
    assert rows(orders.drain()["public.orders"], "_op", "id", "state") == [{"_op": "D", "id": 2, "state": None}]


def test_full_identity_fills_in_what_was_not_sent(database: Database) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, note text, document text); ALTER TABLE t REPLICA IDENTITY FULL;"
        "ALTER TABLE t ALTER COLUMN document SET STORAGE EXTERNAL; INSERT INTO t VALUES (1, 'a', repeat('x', 9000))"
    )
    streamed = Streamed.begun(database, "public.t")
    database.execute("UPDATE t SET note = 'b'; UPDATE t SET id = 2; DELETE FROM t")
    document = "x" * 9000
    assert rows(streamed.drain()["public.t"], "_op", "id", "note", "document", "_unchanged", "_old_key") == [
        {"_op": "U", "id": 1, "note": "b", "document": document, "_unchanged": None, "_old_key": None},
        {"_op": "U", "id": 2, "note": "b", "document": document, "_unchanged": None, "_old_key": {"id": 1}},
        {"_op": "D", "id": 2, "note": "b", "document": document, "_unchanged": None, "_old_key": None},
    ]


def test_a_toasted_key_that_did_not_change_is_no_key_change(database: Database) -> None:
    database.execute(
        "CREATE TABLE t (id text PRIMARY KEY, v integer); ALTER TABLE t ALTER COLUMN id SET STORAGE EXTERNAL;"
        "INSERT INTO t VALUES (repeat('k', 2500), 1)"
    )
    streamed = Streamed.begun(database, "public.t")
    database.execute("UPDATE t SET v = 2")
    assert rows(streamed.drain()["public.t"], "id", "v", "_unchanged", "_old_key") == [
        {"id": "k" * 2500, "v": 2, "_unchanged": None, "_old_key": None}
    ]


def test_an_identity_index_is_the_key(database: Database) -> None:
    database.execute(
        "CREATE TABLE t (v text, b integer NOT NULL, a integer NOT NULL, UNIQUE (a, b));"
        "ALTER TABLE t REPLICA IDENTITY USING INDEX t_a_b_key"
    )
    source = source_of(database, "public.t")
    (relation,) = source.survey().relations
    assert [column.name for column in relation.key] == ["b", "a"]
    streamed = Streamed(source)
    streamed.begin()
    database.execute("INSERT INTO t VALUES ('x', 1, 2); UPDATE t SET a = 3; DELETE FROM t")
    assert rows(streamed.drain()["public.t"], "_op", "_old_key", "b", "a") == [
        {"_op": "I", "_old_key": None, "b": 1, "a": 2},
        {"_op": "U", "_old_key": {"b": 1, "a": 2}, "b": 1, "a": 3},
        {"_op": "D", "_old_key": None, "b": 1, "a": 3},
    ]


def test_a_truncate_is_a_change_of_each_published_table(database: Database) -> None:
    database.execute(
        "CREATE TABLE parent (id integer PRIMARY KEY);"
        "CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent);"
        "CREATE TABLE other (id integer PRIMARY KEY, parent integer REFERENCES parent)"
    )
    streamed = Streamed.begun(database, "public.parent", "public.child")
    with database.connect(autocommit=False) as session:
        session.execute("INSERT INTO parent VALUES (1)")
        session.execute("TRUNCATE parent CASCADE")
        session.execute("INSERT INTO parent VALUES (2)")
    changes = streamed.drain()
    assert rows(changes["public.parent"], "_op", "id") == [
        {"_op": "I", "id": 1},
        {"_op": "T", "id": None},
        {"_op": "I", "id": 2},
    ]
    assert rows(changes["public.child"], "_op", "id") == [{"_op": "T", "id": None}]
    assert set(changes) == {"public.parent", "public.child"}


def test_partitions_stream_as_their_root(database: Database) -> None:
    database.execute(
        "CREATE TABLE events (day date, id integer, v text, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);"
        "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');"
        "CREATE TABLE events_2 (v text, id integer NOT NULL, day date NOT NULL);"
        "ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');"
        "INSERT INTO events VALUES ('2026-01-05', 1, 'a'), ('2026-02-05', 2, 'b')"
    )
    source = source_of(database, "public.*")
    assert [str(relation.table) for relation in source.survey().relations] == ["public.events"]
    streamed = Streamed(source)
    before = streamed.begin()["public.events"]
    assert sorted((row["id"], row["v"]) for row in rows(before, "id", "v")) == [(1, "a"), (2, "b")]
    database.execute("UPDATE events SET v = 'c' WHERE id = 2; UPDATE events SET day = '2026-02-07' WHERE id = 1")
    database.execute("TRUNCATE events")
    changes = streamed.drain()
    assert set(changes) == {"public.events"}
    assert [(row["_op"], row["id"], row["v"]) for row in rows(changes["public.events"], "_op", "id", "v")] == [
        ("U", 2, "c"),
        ("D", 1, None),
        ("I", 1, "a"),
        ("T", None, None),
    ]


def test_only_what_commits_is_streamed_and_in_commit_order(database: Database, orders: Streamed) -> None:
    first, second = database.connect(autocommit=False), database.connect(autocommit=False)
    first.execute("INSERT INTO orders VALUES (100, 'first')")
    second.execute("INSERT INTO orders VALUES (200, 'second')")
    second.commit()
    first.execute("SAVEPOINT s")
    first.execute("INSERT INTO orders VALUES (101, 'undone')")
    first.execute("ROLLBACK TO s")
    first.execute("INSERT INTO orders VALUES (102, 'kept')")
    first.commit()
    second.execute("INSERT INTO orders VALUES (201, 'undone')")
    second.rollback()
    found = rows(orders.drain()["public.orders"], "id", "_seq", "_lsn", "_xid", "_committed_at")
    assert [(row["id"], row["_seq"]) for row in found] == [(200, 0), (100, 0), (102, 1)]
    assert found[0]["_lsn"] < found[1]["_lsn"] == found[2]["_lsn"]
    assert found[1]["_xid"] == found[2]["_xid"] != found[0]["_xid"]
    assert found[0]["_committed_at"] <= found[1]["_committed_at"]


def test_changes_of_several_tables_in_one_transaction_share_their_order(database: Database) -> None:
    database.execute("CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (id integer PRIMARY KEY)")
    streamed = Streamed.begun(database, "public.*")
    with database.connect(autocommit=False) as session:
        for number in range(4):
            session.execute(f"INSERT INTO {'ab'[number % 2]} VALUES ({number})")
    changes = streamed.drain()
    assert [row["_seq"] for row in rows(changes["public.a"], "_seq")] == [0, 2]
    assert [row["_seq"] for row in rows(changes["public.b"], "_seq")] == [1, 3]
    assert changes["public.a"]["_lsn"].to_pylist() == changes["public.b"]["_lsn"].to_pylist()


def test_a_column_that_is_added_appears_from_its_first_change_on(database: Database, orders: Streamed) -> None:
    database.execute("INSERT INTO orders (id) VALUES (10)")
    database.execute("ALTER TABLE orders ADD COLUMN total numeric(6, 2) DEFAULT 1.5")
    database.execute("INSERT INTO orders (id) VALUES (11)")
    batches = [batch for piece in orders.pieces() for batch in piece.changes]
    assert [batch.rows.column("id").to_pylist() for batch in batches] == [[10], [11]]
    (added,) = [column for column in batches[1].relation.columns if column.name == "total"]
    assert (added.type, added.arrow, added.has_default) == ("numeric(6,2)", pa.decimal128(6, 2), True)


def test_a_table_that_loses_its_key_goes_on_without(database: Database, orders: Streamed) -> None:
    database.execute("ALTER TABLE orders DROP CONSTRAINT orders_pkey; INSERT INTO orders (id) VALUES (10)")
    (batch,) = [batch for piece in orders.pieces() for batch in piece.changes]
    assert batch.relation.key == ()
    assert batch.rows.column("id").to_pylist() == [10]


def test_columns_that_are_left_out_do_not_come(database: Database) -> None:
    database.execute("CREATE TABLE t (secret text, id integer PRIMARY KEY, v text)")
    streamed = Streamed(source_of(database, "public.*", Table(name="public.t", exclude=("secret",))))
    assert streamed.begin()["public.t"].schema.names == ["id", "v", "_rescued_data"]
    database.execute("INSERT INTO t VALUES ('s', 1, 'v'); UPDATE t SET id = 2, secret = 't'; DELETE FROM t")
    changes = streamed.drain()["public.t"]
    assert changes.schema.names[-2:] == ["id", "v"]
    assert [(row["_op"], row["id"], row["v"]) for row in rows(changes, "_op", "id", "v")] == [
        ("I", 1, "v"),
        ("U", 2, "v"),
        ("D", 2, None),
    ]


def test_tables_that_nobody_asks_for_do_not_come(database: Database, orders: Streamed) -> None:
    database.execute("CREATE TABLE other (id integer PRIMARY KEY)")
    source = source_of(database, "public.orders")
    database.execute("INSERT INTO other VALUES (1); INSERT INTO orders VALUES (4)")
    orders.source.publish(source_of(database, "public.*").survey().relations)
    database.execute("INSERT INTO other VALUES (2); INSERT INTO orders VALUES (5)")
    assert [relation.table.name for relation in source.survey().relations] == ["orders"]
    changes = orders.drain()
    assert set(changes) == {"public.orders"}
    assert changes["public.orders"]["id"].to_pylist() == [4, 5]


def test_generated_columns_come_where_the_server_sends_them(database: Database) -> None:
    virtual = ", w integer GENERATED ALWAYS AS (id * 3) VIRTUAL" if database.server.major >= 18 else ""
    database.execute(f"CREATE TABLE t (id integer PRIMARY KEY, v integer GENERATED ALWAYS AS (id * 2) STORED{virtual})")
    database.execute("INSERT INTO t VALUES (1)")
    streamed = Streamed(source_of(database, "public.t"))
    before = streamed.begin()["public.t"]
    database.execute("INSERT INTO t VALUES (2)")
    after = streamed.drain()["public.t"]
    expected = ["id", "v"] if database.server.major >= 18 else ["id"]
    assert before.schema.names[:-1] == expected
    assert after.schema.names[8:] == expected
    assert "v" not in expected or (before["v"].to_pylist(), after["v"].to_pylist()) == ([2], [4])
