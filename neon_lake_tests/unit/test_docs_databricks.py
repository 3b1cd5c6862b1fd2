"""The guide to Databricks says what the code does."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pytest
import sqlglot
import yaml

from neon_lake import config, pipeline_file
from neon_lake.cli.commands import commands
from neon_lake.destinations.databricks import inspection, loads
from neon_lake.schema import Column, Relation, TableName
from neon_lake.workspace import statements

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "databricks.md").read_text("utf-8")
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SECRETS = {
    "NEON_DATABASE_URL": "postgresql://r:p@h/d",
    "DATABRICKS_CLIENT_ID": "id",
    "DATABRICKS_CLIENT_SECRET": "not-to-be-seen",
}
SECTIONS: dict[str, Any] = {
    "source": config.SourceConfig,
    "staging": config.StagingConfig,
    "destination": config.DatabricksConfig,
    "orchestration": config.Orchestration,
    "parity": config.Parity,
}


def sql_blocks() -> list[str]:
    return [
        re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    ]


def test_the_example_is_a_pipeline_file_for_databricks(tmp_path: Path) -> None:
    read = pipeline_file.parse(EXAMPLE, tmp_path / "neon_lake.yaml", SECRETS)
    assert isinstance(read.destination, config.DatabricksConfig)
    assert read.unity_name(TableName("public", "order")) == ("main", "shop", "orders_of_the_shop")
    assert "not-to-be-seen" not in repr(read)
    # both ways to name schemas, and every way to sign in, are keys that there are
    other = EXAMPLE.replace("schema: shop ", "schemas: {public: shop, billing: finance} ")
    assert pipeline_file.parse(other, tmp_path / "neon_lake.yaml", SECRETS).destination != read.destination


def test_what_the_example_names_is_what_the_statements_make() -> None:
    made = sql_blocks()[1]
    data = yaml.safe_load(re.sub(r"\$\{\w+\}", "x", EXAMPLE))
    _, volume, catalog, schema, name, _ = data["staging"]["path"].split("/")
    assert volume == "Volumes"
    assert f"CREATE VOLUME IF NOT EXISTS {catalog}.{schema}.{name};" in made
    assert f"CREATE SCHEMA IF NOT EXISTS {data['destination']['catalog']}.{data['destination']['schema']} " in made
    assert data["destination"]["warehouse"] in PAGE.partition("databricks permissions update warehouses ")[2][:20]


def test_keys_that_are_named_exist() -> None:
    named = re.findall(r"`(source|staging|destination|orchestration|parity)\.(\w+)\b", PAGE)
    assert len(set(named)) > 5
    for section, key in named:
        assert key in {field.name for field in dataclasses.fields(SECTIONS[section])}, (section, key)


def test_privileges_are_those_that_check_asks_for() -> None:
    privilege = r"\b(?:USE|READ|WRITE|CREATE|CAN) [A-Z]+\b|\bSELECT\b|\bMODIFY\b"
    remedies = " ".join(re.findall(r'"[^"]*grant this identity[^"]*"', inspect.getsource(inspection)))
    wanted = set(re.findall(privilege, remedies))
    assert len(wanted) == 8
    (table,) = re.findall(r"\n\| on \| privilege \| for \|\n(.*?)\n\n", PAGE, re.DOTALL)
    assert set(re.findall(privilege, table)) == wanted
    granted = {name for line in re.findall(r"GRANT (.*?) ON", sql_blocks()[1]) for name in re.findall(privilege, line)}
    # a warehouse is no object of SQL
    assert granted == wanted - {"CAN USE"}
    assert '"permission_level": "CAN_USE"' in PAGE


def test_the_statements_are_sql_of_their_databases() -> None:
    postgres, databricks = sql_blocks()
    for dialect, text in (("postgres", postgres), ("databricks", databricks)):
        found = [each for each in sqlglot.parse(text, dialect=dialect) if each is not None]
        assert len(found) == text.count(";\n")


def test_commands_and_their_options_exist() -> None:
    named = re.findall(
        r"neon-lake ((?:export )?[a-z]+)((?: --[a-z]+)*)", " ".join(re.findall(r"`neon-lake[^`]*`", PAGE))
    )
    named += re.findall(r"^\$ neon-lake ((?:export )?[a-z]+)(.*)$", PAGE, re.MULTILINE)
    assert {"check", "sync", "verify", "expire", "resync", "replay", "status", "export lakeflow"} <= {
        n for n, _ in named
    }
    for name, options in named:
        command: click.Command = commands
        for word in name.split():
            assert isinstance(command, click.Group)
            command = command.commands[word]
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z]+", options)) <= known, name


def test_setup_is_as_dev_py_has_it() -> None:
    assert "python3 dev.py setup databricks" in PAGE
    assert re.search(r"setup \[databricks\] ", (ROOT / "dev.py").read_text("utf-8"))


def test_sentences_of_failures_are_in_the_code() -> None:
    (table,) = re.findall(r"\n\| it says \| because \| do \|\n\|[-|]+\n(.*?)\n\n", PAGE, re.DOTALL)
    said = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(said) == len(table.splitlines()) >= 8
    sources = "".join(
        path.read_text("utf-8")
        for folder in ("workspace", "destinations/databricks")
        for path in (ROOT / "neon_lake" / folder).glob("*.py")
    )
    for sentence in said:
        if sentence == "since 15 minutes":
            assert statements.START_SECONDS / 60 == 15
            continue
        assert sentence in sources, sentence


def test_figures_are_those_of_the_code() -> None:
    assert "less than 8 GiB of staged files, and at most 256 of them" in " ".join(PAGE.split())
    assert (loads.LOAD_BYTES, loads.LOAD_FILES) == (8 << 30, 256)
    assert f"every {config.Orchestration().interval_seconds} seconds" in PAGE


def test_what_tables_are_made_with_is_what_the_page_says(tmp_path: Path) -> None:
    key = Column(name="id", type="bigint", arrow=pa.int64(), key=True)
    pipeline = pipeline_file.parse(EXAMPLE, tmp_path / "neon_lake.yaml", SECRETS)
    options = loads.options(Relation(table=TableName("public", "t"), columns=(key,)), pipeline)
    assert "with deletion vectors and column mapping" in " ".join(PAGE.split())
    assert options["delta.enableDeletionVectors"] == "true"
    assert options["delta.columnMapping.mode"] == "name"


@pytest.mark.parametrize("heading", re.findall(r"\]\(#([\w-]+)\)", PAGE))
def test_links_within_the_page_lead_somewhere(heading: str) -> None:
    headings = [
        re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    ]
    assert heading in headings
