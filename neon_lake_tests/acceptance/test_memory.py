"""A transaction of ten million rows goes through a pipeline in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from neon_lake_tests.fixtures.pipelines import Lab

ROWS = 10_000_000
BOUND = 1200 << 20
"""Bytes. A process that has done nothing takes about 240 MiB; applying all changes at once takes more than this."""


def peak_of_sync(lab: Lab) -> int:
    """Sync in a process of its own; gives the most memory that it had, in bytes."""
    command = [sys.executable, "-m", "neon_lake.cli", "sync", "--config", str(lab.file)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.timeout(600)
def test_ten_million_rows_in_one_transaction(lab: Lab) -> None:
    small = Lab(database=lab.database, root=lab.root, extra="limits: {memory_mb: 64}\n")
    small.database.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    small.replication.sync()
    small.database.execute(
        f"BEGIN; INSERT INTO t SELECT g, g FROM generate_series(1, {ROWS}) g; DELETE FROM t WHERE id <= 10; COMMIT"
    )
    assert peak_of_sync(small) < BOUND
    parity = small.replication.verify().parity
    assert [(p.source_rows, p.lake_rows) for p in parity.values()] == [(ROWS - 10, ROWS - 10)]
