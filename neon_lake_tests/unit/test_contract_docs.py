"""The pages on types and on DDL show what the integration tests hold, row by row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import Schema

from neon_lake.schema import RESCUED as RESCUED_COLUMN
from neon_lake_tests.fixtures.type_rows import ROWS
from neon_lake_tests.integration import test_ddl

DOCS = Path(__file__).resolve().parents[2] / "docs"


def rows_on(page: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its first two lines."""
    (part,) = re.findall(
        rf"^## {heading}\n(.*?)(?=^## |\Z)", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def delta_type(arrow: pa.DataType) -> str:
    """The type that delta-rs gives a column, as Delta's schemas write it."""
    (field,) = json.loads(Schema.from_arrow(pa.schema([("v", arrow)])).to_json())["fields"]
    return named(field["type"])


def named(kind: Any) -> str:
    """A Delta type in one word."""
    if isinstance(kind, str):
        return kind
    if kind["type"] == "map":
        return f"map<{named(kind['keyType'])},{named(kind['valueType'])}>"
    return f"array<{named(kind['elementType'])}>"


def code(text: str) -> str:
    """Text as code in a table's cell."""
    return f"`{text}`".replace("|", "\\|")


def types() -> list[list[str]]:
    """Every type that is tested: its name, its Delta type, and tested values that are rescued."""
    return [
        [code(row.sql), code(delta_type(row.arrow)), ", ".join(map(code, row.rescued))] for row in ROWS if row.shown
    ]


def ddl() -> list[list[str]]:
    """Every DDL that is tested: what it does, its SQL, and how it is answered."""
    return [[name, code(case.ddl), case.answer.value] for name, case in test_ddl.CASES.items()]


@pytest.mark.parametrize(("page", "heading", "rows"), [("types.md", "Types", types()), ("ddl.md", "Answers", ddl())])
def test_the_page_shows_what_is_tested(page: str, heading: str, rows: list[list[str]]) -> None:
    shown = rows_on(page, heading)
    assert [row for row in rows if row not in shown] == [], "tested, and not on the page"
    assert [row for row in shown if row not in rows] == [], "on the page, and not tested"
    assert shown == rows


def test_an_array_of_every_type_is_tested() -> None:
    scalars = [row for row in ROWS if not pa.types.is_list(row.arrow)]
    arrays = {row.sql: row for row in ROWS if pa.types.is_list(row.arrow)}
    assert len(scalars) > 90
    for row in scalars:
        assert arrays[f"{row.sql}[]"].arrow == pa.list_(row.arrow), row.sql


def test_every_type_has_values() -> None:
    for row in ROWS:
        assert row.fine, row.sql
        assert len(row.rescued) < len(row.values), row.sql


def test_the_pages_name_the_column_for_what_does_not_fit() -> None:
    assert f"`{RESCUED_COLUMN}`" in (DOCS / "types.md").read_text("utf-8")
