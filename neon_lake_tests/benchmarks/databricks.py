"""What a million changes cost on Databricks: bytes uploaded and statements, beside what the server sends for them."""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import psycopg
from psycopg import sql

from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake.pipeline import Replication
from neon_lake.pipeline_file import parse
from neon_lake_tests.benchmarks.capture import _INSERT, _SCHEMA, _SETTINGS, _flushed
from neon_lake_tests.fixtures.workspaces import Workspace, catalog, started

NAME: Final = "bench"
_SLOT: Final = "bench_limit"


def run(*, rows: int, updates: int, rounds: int, engine: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Sync `rows` inserts of one transaction and `updates` transactions of one update each; at last an idle time."""
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres.start(settings=_SETTINGS) as server,
        started(engine, Path(folder) / "workspace") as workspace,
        catalog(workspace) as place,
        psycopg.connect(server.url(), autocommit=True) as database,
    ):
        place.schema("public")
        volume = place.volume()
        database.execute(_SCHEMA.encode())
        _open(server.url(), place, volume).sync()
        for number in range(1, rounds + 1):
            found.append(_round(server, database, place, volume, rows, updates))
            say(f"round {number}: {found[-1]}")
        place.forget()
        idle = _open(server.url(), place, volume).sync().costs
    changes = (rows + updates) / 1_000_000
    limit, ours = (median(each[which] for each in found) / changes for which in ("sent", "uploaded"))
    return {
        "limit": round(limit),
        "neon_lake": round(ours),
        "ratio": round(ours / limit, 3),
        "peers": {},
        "unit": "bytes uploaded per million changes",
        "rounds": found,
        "statements_per_million_changes": round(median(each["statements"] for each in found) / changes, 1),
        "merges_per_table_and_batch": max(each["merges"] / each["tables"] for each in found),
        "statements_of_an_idle_sync": idle.statements,
        "inserts": rows,
        "updates": updates,
        "engine": workspace.engine,
        "limit_is": "bytes that the server sends for the same changes (pg_recvlogical with the same plugin options)",
    }


def _open(url: str, workspace: Workspace, volume: str) -> Replication:
    text = (
        f"pipeline: {NAME}\nsource: {{url: '{url}'}}\nstaging: {{path: {volume}/{NAME}}}\n"
        f"destination: {{kind: databricks, host: '{workspace.host}', token: '${{TOKEN}}', "
        f"warehouse: {workspace.warehouse}, catalog: {workspace.catalog}}}\ntables: [public.readings]\n"
    )
    return Replication.open(parse(text, Path("bench.yaml"), {"TOKEN": workspace.token}))


def _round(
    server: EmbeddedPostgres,
    database: psycopg.Connection[Any],
    workspace: Workspace,
    volume: str,
    rows: int,
    updates: int,
) -> dict[str, int]:
    database.execute("TRUNCATE readings, ends")
    _open(server.url(), workspace, volume).sync()
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [_SLOT])
    database.execute(_INSERT, {"rows": rows})
    database.execute("SET synchronous_commit = off")
    database.execute(sql.SQL("CALL touch({}, {})").format(rows, updates))
    database.execute("SET synchronous_commit = on")
    database.execute("CHECKPOINT")
    until = _flushed(database)
    database.execute("INSERT INTO ends VALUES (1)")
    sent = _sent(server, str(until))
    database.execute("SELECT pg_drop_replication_slot(%s)", [_SLOT])
    workspace.forget()
    replication = _open(server.url(), workspace, volume)
    result = replication.sync()
    assert result.captured.changes == rows + updates, result
    verbs = Counter(
        str(seen["statement"]).partition("*/ ")[2].partition(" ")[0]
        for seen in workspace.requests()
        if seen.get("statement")
    )
    return {
        "sent": sent,
        "uploaded": result.costs.bytes_uploaded,
        "statements": result.costs.statements,
        "merges": verbs["MERGE"],
        "tables": len(result.tables),
    }


def _sent(server: EmbeddedPostgres, until: str) -> int:
    """Bytes that the server sends for the changes."""
    command = [
        str(server.bindir / "pg_recvlogical"), "--dbname", server.url(), "--slot", _SLOT, "--start", "--no-loop",
        "--file", "-", "--endpos", until, "--fsync-interval", "0",
        "--option", "proto_version=1", "--option", f"publication_names=neon_lake_{NAME}",
    ]  # fmt: skip
    count = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(1 << 20):
            count += len(piece)
    assert process.returncode == 0
    return count
