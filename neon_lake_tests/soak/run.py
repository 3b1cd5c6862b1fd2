"""Carrying a plan out on a real server, with real crashes; what should not be, raises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import sql

from neon_lake.config import Pipeline
from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake.errors import ConfigError, ResyncNeeded, SlotGap, SlotLost
from neon_lake.pipeline import Replication
from neon_lake.pipeline.results import Synced, TableResult
from neon_lake.pipeline_file import parse
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.postgres import TEST_SETTINGS
from neon_lake_tests.soak import oracle
from neon_lake_tests.soak.steps import (
    Beside,
    Compare,
    Join,
    Killed,
    LoseSlot,
    Plan,
    Remember,
    Replay,
    Restart,
    Sql,
    Step,
    Verb,
)

SETTINGS: Final = TEST_SETTINGS | {
    "max_prepared_transactions": "20",
    # transactions spill at the server too
    "logical_decoding_work_mem": "64kB",
    # what happens is what the plan says
    "autovacuum": "off",
}
_CHILD_SECONDS: Final = 90

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]


class Different(AssertionError):
    """Source and lake are not the same, or a command failed that should not."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What was seen: `rows` were compared; `refused` statements failed at the source, as some must."""

    cases: int = 0
    transactions: int = 0
    refused: int = 0
    syncs: int = 0
    crashes: int = 0
    restarts: int = 0
    comparisons: int = 0
    rows: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def __str__(self) -> str:
        return (
            f"{self.cases} cases: {self.transactions} transactions ({self.refused} statements refused), "
            f"{self.syncs} syncs, {self.crashes} processes killed, {self.restarts} restarts of Postgres, "
            f"{self.comparisons} tables compared with {self.rows} rows"
        )


def run(plan: Plan, server: EmbeddedPostgres, root: Path) -> Tally:
    """Carry a plan out in a database of its own and the empty directory `root`. Raises what goes wrong."""
    called = f"soak_{plan.seed}_{time.monotonic_ns()}"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(called)))
    case = _Case(plan=plan, server=server, root=root, database=called)
    try:
        for number, step in enumerate(plan.steps):
            case.at = number
            try:
                case.do(step)
            except Exception as exc:
                exc.add_note(f"at step {number}: {step}")
                raise
        return replace(case.tally, cases=1)
    finally:
        case.close()


