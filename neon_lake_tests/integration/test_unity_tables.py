"""What a table in Unity Catalog is, besides its rows: types, key, clustering, comments, properties."""

from __future__ import annotations

from pathlib import Path

import pytest
from databricks.sdk.service.catalog import TableInfo

from neon_lake_tests.fixtures.databricks import DatabricksLab
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.workspaces import Workspace


@pytest.fixture
def lab(database: Database, tmp_path: Path, workspace: Workspace) -> DatabricksLab:
    database.execute(
        """
        CREATE TABLE orders (line int, id bigint, total numeric(12, 2), note text, PRIMARY KEY (id, line));
        COMMENT ON TABLE orders IS 'What people''ve bought; a \\ and a "quote"';
        COMMENT ON COLUMN orders.total IS 'In euros, with VAT';
        COMMENT ON COLUMN orders.id IS 'Of the order';
        INSERT INTO orders VALUES (1, 10, 9.99, 'x')
        """
    )
    return DatabricksLab(database=database, root=tmp_path, workspace=workspace, volume=workspace.volume())


def described(lab: DatabricksLab) -> TableInfo:
    return lab.workspace.client().tables.get(lab.full_name("public.orders"))


def test_a_table_says_where_it_is_from_and_what_is_in_it(lab: DatabricksLab) -> None:
    assert lab.opened().sync().ok
    found = described(lab)
    assert found.comment == 'What people\'ve bought; a \\ and a "quote"'
    columns = {column.name: column for column in found.columns or ()}
    assert [(name, column.type_text) for name, column in columns.items()][:4] == [
        ("line", "int"),
        ("id", "bigint"),
        ("total", "decimal(12,2)"),
        ("note", "string"),
    ]
    comments = {name: column.comment for name, column in columns.items() if column.comment}
    assert comments == {"id": "Of the order", "total": "In euros, with VAT"}
    assert [name for name, column in columns.items() if not column.nullable] == ["line", "id"]
    properties = found.properties or {}
    assert properties["neon_lake.pipeline"] == "lab"
    assert properties["neon_lake.table"] == "public.orders"
    assert properties["neon_lake.source"] == f"127.0.0.1/{lab.database.name}"
    assert properties["delta.enableDeletionVectors"] == "true"
    assert properties["delta.columnMapping.mode"] == "name"
    assert not [value for value in properties.values() if lab.workspace.token in value]
    keys = [constraint.primary_key_constraint for constraint in found.table_constraints or []]
    assert [key.child_columns for key in keys if key] == [["line", "id"]]
    assert any("CLUSTER BY (`line`, `id`)" in statement for statement in lab.statements())


def test_what_the_source_says_anew_comes_with_the_next_snapshot(lab: DatabricksLab) -> None:
    assert lab.opened().sync().ok
    lab.database.execute("COMMENT ON TABLE orders IS NULL; COMMENT ON COLUMN orders.note IS 'Free text'")
    assert lab.opened().resync().ok
    found = described(lab)
    assert not found.comment
    assert {c.name: c.comment for c in found.columns or () if c.comment} == {
        "id": "Of the order",
        "total": "In euros, with VAT",
        "note": "Free text",
    }
    lab.assert_equal("public.orders")
