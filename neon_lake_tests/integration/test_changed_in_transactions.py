"""Only what commits is followed, in the order of the commits."""

# ruff: noqa: E501 - a script of SQL is read as a whole

from __future__ import annotations

from pathlib import Path

import pytest

from neon_lake_tests.fixtures.following import PLAIN, follow, plain, synced
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.postgres import StartServer, fresh_database

pytestmark = pytest.mark.lakes(spark="chosen")

TRANSACTIONS = {
    "rolled back": "BEGIN; DELETE FROM t; INSERT INTO t VALUES (99, 'no'); ROLLBACK; UPDATE t SET v = 'yes' WHERE id = 1",
    "savepoints": (
        "BEGIN; INSERT INTO t VALUES (20, 'a'); SAVEPOINT one; UPDATE t SET v = 'b' WHERE id = 20; SAVEPOINT two; DELETE FROM t;"
        "ROLLBACK TO two; UPDATE t SET id = 21 WHERE id = 20; RELEASE one; SAVEPOINT three; INSERT INTO t VALUES (20, 'c');"
        "ROLLBACK TO three; INSERT INTO t VALUES (22, 'd'); COMMIT"
    ),
    "subtransactions of a function": (
        "DO $$ BEGIN FOR n IN 1..300 LOOP BEGIN INSERT INTO t VALUES (n, 'loop'); "
        "IF n % 7 = 0 THEN RAISE EXCEPTION 'no'; END IF; "
        "EXCEPTION WHEN unique_violation THEN UPDATE t SET v = 'was there' WHERE id = n; WHEN OTHERS THEN NULL; END; END LOOP; END $$"
    ),
    "an error in the middle": "BEGIN; UPDATE t SET v = 'no'; SAVEPOINT s; ROLLBACK",
    "logical messages": (
        "SELECT pg_logical_emit_message(false, 'p', 'outside'); BEGIN; INSERT INTO t VALUES (30, 'x');"
        "SELECT pg_logical_emit_message(true, 'p', repeat('inside', 1000)); UPDATE t SET v = 'y' WHERE id = 30; COMMIT;"
        "SELECT pg_logical_emit_message(true, 'p', 'alone')"
    ),
    "tables that are not published": (
        "CREATE TEMP TABLE x (id int PRIMARY KEY); CREATE UNLOGGED TABLE y (id int PRIMARY KEY); BEGIN; INSERT INTO x VALUES (1);"
        "INSERT INTO y VALUES (1); INSERT INTO t VALUES (31, 'x'); COMMIT"
    ),
    "an empty one": "BEGIN; COMMIT; BEGIN; SELECT txid_current(); COMMIT",
    "rows locked, not changed": "BEGIN; SELECT * FROM t FOR UPDATE; SELECT * FROM t FOR SHARE; COMMIT",
}


@pytest.mark.parametrize("name", TRANSACTIONS)
def test_only_what_commits_is_followed(lab: Lab, name: str) -> None:
    follow(lab, plain(TRANSACTIONS[name], "UPDATE t SET v = 'after' WHERE id = 2"))


def test_a_large_transaction_that_is_rolled_back_with_its_savepoints(lab: Lab) -> None:
    """Version 18 tells of its end, though it told nothing of its beginning."""
    lab.database.execute(PLAIN)
    lab.database.execute(f"ALTER DATABASE {lab.database.name} SET logical_decoding_work_mem = '64kB'")
    assert lab.replication.sync().ok
    lab.database.execute(
        "BEGIN; INSERT INTO t VALUES (100, 'a'); SAVEPOINT s; INSERT INTO t SELECT g, 'b' FROM generate_series(101, 110) g; RELEASE s;"
        "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(2000, 2400) g; ROLLBACK"
    )
    lab.database.execute("UPDATE t SET v = 'after' WHERE id = 1")
    synced(lab)
    lab.assert_equal("public.t")


@pytest.mark.chosen
def test_transactions_that_run_side_by_side_are_applied_in_the_order_of_their_commits(lab: Lab) -> None:
    lab.database.execute(PLAIN)
    assert lab.replication.sync().ok
    first, second = lab.database.connect(autocommit=False), lab.database.connect(autocommit=False)
    first.execute("UPDATE t SET v = 'first' WHERE id = 1")
    second.execute("UPDATE t SET v = 'second' WHERE id = 2")
    first.execute("INSERT INTO t VALUES (50, 'first')")
    second.commit()
    synced(lab)
    lab.assert_equal("public.t")
    second.execute("DELETE FROM t WHERE id = 2")
    first.execute("UPDATE t SET id = 60 WHERE id = 3")
    first.commit()
    second.execute("INSERT INTO t VALUES (3, 'second')")
    second.commit()
    synced(lab)
    lab.assert_equal("public.t")


def test_two_phase_commits(tmp_path: Path, start_server: StartServer) -> None:
    with start_server(max_prepared_transactions="4") as server, fresh_database(server) as database:
        lab = Lab(database=database, root=tmp_path)
        database.execute(PLAIN)
        assert lab.replication.sync().ok
        database.execute("BEGIN; UPDATE t SET v = 'prepared' WHERE id = 1; PREPARE TRANSACTION 'one'")
        database.execute(
            "BEGIN; DELETE FROM t WHERE id = 2; PREPARE TRANSACTION 'two'; UPDATE t SET v = 'b' WHERE id = 3"
        )
        synced(lab)
        lab.assert_equal("public.t")
        database.execute("COMMIT PREPARED 'one'")
        synced(lab)
        lab.assert_equal("public.t")
        assert {row["v"] for row in lab.lake("public.t") if row["id"] == 1} == {"prepared"}
        database.execute("ROLLBACK PREPARED 'two'")
        synced(lab)
        lab.assert_equal("public.t")
