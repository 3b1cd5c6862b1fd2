"""Tables without a key: with full replica identity they are mirrored exactly, copies and all."""

from __future__ import annotations

import pytest

from neon_lake.errors import ConfigError, TableRefused
from neon_lake.lifecycle import State
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.following import synced
from neon_lake_tests.fixtures.pipelines import Lab

pytestmark = pytest.mark.lakes(spark="chosen")

T = TableName("public", "t")


@pytest.fixture
def filled(lab: Lab) -> Lab:
    lab.database.execute(
        "CREATE TABLE t (a int, b text, tags text[], x float8, day date, doc text);"
        "ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t ALTER doc SET STORAGE EXTERNAL;"
        "INSERT INTO t SELECT g % 5, 'b' || g % 3 FROM generate_series(1, 100) g;"
        "INSERT INTO t VALUES (NULL), (NULL);"
        "INSERT INTO t SELECT 7, 'x', '{p,NULL}', 'NaN', '2026-01-01' FROM generate_series(1, 2);"
        "INSERT INTO t VALUES (8, '', '{}', '-0', '2026-01-02'), (8, '', '{}', '0', '2026-01-02');"
        "INSERT INTO t SELECT 9, 'long', NULL, NULL, NULL, repeat('d', 5000) FROM generate_series(1, 3)"
    )
    lab.replication.sync()
    return lab


def assert_mirrored(lab: Lab) -> None:
    """Everything is applied, and each row stands as often on either side."""
    assert lab.replication.sync().ok
    if not lab.database.query("SELECT FROM t WHERE to_jsonb(t) ->> 'day' ~ 'infinity'"):
        assert repr(lab.lake("public.t")) == repr(lab.source("public.t"))
    verified = lab.replication.verify(deep=True)
    assert verified.ok, [str(d) for p in verified.parity.values() for d in p.differences]


@pytest.mark.parametrize(
    "changes",
    [
        "SELECT 1",
        "INSERT INTO t SELECT 1, 'b1' FROM generate_series(1, 3)",
        "DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 1 AND b = 'b1')",
        "DELETE FROM t WHERE a = 7",
        "DELETE FROM t WHERE a IS NULL",
        "UPDATE t SET a = 1, b = 'b1' WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 2)",
        "UPDATE t SET b = b",
        "UPDATE t SET a = a + 1",
        "UPDATE t SET a = NULL WHERE a = 3; UPDATE t SET a = 3 WHERE a IS NULL",
        "UPDATE t SET x = 0 WHERE a = 8",
        "UPDATE t SET b = 'short' WHERE a = 9",
        "UPDATE t SET doc = repeat('e', 6000) WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 9)",
        "UPDATE t SET day = 'infinity' WHERE a = 7",
        "INSERT INTO t (day) VALUES ('infinity'), ('infinity'), ('-infinity'), (NULL)",
        "BEGIN; INSERT INTO t VALUES (50), (50); DELETE FROM t WHERE ctid = (SELECT max(ctid) FROM t); COMMIT",
        "DELETE FROM t; INSERT INTO t SELECT 1, 'b1' FROM generate_series(1, 20)",
        "TRUNCATE t",
        "BEGIN; INSERT INTO t VALUES (1, 'gone'); TRUNCATE t; INSERT INTO t VALUES (1, 'b1'), (1, 'b1'); COMMIT",
    ],
)
def test_each_row_stands_as_often_in_the_lake(filled: Lab, changes: str) -> None:
    filled.database.execute(changes)
    synced(filled)
    assert_mirrored(filled)
    filled.database.execute(LATER)
    synced(filled)
    assert_mirrored(filled)


LATER = "UPDATE t SET a = 100 WHERE ctid = (SELECT min(ctid) FROM t); INSERT INTO t (a) VALUES (1)"


