"""What breaks a pipeline or one of its tables is told, and there is a way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg
import pytest

from neon_lake.change import Lsn
from neon_lake.errors import SlotGap, SlotLost, SourceRewound
from neon_lake.lifecycle import State
from neon_lake.pipeline import Replication
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.postgres import Database

A = TableName("public", "a")


@contextmanager
def all_slots_taken(database: Database) -> Iterator[None]:
    """While this lasts, the server has no free replication slot."""
    taken: list[str] = []
    with suppress(psycopg.errors.ConfigurationLimitExceeded):
        while True:
            name = f"taken_{len(taken)}"
            database.query("SELECT pg_create_physical_replication_slot(%s)", name)
            taken.append(name)
    yield
    for name in taken:
        database.query("SELECT pg_drop_replication_slot(%s)", name)


# --- one table


def test_a_bad_table_parks_alone_and_comes_back(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute('UPDATE a SET name = \'x\' WHERE id = 1; DELETE FROM "Odd Name" WHERE "Key.1" = 1')
    filled.replication.parts.source.position()
    captured = filled.replication.sync([TableName("public", "Odd Name")])
    assert captured.ok
    (segment,) = [s for m in filled.replication.parts.log.manifests() for s in m.of(A)]
    path = filled.root / "staging" / segment.path
    path.write_bytes(path.read_bytes()[:-1])
    filled.database.execute('UPDATE "Odd Name" SET doc = \'y\' WHERE "Key.1" = 3')
    result = filled.replication.sync()
    assert result.tables[A].state is State.PARKED
    assert segment.path in str(result.tables[A].error)
    filled.assert_equal("public.Odd Name")
    assert filled.replication.status().tables[1].state is State.PARKED
    again = filled.replication.sync()
    assert "neon-lake resync public.a" in str(again.tables[A].error)
    assert filled.replication.resync([A]).ok
    filled.assert_equal("public.a", "public.Odd Name")
    assert filled.replication.sync().ok


def test_a_key_that_the_lake_cannot_hold_parks_its_table(filled: Lab) -> None:
    filled.database.execute(
        "CREATE TABLE days (day date PRIMARY KEY, n int); INSERT INTO days VALUES ('2026-01-01', 1)"
    )
    filled.replication.sync()
    filled.database.execute("INSERT INTO days VALUES ('infinity', 2); UPDATE a SET name = 'on' WHERE id = 1")
    result = filled.replication.sync()
    days = TableName("public", "days")
    assert result.tables[days].state is State.PARKED
    assert "such as an infinite date, in day" in str(result.tables[days].error)
    filled.assert_equal("public.a")
    filled.database.execute("DELETE FROM days WHERE day = 'infinity'")
    assert filled.replication.resync([days]).ok
    filled.assert_equal("public.days")


def test_a_table_that_was_not_published_for_a_while_is_snapshotted_anew(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("ALTER PUBLICATION neon_lake_lab DROP TABLE a; UPDATE a SET name = 'unseen' WHERE id = 1")
    result = filled.replication.sync()
    assert result.ok
    assert result.tables[A].snapshot_rows == 501
    filled.assert_equal("public.a", "public.Odd Name")


def test_a_publication_that_leaves_out_deletes_is_noticed(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("ALTER PUBLICATION neon_lake_lab SET (publish = 'insert'); DELETE FROM a WHERE id = 1")
    assert filled.replication.sync().ok
    filled.assert_equal("public.a", "public.Odd Name")


def test_a_new_table_that_finds_no_free_slot_waits_while_the_others_go_on(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("CREATE TABLE late (id int PRIMARY KEY); UPDATE a SET name = 'on' WHERE id = 1")
    late = TableName("public", "late")
    with all_slots_taken(filled.database):
        result = filled.replication.sync()
        assert "All replication slots of the server are in use" in str(result.tables[late].error)
        assert result.tables[late].state is State.NEW
        filled.assert_equal("public.a")
    assert filled.replication.sync().ok
    filled.assert_equal("public.late")


# --- the slot and the log


def test_a_lost_slot_is_told_and_a_resync_mends_it(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("SELECT pg_drop_replication_slot('neon_lake_lab'); UPDATE a SET name = 'lost' WHERE id = 1")
    with pytest.raises(SlotLost, match="resync --all"):
        filled.replication.sync()
    assert "is gone" in str(filled.replication.status().slot_problem)
    assert filled.replication.resync([A]).ok
    filled.assert_equal("public.a")
    filled.database.execute("UPDATE a SET name = 'on' WHERE id = 2")
    result = filled.replication.sync()
    # the other table stood before the gap too, and is never carried across it
    assert result.ok
    assert result.tables[TableName("public", "Odd Name")].snapshot_rows == 20
    filled.assert_equal("public.a", "public.Odd Name")


def test_a_slot_advanced_by_something_else_is_a_gap(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("UPDATE a SET name = 'lost' WHERE id = 1")
    filled.database.execute("SELECT pg_replication_slot_advance('neon_lake_lab', pg_current_wal_lsn())")
    with pytest.raises(SlotGap, match="advanced to"):
        filled.replication.sync()
    assert filled.replication.resync().ok
    filled.assert_equal("public.a", "public.Odd Name")


def test_a_source_that_went_back_in_time_is_noticed(filled: Lab) -> None:
    filled.replication.sync()
    log, owner = filled.replication.parts.log, filled.replication.parts.owner
    head = log.head()
    assert head is not None
    log.publish(owner, start=head.end, end=Lsn(head.end + (1 << 40)))
    with pytest.raises(SourceRewound, match="earlier state"):
        filled.replication.sync()


def test_a_lake_that_stands_further_on_than_another_server_is_made_anew(filled: Lab) -> None:
    filled.replication.sync()
    far = Lsn(1 << 44)
    destination = filled.replication.parts.destination
    for name in (A, TableName("public", "Odd Name")):
        target = destination.target(name)
        assert target is not None
        destination.advance(target, target.schema, far)
    filled.replication.drop()
    moved = Replication.open(
        replace(filled.config, staging=replace(filled.config.staging, path=str(filled.root / "s2")))
    )
    with pytest.raises(SlotGap, match="resync --all"):
        moved.sync()
    assert moved.resync().ok
    filled.assert_equal("public.a", "public.Odd Name")
    filled.database.execute("UPDATE a SET name = 'on' WHERE id = 1")
    assert moved.sync().ok
    filled.assert_equal("public.a", "public.Odd Name")


def test_an_emptied_staging_directory_is_a_gap(filled: Lab) -> None:
    filled.replication.sync()
    for path in sorted((filled.root / "staging").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    filled.database.execute("UPDATE a SET name = 'x' WHERE id = 1")
    fresh = replace(filled).replication
    with pytest.raises(SlotGap, match="Staging holds no log"):
        fresh.sync()
    assert fresh.resync().ok
    filled.assert_equal("public.a", "public.Odd Name")
    assert fresh.sync().ok


def test_two_pipelines_do_not_share_a_staging_directory(filled: Lab) -> None:
    filled.replication.sync()
    stranger = Replication.open(replace(filled.config, name="other"))
    with pytest.raises(Exception, match="belongs to the pipeline lab"):
        stranger.sync()
    assert filled.database.query("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()") == [
        ("neon_lake_lab",)
    ]
