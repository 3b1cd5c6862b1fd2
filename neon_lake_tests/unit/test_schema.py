from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neon_lake.schema import KEY, Column, Relation, ReplicaIdentity, TableName, arrow_type, difference

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@given(names, names)
def test_a_table_name_reads_what_it_writes(schema: str, name: str) -> None:
    table = TableName(schema, name)
    assert TableName.parse(str(table)) == table


def test_a_name_without_schema_is_in_public() -> None:
    assert TableName.parse("orders") == TableName("public", "orders")
    assert TableName.parse('"a.b"') == TableName("public", "a.b")


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a.b.c", '"', '"a', 'a"b"'])
def test_what_is_no_table_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a table name"):
        TableName.parse(text)


@given(names, names)
def test_a_name_in_sql_is_quoted(schema: str, name: str) -> None:
    table = TableName(schema, name)
    assert table.sql.count('"') == 4 + 2 * (schema + name).count('"')


def test_a_path_stays_within_its_folder() -> None:
    path = TableName("..", "a/b").path
    assert path.count("/") == 1
    assert ".." not in path.split("/")


@pytest.mark.parametrize(
    "arrow",
    [
        pa.bool_(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.binary(),
        pa.date32(), pa.timestamp("us"), pa.timestamp("us", tz="UTC"), pa.decimal128(38, 9),
        pa.list_(pa.decimal128(4, 2)), pa.list_(pa.timestamp("us", tz="UTC")),
    ],
)  # fmt: skip
def test_arrow_types_are_read_back_from_their_text(arrow: pa.DataType) -> None:
    assert arrow_type(str(arrow)) == arrow


def column(name: str, type_: str = "text", *, nullable: bool = True, has_default: bool = False) -> Column:
    return Column(name=name, type=type_, arrow=pa.string(), nullable=nullable, has_default=has_default)


def relation(*columns: Column) -> Relation:
    return Relation(table=TableName("public", "t"), columns=columns, identity=ReplicaIdentity.FULL)


def test_a_relation_survives_json() -> None:
    before = relation(Column(name="id", type="integer", arrow=pa.int32(), key=True, nullable=False), column("v"))
    after = Relation.from_json(json.loads(json.dumps(before.to_json())))
    assert after == before
    assert [c.name for c in after.key] == ["id"]


def target(*columns: Column) -> pa.Schema:
    """A table of the lake: columns from the source, and some of its own."""
    row_id = pa.field("_row_id", pa.binary(), metadata={KEY: b"true"})
    return pa.schema([*(column.field for column in columns), row_id, pa.field("_lsn", pa.int64())])


def test_a_target_of_changes_keeps_columns_that_are_gone() -> None:
    old = pa.schema([column("a").unkeyed, column("b").unkeyed, pa.field("_lsn", pa.int64())])
    assert difference(old, relation(column("a"))).none
    key = Column(name="a", type="text", arrow=pa.string(), key=True)
    assert difference(old, relation(key, column("b"))).none
    assert difference(old, relation(column("a"), column("c"))).obstacle == "column b was dropped or renamed"
    assert difference(old, relation(column("a", "json"), column("b"))).changed == ("a",)


def test_a_difference_names_what_came_went_and_changed() -> None:
    old = target(column("a"), column("b"), column("c"))
    found = difference(old, relation(column("a"), column("c", "json"), column("d")))
    assert [c.name for c in found.added] == ["d"]
    assert found.removed == ("b",)
    assert found.changed == ("c",)


@pytest.mark.parametrize(
    ("old", "new", "obstacle"),
    [
        ((column("a"),), (column("a"),), None),
        ((column("a"),), (column("a"), column("b")), None),
        ((column("a"), column("b")), (column("a"),), "column b was dropped"),
        ((column("a", "json"),), (column("a"),), "column a changed"),
        ((), (column("a", has_default=True),), "column a was added with a value"),
        ((), (column("a", nullable=False),), "column a was added with a value"),
    ],
)
def test_a_target_follows_only_columns_that_are_new_and_empty(
    old: tuple[Column, ...], new: tuple[Column, ...], obstacle: str | None
) -> None:
    found = difference(target(*old), relation(*new)).obstacle
    assert found is None if obstacle is None else str(found).startswith(obstacle)


def test_a_column_that_became_key_is_an_obstacle() -> None:
    now = Column(name="a", type="text", arrow=pa.string(), key=True)
    assert difference(target(column("a")), relation(now)).changed == ("a",)
