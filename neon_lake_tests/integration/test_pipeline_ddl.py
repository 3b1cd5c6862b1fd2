"""Tables that change their shape are followed, or snapshotted anew."""

from __future__ import annotations

import pytest

from neon_lake.schema import TableName
from neon_lake_tests.fixtures.pipelines import Lab

A = TableName("public", "a")


def test_columns_added_at_the_source_are_added(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("ALTER TABLE a ADD COLUMN extra int; UPDATE a SET extra = id WHERE id < 10")
    assert filled.replication.sync().ok
    filled.assert_equal("public.a")


@pytest.mark.parametrize(
    "ddl",
    [
        "ALTER TABLE a ADD COLUMN extra int DEFAULT 7",
        "ALTER TABLE a ADD COLUMN extra float8 NOT NULL DEFAULT random()",
        "ALTER TABLE a DROP COLUMN name",
        "ALTER TABLE a RENAME COLUMN name TO title",
        "ALTER TABLE a ALTER COLUMN s TYPE int8",
        "DELETE FROM a WHERE id = 1000; ALTER TABLE a DROP CONSTRAINT a_pkey; ALTER TABLE a ADD PRIMARY KEY (l)",
    ],
)
def test_what_cannot_be_followed_is_snapshotted_anew(filled: Lab, ddl: str) -> None:
    filled.replication.sync()
    filled.database.execute(f"UPDATE a SET price = 0 WHERE id < 5; {ddl}; UPDATE a SET price = 1 WHERE id > 490")
    result = filled.replication.sync()
    assert result.ok
    assert result.tables[A].snapshot_rows is not None
    filled.assert_equal("public.a", "public.Odd Name")


def test_ddl_alone_is_followed(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("ALTER TABLE a ADD COLUMN extra int")
    assert filled.replication.sync().tables[A].snapshot_rows is None
    filled.assert_equal("public.a")
    filled.database.execute("ALTER TABLE a DROP COLUMN extra; ALTER TABLE a ADD COLUMN more int DEFAULT 3")
    assert filled.replication.sync().tables[A].snapshot_rows == 501
    filled.assert_equal("public.a")
    assert filled.replication.verify(deep=True).ok


@pytest.mark.parametrize(
    "ddl",
    [
        "ALTER TABLE a DROP COLUMN name",
        "DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)",
        "ALTER PUBLICATION neon_lake_lab DROP TABLE a; UPDATE a SET name = 'unseen' WHERE id = 1",
    ],
)
def test_verify_snapshots_anew_what_it_cannot_bring_along(filled: Lab, ddl: str) -> None:
    filled.replication.sync()
    filled.database.execute(ddl)
    result = filled.replication.verify(deep=True)
    assert result.ok, result.to_json()
    assert result.parity[A].content_equal
    filled.assert_equal("public.a", "public.Odd Name")


def test_a_table_dropped_and_made_again_is_followed(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("DROP TABLE a; CREATE TABLE a (id text PRIMARY KEY); INSERT INTO a VALUES ('x')")
    assert filled.replication.sync().ok
    filled.assert_equal("public.a", "public.Odd Name")


def test_a_table_that_loses_its_key_stops_only_itself(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("ALTER TABLE a DROP CONSTRAINT a_pkey; UPDATE \"Odd Name\" SET doc = 'on'")
    result = filled.replication.sync()
    assert not result.ok
    assert "has no key" in str(result.tables[A].error)
    filled.assert_equal("public.Odd Name")
    assert "has no key" in str({t.table: t.reason for t in filled.replication.status().tables}[A])
    filled.database.execute("INSERT INTO a (id) VALUES (77777); ALTER TABLE a ADD PRIMARY KEY (id)")
    assert filled.replication.sync().ok
    filled.assert_equal("public.a")


@pytest.mark.parametrize("one", [True, False])
def test_a_partition_that_was_changed_while_it_was_detached(lab: Lab, one: bool) -> None:
    lab.database.execute(
        """
        CREATE TABLE a (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
        CREATE TABLE a_1 PARTITION OF a FOR VALUES FROM (0) TO (10);
        CREATE TABLE a_2 PARTITION OF a FOR VALUES FROM (10) TO (20);
        INSERT INTO a SELECT g, 'v' FROM generate_series(1, 19) AS g
        """
    )
    lab.replication.sync()
    aside = (
        "ALTER TABLE a DETACH PARTITION a_2; DELETE FROM a_2 WHERE id < 15; UPDATE a_2 SET v = 'aside';"
        "ALTER TABLE a ATTACH PARTITION a_2 FOR VALUES FROM (10) TO (20)"
    )
    lab.database.execute(f"BEGIN; {aside}; COMMIT" if one else aside)
    assert lab.replication.sync().tables[A].snapshot_rows == 14
    lab.assert_equal("public.a")
    lab.database.execute("CREATE TABLE a_3 PARTITION OF a FOR VALUES FROM (20) TO (30); INSERT INTO a VALUES (20, 'w')")
    assert lab.replication.sync().tables[A].snapshot_rows is None
    lab.assert_equal("public.a")