@pytest.mark.parametrize(
    "ddl",
    [
        "ALTER TABLE t ADD n int; UPDATE t SET b = 'later' WHERE a = 1; DELETE FROM t WHERE a = 2",
        "ALTER TABLE t ADD n int DEFAULT 5; DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 2)",
        "ALTER TABLE t DROP b; DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 2)",
        "ALTER TABLE t ALTER a TYPE bigint; UPDATE t SET a = 1 WHERE a = 2",
    ],
)
def test_so_it_does_after_ddl(filled: Lab, ddl: str) -> None:
    filled.database.execute(ddl)
    assert_mirrored(filled)
    filled.database.execute(LATER)
    synced(filled)
    assert_mirrored(filled)


@pytest.mark.chosen
def test_what_was_rescued_is_removed_with_its_row(filled: Lab) -> None:
    filled.database.execute("INSERT INTO t (a, day) VALUES (60, 'infinity'), (60, 'infinity'), (60, '-infinity')")
    filled.replication.sync()
    filled.database.execute("DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 60 AND day = 'infinity')")
    filled.database.execute("UPDATE t SET b = 'u' WHERE a = 60 AND day = '-infinity'")
    synced(filled)
    assert_mirrored(filled)
    rows = filled.content("public.t").select(["a", "b", "_rescued_data"]).to_pylist()
    assert sorted(str((r["b"], r["_rescued_data"])) for r in rows if r["a"] == 60) == [
        """('u', '{"day": "-infinity"}')""",
        """(None, '{"day": "infinity"}')""",
    ]


def test_a_copy_too_many_in_the_lake_is_found(filled: Lab) -> None:
    assert [str(r["x"]) for r in filled.content("public.t").to_pylist() if r["a"] == 8].count("-0.0") == 1
    filled.remove("public.t", "a = 8 AND CAST(x AS STRING) = '-0.0'")
    parity = filled.replication.verify(deep=True).parity[T]
    assert not parity.counts_equal
    assert parity.differing == 1
    assert "is missing in the lake" in str(parity.differences[0])


def test_a_table_gains_and_loses_its_key(filled: Lab) -> None:
    filled.database.execute("DELETE FROM t; INSERT INTO t (a) VALUES (1), (2), (3); ALTER TABLE t ADD PRIMARY KEY (a)")
    assert_mirrored(filled)
    assert "_row_id" not in filled.content("public.t").column_names
    filled.database.execute("UPDATE t SET b = 'x' WHERE a = 2; ALTER TABLE t DROP CONSTRAINT t_pkey")
    filled.database.execute("INSERT INTO t (a) VALUES (1)")
    assert_mirrored(filled)
    assert "_row_id" in filled.content("public.t").column_names


def test_without_full_identity_the_user_is_told_what_to_do(lab: Lab) -> None:
    lab.database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    with pytest.raises(TableRefused, match=r"has no key; add a primary key, or run .* REPLICA IDENTITY FULL"):
        lab.replication.sync()
    lab.database.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    assert_mirrored(lab)


def test_soft_deletes_need_a_key(lab: Lab) -> None:
    lab.database.execute("CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL")
    soft = Lab(database=lab.database, root=lab.root, tables=("{name: public.t, deletes: soft}",))
    with pytest.raises(TableRefused, match=r"public\.t has no key, so that its deletes cannot be soft"):
        soft.replication.sync()


def test_its_changes_cannot_be_replayed(filled: Lab) -> None:
    moment = filled.database.query("SELECT now() - interval '1 hour'")[0][0]
    with pytest.raises(ConfigError, match="has no key, so that no change of it can be applied again"):
        filled.replication.replay(T, moment)


def test_a_table_without_columns_has_as_many_rows(lab: Lab) -> None:
    lab.database.execute("CREATE TABLE t (); ALTER TABLE t REPLICA IDENTITY FULL")
    lab.database.execute("INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES")
    assert lab.replication.sync().ok
    assert lab.content("public.t").num_rows == 2
    lab.database.execute("INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES")
    lab.database.execute("DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)")
    assert lab.replication.sync().tables[T].state is State.LIVE
    assert lab.content("public.t").num_rows == 3
    assert lab.replication.verify(deep=True).ok
