"""One command for everything: makes the environment in .venv when it is missing or out of date, then runs.

Needs nothing but python3 (3.11 or later) with its own venv and ensurepip. All progress goes to stderr, so
that the stdout of a command that was asked for --json is that one document.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import dev_setup as setup
from dev_setup import MAJORS, ROOT, SMALL, WHOLE, fail, say, tool

OLDEST_PYTHON = (3, 11)
ENGINES = ("sail", "spark")

CHECKS: tuple[tuple[str, ...], ...] = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)


def become(*command: str) -> NoReturn:
    """Replaces this process by the command, so that signals and the exit code are the command's own."""
    if os.name == "nt":
        raise SystemExit(subprocess.run(command, check=False).returncode)
    os.execv(command[0], command)  # noqa: S606 (there is no shell to start)


def lint() -> bool:
    """Runs the static checks, each with one line of progress and its output if it fails; true if all pass."""
    passed = True
    for name, *arguments in CHECKS:
        started = time.monotonic()
        done = subprocess.run(
            [tool(name), *arguments], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
        )
        verdict = "ok" if done.returncode == 0 else "FAILED"
        say(f"· {' '.join((name, *arguments))}: {verdict} ({time.monotonic() - started:.1f} s)")
        if done.returncode:
            passed = False
            say(done.stdout + done.stderr)
    return passed


def options(arguments: Sequence[str], *names: str) -> tuple[argparse.Namespace, list[str]]:
    """Takes the options of these names, each with a value, out of the arguments for another program."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        parser.add_argument(f"--{name}", type=int if name == "pg" else str)
    try:
        found, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as exc:
        wanted = (
            f"name a major version of PostgreSQL, {MAJORS[0]} to {MAJORS[-1]}" if "--pg" in str(exc) else "name one"
        )
        fail(f"{exc}: {wanted}.")
    if "pg" in names and found.pg is not None and found.pg not in MAJORS:
        fail(f"PostgreSQL {found.pg} is not supported: choose one from {MAJORS[0]} to {MAJORS[-1]}.")
    if "sdk" in names and found.sdk is not None and found.sdk not in setup.sdk_versions():
        fail(f"databricks-sdk {found.sdk} is not among the tested ones: choose {' or '.join(setup.sdk_versions())}.")
    if "engine" in names and found.engine not in (None, *ENGINES):
        fail(f"there is no engine {found.engine}: choose {' or '.join(ENGINES)}.")
    return found, others


def test(arguments: Sequence[str]) -> NoReturn:
    """Runs the static checks and all tests, or only pytest when arguments for it are given.

    `--pg MAJOR` alone runs the tests whose outcome may depend on the version of the server, `--sdk VERSION` alone those
    that may depend on the version of databricks-sdk, and nothing else.
    """
    asked, others = options(arguments, "pg", "sdk")
    setup.prepare_server(asked.pg or MAJORS[-1])
    workers = str(max(2, min(4, os.cpu_count() or 2)))
    parallel = ("-n", workers, "--dist", "loadgroup")
    # One word: before pytest has read the conftest.py that knows the option, another word would be a path to it.
    pytest = (tool("python"), "-m", "pytest", *([f"--pg={asked.pg}"] if asked.pg else ()))
    if asked.sdk:
        folders = (str(setup.prepare_sdk(asked.sdk)), os.environ.get("PYTHONPATH"))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    if (asked.pg or asked.sdk) and not others:
        chosen = (*(["--version-dependent"] if asked.pg else ()), *(["-m", "sdk"] if asked.sdk else ()))
        become(*pytest, *parallel, "--engines=sail", *chosen)
    setup.prepare_spark()
    if others:
        become(*pytest, *others)
    linted = lint()
    say(f"· pytest, {workers} processes")
    tested = subprocess.run([*pytest, *parallel], cwd=ROOT, check=False).returncode
    if not linted:
        say("· a static check FAILED: see above")
    raise SystemExit(tested or (0 if linted else 1))


@contextmanager
def workspace(engine: str) -> Iterator[dict[str, str]]:
    """A Databricks workspace on 127.0.0.1 with its SQL on this engine: what makes a program use it, as environment."""
    with tempfile.TemporaryDirectory(prefix="neon-lake-workspace-") as root, Path(root, "log").open("w+") as log:
        command = (tool("python"), "-m", "neon_lake_tests.workspace", "--engine", engine, "--root", f"{root}/workspace")
        # In a session of its own a Ctrl-C does not reach it: what uses it needs it to clean up.
        server = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        with server:
            try:
                assert server.stdout is not None
                line = server.stdout.readline()
                if not line:
                    log.seek(0)
                    said = log.read().strip().splitlines() or ["it said nothing"]
                    fail(f"the workspace on {engine} did not start: {said[-1]}")
                told = json.loads(line)
                say(f"· a Databricks workspace at {told['host']}, with {told['engine']} in place of a SQL warehouse")
                yield {
                    "DATABRICKS_HOST": told["host"],
                    "DATABRICKS_TOKEN": told["token"],
                    "DATABRICKS_WAREHOUSE_ID": told["warehouse"],
                    "NEON_LAKE_DEMO_CATALOG": "main",
                }
            finally:
                server.terminate()


def demo(arguments: Sequence[str]) -> NoReturn:
    """Runs the demonstration; with `--destination databricks` on a workspace of its own."""
    asked, others = options(arguments, "destination", "engine")
    if asked.destination != "databricks":
        become(tool("neon-lake"), "demo", *arguments)
    engine = asked.engine or ENGINES[0]
    if engine == "spark":
        setup.prepare_spark(needed=True)
    with workspace(engine) as variables:
        # Nothing of another workspace that this shell may know.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DATABRICKS_")}
        command = (tool("neon-lake"), "demo", "--destination", "databricks", *others)
        process = subprocess.Popen(command, env=kept | variables)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while True:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                # The terminal has told it too, and it has things to clean up.
                continue
            break
    raise SystemExit(code if code >= 0 else 128 - code)


def lock_wanted(command: str, arguments: Sequence[str]) -> Path:
    """The smallest lock that a command can do with: the tests and whatever has to do with Databricks want WHOLE."""
    databricks = "databricks" in " ".join(arguments) and command in ("demo", "bench", "setup")
    return WHOLE if databricks or command in ("test", "lint") else SMALL


EPILOG = """\
commands:
  demo [--json] [--ui]    the whole path once: embedded Postgres, live workload, Dagster runs, parity report
  demo --destination databricks [--engine spark]  the same into a Databricks workspace that it starts here
  test [PYTEST ARGS]      ruff, mypy, import-linter, then all tests; with arguments, pytest alone with them
  test --pg N [PYTEST ARGS]  the tests that depend on the server's version, or those named, on PostgreSQL N (14 to 18)
  test --sdk V [PYTEST ARGS]  the tests that depend on databricks-sdk's version, or those named, with version V of it
  lint                    the static checks alone
  bench NAME [--json]     one benchmark, side by side with the peers that run on this machine
  soak [--minutes N] [--seed S] [--pg N]  random cases for so long: crashes, DDL, transactions; a failure has a seed
  lock [--upgrade]        write both requirements*.lock from pyproject.toml
  setup [databricks]      make the environment, and no more

