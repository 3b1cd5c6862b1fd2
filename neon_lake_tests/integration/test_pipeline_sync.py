"""What a sync brings into the lake; Postgres is the judge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neon_lake.lifecycle import State
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.following import Case, follow
from neon_lake_tests.fixtures.pipelines import Lab

pytestmark = pytest.mark.lakes(spark="chosen")

A = TableName("public", "a")


def test_a_first_sync_brings_every_row_and_value(filled: Lab) -> None:
    result = filled.replication.sync()
    assert result.ok
    assert result.tables[A].snapshot_rows == 501
    assert result.tables[A].state is State.LIVE
    filled.assert_equal("public.a", "public.Odd Name")


def test_changes_follow(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute(
        """
        BEGIN;
        UPDATE a SET name = 'new', tags = '{}', price = NULL WHERE id < 50;
        DELETE FROM a WHERE id BETWEEN 100 AND 120;
        UPDATE a SET id = id + 5000 WHERE id BETWEEN 200 AND 210;
        INSERT INTO a (id, name) VALUES (100, 'again');
        UPDATE "Odd Name" SET "K2" = 'z' WHERE "Key.1" < 5;
        COMMIT;
        BEGIN; DELETE FROM a; ROLLBACK;
        UPDATE "Odd Name" SET "Key.1" = 99 WHERE "Key.1" = 2;
        DELETE FROM "Odd Name" WHERE "Key.1" = 99;
        """
    )
    result = filled.replication.sync()
    assert result.ok
    assert (result.tables[A].counts.updates, result.tables[A].counts.deletes) == (60, 21)
    filled.assert_equal("public.a", "public.Odd Name")


def test_an_idle_sync_writes_nothing(filled: Lab) -> None:
    first = filled.replication.sync()
    before = sorted(p for p in filled.root.rglob("*") if p.is_file())
    again = filled.replication.sync()
    assert again.captured.changes == 0
    assert sorted(p for p in filled.root.rglob("*") if p.is_file()) == before
    assert again.tables[A].watermark == first.tables[A].watermark
    assert filled.database.query("SELECT count(*) FROM pg_stat_replication") == [(0,)]


def test_truncate_empties_and_goes_on(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute(
        """BEGIN; INSERT INTO a (id) VALUES (7000); TRUNCATE a, "Odd Name"; INSERT INTO a (id) VALUES (1), (2);
        UPDATE a SET name = 'x' WHERE id = 2; COMMIT"""
    )
    assert filled.replication.sync().ok
    filled.assert_equal("public.a", "public.Odd Name")
    assert len(filled.lake("public.a")) == 2


def test_a_table_made_later_comes_along(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1), (2)")
    assert filled.replication.sync().ok
    filled.database.execute("INSERT INTO later VALUES (3)")
    assert filled.replication.sync().ok
    filled.assert_equal("public.a", "public.later")


def test_a_table_can_be_left_out_of_a_pattern(lab: Lab) -> None:
    lab = replace(lab, tables=("public.*", "{name: public.keyless, skip: true}"))
    lab.database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE keyless (id int)")
    assert list(lab.replication.sync().tables) == [A]


# --- excluded columns


@pytest.fixture
def database_lab(lab: Lab) -> Lab:
    return replace(lab, tables=("{name: public.users, exclude: [secret]}",))


def test_excluded_columns_stay_at_home(database_lab: Lab) -> None:
    lab = database_lab
    lab.database.execute("CREATE TABLE users (id int PRIMARY KEY, secret text); INSERT INTO users VALUES (1, 's')")
    lab.replication.sync()
    lab.database.execute("UPDATE users SET secret = 't'; INSERT INTO users VALUES (2, 'u')")
    assert lab.replication.sync().ok
    assert lab.lake("public.users") == [{"id": 1}, {"id": 2}]
    segments = [p.read_bytes() for p in (lab.root / "staging").rglob("*.parquet")]
    assert not any(b"secret" in data for data in segments)


def test_a_column_that_is_no_longer_excluded_gets_its_old_values(database_lab: Lab) -> None:
    database_lab.database.execute(
        "CREATE TABLE users (id int PRIMARY KEY, secret text); INSERT INTO users VALUES (1, 's')"
    )
    database_lab.replication.sync()
    open_ = replace(database_lab, tables=("public.users",))
    open_.database.execute("INSERT INTO users VALUES (2, 't')")
    assert open_.replication.sync().ok
    open_.assert_equal("public.users")
    closed = replace(database_lab)
    assert closed.replication.sync().ok
    assert closed.lake("public.users") == [{"id": 1}, {"id": 2}]


def test_with_soft_deletes_too_it_is_read_again_once(database_lab: Lab) -> None:
    database_lab.database.execute("CREATE TABLE users (id int PRIMARY KEY, secret text)")
    database_lab.database.execute("INSERT INTO users VALUES (1, 's'), (2, 't')")
    without = replace(database_lab, tables=("{name: public.users, exclude: [secret], deletes: soft}",))
    without.replication.sync()
    without.database.execute("DELETE FROM users WHERE id = 2")
    without.replication.sync()
    open_ = replace(database_lab, tables=("{name: public.users, deletes: soft}",))
    assert open_.replication.sync().ok
    assert {row["id"]: row["secret"] for row in open_.lake("public.users")} == {1: "s", 2: None}
    version = open_.delta("public.users").version()
    assert open_.replication.sync().ok
    assert open_.delta("public.users").version() == version


# --- soft deletes


@pytest.mark.chosen
def test_a_resync_that_brings_a_column_keeps_deleted_rows(lab: Lab) -> None:
    soft = replace(lab, tables=("{name: 'public.*', deletes: soft}",))
    soft.database.execute("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'a'), (2, 'b')")
    soft.replication.sync()
    soft.database.execute("DELETE FROM a WHERE id = 1; ALTER TABLE a ADD w text; INSERT INTO a VALUES (3, 'c', 'w')")
    assert soft.replication.resync(()).ok
    assert {(row["id"], row["w"], row["_deleted_at"] is None) for row in soft.lake("public.a")} == {
        (1, None, False),
        (2, None, True),
        (3, "w", True),
    }
    version = soft.delta("public.a").version()
    assert soft.replication.sync().ok
    assert soft.delta("public.a").version() == version


def test_soft_deletes_keep_rows(lab: Lab) -> None:
    soft = replace(lab, tables=("{name: 'public.*', deletes: soft}",))
    soft.database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'a'), (2, 'b'), (3, 'c')"
    )
    soft.replication.sync()
    soft.database.execute("DELETE FROM a WHERE id = 1; UPDATE a SET id = 20 WHERE id = 2")
    assert soft.replication.verify(deep=True).ok
    rows = {row["id"]: (row["v"], row["_deleted_at"] is not None) for row in soft.lake("public.a")}
    assert rows == {1: ("a", True), 2: ("b", True), 3: ("c", False), 20: ("b", False)}
    soft.database.execute("INSERT INTO a VALUES (1, 'back'); TRUNCATE a; INSERT INTO a VALUES (3, 'new')")
    assert soft.replication.verify(deep=True).ok
    rows = {row["id"]: (row["v"], row["_deleted_at"] is not None) for row in soft.lake("public.a")}
    assert rows == {1: ("a", True), 2: ("b", True), 3: ("new", False), 20: ("b", True)}
    soft.database.execute("DELETE FROM a; INSERT INTO a VALUES (4, 'four')")
    result = soft.replication.resync([A])
    assert result.ok
    assert {row["id"] for row in soft.lake("public.a")} == {1, 2, 3, 4, 20}
    assert soft.replication.verify(deep=True).ok


def test_going_from_soft_to_hard_deletes_removes_what_was_deleted(lab: Lab) -> None:
    lab.database.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1), (2)")
    soft = replace(lab, tables=("{name: public.a, deletes: soft}",))
    lab.replication.sync()
    lab.database.execute("DELETE FROM a WHERE id = 1")
    assert soft.replication.sync().ok
    assert len(lab.lake("public.a")) == 2
    assert replace(lab).replication.sync().ok
    lab.assert_equal("public.a")


# --- unchanged TOAST

DOCUMENTS = """
CREATE TABLE a (id int PRIMARY KEY, v text, doc text); ALTER TABLE a ALTER doc SET STORAGE EXTERNAL;
INSERT INTO a SELECT g, 'v', repeat('x', 5000) FROM generate_series(1, 20) g;
"""


@pytest.mark.parametrize(
    "batches",
    [
        ("UPDATE a SET doc = repeat('y', 5000) WHERE id IN (3, 7, 15)", "UPDATE a SET v = 'w' WHERE id IN (5, 7, 9)"),
        (
            (
                "ALTER TABLE a ADD COLUMN more text; ALTER TABLE a ALTER more SET STORAGE EXTERNAL;"
                "INSERT INTO a VALUES (21, 'v', NULL, repeat('y', 5000))"
            ),
            "UPDATE a SET v = 'w' WHERE id IN (20, 21)",
        ),
    ],
    ids=["files that a merge wrote", "files that are older than a column"],
)
def test_unchanged_values_are_found_in_any_file(lab: Lab, batches: tuple[str, ...]) -> None:
    follow(lab, Case(setup=DOCUMENTS, batches=batches, tables=("public.a",)))
