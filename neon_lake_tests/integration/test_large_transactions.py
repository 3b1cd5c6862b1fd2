"""A transaction that is larger than memory is captured and applied in parts, and is never applied twice."""

from __future__ import annotations

import signal

import pytest

from neon_lake_tests.fixtures.following import synced
from neon_lake_tests.fixtures.pipelines import Lab

SMALL = "limits: {memory_mb: 16}\n"
"""Portions of 8 MB."""

LARGE = """
BEGIN;
INSERT INTO a SELECT g, repeat(md5(g::text), 8) FROM generate_series(1001, 100000) g;
UPDATE a SET v = v || 'x' WHERE id % 3 = 0;
DELETE FROM a WHERE id % 7 = 0;
UPDATE a SET id = -id WHERE id % 11 = 0;
UPDATE a SET n = 1 WHERE id BETWEEN 1 AND 5;
COMMIT;
"""


@pytest.fixture
def filled(lab: Lab) -> Lab:
    lab.database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v text, n int, doc text); ALTER TABLE a ALTER doc SET STORAGE EXTERNAL;"
        "INSERT INTO a SELECT g, 'v', 0, repeat('d', 3000) FROM generate_series(1, 1000) g"
    )
    return Lab(database=lab.database, root=lab.root, extra=SMALL)


def commits(lab: Lab) -> int:
    """How many versions the table has."""
    return lab.delta("public.a").version()


def test_a_transaction_larger_than_memory_is_applied_in_several_commits(filled: Lab) -> None:
    filled.replication.sync()
    before = commits(filled)
    filled.database.execute(LARGE)
    filled.database.execute("UPDATE a SET v = 'later' WHERE id = 3")
    synced(filled)
    assert commits(filled) - before > 4
    filled.assert_equal("public.a")
    assert filled.replication.verify(deep=True).ok
    version = commits(filled)
    filled.replication.sync()
    assert commits(filled) == version


def test_a_crash_inside_of_it_loses_and_doubles_nothing(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute(LARGE)
    for _ in range(3):
        before = commits(filled)
        assert filled.run("sync", NEON_LAKE_FAILPOINT="apply.after-commit").returncode == -signal.SIGKILL
        assert commits(filled) == before + 1
        target = filled.replication.parts.destination.target(filled.replication.relations()[0].table)
        assert target is not None
        assert target.within > 0
    filled.database.execute("UPDATE a SET n = 5 WHERE id = 2")
    # comparing has to finish the transaction first
    verified = filled.replication.verify(deep=True)
    assert verified.ok
    assert [of.snapshot_rows for of in verified.synced.tables.values()] == [None]
    filled.assert_equal("public.a")


def test_a_new_snapshot_takes_the_place_of_a_transaction_that_is_half_applied(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute(LARGE)
    assert filled.run("sync", NEON_LAKE_FAILPOINT="apply.after-commit").returncode == -signal.SIGKILL
    assert filled.replication.resync(()).ok
    filled.assert_equal("public.a")
    filled.database.execute("INSERT INTO a VALUES (0, 'after', 1)")
    synced(filled)
    filled.assert_equal("public.a")


def test_small_transactions_are_never_cut(filled: Lab) -> None:
    filled.replication.sync()
    before = commits(filled)
    for start in range(2000, 62000, 20000):
        filled.database.execute(
            "INSERT INTO a SELECT g, repeat(md5(g::text), 8) FROM generate_series(%s::int, %s::int) g",
            start,
            start + 19999,
        )
    synced(filled)
    made = range(before + 1, commits(filled) + 1)
    assert len(made) > 1
    for version in made:
        delta = filled.delta("public.a")
        delta.load_as_version(version)
        assert delta.to_pyarrow_table(columns=["id"]).num_rows % 20000 == 1000
    filled.assert_equal("public.a")
