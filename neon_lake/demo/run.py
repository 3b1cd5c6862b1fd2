"""The demonstration: an embedded Postgres, a workload that never stops, and real Dagster runs that follow it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import psycopg
from rich.console import Console

from neon_lake.demo import report, shop
from neon_lake.demo.children import Child
from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake.demo.lake import KINDS, Lake, LocalLake, UnityLake, lasting
from neon_lake.demo.narrator import Narrator, Step
from neon_lake.demo.place import PIPELINE, Place, free_port
from neon_lake.demo.workload import Workload
from neon_lake.errors import NeonLakeError
from neon_lake.orchestration.history import History, Run
from neon_lake.orchestration.names import Names
from neon_lake.pipeline_file import load
from neon_lake.schema import TableName

TABLES: Final = tuple(TableName("public", name) for name in shop.TABLES)
_SETTINGS: Final = {
    # Nothing of this database outlives the demonstration.
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "2GB",
}


class DemoFailed(NeonLakeError):
    """The demonstration came to no end, or a run of it failed."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the demonstration is: rows (1: 240,000), transactions per second, micro-batches before the check."""

    scale: float = 1.0
    rate: float = 100.0
    batches: int = 2


def run_demo(*, ui: bool, as_json: bool, size: Size | None = None, destination: str = KINDS[0]) -> int:
    """Run it and print the report on stdout, progress on stderr; gives the exit code.

    0 when every table's counts and contents were equal while the workload was running, else 1. With `ui` it all goes
    on after the report, with Dagster's pages, until Ctrl-C. `destination` is one of `KINDS`; for Databricks, the
    environment names the workspace. Raises `DemoFailed` and what its parts raise.
    """
    narrator = Narrator(Console(stderr=True, highlight=False))
    # Pages are easier to follow when less happens, and on one machine a test's warehouse needs the processors too.
    size = size or (Size(rate=30) if ui or destination == UnityLake.kind else Size())
    root = Path(tempfile.mkdtemp(prefix="neon-lake-demo-"))
    try:
        with _terminable():
            code = _Demo(narrator, Place(root=root), size, ui=ui).run(destination, as_json=as_json)
    except NeonLakeError:
        if any(root.glob("*.log")):
            narrator.say(f"What Dagster's programs said is kept in {root}")
        else:
            shutil.rmtree(root)
        raise
    except KeyboardInterrupt:
        narrator.say("Stopped.")
        code = 130
    shutil.rmtree(root, ignore_errors=True)
    return code


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the context as Ctrl-C does, so that everything is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Demo:
    def __init__(self, narrator: Narrator, place: Place, size: Size, *, ui: bool) -> None:
        self.narrator, self.place, self.size, self.ui = narrator, place, size, ui
        self.began = time.monotonic()
        self._children: list[Child] = []
        self._patience = 0.0

    def run(self, destination: str, *, as_json: bool) -> int:
        with ExitStack() as stack:
            lake = self._lake(stack, destination)
            self._patience = lake.patience
            server = self._postgres(stack)
            address = self._dagster(stack, server.url(), lake)
            workload = stack.enter_context(Workload(server.url(), rate=self.size.rate))
            history = stack.enter_context(History(self.place.dagster_home, load(self.place.pipeline_file), TABLES))
            self._follow(history, workload, lake)
            verified = self._verify(stack, history, workload)
            found = report.compose(
                TABLES,
                history.runs(),
                verified,
                destination=lake.kind,
                workload=workload.done,
                seconds=time.monotonic() - self.began,
            )
            self._print(found, as_json=as_json)
            if self.ui:
                self._stay(workload, address, lake)
        return 0 if found.ok else 1

    # --- what it consists of

    def _lake(self, stack: ExitStack, destination: str) -> Lake:
        if destination != UnityLake.kind:
            return LocalLake(root=self.place.root)
        with self.narrator.step("Databricks") as step:
            unity = UnityLake(os.environ, notice=step.tell)
            lake = stack.enter_context(lasting(unity, say=self.narrator.say))
            step.tell(lake.where)
        return lake

    def _postgres(self, stack: ExitStack) -> EmbeddedPostgres:
        with self.narrator.step("Starting Postgres") as step:
            server = stack.enter_context(EmbeddedPostgres.start(settings=_SETTINGS))
            step.tell(f"Postgres {server.major} on port {server.port}")
        titles = [title for title, _ in shop.steps()]
        with (
            self.narrator.step("Filling the shop", total=len(titles)) as step,
            psycopg.connect(server.url(), autocommit=True) as connection,
        ):

            def told(title: str) -> None:
                step.tell(title)
                step.reach(titles.index(title))

            rows = shop.load(connection, scale=self.size.scale, progress=told)
            step.tell(f"{rows:,} rows in {len(TABLES)} tables")
        return server

    def _dagster(self, stack: ExitStack, url: str, lake: Lake) -> str:
        """Start code location, daemon and, if asked for, the pages; gives the pages' address."""
        code_port = free_port()
        self.place.furnish(url, lake, code_port=code_port, hurry=not self.ui)
        with self.narrator.step("Starting Dagster") as step:
            step.tell("code location")
            serve = ("-m", "neon_lake.definitions", "--host", "127.0.0.1", "--port", str(code_port))
            self._start(stack, "dagster", "api", "grpc", *serve, "--location-name", "neon_lake")
            self._await(step, "The code location", lambda: _answers(code_port))
            workspace = ("--workspace", str(self.place.workspace_file))
            self._start(stack, "dagster-daemon", "run", *workspace)
            if not self.ui:
                step.tell("daemon, which looks at the slot every 5 s")
                return ""
            port = free_port(3000)
            self._start(stack, "dagster-webserver", "--host", "127.0.0.1", "--port", str(port), *workspace)
            step.tell("web pages")
            self._await(step, "Dagster's web server", lambda: _answers(port))
            step.tell(f"daemon, and its pages at http://127.0.0.1:{port}")
            return f"http://127.0.0.1:{port}"

    def _start(self, stack: ExitStack, program: str, *arguments: str) -> Child:
        command = (str(Path(sysconfig.get_path("scripts")) / program), *arguments)
        log = self.place.log(program if program != "dagster" else f"dagster-{arguments[0]}")
        child = Child(program, command, log=log, env=self.place.environment(), cwd=self.place.root)
        self._children.append(stack.enter_context(child))
        return child

    # --- what happens

    def _follow(self, history: History, workload: Workload, lake: Lake) -> None:
        """Wait for the first snapshot."""
        with self.narrator.step("First snapshot", total=len(TABLES)) as step:

            def landed() -> bool:
                tables = lake.landed(TABLES)
                step.reach(tables)
                step.tell(f"{tables} of {len(TABLES)} tables, {workload.done.committed:,} transactions meanwhile")
                return any(made.metadata.get("snapshot_rows") for run in _good(history) for made in run.materialized)

            self._await(step, "The first snapshot", landed)
            # Of the materializations of several hours, each tells of the one snapshot.
            rows = {
                m.table: int(m.metadata.get("snapshot_rows", 0))
                for run in history.runs()
                for m in run.materialized
                if m.metadata.get("snapshot_rows")
            }
            step.tell(f"{sum(rows.values()):,} rows in the lake")

    def _verify(self, stack: ExitStack, history: History, workload: Workload) -> Run:
        """Wait for micro-batches, and have Dagster compare every row of every table while the workload goes on.

        The comparison is asked for while the last of the micro-batches is at work: Dagster runs it right behind.
        """
        run_id, launched = str(uuid.uuid4()), list[Child]()
        with self.narrator.step("Micro-batches", total=self.size.batches) as step:

            def brought() -> int:
                batches, changes = _progress(_good(history, apart=run_id))
                step.reach(batches)
                step.tell(f"{changes:,} changes in the lake")
                return batches

            self._await(
                step,
                "The micro-batches",
                lambda: brought() >= self.size.batches - bool(history.waiting()),
            )
            launched.append(self._launch(stack, run_id))
            self._await(step, "The micro-batches", lambda: brought() >= self.size.batches)
        with self.narrator.step("Comparing every row") as step:
            before = workload.done.committed

            def ended() -> bool:
                step.tell(f"{workload.done.committed - before:,} transactions meanwhile")
                return launched[0].succeeded and any(run.id == run_id for run in history.runs())

            self._await(step, "The comparison", ended)
        run = next(run for run in history.runs() if run.id == run_id)
        if not run.checked:
            raise DemoFailed(f"The run that compares source and lake failed: {_why([run])}")
        return run

    def _launch(self, stack: ExitStack, run_id: str) -> Child:
        job = ("--job", Names(pipeline=PIPELINE).verify, "--run-id", run_id)
        child = self._start(stack, "dagster", "job", "launch", "--workspace", str(self.place.workspace_file), *job)
        # It ends by itself, which those that have to stay may not.
        self._children.remove(child)
        return child

    def _stay(self, workload: Workload, address: str, lake: Lake) -> None:
        self.narrator.say(
            f"\nEverything goes on: Dagster's pages are at [bold]{address}[/], the lake is in {lake.where}\n"
            "Ctrl-C ends it."
        )
        try:
            while True:
                self._ensure_alive(workload)
                time.sleep(1)
        except KeyboardInterrupt:
            self.narrator.say("Stopping …")

    def _print(self, found: report.Report, *, as_json: bool) -> None:
        if as_json:
            sys.stdout.write(json.dumps(found.to_json(), indent=2) + "\n")
        else:
            Console(file=sys.stdout, highlight=False).print(report.shown(found))
        sys.stdout.flush()

    # --- waiting

    def _await(self, step: Step, what: str, ready: Callable[[], bool]) -> None:
        """Look again and again until it is ready. Raises `ChildDied`, `WorkloadFailed`, and `DemoFailed` when late."""
        deadline = time.monotonic() + self._patience
        while not ready():
            for child in self._children:
                child.ensure_alive()
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"{what} took longer than {self._patience:.0f} s ({step.detail or 'nothing happened'})."
                )
            time.sleep(0.1)

    def _ensure_alive(self, workload: Workload) -> None:
        for child in self._children:
            child.ensure_alive()
        _ = workload.done


def _good(history: History, *, apart: str = "") -> Sequence[Run]:
    """The runs so far. Raises `DemoFailed` when one failed, `apart` from one that is judged by what it found."""
    runs = history.runs()
    if failed := [run for run in runs if not run.succeeded and run.id != apart]:
        raise DemoFailed(f"A Dagster run failed: {_why(failed)}")
    return runs


def _why(runs: Sequence[Run]) -> str:
    return next((error for run in runs for error in run.errors), "it gave no reason")


def _progress(runs: Sequence[Run]) -> tuple[int, int]:
    """How many micro-batches brought changes of every table, by the table that has fewest; and changes in all."""
    made = [m for run in runs for m in run.materialized if not m.metadata.get("snapshot_rows")]
    per_table = {table: sum(1 for m in made if m.table == table and report.changes_of(m)) for table in TABLES}
    return min(per_table.values()), sum(report.changes_of(m) for m in made)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
