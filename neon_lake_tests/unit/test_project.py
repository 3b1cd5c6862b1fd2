"""What holds for the project as a whole: its lock, its files, and what an import costs."""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")

LOCKED = [
    *(("base", line) for line in PROJECT["dependencies"]),
    *(("dev", line) for line in PROJECT["optional-dependencies"]["dev"]),
]
HEAVY = ("pandas", "pyspark", "dagster_databricks", "databricks")
"""Seconds each to import, and needed by few: whoever needs one imports it late."""


def pins() -> Iterator[Requirement]:
    for line in LOCK.splitlines():
        if line and not line.startswith((" ", "#")):
            yield Requirement(line.removesuffix("\\").strip())


def committed_files() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            yield path


def test_lock_holds_no_address() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^\s*(-|--)[a-z]*(index|find-links)", LOCK, re.MULTILINE)


def test_every_pin_of_the_lock_is_exact_and_hashed() -> None:
    blocks = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(blocks) == len(list(pins())) > 50
    for block in blocks:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+", block), block
        assert "--hash=sha256:" in block, block


@pytest.mark.parametrize(("group", "line"), LOCKED)
def test_lock_agrees_with_each_direct_dependency(group: str, line: str) -> None:
    wanted = Requirement(line)
    found = [pin for pin in pins() if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
    assert found, f"{line} ({group}) is not in requirements.lock: run `python3 dev.py lock`"
    for pin in found:
        (version,) = (specifier.version for specifier in pin.specifier)
        assert wanted.specifier.contains(version), f"{pin} is outside {line}: run `python3 dev.py lock`"


def test_lock_has_no_two_pins_for_one_place() -> None:
    here = [canonicalize_name(pin.name) for pin in pins() if not pin.marker or pin.marker.evaluate()]
    assert len(here) == len(set(here))


def test_lock_leaves_the_databricks_extra_out() -> None:
    assert not {pin.name for pin in pins()} & {"dagster-databricks", "pyspark", "databricks-sdk"}


def test_committed_files_name_no_machine_and_no_index() -> None:
    # Taken apart here, so that this file does not hold what it looks for.
    machine = rb"(?<![\w.$}])/(?:" + b"|".join([b"wo" + b"rk", b"ro" + b"ot", b"ho" + b"me", b"Us" + b"ers"]) + rb")/\w"
    hosts = b"|".join([rb"pypi\." + b"org", rb"python" + rb"hosted\.org", b"arti" + b"factory", b"/sim" + b"ple/"])
    unwanted = re.compile(machine + b"|" + hosts)
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in committed_files()
        for match in unwanted.finditer(path.read_bytes())
    ]
    assert found == []


def test_nothing_records_download_addresses() -> None:
    assert not {path.name for path in committed_files()} & {
        "uv.lock",
        "poetry.lock",
        "Pipfile.lock",
        "pip.conf",
    }


def imported_by(program: str, *names: str) -> set[str]:
    """Which of the named packages a fresh interpreter has imported after `program`."""
    tail = f"import sys; print(*(n for n in {names!r} if n in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{program}\n{tail}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_definitions_load_without_the_heavy_packages() -> None:
    assert imported_by("import neon_lake.definitions", *HEAVY) == set()


def test_command_line_loads_without_the_heavy_packages() -> None:
    assert imported_by("import neon_lake.cli", *HEAVY) == set()


def test_help_of_the_command_line_loads_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['neon-lake', '--help']\n"
        "from neon_lake.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code"
    )
    assert imported_by(program, *HEAVY, "dagster") == set()


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    package = {str(path.relative_to(ROOT)) for path in committed_files() if path.is_relative_to(ROOT / "neon_lake")}
    assert package <= packed
    assert not [name for name in packed if name.startswith("neon_lake_tests")]
