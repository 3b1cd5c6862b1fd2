"""What people see of results: tables, and progress while a verb works."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from neon_lake.errors import Finding
from neon_lake.lifecycle import State
from neon_lake.pipeline.parts import Progress as Step
from neon_lake.pipeline.results import Expired, Status, Synced, TableResult, Verified

_COLOURS = {State.LIVE: "green", State.NEW: "cyan", State.STALE: "yellow", State.PARKED: "red"}


class Display:
    """Progress on stderr while a verb works, then its result on stdout. `quiet` shows no progress."""

    def __init__(self, *, quiet: bool) -> None:
        self._out = Console(file=sys.stdout, highlight=False)
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:,.0f} rows"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=Console(file=sys.stderr), disable=quiet)
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def progress(self, step: Step) -> None:
        """Show a step of a verb."""
        if step.said:
            self._progress.console.print(step.said)
            return
        name = str(step.table) if step.table else ""
        task = self._tasks.get((step.verb, name))
        if task is None:
            task = self._progress.add_task(f"{step.verb:<9} {name}", total=None)
            self._tasks[step.verb, name] = task
        self._progress.update(task, completed=step.rows, total=max(step.rows, 1) if step.done else None)
        if step.done and not step.rows:
            self._progress.update(task, completed=1, visible=False)

    def show(self, view: Any) -> None:
        """Print a result."""
        self._out.print(view, soft_wrap=isinstance(view, str))


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        name = column.removeprefix(">")
        table.add_column(name, justify="right" if column.startswith(">") else "left", overflow="fold")
    return table


def _state(state: State) -> str:
    return f"[{_COLOURS[state]}]{state}[/]"


def _reasons(reasons: Sequence[tuple[object, str]]) -> list[str]:
    return [f"[yellow]{name}[/]: {reason}" for name, reason in reasons]


def synced(result: Synced) -> Group:
    """What a micro-batch did."""
    table = _table("table", "state", ">snapshot", ">inserts", ">updates", ">deletes", ">truncates", "watermark")
    for name, r in sorted(result.tables.items()):
        c = r.counts
        numbers = [f"{n:,}" if n else "" for n in (r.snapshot_rows, c.inserts, c.updates, c.deletes, c.truncates)]
        table.add_row(str(name), _state(r.state), *numbers, str(r.watermark) if r.watermark is not None else "")
    captured = result.captured
    total = f"captured {captured.changes:,} changes up to {captured.end}"
    if result.costs:
        total += f"; {result.costs}"
    return Group(table, total, *_reasons([(n, r.error) for n, r in sorted(result.tables.items()) if r.error]))


def replayed(result: TableResult) -> str:
    """What a replay did."""
    done = f"{result.table}: {result.counts.total:,} changes applied again up to {result.watermark}"
    return done if result.ok else f"{done}; {result.error}"


def verified(result: Verified) -> Group:
    """Parity, table by table."""
    table = _table("table", ">source rows", ">lake rows", "counts", "content", "at")
    lines = []
    for name, p in sorted(result.parity.items()):
        counts = "[green]equal[/]" if p.counts_equal else "[red]differ[/]"
        content = {None: "", True: "[green]equal[/]", False: "[red]differs[/]"}[p.content_equal]
        table.add_row(str(name), f"{p.source_rows:,}", f"{p.lake_rows:,}", counts, content, str(p.lsn))
        if p.differing:
            lines.append(f"[red]{name}[/]: {'at least ' if p.at_least else ''}{p.differing:,} rows differ")
            lines += [f"  {difference}" for difference in p.differences]
    lines += [f"{name}: {reason}" for name, reason in sorted(result.left_out.items())]
    return Group(table, *lines, *_reasons(sorted(result.unchecked.items())))


def status(result: Status) -> Group:
    """Where everything stands."""
    head = [
        f"pipeline {result.pipeline}, slot {result.slot}",
        f"source at {result.position}, log at {result.checkpoint or 'no beginning yet'}"
        + (f", {result.lag:,} bytes behind" if result.lag else "")
        + (f"; the source keeps {result.retained:,} bytes of WAL" if result.retained else ""),
    ]
    if result.slot_problem:
        head.append(f"[red]{result.slot_problem}[/]")
    table = _table("table", "state", "watermark", ">lag (bytes)", ">Delta version", "reason")
    for t in result.tables:
        numbers = ["" if n is None else f"{n:,}" for n in (t.lag, t.version)]
        watermark = str(t.watermark) if t.watermark is not None else ""
        table.add_row(str(t.table), _state(t.state), watermark, *numbers, t.reason or "")
    return Group(*head, table)


def findings(found: Sequence[Finding]) -> Table:
    """What `check` saw."""
    table = _table("", "what", "")
    for finding in found:
        mark = "[red]✗[/]" if finding.problem else "[green]✓[/]"
        table.add_row(mark, finding.subject, finding.problem or finding.detail)
    return table


def exported(folder: str, tables: Mapping[str, str], changed: Sequence[str], left_out: Mapping[str, str]) -> Group:
    """What was written for Lakeflow: table → where it lands, files that are new, and tables that are not in it."""
    table = _table("table", "becomes")
    for name, target in tables.items():
        table.add_row(name, target)
    wrote = f"wrote {len(changed)} files to {folder}" if changed else f"{folder} has all of it already"
    return Group(table, wrote, *_reasons(sorted(left_out.items())))


def expired(result: Expired) -> str:
    """What retention removed."""
    return (
        f"removed {result.manifests:,} manifests, {result.segments:,} segments and {result.orphans:,} orphans, "
        f"and {result.files:,} old files of Delta tables; "
        f"the log begins at {result.kept_from or 'nothing'}"
    )
