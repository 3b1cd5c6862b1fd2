"""Statements are read as Databricks reads them."""

from __future__ import annotations

import pytest

from neon_lake_tests.workspace import commands as c
from neon_lake_tests.workspace.parsing import command_of
from neon_lake_tests.workspace.sql_errors import SqlFailed
from neon_lake_tests.workspace.words import words_of


def _read(sql: str) -> c.Command | None:
    return command_of(sql, words_of(sql))


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT 1 -- one\n, 2", ["SELECT", "1", ",", "2"]),
        ("SELECT /* 'a' `b */ x", ["SELECT", "x"]),
        (r"'it\'s \n\t\\ \%'", ["it's \n\t\\ \\%"]),
        (r"r'\d+'", [r"\d+"]),
        ('"double"', ["double"]),
        ("`a``b`.`c d`", ["a`b", ".", "c d"]),
        ("a>=1L", ["a", ">", "=", "1L"]),
    ],
)
def test_words(sql: str, words: list[str]) -> None:
    assert [word.text for word in words_of(sql)] == words


@pytest.mark.parametrize("sql", ["SELECT 'open", "SELECT `open", "SELECT /* open", 'SELECT "open'])
def test_what_is_open_has_to_end(sql: str) -> None:
    with pytest.raises(SqlFailed, match=r"^\[PARSE_SYNTAX_ERROR\] .* SQLSTATE: 42601$"):
        words_of(sql)


@pytest.mark.parametrize(
    ("sql", "command"),
    [
        ("CREATE CATALOG c", c.Create(what="CATALOG", name=("c",), if_not_exists=False, comment=None)),
        (
            "CREATE SCHEMA IF NOT EXISTS `c`.`s` COMMENT 'x'",
            c.Create(what="SCHEMA", name=("c", "s"), if_not_exists=True, comment="x"),
        ),
        (
            "CREATE VOLUME IF NOT EXISTS c.s.v",
            c.Create(what="VOLUME", name=("c", "s", "v"), if_not_exists=True, comment=None),
        ),
        ("DROP SCHEMA IF EXISTS c.s CASCADE", c.Drop(what="SCHEMA", name=("c", "s"), if_exists=True, cascade=True)),
        ("DROP TABLE c.s.t", c.Drop(what="TABLE", name=("c", "s", "t"), if_exists=False, cascade=False)),
        (
            (
                "CREATE TABLE IF NOT EXISTS c.s.t (`id` BIGINT NOT NULL COMMENT 'k', "
                "m MAP<STRING, ARRAY<DECIMAL(5,2)>>, CONSTRAINT pk PRIMARY KEY (`id`)) "
                "USING DELTA CLUSTER BY (`id`) COMMENT 'hello' TBLPROPERTIES ('a' = 'b')"
            ),
            c.CreateTable(
                name=("c", "s", "t"),
                if_not_exists=True,
                columns=(
                    c.ColumnSpec(name="id", kind="BIGINT", nullable=False, comment="k"),
                    c.ColumnSpec(name="m", kind="MAP<STRING, ARRAY<DECIMAL(5,2)>>"),
                ),
                primary_key=c.PrimaryKey(name="pk", columns=("id",)),
                cluster_by=("id",),
                comment="hello",
                properties={"a": "b"},
            ),
        ),
        (
            "CREATE OR REPLACE TABLE c.s.t USING DELTA AS WITH a AS (SELECT 1 AS x) SELECT * FROM a",
            c.CreateTable(name=("c", "s", "t"), or_replace=True, query="WITH a AS (SELECT 1 AS x) SELECT * FROM a"),
        ),
        (
            "CREATE TABLE c.s.t USING DELTA LOCATION 's3://b/t'",
            c.CreateTable(name=("c", "s", "t"), location="s3://b/t"),
        ),
        ("RESTORE TABLE t TO VERSION AS OF 3", c.Restore(name=("t",), version=3)),
        ("DESCRIBE HISTORY c.s.t LIMIT 1", c.History(name=("c", "s", "t"), limit=1)),
        ("COMMENT ON COLUMN c.s.t.a IS NULL", c.Comment(what="COLUMN", name=("c", "s", "t", "a"), text=None)),
        ("VACUUM t RETAIN 168 HOURS;", c.Vacuum(name=("t",), hours=168)),
    ],
)
def test_commands(sql: str, command: c.Command) -> None:
    assert _read(sql) == command


