"""The process is killed between two durable effects; the next sync makes source and lake equal."""

from __future__ import annotations

import signal

import pytest

from neon_lake.failpoints import FAILPOINTS
from neon_lake_tests.fixtures.pipelines import Lab

CHANGES = """
BEGIN;
UPDATE a SET v = 'changed' WHERE id <= 300;
INSERT INTO a SELECT g, 'new' FROM generate_series(2001, 2100) g;
DELETE FROM a WHERE id BETWEEN 500 AND 520;
UPDATE b SET id = id + 1000 WHERE id < 10;
COMMIT;
TRUNCATE c;
INSERT INTO c VALUES (1);
INSERT INTO d SELECT g FROM generate_series(1001, 1100) g;
"""
TABLES = ("public.a", "public.b", "public.c", "public.d")


@pytest.fixture
def filled(lab: Lab) -> Lab:
    lab.database.execute(
        """
        CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT g, 'v' || g FROM generate_series(1, 1000) g;
        CREATE TABLE b (id int PRIMARY KEY, doc text);
        ALTER TABLE b ALTER doc SET STORAGE EXTERNAL;
        INSERT INTO b SELECT g, repeat('x', 5000) FROM generate_series(1, 20) g;
        CREATE TABLE c (id int PRIMARY KEY); INSERT INTO c VALUES (1), (2);
        CREATE TABLE d (id int PRIMARY KEY); INSERT INTO d SELECT g FROM generate_series(1, 100) g;
        """
    )
    return lab


def killed_at(lab: Lab, failpoint: str) -> bool:
    """Sync in a process that dies at the failpoint, if it comes by."""
    ended = lab.run("sync", NEON_LAKE_FAILPOINT=failpoint)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode != 0


def assert_whole(lab: Lab) -> None:
    """One more sync, and both sides have the same rows; and one more still changes nothing."""
    ended = lab.run("sync")
    assert ended.returncode == 0, ended.stderr
    lab.assert_equal(*TABLES)
    versions = [lab.delta(table).version() for table in TABLES]
    lab.run("sync")
    lab.assert_equal(*TABLES)
    assert [lab.delta(table).version() for table in TABLES] == versions


def test_every_failpoint_is_tried() -> None:
    assert set(FIRST) | set(LATER) == FAILPOINTS


FIRST = sorted(FAILPOINTS)
LATER = sorted(f for f in FAILPOINTS if f.startswith(("capture", "apply")))


@pytest.mark.parametrize("failpoint", FIRST)
def test_a_first_sync_that_dies_is_made_good(filled: Lab, failpoint: str) -> None:
    assert killed_at(filled, failpoint)
    filled.database.execute(CHANGES)
    assert_whole(filled)


@pytest.mark.parametrize("failpoint", LATER)
def test_a_later_sync_that_dies_is_made_good(filled: Lab, failpoint: str) -> None:
    filled.run("sync")
    filled.database.execute(CHANGES)
    assert killed_at(filled, failpoint)
    assert_whole(filled)


@pytest.mark.parametrize("failpoint", LATER)
def test_changes_made_after_the_crash_follow_too(filled: Lab, failpoint: str) -> None:
    filled.run("sync")
    filled.database.execute(CHANGES)
    assert killed_at(filled, failpoint)
    filled.database.execute("UPDATE a SET v = 'later' WHERE id < 50; DELETE FROM d; INSERT INTO d VALUES (5)")
    assert_whole(filled)


def test_dying_again_and_again_doubles_nothing(filled: Lab) -> None:
    for round_, failpoint in enumerate(sorted(FAILPOINTS) * 2):
        filled.database.execute(f"INSERT INTO a VALUES ({10_000 + round_}, 'r'); UPDATE d SET id = -id")
        killed_at(filled, failpoint)
    assert_whole(filled)


def test_a_resync_that_dies_keeps_the_old_rows_readable(filled: Lab) -> None:
    filled.run("sync")
    before = filled.lake("public.a")
    filled.database.execute(CHANGES)
    ended = filled.run("resync", "public.a", NEON_LAKE_FAILPOINT="snapshot.segments-written")
    assert ended.returncode == -signal.SIGKILL
    assert filled.lake("public.a") == before
    assert_whole(filled)
