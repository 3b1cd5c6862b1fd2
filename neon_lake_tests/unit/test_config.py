"""The pipeline file: what it may say, and the line and the sentence when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from neon_lake.config import Deletes, DeltaConfig, Pipeline
from neon_lake.errors import ConfigError
from neon_lake.pipeline_file import config_path, load, parse
from neon_lake.schema import TableName

GOOD = """\
pipeline: shop                         # a comment with ${NOTHING} in it
source: {kind: postgres, url: ${URL}}
staging: {path: .neon_lake/staging, retention_days: 30}
destination: {kind: delta, path: /lake}
tables:
  - public.*
  - {name: public.events, skip: true}
  - {name: public.users, exclude: [password_hash], deletes: soft}
"""
ENVIRONMENT = {"URL": "postgresql://me:p{a]s:#s@host/db"}


def read(text: str, **environment: str) -> Pipeline:
    return parse(text, Path("/etc/neon_lake.yaml"), environment or ENVIRONMENT)


def mistake(text: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, **environment)
    return str(caught.value)


def test_the_file_of_the_contract_is_read() -> None:
    pipeline = read(GOOD)
    assert pipeline.name == "shop"
    assert pipeline.source.url == ENVIRONMENT["URL"]
    assert pipeline.staging.path == "/etc/.neon_lake/staging"
    assert isinstance(pipeline.destination, DeltaConfig)
    assert pipeline.destination.path == "/lake"
    users, events, orders = (pipeline.table(TableName("public", n)) for n in ("users", "events", "orders"))
    assert users is not None
    assert users.deletes is Deletes.SOFT
    assert users.exclude == ("password_hash",)
    assert events is not None
    assert events.skip
    assert orders is not None
    assert orders.name == "public.*"
    assert pipeline.table(TableName("other", "orders")) is None


def test_numeric_columns_are_given_types() -> None:
    asked = "deletes: soft, types: {amount: 'decimal(20,4)', ratio: double, exact: string}"
    users = read(GOOD.replace("deletes: soft", asked)).table(TableName("public", "users"))
    assert users is not None
    assert users.types == {"amount": "decimal(20, 4)", "ratio": "double", "exact": "string"}


def test_a_secret_is_in_no_repr() -> None:
    assert "p{a]s" not in repr(read(GOOD))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "deletes",
            "delete",
            "line 8: unknown key 'delete'; the keys here are name, mode, deletes, exclude, types, target, skip.",
        ),
        (
            "deletes: soft",
            "types: {amount: float}",
            "line 8: tables[2].types.amount: must be double, string, or a decimal",
        ),
        ("deletes: soft", "types: {amount: decimal(20,4)}", "line 8: tables[2].types.amount: must be double, string"),
        (
            "deletes: soft",
            "types: {a: 'decimal(39,2)'}",
            "line 8: tables[2].types.a: must be double, string, or a decimal",
        ),
        (
            "deletes: soft",
            "types: {a: 'decimal(4,5)'}",
            "line 8: tables[2].types.a: must be double, string, or a decimal",
        ),
        ("retention_days", "days", "line 3: unknown key 'days'; the keys here are path, retention_days, options."),
        ("pipeline: shop", "name_: shop", "line 1: unknown key 'name_'; the keys here are pipeline, source,"),
        ("30}", "-1}", "line 3: staging.retention_days: input should be greater than or equal to 0."),
        ("shop", "Shop", "line 1: pipeline: must begin with a letter and hold"),
        ("/lake", "ftp://lake", "line 4: destination.path: must be a directory, or a URL that begins with s3://"),
        ("kind: delta", "kind: iceberg", "line 4: destination: kind must be delta or databricks."),
        ("public.*", "a.b.c", "line 6: tables[0]: 'a.b.c' is not a table name"),
        ("deletes: soft", "mode: history", "line 8: tables[2].mode: input should be 'mirror' or 'append'."),
        ("destination", "staging", "line 4: the key 'staging' is given twice."),
        ("tables:", "tables: [", "this is not YAML"),
        ("source: {kind: postgres, url: ${URL}}\n", "", "line 1: source is missing."),
        (GOOD, "", "line 1: a pipeline file is a mapping"),
        (GOOD, "- a", "line 1: a pipeline file is a mapping"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, sentence: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    assert sentence in mistake(text)
    assert mistake(text).startswith("neon_lake.yaml line")


def test_a_variable_that_is_not_set_is_named() -> None:
    assert "line 2: the environment variable URL is not set" in mistake(GOOD, OTHER="x")


def test_a_wrong_secret_is_not_shown() -> None:
    assert "hunter2" not in mistake(GOOD, URL="mysql://me:hunter2@host")


def test_the_path_is_given_or_from_the_environment_or_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NEON_LAKE_CONFIG", raising=False)
    assert config_path() == Path("neon_lake.yaml")
    monkeypatch.setenv("NEON_LAKE_CONFIG", "/a.yaml")
    assert config_path() == Path("/a.yaml")
    assert config_path("/b.yaml") == Path("/b.yaml")
    with pytest.raises(ConfigError, match="give its path with --config"):
        load(tmp_path / "none.yaml")
