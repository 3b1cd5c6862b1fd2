"""`neon-lake export lakeflow`: what the command writes, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from neon_lake_tests.fixtures.following import PLAIN
from neon_lake_tests.fixtures.pipelines import Lab

WORKSPACE = "{kind: databricks, catalog: main, warehouse: w, host: 'https://127.0.0.1', token: '${WORKSPACE_TOKEN}'}"


def test_the_command_writes_a_bundle_and_overwrites_nothing(lab: Lab) -> None:
    lab.database.execute(PLAIN + "CREATE TABLE free (a int); ALTER TABLE free REPLICA IDENTITY FULL")
    lab.file.write_text(
        lab.text()
        .replace("{path: staging}", "{path: /Volumes/main/staging/log/lab}")
        .replace("{path: lake}", WORKSPACE)
    )
    command = [
        sys.executable,
        "-m",
        "neon_lake.cli",
        "--config",
        str(lab.root / "neon_lake.yaml"),
        "export",
        "lakeflow",
    ]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"WORKSPACE_TOKEN": "the-secret"}
        return subprocess.run(
            [*command, *arguments], env=environment, cwd=lab.root, capture_output=True, text=True, check=False
        )

    first = run("--json")
    assert first.returncode == 0, first
    told = json.loads(first.stdout)
    assert told["written"] == told["files"] == ["databricks.yml", "src/log.sql", "src/public.t.sql"]
    assert told["tables"]["public.t"] | {"needs": None} == {
        "mode": "mirror",
        "scd": 1,
        "schema": "public",
        "name": "t",
        "needs": None,
    }
    assert told["left_out"]["public.free"].startswith("It has no key")
    written = {path: path.read_text() for path in (lab.root / "lakeflow").rglob("*") if path.is_file()}
    assert not any("the-secret" in text for text in written.values())
    assert "lakeflow has all of it already" in run().stdout
    second = run("--scd", "2")
    assert (second.returncode, "src/public.t.sql would be overwritten" in second.stderr) == (2, True), second
    assert written == {path: path.read_text() for path in (lab.root / "lakeflow").rglob("*") if path.is_file()}
    assert run("--scd", "2", "--force").returncode == 0
    assert "SCD TYPE 2" in (lab.root / "lakeflow" / "src" / "public.t.sql").read_text()


def test_the_command_refuses_a_lake_elsewhere_before_it_asks_the_source(lab: Lab) -> None:
    (lab.root / "neon_lake.yaml").write_text(lab.text().replace(lab.database.url, "postgresql://nobody@127.0.0.1:1/x"))
    command = [
        sys.executable,
        "-m",
        "neon_lake.cli",
        "--config",
        str(lab.root / "neon_lake.yaml"),
        "export",
        "lakeflow",
    ]
    done = subprocess.run([*command, "--to", str(lab.root / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "not a Databricks workspace" in done.stderr
    assert not (lab.root / "out").exists()
