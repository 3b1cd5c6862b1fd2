"""The exported SQL says what it has to, for every kind of table, and the bundle is one that Databricks' CLI takes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlglot
import sqlglot.errors
import yaml

from neon_lake.config import DatabricksConfig, Deletes, Pipeline, SourceConfig, StagingConfig, Table, WriteMode
from neon_lake.errors import ConfigError
from neon_lake.lakeflow import Export, export
from neon_lake.lakeflow.writing import write
from neon_lake.schema import Column, Relation, ReplicaIdentity, TableName
from neon_lake_tests.fixtures.lakeflow import resolved, statements

ID = Column(name="id", type="bigint", arrow=pa.int64(), key=True, nullable=False)
TOTAL = Column(name="total", type="integer", arrow=pa.int32())
NOTE = Column(name="note", type="text", arrow=pa.string())


def relation(table: str, *columns: Column, identity: ReplicaIdentity = ReplicaIdentity.DEFAULT) -> Relation:
    return Relation(table=TableName.parse(table), columns=columns, identity=identity)


def pipeline(*tables: Table, **destination: Any) -> Pipeline:
    given = {"catalog": "main", "warehouse": "1a2b"} | destination
    return Pipeline(
        name="shop",
        source=SourceConfig(url="postgresql://r:secret-of-the-source@h/d"),
        staging=StagingConfig(path="/Volumes/main/staging/log/shop"),
        destination=DatabricksConfig(kind="databricks", **given),
        tables=tables or (Table(name="*.*"),),
    )


def one(of: Relation, line: Table | None = None, *, scd: int = 1, variant: bool = False, **destination: Any) -> str:
    """The SQL of one table."""
    found = export(pipeline(*([line] if line else []), **destination), [of], scd=scd, variant=variant)
    (sql,) = [text for name, text in found.files.items() if name.startswith("src/") and name != "src/log.sql"]
    return sql


def flow(sql: str) -> str:
    """The AUTO CDC statement."""
    (found,) = [statement for statement in statements(sql) if "AUTO CDC INTO" in statement]
    return found


# --- what AUTO CDC is told


def test_rows_as_they_are() -> None:
    assert flow(one(relation("orders", ID, TOTAL))).splitlines() == [
        "CREATE FLOW neon_lake_public__orders_auto_cdc AS AUTO CDC INTO `${neon_lake.schema_1}`.`orders`",
        "FROM STREAM(neon_lake_public__orders_events)",
        "KEYS (`id`)",
        "APPLY AS DELETE WHEN _op = 'D'",
        "APPLY AS TRUNCATE WHEN _op = 'T'",
        "SEQUENCE BY STRUCT(_lsn, _seq, _half)",
        "COLUMNS * EXCEPT (_op, _seq, _half)",
        "STORED AS SCD TYPE 1",
    ]


def test_all_versions_and_values_that_may_be_unsent() -> None:
    assert flow(one(relation("orders", ID, NOTE), scd=2)).splitlines()[2:] == [
        "KEYS (`id`)",
        "APPLY AS DELETE WHEN _op = 'D'",
        "SEQUENCE BY STRUCT(_lsn, _seq, _half)",
        "COLUMNS * EXCEPT (_op, _seq, _half, _sent)",
        "STORED AS SCD TYPE 2",
        "TRACK HISTORY ON * EXCEPT (_lsn, _committed_at)",
        "COLUMNS TO UPDATE _sent",
    ]


def test_soft_deletes_are_no_deletes() -> None:
    sql = one(relation("orders", ID, TOTAL), Table(name="public.orders", deletes=Deletes.SOFT))
    assert "APPLY AS" not in flow(sql)
    assert "_deleted_at" in sql
    # all versions have the end of a row anyway
    versions = one(relation("orders", ID, TOTAL), Table(name="public.orders", deletes=Deletes.SOFT), scd=2)
    assert "APPLY AS DELETE" in flow(versions)
    assert "_deleted_at" not in versions


def test_with_full_identity_no_value_is_unsent() -> None:
    sql = one(relation("orders", ID, NOTE, identity=ReplicaIdentity.FULL))
    assert "_sent" not in sql
    assert "before REPLICA IDENTITY FULL" in sql
    # of values of one length none is stored apart from its row
    assert "_sent" not in one(relation("orders", ID, TOTAL))
    assert "_sent" in one(relation("orders", ID, NOTE))


def test_every_change_is_a_row_without_auto_cdc() -> None:
    sql = one(
        relation("events", TOTAL, NOTE, identity=ReplicaIdentity.NOTHING),
        Table(name="public.events", mode=WriteMode.APPEND),
    )
    assert "AUTO CDC" not in sql
    assert sql.rstrip().endswith("AS SELECT * FROM STREAM(neon_lake_public__events_events);")


def test_json_as_variant() -> None:
    document = Column(name="doc", type="jsonb", arrow=pa.string())
    assert "parse_json(CASE WHEN half = 1 THEN c_doc END) AS `doc`" in one(relation("t", ID, document), variant=True)
    assert "parse_json" not in one(relation("t", ID, document))


def test_what_a_table_needs_is_said_in_its_file() -> None:
    head = one(relation("orders", ID, NOTE)).partition("CREATE")[0]
    assert "COLUMNS TO UPDATE" in head
    assert 'ALTER TABLE "public"."orders" REPLICA IDENTITY FULL' in head
    assert "REPLICA IDENTITY" not in one(relation("orders", ID, TOTAL)).partition("CREATE")[0]


# --- names


def test_names_of_every_kind() -> None:
    odd = Column(name="a `b`; 'c'", type="text", arrow=pa.string())
    sql = one(relation('"My Schema"."Or.ders"', ID, odd))
    assert "INTO `${neon_lake.schema_1}`.`or_ders`" in sql
    assert "`a ``b``; 'c'`" in sql
    assert "'delta.columnMapping.mode' = 'name'" in sql
    assert "batches/*/My~20Schema.Or~2eders-*.parquet" in sql
    assert "snapshots/My~20Schema/Or~2eders/*/My~20Schema.Or~2eders-*.parquet" in sql
    assert "table_schema = 'My Schema' AND l.table_name = 'Or.ders'" in sql
    assert "columnMapping" not in one(relation("orders", ID, NOTE))


def test_names_between_are_never_those_of_another_column_or_table() -> None:
    columns = [Column(name=name, type="text", arrow=pa.string()) for name in ("a b", "a_b", "a-b", "lsn", "op", "é")]
    sql = one(relation("t", ID, *columns))
    declared = re.findall(r"^  (\w+) [A-Z<>]+,?$", sql, re.MULTILINE)
    assert len(declared) == len(set(declared)) == 9 + 7 + 1


def test_two_tables_of_one_name_are_refused() -> None:
    tables = [relation("public.Orders", ID), relation("public.orders", ID)]
    with pytest.raises(ConfigError, match=r"would both be public\.orders; give one of them another name with target"):
        export(pipeline(), tables)
    with pytest.raises(ConfigError, match=r"would both be lake\.orders"):
        export(pipeline(schema="lake"), [relation("a.orders", ID), relation("b.orders", ID)])


def test_schemas_and_targets_as_the_pipeline_file_maps_them() -> None:
    config = pipeline(Table(name="*.*"), Table(name="b.orders", target="Orders of B"), schemas={"a": "x", "b": "x"})
    found = export(config, [relation("a.orders", ID), relation("b.orders", ID), relation("c.t", ID)])
    assert {str(name): (table.schema, table.name) for name, table in found.tables.items()} == {
        "a.orders": ("x", "orders"),
        "b.orders": ("x", "orders_of_b"),
        "c.t": ("c", "t"),
    }
    schemas = yaml.safe_load(found.files["databricks.yml"])["resources"]["schemas"]
    assert [schema["name"] for schema in schemas.values()] == ["x${var.suffix}", "c${var.suffix}"]


# --- what is left out or refused


def test_tables_that_auto_cdc_cannot_keep() -> None:
    tables = [
        relation("free", TOTAL, identity=ReplicaIdentity.FULL),
        relation("twins", ID, NOTE, replace(NOTE, name="Note")),
        relation("fine", ID),
    ]
    found = export(pipeline(), tables, {TableName("public", "gone"): "It is a view."})
    assert list(map(str, found.tables)) == ["public.fine"]
    assert {str(name): reason.partition(";")[0] for name, reason in found.left_out.items()} == {
        "public.gone": "It is a view.",
        "public.free": "It has no key, and AUTO CDC tells rows apart by one",
        "public.twins": "It has the columns note and Note, which Databricks does not tell apart",
    }
    with pytest.raises(ConfigError, match="No table of the pipeline"):
        export(pipeline(), tables[:2])


def test_a_lake_elsewhere_is_refused(tmp_path: Path) -> None:
    from neon_lake.config import DeltaConfig

    config = replace(pipeline(), staging=StagingConfig(path="staging"), destination=DeltaConfig(path=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"not a Databricks workspace.*kind: databricks"):
        export(config, [relation("orders", ID)])


# --- the SQL as text


ALL_KINDS = [
    relation("orders", ID, TOTAL, NOTE),
    relation('"My Schema"."Or.ders"', ID, replace(NOTE, name="a `b`; 'c'"), replace(NOTE, name="no\\te")),
    relation(
        "full",
        ID,
        NOTE,
        Column(name="grid", type="integer[]", arrow=pa.list_(pa.int32())),
        identity=ReplicaIdentity.FULL,
    ),
    relation("soft", ID, NOTE, Column(name="at", type="timestamptz", arrow=pa.timestamp("us", tz="UTC"))),
    relation("free", TOTAL, NOTE, identity=ReplicaIdentity.FULL),
    relation(
        "inserts",
        TOTAL,
        Column(name="m", type="hstore", arrow=pa.map_(pa.string(), pa.string())),
        identity=ReplicaIdentity.NOTHING,
    ),
    relation(
        "dated",
        Column(name="day", type="date", arrow=pa.date32(), key=True),
        Column(name="n", type="numeric(9,2)", arrow=pa.decimal128(9, 2)),
    ),
]
LINES = (
    Table(name="*.*"),
    Table(name="public.soft", deletes=Deletes.SOFT),
    Table(name="public.free", mode=WriteMode.APPEND),
    Table(name="public.inserts", mode=WriteMode.APPEND),
)


@pytest.fixture(params=[1, 2])
def whole(request: pytest.FixtureRequest) -> Export:
    """A bundle with a table of every kind."""
    return export(pipeline(*LINES), ALL_KINDS, scd=request.param)


def test_every_query_is_databricks_sql(whole: Export) -> None:
    queries = 0
    for name, text in whole.files.items():
        if not name.endswith(".sql"):
            continue
        for statement in statements(re.sub(r"\$\{[\w.]+\}", "x", text)):
            query = re.search(r"(?:\bAS|BY NAME)\s+((?:WITH|SELECT)\b.*)", statement, re.DOTALL)
            if query is None:
                assert re.match(r"CREATE (OR REFRESH (PRIVATE )?STREAMING TABLE|FLOW \w+ AS AUTO CDC INTO)", statement)
                continue
            # of streams it knows the word alone
            sqlglot.parse_one(re.sub(r"STREAM (read_files)", r"\1", query[1]), dialect="databricks")
            queries += 1
    assert queries > 3 * len(ALL_KINDS)


def test_every_parameter_is_given_by_the_bundle(whole: Export) -> None:
    (made,) = yaml.safe_load(whole.files["databricks.yml"])["resources"]["pipelines"].values()
    used = {
        name
        for file, text in whole.files.items()
        if file.endswith(".sql")
        for name in re.findall(r"\$\{([\w.]+)\}", text)
    }
    assert used == set(made["configuration"])
    assert [library["file"]["path"] for library in made["libraries"]] == [
        f for f in whole.files if f != "databricks.yml"
    ]


def test_every_name_that_is_read_is_defined(whole: Export) -> None:
    made: set[str] = set()
    for file in (name for name in whole.files if name.endswith(".sql")):
        for statement in statements(whole.files[file]):
            read = set(re.findall(r"\bneon_lake_\w+", re.sub(r"'(?:[^'\\]|\\.)*'|\$\{[\w.]+\}", "", statement)))
            new = re.match(
                r"CREATE (?:OR REFRESH (?:PRIVATE )?(?:STREAMING TABLE|MATERIALIZED VIEW)|TEMPORARY VIEW|FLOW) (\w+)",
                statement,
            )
            # in the order of the files, so that nothing refers to itself or to what comes later
            assert read - ({new[1]} if new else set()) <= made, statement
            made |= {new[1]} if new else set()


# --- the bundle


SHAPE: dict[str, Any] = {
    "bundle": {"name": str},
    "variables": {"*": {"description": str, "default": str}},
    "resources": {
        "schemas": {"*": {"catalog_name": str, "name": str}},
        "pipelines": {
            "*": {
                "name": str,
                "serverless": bool,
                "continuous": bool,
                "catalog": str,
                "schema": str,
                "configuration": {"*": str},
                "libraries": [{"file": {"path": str}}],
            }
        },
        "jobs": {
            "*": {
                "name": str,
                "max_concurrent_runs": int,
                "schedule": {"quartz_cron_expression": str, "timezone_id": str, "pause_status": str},
                "tasks": [{"task_key": str, "pipeline_task": {"pipeline_id": str}}],
            }
        },
    },
    "targets": {
        "dev": {"mode": str, "default": bool, "workspace": {"host": str, "profile": str}},
        "prod": {"mode": str, "workspace": {"host": str, "profile": str, "root_path": str}},
    },
}
"""Of `bundle/schema/jsonschema.json` in github.com/databricks/cli, the part that is used here."""


def assert_shape(data: Any, shape: Any, where: str = "") -> None:
    if isinstance(shape, dict):
        assert isinstance(data, dict), where
        for name, value in data.items():
            assert name in shape or "*" in shape, f"{where}.{name}"
            assert_shape(value, shape.get(name, shape.get("*")), f"{where}.{name}")
    elif isinstance(shape, list):
        assert isinstance(data, list), where
        for place, value in enumerate(data):
            assert_shape(value, shape[0], f"{where}[{place}]")
    else:
        assert type(data) is shape, where


@pytest.mark.parametrize("place", [{}, {"host": "dbc-1.cloud.databricks.com"}, {"profile": "work"}])
def test_the_bundle_has_the_shape_that_the_cli_asks_for(place: dict[str, str]) -> None:
    signed = place if "profile" in place else place | {"token": "secret-token"}
    text = export(pipeline(*LINES, **signed), ALL_KINDS).files["databricks.yml"]
    data = yaml.safe_load(text)
    assert_shape(data, SHAPE)
    assert data["targets"]["dev"]["mode"] == "development"
    assert data["targets"]["prod"]["mode"] == "production"
    assert "secret" not in text.replace("no secret belongs here", "")
    workspace = data["targets"]["dev"].get("workspace")
    assert workspace == ({"host": "https://dbc-1.cloud.databricks.com"} if "host" in place else place or None)
    for reference in re.findall(r"\$\{([\w.]+)\}", text):
        if not reference.startswith(("workspace.", "bundle.", "resources.pipelines.")):
            assert resolved(f"${{{reference}}}", data)


def test_no_file_holds_a_secret(whole: Export) -> None:
    assert "secret-of-the-source" not in "".join(whole.files.values())


# --- files


def test_files_are_written_all_or_none(tmp_path: Path) -> None:
    files = {"databricks.yml": "a\n", "src/log.sql": "b\n"}
    folder = tmp_path / "deep" / "lakeflow"
    assert write(folder, files, force=False) == list(files)
    assert write(folder, files, force=False) == []
    changed = {"databricks.yml": "new\n", "src/log.sql": "mine\n", "src/t.sql": "c\n"}
    (folder / "src" / "log.sql").write_text("edited\n")
    with pytest.raises(ConfigError, match=r"databricks\.yml and .*log\.sql would be overwritten.*--force"):
        write(folder, changed, force=False)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["databricks.yml", "log.sql"]
    assert (folder / "src" / "log.sql").read_text() == "edited\n"
    assert write(folder, changed, force=True) == list(changed)
    assert {name: (folder / name).read_text() for name in changed} == changed
    assert not [path for path in folder.rglob(".*") if path.is_file()]


def test_a_file_in_the_way_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "src").write_text("a file where a folder is to be")
    with pytest.raises(ConfigError, match="cannot be written"):
        write(tmp_path, {"databricks.yml": "a\n", "src/log.sql": "b\n"}, force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]
