"""Delta tables on a local disk, written by delta-rs.

A table's watermark is a `txn` action of the commit that brought it there: app id = pipeline and table, version = LSN.
How many changes it has of what is behind that is another one, which is there only when it is not 0 or was not.
Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#transaction-identifiers
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, QueryBuilder, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from neon_lake.apply.plan import MergePlan
from neon_lake.change import DELETE, DELETED_AT, INSERT, LSN, OP, READ, SEQUENCE, TRUNCATE, Lsn
from neon_lake.destinations.base import Target
from neon_lake.destinations.delta import creation, merging, upkeep
from neon_lake.errors import DestinationConflict, DestinationError, DestinationUnavailable, Finding
from neon_lake.failpoints import failpoint
from neon_lake.schema import TableName

_BALANCE: Final = f"""
WITH emptied AS (SELECT {LSN} AS at, {SEQUENCE} AS place FROM t WHERE {OP} = '{TRUNCATE}'
                  ORDER BY {LSN} DESC, {SEQUENCE} DESC LIMIT 1)
SELECT coalesce(sum(CASE {OP} WHEN '{READ}' THEN 1 WHEN '{INSERT}' THEN 1 WHEN '{DELETE}' THEN -1 ELSE 0 END), 0) AS n
  FROM t LEFT JOIN emptied ON true
 WHERE at IS NULL OR {LSN} > at OR ({LSN} = at AND {SEQUENCE} > place)
