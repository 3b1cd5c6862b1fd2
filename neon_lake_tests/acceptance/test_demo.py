"""The demonstration from end to end: real Postgres, real Dagster daemon, real Delta, and a workload all the while."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from neon_lake.demo import run
from neon_lake.demo.run import Size, run_demo
from neon_lake.demo.shop import TABLES
from neon_lake_tests.fixtures.workspaces import Workspace

SMALL = Size(scale=0.02, rate=80, batches=1)

pytestmark = pytest.mark.timeout(300)  # a dozen processes start one after another, beside other tests


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the demonstration makes its directory; afterwards nothing of it is left there, and no process."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


def processes_in(place: Path) -> list[str]:
    """The command lines of processes whose environment or arguments name a file below `place`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            except OSError:
                continue
            if str(place).encode() in told:
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_every_table_is_equal_while_the_workload_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_demo(ui=False, as_json=True, size=SMALL) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert set(document["tables"]) == {f"public.{table}" for table in TABLES}
    for name, table in document["tables"].items():
        assert table["counts_equal"] is True, name
        assert table["content_equal"] is True, name
        assert table["source_rows"] == table["lake_rows"] > 0, name
        assert all(table[kind] > 0 for kind in ("inserts", "updates", "deletes", "snapshot_rows")), name
        assert 0 < table["freshness_best_seconds"] <= table["freshness_worst_seconds"], name
    assert document["ok"] is True
    assert document["workload"]["committed"] > 100
    steps = (
        "Starting Postgres",
        "Filling the shop",
        "Starting Dagster",
        "First snapshot",
        "Micro-batches",
        "Comparing",
    )
    assert all(f"✓ {step}" in said.err for step in steps)


@pytest.mark.timeout(1200)  # the same machine has the warehouse too
def test_every_table_is_equal_in_a_databricks_workspace(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", workspace.host)
    monkeypatch.setenv("DATABRICKS_TOKEN", workspace.token)
    monkeypatch.setenv("DATABRICKS_WAREHOUSE_ID", workspace.warehouse)
    monkeypatch.setenv("NEON_LAKE_DEMO_CATALOG", workspace.catalog)
    size = Size(scale=0.02, rate=10, batches=1)
    assert run_demo(ui=False, as_json=True, size=size, destination="databricks") == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["destination"] == "databricks"
    assert set(document["tables"]) == {f"public.{table}" for table in TABLES}
    for name, table in document["tables"].items():
        assert table["counts_equal"] is True, name
        assert table["content_equal"] is True, name
        assert table["source_rows"] == table["lake_rows"] > 0, name
        assert table["inserts"] + table["updates"] + table["deletes"] > 0, name
    assert "✓ Databricks" in said.err
    assert workspace.token not in said.out + said.err
    assert [s.name for s in workspace.client().schemas.list(workspace.catalog)] == ["default"]


def test_a_lake_that_was_changed_behind_its_back_is_a_failure_that_names_the_tables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = run._Demo._launch

    def tampered(demo: run._Demo, *rest: object) -> object:
        tamper(demo.place.root / "lake" / "public/payments", "delete", "id < '20000000'")
        tamper(demo.place.root / "lake" / "public/customers", "update", "id <= 200")
        return launch(demo, *rest)  # type: ignore[arg-type] # handed on as they are

    monkeypatch.setattr(run._Demo, "_launch", tampered)
    assert run_demo(ui=False, as_json=True, size=SMALL) == 1
    document = json.loads(capsys.readouterr().out)
    verdicts = {name: (t["counts_equal"], t["content_equal"]) for name, t in document["tables"].items()}
    assert verdicts.pop("public.payments") == (False, False)
    assert verdicts.pop("public.customers") == (True, False)
    assert set(verdicts.values()) == {(True, True)}
    assert document["ok"] is False
    assert any("rows differ" in said for said in document["tables"]["public.customers"]["failures"])


def tamper(path: Path, how: str, where: str) -> None:
    """Change rows of a Delta table as somebody else would; again when a run of the pipeline commits just then."""
    while True:
        table = DeltaTable(path)
        try:
            if how == "delete":
                assert table.delete(where)["num_deleted_rows"]
            else:
                assert table.update({"credit": "12345.67"}, predicate=where)["num_updated_rows"]
        except CommitFailedError:
            continue
        return
