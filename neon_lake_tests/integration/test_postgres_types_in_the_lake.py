"""Every type through the whole pipeline, into Delta and on from there, with Postgres itself as the judge."""

from __future__ import annotations

import pytest

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
        assert count >= 3 * table.count
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
