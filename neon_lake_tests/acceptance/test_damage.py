"""A file in staging that is cut, altered or gone is found, named, and never applied; and there is a way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from neon_lake.errors import LogDamaged, NeonLakeError, SlotGap
from neon_lake.lifecycle import State
from neon_lake.pipeline import Replication
from neon_lake.pipeline.capture import capture
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.processes import run

A, B = TableName("public", "a"), TableName("public", "b")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """One bit in the middle is another."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


Harm = Callable[[Path], None]


@pytest.fixture
def filled(lab: Lab) -> Lab:
    lab.database.execute(
        """
        CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT g, 'v' FROM generate_series(1, 100) g;
        CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1), (2)
        """
    )
    return lab


@pytest.fixture
def captured(filled: Lab) -> Lab:
    """Two batches are in the log and not in the lake."""
    replication = fresh(filled)
    assert replication.sync().ok
    for round_ in range(2):
        filled.database.execute(f"UPDATE a SET v = 'r{round_}' WHERE id < 10; INSERT INTO b VALUES (1{round_})")
        capture(replication.parts, replication.parts.source.position())
    return filled


def fresh(lab: Lab, staging: str = "staging") -> Replication:
    config = lab.config
    return Replication.open(replace(config, staging=replace(config.staging, path=str(lab.root / staging))))


def the(lab: Lab, pattern: str) -> Path:
    (path,) = (lab.root / "staging").glob(pattern)
    return path


def assert_parked(lab: Lab, path: Path) -> None:
    """Only the table `a` is stopped, with a sentence that names the file; `resync` brings it back."""
    before = lab.lake("public.a") if (lab.root / "lake/public/a").exists() else None
    synced = fresh(lab).sync()
    assert synced.tables[A].state is State.PARKED
    error = str(synced.tables[A].error)
    assert str(path.relative_to(lab.root / "staging")) in error
    assert "resync" in error
    assert synced.tables[B].ok
    lab.assert_equal("public.b")
    assert (lab.lake("public.a") if before is not None else None) == before
    lab.database.execute("INSERT INTO a VALUES (1000, 'on')")
    assert not fresh(lab).sync([A]).ok, "it is tried again, and fails again"
    assert fresh(lab).resync([A]).ok
    lab.assert_equal("public.a", "public.b")
    assert fresh(lab).sync().ok


@pytest.mark.parametrize("harm", [cut, flipped, emptied, removed])
def test_a_segment_of_a_batch(captured: Lab, harm: Harm) -> None:
    path = next(s for s in sorted((captured.root / "staging/batches").rglob("public.a-*")))
    harm(path)
    assert_parked(captured, path)


@pytest.mark.parametrize("harm", [cut, flipped, emptied, removed])
def test_a_segment_of_a_snapshot(filled: Lab, harm: Harm) -> None:
    assert run(filled, "sync", NEON_LAKE_FAILPOINT="apply.before-commit").returncode < 0
    path = the(filled, "snapshots/public/a/*/*.parquet")
    harm(path)
    assert_parked(filled, path)


@pytest.mark.parametrize("harm", [cut, flipped, emptied])
def test_a_manifest_of_a_snapshot(filled: Lab, harm: Harm) -> None:
    assert run(filled, "sync", NEON_LAKE_FAILPOINT="apply.before-commit").returncode < 0
    path = the(filled, "snapshots/public/a/*.json")
    harm(path)
    assert_parked(filled, path)
    with pytest.raises(LogDamaged, match=r"or remove it and run neon-lake resync") as told:
        fresh(filled).expire()
    assert path.name in str(told.value)
    path.unlink()
    fresh(filled).expire()


def test_a_manifest_of_a_snapshot_that_is_gone_is_a_snapshot_that_is_not_taken_yet(filled: Lab) -> None:
    assert run(filled, "sync", NEON_LAKE_FAILPOINT="apply.before-commit").returncode < 0
    removed(the(filled, "snapshots/public/a/*.json"))
    assert fresh(filled).sync().ok
    filled.assert_equal("public.a", "public.b")


@pytest.mark.parametrize("harm", [cut, flipped, emptied])
def test_a_damaged_snapshot_of_long_ago_stops_nothing(captured: Lab, harm: Harm) -> None:
    harm(the(captured, "snapshots/public/a/*.json"))
    harm(the(captured, "snapshots/public/b/*/*.parquet"))
    assert fresh(captured).sync().ok
    captured.assert_equal("public.a", "public.b")


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("harm", [cut, flipped, emptied, removed])
def test_a_manifest_of_a_batch(captured: Lab, harm: Harm, which: int) -> None:
    path = sorted((captured.root / "staging/manifests").iterdir())[which]
    whole, before = path.read_bytes(), [captured.lake(f"public.{table}") for table in "ab"]
    harm(path)
    error: type[NeonLakeError] = SlotGap if harm is removed and which == 2 else LogDamaged
    if error is SlotGap:
        with pytest.raises(SlotGap, match=r"or the log has lost its end.*resync --all"):
            fresh(captured).sync()
    else:
        told = refusal(captured)
        assert path.name in told
        assert "restore the file" in told
        assert told.endswith("give the pipeline a new staging.path and run neon-lake resync --all.")
    assert [captured.lake(f"public.{table}") for table in "ab"] == before
    # the first way back
    path.write_bytes(whole)
    assert fresh(captured).sync().ok
    captured.assert_equal("public.a", "public.b")
    # and the other
    harm(path)
    captured.database.execute("INSERT INTO a VALUES (1000, 'on'); DELETE FROM b")
    staging = "staging" if error is SlotGap else "another"
    assert fresh(captured, staging).resync().ok
    captured.assert_equal("public.a", "public.b")
    assert fresh(captured, staging).sync().ok


def refusal(lab: Lab) -> str:
    """What a sync says that a damaged log stops, for all tables at once."""
    with pytest.raises(LogDamaged) as told:
        fresh(lab).sync()
    assert told.value.exit_code == 2
    return str(told.value)


@pytest.mark.parametrize("harm", [cut, flipped, emptied])
def test_a_mark(filled: Lab, harm: Harm) -> None:
    assert fresh(filled).sync().ok
    # what the mark is for cannot be seen without it: changes that were not sent
    filled.database.execute("ALTER PUBLICATION neon_lake_lab DROP TABLE a; UPDATE a SET v = 'unseen' WHERE id = 1")
    assert run(filled, "sync", NEON_LAKE_FAILPOINT="publication.made").returncode < 0
    path = the(filled, "marks/public/a.json")
    harm(path)
    (a, b) = fresh(filled).status().tables
    assert a.state is State.STALE
    assert "marks/public/a.json is damaged" in str(a.reason)
    assert b.state is State.LIVE
    synced = fresh(filled).sync()
    assert synced.ok
    assert synced.tables[A].snapshot_rows == 100
    assert not path.exists()
    filled.assert_equal("public.a", "public.b")
