"""The SQL that Databricks has works on each engine of the workspace for tests, and ends in Delta tables."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from neon_lake_tests.fixtures.workspaces import Workspace

# Spark starts within the first of them
pytestmark = pytest.mark.timeout(300)

PROPERTIES = (
    "'neon_lake.pipeline' = 'shop', 'delta.enableDeletionVectors' = 'true', 'delta.columnMapping.mode' = 'name'"
)


def _upload(workspace: Workspace) -> str:
    """A file with the rows (1, a), (2, b) and (3, null) on a volume; gives the volume's path."""
    volume, body = workspace.volume(), io.BytesIO()
    pq.write_table(pa.table({"id": pa.array([1, 2, 3], pa.int64()), "v": ["a", "b", None]}), body)
    client = workspace.client()
    client.files.upload(f"{volume}/rows.parquet", io.BytesIO(body.getvalue()))
    client.files.upload(f"{volume}/entry.json", io.BytesIO(b'{"entry": 7}'))
    return volume


def _orders(workspace: Workspace) -> str:
    table = f"`{workspace.schema()}`.`orders`".replace(".", "`.`", 1)
    workspace.sql(
        f"CREATE TABLE IF NOT EXISTS {table} (`id` BIGINT NOT NULL COMMENT 'number', v STRING, `a b` DECIMAL(10,2), "
        "CONSTRAINT `orders_pk` PRIMARY KEY (`id`)) USING DELTA CLUSTER BY (`id`) COMMENT 'what was sold' "
        f"TBLPROPERTIES ({PROPERTIES})"
    )
    return table


def _failed(workspace: Workspace, statement: str) -> str:
    """The error class that a statement fails with."""
    status = workspace.statement(statement)["status"]
    assert status["state"] == "FAILED", status
    message: str = status["error"]["message"]
    assert message.startswith("[")
    assert " SQLSTATE: " in message
    return message[1 : message.index("]")]


def _read(workspace: Workspace, table: str) -> list[dict[str, Any]]:
    """The rows of a table as delta-rs reads them, without the workspace."""
    found = QueryBuilder().register("t", DeltaTable(workspace.path(table))).execute("SELECT * FROM t")
    return sorted(pa.table(found).to_pylist(), key=lambda row: str(row["id"]))


def test_rows_come_and_change(workspace: Workspace) -> None:
    volume, table = _upload(workspace), _orders(workspace)
    inserted = workspace.statement(f"INSERT INTO {table} (ID, v) SELECT * FROM parquet.`{volume}/rows.parquet`")
    assert [column["name"] for column in inserted["manifest"]["schema"]["columns"]] == [
        "num_affected_rows",
        "num_inserted_rows",
    ]
    assert inserted["result"]["data_array"] == [["3", "3"]]
    merged = workspace.statement(
        f"""MERGE INTO {table} AS t USING (
              WITH raw AS (SELECT id, v FROM parquet.`{volume}/rows.parquet` UNION ALL SELECT 50, 'new'),
              ranked AS (SELECT *, row_number() OVER (PARTITION BY id ORDER BY v DESC) AS r FROM raw)
              SELECT n.*, o.v AS old FROM ranked AS n LEFT JOIN {table} AS o ON o.id = n.id
              WHERE r = 1 AND EXISTS (SELECT 1 FROM json.`{volume}/entry.json` WHERE entry = 7)
            ) AS s ON t.id <=> s.id
            WHEN MATCHED AND s.id = 1 THEN DELETE
            WHEN MATCHED AND s.id = 2 THEN UPDATE SET t.v = concat(s.old, '!'), `a b` = 1.5
            WHEN NOT MATCHED AND s.id > 3 THEN INSERT (id, v) VALUES (s.id, s.v)"""
    )
    assert [column["name"] for column in merged["manifest"]["schema"]["columns"]] == [
        "num_affected_rows",
        "num_updated_rows",
        "num_deleted_rows",
        "num_inserted_rows",
    ]
    assert merged["result"]["data_array"] == [["3", "1", "1", "1"]]
    assert workspace.sql(f"SELECT * FROM {table} ORDER BY id") == [
        ["2", "b!", "1.50"],
        ["3", None, None],
        ["50", "new", None],
    ]
    assert [(row["id"], row["v"]) for row in _read(workspace, table)] == [(2, "b!"), (3, None), (50, "new")]
    before = workspace.sql(f"SELECT count(*), max(id) FROM {table} VERSION AS OF 1")
    assert before == [["3", "3"]]
    assert workspace.sql(f"UPDATE {table} SET v = 'x' WHERE id > 2") == [["2"]]
    assert workspace.sql(f"DELETE FROM {table} WHERE id = 2") == [["1"]]
    assert workspace.sql(f"DELETE FROM {table} WHERE id = 222") == [["0"]]
    swept = workspace.sql(
        f"MERGE INTO {table} AS t USING (SELECT 3 AS id) AS s ON t.id = s.id "
        "WHEN NOT MATCHED BY SOURCE AND t.id > 40 THEN UPDATE SET t.v = 'kept' WHEN NOT MATCHED BY SOURCE THEN DELETE"
    )
    assert swept == [["1", "1", "0", "0"]]
    assert _failed(workspace, f"INSERT INTO {table} (v) VALUES ('no key')").startswith("DELTA_")
    assert workspace.sql(f"TRUNCATE TABLE {table}") == [["2"]]
    assert _read(workspace, table) == []


