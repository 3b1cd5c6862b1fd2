"""Every kind of change, from the source to the lake, with Postgres as the judge.

None of these may need a new snapshot of a table: the stream alone has to be enough.
"""

# ruff: noqa: E501 - a script of SQL is read as a whole

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from neon_lake.change import UNCHANGED
from neon_lake.pipeline.results import Synced
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.postgres import StartServer, fresh_database

T = TableName("public", "t")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Tables, and what happens to them: each of `batches` is one script, applied by a sync of its own."""

    setup: str
    batches: tuple[str, ...]
    tables: tuple[str, ...] = ("public.t",)


def synced(lab: Lab) -> Synced:
    """A sync that followed the stream: no table failed, none was snapshotted, and no row was incomplete."""
    result = lab.replication.sync()
    assert result.ok, result
    assert [name for name, of in result.tables.items() if of.snapshot_rows is not None or of.incomplete] == []
    return result


def follow(lab: Lab, case: Case) -> None:
    """Each batch alone, with the lake equal to the source after it."""
    lab.database.execute(case.setup)
    assert lab.replication.sync().ok
    lab.assert_equal(*case.tables)
    for batch in case.batches:
        lab.database.execute(batch)
        synced(lab)
        lab.assert_equal(*case.tables)


# --- unchanged TOAST

BIG = """
CREATE FUNCTION big(seed int) RETURNS text LANGUAGE sql IMMUTABLE RETURN repeat(md5(seed::text), 200);
CREATE TABLE t (id int, "part" text, n int, a text, b bytea, c text[], d int[], PRIMARY KEY (id, "part"));
ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL, ALTER c SET STORAGE EXTERNAL,
              ALTER d SET STORAGE EXTERNAL;
