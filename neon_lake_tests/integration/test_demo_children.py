"""Child processes of the demonstration end when they should, and say why when they should not."""

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neon_lake.demo.children import Child, ChildDied
from neon_lake.demo.cluster import die_with

HOLDS = "import sys, time; held = open({path!r}, 'w'); print(1, file=held, flush=True); time.sleep(600)"
"""A program that is tied to a Lifeline."""
DEAF = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], Child]:
    def begin(program: str) -> Child:
        command = (sys.executable, "-c", program)
        return Child("helper", command, log=tmp_path / "helper.log", env=os.environ, cwd=tmp_path)

    return begin


def first_line(child: Child) -> str:
    """What the child printed first; waits for it."""
    while not child.log.read_text().endswith("\n"):
        child.ensure_alive()
    return child.log.read_text().splitlines()[0]


class Lifeline:
    """A named pipe that a process holds open for as long as it lives, on any system and whoever its parent is."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def program(self) -> tuple[str, ...]:
        """A command that holds it."""
        return (sys.executable, "-c", HOLDS.format(path=str(self.path)))

    def await_start(self) -> None:
        """Waits until the process lives."""
        assert self._heard(30) == b"1\n"

    def is_held(self) -> bool:
        """Whether the process still lives."""
        return self._heard(0) is None

    def await_end(self) -> None:
        """Waits until the process has ended."""
        assert self._heard(30) == b"", "the process goes on"

    def close(self) -> None:
        """Lets go of the pipe."""
        os.close(self._end)

    def _heard(self, seconds: float) -> bytes | None:
        return os.read(self._end, 100) if select.select([self._end], [], [], seconds)[0] else None


@pytest.fixture
def lifeline(tmp_path: Path) -> Iterator[Lifeline]:
    made = Lifeline(tmp_path / "lifeline")
    yield made
    made.close()


def test_a_child_that_ends_badly_is_told_with_its_last_words(start: Callable[[str], Child]) -> None:
    with start("import sys; print('first'); sys.exit('no such port')") as child:
        child._process.wait()
        for look in (child.ensure_alive, lambda: child.succeeded):
            with pytest.raises(
                ChildDied, match=r"helper ended with exit code 1: no such port \(all of it: .*helper.log"
            ):
                look()


def test_a_child_that_must_stay_may_not_end_well_either(start: Callable[[str], Child]) -> None:
    with start("pass") as child:
        child._process.wait()
        assert child.succeeded
        with pytest.raises(ChildDied, match="exit code 0: it said nothing"):
            child.ensure_alive()


def test_a_child_at_work_has_neither_died_nor_succeeded(start: Callable[[str], Child]) -> None:
    with start("import time; time.sleep(600)") as child:
        child.ensure_alive()
        assert not child.succeeded


def test_stop_ends_what_the_child_started_too(start: Callable[[str], Child], lifeline: Lifeline) -> None:
    with start(f"import subprocess, time; subprocess.Popen({lifeline.program()!r}); time.sleep(600)") as child:
        lifeline.await_start()
        assert lifeline.is_held()
    lifeline.await_end()
    child.stop()


def test_stop_ends_a_child_that_hears_nothing(start: Callable[[str], Child], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neon_lake.demo.children._SECONDS", 0.05)
    with start(DEAF) as child:
        first_line(child)
    assert child._process.returncode == -signal.SIGKILL


def test_a_child_ends_with_a_parent_that_is_killed_also_behind_a_shell_that_hides_interrupts(
    tmp_path: Path, lifeline: Lifeline
) -> None:
    program = f"""
        import os, signal, time
        from pathlib import Path
        from neon_lake.demo.children import Child
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        place = Path({str(tmp_path)!r})
        child = Child("helper", {lifeline.program()!r}, log=place / "log", env=os.environ, cwd=place)
        print(child._process.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        lifeline.await_start()
        assert lifeline.is_held()
        parent.kill()
        parent.wait()
    if die_with(os.getpid()) is None:
        # Only Linux tells a process that its parent ended: elsewhere it goes on until somebody ends it.
        assert lifeline.is_held()
        os.kill(child, signal.SIGKILL)
    lifeline.await_end()
