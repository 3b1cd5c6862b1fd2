"""What the demonstration found: composed from what Dagster recorded of the runs, shown as a table or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from neon_lake.demo.workload import Done
from neon_lake.orchestration.history import Checked, Materialized, Run
from neon_lake.orchestration.names import CONTENT
from neon_lake.schema import TableName


@dataclass(frozen=True, kw_only=True)
class TableReport:
    """One table.

    `source_rows`, `lake_rows`: as the check counted them, at one position of the log; None without a check.
    `snapshot_rows` and the changes are what was written to the lake. `freshness`: seconds from a commit to its row in
    the lake, for the newest change of a micro-batch at best and for its oldest at worst. `rows_per_second`: rows and
    changes, by the time that the runs' steps took. `failures`: what the checks that did not pass said.
    """

    table: TableName
    source_rows: int | None
    lake_rows: int | None
    content_equal: bool
    snapshot_rows: int
    inserts: int
    updates: int
    deletes: int
    batches: int
    freshness: tuple[float, float] | None
    rows_per_second: float
    failures: tuple[str, ...] = ()

    @property
    def counts_equal(self) -> bool:
        """Whether both sides were counted, and have the same number of rows."""
        return self.source_rows is not None and self.source_rows == self.lake_rows

    @property
    def ok(self) -> bool:
        """Whether the table is the same on both sides."""
        return self.counts_equal and self.content_equal and not self.failures

    @property
    def moved(self) -> int:
        """Rows of snapshots, and changes."""
        return self.snapshot_rows + self.inserts + self.updates + self.deletes

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        best, worst = (round(age, 2) for age in self.freshness) if self.freshness else (None, None)
        return {
            "source_rows": self.source_rows,
            "lake_rows": self.lake_rows,
            "counts_equal": self.counts_equal,
            "content_equal": self.content_equal,
            "snapshot_rows": self.snapshot_rows,
            "inserts": self.inserts,
            "updates": self.updates,
            "deletes": self.deletes,
            "micro_batches": self.batches,
            "freshness_best_seconds": best,
            "freshness_worst_seconds": worst,
            "rows_per_second": round(self.rows_per_second),
            "failures": list(self.failures),
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole demonstration: tables by name, what the workload had committed, and how long it all took (seconds).

    `destination`: the kind of the lake. `lsn`: the position of the log at which both sides were compared.
    """

    tables: Mapping[TableName, TableReport]
    workload: Done
    runs: int
    seconds: float
    destination: str = "delta"
    lsn: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every table's counts and content are equal."""
        return bool(self.tables) and all(table.ok for table in self.tables.values())

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "ok": self.ok,
            "destination": self.destination,
            "tables": {str(name): table.to_json() for name, table in self.tables.items()},
            "verified_at_lsn": self.lsn,
            "workload": {"committed": self.workload.committed, "rolled_back": self.workload.rolled_back},
            "runs": self.runs,
            "seconds": round(self.seconds, 1),
        }


def compose(
    tables: Sequence[TableName],
    runs: Sequence[Run],
    verified: Run,
    *,
    workload: Done,
    seconds: float,
    destination: str = "delta",
) -> Report:
    """The report of all runs, of which `verified` compared source and lake."""
    busy = sum(run.seconds for run in runs) or 1.0
    freshness = _freshness([run for run in runs if run.id != verified.id])
    reports = {
        table: _of_table(
            table,
            [made for run in runs for made in run.materialized if made.table == table],
            [check for check in verified.checked if check.table == table],
            freshness.get(table, ()),
            busy,
        )
        for table in sorted(tables)
    }
    positions = {str(check.metadata["lsn"]) for check in verified.checked if check.name == CONTENT}
    return Report(
        tables=reports,
        workload=workload,
        runs=len(runs),
        seconds=seconds,
        destination=destination,
        lsn=positions.pop() if len(positions) == 1 else None,
    )


def changes_of(made: Materialized) -> int:
    """How many changes a materialization brought."""
    return sum(int(made.metadata.get(kind, 0)) for kind in ("inserts", "updates", "deletes"))


