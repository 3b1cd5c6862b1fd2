"""Changes per second into published manifests, beside what the server gives to a client that throws them away."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import psycopg
from psycopg import sql

from neon_lake.change import Lsn
from neon_lake.config import DeltaConfig, Pipeline, SourceConfig, StagingConfig, Table
from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake.pipeline.capture import capture
from neon_lake.pipeline.replication import Replication

NAME: Final = "bench"
_SLOT: Final = "bench_limit"

_SETTINGS: Final = {"max_wal_size": "8GB", "shared_buffers": "512MB", "autovacuum": "off"}

_SCHEMA: Final = """
CREATE TABLE readings (
    id bigint PRIMARY KEY, sensor integer NOT NULL, batch integer NOT NULL, price numeric(12, 2), name text,
    taken_at timestamptz, valid boolean, day date, value double precision, document varchar(60)
);
CREATE TABLE ends (id integer PRIMARY KEY);
CREATE PROCEDURE touch(rows bigint, updates bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..updates LOOP
        UPDATE readings SET batch = batch + 1, price = price + 1 WHERE id = (i * 37) % rows + 1;
        COMMIT;
    END LOOP;
END $$;
"""

_INSERT: Final = """
INSERT INTO readings
SELECT g, g %% 1000, g * 7 %% 100000, (g %% 100000) / 100.0, 'reading number ' || g,
       timestamptz '2026-01-01 00:00:00Z' + g * interval '1 second', g %% 2 = 0, date '2026-01-01' + (g %% 2000)::int,
       g / 3.0, '{"k": ' || g || ', "tags": ["a", "b"]}'
  FROM generate_series(1, %(rows)s::bigint) AS g
"""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Seconds that each took for the same changes."""

    limit: float
    neon_lake: float


def run(*, rows: int, updates: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure `rounds` times `rows` inserts in one transaction and `updates` transactions of one update each."""
    changes = rows + updates
    measured = []
    with EmbeddedPostgres.start(settings=_SETTINGS) as server, tempfile.TemporaryDirectory() as folder:
        url = server.url()
        with psycopg.connect(url, autocommit=True) as database:
            database.execute(_SCHEMA.encode())
            replication = _pipeline(url, Path(folder))
            replication.sync()
            for number in range(1, rounds + 1):
                with _workload(database, replication, rows, updates) as until:
                    # Each is first in turn: the second finds the WAL in the page cache.
                    order = (_limit, _neon_lake) if number % 2 else (_neon_lake, _limit)
                    seconds = {which: which(server, replication, until, changes) for which in order}
                measured.append(Round(limit=seconds[_limit], neon_lake=seconds[_neon_lake]))
                say(
                    f"round {number}: pg_recvlogical {changes / seconds[_limit]:,.0f}, "
                    f"neon_lake {changes / seconds[_neon_lake]:,.0f} changes/s"
                )
    limit = changes / median(each.limit for each in measured)
    ours = changes / median(each.neon_lake for each in measured)
    return {
        "limit": round(limit),
        "neon_lake": round(ours),
        "ratio": round(ours / limit, 3),
        "peers": {},
        "unit": "changes/s",
        "rounds": [
            {"limit": round(changes / each.limit), "neon_lake": round(changes / each.neon_lake)} for each in measured
        ],
        "inserts": rows,
        "updates": updates,
        "limit_is": "pg_recvlogical to the null device, with the same plugin options",
    }


def _pipeline(url: str, folder: Path) -> Replication:
    return Replication.open(
        Pipeline(
            pipeline=NAME,  # type: ignore[call-arg]  # the alias under which the file has the name
            source=SourceConfig(url=url),
            staging=StagingConfig(path=str(folder / "staging")),
            destination=DeltaConfig(path=str(folder / "lake")),
            tables=(Table(name="public.readings"),),
        )
    )


@contextmanager
def _workload(database: psycopg.Connection[Any], replication: Replication, rows: int, updates: int) -> Iterator[Lsn]:
    """Make the changes, and give the position after the last; both readers' slots stand before the first."""
    database.execute("TRUNCATE readings, ends")
    capture(replication.parts, _flushed(database))
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [_SLOT])
    database.execute(_INSERT, {"rows": rows})
    database.execute("SET synchronous_commit = off")
    database.execute(sql.SQL("CALL touch({}, {})").format(rows, updates))
    database.execute("SET synchronous_commit = on")
    database.execute("CHECKPOINT")
    until = _flushed(database)
    # Something after the end, so that no reader waits for a keepalive to know that it has passed it.
    database.execute("INSERT INTO ends VALUES (1)")
    yield until
    database.execute("SELECT pg_drop_replication_slot(%s)", [_SLOT])


def _flushed(database: psycopg.Connection[Any]) -> Lsn:
    row = database.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
    assert row is not None
    return Lsn.parse(row[0])


def _limit(server: EmbeddedPostgres, replication: Replication, until: Lsn, changes: int) -> float:
    """Seconds that pg_recvlogical takes to the null device."""
    del replication, changes
    command = [
        str(server.bindir / "pg_recvlogical"), "--dbname", server.url(), "--slot", _SLOT, "--start", "--no-loop",
        "--file", "/dev/null", "--endpos", str(until), "--fsync-interval", "0",
        "--option", "proto_version=1", "--option", f"publication_names=neon_lake_{NAME}",
    ]  # fmt: skip
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def _neon_lake(server: EmbeddedPostgres, replication: Replication, until: Lsn, changes: int) -> float:
    """Seconds until all changes are in published manifests and the slot is free."""
    del server
    began = time.perf_counter()
    captured = capture(replication.parts, until)
    seconds = time.perf_counter() - began
    if captured.changes != changes:
        raise AssertionError(f"{changes} changes were made and {captured.changes} captured")
    return seconds
