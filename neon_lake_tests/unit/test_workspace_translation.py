"""Names and paths of Databricks' SQL are put in their place, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from neon_lake_tests.workspace.grants import Grants
from neon_lake_tests.workspace.metastore import Metastore, Table
from neon_lake_tests.workspace.sql_errors import SqlFailed
from neon_lake_tests.workspace.translation import Parameter, Scope, translated, untranslated
from neon_lake_tests.workspace.volumes import Volumes


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    metastore = Metastore(tmp_path)
    metastore.create_schema("main", "s")
    for name in ("orders", "odd-name"):
        metastore.add_table(Table(catalog="main", schema="s", name=name, location=f"/lake/{name}"))
    metastore.create_volume("main", "s", "v")
    (tmp_path / "volumes/main/s/v/a b.parquet").touch()
    return Scope(metastore=metastore, volumes=Volumes(metastore))


ORDERS = "`main__s`.`orders`"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM main.s.orders", f"SELECT * FROM {ORDERS}"),
        ("SELECT * FROM `Main`.`S`.`Orders` AS t;", f"SELECT * FROM {ORDERS} AS t"),
        ("SELECT main.s.orders.id FROM main.s.orders", f"SELECT {ORDERS}.id FROM {ORDERS}"),
        ("SELECT * FROM main.s.orders@v3 x", f"SELECT * FROM {ORDERS} VERSION AS OF 3 x"),
        ("SELECT * FROM main.s.`odd-name`", "SELECT * FROM `main__s`.`odd_x2d_name`"),
        ("SELECT 'main.s.orders' -- main.s.orders", "SELECT 'main.s.orders' -- main.s.orders"),
        ("SELECT t.a.b, s.c FROM main.s.orders t", f"SELECT t.a.b, s.c FROM {ORDERS} t"),
        ("SELECT a IS DISTINCT FROM t.s.b FROM main.s.orders t", f"SELECT a IS DISTINCT FROM t.s.b FROM {ORDERS} t"),
        ("WITH x AS (SELECT 1) SELECT * FROM x", "WITH x AS (SELECT 1) SELECT * FROM x"),
        ("SELECT * FROM range(3)", "SELECT * FROM range(3)"),
        ("INSERT INTO main.s.orders (id) VALUES (1)", f"INSERT INTO {ORDERS} (id) VALUES (1)"),
    ],
)
def test_names(scope: Scope, sql: str, expected: str) -> None:
    assert translated(sql, scope).sql == expected


def test_tables_are_named_in_their_order(scope: Scope) -> None:
    done = translated("MERGE INTO main.s.orders USING main.s.`odd-name` ON true WHEN MATCHED THEN DELETE", scope)
    assert [table.name for table in done.tables] == ["orders", "odd-name"]


def test_short_names_are_looked_up_where_the_statement_says(scope: Scope) -> None:
    near = Scope(metastore=scope.metastore, volumes=scope.volumes, catalog="main", schema="s")
    assert translated("SELECT * FROM orders", near).sql == f"SELECT * FROM {ORDERS}"
    assert translated("SELECT * FROM s.orders", near).sql == f"SELECT * FROM {ORDERS}"


def test_paths(scope: Scope, tmp_path: Path) -> None:
    folder = tmp_path / "volumes/main/s/v"
    done = translated("SELECT * FROM parquet.`/Volumes/main/s/v/a b.parquet`", scope)
    assert done.sql == f"SELECT * FROM parquet.`{folder}/a b.parquet`"
    assert str(folder) in translated("SELECT * FROM parquet.`/Volumes/main/s/v/*.parquet`", scope).sql


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT * FROM main.s.nope", "TABLE_OR_VIEW_NOT_FOUND"),
        ("SELECT * FROM nope.s.orders", "TABLE_OR_VIEW_NOT_FOUND"),
        ("SELECT * FROM parquet.`/Volumes/main/s/v/nope.parquet`", "PATH_NOT_FOUND"),
        ("SELECT * FROM parquet.`/Volumes/main/s/nope/a.parquet`", "UC_VOLUME_NOT_FOUND"),
        ("SELECT * FROM parquet.`/etc/passwd`", "PATH_NOT_FOUND"),
        ("SELECT * FROM parquet.`/Volumes/main/s/v/../v/a b.parquet`", "PATH_NOT_FOUND"),
        ("SELECT :nothing", "UNBOUND_SQL_PARAMETER"),
    ],
)
def test_what_is_not_there(scope: Scope, sql: str, error: str) -> None:
    with pytest.raises(SqlFailed) as caught:
        translated(sql, scope)
    assert caught.value.error_class == error


def test_a_file_that_may_not_be_read(scope: Scope) -> None:
    grants = Grants()
    grants.take("main.s.v", "READ_VOLUME")
    barred = Scope(metastore=scope.metastore, volumes=Volumes(scope.metastore, grants))
    with pytest.raises(SqlFailed, match="INSUFFICIENT_PERMISSIONS"):
        translated("SELECT * FROM parquet.`/Volumes/main/s/v/a b.parquet`", barred)


def test_parameters(scope: Scope) -> None:
    given = {"a": Parameter(value="it's"), "b": Parameter(value="5", kind="INT"), "n": Parameter(value=None)}
    known = Scope(metastore=scope.metastore, volumes=scope.volumes, parameters=given)
    done = translated("SELECT :a, :b+1, :n, doc:b, doc:b::int, ':a'", known)
    assert done.sql == r"SELECT CAST('it\'s' AS STRING), CAST('5' AS INT)+1, NULL, doc:b, doc:b::int, ':a'"


def test_errors_have_the_names_of_the_statement(scope: Scope, tmp_path: Path) -> None:
    tables = tuple(scope.metastore.tables().values())
    said = f"bad {ORDERS} at /lake/orders, main__s.orders and {tmp_path}/volumes/main/s/v/x"
    name = "`main`.`s`.`orders`"
    assert untranslated(said, tables, str(tmp_path)) == f"bad {name} at {name}, {name} and /Volumes/main/s/v/x"
