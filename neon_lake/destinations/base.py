"""What the pipeline asks of a lake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from neon_lake.apply.plan import MergePlan
from neon_lake.change import Lsn
from neon_lake.errors import Finding
from neon_lake.schema import KEY, TableName


@dataclass(frozen=True, kw_only=True)
class Target:
    """One version of a target table: what it holds, and how far the log is applied to it.

    `schema` has the field metadata that names each column's source type (`neon_lake.schema.SOURCE_TYPE`).
    `watermark` is None for a table that this pipeline has never written; otherwise the table has every change that
    commits before it. Of those at or behind it, it has the first `within`: only while one transaction is applied that
    is larger than memory is that more than none.
    """

    table: TableName
    version: int
    schema: pa.Schema
    watermark: Lsn | None
    within: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the columns that the table is merged by."""
        return tuple(f.name for f in self.schema if f.metadata and KEY in f.metadata)


class Destination(Protocol):
    """A set of Delta tables. Every method may raise `DestinationUnavailable`; every commit `DestinationConflict`.

    A commit carries the watermark that it brings the table to. It fails with `DestinationConflict`, having done
    nothing, when the table is not where it was, or a merge would bring the watermark back.
    """

    def check(self) -> Finding:
        """Whether tables can be written and read here."""
        ...

    def target(self, table: TableName) -> Target | None:
        """The newest version of a table, or None when there is none."""
        ...

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

        A plan that changes nothing still moves the watermark.
        """
        ...

    def annotate(self, target: Target, column: str, metadata: Mapping[bytes, str]) -> Target:
        """Add to the field metadata of a column; rows and watermark stay."""
        ...

    def lookup(self, target: Target, keys: pa.Table, columns: Sequence[str]) -> pa.Table:
        """The rows whose key is in `keys`: key columns and those of `columns` that the table has (others null)."""
        ...

    def remove_old_files(self, target: Target) -> int:
        """Delete the files that only versions older than the table's own retention need; gives how many.

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
