"""What the demonstration's report makes of runs."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from neon_lake.demo.report import compose, shown
from neon_lake.demo.workload import Done
from neon_lake.orchestration.history import Checked, Materialized, Run
from neon_lake.orchestration.names import CONTENT, ROW_COUNT
from neon_lake.schema import TableName

ORDERS, ITEMS = TableName("public", "orders"), TableName("public", "order_items")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WORKLOAD = Done(committed=900, rolled_back=7, tables={})


def made(
    table: TableName, second: float, *, newest: float | None = None, step: str = "batch", **counts: int
) -> Materialized:
    facts: dict[str, object] = {"inserts": 0, "updates": 0, "deletes": 0, **counts}
    if newest is not None:
        facts["last_commit"] = (NOON + timedelta(seconds=newest)).timestamp()
    return Materialized(table=table, step=step, at=NOON + timedelta(seconds=second), metadata=facts)


def checked(table: TableName, *, source: int = 10, lake: int = 10, differing: int = 0, name: str = CONTENT) -> Checked:
    facts = {"source_rows": source, "lake_rows": lake, "differing_rows": differing, "lsn": "0/5BE38A8"}
    passed = source == lake and not differing
    return Checked(table=table, name=name, passed=passed, description=f"what {name} said", metadata=facts)


def run(name: str, *materialized: Materialized, checks: tuple[Checked, ...] = (), seconds: float = 2.0) -> Run:
    return Run(id=name, job="sync", succeeded=True, seconds=seconds, materialized=materialized, checked=checks)


SNAPSHOT = run("1", made(ORDERS, 1, newest=0.5, snapshot_rows=100, inserts=1), made(ITEMS, 1, snapshot_rows=300))
BATCH = run("2", made(ORDERS, 10, newest=8, inserts=3, updates=2, deletes=1), made(ITEMS, 10, newest=9, updates=4))
GOOD = run("3", made(ORDERS, 20, newest=19, updates=5), checks=(checked(ORDERS), checked(ITEMS)), seconds=6.0)
RUNS = (SNAPSHOT, BATCH, GOOD)


def test_changes_are_summed_over_all_runs() -> None:
    report = compose((ORDERS, ITEMS), RUNS, GOOD, workload=WORKLOAD, seconds=50)
    orders = report.tables[ORDERS]
    assert (orders.snapshot_rows, orders.inserts, orders.updates, orders.deletes, orders.batches) == (100, 4, 7, 1, 3)
    assert orders.rows_per_second == pytest.approx(112 / 10)
    assert list(report.tables) == [ITEMS, ORDERS]
    assert report.ok


def test_a_snapshot_that_is_told_of_for_several_hours_is_one() -> None:
    twice = replace(SNAPSHOT, materialized=(*SNAPSHOT.materialized, made(ORDERS, 1, snapshot_rows=100, inserts=2)))
    orders = compose((ORDERS,), (twice, GOOD), GOOD, workload=WORKLOAD, seconds=1).tables[ORDERS]
    assert (orders.snapshot_rows, orders.inserts) == (100, 3)


def test_freshness_is_the_age_of_newest_and_oldest_changes_of_the_micro_batches() -> None:
    tables = compose((ORDERS, ITEMS), RUNS, GOOD, workload=WORKLOAD, seconds=1).tables
    assert tables[ORDERS].freshness == pytest.approx((2, 9.5))
    assert tables[ITEMS].freshness == pytest.approx((1, 9.5))
    without = compose((ORDERS,), (SNAPSHOT, GOOD), GOOD, workload=WORKLOAD, seconds=1).tables
    assert without[ORDERS].freshness is None


@pytest.mark.parametrize(
    ("check", "counts", "content"),
    [
        (checked(ORDERS, lake=9, differing=1), False, False),
        (checked(ORDERS, differing=2), True, False),
        (checked(ORDERS), True, True),
    ],
)
def test_what_the_check_found_is_the_verdict(check: Checked, counts: bool, content: bool) -> None:
    verified = replace(GOOD, checked=(check, checked(ITEMS)))
    report = compose((ORDERS, ITEMS), (SNAPSHOT, verified), verified, workload=WORKLOAD, seconds=1)
    assert (report.tables[ORDERS].counts_equal, report.tables[ORDERS].content_equal) == (counts, content)
    assert report.tables[ITEMS].ok
    assert report.ok == (counts and content)


def test_a_table_that_was_not_compared_is_not_equal() -> None:
    verified = replace(GOOD, checked=(checked(ITEMS),))
    orders = compose((ORDERS, ITEMS), (verified,), verified, workload=WORKLOAD, seconds=1).tables[ORDERS]
    assert not orders.ok
    assert (orders.source_rows, orders.counts_equal, orders.content_equal) == (None, False, False)
    assert orders.failures == ("its contents were not compared",)


def test_a_failed_row_count_alone_is_a_failure() -> None:
    verified = replace(GOOD, checked=(checked(ORDERS), checked(ORDERS, lake=11, name=ROW_COUNT)))
    report = compose((ORDERS,), (verified,), verified, workload=WORKLOAD, seconds=1)
    assert not report.ok
    assert report.tables[ORDERS].failures == ("what row_count_parity said",)


def test_no_tables_are_no_success() -> None:
    assert not compose((), RUNS, GOOD, workload=WORKLOAD, seconds=1).ok


def test_the_document_holds_what_is_promised() -> None:
    report = compose((ORDERS, ITEMS), RUNS, GOOD, workload=WORKLOAD, seconds=50.04)
    document = json.loads(json.dumps(report.to_json()))
    assert document["ok"] is True
    assert set(document["tables"]) == {"public.orders", "public.order_items"}
    promised = {"source_rows": 10, "lake_rows": 10, "counts_equal": True, "content_equal": True, "inserts": 4}
    assert promised.items() <= document["tables"]["public.orders"].items()
    assert document["verified_at_lsn"] == "0/5BE38A8"
    assert document["workload"] == {"committed": 900, "rolled_back": 7}
    assert (document["runs"], document["seconds"]) == (3, 50.0)


def lines_of(verified: Run) -> list[str]:
    out = io.StringIO()
    report = compose((ORDERS, ITEMS), (SNAPSHOT, BATCH, verified), verified, workload=WORKLOAD, seconds=1)
    Console(file=out, width=80).print(shown(report))
    return out.getvalue().splitlines()


def test_people_read_one_line_per_table() -> None:
    lines = lines_of(GOOD)
    assert lines[2].split() == ["public.orders", "10", "equal", "equal", "4", "7", "1", "2–10", "s", "11"]
    assert "Source and lake are equal row by row at position 0/5BE38A8" in lines[4]
    assert "400 rows and 16 changes" in " ".join(lines)


def test_people_read_what_differs() -> None:
    text = "\n".join(lines_of(replace(GOOD, checked=(checked(ORDERS, lake=9, differing=1), checked(ITEMS)))))
    assert "10≠9 DIFFER DIFFER" in text
    assert "public.orders: what content_parity said" in text
    assert "Source and lake are NOT equal" in text
