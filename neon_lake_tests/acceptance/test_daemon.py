"""The real daemon, as `dagster dev` starts it: rows are committed, and the lake follows by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copy
from typing import Any

import dagster as dg
import pytest

from neon_lake.orchestration.names import ROW_COUNT, STARTED_BY_TAG
from neon_lake_tests.fixtures.pipelines import Lab

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("users", "orders")
PATIENCE = 120.0
HASTE = "orchestration: {interval_seconds: 5, lag_kb: 0, max_age_seconds: 0}\n"
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@contextmanager
def daemon(home: Path, pipeline_file: Path) -> Iterator[Callable[[], str]]:
    """`dagster-daemon run` on the project's own workspace.yaml and dagster.yaml; gives what it has said so far."""
    copy(ROOT / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)):
        pass  # Dagster's SQLite storage is made by whoever opens it first, and not by two at once
    log = home / "daemon.log"
    environment = {"DAGSTER_HOME": str(home), "NEON_LAKE_CONFIG": str(pipeline_file)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("dagster-daemon"), "run", "--workspace", str(ROOT / "workspace.yaml")],
            cwd=home,
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:

        def said() -> str:
            assert process.poll() is None, f"the daemon ended: {log.read_text('utf-8')[-4000:]}"
            return log.read_text("utf-8")

        yield said
    finally:
        # its code server and the runs that it started are of its session
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_after(instance: dg.DagsterInstance, seen: set[str], said: Callable[[], str]) -> dg.DagsterRun:
    """The next run that ends, whoever started it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        log = said()
        for record in instance.get_run_records(dg.RunsFilter(statuses=list(ENDED))):
            if record.dagster_run.run_id not in seen:
                seen.add(record.dagster_run.run_id)
                return record.dagster_run
        time.sleep(0.1)
    pytest.fail(f"no run ended within {PATIENCE:.0f} s; the daemon said:\n{log[-4000:]}")


def latest(instance: dg.DagsterInstance, table: str) -> dict[str, Any]:
    """Metadata of a table's newest materialization, and the run that made it."""
    event = instance.get_latest_materialization_event(dg.AssetKey(["lab", "public", table]))
    assert event is not None
    assert event.asset_materialization is not None
    facts = {name: getattr(value, "value", None) for name, value in event.asset_materialization.metadata.items()}
    return facts | {"run": event.run_id}


def checks_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[tuple[str, str], bool]:
    """Whether the checks of a run passed."""
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    found = {}
    for record in records:
        assert record.event_log_entry.dagster_event is not None
        evaluation = record.event_log_entry.dagster_event.event_specific_data
        assert isinstance(evaluation, dg.AssetCheckEvaluation)
        found[evaluation.asset_key.path[-1], evaluation.check_name] = evaluation.passed
    return found


@pytest.mark.timeout(400)
def test_the_daemon_s_sensor_brings_committed_rows_into_the_lake(lab: Lab, tmp_path: Path) -> None:
    lab = replace(lab, extra=HASTE)
    lab.database.execute(
        "CREATE TABLE users (id int PRIMARY KEY, name text);"
        "CREATE TABLE orders (id bigint PRIMARY KEY, total numeric);"
        "INSERT INTO users SELECT g, 'user ' || g FROM generate_series(1, 50) g"
    )
    home = tmp_path / "dagster_home"
    home.mkdir()
    with daemon(home, lab.file) as said, dg.DagsterInstance.from_config(str(home)) as instance:
        seen: set[str] = set()
        first = run_after(instance, seen, said)
        assert first.status is dg.DagsterRunStatus.SUCCESS
        assert (first.job_name, first.tags[STARTED_BY_TAG]) == ("sync", "sensor")
        assert latest(instance, "users")["snapshot_rows"] == 50
        assert checks_of(instance, first) == {(table, ROW_COUNT): True for table in TABLES}
        lab.assert_equal("public.users", "public.orders")

        lab.database.execute(
            "BEGIN; INSERT INTO orders SELECT g, g * 1.5 FROM generate_series(1, 20) g;"
            "UPDATE users SET name = 'renamed' WHERE id <= 5; DELETE FROM users WHERE id = 50; COMMIT"
        )
        changes = {"users": (0, 5, 1), "orders": (20, 0, 0)}
        following = run_after(instance, seen, said)
        while latest(instance, "orders")["inserts"] != 20:
            # a run that was asked for before the commit may come in between
            following = run_after(instance, seen, said)
        assert following.status is dg.DagsterRunStatus.SUCCESS
        for table, counts in changes.items():
            facts = latest(instance, table)
            assert (facts["inserts"], facts["updates"], facts["deletes"]) == counts
            assert facts["run"] == following.run_id
        assert checks_of(instance, following) == {(table, ROW_COUNT): True for table in TABLES}
        lab.assert_equal("public.users", "public.orders")
