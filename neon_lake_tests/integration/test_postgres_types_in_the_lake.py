"""Every type through the whole pipeline, into Delta and on from there, with Postgres itself as the judge."""

from __future__ import annotations

import pytest

from neon_lake.change import UNCHANGED
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.type_rows import rows_for, setup
from neon_lake_tests.fixtures.wide_tables import WideTable, key_tables, wide_tables
from neon_lake_tests.soak import oracle

FRESH, FILLED, DELETED, UNTOUCHED = 1000, 2000, 3000, 4000
"""From where on rows have their `id` that are inserted, filled and deleted after the snapshot, or stay as they were."""


def begin(lab: Lab, tables: list[WideTable], *, empty: bool) -> None:
    """Make the tables with rows and bring them into the lake by snapshots."""
    rows = [row for table in tables for row in table.types]
    lab.database.execute(setup(rows) + "".join(table.create for table in tables))
    for table in tables:
        for place in range(table.count):
            for ident in (place, DELETED + place, UNTOUCHED + place):
                lab.database.execute(table.insert(ident, place))
            lab.database.execute(table.insert(FILLED + place, table.count if empty else place))
    check(lab, tables)


def check(lab: Lab, tables: list[WideTable]) -> None:
    """Sync; the lake then has the source's text, and the pipeline's own comparison says so too."""
    synced = lab.replication.sync()
    assert {str(name): result.error for name, result in synced.tables.items() if result.error} == {}
    for table in tables:
        path = lab.root / "lake" / "public" / table.called
        count, differences = oracle.differences(lab.database.url, table.found, path)
        assert differences == []
        assert count
    verified = lab.replication.verify(deep=True)
    assert {str(name): p.differences for name, p in verified.parity.items() if not p.content_equal} == {}
    assert verified.ok
    assert len(verified.parity) == len(tables)


@pytest.mark.timeout(240)
def test_every_type_is_in_the_lake_as_postgres_writes_it(lab: Lab, pytestconfig: pytest.Config) -> None:
    tables = wide_tables(rows_for(pytestconfig.getoption("--pg")))
    begin(lab, tables, empty=True)
    for table in tables:
        for place in range(table.count):
            lab.database.execute(table.insert(FRESH + place, place))
            lab.database.execute(table.update(FILLED + place, place))
            lab.database.execute(table.update(place, place + 1))
        lab.database.execute(f"DELETE FROM {table.called} WHERE id >= {DELETED} AND id < {UNTOUCHED}")
        lab.database.execute(f"UPDATE {table.called} SET id = -id WHERE id = {UNTOUCHED}")
    check(lab, tables)


@pytest.mark.timeout(240)
def test_every_type_that_can_be_a_key_merges_by_it(lab: Lab, pytestconfig: pytest.Config) -> None:
    tables = key_tables(rows_for(pytestconfig.getoption("--pg")))
    begin(lab, tables, empty=False)
    for table in tables:
        for place in range(table.count):
            lab.database.execute(table.insert(FRESH + place, place))
            lab.database.execute(table.update(place, place + 1))
        lab.database.execute(f"UPDATE {table.called} SET n = id WHERE id >= {FILLED} AND id < {DELETED}")
        lab.database.execute(f"DELETE FROM {table.called} WHERE id >= {DELETED} AND id < {UNTOUCHED}")
    check(lab, tables)


TOASTED = {
    "text": "repeat('ü', 5000)",
    "bytea": "decode(repeat('00ff5c', 2000), 'hex')",
    "jsonb": "jsonb_build_object('a', repeat('x', 5000))",
    "text[]": "ARRAY[repeat('a,\"', 3000), NULL, '']",
    "bytea[]": "ARRAY[decode(repeat('00', 5000), 'hex'), NULL]",
    "date[]": "array_fill('infinity'::date, ARRAY[2000])",
    "pair": "(1, repeat('(,\"', 3000))::pair",
    "numeric": "('1' || repeat('0', 9000) || '.5')::numeric",
    "hstore": "hstore(ARRAY['k', repeat('\"=>', 2000)], ARRAY[NULL, repeat('\\', 5000)])",
    "hstore[]": "ARRAY[hstore('k', repeat('v', 5000)), NULL, '']",
    "geometry": "ST_MakeLine(ARRAY(SELECT ST_MakePoint(g, g) FROM generate_series(1, 500) AS g))",
    "vector": "array_fill(0.1::real, ARRAY[3000])::vector",
}
"""By type, a value that is stored out of line, so that an update that leaves it alone does not send it."""


def test_values_that_are_not_sent_keep_every_type(lab: Lab, pytestconfig: pytest.Config) -> None:
    types = [row for row in rows_for(pytestconfig.getoption("--pg")) if row.sql in TOASTED]
    table = WideTable("t", types)
    external = "".join(f'ALTER TABLE t ALTER "{row.sql}" SET STORAGE EXTERNAL;' for row in types)
    lab.database.execute(setup(types) + table.create + external)
    values = ", ".join(TOASTED[row.sql] for row in types)
    lab.database.execute(f"INSERT INTO t SELECT g, {values} FROM generate_series(1, 4) AS g")
    check(lab, [table])
    lab.database.execute("UPDATE t SET id = -id WHERE id = 2")
    for row in types:
        lab.database.execute(f'UPDATE t SET "{row.sql}" = NULL WHERE id = 1')
        lab.database.execute("UPDATE t SET text = 'x' WHERE id > 2")
    lab.database.execute(f"INSERT INTO t SELECT 5, {values}")
    lab.database.execute("UPDATE t SET text = 'y', id = 6 WHERE id = 5")
    check(lab, [table])
    log = lab.replication.parts.log
    sent = [log.read(s) for m in log.manifests() for s in m.of(TableName("public", "t"))]
    unsent = {name for rows in sent for names in rows[UNCHANGED].to_pylist() if names for name in names}
    assert unsent == {row.sql for row in types}
