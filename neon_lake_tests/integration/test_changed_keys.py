"""Rows are followed through every change of theirs and of their keys, whatever the type of the key."""

# ruff: noqa: E501 - a script of SQL is read as a whole

from __future__ import annotations

from contextlib import nullcontext

import psycopg
import pytest

from neon_lake_tests.fixtures import lakes
from neon_lake_tests.fixtures.following import PLAIN, Case, follow, plain, synced
from neon_lake_tests.fixtures.pipelines import Lab

pytestmark = pytest.mark.lakes(spark="chosen")

COMPOSITE = """
CREATE TABLE t (v text, b text, n int, a int, PRIMARY KEY (a, b));
INSERT INTO t SELECT 'v' || g, chr(96 + g), g, g % 3 FROM generate_series(1, 9) AS g;
"""

ROWS = {
    "insert, update, delete": plain(
        "INSERT INTO t VALUES (10, 'x'); UPDATE t SET v = 'y' WHERE id = 1; DELETE FROM t WHERE id = 2"
    ),
    "change of a key": plain("UPDATE t SET id = 100 WHERE id = 1"),
    "every key moves to its neighbour": plain("UPDATE t SET id = -id; UPDATE t SET id = 1 - id"),
    "swap of two keys in a transaction": plain(
        "BEGIN; UPDATE t SET id = 0 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 0;"
        "COMMIT"
    ),
    "three keys in a ring": plain(
        "BEGIN; UPDATE t SET id = 0 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 3;"
        "UPDATE t SET id = 3 WHERE id = 0; COMMIT"
    ),
    "delete, then insert of the same key": plain(
        "BEGIN; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'again'); COMMIT"
    ),
    "insert, delete, insert": plain(
        "INSERT INTO t VALUES (50, 'a'); DELETE FROM t WHERE id = 50; INSERT INTO t VALUES (50, 'b')"
    ),
    "insert, then delete": plain("INSERT INTO t VALUES (50, 'a'); DELETE FROM t WHERE id = 50"),
    "delete, insert, delete": plain(
        "DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'a'); DELETE FROM t WHERE id = 1"
    ),
    "a key is left and taken by another row": plain(
        "UPDATE t SET id = 100 WHERE id = 1; INSERT INTO t VALUES (1, 'new')"
    ),
    "a moved row is deleted": plain("UPDATE t SET id = 100 WHERE id = 1; DELETE FROM t WHERE id = 100"),
    "a row moves and comes back": plain(
        "UPDATE t SET id = 100, v = 'there' WHERE id = 1; UPDATE t SET id = 1 WHERE id = 100"
    ),
    "an update that changes nothing": plain("UPDATE t SET id = id, v = v"),
    "upserts": plain(
        "INSERT INTO t SELECT g, 'up' FROM generate_series(5, 15) AS g ON CONFLICT (id) DO UPDATE SET v = 'on'"
    ),
    "merge": plain(
        "MERGE INTO t USING generate_series(5, 12) AS g (id) ON t.id = g.id WHEN MATCHED AND t.id = 6 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET v = 'm' WHEN NOT MATCHED THEN INSERT VALUES (g.id, 'new')"
    ),
    "rows that go by a foreign key": Case(
        setup=PLAIN + "CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE ON UPDATE CASCADE);"
        "INSERT INTO child SELECT g, g FROM generate_series(1, 9) AS g",
        batches=("DELETE FROM t WHERE id < 4; UPDATE t SET id = 90 WHERE id = 9",),
        tables=("public.t", "public.child"),
    ),
    "rows that a trigger changes": Case(
        setup=PLAIN + "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := NEW.v || '!'; "
        "RETURN NEW; END $$; CREATE TRIGGER g BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f();",
        batches=("INSERT INTO t VALUES (77, 'x'); UPDATE t SET v = 'y' WHERE id = 1",),
    ),
    "copy": plain("COPY t FROM PROGRAM 'seq -f %g,x 1000 1500' (FORMAT csv)"),
    "composite key: a part changes": Case(setup=COMPOSITE, batches=("UPDATE t SET b = b || b WHERE a = 1",)),
    "composite key: the parts swap": Case(
        setup="CREATE TABLE t (a int, b int, v text, PRIMARY KEY (b, a)); INSERT INTO t VALUES (1, 2, 'x'), (3, 4, 'y')",
        batches=("UPDATE t SET a = b, b = a", "DELETE FROM t WHERE a = 2; INSERT INTO t VALUES (2, 2, 'z')"),
    ),
    "composite key: delete and insert": Case(
        setup=COMPOSITE,
        batches=("DELETE FROM t WHERE b = 'a'; INSERT INTO t VALUES ('w', 'a', 1, 1), ('w', 'a', 1, 7)",),
    ),
    "a key that is the whole row": Case(
        setup="CREATE TABLE t (a int, b int, PRIMARY KEY (a, b)); INSERT INTO t VALUES (1, 1), (2, 2)",
        batches=("UPDATE t SET b = 5 WHERE a = 1", "DELETE FROM t WHERE a = 2; INSERT INTO t VALUES (3, 3)"),
    ),
}


@pytest.mark.parametrize("name", lakes.cases(ROWS, chosen={"three keys in a ring", "composite key: the parts swap"}))
def test_rows_and_their_keys_are_followed(lab: Lab, name: str) -> None:
    # MERGE is new in 15
    unknown = name == "merge" and lab.database.server.major < 15
    with pytest.raises(psycopg.errors.SyntaxError) if unknown else nullcontext():
        follow(lab, ROWS[name])


