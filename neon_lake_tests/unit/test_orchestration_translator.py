"""How tables become assets."""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neon_lake.apply.delta_types import delta_type
from neon_lake.config import Pipeline
from neon_lake.orchestration.assets import lake_assets, source_assets
from neon_lake.orchestration.checks import content_checks
from neon_lake.orchestration.names import Names
from neon_lake.orchestration.translator import Translator
from neon_lake.pipeline_file import parse
from neon_lake.schema import Column, Relation, TableName

PASSWORD = "hush-hush"


def config(more: str = "", tables: str = '"*.*"') -> Pipeline:
    text = f"""
pipeline: shop
source: {{url: "postgresql://me:{PASSWORD}@db.example/shop%20floor"}}
staging: {{path: /data/staging}}
destination: {{path: /data/lake}}
tables: [{tables}]
{more}
"""
    return parse(text, Path("neon_lake.yaml"), {})


ORDERS = Relation(
    table=TableName("public", "orders"),
    columns=(
        Column(name="id", type="bigint", arrow=pa.int64(), key=True, nullable=False),
        Column(name="total", type="numeric(10,2)", arrow=pa.decimal128(10, 2)),
        Column(name="tags", type="text[]", arrow=pa.list_(pa.string())),
    ),
    comment="What was bought.",
)


def test_keys_are_prefix_schema_table() -> None:
    translator = Translator(config())
    assert translator.asset_key(ORDERS.table) == dg.AssetKey(["shop", "public", "orders"])
    assert translator.source_key(ORDERS.table) == dg.AssetKey(["shop", "source", "public", "orders"])


def test_the_prefix_can_be_chosen() -> None:
    translator = Translator(config("orchestration: {prefix: [lake, eu]}"))
    assert translator.asset_key(ORDERS.table) == dg.AssetKey(["lake", "eu", "public", "orders"])


def test_an_asset_says_what_it_is() -> None:
    spec = Translator(config()).asset_spec(ORDERS)
    assert spec.description == "What was bought."
    assert spec.kinds == {"postgres", "delta"}
    assert spec.group_name == "shop"
    assert [dep.asset_key.path for dep in spec.deps] == [["shop", "source", "public", "orders"]]
    assert spec.metadata["dagster/table_name"] == "public.orders"
    assert spec.metadata["dagster/uri"] == "file:///data/lake/public/orders"


def test_the_columns_are_those_of_the_delta_table() -> None:
    schema = Translator(config()).asset_spec(ORDERS).metadata["dagster/column_schema"]
    shown = {column.name: column for column in schema.columns}
    assert list(shown) == ["id", "total", "tags", "_rescued_data", "_lsn", "_committed_at"]
    assert [shown[name].type for name in ("id", "total", "tags", "_committed_at")] == [
        "bigint",
        "decimal(10,2)",
        "array<string>",
        "timestamp",
    ]
    assert shown["id"].constraints == dg.TableColumnConstraints(nullable=False, other=["key"])
    assert shown["total"].description == "numeric(10,2) at the source"


def test_soft_deletes_show_their_column() -> None:
    schema = (
        Translator(config(tables="{name: public.*, deletes: soft}"))
        .asset_spec(ORDERS)
        .metadata["dagster/column_schema"]
    )
    assert schema.columns[-1].name == "_deleted_at"


def test_with_every_change_as_a_row_its_place_is_shown() -> None:
    schema = (
        Translator(config(tables="{name: public.*, mode: append}")).asset_spec(ORDERS).metadata["dagster/column_schema"]
    )
    assert [column.name for column in schema.columns[-5:]] == ["_rescued_data", "_op", "_lsn", "_seq", "_committed_at"]
    assert all(column.description for column in schema.columns)
    assert not any(column.constraints.other for column in schema.columns)


def test_each_column_is_from_the_column_of_the_same_name() -> None:
    translator = Translator(config())
    lineage = translator.asset_spec(ORDERS).metadata["dagster/column_lineage"]
    source = translator.source_key(ORDERS.table)
    assert lineage.deps_by_column == {
        name: [dg.TableColumnDep(asset_key=source, column_name=name)] for name in ("id", "total", "tags")
    }


def test_the_source_is_shown_with_its_own_types_and_no_secret() -> None:
    spec = Translator(config()).source_spec(ORDERS)
    assert spec.kinds == {"postgres", "table"}
    assert [column.type for column in spec.metadata["dagster/column_schema"].columns] == [
        "bigint",
        "numeric(10,2)",
        "text[]",
    ]
    assert spec.metadata["dagster/table_name"] == "shop floor.public.orders"
    assert PASSWORD not in repr(spec)


def test_a_table_of_which_only_the_name_is_known_has_no_columns() -> None:
    translator = Translator(config())
    bare = Relation(table=ORDERS.table, columns=())
    assert "dagster/column_schema" not in translator.asset_spec(bare).metadata
    assert "dagster/column_schema" not in translator.source_spec(bare).metadata


@pytest.mark.parametrize(
    ("arrow", "name"),
    [
        (pa.bool_(), "boolean"),
        (pa.int16(), "smallint"),
        (pa.int32(), "int"),
        (pa.float32(), "float"),
        (pa.float64(), "double"),
        (pa.string(), "string"),
        (pa.binary(), "binary"),
        (pa.date32(), "date"),
        (pa.timestamp("us"), "timestamp_ntz"),
        (pa.timestamp("us", tz="UTC"), "timestamp"),
        (pa.list_(pa.decimal128(38, 10)), "array<decimal(38,10)>"),
        (pa.map_(pa.string(), pa.string()), "map<string,string>"),
    ],
)
def test_types_have_the_names_that_delta_gives_them(arrow: pa.DataType, name: str) -> None:
    assert delta_type(arrow) == name


NASTY = [
    TableName("public", "orders"),
    TableName("public", "Orders"),
    TableName("public", "or ders"),
    TableName("public", "or_ders"),
    TableName("public", "or.ders"),
    TableName("public", "or-ders"),
    TableName("public", 'or"ders'),
    TableName("public", "commandes_à_faire"),
    TableName("public", "注文"),
    TableName("public", "売上"),
    TableName("public", "_hidden"),
    TableName("public", "ends_"),
    TableName("a__b", "c"),
    TableName("a", "b__c"),
    TableName("a_", "_b"),
]


def test_tables_of_any_name_live_side_by_side() -> None:
    settings, names = config(), Names(pipeline="shop")
    translator = Translator(settings)
    relations = [Relation(table=table, columns=ORDERS.columns) for table in NASTY]
    assets = lake_assets(settings, relations, translator, names)
    checks = content_checks(settings, relations, translator, names)
    assert len(assets.keys) == len(NASTY)
    assert len(assets.op.output_dict) == 2 * len(NASTY)
    assert len(list(checks.check_keys)) == len(NASTY)
    assert len({spec.key for spec in source_assets(relations, translator)}) == len(NASTY) + 1


part = st.text(st.sampled_from("ab_- .é注"), min_size=1, max_size=5)


@given(st.lists(st.tuples(part, part), min_size=2, max_size=2, unique=True))
def test_no_two_tables_share_an_output(names: list[tuple[str, str]]) -> None:
    translator = Translator(config())
    one, other = (translator.asset_key(TableName(*name)).to_python_identifier() for name in names)
    assert one != other
    assert one.isascii()


def test_names_can_be_qualified_so_that_pipelines_share_a_location() -> None:
    assert Names(pipeline="shop").sync == "sync"
    assert Names(pipeline="shop", qualified=True).sync == "shop_sync"
    assert Names(pipeline="shop", qualified=True).resources == {"shop_postgres", "shop_replication"}
