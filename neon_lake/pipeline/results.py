"""What the verbs did, as values that print and serialise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from neon_lake.change import Lsn
from neon_lake.lifecycle import State
from neon_lake.pipeline.costs import NO_COSTS, Costs
from neon_lake.schema import Relation, TableName
from neon_lake.staging.segment import NO_CHANGES, Counts


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A stretch that was added to the log: nothing when `start` is `end`. `bytes` are those of its segments."""

    start: Lsn
    end: Lsn
    changes: int = 0
    transactions: int = 0
    bytes: int = 0
    manifests: int = 0
    last_commit_at: datetime | None = None

    def __add__(self, later: Captured) -> Captured:
        """This stretch and the one behind it."""
        return Captured(
            start=self.start,
            end=later.end,
            changes=self.changes + later.changes,
            transactions=self.transactions + later.transactions,
            bytes=self.bytes + later.bytes,
            manifests=self.manifests + later.manifests,
            last_commit_at=later.last_commit_at or self.last_commit_at,
        )

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "from": str(self.start),
            "to": str(self.end),
            "changes": self.changes,
            "transactions": self.transactions,
            "bytes": self.bytes,
            "manifests": self.manifests,
        }


@dataclass(frozen=True, kw_only=True)
class TableResult:
    """What a run did to one table.

    `watermark`: everything that commits before it is in the lake. `counts`: the changes read from the log for it, by
    kind; `hours`: the same by hour of commit (UTC). `snapshot_rows`: rows of a snapshot that was applied, else None.
    `error` is the sentence when the table failed, or why it is stale or parked.
    """

    table: TableName
    state: State
    relation: Relation | None = None
    watermark: Lsn | None = None
    first: Lsn | None = None
    counts: Counts = NO_CHANGES
    hours: Mapping[datetime, Counts] = field(default_factory=dict)
    snapshot_rows: int | None = None
    version: int | None = None
    rows: int | None = None
    last_commit_at: datetime | None = None
    incomplete: int = 0
    error: str | None = None
    transient: bool = False

    def then(self, later: TableResult) -> TableResult:
        """This result and that of a later batch of the same table, as one."""
        hours = dict(self.hours)
        for hour, counts in later.hours.items():
            hours[hour] = hours.get(hour, NO_CHANGES) + counts
        known = [position for position in (self.first, later.first) if position is not None]
        return replace(
            later,
            relation=later.relation or self.relation,
            first=min(known) if known else None,
            watermark=self.watermark if later.watermark is None else later.watermark,
            version=self.version if later.version is None else later.version,
            snapshot_rows=self.snapshot_rows if later.snapshot_rows is None else later.snapshot_rows,
            last_commit_at=later.last_commit_at or self.last_commit_at,
            counts=self.counts + later.counts,
            hours=hours,
            incomplete=self.incomplete + later.incomplete,
        )

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong with the table."""
        return self.error is None

    @property
    def moved(self) -> bool:
        """Whether the table's content was written."""
        return self.snapshot_rows is not None or self.counts.total > 0

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "state": self.state.value,
            "watermark": str(self.watermark) if self.watermark is not None else None,
            "inserts": self.counts.inserts,
            "updates": self.counts.updates,
            "deletes": self.counts.deletes,
            "truncates": self.counts.truncates,
            "snapshot_rows": self.snapshot_rows,
            "version": self.version,
            "error": self.error,
        }


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What one micro-batch did."""

    captured: Captured
    tables: Mapping[TableName, TableResult]
    costs: Costs = NO_COSTS

    def then(self, later: Synced) -> Synced:
        """This micro-batch and the one behind it, of all or some of the tables, as one."""
        tables = dict(self.tables)
        for name, result in later.tables.items():
            tables[name] = tables[name].then(result) if name in tables else result
        return Synced(captured=self.captured + later.captured, tables=tables, costs=self.costs + later.costs)

    @property
    def ok(self) -> bool:
        """Whether every table is well."""
        return all(result.ok for result in self.tables.values())

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "captured": self.captured.to_json(),
            "tables": {str(name): result.to_json() for name, result in self.tables.items()},
        } | ({"costs": self.costs.to_json()} if self.costs else {})


@dataclass(frozen=True, kw_only=True)
class RowDifference:
    """A row that is not the same on both sides: its key, and what is wrong with it.

    `kind`: missing (not in the lake), extra (only in the lake), different (in `columns`), or copies (of a table without
    a key: not as often in the lake as at the source).
    """

    key: Mapping[str, Any]
    kind: str
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        key = ", ".join(f"{name}={value}" for name, value in self.key.items())
        where = {
            "missing": "is missing in the lake",
            "extra": "is only in the lake",
            "copies": "is not as often in the lake as at the source",
        }.get(self.kind)
        return f"{key} {where or 'differs in ' + ', '.join(self.columns)}"


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Source against lake for one table, both exactly at `lsn`.

    `content_equal` is None when only rows were counted. `differences` names some of the differing rows;
    `differing` is how many there are (a lower bound when `at_least`).
    """

    table: TableName
    lsn: Lsn
    version: int
    source_rows: int
    lake_rows: int
    content_equal: bool | None = None
    differences: tuple[RowDifference, ...] = ()
    differing: int = 0
    at_least: bool = False

    @property
    def counts_equal(self) -> bool:
        """Whether both sides have the same number of rows."""
        return self.source_rows == self.lake_rows

    @property
    def ok(self) -> bool:
        """Whether everything that was looked at is equal."""
        return self.counts_equal and self.content_equal is not False

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "lsn": str(self.lsn),
            "version": self.version,
            "source_rows": self.source_rows,
            "lake_rows": self.lake_rows,
            "counts_equal": self.counts_equal,
            "content_equal": self.content_equal,
            "differing": self.differing,
            "at_least": self.at_least,
            "differences": [
                {"key": {k: str(v) for k, v in d.key.items()}, "kind": d.kind, "columns": list(d.columns)}
                for d in self.differences
            ],
        }


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The parity of every table that could be compared, and the reason for those that could not.

    `left_out` are those that cannot be compared by their nature.
    """

    synced: Synced
    parity: Mapping[TableName, Parity]
    unchecked: Mapping[TableName, str]
    left_out: Mapping[TableName, str]

    @property
    def ok(self) -> bool:
        """Whether every table was compared and is equal."""
        return not self.unchecked and all(parity.ok for parity in self.parity.values())

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        tables: dict[str, Any] = {str(name): parity.to_json() for name, parity in self.parity.items()}
        tables |= {str(name): {"error": reason} for name, reason in self.unchecked.items()}
        tables |= {str(name): {"left_out": reason} for name, reason in self.left_out.items()}
        return {"tables": tables}


@dataclass(frozen=True, kw_only=True)
class TableStatus:
    """Where one table stands. `lag`: bytes of WAL between its watermark and the checkpoint."""

    table: TableName
    state: State
    watermark: Lsn | None
    lag: int | None
    reason: str | None
    version: int | None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "state": self.state.value,
            "watermark": str(self.watermark) if self.watermark is not None else None,
            "lag_bytes": self.lag,
            "reason": self.reason,
            "version": self.version,
        }


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where the pipeline stands. `lag`: bytes of WAL between the checkpoint and the source's position."""

    pipeline: str
    slot: str
    slot_problem: str | None
    position: Lsn
    checkpoint: Lsn | None
    lag: int | None
    retained: int | None
    last_commit_at: datetime | None
    tables: tuple[TableStatus, ...]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "pipeline": self.pipeline,
            "slot": {"name": self.slot, "problem": self.slot_problem, "retained_bytes": self.retained},
            "position": str(self.position),
            "checkpoint": str(self.checkpoint) if self.checkpoint is not None else None,
            "lag_bytes": self.lag,
            "last_commit_at": self.last_commit_at.isoformat() if self.last_commit_at else None,
            "tables": {str(status.table): status.to_json() for status in self.tables},
        }


@dataclass(frozen=True, kw_only=True)
class Expired:
    """What retention removed: of the log, and files of Delta tables that no recent version needs."""

    manifests: int
    segments: int
    orphans: int
    files: int
    kept_from: Lsn | None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "manifests": self.manifests,
            "segments": self.segments,
            "orphans": self.orphans,
            "files": self.files,
            "kept_from": str(self.kept_from) if self.kept_from is not None else None,
        }