def _of_table(
    table: TableName,
    landed: Sequence[Materialized],
    checks: Sequence[Checked],
    freshness: Sequence[tuple[float, float]],
    busy: float,
) -> TableReport:
    def total(name: str) -> int:
        return sum(int(made.metadata.get(name, 0)) for made in landed)

    content = next((check for check in checks if check.name == CONTENT), None)
    failures = [check.description or check.name for check in checks if not check.passed]
    if content is None:
        failures.append("its contents were not compared")
    # Of the materializations of several hours, each tells of the one snapshot.
    snapshot_rows = max((int(made.metadata.get("snapshot_rows", 0)) for made in landed), default=0)
    return TableReport(
        table=table,
        source_rows=int(content.metadata["source_rows"]) if content else None,
        lake_rows=int(content.metadata["lake_rows"]) if content else None,
        content_equal=content is not None and content.metadata.get("differing_rows") == 0,
        snapshot_rows=snapshot_rows,
        inserts=total("inserts"),
        updates=total("updates"),
        deletes=total("deletes"),
        batches=sum(1 for made in landed if changes_of(made)),
        freshness=(min(f[0] for f in freshness), max(f[1] for f in freshness)) if freshness else None,
        rows_per_second=(snapshot_rows + sum(changes_of(made) for made in landed)) / busy,
        failures=tuple(dict.fromkeys(failures)),
    )


def _freshness(runs: Sequence[Run]) -> dict[TableName, list[tuple[float, float]]]:
    """How old each micro-batch's newest and oldest changes were when they were in the lake, in seconds, by table.

    The oldest change of a batch was committed after the newest one of the batch before it, of whatever table.
    """
    found: dict[TableName, list[tuple[float, float]]] = {}
    before: datetime | None = None
    for run in runs:
        commits = [(made, newest) for made in run.materialized if (newest := _newest(made)) is not None]
        if before is not None:
            for made, newest in commits:
                ages = (made.at - newest).total_seconds(), (made.at - before).total_seconds()
                found.setdefault(made.table, []).append(ages)
        before = max((newest for _, newest in commits), default=before)
    return found


def _newest(made: Materialized) -> datetime | None:
    """When the newest change of a materialization was committed; None when it brought none."""
    moment = made.metadata.get("last_commit")
    return datetime.fromtimestamp(float(moment), UTC) if moment is not None and changes_of(made) else None


_COLUMNS: Final = (
    "table", ">rows", "counts", "content", ">inserts", ">updates", ">deletes", ">age", ">rows/s",
)  # fmt: skip


def shown(report: Report) -> Group:
    """The report for people; it fits into 80 columns."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for title in _COLUMNS:
        heading = title.removeprefix(">")
        table.add_column(heading, justify="right" if heading != title else "left", no_wrap=True)
    for name, t in report.tables.items():
        source, lake = ("?" if n is None else f"{n:,}" for n in (t.source_rows, t.lake_rows))
        table.add_row(
            str(name),
            source if source == lake else f"{source}≠{lake}",
            _verdict(t.counts_equal),
            _verdict(t.content_equal),
            *(f"{n:,}" for n in (t.inserts, t.updates, t.deletes)),
            f"{t.freshness[0]:.0f}–{t.freshness[1]:.0f} s" if t.freshness else "",
            f"{t.rows_per_second:,.0f}",
        )
    lines = [Text.assemble((f"{name}: ", "red"), said) for name, t in report.tables.items() for said in t.failures]
    return Group(table, Text(), *lines, _summary(report))


def _verdict(equal: bool) -> Text:
    return Text("equal", "green") if equal else Text("DIFFER", "red")


def _summary(report: Report) -> Text:
    every = report.tables.values()
    snapshot = sum(table.snapshot_rows for table in every)
    changes = sum(table.moved - table.snapshot_rows for table in every)
    done = (
        f"{snapshot:,} rows and {changes:,} changes came into the lake in {report.runs} Dagster runs, "
        f"while {report.workload.committed:,} transactions were committed. Age: from a commit to its row in the lake."
    )
    if report.ok:
        where = f" row by row at position {report.lsn} of the log" if report.lsn else ""
        return Text.assemble(("Source and lake are equal", "bold green"), f"{where}; the workload never paused. ", done)
    return Text.assemble(("Source and lake are NOT equal. ", "bold red"), done)
