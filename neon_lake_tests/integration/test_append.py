"""The write mode `append`: every change is a row, and what was there is never altered."""

from __future__ import annotations

from typing import Any

import pytest

from neon_lake.errors import ConfigError
from neon_lake.lifecycle import State
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.pipelines import Lab

pytestmark = pytest.mark.lakes(spark="chosen")

T = TableName("public", "t")


@pytest.fixture
def lab(lab: Lab) -> Lab:
    return Lab(database=lab.database, root=lab.root, tables=("{name: public.t, mode: append}",))


@pytest.fixture
def filled(lab: Lab) -> Lab:
    lab.database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text, doc text); ALTER TABLE t ALTER doc SET STORAGE EXTERNAL;"
        "INSERT INTO t VALUES (1, 'a', repeat('d', 3000)), (2, 'b', 'e')"
    )
    lab.replication.sync()
    return lab


def history(lab: Lab, *columns: str) -> list[tuple[Any, ...]]:
    """The operation and these columns of every row, in the order of the changes."""
    data = lab.content("public.t")
    order = [("_lsn", "ascending"), ("_seq", "ascending"), ("_op", "ascending"), (columns[0], "ascending")]
    return [(row["_op"], *(row[c] for c in columns)) for row in data.sort_by(order).to_pylist()]


SNAPSHOT = [("R", 1, "a"), ("R", 2, "b")]


def test_every_change_is_a_row(filled: Lab) -> None:
    filled.database.execute("UPDATE t SET v = 'a2' WHERE id = 1; UPDATE t SET v = 'a3' WHERE id = 1")
    filled.replication.sync()
    filled.database.execute("BEGIN; INSERT INTO t VALUES (3, 'c'); DELETE FROM t WHERE id = 3; COMMIT")
    filled.database.execute("DELETE FROM t WHERE id = 2")
    filled.replication.sync()
    changes = [("U", 1, "a2"), ("U", 1, "a3"), ("I", 3, "c"), ("D", 3, None), ("D", 2, None)]
    assert history(filled, "id", "v") == SNAPSHOT + changes
    assert filled.replication.verify().parity[T].lake_rows == 1
    assert filled.replication.verify(deep=True).ok


@pytest.mark.chosen
def test_values_that_were_not_sent_are_there(filled: Lab) -> None:
    long, other = "d" * 3000, "f" * 3000
    filled.database.execute("UPDATE t SET v = 'a2' WHERE id = 1")
    filled.replication.sync()
    filled.database.execute(
        "BEGIN; UPDATE t SET v = 'a3' WHERE id = 1; UPDATE t SET doc = repeat('f', 3000) WHERE id = 1;"
        "UPDATE t SET v = 'a4' WHERE id = 1; UPDATE t SET id = 10 WHERE id = 1; COMMIT"
    )
    filled.replication.sync()
    filled.database.execute("UPDATE t SET v = 'a5' WHERE id = 10")
    filled.replication.sync()
    filled.database.execute("UPDATE t SET doc = repeat('g', 3000) WHERE id = 10")
    filled.replication.sync()
    filled.database.execute("UPDATE t SET v = 'a6' WHERE id = 10")
    filled.replication.sync()
    assert [row for row in history(filled, "id", "v", "doc") if row[0] != "R"] == [
        ("U", 1, "a2", long),
        ("U", 1, "a3", long),
        ("U", 1, "a3", other),
        ("U", 1, "a4", other),
        ("D", 1, None, None),
        ("I", 10, "a4", other),
        ("U", 10, "a5", other),
        ("U", 10, "a5", "g" * 3000),
        ("U", 10, "a6", "g" * 3000),
    ]


def test_truncate_is_a_row(filled: Lab) -> None:
    filled.database.execute("BEGIN; INSERT INTO t VALUES (3, 'c'); TRUNCATE t; INSERT INTO t VALUES (4, 'd'); COMMIT")
    filled.replication.sync()
    changes = [("I", 3, "c"), ("T", None, None), ("I", 4, "d")]
    assert history(filled, "id", "v") == SNAPSHOT + changes
    parity = filled.replication.verify().parity[T]
    assert (parity.source_rows, parity.lake_rows) == (1, 1)


def test_a_resync_puts_the_table_behind_its_history(filled: Lab) -> None:
    filled.database.execute("UPDATE t SET v = 'a2' WHERE id = 1")
    filled.replication.sync()
    assert filled.replication.resync((T,)).ok
    snapshot = [("T", None, None), ("R", 1, "a2"), ("R", 2, "b")]
    assert history(filled, "id", "v") == [*SNAPSHOT, ("U", 1, "a2"), *snapshot]
    filled.database.execute("DELETE FROM t WHERE id = 2")
    assert filled.replication.verify().parity[T].lake_rows == 1


def test_a_crash_doubles_no_row(filled: Lab) -> None:
    filled.database.execute("INSERT INTO t VALUES (3, 'c')")
    filled.run("sync", NEON_LAKE_FAILPOINT="apply.before-commit")
    filled.run("sync", NEON_LAKE_FAILPOINT="apply.after-commit")
    assert filled.replication.sync().ok
    assert history(filled, "id", "v") == [*SNAPSHOT, ("I", 3, "c")]


