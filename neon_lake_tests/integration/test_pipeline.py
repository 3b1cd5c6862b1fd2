"""The verbs, one after the other, on a real Postgres and real Delta tables; Postgres is the judge."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from neon_lake.change import Lsn
from neon_lake.errors import ConfigError, SlotGap, SlotLost, SourceRewound
from neon_lake.lifecycle import State
from neon_lake.pipeline import Replication
from neon_lake.pipeline.following import nothing
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.pipelines import Lab

A = TableName("public", "a")

TABLES = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE a (
    id int PRIMARY KEY, name varchar(20), price numeric(10,2), big numeric, ok bool, at timestamptz, day date,
    local timestamp, ratio float8, small real, tags text[], nums int[], data jsonb, raw bytea, who uuid, feeling mood,
    clock time, fixed char(5), s int2, l int8
);
CREATE TABLE "Odd Name" ("Key.1" int, "K2" text, doc text, PRIMARY KEY ("Key.1", "K2"));
"""
FILL = """
INSERT INTO a SELECT g, 'n' || g, g * 1.25, g::numeric / 7, g % 2 = 0, now() - g * interval '1 hour',
    date '2026-01-01' + g, timestamp '2026-01-01' + g * interval '1 minute', g / 3.0, g / 7.0,
    ARRAY['x', NULL, 'y"z\\', '', ' {,} '], ARRAY[g, NULL, -g], jsonb_build_object('g', g), decode('00ff', 'hex'),
    gen_random_uuid(), 'ok', time '10:00' + g * interval '1 second', 'ab', g % 100, g::int8 * 1000000000
FROM generate_series(1, 500) g;
INSERT INTO a (id) VALUES (1000);
INSERT INTO "Odd Name" SELECT g, 'k', (SELECT string_agg(md5(g::text || h), '') FROM generate_series(1, 400) h)
FROM generate_series(1, 20) g;
"""


@pytest.fixture
def filled(lab: Lab) -> Lab:
    lab.database.execute(TABLES + FILL)
    return lab


BOTH = ("public.a", 'public."Odd Name"')


def test_a_first_sync_brings_every_row_and_value(filled: Lab) -> None:
    result = filled.replication.sync()
    assert result.ok
    assert result.tables[A].snapshot_rows == 501
    assert result.tables[A].state is State.LIVE
    filled.assert_equal("public.a", "public.Odd Name")


def test_changes_follow(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute(
        """
        BEGIN;
        UPDATE a SET name = 'new', tags = '{}', price = NULL WHERE id < 50;
        DELETE FROM a WHERE id BETWEEN 100 AND 120;
        UPDATE a SET id = id + 5000 WHERE id BETWEEN 200 AND 210;
        INSERT INTO a (id, name) VALUES (100, 'again');
        UPDATE "Odd Name" SET "K2" = 'z' WHERE "Key.1" < 5;
        COMMIT;
        BEGIN; DELETE FROM a; ROLLBACK;
        UPDATE "Odd Name" SET "Key.1" = 99 WHERE "Key.1" = 2;
        DELETE FROM "Odd Name" WHERE "Key.1" = 99;
        """
    )
    result = filled.replication.sync()
    assert result.ok
    assert (result.tables[A].counts.updates, result.tables[A].counts.deletes) == (60, 21)
    filled.assert_equal("public.a", "public.Odd Name")


def test_an_idle_sync_writes_nothing(filled: Lab) -> None:
    first = filled.replication.sync()
    before = sorted(p for p in filled.root.rglob("*") if p.is_file())
    again = filled.replication.sync()
    assert again.captured.changes == 0
    assert sorted(p for p in filled.root.rglob("*") if p.is_file()) == before
    assert again.tables[A].watermark == first.tables[A].watermark
    assert filled.database.query("SELECT count(*) FROM pg_stat_replication") == [(0,)]


def test_truncate_empties_and_goes_on(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute(
        """BEGIN; INSERT INTO a (id) VALUES (7000); TRUNCATE a, "Odd Name"; INSERT INTO a (id) VALUES (1), (2);
        UPDATE a SET name = 'x' WHERE id = 2; COMMIT"""
    )
    assert filled.replication.sync().ok
    filled.assert_equal("public.a", "public.Odd Name")
    assert len(filled.lake("public.a")) == 2


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


def test_a_table_made_later_comes_along(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1), (2)")
    assert filled.replication.sync().ok
    filled.database.execute("INSERT INTO later VALUES (3)")
    assert filled.replication.sync().ok
    filled.assert_equal("public.a", "public.later")


def test_excluded_columns_stay_at_home(database_lab: Lab) -> None:
    lab = database_lab
    lab.database.execute("CREATE TABLE users (id int PRIMARY KEY, secret text); INSERT INTO users VALUES (1, 's')")
    lab.replication.sync()
    lab.database.execute("UPDATE users SET secret = 't'; INSERT INTO users VALUES (2, 'u')")
    assert lab.replication.sync().ok
    assert lab.lake("public.users") == [{"id": 1}, {"id": 2}]
    segments = [p.read_bytes() for p in (lab.root / "staging").rglob("*.parquet")]
    assert not any(b"secret" in data for data in segments)


@pytest.fixture
def database_lab(lab: Lab) -> Lab:
    return replace(lab, tables=("{name: public.users, exclude: [secret]}",))


def test_soft_deletes_keep_rows(lab: Lab) -> None:
    soft = replace(lab, tables=("{name: 'public.*', deletes: soft}",))
    soft.database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'a'), (2, 'b'), (3, 'c')"
    )
    soft.replication.sync()
    soft.database.execute("DELETE FROM a WHERE id = 1; UPDATE a SET id = 20 WHERE id = 2")
    assert soft.replication.verify(deep=True).ok
    rows = {row["id"]: (row["v"], row["_deleted_at"] is not None) for row in soft.lake("public.a")}
    assert rows == {1: ("a", True), 2: ("b", True), 3: ("c", False), 20: ("b", False)}
    soft.database.execute("INSERT INTO a VALUES (1, 'back'); TRUNCATE a; INSERT INTO a VALUES (3, 'new')")
    assert soft.replication.verify(deep=True).ok
    rows = {row["id"]: (row["v"], row["_deleted_at"] is not None) for row in soft.lake("public.a")}
    assert rows == {1: ("a", True), 2: ("b", True), 3: ("new", False), 20: ("b", True)}
    soft.database.execute("DELETE FROM a; INSERT INTO a VALUES (4, 'four')")
    result = soft.replication.resync([A])
    assert result.ok
    assert {row["id"] for row in soft.lake("public.a")} == {1, 2, 3, 4, 20}
    assert soft.replication.verify(deep=True).ok