@dataclass(kw_only=True)
class _Case:
    plan: Plan
    server: EmbeddedPostgres
    root: Path
    database: str
    at: int = 0
    tally: Tally = field(default_factory=Tally)
    connections: dict[int, Connection] = field(default_factory=dict)
    moments: list[datetime] = field(default_factory=list)
    beside: list[tuple[Beside, subprocess.Popen[str]]] = field(default_factory=list)
    kept: dict[str, set[oracle.Row]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    @property
    def config(self) -> Pipeline:
        lines = "\n".join(f"  - {line}" for line in self.plan.tables)
        text = (
            f"pipeline: soak_{self.plan.seed}\nsource: {{url: '{self.url}'}}\nstaging: {{path: staging}}\n"
            f"destination: {{path: lake}}\ntables:\n{lines}\n{self.plan.limits}\n"
        )
        path = self.root / "neon_lake.yaml"
        path.write_text(text, encoding="utf-8")
        return parse(text, path, {})

    def count(self, **more: int) -> None:
        self.tally += Tally(**more)

    def do(self, step: Step) -> None:
        match step:
            case Sql():
                self.execute(step)
            case Restart(mode):
                self.hang_up()
                self.server.restart("immediate" if mode == "immediate" else "fast")
                self.count(restarts=1)
            case Verb(name, tables):
                self.verb(name, tables)
            case Killed(arguments, failpoint):
                self.quiet()
                self.killed(arguments, failpoint)
            case Beside(arguments):
                self.beside.append((step, self.start(arguments)))
            case Join():
                self.join()
            case Remember():
                self.moments.append(datetime.now(UTC))
            case Replay(table, moment):
                self.replay(table, moment)
            case LoseSlot():
                self.lose_slot()
            case Compare(verify):
                self.compare(verify=verify)

    # --- the source

    def connection(self, number: int) -> Connection:
        if number not in self.connections or self.connections[number].closed:
            self.connections[number] = psycopg.connect(self.url, autocommit=True)
            # only what runs beside, and reads, can be in the way
            self.connections[number].execute("SET lock_timeout = '20s'; SET statement_timeout = '60s'")
            # what is random there is the same each time
            self.connections[number].execute("SELECT setseed(0.5)")
        return self.connections[number]

    def hang_up(self) -> None:
        for connection in self.connections.values():
            connection.close()
        self.connections.clear()

    def execute(self, step: Sql) -> None:
        connection = self.connection(step.connection)
        ends = step.text.startswith(("COMMIT", "ROLLBACK PREPARED")) or step.text == "ROLLBACK"
        idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        try:
            connection.execute(step.text.encode())
        except psycopg.Error:
            self.count(refused=1)
            if connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                connection.execute("ROLLBACK")
        else:
            if step.text.startswith(("ALTER", "DROP", "CREATE")):
                # a table that is snapshotted with other columns begins anew
                self.kept.clear()
            self.count(transactions=int(ends or (idle and step.text != "BEGIN")))

    def quiet(self) -> None:
        """What a plan has left open would keep a snapshot waiting; only a plan that was cut down leaves anything."""
        for connection in self.connections.values():
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
        with psycopg.connect(self.url, autocommit=True) as admin:
            for (called,) in admin.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
                admin.execute(sql.SQL("ROLLBACK PREPARED {}").format(called))
            # flushes what was committed without waiting for it
            admin.execute("SELECT pg_logical_emit_message(true, 'soak', '')")

    # --- the pipeline

    def open(self) -> Replication:
        return Replication.open(self.config)

    def verb(self, name: str, tables: tuple[str, ...]) -> None:
        self.quiet()
        names = [TableName.parse(table) for table in tables]
        if name in ("sync", "resync"):
            known = {relation.table for relation in self.open().relations()}
            replication = self.open()
            if known.issuperset(names):
                self.well(replication.sync(names) if name == "sync" else replication.resync(names))
        elif name == "status":
            self.open().status()
        else:
            later = timedelta(days=31) if name == "expire-later" else timedelta()
            self.open().expire(datetime.now(UTC) + later)

    def well(self, synced: Synced) -> None:
        self.count(syncs=1)
        if not synced.ok:
            bad = [f"{table}: {result.error}" for table, result in synced.tables.items() if not result.ok]
            raise Different("\n".join(["a sync failed", *bad]))

    def start(self, arguments: tuple[str, ...], **environment: str) -> subprocess.Popen[str]:
        _ = self.config
        command = [sys.executable, "-m", "neon_lake.cli", *arguments, "--config", str(self.root / "neon_lake.yaml")]
        return subprocess.Popen(
            command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def killed(self, arguments: tuple[str, ...], failpoint: str) -> None:
        child = self.start(arguments, NEON_LAKE_FAILPOINT=failpoint)
        said, _ = child.communicate(timeout=_CHILD_SECONDS)
        if "is not a table of the pipeline" in said:
            return
        if child.returncode not in (0, -signal.SIGKILL):
            raise Different(f"{' '.join(arguments)} ended with {child.returncode}: {said}")
        self.count(syncs=1, crashes=int(child.returncode != 0))

    def join(self) -> None:
        for step, child in self.beside:
            try:
                child.communicate(timeout=_CHILD_SECONDS if step.seconds is None else step.seconds)
            except subprocess.TimeoutExpired:
                if step.seconds is None:
                    raise
                child.kill()
                child.communicate()
            # what runs beside others may be told to try again, so its exit code says nothing here
            self.count(syncs=1, crashes=int(child.returncode == -signal.SIGKILL))
        self.beside.clear()

    def replay(self, table: str, moment: int) -> None:
        self.quiet()
        if moment >= len(self.moments):
            return
        # a log that does not reach back so far, or a table that has another shape by now, is an answer too
        with suppress(ConfigError, ResyncNeeded):
            result: TableResult = self.open().replay(TableName.parse(table), self.moments[moment])
            if result.error and "cannot be made whole from the log" not in result.error:
                raise Different(f"the replay of {table} failed: {result.error}")

    def lose_slot(self) -> None:
        self.quiet()
        slot = f"neon_lake_soak_{self.plan.seed}"
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots "
                "WHERE slot_name = %s AND active_pid IS NOT NULL",
                [slot],
            )
            admin.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [slot]
            )
        if self.open().parts.log.head() is None:
            return
        try:
            self.open().sync()
        except (SlotLost, SlotGap):
            self.well(self.open().resync())
        else:
            raise Different("the slot was lost, and a sync went on without a word")

    def compare(self, *, verify: bool) -> None:
        self.quiet()
        self.well(self.open().sync())
        found = []
        for table in oracle.tables(self.url):
            lake = self.root / "lake" / TableName(table.schema, table.called).path
            rows, lines = oracle.differences(self.url, table, lake)
            self.count(rows=rows, comparisons=1)
            found += lines
            keys = oracle.kept(table, lake)
            if lost := self.kept.get(str(table), set()) - keys:
                found.append(f"{table}: deleted rows are gone from the lake, such as {min(lost)}")
            self.kept[str(table)] = keys
        if found:
            raise Different("\n".join(["source and lake differ", *found]))
        if verify:
            verified = self.open().verify(deep=True)
            if not verified.ok:
                raise Different(f"source and lake are the same, and verify says {verified.to_json()}")

    def close(self) -> None:
        for _, child in self.beside:
            child.kill()
            child.communicate()
        self.hang_up()
        with psycopg.connect(self.url, autocommit=True) as admin:
            for (called,) in admin.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
                admin.execute(sql.SQL("ROLLBACK PREPARED {}").format(called))
        with psycopg.connect(self.server.url(), autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [self.database]
            )
            admin.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s",
                [self.database],
            )
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.database)))
