"""A slot that was dropped, lost or advanced is told in one sentence, and `resync` brings the tables back."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neon_lake.errors import NeonLakeError, SlotGap, SlotLost
from neon_lake.pipeline import Replication
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.postgres import Database, StartServer, fresh_database
from neon_lake_tests.fixtures.processes import run


@pytest.fixture(scope="module")
def forgetful(start_server: StartServer) -> Iterator[Database]:
    """A database on a server that keeps hardly any WAL for a slot that falls behind."""
    with start_server(max_slot_wal_keep_size="1MB", max_wal_size="32MB") as server, fresh_database(server) as fresh:
        yield fresh


@pytest.fixture
def stopped(forgetful: Database, tmp_path: Path) -> Iterator[Lab]:
    """A pipeline that has run, and stands still while both tables change."""
    lab = Lab(database=forgetful, root=tmp_path)
    forgetful.execute(
        """
        CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT g, 'v' FROM generate_series(1, 100) g;
        CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1), (2)
        """
    )
    assert Replication.open(lab.config).sync().ok
    forgetful.execute("UPDATE a SET v = 'unseen' WHERE id < 10; INSERT INTO b VALUES (3)")
    yield lab
    Replication.open(lab.config).drop()
    forgetful.execute("DROP TABLE a, b")


def dropped(database: Database) -> None:
    database.execute("SELECT pg_drop_replication_slot('neon_lake_lab')")


def advanced(database: Database) -> None:
    database.execute("SELECT pg_replication_slot_advance('neon_lake_lab', pg_current_wal_flush_lsn())")


def lost(database: Database) -> None:
    """Let WAL pass until the server has thrown away what the slot needs."""
    for _ in range(20):
        database.execute("SELECT pg_logical_emit_message(false, 'filler', 'x')")
        database.execute("SELECT pg_switch_wal()")
        database.execute("CHECKPOINT")
        if database.query("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'neon_lake_lab'") == [
            ("lost",)
        ]:
            return
    raise AssertionError("the slot still has its WAL")


WAYS: list[tuple[Callable[[Database], None], type[NeonLakeError], str]] = [
    (dropped, SlotLost, "The slot neon_lake_lab is gone"),
    (lost, SlotLost, "The slot neon_lake_lab can no longer be used"),
    (advanced, SlotGap, "The slot neon_lake_lab was advanced to"),
]


@pytest.mark.parametrize(("happens", "error", "sentence"), WAYS)
def test_it_is_told_by_every_command_and_mended_by_resync(
    stopped: Lab, happens: Callable[[Database], None], error: type[NeonLakeError], sentence: str
) -> None:
    database = stopped.database
    happens(database)
    publication = database.query("SELECT oid FROM pg_publication")
    log = Replication.open(stopped.config).parts.log
    before, segments = log.head(), {entry.path for entry in log.segment_files()}
    versions = [stopped.delta(table).version() for table in ("public.a", "public.b")]

    for command, code in (("sync", 2), ("status", 1), ("check", 2), ("verify", 2)):
        ended = run(stopped, command, "--json")
        assert ended.returncode == code, ended.said
        told = json.loads(ended.document)
        if command == "status":
            found = told["slot"]["problem"]
        elif command == "check":
            (found,) = (finding["problem"] for finding in told["findings"] if finding["problem"])
        else:
            found = told["error"]
        assert found.startswith(sentence), ended.said
        assert found.endswith("run neon-lake resync --all."), found
        assert "\n" not in found
    with pytest.raises(error):
        Replication.open(stopped.config).sync()
    assert Replication.open(stopped.config).parts.log.head() == before

    # the tables can be read while they are brought back: by a new version of each
    assert Replication.open(stopped.config).resync().ok
    stopped.assert_equal("public.a", "public.b")
    assert all(stopped.delta(t).version() > v for t, v in zip(("public.a", "public.b"), versions, strict=True))
    # what can be kept is: the publication, and what was captured before
    assert database.query("SELECT oid FROM pg_publication") == publication
    assert segments < {entry.path for entry in Replication.open(stopped.config).parts.log.segment_files()}
    database.execute("UPDATE a SET v = 'on' WHERE id = 50; DELETE FROM b WHERE id = 1")
    assert Replication.open(stopped.config).sync().ok
    stopped.assert_equal("public.a", "public.b")
    assert Replication.open(stopped.config).check()[-1].problem is None


@pytest.mark.parametrize("failpoint", ["resync.slot-dropped", "slot.created", "resync.gap-recorded", "mark.put"])
def test_a_resync_of_a_lost_slot_that_dies_is_made_good(stopped: Lab, failpoint: str) -> None:
    lost(stopped.database)
    assert run(stopped, "resync", "--all", NEON_LAKE_FAILPOINT=failpoint).returncode == -signal.SIGKILL
    stopped.database.execute("UPDATE a SET v = 'later' WHERE id = 20")
    ended = run(stopped, "resync", "--all")
    assert ended.returncode == 0, ended.said
    stopped.assert_equal("public.a", "public.b")
    assert Replication.open(stopped.config).sync().ok
    stopped.assert_equal("public.a", "public.b")


def test_a_table_that_is_not_named_is_not_carried_across_the_gap(stopped: Lab) -> None:
    lost(stopped.database)
    (a,) = [r.table for r in Replication.open(stopped.config).relations() if r.table.name == "a"]
    assert Replication.open(stopped.config).resync([a]).ok
    stopped.assert_equal("public.a")
    synced = Replication.open(stopped.config).sync()
    assert synced.ok
    assert {str(name): result.snapshot_rows for name, result in synced.tables.items()} == {
        "public.a": None,
        "public.b": 3,
    }
    stopped.assert_equal("public.a", "public.b")
