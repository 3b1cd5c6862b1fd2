"""DDL while the pipeline runs: after it the lake equals the source, and the table below says by which way.

`docs/ddl.md` shows this table, and a test holds the two together.
"""

# ruff: noqa: E501 - a script of SQL is read as a whole

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import pytest

from neon_lake.schema import TableName
from neon_lake_tests.fixtures import lakes
from neon_lake_tests.fixtures.pipelines import Lab

pytestmark = pytest.mark.lakes(spark="chosen")

T = TableName("public", "t")


class Answer(enum.StrEnum):
    """How the pipeline answers."""

    FOLLOWED = "followed"
    ANEW = "snapshotted anew"
    NEW = "a new table"
    LEFT = "left as it was"


@dataclass(frozen=True, kw_only=True)
class Ddl:
    """DDL on the table `t` of `setup`, what the pipeline does then, and with which tables it ends.

    `before` and `after` change rows around it; `gone` are tables that the lake keeps and the pipeline no longer has.
    """

    ddl: str
    answer: Answer
    setup: str = ""
    before: str = "UPDATE t SET n = n + 1 WHERE id < 4; INSERT INTO t (id, n) VALUES (50, 0)"
    after: str = "UPDATE t SET n = n + 1 WHERE id > 6; DELETE FROM t WHERE id = 2; INSERT INTO t (id, n) VALUES (60, 0)"
    tables: tuple[str, ...] = ("public.t", "public.other")
    judged: str = "public.t"


