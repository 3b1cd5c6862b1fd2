"""Two runs of one pipeline at the same moment, while the source is written: each row once, and never a wrong one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from neon_lake import errors
from neon_lake.pipeline import Replication
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.processes import Ended, start

TABLES = ("public.a", "public.b")


@pytest.fixture
def filled(lab: Lab) -> Lab:
    lab.database.execute(
        """
        CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a SELECT g, 0 FROM generate_series(1, 200) g;
        CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (0, 'first')
        """
    )
    return lab


@contextmanager
def written(lab: Lab) -> Iterator[None]:
    """While this lasts, both tables change in transactions of their own."""
    done = threading.Event()

    def write() -> None:
        with psycopg.connect(lab.database.url) as connection:
            n = 0
            while not done.wait(0.005):
                n += 1
                connection.execute("UPDATE a SET n = n + 1 WHERE mod(id, 50) = %s", [n % 50])
                connection.execute("INSERT INTO b VALUES (%s, 'v')", [n])
                connection.execute("DELETE FROM b WHERE id = %s", [n - 20])
                connection.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def assert_well(ended: Ended) -> None:
    """It did its work, or was told to try again; no table is parked."""
    if ended.returncode == 0:
        return
    told = json.loads(ended.document)
    if "error" in told:
        kind = getattr(errors, told["kind"].lstrip("_"), errors.LogConflict)
        assert kind.transient, ended.said
        return
    for table in told.get("tables", {}).values():
        assert table.get("state", "live") in ("live", "stale", "new"), ended.said
        assert not table.get("error") or "again" in table["error"] or "snapshot" in table["error"], ended.said


def assert_equal(lab: Lab) -> None:
    assert Replication.open(lab.config).sync().ok
    lab.assert_equal(*TABLES)
    for table in TABLES:
        ids = [row["id"] for row in lab.lake(table)]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("commands", "rounds"),
    [
        ((("sync",), ("sync",)), 3),
        ((("sync",), ("sync",), ("sync",)), 2),
        ((("sync",), ("expire",)), 3),
        ((("sync",), ("resync", "--all")), 3),
        ((("resync", "public.a"), ("resync", "--all")), 2),
        ((("verify", "--deep"), ("sync",)), 2),
        ((("expire",), ("expire",)), 2),
    ],
    ids=lambda value: "+".join(command[0] for command in value) if isinstance(value, tuple) else "",
)
def test_at_once(filled: Lab, commands: tuple[tuple[str, ...], ...], rounds: int) -> None:
    with written(filled):
        for _ in range(rounds):
            # the first round makes slot, publication and log: also that by both
            running = [start(filled, *command, "--json") for command in commands]
            for each in running:
                assert_well(each.ended())
    assert_equal(filled)


def test_no_gap_is_seen_where_another_run_moved_on(filled: Lab) -> None:
    """The log is asked after the slot: between the two questions another run may publish and confirm."""
    here, there = Replication.open(filled.config), Replication.open(filled.config)
    assert here.sync().ok
    asked = here.parts.source.slot
    heads = here.parts.log.head

    def overtaken() -> object:
        filled.database.execute("UPDATE a SET n = n + 1")
        assert there.sync().ok
        return heads()

    for name, question in (("slot", asked), ("head", heads)):
        part = here.parts.source if name == "slot" else here.parts.log
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(part, name, lambda question=question: (question(), overtaken())[0])
            assert here.check()[-1].problem is None
    assert_equal(filled)


def test_no_slot_is_missed_that_another_run_has_just_made(filled: Lab) -> None:
    """The slot is asked before the log: between the two questions another run may make both."""
    here, there = Replication.open(filled.config), Replication.open(filled.config)
    asked, made = here.parts.source.slot, list[bool]()

    def overtaken() -> object:
        slot = asked()
        if not made:
            made.append(there.sync().ok)
        return slot

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(here.parts.source, "slot", overtaken)
        assert here.check()[-1].problem is None
    assert made == [True]
    assert_equal(filled)