def test_a_table_is_replaced_by_a_query_in_one_commit(workspace: Workspace) -> None:
    volume, table = _upload(workspace), f"{workspace.schema()}.copied"
    made = (
        f"CREATE OR REPLACE TABLE {table} USING DELTA CLUSTER BY (id) COMMENT 'a copy' TBLPROPERTIES ('a' = 'b') AS "
        f"SELECT id, v FROM parquet.`{volume}/rows.parquet`"
    )
    assert workspace.sql(made) == [["3", "3"]]
    first = workspace.path(table)
    assert workspace.sql(f"CREATE OR REPLACE TABLE {table} USING DELTA AS SELECT c.id + 1 AS id FROM {table} AS c") == [
        ["3", "3"]
    ]
    assert workspace.path(table) == first
    assert _read(workspace, table) == [{"id": 2}, {"id": 3}, {"id": 4}]
    assert DeltaTable(first).version() == 1
    assert workspace.sql(f"SELECT count(v) FROM {table} VERSION AS OF 0") == [["2"]]
    described = workspace.client().tables.get(table)
    assert [(column.name, column.nullable) for column in described.columns or ()] == [("id", True)]
    assert "a" not in (described.properties or {})
    # an empty one too
    assert workspace.sql(f"CREATE OR REPLACE TABLE {table} USING DELTA AS SELECT 1 AS id WHERE false") == [["0", "0"]]
    assert _read(workspace, table) == []


def test_columns_come_change_and_go(workspace: Workspace) -> None:
    table = _orders(workspace)
    workspace.sql(f"INSERT INTO {table} VALUES (1, 'a', 1.5), (2, NULL, NULL)")
    workspace.sql(f"ALTER TABLE {table} ADD COLUMNS (at TIMESTAMP COMMENT 'when', tags ARRAY<STRING>)")
    assert _failed(workspace, f"ALTER TABLE {table} ADD COLUMNS (AT INT)") in (
        "FIELD_ALREADY_EXISTS",
        "FIELDS_ALREADY_EXISTS",
    )
    workspace.sql(f"ALTER TABLE {table} RENAME COLUMN at TO moment")
    workspace.sql(f"ALTER TABLE {table} DROP COLUMN `a b`")
    workspace.sql(f"ALTER TABLE {table} ALTER COLUMN v COMMENT 'it''s said'")
    workspace.sql(f"COMMENT ON COLUMN {table}.tags IS 'words'")
    assert workspace.sql(f"SELECT * FROM {table} ORDER BY id") == [["1", "a", None, None], ["2", None, None, None]]
    described = {row[0]: row[1] for row in workspace.sql(f"DESCRIBE TABLE {table}")}
    assert described == {"id": "bigint", "v": "string", "moment": "timestamp", "tags": "array<string>"}
    comments = {column.name: column.comment for column in workspace.client().tables.get(_full(table)).columns or ()}
    assert (comments["id"], comments["moment"], comments["tags"]) == ("number", "when", "words")
    assert _failed(workspace, f"SELECT gone FROM {table}").startswith("UNRESOLVED_COLUMN")