The environment lies in .venv; the first run downloads it, later runs take a second.
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Reads the command, prepares the environment and becomes the command."""
    if sys.version_info < OLDEST_PYTHON:
        fail(f"neon-lake needs Python 3.11 or later, and this is {sys.version.split()[0]}.")
    parser = argparse.ArgumentParser(
        prog="dev.py",
        usage="python3 dev.py COMMAND [ARGUMENTS]",
        description="Sets up neon-lake's environment and runs a command in it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = ("demo", "test", "lint", "bench", "soak", "lock", "setup")
    parser.add_argument("command", choices=commands, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="ARGUMENTS", help="handed to the command as they are")
    parsed = parser.parse_args(arguments)
    rest: list[str] = parsed.rest
    if parsed.command == "lock":
        setup.write_locks(rest)
    setup.prepare(lock_wanted(parsed.command, rest))
    if parsed.command == "demo":
        demo(rest)
    if parsed.command == "bench":
        become(tool("python"), "-m", "neon_lake_tests.benchmarks", *rest)
    if parsed.command == "soak":
        asked, _ = options(rest, "pg")
        setup.prepare_server(asked.pg or MAJORS[-1])
        become(tool("python"), "-m", "neon_lake_tests.soak", *rest)
    if parsed.command == "test":
        test(rest)
    raise SystemExit(0 if parsed.command == "setup" or lint() else 1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
