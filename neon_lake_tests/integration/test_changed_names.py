"""Names and sizes that only a database thinks of."""

# ruff: noqa: E501 - a script of SQL is read as a whole

from __future__ import annotations

from dataclasses import replace

import pytest

from neon_lake.schema import TableName
from neon_lake_tests.fixtures import lakes
from neon_lake_tests.fixtures.following import synced
from neon_lake_tests.fixtures.pipelines import Lab

pytestmark = pytest.mark.lakes(spark="chosen")

HOSTILE = [
    "with space",
    'with "quotes"',
    "with 'apostrophe'",
    "with.dot",
    "with`tick`",
    "UPPER",
    "select",
    "100%",
    "back\\slash",
    "sla/sh",
    "ünïcødé 🦆",
    "semi;colon",
    "{brace}",
    "x" * 63,
    "ü" * 31,
    "-- comment",
    "new\nline",
]


@pytest.mark.parametrize("name", lakes.cases(HOSTILE, chosen={'with "quotes"'}))
def test_hostile_names(lab: Lab, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    table = TableName("public", name)
    lab.database.execute(
        f'CREATE TABLE {quoted} ({quoted} int, "key {name[:20].replace(chr(34), chr(34) * 2)}" text, doc text, '
        f'PRIMARY KEY ({quoted}, "key {name[:20].replace(chr(34), chr(34) * 2)}"));'
        f"ALTER TABLE {quoted} ALTER doc SET STORAGE EXTERNAL;"
        f"INSERT INTO {quoted} SELECT g, 'k', repeat(md5(g::text), 100) FROM generate_series(1, 5) AS g"
    )
    assert lab.replication.sync().ok
    lab.assert_equal(f"public.{quoted}")
    lab.database.execute(
        f"UPDATE {quoted} SET {quoted} = {quoted} + 10 WHERE {quoted} < 3; DELETE FROM {quoted} WHERE {quoted} = 4;"
        f"INSERT INTO {quoted} VALUES (4, 'again', 'x')"
    )
    assert set(synced(lab).tables) == {table}
    lab.assert_equal(f"public.{quoted}")


def test_tables_of_the_same_name_in_two_schemas(lab: Lab) -> None:
    lab = replace(lab, tables=("a.*", "'\"A.b\".*'"))
    lab.database.execute(
        'CREATE SCHEMA a; CREATE SCHEMA "A.b"; CREATE TABLE a.t (id int PRIMARY KEY, v text);'
        'CREATE TABLE "A.b".t (id text PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY);'
        "INSERT INTO a.t VALUES (1, 'a'); INSERT INTO \"A.b\".t VALUES ('b'); INSERT INTO t VALUES (3)"
    )
    assert set(lab.replication.sync().tables) == {TableName("a", "t"), TableName("A.b", "t")}
    lab.database.execute(
        "BEGIN; INSERT INTO a.t VALUES (2, 'x'); UPDATE \"A.b\".t SET id = 'c'; DELETE FROM t; DELETE FROM a.t WHERE id = 1; COMMIT"
    )
    synced(lab)
    lab.assert_equal("a.t", '"A.b".t')
    lab.database.execute("TRUNCATE a.t, t")
    synced(lab)
    lab.assert_equal("a.t", '"A.b".t')
    assert len(lab.lake('"A.b".t')) == 1


def test_as_many_columns_as_postgres_has(lab: Lab) -> None:
    columns = ", ".join(f"c{n} int" for n in range(1599))
    lab.database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, {columns}); INSERT INTO t (id, c0, c1598) SELECT g, g, -g FROM generate_series(1, 5) AS g"
    )
    assert lab.replication.sync().ok
    lab.assert_equal("public.t")
    lab.database.execute(
        "UPDATE t SET c700 = 7 WHERE id < 3; UPDATE t SET id = 50 WHERE id = 4; INSERT INTO t (id, c5) VALUES (9, 5)"
    )
    synced(lab)
    lab.assert_equal("public.t")