def _full(table: str) -> str:
    return table.replace("`", "")


def test_not_null_is_checked_and_kept(workspace: Workspace) -> None:
    table = _orders(workspace)
    workspace.sql(f"INSERT INTO {table} VALUES (1, NULL, 1.5)")
    assert _failed(workspace, f"ALTER TABLE {table} ALTER COLUMN v SET NOT NULL") == "DELTA_NEW_NOT_NULL_VIOLATION"
    workspace.sql(f"UPDATE {table} SET v = 'x'")
    workspace.sql(f"ALTER TABLE {table} ALTER COLUMN v SET NOT NULL")
    assert _failed(workspace, f"INSERT INTO {table} SELECT 2, CAST(NULL AS STRING), 1").startswith("DELTA_NOT_NULL")
    workspace.sql(f"ALTER TABLE {table} ALTER COLUMN v DROP NOT NULL")
    workspace.sql(f"INSERT INTO {table} VALUES (2, NULL, 1)")
    assert len(_read(workspace, table)) == 2


@pytest.mark.engines("sail")
def test_primary_keys_are_of_columns_without_nulls(workspace: Workspace) -> None:
    """The workspace's own, whatever the engine."""
    table = _orders(workspace)
    client = workspace.client()
    (constraint,) = list(client.tables.get(_full(table)).table_constraints or [])
    key = constraint.primary_key_constraint
    assert key is not None
    assert (key.name, key.child_columns) == ("orders_pk", ["id"])
    add = f"ALTER TABLE {table} ADD CONSTRAINT again PRIMARY KEY"
    assert _failed(workspace, f"{add} (id)") == "UC_PRIMARY_KEY_ALREADY_EXISTS"
    assert _failed(workspace, f"ALTER TABLE {table} DROP COLUMN id") == "INVALID_PARAMETER_VALUE"
    assert _failed(workspace, f"ALTER TABLE {table} DROP CONSTRAINT nothing") == "DELTA_CONSTRAINT_DOES_NOT_EXIST"
    workspace.sql(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS nothing")
    workspace.sql(f"ALTER TABLE {table} DROP CONSTRAINT orders_pk")
    assert not client.tables.get(_full(table)).table_constraints
    assert _failed(workspace, f"{add} (v)") == "INVALID_PARAMETER_VALUE"
    assert _failed(workspace, f"{add} (nothing)").startswith("UNRESOLVED_COLUMN")
    workspace.sql(f"{add} (id)")
    workspace.sql(f"ALTER TABLE {table} RENAME COLUMN id TO number")
    (constraint,) = list(client.tables.get(_full(table)).table_constraints or [])
    assert constraint.primary_key_constraint is not None
    assert constraint.primary_key_constraint.child_columns == ["number"]


def test_properties_comments_and_names(workspace: Workspace) -> None:
    table = _orders(workspace)
    workspace.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('x' = 'y', 'delta.isolationLevel' = 'Serializable')")
    shown = {row[0]: row[1] for row in workspace.sql(f"SHOW TBLPROPERTIES {table}")}
    assert shown["neon_lake.pipeline"] == "shop"
    assert (shown["x"], shown["delta.isolationLevel"]) == ("y", "Serializable")
    assert (shown["delta.columnMapping.mode"], shown["delta.enableDeletionVectors"]) == ("name", "true")
    workspace.sql(f"ALTER TABLE {table} UNSET TBLPROPERTIES IF EXISTS ('x')")
    assert workspace.sql(f"SHOW TBLPROPERTIES {table} ('neon_lake.pipeline')") == [["neon_lake.pipeline", "shop"]]
    assert (
        _failed(workspace, f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.foo' = '1')")
        == "DELTA_UNKNOWN_CONFIGURATION"
    )
    client = workspace.client()
    assert client.tables.get(_full(table)).comment == "what was sold"
    workspace.sql(f"COMMENT ON TABLE {table} IS 'else'")
    assert client.tables.get(_full(table)).comment == "else"
    workspace.sql(f"INSERT INTO {table} (id) VALUES (1)")
    other = f"{workspace.catalog}.shop.other"
    workspace.sql(f"ALTER TABLE {table} RENAME TO {other}")
    assert workspace.sql(f"SELECT count(*) FROM {other}") == [["1"]]
    assert _failed(workspace, f"SELECT * FROM {table}") == "TABLE_OR_VIEW_NOT_FOUND"
    assert workspace.sql(f"SHOW TABLES IN {workspace.catalog}.shop") == [["shop", "other", "false"]]
    workspace.sql(f"DROP TABLE {other}")
    assert _failed(workspace, f"DROP TABLE {other}") == "TABLE_OR_VIEW_NOT_FOUND"
    workspace.sql(f"DROP TABLE IF EXISTS {other}")


def test_versions(workspace: Workspace) -> None:
    table = f"{workspace.schema()}.versioned"
    workspace.sql(f"CREATE TABLE {table} (id BIGINT) USING DELTA")
    for number in range(3):
        workspace.sql(f"INSERT INTO {table} VALUES ({number})")
    (latest,) = workspace.sql(f"DESCRIBE HISTORY {table} LIMIT 1")
    assert (latest[0], latest[4]) == ("3", "WRITE")
    assert len(workspace.sql(f"DESCRIBE HISTORY {table}")) == 4
    workspace.sql(f"OPTIMIZE {table}")
    assert len(DeltaTable(workspace.path(table)).file_uris()) == 1
    restored = workspace.statement(f"RESTORE TABLE {table} TO VERSION AS OF 2")
    assert "num_restored_files" in [column["name"] for column in restored["manifest"]["schema"]["columns"]]
    assert [row["id"] for row in _read(workspace, table)] == [0, 1]
    assert _failed(workspace, f"RESTORE TABLE {table} TO VERSION AS OF 99").startswith("DELTA_")
    detail = workspace.statement(f"DESCRIBE DETAIL {table}")
    names = [column["name"] for column in detail["manifest"]["schema"]["columns"]]
    row = dict(zip(names, detail["result"]["data_array"][0], strict=True))
    assert (row["name"], row["format"], row["numFiles"]) == (table, "delta", "2")
    assert row["location"].endswith(workspace.path(table).name)
    workspace.sql(f"VACUUM {table}")
    assert _failed(workspace, f"VACUUM {table} RETAIN 1 HOURS").startswith("DELTA_VACUUM")
    assert _failed(workspace, f"SELECT * FROM {table} VERSION AS OF 99") == "DELTA_VERSION_NOT_FOUND"


def test_errors_have_databricks_names(workspace: Workspace) -> None:
    volume, table = _upload(workspace), f"{workspace.schema()}.small"
    workspace.sql(f"CREATE OR REPLACE TABLE {table} USING DELTA AS SELECT 2 AS id")
    for statement, error in (
        (f"SELECT * FROM {table}x", "TABLE_OR_VIEW_NOT_FOUND"),
        (f"SELECT * FROM parquet.`{volume}/nope.parquet`", "PATH_NOT_FOUND"),
        ("SELECT raise_error('NL1: a b')", "USER_RAISED_EXCEPTION"),
        (f"SELECT raise_error(concat('NL', id)) FROM {table}", "USER_RAISED_EXCEPTION"),
        (
            (
                f"MERGE INTO {table} AS t USING (SELECT 2 AS id) AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET "
                "t.id = CASE WHEN s.id = 2 THEN CAST(raise_error('boom') AS INT) ELSE 1 END"
            ),
            "USER_RAISED_EXCEPTION",
        ),
        (
            (
                f"MERGE INTO {table} AS t USING (SELECT 2 AS id UNION ALL SELECT 2) AS s ON t.id = s.id "
                "WHEN MATCHED THEN UPDATE SET t.id = 5"
            ),
            "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE",
        ),
        ("SELECT 1/0", "DIVIDE_BY_ZERO"),
        ("SELECT CAST('x' AS INT)", "CAST_INVALID_INPUT"),
        ("SELEC 1", "PARSE_SYNTAX_ERROR"),
        (f"CREATE TABLE {table} (id INT) USING DELTA", "TABLE_OR_VIEW_ALREADY_EXISTS"),
        (f"CREATE TABLE {workspace.catalog}.nope.t (id INT) USING DELTA", "SCHEMA_NOT_FOUND"),
        (f"CREATE SCHEMA {workspace.catalog}.shop", "SCHEMA_ALREADY_EXISTS"),
        (f"CREATE TABLE {table}2 (`a b` INT) USING DELTA", "DELTA_INVALID_CHARACTERS_IN_COLUMN_NAMES"),
    ):
        assert _failed(workspace, statement) == error, statement
    message = workspace.statement("SELECT raise_error('NL1: a b')")["status"]["error"]["message"]
    assert message == "[USER_RAISED_EXCEPTION] NL1: a b SQLSTATE: P0001"
    assert workspace.sql(f"SELECT id FROM {table}") == [["2"]]
    assert not workspace.client().tables.exists(f"{table}2").table_exists


def test_values_come_back_alike_from_each_engine(workspace: Workspace) -> None:
    answer = workspace.statement(
        "SELECT 1 AS i, 2L AS l, 'x' AS s, true AS b, 1.5D AS d, CAST(NULL AS INT) AS n, DATE'2026-01-01' AS day, "
        "TIMESTAMP'2026-01-01 00:00:00.123456+02:00' AS at, array(1, 2) AS a, map('k', 1) AS m, "
        "named_struct('x', 1) AS st, CAST(1.5 AS DECIMAL(10,2)) AS dec, CAST('é' AS BINARY) AS bin, "
        "CAST(2 AS SMALLINT) AS small, CAST(3 AS TINYINT) AS tiny, CAST(0.5 AS FLOAT) AS f"
    )
    types = [column["type_text"] for column in answer["manifest"]["schema"]["columns"]]
    assert types == [
        *("INT", "BIGINT", "STRING", "BOOLEAN", "DOUBLE", "INT", "DATE", "TIMESTAMP", "ARRAY<INT>", "MAP<STRING, INT>"),
        *("STRUCT<x: INT>", "DECIMAL(10,2)", "BINARY", "SMALLINT", "TINYINT", "FLOAT"),
    ]
    assert answer["result"]["data_array"] == [
        [
            *("1", "2", "x", "true", "1.5", None, "2026-01-01", "2025-12-31T22:00:00.123Z", '["1", "2"]', '{"k": "1"}'),
            *('{"x": "1"}', "1.50", "w6k=", "2", "3", "0.5"),
        ]
    ]


def test_a_table_that_lies_elsewhere_is_registered(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = str(tmp_path_factory.mktemp("elsewhere") / "lake" / "orders")
    write_deltalake(place, pa.table({"id": [1, 2]}))
    table = f"{workspace.schema()}.elsewhere"
    workspace.sql(f"CREATE TABLE {table} USING DELTA LOCATION '{place}'")
    assert workspace.sql(f"SELECT count(*) FROM {table}") == [["2"]]
    write_deltalake(place, pa.table({"id": [3], "more": ["x"]}), mode="append", schema_mode="merge")
    assert workspace.sql(f"SELECT id, more FROM {table} ORDER BY id") == [["1", None], ["2", None], ["3", "x"]]
    described = workspace.client().tables.get(table)
    assert str(described.table_type) == "TableType.EXTERNAL"
    workspace.sql(f"DROP TABLE {table}")
    assert DeltaTable(place).version() == 1
