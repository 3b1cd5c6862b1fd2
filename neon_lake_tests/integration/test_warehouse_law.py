"""The law of a warehouse: whatever the changes, batches, and statements sent twice, the table is the source's."""

from __future__ import annotations

import pytest

from neon_lake.change import Lsn
from neon_lake.config import Deletes, WriteMode
from neon_lake_tests.fixtures.histories import FIRST, KEYED, KEYLESS, History, shown
from neon_lake_tests.fixtures.warehouses import Bench
from neon_lake_tests.fixtures.workspaces import Workspace

SEEDS = {"sail": range(3), "spark": range(1)}
BATCHES = {"sail": 4, "spark": 2}
"""Spark takes seconds for what Sail does in tenths of one."""

NAMES = {relation: [*(c.name for c in relation.columns), "_rescued_data"] for relation in (KEYED, KEYLESS)}


def bench(workspace: Workspace, mode: WriteMode = WriteMode.MIRROR, deletes: Deletes = Deletes.HARD) -> Bench:
    workspace.schema("public")
    return Bench(workspace=workspace, volume=workspace.volume(), mode=mode, deletes=deletes)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("deletes", [Deletes.HARD, Deletes.SOFT])
def test_a_table_with_a_key_mirrors_its_source(
    workspace: Workspace, engine: str, deletes: Deletes, twice: bool
) -> None:
    table = bench(workspace, deletes=deletes)
    if twice:
        workspace.fault(method="POST", path=r"/api/2\.0/sql/statements/?", body="MERGE INTO", do="duplicate", times=-1)
    for seed in SEEDS[engine]:
        history = History(KEYED, seed)
        destination = table.destination()
        target = destination.load(
            destination.target(KEYED.table), table.schema(KEYED), table.snapshot(KEYED, [], FIRST)
        )
        for batch in history.batches(BATCHES[engine]):
            changes = table.changes(KEYED, batch, int(target.watermark or 0), history.end)
            target = destination.carry_out(target, table.schema(KEYED), changes)
            assert target.watermark == Lsn(history.end)
            alive = [row for row in table.rows(KEYED.table) if row.get("_deleted_at") is None]
            assert shown(alive, NAMES[KEYED]) == shown(history.rows, NAMES[KEYED]), seed


@pytest.mark.timeout(300)
def test_a_table_without_a_key_has_every_copy(workspace: Workspace, engine: str) -> None:
    table = bench(workspace)
    workspace.fault(method="POST", path=r"/api/2\.0/sql/statements/?", body="MERGE INTO", do="duplicate", times=-1)
    for seed in SEEDS[engine]:
        history = History(KEYLESS, seed)
        destination = table.destination()
        start = table.snapshot(KEYLESS, [], FIRST)
        target = destination.load(destination.target(KEYLESS.table), table.schema(KEYLESS), start)
        for batch in history.batches(BATCHES[engine]):
            changes = table.changes(KEYLESS, batch, int(target.watermark or 0), history.end)
            target = destination.carry_out(target, table.schema(KEYLESS), changes)
            found = shown(table.rows(KEYLESS.table), NAMES[KEYLESS])
            assert found == shown(history.rows, NAMES[KEYLESS]), seed


@pytest.mark.timeout(300)
@pytest.mark.parametrize("relation", [KEYED, KEYLESS], ids=["key", "no key"])
def test_in_the_mode_append_every_change_is_one_row(workspace: Workspace, engine: str, relation: object) -> None:
    chosen = KEYED if relation is KEYED else KEYLESS
    table = bench(workspace, mode=WriteMode.APPEND)
    workspace.fault(method="POST", path=r"/api/2\.0/sql/statements/?", body="MERGE INTO", do="duplicate", times=-1)
    for seed in SEEDS[engine]:
        history = History(chosen, seed)
        destination = table.destination()
        start = table.snapshot(chosen, [], FIRST)
        target = destination.load(None, table.schema(chosen), start)
        for batch in history.batches(BATCHES[engine]):
            changes = table.changes(chosen, batch, int(target.watermark or 0), history.end)
            target = destination.carry_out(target, table.schema(chosen), changes)
        found = [
            (row["_lsn"], row["_seq"], row["_op"], *(repr(row[name]) for name in NAMES[chosen]))
            for row in table.rows(chosen.table)
        ]
        assert sorted(found) == sorted(history.versions), seed
        assert destination.count(target) == len(history.rows)