def test_a_bad_table_parks_alone_and_comes_back(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute('UPDATE a SET name = \'x\' WHERE id = 1; DELETE FROM "Odd Name" WHERE "Key.1" = 1')
    filled.replication.parts.source.position()
    captured = filled.replication.sync([TableName("public", "Odd Name")])
    assert captured.ok
    (segment,) = [s for m in filled.replication.parts.log.manifests() for s in m.of(A)]
    path = filled.root / "staging" / segment.path
    path.write_bytes(path.read_bytes()[:-1])
    filled.database.execute('UPDATE "Odd Name" SET doc = \'y\' WHERE "Key.1" = 3')
    result = filled.replication.sync()
    assert result.tables[A].state is State.PARKED
    assert segment.path in str(result.tables[A].error)
    filled.assert_equal("public.Odd Name")
    assert filled.replication.status().tables[1].state is State.PARKED
    again = filled.replication.sync()
    assert "neon-lake resync public.a" in str(again.tables[A].error)
    assert filled.replication.resync([A]).ok
    filled.assert_equal("public.a", "public.Odd Name")
    assert filled.replication.sync().ok


def test_a_lost_slot_is_told_and_a_resync_mends_it(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("SELECT pg_drop_replication_slot('neon_lake_lab'); UPDATE a SET name = 'lost' WHERE id = 1")
    with pytest.raises(SlotLost, match="resync --all"):
        filled.replication.sync()
    assert "is gone" in str(filled.replication.status().slot_problem)
    assert filled.replication.resync([A]).ok
    filled.assert_equal("public.a")
    filled.database.execute("UPDATE a SET name = 'on' WHERE id = 2")
    result = filled.replication.sync()
    # the other table stood before the gap too, and is never carried across it
    assert result.ok
    assert result.tables[TableName("public", "Odd Name")].snapshot_rows == 20
    filled.assert_equal("public.a", "public.Odd Name")


def test_a_slot_advanced_by_something_else_is_a_gap(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("UPDATE a SET name = 'lost' WHERE id = 1")
    filled.database.execute("SELECT pg_replication_slot_advance('neon_lake_lab', pg_current_wal_lsn())")
    with pytest.raises(SlotGap, match="advanced to"):
        filled.replication.sync()
    assert filled.replication.resync().ok
    filled.assert_equal("public.a", "public.Odd Name")


def test_a_source_that_went_back_in_time_is_noticed(filled: Lab) -> None:
    filled.replication.sync()
    log, owner = filled.replication.parts.log, filled.replication.parts.owner
    head = log.head()
    assert head is not None
    log.publish(owner, start=head.end, end=Lsn(head.end + (1 << 40)))
    with pytest.raises(SourceRewound, match="earlier state"):
        filled.replication.sync()


def test_a_lake_that_stands_further_on_than_another_server_is_made_anew(filled: Lab) -> None:
    filled.replication.sync()
    far = Lsn(1 << 44)
    destination = filled.replication.parts.destination
    for name in (A, TableName("public", "Odd Name")):
        target = destination.target(name)
        assert target is not None
        destination.merge(target, target.schema, nothing(target.schema), far)
    filled.replication.drop()
    moved = Replication.open(
        replace(filled.config, staging=replace(filled.config.staging, path=str(filled.root / "s2")))
    )
    with pytest.raises(SlotGap, match="resync --all"):
        moved.sync()
    assert moved.resync().ok
    filled.assert_equal("public.a", "public.Odd Name")
    filled.database.execute("UPDATE a SET name = 'on' WHERE id = 1")
    assert moved.sync().ok
    filled.assert_equal("public.a", "public.Odd Name")


def test_an_emptied_staging_directory_is_a_gap(filled: Lab) -> None:
    filled.replication.sync()
    for path in sorted((filled.root / "staging").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    filled.database.execute("UPDATE a SET name = 'x' WHERE id = 1")
    fresh = replace(filled).replication
    with pytest.raises(SlotGap, match="Staging holds no log"):
        fresh.sync()
    assert fresh.resync().ok
    filled.assert_equal("public.a", "public.Odd Name")
    assert fresh.sync().ok


def test_replay_mends_rows_and_moves_none_back(filled: Lab) -> None:
    filled.replication.sync()
    begin = datetime.now(UTC) - timedelta(minutes=5)
    filled.database.execute("UPDATE a SET name = 'one' WHERE id IN (1, 2)")
    filled.replication.sync()
    filled.database.execute(
        "UPDATE a SET name = 'two' WHERE id = 1; DELETE FROM a WHERE id = 2; INSERT INTO a (id) VALUES (9000)"
    )
    filled.replication.sync()
    watermark = filled.watermark("public.a")
    filled.delta("public.a").update(updates={"name": "'wrong'"}, predicate="id = 1")
    filled.delta("public.a").delete("id = 9000")
    assert filled.lake("public.a") != filled.source("public.a")
    result = filled.replication.replay(A, begin)
    assert result.ok
    assert result.counts.total == 5
    filled.assert_equal("public.a")
    assert filled.watermark("public.a") == watermark
    filled.database.execute("UPDATE a SET name = 'three' WHERE id = 1")
    assert filled.replication.sync().ok
    filled.assert_equal("public.a")


def test_a_replay_needs_a_table_that_is_there(filled: Lab) -> None:
    with pytest.raises(ConfigError, match="not in the lake yet"):
        filled.replication.replay(A, datetime.now(UTC))
    with pytest.raises(ConfigError, match="not a table of the pipeline"):
        filled.replication.replay(TableName("public", "nowhere"), datetime.now(UTC))


def test_expire_removes_what_is_old_and_applied(filled: Lab) -> None:
    filled.replication.sync()
    for n in range(3):
        filled.database.execute("UPDATE a SET name = %s WHERE id = 1", str(n))
        filled.replication.sync()
    assert filled.replication.expire().manifests == 0
    later = datetime.now(UTC) + timedelta(days=31)
    removed = filled.replication.expire(later)
    assert removed.manifests == 3
    assert removed.segments >= 4
    filled.database.execute("UPDATE a SET name = 'on' WHERE id = 1")
    assert filled.replication.sync().ok
    filled.assert_equal("public.a", "public.Odd Name")
    with pytest.raises(ConfigError, match="reaches back"):
        filled.replication.replay(A, datetime.now(UTC) - timedelta(days=3))


def test_two_pipelines_do_not_share_a_staging_directory(filled: Lab) -> None:
    filled.replication.sync()
    stranger = Replication.open(replace(filled.config, name="other"))
    with pytest.raises(Exception, match="belongs to the pipeline lab"):
        stranger.sync()
    assert filled.database.query("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()") == [
        ("neon_lake_lab",)
    ]


def test_drop_leaves_nothing_at_the_source(filled: Lab) -> None:
    filled.replication.sync()
    filled.replication.drop()
    filled.replication.drop()
    assert filled.database.query("SELECT count(*) FROM pg_publication") == [(0,)]
    assert filled.replication.status().slot_problem is not None


def test_a_table_that_was_not_published_for_a_while_is_snapshotted_anew(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("ALTER PUBLICATION neon_lake_lab DROP TABLE a; UPDATE a SET name = 'unseen' WHERE id = 1")
    result = filled.replication.sync()
    assert result.ok
    assert result.tables[A].snapshot_rows == 501
    filled.assert_equal("public.a", "public.Odd Name")


def test_a_publication_that_leaves_out_deletes_is_noticed(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("ALTER PUBLICATION neon_lake_lab SET (publish = 'insert'); DELETE FROM a WHERE id = 1")
    assert filled.replication.sync().ok
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


def test_a_table_can_be_left_out_of_a_pattern(lab: Lab) -> None:
    lab = replace(lab, tables=("public.*", "{name: public.keyless, skip: true}"))
    lab.database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE keyless (id int)")
    assert list(lab.replication.sync().tables) == [A]


def test_ddl_alone_is_followed(filled: Lab) -> None:
    filled.replication.sync()
    filled.database.execute("ALTER TABLE a ADD COLUMN extra int")
    assert filled.replication.sync().tables[A].snapshot_rows is None
    filled.assert_equal("public.a")
    filled.database.execute("ALTER TABLE a DROP COLUMN extra; ALTER TABLE a ADD COLUMN more int DEFAULT 3")
    assert filled.replication.sync().tables[A].snapshot_rows == 501
    filled.assert_equal("public.a")
    assert filled.replication.verify(deep=True).ok


def test_a_column_that_is_no_longer_excluded_gets_its_old_values(database_lab: Lab) -> None:
    database_lab.database.execute(
        "CREATE TABLE users (id int PRIMARY KEY, secret text); INSERT INTO users VALUES (1, 's')"
    )
    database_lab.replication.sync()
    open_ = replace(database_lab, tables=("public.users",))
    open_.database.execute("INSERT INTO users VALUES (2, 't')")
    assert open_.replication.sync().ok
    open_.assert_equal("public.users")
    closed = replace(database_lab)
    assert closed.replication.sync().ok
    assert closed.lake("public.users") == [{"id": 1}, {"id": 2}]


def test_going_from_soft_to_hard_deletes_removes_what_was_deleted(lab: Lab) -> None:
    lab.database.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1), (2)")
    soft = replace(lab, tables=("{name: public.a, deletes: soft}",))
    lab.replication.sync()
    lab.database.execute("DELETE FROM a WHERE id = 1")
    assert soft.replication.sync().ok
    assert len(lab.lake("public.a")) == 2
    assert replace(lab).replication.sync().ok
    lab.assert_equal("public.a")


def test_a_key_that_the_lake_cannot_hold_parks_its_table(filled: Lab) -> None:
    filled.database.execute(
        "CREATE TABLE days (day date PRIMARY KEY, n int); INSERT INTO days VALUES ('2026-01-01', 1)"
    )
    filled.replication.sync()
    filled.database.execute("INSERT INTO days VALUES ('infinity', 2); UPDATE a SET name = 'on' WHERE id = 1")
    result = filled.replication.sync()
    days = TableName("public", "days")
    assert result.tables[days].state is State.PARKED
    assert "such as an infinite date, in day" in str(result.tables[days].error)
    filled.assert_equal("public.a")
    filled.database.execute("DELETE FROM days WHERE day = 'infinity'")
    assert filled.replication.resync([days]).ok
    filled.assert_equal("public.days")


def test_unchanged_values_are_found_in_files_that_a_merge_wrote(lab: Lab) -> None:
    lab.database.execute(
        """
        CREATE TABLE a (id int PRIMARY KEY, v text, doc text); ALTER TABLE a ALTER doc SET STORAGE EXTERNAL;
        INSERT INTO a SELECT g, 'v', repeat('x', 5000) FROM generate_series(1, 20) g
        """
    )
    lab.replication.sync()
    lab.database.execute("UPDATE a SET doc = repeat('y', 5000) WHERE id IN (3, 7, 15)")
    assert lab.replication.sync().ok
    lab.database.execute("UPDATE a SET v = 'w' WHERE id IN (5, 7, 9)")
    assert lab.replication.sync().ok
    lab.assert_equal("public.a")


def test_unchanged_values_are_found_in_files_that_are_older_than_a_column(lab: Lab) -> None:
    lab.database.execute(
        """
        CREATE TABLE a (id int PRIMARY KEY, v text, doc text); ALTER TABLE a ALTER doc SET STORAGE EXTERNAL;
        INSERT INTO a SELECT g, 'v', repeat('x', 5000) FROM generate_series(1, 20) g
        """
    )
    lab.replication.sync()
    lab.database.execute(
        """
        ALTER TABLE a ADD COLUMN more text; ALTER TABLE a ALTER more SET STORAGE EXTERNAL;
        INSERT INTO a VALUES (21, 'v', NULL, repeat('y', 5000))
        """
    )
    assert lab.replication.sync().ok
    lab.database.execute("UPDATE a SET v = 'w' WHERE id IN (20, 21)")
    assert lab.replication.sync().ok
    lab.assert_equal("public.a")


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