def test_columns_that_come_and_go_keep_their_history(filled: Lab) -> None:
    filled.database.execute("ALTER TABLE t DROP v, ADD n int; INSERT INTO t (id, n) VALUES (3, 7)")
    assert filled.replication.sync().ok
    # a new column may be a renamed one, so the table is read again
    assert ("R", 1, None, None) in history(filled, "id", "v", "n")
    filled.database.execute("ALTER TABLE t DROP doc; INSERT INTO t (id, n) VALUES (4, 8)")
    assert filled.replication.sync().ok
    version = filled.delta("public.t").version()
    assert filled.replication.sync().ok
    assert filled.delta("public.t").version() == version
    rows = history(filled, "id", "v", "n")
    assert rows[:2] == [("R", 1, "a", None), ("R", 2, "b", None)]
    assert rows[-1] == ("I", 4, None, 8)
    assert filled.replication.verify().ok
    filled.database.execute("ALTER TABLE t ADD k int DEFAULT 5")
    assert filled.replication.sync().ok
    assert ("R", 4, 5) in history(filled, "id", "k")


def test_a_column_that_is_no_longer_excluded_is_read_once(filled: Lab) -> None:
    filled.replication.sync()
    line = "{name: public.t, mode: append, exclude: [v]}"
    without = Lab(database=filled.database, root=filled.root, tables=(line,))
    assert without.replication.sync().ok
    filled.database.execute("INSERT INTO t VALUES (3, 'c')")
    assert without.replication.sync().ok
    assert filled.replication.sync().ok
    rows = [*SNAPSHOT, ("I", 3, None), ("T", None, None), *SNAPSHOT, ("R", 3, "c")]
    assert history(filled, "id", "v") == rows
    assert filled.replication.sync().ok
    assert history(filled, "id", "v") == rows


def test_a_column_of_another_type_parks_the_table_and_keeps_its_history(filled: Lab) -> None:
    before = history(filled, "id", "v")
    filled.database.execute("ALTER TABLE t ALTER v TYPE int USING 1; UPDATE t SET v = 2 WHERE id = 1")
    result = filled.replication.sync().tables[T]
    assert result.state is State.PARKED
    assert "Column v of public.t changed its type, and the lake holds older changes of it" in str(result.error)
    assert history(filled, "id", "v") == before
    (filled.root / "lake/public/t").rename(filled.root / "old")
    assert filled.replication.resync((T,)).ok
    assert history(filled, "id", "v") == [("R", 1, 2), ("R", 2, 1)]


def test_a_key_that_comes_or_goes_changes_nothing(filled: Lab) -> None:
    filled.database.execute("ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t DROP CONSTRAINT t_pkey")
    filled.database.execute("UPDATE t SET v = 'a2' WHERE id = 1; DELETE FROM t WHERE id = 2")
    assert filled.replication.sync().ok
    assert history(filled, "id", "v") == [*SNAPSHOT, ("D", 1, "a"), ("I", 1, "a2"), ("D", 2, "b")]


def test_a_table_without_a_key_gives_its_inserts(lab: Lab) -> None:
    lab.database.execute("CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    assert lab.replication.sync().ok
    lab.database.execute("INSERT INTO t VALUES (2, 'b'); UPDATE t SET v = 'x'; DELETE FROM t WHERE id = 1")
    assert lab.replication.sync().ok
    assert history(lab, "id", "v") == [*SNAPSHOT, ("I", 2, "b")]
    verified = lab.replication.verify()
    assert verified.ok
    assert "only its inserts are sent" in verified.left_out[T]
    assert "only its inserts are sent" in lab.run("verify").stdout


def test_full_identity_gives_the_rows_of_before(lab: Lab) -> None:
    lab.database.execute("CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL")
    lab.replication.sync()
    lab.database.execute("INSERT INTO t VALUES (1, 'a'), (1, 'a'); UPDATE t SET v = 'b'; DELETE FROM t")
    assert lab.replication.sync().ok
    both = [("D", 1, "a"), ("I", 1, "b")]
    assert history(lab, "id", "v") == [("I", 1, "a")] * 2 + both * 2 + [("D", 1, "b")] * 2
    assert lab.replication.verify().parity[T].lake_rows == 0


def test_another_mode_is_followed_by_a_new_snapshot(filled: Lab) -> None:
    mirror = Lab(database=filled.database, root=filled.root, tables=("public.t",))
    assert mirror.replication.sync().ok
    mirror.assert_equal("public.t")
    assert filled.replication.sync().ok
    assert history(filled, "id", "v") == SNAPSHOT


def test_what_has_no_meaning_is_refused(filled: Lab) -> None:
    with pytest.raises(ConfigError, match=r"line 6.*deletes: soft, which is for mode: mirror"):
        _ = Lab(
            database=filled.database, root=filled.root, tables=("{name: public.t, mode: append, deletes: soft}",)
        ).config
    with pytest.raises(ConfigError, match="every change of it as a row"):
        filled.replication.replay(T, filled.database.query("SELECT now()")[0][0])
