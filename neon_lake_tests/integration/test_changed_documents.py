"""Values that are stored apart (TOAST) are not sent when they do not change: the lake keeps what it has."""

# ruff: noqa: E501 - a script of SQL is read as a whole

from __future__ import annotations

import json

import pytest

from neon_lake.change import UNCHANGED
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.following import Case, follow, synced
from neon_lake_tests.fixtures.pipelines import Lab

pytestmark = pytest.mark.lakes(spark="chosen")

T = TableName("public", "t")

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


@pytest.mark.chosen
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
    rows = lab.content("public.t").sort_by("id").to_pylist()
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
