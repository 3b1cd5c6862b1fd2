"""The process is killed between two durable effects; the next run makes source and lake equal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import CommitProperties

from neon_lake.destinations.delta.upkeep import EVERY
from neon_lake.failpoints import FAILPOINTS
from neon_lake.pipeline import Replication
from neon_lake.staging.local import LocalStorage
from neon_lake.staging.log import ChangeLog
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.processes import run

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


class Forgetful(Lab):
    """A pipeline that keeps nothing of what is applied."""

    def text(self) -> str:
        return super().text().replace("staging: {path: staging}", "staging: {path: staging, retention_days: 0}")


def killed(lab: Lab, *command: str, at: str) -> bool:
    """Carry out a command in a process that dies at the failpoint, if it comes by."""
    ended = run(lab, *command, NEON_LAKE_FAILPOINT=at)
    assert ended.returncode in (0, -signal.SIGKILL), ended.said
    return ended.returncode != 0


def synced(lab: Lab) -> None:
    """Sync, as somebody who knows nothing of what was before."""
    done = Replication.open(lab.config).sync()
    assert done.ok, done


def versions(lab: Lab) -> list[int]:
    return [lab.delta(table).version() for table in TABLES]


def assert_whole(lab: Lab) -> None:
    """One more sync, and both sides have the same rows; one more changes nothing; nothing is left that nobody needs."""
    synced(lab)
    lab.assert_equal(*TABLES)
    assert_swept(lab)
    before = versions(lab)
    synced(lab)
    lab.assert_equal(*TABLES)
    assert versions(lab) == before


def assert_swept(lab: Lab) -> None:
    """Once all is old enough, `expire` leaves only what a manifest names, and the last manifest."""
    Replication.open(lab.config).expire(datetime.now(UTC) + timedelta(days=32))
    log = ChangeLog(LocalStorage(lab.root / "staging"), memory=1)
    named = {s.path for m in log.manifests() for s in m.segments}
    (head,) = log.manifests()
    found = {str(path.relative_to(lab.root / "staging")) for path in files(lab.root / "staging")}
    assert found == {f"manifests/{head.start.hex}.json", *named}


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


# --- what has to be there before a command comes by a failpoint


def nothing(_lab: Lab) -> None:
    pass


def changed(lab: Lab) -> None:
    synced(lab)
    lab.database.execute(CHANGES)


def changed_to_no_effect(lab: Lab) -> None:
    synced(lab)
    lab.database.execute("INSERT INTO d VALUES (-1); DELETE FROM d WHERE id = -1")


def with_a_new_column(lab: Lab) -> None:
    synced(lab)
    lab.database.execute(f"ALTER TABLE a ADD at timestamp; {CHANGES}; UPDATE a SET at = '2026-01-01' WHERE id < 9")


def with_a_new_table(lab: Lab) -> None:
    synced(lab)
    lab.database.execute(f"CREATE TABLE e (id int PRIMARY KEY); INSERT INTO e VALUES (1); {CHANGES}")


def without_slot(lab: Lab) -> None:
    changed(lab)
    lab.database.execute("SELECT pg_drop_replication_slot('neon_lake_lab')")
    lab.database.execute("UPDATE a SET v = 'unseen' WHERE id = 999")


def with_many_files(lab: Lab) -> None:
    """The next commit but one is when small files are joined; the first is the imprint's."""
    changed(lab)
    delta = lab.delta("public.a")
    for _ in range(delta.version(), EVERY - 1):
        delta.create_write_transaction([], "append", delta.schema(), commit_properties=CommitProperties())
        delta.update_incremental()


