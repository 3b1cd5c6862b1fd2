"""Child processes of the demonstration end when they should, and say why when they should not."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from neon_lake.demo.children import Child, ChildDied

STARTS_ANOTHER = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""
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


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in ("Z", "X")


def await_end(pid: int) -> None:
    handle = os.pidfd_open(pid) if is_alive(pid) else None
    if handle is not None:
        import select

        assert select.select([handle], [], [], 30)[0], f"process {pid} goes on"
        os.close(handle)


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


def test_stop_ends_what_the_child_started_too(start: Callable[[str], Child]) -> None:
    with start(STARTS_ANOTHER) as child:
        other = int(first_line(child))
        assert is_alive(other)
    await_end(other)
    assert not is_alive(other)
    child.stop()


def test_stop_ends_a_child_that_hears_nothing(start: Callable[[str], Child], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neon_lake.demo.children._SECONDS", 0.05)
    with start(DEAF) as child:
        first_line(child)
    assert child._process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent ended")
def test_a_child_ends_with_a_parent_that_is_killed_also_behind_a_shell_that_hides_interrupts(tmp_path: Path) -> None:
    program = f"""
        import os, signal, sys, time
        from pathlib import Path
        from neon_lake.demo.children import Child
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        child = Child("helper", (sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"),
                      log=Path({str(tmp_path / "log")!r}), env=os.environ, cwd=Path({str(tmp_path)!r}))
        while not child.log.read_text():
            pass
        print(child._process.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
        parent.wait()
    await_end(child)
    assert not is_alive(child)
