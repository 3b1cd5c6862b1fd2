"""What holds for the project as a whole: its locks, its files, and what an import costs."""

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

from dev_setup import LOCKS as EXTRAS
from dev_setup import SMALL, WHOLE

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCKS = [path.name for path in EXTRAS]

LOCKED = [
    (lock.name, extra, line)
    for lock, extras in EXTRAS.items()
    for extra in ("", *extras)
    for line in (PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"])
]
HEAVY = ("pandas", "pyspark", "dagster_databricks", "databricks")
"""Seconds each to import, and needed by few: whoever needs one imports it late."""


def text_of(lock: str) -> str:
    return (ROOT / lock).read_text("utf-8")


def pins(lock: str) -> Iterator[Requirement]:
    for line in text_of(lock).splitlines():
        if line and not line.startswith((" ", "#")):
            yield Requirement(line.removesuffix("\\").strip())


def committed_files() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            yield path


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_no_address(lock: str) -> None:
    assert "://" not in text_of(lock)
    assert not re.search(r"^\s*(-|--)[a-z]*(index|find-links)", text_of(lock), re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_of_a_lock_is_exact_and_hashed(lock: str) -> None:
    blocks = re.split(r"\n(?=\S)", text_of(lock).strip())
    assert len(blocks) == len(list(pins(lock))) > 50
    for block in blocks:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+", block), block
        assert "--hash=sha256:" in block, block


@pytest.mark.parametrize(("lock", "extra", "line"), LOCKED)
def test_a_lock_agrees_with_each_direct_dependency(lock: str, extra: str, line: str) -> None:
    wanted = Requirement(line)
    found = [pin for pin in pins(lock) if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
    assert found, f"{line} ({extra}) is not in {lock}: run `python3 dev.py lock`"
    for pin in found:
        (version,) = (specifier.version for specifier in pin.specifier)
        assert wanted.specifier.contains(version), f"{pin} is outside {line}: run `python3 dev.py lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_no_two_pins_for_one_place(lock: str) -> None:
    here = [canonicalize_name(pin.name) for pin in pins(lock) if not pin.marker or pin.marker.evaluate()]
    assert len(here) == len(set(here))


def test_the_lock_of_the_first_command_leaves_databricks_and_the_engines_out() -> None:
    heavy = {"dagster-databricks", "pyspark", "pysail", "databricks-sdk"}
    assert not {pin.name for pin in pins(SMALL.name)} & heavy
    assert {pin.name for pin in pins(WHOLE.name)} >= heavy


def test_the_smaller_lock_is_a_part_of_the_larger_one() -> None:
    assert {str(pin) for pin in pins(SMALL.name)} < {str(pin) for pin in pins(WHOLE.name)}


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