def outdated(lab: Lab) -> None:
    """Several manifests, snapshots and orphans are to go; the table `c` had no change in the first of them."""
    synced(lab)
    for round_ in range(2):
        lab.database.execute(f"UPDATE a SET v = 'r{round_}' WHERE id < 10; UPDATE d SET id = -id WHERE id < 5")
        synced(lab)
    for name in ("one", "two"):
        orphan = lab.root / f"staging/batches/{name}-dead/a-0.parquet"
        orphan.parent.mkdir()
        orphan.write_bytes(b"x")
        long_ago = (datetime.now(UTC) - timedelta(days=2)).timestamp()
        os.utime(orphan, (long_ago, long_ago))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command, what was before it, and the failpoints that it comes by; `name:2` is the second time that it does."""

    command: tuple[str, ...]
    before: Callable[[Lab], None]
    failpoints: tuple[str, ...]


CASES = {
    "a first sync": Case(
        command=("sync",),
        before=nothing,
        failpoints=(
            "publication.made",
            "slot.created",
            "file.unnamed",
            "manifest.unnamed",
            "manifest.unnamed:2",
            "manifest.named",
            "capture.manifest-published",
            "snapshot.segments-written",
            "snapshot.published",
            "snapshot.published:4",
            "apply.before-commit",
            "apply.table-unnamed",
            "apply.after-commit",
        ),
    ),
    "a later sync": Case(
        command=("sync",),
        before=changed,
        failpoints=(
            "file.unnamed",
            "file.unnamed:3",
            "capture.segments-written",
            "manifest.unnamed",
            "manifest.named",
            "capture.manifest-published",
            "slot.confirming",
            "slot.confirmed",
            "apply.before-commit",
            "apply.before-commit:2",
            "apply.after-commit",
            "apply.after-commit:3",
            "apply.before-annotation",
        ),
    ),
    "a sync of a table with a new column": Case(
        command=("sync",), before=with_a_new_column, failpoints=("apply.columns-added",)
    ),
    "a sync of changes without effect": Case(
        command=("sync",), before=changed_to_no_effect, failpoints=("apply.watermark-alone", "apply.after-commit")
    ),
    "a sync with a new table": Case(command=("sync",), before=with_a_new_table, failpoints=("publication.made",)),
    "a sync that joins files": Case(
        command=("sync",), before=with_many_files, failpoints=("upkeep.before-joining", "upkeep.joined")
    ),
    "a resync": Case(
        command=("resync", "--all"),
        before=changed,
        failpoints=(
            "file.unnamed",
            "mark.put",
            "mark.put:2",
            "snapshot.published:2",
            "capture.manifest-published",
            "apply.after-commit",
            "apply.before-unmark",
            "mark.removed",
        ),
    ),
    "a resync without slot": Case(
        command=("resync", "--all"),
        before=without_slot,
        failpoints=("slot.created", "resync.gap-recorded"),
    ),
    "an expiry": Case(
        command=("expire",),
        before=outdated,
        failpoints=(
            "apply.after-commit",
            "expire.manifest-removed",
            "expire.segment-removed",
            "expire.segment-removed:5",
            "expire.orphan-removed",
            "expire.log-removed",
            "expire.files-removed",
        ),
    ),
    "a drop": Case(command=("drop",), before=changed, failpoints=("drop.slot-dropped",)),
}
# this takes a server that throws WAL away
ELSEWHERE = {"resync.slot-dropped"}
# these take a warehouse: test_databricks_crashes.py
OF_WAREHOUSES = ("ledger.", "load.")


def test_every_failpoint_is_tried() -> None:
    tried = {failpoint.partition(":")[0] for case in CASES.values() for failpoint in case.failpoints}
    assert tried | ELSEWHERE == {name for name in FAILPOINTS if not name.startswith(OF_WAREHOUSES)}


@pytest.mark.parametrize(
    ("name", "failpoint"), [(name, failpoint) for name, case in CASES.items() for failpoint in case.failpoints]
)
def test_what_a_crash_leaves_is_made_good(filled: Lab, name: str, failpoint: str) -> None:
    case = CASES[name]
    lab = Forgetful(database=filled.database, root=filled.root) if "expire" in case.command else filled
    case.before(lab)
    assert killed(lab, *case.command, at=failpoint)
    # what happens after the crash follows too
    lab.database.execute("UPDATE a SET v = 'later' WHERE id < 50; INSERT INTO d VALUES (5000)")
    if name in ("a drop", "a resync without slot"):
        assert run(lab, *case.command).returncode == 0
    if name == "a drop":
        assert lab.database.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'neon_lake_lab'") == []
        assert lab.database.query("SELECT 1 FROM pg_publication") == []
        assert run(lab, "resync", "--all").returncode == 0
    assert_whole(replace(lab))


def test_dying_again_and_again_doubles_nothing(filled: Lab) -> None:
    for round_, failpoint in enumerate(CASES["a later sync"].failpoints):
        filled.database.execute(f"INSERT INTO a VALUES ({10_000 + round_}, 'r'); UPDATE d SET id = -id")
        killed(filled, "sync", at=failpoint)
    assert_whole(filled)


def test_a_resync_that_dies_keeps_the_old_rows_readable(filled: Lab) -> None:
    synced(filled)
    before = filled.lake("public.a")
    filled.database.execute(CHANGES)
    assert killed(filled, "resync", "public.a", at="snapshot.segments-written")
    assert filled.lake("public.a") == before
    assert_whole(filled)
