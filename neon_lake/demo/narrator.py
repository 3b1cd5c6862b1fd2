"""Tells a person what the demonstration is doing: bars on a terminal, else a line for each step that is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Step:
    """A step under way. `detail` is shown beside it; `advance` moves its bar on."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self.detail = ""

    def tell(self, detail: str) -> None:
        """Say how it goes."""
        self.detail = detail
        self._progress.update(self._task, detail=detail)

    def reach(self, completed: float) -> None:
        """Move the bar to so many of the step's total."""
        self._progress.update(self._task, completed=completed)


class Narrator:
    """Shows steps on a console, which is stderr's unless a test gives another."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = console.is_terminal

    @contextmanager
    def step(self, title: str, *, total: float | None = None) -> Iterator[Step]:
        """Show a step while the context lasts. `total`: what its bar counts to, if that is known."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
        )
        began = time.monotonic()
        with Progress(*columns, console=self.console, transient=True, disable=not self._bars) as progress:
            step = Step(progress, progress.add_task(f"{title:<20}", total=total, detail=""))
            yield step
        self.console.print(f"[green]✓[/] {title:<20} {step.detail} [dim]({time.monotonic() - began:.1f} s)[/]")

    def say(self, line: str) -> None:
        """Say something that is no step."""
        self.console.print(line)