"""  # noqa: S608 - names of our own columns alone
"""What the changes in a table come to, after the last TRUNCATE."""

_UNAVAILABLE: Final = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ESTALE,
    }
)
"""Errors of the file system that are not about one table."""


class DeltaDestination:
    """`Destination` in a directory: the table `schema.name` lies at `<root>/<schema>/<name>`."""

    def __init__(self, root: Path, *, pipeline: str) -> None:
        self.root, self.pipeline = root, pipeline

    def path(self, table: TableName) -> str:
        """Where a table lies."""
        return str(self.root / table.path)

    def check(self) -> Finding:
        """See `Destination.check`."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as exc:
            problem = (
                f"The lake at {self.root} cannot be written ({exc.strerror}); "
                "make it writable for this user, or change destination.path."
            )
            return Finding(subject="destination", detail=str(self.root), problem=problem)
        return Finding(subject="destination", detail=f"{self.root} is writable")

    def target(self, table: TableName) -> Target | None:
        """See `Destination.target`."""
        with self._translated(table):
            path = self.path(table)
            return self._target(table, DeltaTable(path)) if DeltaTable.is_deltatable(path) else None

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
        """See `Destination.replace`."""
        with self._translated(table):
            reader = pa.RecordBatchReader.from_batches(schema, rows)
            properties = self._watermark(table, watermark, was=old.within if old else 0)
            failpoint("apply.before-commit")
            if old is None:
                creation.create(Path(self.path(table)), reader, properties)
            else:
                write_deltalake(
                    self._expected(old),
                    reader,
                    mode="append" if keep else "overwrite",
                    schema_mode="merge" if keep else "overwrite",
                    commit_properties=properties,
                )
            failpoint("apply.after-commit")
            return self._target(table, DeltaTable(self.path(table)))

    def merge(self, old: Target, schema: pa.Schema, plan: MergePlan, watermark: Lsn, within: int = 0) -> Target:
        """See `Destination.merge`."""
        with self._translated(old.table):
            delta = self._expected(old)
            if old.watermark is not None and watermark < old.watermark:
                raise DestinationConflict(
                    f"{old.table} is at {old.watermark} already, past {watermark}; run this again."
                )
            if merging.widened(delta, schema, plan):
                failpoint("apply.columns-added")
                delta = self._expected(old)
            properties = self._watermark(old.table, watermark, within, was=old.within)
            version = delta.version()
            failpoint("apply.before-commit")
            merging.commit(delta, schema, plan, properties)
            if DeltaTable(self.path(old.table)).version() == version:
                # delta-rs makes no commit of a merge that finds nothing to do
                failpoint("apply.watermark-alone")
                delta.create_write_transaction([], "append", delta.schema(), commit_properties=properties)
            failpoint("apply.after-commit")
            delta = DeltaTable(self.path(old.table))
            upkeep.join_small_files(delta)
            return self._target(old.table, delta)

    def annotate(self, target: Target, column: str, metadata: Mapping[bytes, str]) -> Target:
        """See `Destination.annotate`."""
        with self._translated(target.table):
            delta = DeltaTable(self.path(target.table))
            failpoint("apply.before-annotation")
            delta.alter.set_column_metadata(column, {key.decode(): value for key, value in metadata.items()})
            return self._target(target.table, DeltaTable(self.path(target.table)))

    def lookup(self, target: Target, keys: pa.Table, columns: Sequence[str]) -> pa.Table:
        """See `Destination.lookup`. Reads the files whose key range meets that of `keys`, batch by batch."""
        names = keys.column_names
        present = [name for name in columns if name in target.schema.names]
        schema = pa.schema([target.schema.field(name) for name in [*names, *present]])
        bounds = pc.min_max(keys[names[0]].combine_chunks())
        first = pc.field(names[0])
        with self._translated(target.table):
            data = self._open(target).to_pyarrow_dataset()
            within = (first >= bounds["min"]) & (first <= bounds["max"])
            # Files that a merge wrote hold views of text and bytes, which Arrow compares with nothing: there the range
            # chooses files, by their statistics, and no rows.
            viewed = pa.types.is_string(schema.types[0]) or pa.types.is_binary(schema.types[0])
            # the statistics know nothing of NaN
            floating = pa.types.is_floating(schema.types[0])
            rows = None if viewed or floating else within
            files = data.get_fragments(filter=None if floating else within)
            # by the table's schema: a file has views, and lacks columns that are younger than it is
            batches = (
                b for file in files for b in file.to_batches(schema=data.schema, columns=schema.names, filter=rows)
            )
            found = [_with_keys(pa.table(batch).cast(schema), keys) for batch in batches if batch.num_rows]
        table = pa.concat_tables([schema.empty_table(), *found])
        for name in columns:
            if name not in present:
                table = table.append_column(name, pa.nulls(len(table)))
        return table

    def remove_old_files(self, target: Target) -> int:
        """See `Destination.remove_old_files`."""
        with self._translated(target.table):
            removed = upkeep.remove_old_files(DeltaTable(self.path(target.table)))
            removed += creation.sweep(Path(self.path(target.table)).parent)
            failpoint("expire.files-removed")
            return removed

    def count(self, target: Target) -> int:
        """See `Destination.count`."""
        statement = "SELECT count(*) AS n FROM t"
        if DELETED_AT in target.schema.names:
            statement += f" WHERE {DELETED_AT} IS NULL"
        if OP in target.schema.names:
            statement = _BALANCE
        with self._translated(target.table):
            return int(next(iter(self._query(target, statement)))["n"][0].as_py())

    def read(self, target: Target, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Destination.read`."""
        wanted = ", ".join(merging.quoted(name) for name in columns)
        alive = f"WHERE {merging.quoted(DELETED_AT)} IS NULL" if DELETED_AT in target.schema.names else ""
        schema = pa.schema([target.schema.field(name) for name in columns])
        with self._translated(target.table):
            for batch in self._query(target, f"SELECT {wanted} FROM t {alive}"):  # noqa: S608 - quoted names
                yield batch.cast(schema)

    def _query(self, target: Target, sql: str) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_stream(QueryBuilder().register("t", self._open(target)).execute(sql))

    def _open(self, target: Target) -> DeltaTable:
        return DeltaTable(self.path(target.table), version=target.version)

    def _expected(self, old: Target) -> DeltaTable:
        """The newest version, which must stand where `old` stood; another writer's upkeep does not matter."""
        delta = DeltaTable(self.path(old.table))
        current = self._target(old.table, delta)
        if (current.watermark, current.within) != (old.watermark, old.within):
            raise DestinationConflict(
                f"Another run has brought {old.table} to {current.watermark} while this one was at {old.watermark}; "
                "nothing was written; run this again."
            )
        return delta

    def _app(self, table: TableName) -> str:
        return f"neon_lake:{self.pipeline}:{table}"

    def _watermark(self, table: TableName, lsn: Lsn, within: int = 0, *, was: int = 0) -> CommitProperties:
        transactions = [Transaction(self._app(table), int(lsn))]
        if within or was:
            transactions.append(Transaction(f"{self._app(table)}:within", within))
        return CommitProperties(app_transactions=transactions, custom_metadata={"neon_lake.watermark": str(lsn)})

    def _target(self, table: TableName, delta: DeltaTable) -> Target:
        version = delta.transaction_version(self._app(table))
        return Target(
            table=table,
            version=delta.version(),
            schema=pa.schema(delta.schema().to_arrow()),
            watermark=None if version is None else Lsn(version),
            within=delta.transaction_version(f"{self._app(table)}:within") or 0,
        )

    @contextmanager
    def _translated(self, table: TableName) -> Iterator[None]:
        try:
            yield
        except (OSError, DeltaError) as exc:
            if trouble := _trouble(exc):
                raise DestinationUnavailable(
                    f"The Delta table {self.path(table)} cannot be used ({trouble}); "
                    "make it readable and writable for this user, or make room."
                ) from exc
            if isinstance(exc, CommitFailedError):
                raise DestinationConflict(
                    f"Another writer committed to {self.path(table)} at the same time; nothing was written; "
                    "run this again."
                ) from exc
            said = " ".join(str(exc).split())
            raise DestinationError(f"The Delta table {self.path(table)} cannot be used: {said}") from exc


def _trouble(exc: Exception) -> str | None:
    """What the file system says, when it is about all of its files; delta-rs has its number only in the text."""
    if isinstance(exc, OSError) and exc.errno:
        return exc.strerror
    found = re.search(r"os error (\d+)|code: (\d+)", str(exc))
    number = int(found[1] or found[2]) if found else 0
    if number in _UNAVAILABLE:
        return os.strerror(number)
    # a file of the table that is gone is the table's own fault; any other word of the system's is not
    return " ".join(str(exc).split()) if isinstance(exc, OSError) and number != errno.ENOENT else None


def _with_keys(rows: pa.Table, keys: pa.Table) -> pa.Table:
    """The rows whose key is in `keys`. Only the key is joined: Arrow joins no lists."""
    places = rows.select(keys.column_names).append_column("place", pa.array(np.arange(len(rows))))
    return rows.take(places.join(keys, keys.column_names, join_type="left semi")["place"])
