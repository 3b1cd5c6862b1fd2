"""What is done to whole tables, and what kind of table it is: TRUNCATE, replica identity, partitions, heirs, generated columns."""

# ruff: noqa: E501 - a script of SQL is read as a whole

from __future__ import annotations

import pytest

from neon_lake.errors import TableRefused
from neon_lake.schema import TableName
from neon_lake_tests.fixtures import lakes
from neon_lake_tests.fixtures.following import PLAIN, Case, follow, plain, synced
from neon_lake_tests.fixtures.pipelines import Lab

pytestmark = pytest.mark.lakes(spark="chosen")

# --- TRUNCATE

PAIR = (
    PLAIN + "CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u SELECT g, 'u' FROM generate_series(1, 5) AS g;"
)
LINKED = PLAIN + (
    "CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t); INSERT INTO child SELECT g, g FROM generate_series(1, 9) AS g;"
)

TRUNCATES = {
    "one table": plain("TRUNCATE t", "INSERT INTO t VALUES (1, 'x')"),
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
    "twice": plain("TRUNCATE t; INSERT INTO t VALUES (1, 'a'); TRUNCATE t; INSERT INTO t VALUES (2, 'b')"),
    "rolled back": plain("BEGIN; TRUNCATE t; ROLLBACK; INSERT INTO t VALUES (77, 'x')"),
    "in a savepoint that is rolled back": plain(
        "BEGIN; INSERT INTO t VALUES (77, 'x'); SAVEPOINT s; TRUNCATE t; ROLLBACK TO s; DELETE FROM t WHERE id = 1; COMMIT"
    ),
    "restart identity": Case(
        setup="CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('a'), ('b')",
        batches=("TRUNCATE t RESTART IDENTITY; INSERT INTO t (v) VALUES ('c')",),
    ),
    "the same keys again": plain(
        "BEGIN; TRUNCATE t; INSERT INTO t SELECT g, 'again' FROM generate_series(1, 9) AS g; COMMIT"
    ),
}


@pytest.mark.parametrize("name", lakes.cases(TRUNCATES, chosen={"several tables, rows before and after"}))
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
    "full identity of the table alone": Case(
        setup=LIST + "ALTER TABLE t REPLICA IDENTITY FULL",
        batches=(
            "UPDATE t SET id = id + 200 WHERE region = 'eu'; UPDATE t SET region = 'as' WHERE id < 5 AND region = 'us'; DELETE FROM t WHERE id > 25",
        ),
    ),
    "full identity of a partition alone": Case(
        setup=LIST + "ALTER TABLE t_eu REPLICA IDENTITY FULL",
        batches=(
            "UPDATE t SET id = id + 1 WHERE region = 'eu'; UPDATE t SET v = 'x' WHERE id < 5; DELETE FROM t WHERE id > 25",
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


KEYLESS_PARTS = "CREATE TABLE t (id int, v text) PARTITION BY RANGE (id); CREATE TABLE p PARTITION OF t DEFAULT;INSERT INTO t VALUES (1, 'x'), (2, 'y');"


INDEXED_PARTS = (
    "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, UNIQUE (id, n)) PARTITION BY RANGE (id);"
    "CREATE TABLE p PARTITION OF t DEFAULT; ALTER TABLE t REPLICA IDENTITY USING INDEX t_id_n_key;"
    "INSERT INTO t VALUES (1, 1), (2, 2)"
)


@pytest.mark.parametrize(
    ("setup", "mend"),
    [
        (f"{KEYLESS_PARTS} ALTER TABLE t REPLICA IDENTITY FULL", "ALTER TABLE p REPLICA IDENTITY FULL"),
        (f"{LIST} ALTER TABLE t_us_2 REPLICA IDENTITY NOTHING", "ALTER TABLE t_us_2 REPLICA IDENTITY FULL"),
        (
            INDEXED_PARTS,
            "ALTER TABLE p REPLICA IDENTITY USING INDEX p_id_n_key",
        ),
    ],
)
def test_a_partition_that_logs_less_than_its_table_is_refused(lab: Lab, setup: str, mend: str) -> None:
    lab.database.execute(setup)
    with pytest.raises(TableRefused, match=r"The partition .* has another replica identity than its table public\.t"):
        lab.replication.sync()
    lab.database.execute(mend)
    assert lab.replication.sync().ok
    lab.database.execute("UPDATE t SET id = 99 WHERE id = 1; DELETE FROM t WHERE id = 2")
    synced(lab)
    assert lab.replication.verify(deep=True).ok


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
    sends = lab.database.server.major >= 18

    def same() -> None:
        wanted = [
            {"id": i, "n": n} | ({"double": d} if sends else {}) | {"v": v}
            for i, n, d, v in lab.database.query("TABLE t")
        ]
        assert lab.lake("public.t") == sorted(wanted, key=repr)

    (finding,) = [found for found in lab.replication.check() if found.subject == "public.t"]
    assert finding.problem is None
    assert ("the server does not send generated columns, so double is left out" in finding.detail) is not sends
    assert lab.replication.sync().ok
    same()
    lab.database.execute("UPDATE t SET n = n + 10 WHERE id = 1; INSERT INTO t VALUES (3, 3, DEFAULT, 'c')")
    synced(lab)
    same()