KEY_TYPES = {
    "smallint": ["-1", "0", "1", "2"],
    "integer": ["-1", "0", "1", "2"],
    "bigint": ["-9223372036854775808", "0", "9223372036854775807", "1"],
    "oid": ["1", "4294967295", "2", "3"],
    "real": ["0.1", "NaN", "-Infinity", "2.5"],
    "double precision": ["0.1", "NaN", "Infinity", "2.5"],
    "numeric(12,2)": ["1.5", "-2", "0", "3"],
    "numeric": ["1.50", "2", "1e30", "NaN"],
    "numeric(50,4)": ["1.5", "2", "1e40", "3"],
    "money": ["1", "2", "-3", "4"],
    "boolean": ["true", "false"],
    "text": ["", "a", "ünï 🦆", "it's `b`"],
    "varchar(20)": ["", "a", "a ", "b"],
    "char(6)": ["a", "b", "c", "ab"],
    '"char"': ["a", "b", "c", "d"],
    "name": ["a", "b", "c", "d"],
    "bytea": ["\\x", "\\x00", "\\x00ff", "\\xff"],
    "uuid": [f"00000000-0000-0000-0000-00000000000{n}" for n in range(4)],
    "date": ["2026-01-01", "0001-01-01", "9999-12-31", "1969-12-31"],
    "timestamp": ["2026-01-01", "0001-01-01 00:00:00.000001", "9999-12-31", "1969-12-31 23:59:59.999999"],
    "timestamptz": ["2026-01-01", "2026-03-29 02:30:00+02", "9999-12-31 23:59:59+00", "1883-11-18 12:03:57+00"],
    "time": ["00:00", "24:00", "12:34:56.789", "01:00"],
    "timetz": ["00:00+00", "24:00+01", "12:34:56.789-05:30", "01:00+00"],
    "interval": ["1 day", "1 month", "-1 second", "2 years"],
    "mood": ["sad", "ok", "fine", "so so"],
    "price": ["1", "2", "3", "4.5"],
    "pair": ["(1,a)", "(1,b)", '(2,"a,b")', "(2,)"],
    "integer[]": ["{}", "{1}", "{1,2}", "{2}"],
    "text[]": ["{}", "{a}", '{a,"b,c"}', '{""}'],
    "jsonb": ["{}", "null", '{"a": 1}', "[1]"],
    "inet": ["10.0.0.1", "10.0.0.0/8", "::1", "192.168.0.1"],
    "cidr": ["10.0.0.0/8", "10.0.0.0/9", "::1/128", "192.168.0.0/16"],
    "macaddr": ["08:00:2b:01:02:03", "08:00:2b:01:02:04", "08:00:2b:01:02:05", "08:00:2b:01:02:06"],
    "bit(4)": ["0000", "0001", "1111", "1000"],
    "varbit": ["", "0", "00", "1"],
    "int4range": ["empty", "[1,5)", "(,)", "[2,3)"],
    "pg_lsn": ["0/0", "0/1", "16/B374D848", "1/0"],
    "tsvector": ["", "a", "a:1 b:2", "b"],
}
"""Per type that a btree can index, values that differ."""


@pytest.mark.parametrize("kind", lakes.cases(KEY_TYPES, chosen={"timestamptz"}))
def test_keys_of_every_type(lab: Lab, kind: str) -> None:
    values = KEY_TYPES[kind]
    literals = [f"'{value.replace(chr(39), chr(39) * 2)}'::{kind}" for value in values]
    first, second, *rest = literals
    lab.database.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'fine', 'so so'); CREATE DOMAIN price AS numeric(8, 2);"
        "CREATE TYPE pair AS (a integer, b text);"
        f"CREATE TABLE t (n int, k {kind}, part int, PRIMARY KEY (k, part));"
        f"INSERT INTO t VALUES (1, {first}, 0), (2, {second}, 0), (3, {first}, 1);"
    )
    assert lab.replication.sync().ok
    assert_texts_equal(lab, kind)
    for batch in (
        f"UPDATE t SET n = 10 WHERE k = {first}; DELETE FROM t WHERE k = {second}",
        "".join(f"INSERT INTO t VALUES (20, {value}, 5);" for value in [second, *rest]),
        f"UPDATE t SET k = {second} WHERE k = {first} AND part = 1; DELETE FROM t WHERE k = {first}",
        f"BEGIN; DELETE FROM t WHERE part = 5; INSERT INTO t VALUES (30, {first}, 5); COMMIT",
        f"UPDATE t SET k = {second} WHERE part = 5; UPDATE t SET k = {first} WHERE part = 5; UPDATE t SET n = n + 1",
    ):
        lab.database.execute(batch)
        synced(lab)
        assert_texts_equal(lab, kind)


def assert_texts_equal(lab: Lab, kind: str) -> None:
    """The rows of `t` on both sides, the key as its text: Postgres reads the lake's value back."""
    names = ["n", "k", "part"]
    rows = lab.content("public.t").select([*names, "_rescued_data"]).to_pylist()
    assert [row["_rescued_data"] for row in rows if row["_rescued_data"]] == []
    lake = [(row["n"], _written(row["k"]), row["part"]) for row in rows]
    with psycopg.connect(lab.database.url, options="-c TimeZone=UTC -c IntervalStyle=iso_8601") as connection:
        read = f"SELECT x.n, format('%%s', x.k), x.part FROM (VALUES (%s, %s::text::{kind}, %s)) AS x (n, k, part)"
        seen = [connection.execute(read.encode(), row).fetchone() for row in lake]
        there = connection.execute("SELECT n, format('%s', k), part FROM t").fetchall()
    assert sorted(map(repr, seen)) == sorted(map(repr, there))


def _written(value: object) -> str:
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, list):
        return "{" + ",".join(f'"{item}"' for item in value) + "}"
    return str(value)