CREATE FUNCTION fill(low int, high int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.t SELECT g, 'p', 0, public.big(g), convert_to(public.big(-g), 'UTF8'), ARRAY[public.big(g), NULL],
                                array_fill(g, ARRAY[2000])
    FROM generate_series(low, high) AS g $$;
SELECT fill(1, 12);
"""

TOAST = {
    "one column": ["UPDATE t SET n = 1, b = '\\x00', c = '{}', d = '{}' WHERE id = 1"],
    "many columns": ["UPDATE t SET n = n + 1 WHERE id < 5"],
    "another column of the row in each update": [
        "UPDATE t SET a = 'short' WHERE id = 1; UPDATE t SET b = '\\x01' WHERE id = 1; UPDATE t SET c = '{x}' WHERE id = 1"
    ],
    "repeated in a batch": [
        "UPDATE t SET n = 1; UPDATE t SET n = 2; UPDATE t SET a = big(id + 50) WHERE id < 4; UPDATE t SET n = 3"
    ],
    "repeated in a transaction": [
        "BEGIN; UPDATE t SET n = 1; UPDATE t SET a = big(99) WHERE id = 2; UPDATE t SET n = 2; UPDATE t SET n = 3; COMMIT"
    ],
    "over several batches": [
        "UPDATE t SET n = 1",
        "UPDATE t SET n = 2",
        "UPDATE t SET a = big(7)",
        "UPDATE t SET n = 3",
    ],
    "after an insert in the batch": ["SELECT fill(20, 22); UPDATE t SET n = 5 WHERE id >= 20"],
    "after an insert in the transaction": ["BEGIN; SELECT fill(20, 22); UPDATE t SET n = 5 WHERE id >= 20; COMMIT"],
    "set to null, then not sent": ["UPDATE t SET a = NULL, d = NULL WHERE id = 1; UPDATE t SET n = 1 WHERE id = 1"],
    "with a change of the key": ["UPDATE t SET id = id + 100 WHERE id < 4"],
    "with a change of a part of the key": ["UPDATE t SET part = 'q', n = 2 WHERE id < 4"],
    "with changes of the key, one after another": [
        (
            "UPDATE t SET id = 101 WHERE id = 1; UPDATE t SET n = 9 WHERE id = 101; UPDATE t SET id = 201 WHERE id = 101;"
            "UPDATE t SET id = 1, n = 10 WHERE id = 201"
        )
    ],
    "with a change of the key of a row that is new": ["SELECT fill(30, 30); UPDATE t SET id = 31 WHERE id = 30"],
    "with a change of the key in the batch after": ["SELECT fill(30, 30)", "UPDATE t SET id = 31 WHERE id = 30"],
    "onto a key that was just deleted": ["DELETE FROM t WHERE id = 2; UPDATE t SET id = 2 WHERE id = 3"],
    "with a swap of keys": [
        (
            "BEGIN; UPDATE t SET id = -1 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = -1;"
            "COMMIT; UPDATE t SET n = 4 WHERE id = 1"
        )
    ],
    "deleted and inserted between": [
        (
            "UPDATE t SET n = 1 WHERE id = 1; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'p', 2, big(500));"
            "UPDATE t SET n = 3 WHERE id = 1"
        )
    ],
    "after a truncate": ["BEGIN; UPDATE t SET n = 1; TRUNCATE t; SELECT fill(3, 5); UPDATE t SET n = 2; COMMIT"],
    "and then deleted": ["UPDATE t SET n = 1 WHERE id = 1; DELETE FROM t WHERE id = 1"],
    "in a savepoint that is rolled back": [
        "BEGIN; UPDATE t SET n = 1; SAVEPOINT s; UPDATE t SET a = big(77); ROLLBACK TO s; UPDATE t SET n = 2; COMMIT"
    ],
}


@pytest.mark.parametrize("name", TOAST)
def test_unchanged_toast_keeps_its_value(lab: Lab, name: str) -> None:
    follow(lab, Case(setup=BIG, batches=tuple(TOAST[name])))
    sent = [lab.replication.parts.log.read(s) for m in lab.replication.parts.log.manifests() for s in m.of(T)]
    assert any(rows[UNCHANGED].null_count < len(rows) for rows in sent), "the server sent every value"


def test_rescued_text_stays_with_a_value_that_is_not_sent(lab: Lab) -> None:
    lab.database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int, v date, w date[]); ALTER TABLE t ALTER w SET STORAGE EXTERNAL;"
        "INSERT INTO t SELECT g, 0, 'infinity', array_fill('2026-01-01'::date + g, ARRAY[2000]) || 'infinity'::date "
        "FROM generate_series(1, 4) AS g"
    )
    assert lab.replication.sync().ok
    lab.database.execute("UPDATE t SET n = 1 WHERE id < 4")
    synced(lab)
    lab.database.execute(
        "UPDATE t SET n = 2; UPDATE t SET v = '2026-01-01' WHERE id = 2; UPDATE t SET id = 9 WHERE id = 3"
    )
    synced(lab)
    lab.database.execute(
        "UPDATE t SET n = 3, w = '{2026-01-01}' WHERE id = 1; UPDATE t SET w[1] = '-infinity' WHERE id = 4"
    )
    synced(lab)
    rows = lab.delta("public.t").to_pyarrow_table().sort_by("id").to_pylist()
    told = lab.database.query("SELECT id, n, v::text, w::text FROM t ORDER BY id")
    seen = []
    for row in rows:
        rescued = json.loads(row["_rescued_data"] or "{}")
        days = "{" + ",".join(str(day) for day in row["w"] or []) + "}"
        assert (row["v"] is None, row["w"] is None) == ("v" in rescued, "w" in rescued)
        seen.append((row["id"], row["n"], rescued.get("v", str(row["v"])), rescued.get("w", days)))
    assert seen == told


def test_a_key_that_is_itself_toasted(lab: Lab) -> None:
    case = Case(
        setup="CREATE TABLE t (k text PRIMARY KEY, n int, a text);"
        "ALTER TABLE t ALTER k SET STORAGE EXTERNAL, ALTER a SET STORAGE EXTERNAL;"
        "INSERT INTO t SELECT repeat(chr(64 + g), 2500), g, repeat(md5(g::text), 100) FROM generate_series(1, 5) AS g",
        batches=(
            "UPDATE t SET n = n + 1",
            "UPDATE t SET n = 7 WHERE n = 2; UPDATE t SET k = repeat('z', 2500) WHERE n = 3; DELETE FROM t WHERE n = 4",
        ),
    )
    follow(lab, case)


# --- keys

PLAIN = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 9) AS g;"
COMPOSITE = """
CREATE TABLE t (v text, b text, n int, a int, PRIMARY KEY (a, b));
INSERT INTO t SELECT 'v' || g, chr(96 + g), g, g % 3 FROM generate_series(1, 9) AS g;
"""

ROWS = {
    "insert, update, delete": Case(
        setup=PLAIN,
        batches=("INSERT INTO t VALUES (10, 'x'); UPDATE t SET v = 'y' WHERE id = 1; DELETE FROM t WHERE id = 2",),
    ),
    "change of a key": Case(setup=PLAIN, batches=("UPDATE t SET id = 100 WHERE id = 1",)),
    "every key moves to its neighbour": Case(setup=PLAIN, batches=("UPDATE t SET id = -id; UPDATE t SET id = 1 - id",)),
    "swap of two keys in a transaction": Case(
        setup=PLAIN,
        batches=(
            (
                "BEGIN; UPDATE t SET id = 0 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 0;"
                "COMMIT"
            ),
        ),
    ),
    "three keys in a ring": Case(
        setup=PLAIN,
        batches=(
            (
                "BEGIN; UPDATE t SET id = 0 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 3;"
                "UPDATE t SET id = 3 WHERE id = 0; COMMIT"
            ),
        ),
    ),
    "delete, then insert of the same key": Case(
        setup=PLAIN, batches=("BEGIN; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'again'); COMMIT",)
    ),
    "insert, delete, insert": Case(
        setup=PLAIN,
        batches=("INSERT INTO t VALUES (50, 'a'); DELETE FROM t WHERE id = 50; INSERT INTO t VALUES (50, 'b')",),
    ),
    "insert, then delete": Case(setup=PLAIN, batches=("INSERT INTO t VALUES (50, 'a'); DELETE FROM t WHERE id = 50",)),
    "delete, insert, delete": Case(
        setup=PLAIN, batches=("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'a'); DELETE FROM t WHERE id = 1",)
    ),
    "a key is left and taken by another row": Case(
        setup=PLAIN, batches=("UPDATE t SET id = 100 WHERE id = 1; INSERT INTO t VALUES (1, 'new')",)
    ),
    "a moved row is deleted": Case(
        setup=PLAIN, batches=("UPDATE t SET id = 100 WHERE id = 1; DELETE FROM t WHERE id = 100",)
    ),
    "a row moves and comes back": Case(
        setup=PLAIN, batches=("UPDATE t SET id = 100, v = 'there' WHERE id = 1; UPDATE t SET id = 1 WHERE id = 100",)
    ),
    "an update that changes nothing": Case(setup=PLAIN, batches=("UPDATE t SET id = id, v = v",)),
    "upserts": Case(
        setup=PLAIN,
        batches=(
            "INSERT INTO t SELECT g, 'up' FROM generate_series(5, 15) AS g ON CONFLICT (id) DO UPDATE SET v = 'on'",
        ),
    ),
    "merge": Case(
        setup=PLAIN,
        batches=(
            (
                "MERGE INTO t USING generate_series(5, 12) AS g (id) ON t.id = g.id WHEN MATCHED AND t.id = 6 THEN DELETE "
                "WHEN MATCHED THEN UPDATE SET v = 'm' WHEN NOT MATCHED THEN INSERT VALUES (g.id, 'new')"
            ),
        ),
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
    "copy": Case(
        setup=PLAIN,
        batches=("COPY t FROM PROGRAM 'seq -f %g,x 1000 1500' (FORMAT csv)",),
    ),
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


@pytest.mark.parametrize("name", ROWS)
def test_rows_and_their_keys_are_followed(lab: Lab, name: str) -> None:
    if name == "merge" and lab.database.query("SHOW server_version_num")[0][0] < "150000":
        return  # MERGE is new in 15
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


@pytest.mark.parametrize("kind", KEY_TYPES)
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
    rows = lab.delta("public.t").to_pyarrow_table().select([*names, "_rescued_data"]).to_pylist()
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


# --- TRUNCATE

PAIR = (
    PLAIN + "CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u SELECT g, 'u' FROM generate_series(1, 5) AS g;"
)
LINKED = PLAIN + (
    "CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t); INSERT INTO child SELECT g, g FROM generate_series(1, 9) AS g;"
)

TRUNCATES = {
    "one table": Case(setup=PLAIN, batches=("TRUNCATE t", "INSERT INTO t VALUES (1, 'x')")),
    "several tables, rows before and after": Case(
        setup=PAIR,
        batches=(
            (
                "BEGIN; INSERT INTO t VALUES (50, 'gone'); INSERT INTO u VALUES (50, 'gone'); UPDATE t SET v = 'gone';"
                "TRUNCATE t, u; INSERT INTO t VALUES (50, 'stays'), (1, 'new'); INSERT INTO u VALUES (7, 'new');"
                "UPDATE t SET id = 51 WHERE id = 50; COMMIT"
            ),
        ),
        tables=("public.t", "public.u"),
    ),
    "one of two": Case(
        setup=PAIR, batches=("TRUNCATE u; DELETE FROM t WHERE id = 1",), tables=("public.t", "public.u")
    ),
    "cascade": Case(
        setup=LINKED,
        batches=("TRUNCATE t CASCADE; INSERT INTO t VALUES (3, 'x'); INSERT INTO child VALUES (1, 3)",),
        tables=("public.t", "public.child"),
    ),
    "twice": Case(
        setup=PLAIN, batches=("TRUNCATE t; INSERT INTO t VALUES (1, 'a'); TRUNCATE t; INSERT INTO t VALUES (2, 'b')",)
    ),
    "rolled back": Case(setup=PLAIN, batches=("BEGIN; TRUNCATE t; ROLLBACK; INSERT INTO t VALUES (77, 'x')",)),
    "in a savepoint that is rolled back": Case(
        setup=PLAIN,
        batches=(
            "BEGIN; INSERT INTO t VALUES (77, 'x'); SAVEPOINT s; TRUNCATE t; ROLLBACK TO s; DELETE FROM t WHERE id = 1; COMMIT",
        ),
    ),
    "restart identity": Case(
        setup="CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('a'), ('b')",
        batches=("TRUNCATE t RESTART IDENTITY; INSERT INTO t (v) VALUES ('c')",),
    ),
    "the same keys again": Case(
        setup=PLAIN,
        batches=("BEGIN; TRUNCATE t; INSERT INTO t SELECT g, 'again' FROM generate_series(1, 9) AS g; COMMIT",),
    ),
}


@pytest.mark.parametrize("name", TRUNCATES)
def test_truncate_is_followed(lab: Lab, name: str) -> None:
    follow(lab, TRUNCATES[name])


# --- replica identity

TOASTED = (
    "CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, n int, a text, UNIQUE (code)); ALTER TABLE t ALTER a SET STORAGE EXTERNAL;"
    "INSERT INTO t SELECT g, 'c' || g, g, repeat(md5(g::text), 100) FROM generate_series(1, 9) AS g;"
)
WORKED = (
    "UPDATE t SET n = n + 1; UPDATE t SET id = id + 100 WHERE id < 3; DELETE FROM t WHERE id = 4;"
    "UPDATE t SET n = NULL, a = NULL WHERE id = 5; INSERT INTO t VALUES (4, 'c4', 4, 'x')"
)

IDENTITIES = {
    "default": Case(setup=TOASTED, batches=(WORKED, "UPDATE t SET code = code || '!'")),
    "full": Case(
        setup=TOASTED + "ALTER TABLE t REPLICA IDENTITY FULL", batches=(WORKED, "UPDATE t SET code = code || '!'")
    ),
    "using index": Case(
        setup=TOASTED + "ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key",
        batches=(WORKED, "UPDATE t SET code = code || '!' WHERE id < 100", "DELETE FROM t WHERE code = 'c9!'"),
    ),
    "using index, without a primary key": Case(
        setup="CREATE TABLE t (a int NOT NULL, b text NOT NULL, v text); CREATE UNIQUE INDEX i ON t (b, a) INCLUDE (v);"
        "ALTER TABLE t REPLICA IDENTITY USING INDEX i; INSERT INTO t SELECT g, 'b', 'v' FROM generate_series(1, 5) AS g",
        batches=("UPDATE t SET v = 'w' WHERE a = 1; UPDATE t SET a = 10 WHERE a = 2; DELETE FROM t WHERE a = 3",),
    ),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_every_replica_identity_is_followed(lab: Lab, name: str) -> None:
    follow(lab, IDENTITIES[name])


# --- partitions and inheritance

LIST = """
CREATE TABLE t (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE t_eu PARTITION OF t FOR VALUES IN ('eu');
CREATE TABLE t_us PARTITION OF t FOR VALUES IN ('us') PARTITION BY RANGE (id);
CREATE TABLE t_us_1 PARTITION OF t_us FOR VALUES FROM (0) TO (100);
CREATE TABLE t_us_2 PARTITION OF t_us FOR VALUES FROM (100) TO (1000);
CREATE TABLE t_rest PARTITION OF t DEFAULT;
ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
INSERT INTO t SELECT g, (ARRAY['eu', 'us', 'as'])[g % 3 + 1], repeat(md5(g::text), 100) FROM generate_series(1, 30) AS g;
"""

PARTITIONED = {
    "rows of every partition": Case(
        setup=LIST,
        batches=(
            "UPDATE t SET v = 'x' WHERE id < 9; DELETE FROM t WHERE id > 25; INSERT INTO t VALUES (500, 'us', 'y')",
        ),
    ),
    "rows by the partition's name": Case(
        setup=LIST,
        batches=("UPDATE t_eu SET v = 'x'; DELETE FROM t_us_1 WHERE id < 9; INSERT INTO t_rest VALUES (7, 'af', 'z')",),
    ),
    "rows that move": Case(
        setup=LIST,
        batches=("UPDATE t SET region = 'us' WHERE region = 'eu'; UPDATE t SET id = id + 100 WHERE region = 'us'",),
    ),
    "a row that moves and comes back": Case(
        setup=LIST,
        batches=(
            "BEGIN; UPDATE t SET region = 'us' WHERE id = 3; UPDATE t SET region = 'eu', v = 'back' WHERE id = 3; COMMIT",
        ),
    ),
    "a new partition": Case(
        setup=LIST,
        batches=(
            "CREATE TABLE t_af PARTITION OF t FOR VALUES IN ('af'); INSERT INTO t VALUES (1, 'af', 'x'); UPDATE t SET v = 'y'",
        ),
    ),
    "a partition whose columns lie otherwise": Case(
        setup="CREATE TABLE t (id int PRIMARY KEY, v text, n int) PARTITION BY RANGE (id);"
        "CREATE TABLE p (n int, gone text, id int NOT NULL, v text); ALTER TABLE p DROP COLUMN gone;"
        "ALTER TABLE t ATTACH PARTITION p DEFAULT; INSERT INTO t SELECT g, 'v' || g, -g FROM generate_series(1, 9) AS g",
        batches=("UPDATE t SET n = 7 WHERE id < 3; UPDATE p SET id = 100 WHERE id = 4; DELETE FROM t WHERE id = 5",),
    ),
}


@pytest.mark.parametrize("name", PARTITIONED)
def test_partitioned_tables_are_followed_through_their_root(lab: Lab, name: str) -> None:
    follow(lab, PARTITIONED[name])
    assert set(lab.replication.sync().tables) == {TableName.parse(table) for table in PARTITIONED[name].tables}


def test_tables_that_inherit_are_tables_of_their_own(lab: Lab) -> None:
    lab.database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE child (extra int, PRIMARY KEY (id)) INHERITS (t);"
        "INSERT INTO t VALUES (1, 't'); INSERT INTO child VALUES (1, 'c', 1), (2, 'c', 2)"
    )

    def both() -> None:
        assert [(r["id"], r["v"]) for r in lab.lake("public.t")] == lab.database.query(
            "SELECT * FROM ONLY t ORDER BY id"
        )
        lab.assert_equal("public.child")

    assert lab.replication.sync().ok
    both()
    lab.database.execute("UPDATE t SET v = v || '!'; INSERT INTO child VALUES (3, 'c', 3); DELETE FROM t WHERE id = 2")
    synced(lab)
    both()
    lab.database.execute("TRUNCATE ONLY t; INSERT INTO t VALUES (8, 'again')")
    synced(lab)
    both()
    lab.database.execute("TRUNCATE t")
    synced(lab)
    both()


def test_stored_generated_columns_come_from_the_version_on_that_sends_them(lab: Lab) -> None:
    lab.database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int, double int GENERATED ALWAYS AS (n * 2) STORED, v text);"
        "INSERT INTO t VALUES (1, 1, DEFAULT, 'a'), (2, 2, DEFAULT, 'b')"
    )
    sends = int(lab.database.query("SHOW server_version_num")[0][0]) >= 180000

    def same() -> None:
        wanted = [
            {"id": i, "n": n} | ({"double": d} if sends else {}) | {"v": v}
            for i, n, d, v in lab.database.query("TABLE t")
        ]
        assert lab.lake("public.t") == sorted(wanted, key=repr)

    assert lab.replication.sync().ok
    same()
    lab.database.execute("UPDATE t SET n = n + 10 WHERE id = 1; INSERT INTO t VALUES (3, 3, DEFAULT, 'c')")
    synced(lab)
    same()


# --- names and sizes

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


@pytest.mark.parametrize("name", HOSTILE)
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


# --- transactions

TRANSACTIONS = {
    "rolled back": "BEGIN; DELETE FROM t; INSERT INTO t VALUES (99, 'no'); ROLLBACK; UPDATE t SET v = 'yes' WHERE id = 1",
    "savepoints": (
        "BEGIN; INSERT INTO t VALUES (20, 'a'); SAVEPOINT one; UPDATE t SET v = 'b' WHERE id = 20; SAVEPOINT two; DELETE FROM t;"
        "ROLLBACK TO two; UPDATE t SET id = 21 WHERE id = 20; RELEASE one; SAVEPOINT three; INSERT INTO t VALUES (20, 'c');"
        "ROLLBACK TO three; INSERT INTO t VALUES (22, 'd'); COMMIT"
    ),
    "subtransactions of a function": (
        "DO $$ BEGIN FOR n IN 1..300 LOOP BEGIN INSERT INTO t VALUES (n, 'loop'); "
        "IF n % 7 = 0 THEN RAISE EXCEPTION 'no'; END IF; "
        "EXCEPTION WHEN unique_violation THEN UPDATE t SET v = 'was there' WHERE id = n; WHEN OTHERS THEN NULL; END; END LOOP; END $$"
    ),
    "an error in the middle": "BEGIN; UPDATE t SET v = 'no'; SAVEPOINT s; ROLLBACK",
    "logical messages": (
        "SELECT pg_logical_emit_message(false, 'p', 'outside'); BEGIN; INSERT INTO t VALUES (30, 'x');"
        "SELECT pg_logical_emit_message(true, 'p', repeat('inside', 1000)); UPDATE t SET v = 'y' WHERE id = 30; COMMIT;"
        "SELECT pg_logical_emit_message(true, 'p', 'alone')"
    ),
    "tables that are not published": (
        "CREATE TEMP TABLE x (id int PRIMARY KEY); CREATE UNLOGGED TABLE y (id int PRIMARY KEY); BEGIN; INSERT INTO x VALUES (1);"
        "INSERT INTO y VALUES (1); INSERT INTO t VALUES (31, 'x'); COMMIT"
    ),
    "an empty one": "BEGIN; COMMIT; BEGIN; SELECT txid_current(); COMMIT",
    "rows locked, not changed": "BEGIN; SELECT * FROM t FOR UPDATE; SELECT * FROM t FOR SHARE; COMMIT",
}


@pytest.mark.parametrize("name", TRANSACTIONS)
def test_only_what_commits_is_followed(lab: Lab, name: str) -> None:
    follow(lab, Case(setup=PLAIN, batches=(TRANSACTIONS[name], "UPDATE t SET v = 'after' WHERE id = 2")))


def test_transactions_that_run_side_by_side_are_applied_in_the_order_of_their_commits(lab: Lab) -> None:
    lab.database.execute(PLAIN)
    assert lab.replication.sync().ok
    first, second = lab.database.connect(autocommit=False), lab.database.connect(autocommit=False)
    first.execute("UPDATE t SET v = 'first' WHERE id = 1")
    second.execute("UPDATE t SET v = 'second' WHERE id = 2")
    first.execute("INSERT INTO t VALUES (50, 'first')")
    second.commit()
    synced(lab)
    lab.assert_equal("public.t")
    second.execute("DELETE FROM t WHERE id = 2")
    first.execute("UPDATE t SET id = 60 WHERE id = 3")
    first.commit()
    second.execute("INSERT INTO t VALUES (3, 'second')")
    second.commit()
    synced(lab)
    lab.assert_equal("public.t")


def test_two_phase_commits(tmp_path: Path, start_server: StartServer) -> None:
    with start_server(max_prepared_transactions="4") as server, fresh_database(server) as database:
        lab = Lab(database=database, root=tmp_path)
        database.execute(PLAIN)
        assert lab.replication.sync().ok
        database.execute("BEGIN; UPDATE t SET v = 'prepared' WHERE id = 1; PREPARE TRANSACTION 'one'")
        database.execute(
            "BEGIN; DELETE FROM t WHERE id = 2; PREPARE TRANSACTION 'two'; UPDATE t SET v = 'b' WHERE id = 3"
        )
        synced(lab)
        lab.assert_equal("public.t")
        database.execute("COMMIT PREPARED 'one'")
        synced(lab)
        lab.assert_equal("public.t")
        assert {row["v"] for row in lab.lake("public.t") if row["id"] == 1} == {"prepared"}
        database.execute("ROLLBACK PREPARED 'two'")
        synced(lab)
        lab.assert_equal("public.t")
