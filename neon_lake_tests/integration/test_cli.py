"""The contract of the command line: JSON documents, exit codes, and what people see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from neon_lake.cli.commands import commands
from neon_lake_tests.fixtures.pipelines import Lab


@pytest.fixture
def file(lab: Lab) -> Path:
    lab.database.execute("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'x'), (2, 'y')")
    return lab.file


def run(file: Path, *arguments: str) -> str:
    result = CliRunner().invoke(commands, [*arguments, "--config", str(file)])
    assert result.exit_code == 0, result.output
    return result.stdout


def data(file: Path, *arguments: str) -> Any:
    return json.loads(run(file, *arguments, "--json"))


def test_sync_says_what_was_captured_and_what_became_of_each_table(lab: Lab, file: Path) -> None:
    first = data(file, "sync")
    assert first["tables"]["public.a"]["snapshot_rows"] == 2
    lab.database.execute("INSERT INTO a VALUES (3, 'z'); UPDATE a SET v = 'w' WHERE id = 1; DELETE FROM a WHERE id = 2")
    again = data(file, "sync", "public.a")
    assert again["captured"]["from"] == first["captured"]["to"]
    assert again["captured"]["changes"] == 3
    table = again["tables"]["public.a"]
    assert table["state"] == "live"
    assert table["watermark"] == again["captured"]["to"]
    assert (table["inserts"], table["updates"], table["deletes"], table["error"]) == (1, 1, 1, None)


def test_verify_status_expire_and_drop(lab: Lab, file: Path) -> None:
    run(file, "sync")
    lab.database.execute("INSERT INTO a VALUES (3, 'z')")
    parity = data(file, "verify", "--deep")["tables"]["public.a"]
    assert (parity["source_rows"], parity["lake_rows"], parity["counts_equal"], parity["content_equal"]) == (
        3,
        3,
        True,
        True,
    )
    status = data(file, "status")
    assert status["slot"] == {
        "name": "neon_lake_lab",
        "problem": None,
        "retained_bytes": status["slot"]["retained_bytes"],
    }
    assert status["tables"]["public.a"]["state"] == "live"
    assert data(file, "expire") == {"manifests": 0, "segments": 0, "orphans": 0, "files": 0, "kept_from": "0/0"}
    assert data(file, "drop") == {"dropped": "neon_lake_lab"}
    assert lab.database.query("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == [(0,)]


def test_resync_and_replay(lab: Lab, file: Path) -> None:
    run(file, "sync")
    lab.database.execute("UPDATE a SET v = 'new' WHERE id = 1")
    run(file, "sync")
    lab.delta("public.a").delete("id = 1")
    assert data(file, "replay", "public.a", "--from", "2026-01-01")["tables"]["public.a"]["updates"] == 1
    lab.assert_equal("public.a")
    lab.delta("public.a").delete()
    assert data(file, "resync", "public.a")["tables"]["public.a"]["snapshot_rows"] == 2
    lab.assert_equal("public.a")


def test_people_see_tables(lab: Lab, file: Path) -> None:
    assert "public.a" in run(file, "sync")
    assert "equal" in run(file, "verify", "--deep")
    assert "neon_lake_lab" in run(file, "status")
    assert "public.a: 0 changes applied again" in run(file, "replay", "public.a", "--from", "2026-01-01T10:00+01:00")
    assert "removed 0 manifests" in run(file, "expire")
    assert "are gone" in run(file, "drop")


def test_a_broken_pipeline_shows_in_the_exit_code_of_status(lab: Lab, file: Path) -> None:
    run(file, "sync")
    lab.database.execute("SELECT pg_drop_replication_slot('neon_lake_lab')")
    result = CliRunner().invoke(commands, ["status", "--json", "--config", str(file)])
    assert result.exit_code == 1
    assert "is gone" in json.loads(result.stdout)["slot"]["problem"]


def test_every_command_explains_itself() -> None:
    for path in paths(commands):
        result = CliRunner().invoke(commands, [*path, "--help"])
        assert result.exit_code == 0
        assert "--json" in result.output


def paths(group: click.Group) -> Iterator[tuple[str, ...]]:
    """The words that lead to each command, past the groups."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from ((name, *rest) for rest in paths(command))
        else:
            yield (name,)