SETUP = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN price AS numeric(8, 2);
CREATE TABLE t (id int PRIMARY KEY, n int, name varchar(20), big text, m mood, p pair, cost price, code int NOT NULL DEFAULT 7);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
INSERT INTO t SELECT g, g, 'n' || g, repeat(md5(g::text), 100), 'sad', ROW(g, 'x')::pair, g, g + 1000 FROM generate_series(1, 9) AS g;
CREATE TABLE other (id int PRIMARY KEY, v text);
INSERT INTO other VALUES (1, 'a'), (2, 'b');
"""

PARTS = """
DROP TABLE t;
CREATE TABLE t (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10);
CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (10) TO (20);
CREATE TABLE t_5 PARTITION OF t FOR VALUES FROM (50) TO (70);
INSERT INTO t SELECT g, g FROM generate_series(1, 19) AS g;
"""

MORE = "CREATE TABLE more (id int PRIMARY KEY, n int); INSERT INTO more VALUES (30, 1), (31, 2);"

CASES: dict[str, Ddl] = {
    # columns
    "add a column": Ddl(ddl="ALTER TABLE t ADD COLUMN extra int", answer=Answer.FOLLOWED),
    "add a column, and fill it": Ddl(
        ddl="ALTER TABLE t ADD COLUMN extra int; UPDATE t SET extra = id", answer=Answer.FOLLOWED
    ),
    "add a column of a type that is new": Ddl(
        ddl="CREATE TYPE size AS ENUM ('s', 'm'); ALTER TABLE t ADD COLUMN extra size; UPDATE t SET extra = 'm' WHERE id = 3",
        answer=Answer.FOLLOWED,
    ),
    "add a column with a constant default": Ddl(ddl="ALTER TABLE t ADD COLUMN extra int DEFAULT 7", answer=Answer.ANEW),
    "add a column with a volatile default": Ddl(
        ddl="ALTER TABLE t ADD COLUMN extra float8 DEFAULT random()", answer=Answer.ANEW
    ),
    "add a column with a default, and drop the default": Ddl(
        ddl="ALTER TABLE t ADD COLUMN extra int DEFAULT 7; ALTER TABLE t ALTER extra DROP DEFAULT", answer=Answer.ANEW
    ),
    "add a column with a volatile default, and drop the default": Ddl(
        ddl="ALTER TABLE t ADD COLUMN extra float8 DEFAULT random(); ALTER TABLE t ALTER extra DROP DEFAULT",
        answer=Answer.ANEW,
    ),
    "add a serial column": Ddl(ddl="ALTER TABLE t ADD COLUMN extra serial", answer=Answer.ANEW),
    "add an identity column": Ddl(
        ddl="ALTER TABLE t ADD COLUMN extra int GENERATED ALWAYS AS IDENTITY", answer=Answer.ANEW
    ),
    "drop a column": Ddl(ddl="ALTER TABLE t DROP COLUMN name", answer=Answer.ANEW),
    "rename a column": Ddl(ddl="ALTER TABLE t RENAME COLUMN name TO title", answer=Answer.ANEW),
    "swap the names of two columns": Ddl(
        ddl="ALTER TABLE t RENAME n TO x; ALTER TABLE t RENAME code TO n; ALTER TABLE t RENAME x TO code",
        after="UPDATE t SET n = n + 1 WHERE id > 6",
        answer=Answer.ANEW,
    ),
    "drop a column and add it again": Ddl(
        ddl="ALTER TABLE t DROP COLUMN name; ALTER TABLE t ADD COLUMN name varchar(20)", answer=Answer.ANEW
    ),
    "drop a column and add it again with another type": Ddl(
        ddl="ALTER TABLE t DROP COLUMN name; ALTER TABLE t ADD COLUMN name int", answer=Answer.ANEW
    ),
    # types
    "widen a column": Ddl(ddl="ALTER TABLE t ALTER n TYPE bigint", answer=Answer.ANEW),
    "lengthen a varchar": Ddl(ddl="ALTER TABLE t ALTER name TYPE varchar(40)", answer=Answer.ANEW),
    "change a type": Ddl(ddl="ALTER TABLE t ALTER code TYPE text", answer=Answer.ANEW),
    "change the type of the key": Ddl(ddl="ALTER TABLE t ALTER id TYPE bigint", answer=Answer.ANEW),
    "change the values with USING, and keep the type": Ddl(
        ddl="ALTER TABLE t ALTER code TYPE int USING code * 2", answer=Answer.ANEW
    ),
    "change the values of the key with USING": Ddl(
        ddl="ALTER TABLE t ALTER id TYPE int USING id + 5", answer=Answer.ANEW
    ),
    "add a value to an enum": Ddl(
        ddl="ALTER TYPE mood ADD VALUE 'fine' BEFORE 'ok'; UPDATE t SET m = 'fine' WHERE id = 3", answer=Answer.FOLLOWED
    ),
    "rename a value of an enum": Ddl(ddl="ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", answer=Answer.ANEW),
    "rename a type": Ddl(ddl="ALTER TYPE mood RENAME TO feeling", answer=Answer.ANEW),
    "add an attribute to a composite type": Ddl(ddl="ALTER TYPE pair ADD ATTRIBUTE c int", answer=Answer.ANEW),
    "drop an attribute of a composite type": Ddl(ddl="ALTER TYPE pair DROP ATTRIBUTE a", answer=Answer.ANEW),
    "add a constraint to a domain": Ddl(ddl="ALTER DOMAIN price ADD CHECK (VALUE > 0)", answer=Answer.FOLLOWED),
    # keys
    "change the key": Ddl(
        ddl="UPDATE t SET code = id + 2000; ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (code)",
        after="UPDATE t SET n = n + 1 WHERE id > 6; DELETE FROM t WHERE id = 2; INSERT INTO t (id, n, code) VALUES (60, 0, 1)",
        answer=Answer.ANEW,
    ),
    "add a column to the key": Ddl(
        ddl="ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (id, code)", answer=Answer.ANEW
    ),
    "drop the key and add it again": Ddl(
        ddl="ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (id)", answer=Answer.FOLLOWED
    ),
    "replica identity full": Ddl(ddl="ALTER TABLE t REPLICA IDENTITY FULL", answer=Answer.FOLLOWED),
    "replica identity using an index over other columns": Ddl(
        ddl="ALTER TABLE t ADD CONSTRAINT u UNIQUE (code); ALTER TABLE t REPLICA IDENTITY USING INDEX u",
        before="UPDATE t SET n = n + 1 WHERE id < 4",
        answer=Answer.ANEW,
    ),
    # what does not change rows
    "set, change and drop a default": Ddl(
        ddl="ALTER TABLE t ALTER n SET DEFAULT 1; ALTER TABLE t ALTER n SET DEFAULT 2; ALTER TABLE t ALTER n DROP DEFAULT",
        answer=Answer.FOLLOWED,
    ),
    "set not null": Ddl(ddl="ALTER TABLE t ALTER n SET NOT NULL", answer=Answer.FOLLOWED),
    "add an index and a check": Ddl(
        ddl="CREATE INDEX i ON t (n); ALTER TABLE t ADD CHECK (n > -100)", answer=Answer.FOLLOWED
    ),
    "comment": Ddl(ddl="COMMENT ON TABLE t IS 'shop'; COMMENT ON COLUMN t.n IS 'count'", answer=Answer.FOLLOWED),
    "vacuum full": Ddl(ddl="VACUUM FULL t", answer=Answer.FOLLOWED),
    "cluster": Ddl(ddl="CLUSTER t USING t_pkey", answer=Answer.FOLLOWED),
    "truncate": Ddl(ddl="TRUNCATE t", answer=Answer.FOLLOWED),
    "a trigger, a rule and a policy": Ddl(
        ddl="CREATE RULE r AS ON DELETE TO t WHERE OLD.id = 1 DO INSTEAD NOTHING; CREATE POLICY p ON t USING (true)",
        answer=Answer.FOLLOWED,
    ),
    # tables
    "create a table": Ddl(
        ddl=MORE, answer=Answer.NEW, judged="public.more", tables=("public.t", "public.other", "public.more")
    ),
    "drop a table": Ddl(
        ddl="DROP TABLE t", after="UPDATE other SET v = 'on'", answer=Answer.LEFT, tables=("public.other",)
    ),
    "drop a table and create it again": Ddl(
        ddl="DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, n int, name varchar(20)); INSERT INTO t VALUES (7, 7, 'seven')",
        answer=Answer.ANEW,
    ),
    "drop a table and create it again as it was": Ddl(
        ddl="CREATE TABLE copy (LIKE t INCLUDING ALL); INSERT INTO copy SELECT * FROM t WHERE id > 5; DROP TABLE t;"
        "ALTER TABLE copy RENAME TO t",
        answer=Answer.ANEW,
    ),
    "rename a table": Ddl(
        ddl="ALTER TABLE t RENAME TO renamed",
        after="UPDATE renamed SET n = n + 1 WHERE id > 6; DELETE FROM renamed WHERE id = 2",
        answer=Answer.NEW,
        judged="public.renamed",
        tables=("public.renamed", "public.other"),
    ),
    "rename a table, and rename it back": Ddl(
        ddl="ALTER TABLE t RENAME TO x; UPDATE x SET n = 77; ALTER TABLE x RENAME TO t", answer=Answer.ANEW
    ),
    "swap the names of two tables": Ddl(
        setup="CREATE TABLE twin (LIKE t INCLUDING ALL); INSERT INTO twin SELECT * FROM t WHERE id < 5; UPDATE twin SET n = -n;",
        ddl="ALTER TABLE t RENAME TO x; ALTER TABLE twin RENAME TO t; ALTER TABLE x RENAME TO twin",
        answer=Answer.ANEW,
        tables=("public.t", "public.other", "public.twin"),
    ),
    "move a table to another schema of the pipeline": Ddl(
        setup="CREATE SCHEMA public2;",
        ddl="ALTER TABLE t SET SCHEMA public2",
        after="UPDATE public2.t SET n = n + 1 WHERE id > 6",
        answer=Answer.NEW,
        judged="public2.t",
        tables=("public2.t", "public.other"),
    ),
    "move a table to a schema that is not the pipeline's": Ddl(
        setup="CREATE SCHEMA away;",
        ddl="ALTER TABLE t SET SCHEMA away",
        after="UPDATE away.t SET n = n + 1; UPDATE other SET v = 'on'",
        answer=Answer.LEFT,
        tables=("public.other",),
    ),
    # partitions
    "create a partition": Ddl(
        setup=PARTS,
        ddl="CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (30) TO (40); INSERT INTO t VALUES (33, 3)",
        answer=Answer.FOLLOWED,
    ),
    "create a partition in a transaction that fills it": Ddl(
        setup=PARTS,
        ddl="BEGIN; CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (30) TO (40); INSERT INTO t VALUES (33, 3); COMMIT",
        answer=Answer.FOLLOWED,
    ),
    "attach a partition that has rows": Ddl(
        setup=PARTS + "CREATE TABLE t_3 (n int, id int NOT NULL, PRIMARY KEY (id)); INSERT INTO t_3 VALUES (3, 33);",
        ddl="ALTER TABLE t ATTACH PARTITION t_3 FOR VALUES FROM (30) TO (40)",
        answer=Answer.ANEW,
    ),
    "create, fill and attach a partition in one transaction": Ddl(
        setup=PARTS,
        ddl="BEGIN; CREATE TABLE t_3 (LIKE t INCLUDING ALL); INSERT INTO t_3 VALUES (33, 3);"
        "ALTER TABLE t ATTACH PARTITION t_3 FOR VALUES FROM (30) TO (40); COMMIT",
        answer=Answer.ANEW,
    ),
    "attach a partition that has partitions": Ddl(
        setup=PARTS,
        ddl="CREATE TABLE t_3 (LIKE t INCLUDING ALL) PARTITION BY RANGE (id);"
        "CREATE TABLE t_3a PARTITION OF t_3 DEFAULT; INSERT INTO t_3 VALUES (33, 3);"
        "ALTER TABLE t ATTACH PARTITION t_3 FOR VALUES FROM (30) TO (40)",
        answer=Answer.ANEW,
    ),
    "detach a partition": Ddl(
        setup=PARTS,
        ddl="ALTER TABLE t DETACH PARTITION t_2",
        answer=Answer.ANEW,
        tables=("public.t", "public.other", "public.t_2"),
    ),
    "detach a partition concurrently": Ddl(
        setup=PARTS,
        ddl="ALTER TABLE t DETACH PARTITION t_2 CONCURRENTLY",
        answer=Answer.ANEW,
        tables=("public.t", "public.other", "public.t_2"),
    ),
    "drop a partition": Ddl(setup=PARTS, ddl="DROP TABLE t_2", answer=Answer.ANEW),
    "truncate a partition": Ddl(setup=PARTS, ddl="TRUNCATE t_2", answer=Answer.ANEW),
    "truncate a new partition": Ddl(
        setup=PARTS,
        ddl="CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (30) TO (40); INSERT INTO t VALUES (33, 3); TRUNCATE t_3",
        answer=Answer.ANEW,
    ),
    "drop a new partition": Ddl(
        setup=PARTS,
        ddl="CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (30) TO (40); INSERT INTO t VALUES (33, 3); DROP TABLE t_3",
        answer=Answer.ANEW,
    ),
    "drop a new partition of a new partition": Ddl(
        setup=PARTS,
        ddl="CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (30) TO (40) PARTITION BY RANGE (id);"
        "CREATE TABLE t_3a PARTITION OF t_3 DEFAULT; INSERT INTO t VALUES (33, 3); DROP TABLE t_3a",
        answer=Answer.ANEW,
    ),
    "detach a new partition": Ddl(
        setup=PARTS,
        ddl="BEGIN; CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (30) TO (40); INSERT INTO t VALUES (33, 3);"
        "ALTER TABLE t DETACH PARTITION t_3; COMMIT",
        answer=Answer.ANEW,
        tables=("public.t", "public.other", "public.t_3"),
    ),
    "truncate a partitioned table": Ddl(
        setup=PARTS,
        ddl="BEGIN; UPDATE t SET n = 0; TRUNCATE t; INSERT INTO t VALUES (3, 3), (8, 8); COMMIT",
        answer=Answer.ANEW,
    ),
    "vacuum full of a partition": Ddl(setup=PARTS, ddl="VACUUM FULL t_2", answer=Answer.ANEW),
    "add a column to a partitioned table": Ddl(
        setup=PARTS, ddl="ALTER TABLE t ADD COLUMN extra int", answer=Answer.FOLLOWED
    ),
    "change the values of a partitioned table with USING": Ddl(
        setup=PARTS, ddl="ALTER TABLE t ALTER n TYPE int USING n * 2", answer=Answer.ANEW
    ),
}


@pytest.mark.parametrize("name", lakes.cases(CASES, chosen={"add a column, and fill it", "rename a column"}))
def test_ddl_is_answered_without_a_wrong_value(lab: Lab, name: str) -> None:
    case = CASES[name]
    lab = replace(lab, tables=("public.*", "public2.*"))
    lab.database.execute(SETUP + case.setup)
    first = lab.replication.sync()
    assert first.ok
    kept = lab.lake("public.t")
    # each statement in a transaction of its own, but for those between BEGIN and COMMIT
    whole = case.ddl.startswith("BEGIN")
    for script in [case.before, *([case.ddl] if whole else case.ddl.split(";")), case.after]:
        lab.database.execute(script)
    result = lab.replication.sync()
    assert result.ok, result
    assert {str(table) for table in result.tables} == set(case.tables)
    anew = {str(table) for table, of in result.tables.items() if of.snapshot_rows is not None}
    lab.assert_equal(*case.tables)
    if case.answer is Answer.LEFT:
        assert [row["id"] for row in kept] == [row["id"] for row in lab.lake("public.t") if row["id"] != 50]
    else:
        assert (case.judged in anew) == (case.answer is not Answer.FOLLOWED)
        assert (TableName.parse(case.judged) in first.tables) == (case.answer is not Answer.NEW)
    # no other table pays for it, and it is paid once
    assert "public.other" not in anew
    lab.database.execute("UPDATE other SET v = 'later'")
    again = lab.replication.sync()
    assert again.ok
    assert [str(table) for table, of in again.tables.items() if of.snapshot_rows is not None] == []
    lab.assert_equal(*case.tables)


def test_soft_deleted_rows_outlive_what_is_not_sent(lab: Lab) -> None:
    lab = replace(lab, tables=("{name: 'public.*', deletes: soft}",))
    lab.database.execute(PARTS.replace("DROP TABLE t;", ""))
    assert lab.replication.sync().ok
    lab.database.execute("DELETE FROM t WHERE id = 1; TRUNCATE t_2")
    assert lab.replication.sync().tables[T].snapshot_rows == 8
    rows = {row["id"]: row["_deleted_at"] is not None for row in lab.lake("public.t")}
    assert rows == {n: n == 1 or n >= 10 for n in range(1, 20)}
    assert lab.replication.sync().tables[T].snapshot_rows is None
    assert lab.replication.verify(deep=True).ok


def test_what_was_noted_once_is_compared_for_ever(lab: Lab) -> None:
    lab.database.execute(PARTS.replace("DROP TABLE t;", ""))
    assert lab.replication.sync().ok
    lab.database.execute("CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (30) TO (40); INSERT INTO t VALUES (33, 3)")
    assert lab.replication.sync().tables[T].snapshot_rows is None
    version = lab.delta("public.t").version()
    assert lab.replication.sync().tables[T].snapshot_rows is None
    assert lab.delta("public.t").version() == version
    lab.database.execute("DROP TABLE t_3")
    assert lab.replication.sync().tables[T].snapshot_rows == 19
    lab.assert_equal("public.t")
    lab.database.execute("TRUNCATE t_1")
    result = lab.replication.resync([T])
    assert result.ok, result
    lab.assert_equal("public.t")
    assert lab.replication.sync().tables[T].snapshot_rows is None
