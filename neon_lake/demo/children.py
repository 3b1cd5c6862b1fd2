"""Child processes of the demonstration: each with a log file, a process group of its own, and its parent's fate."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from neon_lake.demo.cluster import die_with
from neon_lake.errors import NeonLakeError

_SECONDS: Final = 3.0
"""How long each of the ways to end a child is given."""


class ChildDied(NeonLakeError):
    """A process that the demonstration needs has ended by itself."""


class Child(AbstractContextManager["Child"]):
    """A running program. A context manager: it ends, with everything that it started, when the context does.

    Attributes:
        name: what it is called in messages.
        log: the file with all its output.
    """

    def __init__(self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env),
                cwd=cwd,
                # A Ctrl-C at the terminal is ours to pass on, in the right order; and the group ends as a whole.
                start_new_session=True,
                preexec_fn=_prepare(os.getpid()),  # noqa: PLW1509 (it takes no lock that another thread may hold)
            )

    @property
    def succeeded(self) -> bool:
        """Whether it has done its work and ended. Raises `ChildDied` when it ended badly."""
        code = self._process.poll()
        if code:
            raise self._died(code)
        return code == 0

    def ensure_alive(self) -> None:
        """Raise `ChildDied`, with its last line of output, when it has ended, well or badly."""
        if (code := self._process.poll()) is not None:
            raise self._died(code)

    def _died(self, code: int) -> ChildDied:
        lines = self.log.read_text("utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
        return ChildDied(f"{self.name} ended with exit code {code}: {lines[-1]} (all of it: {self.log})")

    def stop(self) -> None:
        """End it as Ctrl-C would, then harder, and then whatever is left of its process group. Idempotent."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _prepare(parent: int) -> Callable[[], None]:
    """What a child does before its program begins."""
    share_fate = die_with(parent)

    def prepare() -> None:
        # A shell has what it starts in the background ignore SIGINT, and so would the child, for good.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if share_fate is not None:
            share_fate()

    return prepare