@pytest.mark.parametrize(
    ("sql", "action"),
    [
        ("ADD COLUMNS (a INT COMMENT 'x', b STRING)", c.AddColumns),
        ("ADD COLUMN a INT", c.AddColumns),
        ("DROP COLUMN IF EXISTS a", c.DropColumns),
        ("RENAME COLUMN a TO b", c.RenameColumn),
        ("RENAME TO c.s.u", c.Rename),
        ("ALTER COLUMN a SET NOT NULL", c.ChangeColumn),
        ("ALTER COLUMN a TYPE BIGINT", c.ChangeColumn),
        ("SET TBLPROPERTIES ('a' = 'b')", c.SetProperties),
        ("UNSET TBLPROPERTIES IF EXISTS ('a')", c.SetProperties),
        ("ADD CONSTRAINT pk PRIMARY KEY (a, b) RELY", c.AddPrimaryKey),
        ("DROP CONSTRAINT IF EXISTS pk", c.DropConstraint),
        ("DROP PRIMARY KEY", c.DropConstraint),
        ("CLUSTER BY (a)", c.ClusterBy),
        ("CLUSTER BY NONE", c.ClusterBy),
    ],
)
def test_alterations(sql: str, action: type[c.Action]) -> None:
    command = _read(f"ALTER TABLE c.s.t {sql}")
    assert isinstance(command, c.AlterTable)
    assert isinstance(command.action, action)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM c.s.t VERSION AS OF 5",
        "INSERT INTO c.s.t (a, b) SELECT 1, 2",
        "UPDATE c.s.t SET a = 1 WHERE b",
        "DELETE FROM c.s.t WHERE a <=> NULL",
        (
            "MERGE INTO c.s.t AS t USING (SELECT *, row_number() OVER (PARTITION BY a ORDER BY b DESC) AS r FROM x "
            "QUALIFY r = 1) AS s ON t.a <=> s.a WHEN MATCHED AND s.d THEN DELETE "
            "WHEN MATCHED THEN UPDATE SET t.v = s.v "
            "WHEN NOT MATCHED THEN INSERT (a) VALUES (s.a) WHEN NOT MATCHED BY SOURCE AND t.l < 5 THEN DELETE"
        ),
    ],
)
def test_queries_and_changes_of_rows_are_no_commands(sql: str) -> None:
    assert _read(sql) is None


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELEC 1",
        "SELECT 1; SELECT 2",
        "SELECT FROM WHERE",
        "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN FOO",
        "CREATE TABLE t (a INT",
        "CREATE TABLE t (a INT) USING PARQUET",
        "CREATE TABLE t (a INT) USING DELTA AS SELECT 1",
        "CREATE TABLE t USING DELTA AS SELEC 1",
        "ALTER TABLE t ADD COLUMNS a INT, b INT",
        "ALTER TABLE t MAKE IT SO",
        "DROP TABLE t AND ALL",
        "RESTORE TABLE t TO VERSION AS OF x",
        "CREATE OR REPLACE SCHEMA s",
    ],
)
def test_what_is_no_databricks_sql_is_refused(sql: str) -> None:
    with pytest.raises(SqlFailed) as caught:
        _read(sql)
    assert caught.value.error_class == "PARSE_SYNTAX_ERROR"


def test_a_clause_is_said_once() -> None:
    with pytest.raises(SqlFailed, match="DUPLICATE_CLAUSES"):
        _read("CREATE TABLE t (a INT) USING DELTA COMMENT 'a' COMMENT 'b'")


def test_what_this_workspace_has_not_is_said_so() -> None:
    with pytest.raises(SqlFailed, match="WORKSPACE_FOR_TESTS"):
        _read("CREATE TABLE t (a BIGINT GENERATED ALWAYS AS IDENTITY) USING DELTA")
    with pytest.raises(SqlFailed, match="WORKSPACE_FOR_TESTS"):
        _read("CALL something()")
