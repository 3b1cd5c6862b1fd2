"""What the pipeline asks of a lake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

import pyarrow as pa

from neon_lake.apply.plan import MergePlan
from neon_lake.apply.staged import StagedChanges, StagedSnapshot
from neon_lake.change import Lsn
from neon_lake.errors import Finding
from neon_lake.schema import KEY, TableName


@dataclass(frozen=True, kw_only=True)
class Target:
    """One version of a target table: what it holds, and how far the log is applied to it.

    `schema` has the field metadata that names each column's source type (`neon_lake.schema.SOURCE_TYPE`).
    `watermark` is None for a table that this pipeline has never written; otherwise the table has every change that
    commits before it. Of those at or behind it, it has the first `within`: only while one transaction is applied that
    is larger than memory is that more than none. `pending`: a batch up to there was begun, and perhaps carried out; it
    has to be carried out again just so, before anything else.
    """

    table: TableName
    version: int
    schema: pa.Schema
    watermark: Lsn | None
    within: int = 0
    pending: Lsn | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the columns that the table is merged by."""
        return tuple(f.name for f in self.schema if f.metadata and KEY in f.metadata)


class Destination(Protocol):
    """A set of Delta tables, as far as it does not matter who computes what becomes of them.

    Every method may raise `DestinationUnavailable`; every one that writes `DestinationConflict`: when the table is not
    where it was, having done nothing.
    """

    def check(self) -> Finding:
        """Whether tables can be written and read here: what can be said quickly."""
        ...

    def inspect(self) -> Sequence[Finding]:
        """Everything that writing and reading tables here needs, piece by piece."""
        ...

    def rehearse(self, tables: Sequence[TableName], *, start: bool) -> Sequence[Finding]:
        """Try what writing these tables takes, where looking does not tell; `start`: also what costs money to start."""
        ...

    def target(self, table: TableName) -> Target | None:
        """The newest version of a table, or None when there is none."""
        ...

    def advance(self, old: Target, schema: pa.Schema, watermark: Lsn) -> Target:
        """Add the columns of `schema` that the table lacks, null in its rows, and move the watermark on."""
        ...

    def annotate(self, target: Target, column: str, metadata: Mapping[bytes, str]) -> Target:
        """Add to the field metadata of a column; rows and watermark stay."""
        ...

    def remove_old_files(self, target: Target) -> int:
        """Delete the files that only versions older than the table's own retention need; gives how many, if known.

        Those of runs that died while they made a table go too.
        """
        ...

    def count(self, target: Target) -> int:
        """How many rows the table has; soft-deleted ones are not counted.

        Of a table that has every change as a row: how many rows these changes come to.
        """
        ...

    def read(self, target: Target, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows, without soft-deleted ones, in batches of bounded size."""
        ...


class Lake(Destination, Protocol):
    """Delta tables that this process writes. A commit carries the watermark that it brings the table to."""

    def replace(
        self,
        table: TableName,
        old: Target | None,
        schema: pa.Schema,
        rows: Iterator[pa.RecordBatch],
        watermark: Lsn,
        *,
        keep: bool = False,
    ) -> Target:
        """Swap the whole content, and the schema, for `rows`: readers see the old table until it is done.

        With `keep`, the rows are put to those that are there, and columns of `schema` that the table lacks are added.
        What no longer counts then does not count, so this watermark alone may be lower than the old one.
        """
        ...

    def merge(self, old: Target, schema: pa.Schema, plan: MergePlan, watermark: Lsn, within: int = 0) -> Target:
        """Do what the plan says; columns of `schema` that the table lacks are added, null in its older rows.

        A plan that changes nothing still moves the watermark. Raises `DestinationConflict` when a merge would bring
        the watermark back.
        """
        ...

    def lookup(self, target: Target, keys: pa.Table, columns: Sequence[str]) -> pa.Table:
        """The rows whose key is in `keys`: key columns and those of `columns` that the table has (others null)."""
        ...


@runtime_checkable
class Warehouse(Destination, Protocol):
    """Delta tables that an engine writes, from the files of the change log.

    What it is asked may have been carried out before, by a run that did not live to hear of it: then nothing changes.
    Raises `ResyncNeeded` when only a new snapshot can make a table right.
    """

    def load(self, old: Target | None, schema: pa.Schema, snapshot: StagedSnapshot) -> Target:
        """Make the table what the snapshot is; readers see the old one until it is done. See `Lake.replace`.

        With soft deletes and `snapshot.keep`, rows of an old table that the snapshot lacks stay, marked as deleted.
        """
        ...

    def carry_out(self, old: Target, schema: pa.Schema, changes: StagedChanges) -> Target:
        """Apply changes, and bring the watermark to their end. Columns of `schema` that the table lacks are added."""
        ...

    def repair(self, old: Target, changes: StagedChanges, before: datetime | None) -> Target:
        """Give the keys of changes that were applied before the state that they have after them.

        With `before`, only keys that a change committed before then speaks of.
        """
        ...
