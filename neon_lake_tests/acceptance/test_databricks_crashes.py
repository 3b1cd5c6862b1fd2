"""A run on Databricks is killed between two durable effects, or interrupted; the next one makes both sides equal."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from neon_lake.failpoints import FAILPOINTS
from neon_lake.schema import TableName
from neon_lake.workspace import statements
from neon_lake_tests.fixtures.databricks import DatabricksLab
from neon_lake_tests.fixtures.judging import MODES, NAMES, assert_whole, changed, filled
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.processes import Ended, run, start
from neon_lake_tests.fixtures.workspaces import Workspace

pytestmark = pytest.mark.engines("sail")


@pytest.fixture
def lab(database: Database, tmp_path: Path, workspace: Workspace) -> DatabricksLab:
    """A pipeline of four tables that are written in four ways; nothing is synced yet."""
    workspace.schema("public")
    lab = DatabricksLab(database=database, root=tmp_path, workspace=workspace, volume=workspace.volume(), tables=MODES)
    filled(lab)
    return lab


class Forgetful(DatabricksLab):
    """A pipeline that keeps nothing of what is applied."""

    def text(self) -> str:
        """What the pipeline file says."""
        return super().text().replace("/lab}", "/lab, retention_days: 0}")


def killed(lab: DatabricksLab, *command: str, at: str, **environment: str) -> None:
    """Carry out a command in a process that dies at the failpoint."""
    ended = run(lab, *command, **lab.environment, NEON_LAKE_FAILPOINT=at, **environment)
    assert ended.returncode == -signal.SIGKILL, (at, ended.said)


def synced(lab: DatabricksLab) -> None:
    """Sync, as somebody who knows nothing of what was before."""
    done = lab.opened().sync()
    assert done.ok, {str(name): result.error for name, result in done.tables.items()}


def assert_healed(lab: DatabricksLab) -> None:
    """One sync, and both sides are equal; one more asks nothing of the warehouse."""
    synced(lab)
    assert_whole(lab)
    before = len(lab.statements())
    synced(lab)
    assert lab.statements()[before:] == []


FIRST = (
    "snapshot.published:2",
    "manifest.unnamed:5",
    "ledger.begun",
    "apply.before-commit:2",
    "apply.after-commit",
    "ledger.finished:2",
)


@pytest.mark.parametrize("failpoint", FIRST)
def test_a_first_sync_that_dies_is_finished(lab: DatabricksLab, failpoint: str) -> None:
    killed(lab, "sync", at=failpoint)
    changed(lab, 1)
    assert_healed(lab)


LATER = (
    "capture.segments-written",
    "capture.manifest-published",
    "slot.confirmed",
    "ledger.swept",
    "ledger.begun",
    "ledger.begun:3",
    "apply.before-commit",
    "apply.before-commit:4",
    "apply.after-commit",
    "apply.after-commit:2",
    "apply.after-commit:3",
    "apply.after-commit:4",
    "ledger.finished",
    "ledger.finished:4",
)


@pytest.mark.timeout(300)
def test_a_later_sync_that_dies_is_finished(lab: DatabricksLab) -> None:
    synced(lab)
    for round_, failpoint in enumerate(LATER, 1):
        changed(lab, round_)
        killed(lab, "sync", at=failpoint)
        if round_ % 2:
            # what comes meanwhile is not mixed with what was begun
            changed(lab, 100 + round_)
        assert_healed(lab)
    found = lab.opened().verify(deep=True)
    assert found.ok, found.to_json()
    assert_swept(lab)


@pytest.mark.timeout(300)
def test_dying_again_and_again_doubles_nothing(lab: DatabricksLab) -> None:
    for round_, failpoint in enumerate(("ledger.begun", "apply.after-commit:3", *LATER), 1):
        changed(lab, round_)
        ended = run(lab, "sync", **lab.environment, NEON_LAKE_FAILPOINT=failpoint)
        assert ended.returncode in (0, -signal.SIGKILL), ended.said
    assert_healed(lab)
    assert_swept(lab)


def test_a_sync_of_a_new_column_that_dies_is_finished(lab: DatabricksLab) -> None:
    synced(lab)
    lab.database.execute("ALTER TABLE keyed ADD more int; UPDATE keyed SET more = id WHERE id < 9")
    killed(lab, "sync", at="apply.columns-added")
    assert_healed(lab)
    # nothing but the column
    lab.database.execute("ALTER TABLE keyed ADD yet_more int")
    killed(lab, "sync", at="apply.columns-added")
    assert_healed(lab)


def test_a_note_that_was_not_made_is_made(lab: DatabricksLab) -> None:
    synced(lab)
    # the rows get files of their own, which the target is to note
    lab.database.execute("BEGIN; TRUNCATE keyed; INSERT INTO keyed VALUES (1, 'only', 'one'); COMMIT")
    killed(lab, "sync", at="apply.before-annotation")
    changed(lab, 1)
    assert_healed(lab)


@pytest.mark.timeout(300)
def test_a_resync_that_dies_is_finished(lab: DatabricksLab) -> None:
    synced(lab)
    points = (
        "ledger.begun",
        "apply.before-commit:3",
        "apply.after-commit:2",
        "ledger.finished",
        "apply.before-unmark:3",
    )
    for round_, failpoint in enumerate(points, 1):
        changed(lab, round_)
        killed(lab, "resync", "--all", at=failpoint)
        assert_healed(lab)
    # one that meets what another run has begun
    changed(lab, 20)
    killed(lab, "sync", at="apply.after-commit")
    killed(lab, "resync", "--all", at="ledger.finished")
    assert_healed(lab)


LOADING = ("load.side-made", "load.group-loaded", "load.group-loaded:2", "load.made")


def test_every_failpoint_of_a_warehouse_is_tried() -> None:
    tried = {failpoint.partition(":")[0] for failpoint in (*FIRST, *LATER, *LOADING)}
    assert {name for name in FAILPOINTS if name.startswith(("ledger.", "load."))} <= tried


@pytest.mark.timeout(300)
def test_a_load_in_groups_that_dies_is_finished(lab: DatabricksLab) -> None:
    lab.database.execute("CREATE TABLE long (id int PRIMARY KEY, v text)")
    for round_, failpoint in enumerate(LOADING, 1):
        lab.database.execute(f"INSERT INTO long SELECT g, 'v' FROM generate_series({round_}000, {round_}399) g")
        command = ("sync",) if round_ == 1 else ("resync", "public.long")
        killed(lab, *command, at=failpoint, NEON_LAKE_TEST_SMALL_LOADS="1")
        before = len(lab.statements())
        ended = run(lab, "sync", **lab.environment, NEON_LAKE_TEST_SMALL_LOADS="1")
        assert ended.returncode == 0, ended.said
        lab.assert_equal("public.long")
        loaded = [each for each in lab.statements()[before:] if "INSERT INTO" in each and "__neon_lake_" in each]
        assert len(loaded) >= 2
    lab.database.execute("DROP TABLE long")
    assert_healed(lab)
    tables = lab.workspace.sql(f"SHOW TABLES IN {lab.workspace.catalog}.public")
    assert [row[1] for row in tables if "neon_lake" in str(row[1])] == []


@pytest.mark.parametrize(
    ("failpoint", "foreign"),
    [
        ("ledger.begun", True),
        ("apply.before-commit", False),
        ("apply.after-commit", True),
        ("ledger.finished", False),
    ],
)
def test_a_replay_that_dies_stands_in_nobodys_way(lab: DatabricksLab, failpoint: str, foreign: bool) -> None:
    synced(lab)
    changed(lab, 1)
    synced(lab)
    begin = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    if foreign:
        lab.workspace.sql(f"UPDATE {lab.full_name('public.keyed')} SET v = 'wrong' WHERE v = 'r1'")
    killed(lab, "replay", "public.keyed", "--from", begin, at=failpoint)
    changed(lab, 2)
    assert_healed(lab)


def test_a_replay_of_what_others_have_changed_asks_for_a_resync(lab: DatabricksLab) -> None:
    synced(lab)
    changed(lab, 1)
    synced(lab)
    begin = datetime.now(UTC) - timedelta(hours=1)
    lab.workspace.sql(f"UPDATE {lab.full_name('public.keyed')} SET v = 'wrong' WHERE v = 'r1'")
    said = lab.opened().replay(TableName.parse("public.keyed"), begin).error
    assert said is not None
    assert "was changed by somebody else: UPDATE (version" in said
    assert said.endswith("run neon-lake resync public.keyed.")
    # the keys of the log have their rows again; that no other row is wrong is known once there is a snapshot
    lab.assert_equal("public.keyed")
    changed(lab, 2)
    assert_healed(lab)


@pytest.mark.parametrize(
    "failpoint", ["apply.watermark-alone", "ledger.finished", "expire.manifest-removed", "expire.files-removed:2"]
)
def test_an_expiry_that_dies_is_finished(lab: DatabricksLab, failpoint: str) -> None:
    lab = Forgetful(**{name: getattr(lab, name) for name in lab.__dataclass_fields__})
    synced(lab)
    for round_ in (1, 2):
        lab.database.execute(
            f"UPDATE keyed SET v = 'r{round_}' WHERE id < 9; UPDATE bag SET b = 'r{round_}' WHERE a = 1"
        )
        synced(lab)
    killed(lab, "expire", at=failpoint)
    changed(lab, 1)
    assert_healed(lab)
    assert_swept(lab)


def assert_swept(lab: DatabricksLab) -> None:
    """Once all is old enough, nothing is left on the volume that nobody needs; each table has one entry."""
    lab.opened().expire(datetime.now(UTC) + timedelta(days=32))
    root = lab.workspace.local(f"{lab.volume}/lab")
    found = {folder.name: sorted(p.name for p in folder.rglob("*") if p.is_file()) for folder in root.iterdir()}
    log = lab.opened().parts.log
    assert len(found.pop("manifests")) == 1
    named = {Path(segment.path).name for manifest in log.manifests() for segment in manifest.segments}
    assert set(found.pop("batches", ())) == named
    assert [name.rpartition(".")[2] for name in found["ledger"]].count("begun") == 0, found["ledger"]
    numbers = [name.split(".")[:2] for name in found.pop("ledger")]
    assert sorted(".".join(each) for each in numbers) == sorted(NAMES), numbers
    assert {name: files for name, files in found.items() if files} == {}
    tables = lab.workspace.sql(f"SHOW TABLES IN {lab.workspace.catalog}.public")
    assert sorted(f"public.{row[1]}" for row in tables) == sorted(NAMES)


# --- an interrupt, and two runs at once


@pytest.mark.parametrize("carry", [False, True])
def test_an_interrupt_cancels_the_statement(lab: DatabricksLab, monkeypatch: pytest.MonkeyPatch, carry: bool) -> None:
    synced(lab)
    changed(lab, 1)
    # the answer to what is sent does not wait for the statement's end
    monkeypatch.setattr(statements, "WAIT", "0s")
    lab.workspace.forget()
    lab.workspace.fault(
        do="slow_statement", ms=60_000, carry=carry, method="POST", path="/sql/statements/?$", body="MERGE INTO"
    )
    with pytest.raises(KeyboardInterrupt), interrupted_when(lab.workspace, r"/sql/statements/[^/]+$"):
        lab.opened().sync()
    cancelled = [each["path"] for each in lab.workspace.requests() if each["path"].endswith("/cancel")]
    assert len(cancelled) == 1
    identity = cancelled[0].split("/")[-2]
    ended = lab.workspace.client().statement_execution.get_statement(identity).status
    assert ended is not None
    assert str(getattr(ended.state, "value", ended.state)) == "CANCELED"
    lab.workspace.forget()
    assert_healed(lab)


@contextmanager
def interrupted_when(workspace: Workspace, path: str) -> Iterator[None]:
    """Interrupts this thread when the workspace has been asked for a path."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            if any(each["method"] == "GET" and re.search(path, each["path"]) for each in workspace.requests()):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    watcher = threading.Thread(target=watch)
    # whoever runs the tests in the background has it ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        signal.signal(signal.SIGINT, before)


def assert_well(ended: Ended) -> None:
    """It did its work, or was told to try again; no table is parked."""
    assert ended.returncode in (0, 1, 2), ended.said
    assert "parked" not in ended.said, ended.said
    assert "Traceback" not in ended.said, ended.said
    if ended.returncode:
        assert "again" in ended.said, ended.said


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "commands",
    [
        (("sync",), ("sync",)),
        (("sync",), ("resync", "--all")),
        (("sync",), ("verify", "--deep")),
        (("sync",), ("expire",)),
    ],
    ids=lambda commands: "+".join(command[0] for command in commands),
)
def test_two_at_once(lab: DatabricksLab, commands: Sequence[tuple[str, ...]]) -> None:
    for round_ in (1, 2, 3):
        running = [start(lab, *command, "--json", **lab.environment) for command in commands]
        changed(lab, round_)
        for each in running:
            assert_well(each.ended())
        assert not [mark for mark in lab.opened().parts.log.marks().values() if mark.state == "parked"]
    synced(lab)
    assert_healed(lab)
