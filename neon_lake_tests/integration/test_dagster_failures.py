"""What goes wrong is one sentence in Dagster, and hides nothing that went well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neon_lake.lifecycle import State
from neon_lake.orchestration import build_definitions
from neon_lake.orchestration.names import ROW_COUNT
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.dagster_shop import Dagster, this_hour


def park(dagster: Dagster, table: str) -> None:
    """Damage the table's only segment of changes."""
    replication = dagster.lab.replication
    (segment,) = [
        segment for manifest in replication.parts.log.manifests() for segment in manifest.of(TableName("public", table))
    ]
    path = dagster.lab.root / "staging" / segment.path
    path.write_bytes(path.read_bytes()[:-1])


def test_a_parked_table_fails_its_step_and_hides_no_other(dagster: Dagster) -> None:
    dagster.sync()
    dagster.lab.database.execute("UPDATE users SET name = 'x' WHERE id = 1; UPDATE orders SET total = 1 WHERE id = 1")
    assert dagster.sync("orders").ok
    park(dagster, "users")
    dagster.lab.database.execute("DELETE FROM orders WHERE id = 2")
    ran = dagster.sync()
    assert not ran.ok
    assert set(ran.materialized) == {("orders", this_hour())}
    assert set(ran.checks) == {("orders", ROW_COUNT)}
    assert "segment" in ran.failure
    assert dagster.lab.replication.status([TableName("public", "users")]).tables[0].state is State.PARKED
    dagster.lab.assert_equal("public.orders")
    again = dagster.sync()
    assert "neon-lake resync public.users" in again.failure
    assert ("orders", this_hour()) in again.materialized


def test_a_source_that_is_away_fails_with_one_sentence(dagster: Dagster) -> None:
    assert dagster.sync().ok
    file, port = dagster.lab.file, str(dagster.lab.database.server.port)
    file.write_text(dagster.lab.text().replace(port, "1"), encoding="utf-8")
    away = replace(dagster, definitions=build_definitions(file))
    assert "cannot be reached" in str(away.tick().skipped)
    assert away.tables == {"users", "orders"}


def test_a_lost_slot_is_the_step_s_sentence(dagster: Dagster) -> None:
    dagster.sync()
    dagster.lab.database.execute("SELECT pg_drop_replication_slot('neon_lake_lab')")
    ran = dagster.sync()
    assert not ran.ok
    assert "neon-lake resync" in ran.failure
    assert ran.materialized == {}
    tick = dagster.tick()
    assert tick.requests == []
    assert "is gone" in str(tick.skipped)
    everything = {"ops": {"lab_resync": {"config": {"tables": ["*.*"]}}}}
    assert dagster.run("resync", config=everything).ok
    assert dagster.sync().ok


@pytest.mark.parametrize("wanted", ["public.nothing", "not a.table.name.at all"])
def test_a_resync_of_what_is_no_table_is_refused(dagster: Dagster, wanted: str) -> None:
    ran = dagster.run("resync", config={"ops": {"lab_resync": {"config": {"tables": [wanted]}}}})
    assert not ran.ok
    assert wanted in ran.failure
