"""Delta tables on a local disk or in an object store, written by delta-rs.

A table's watermark is a `txn` action of the commit that brought it there: app id = pipeline and table, version = LSN.
How many changes it has of what is behind that is another one, which is there only when it is not 0 or was not.
Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#transaction-identifiers
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, QueryBuilder, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from neon_lake.apply.plan import MergePlan, nothing
from neon_lake.change import DELETED_AT, OP, Lsn
from neon_lake.destinations.balance import BALANCE
from neon_lake.destinations.base import Target
from neon_lake.destinations.delta import merging, upkeep
from neon_lake.destinations.delta.places import LocalPlace, Place
from neon_lake.errors import DestinationConflict, DestinationError, DestinationUnavailable, Finding
from neon_lake.failpoints import failpoint
from neon_lake.schema import TableName


class DeltaDestination:
    """`Destination` below a directory, or a URL of an object store: `schema.name` lies at `<root>/<schema>/<name>`.

    `options` are the object store's; wrong ones are refused at once, with `ConfigError`.
    """

    def __init__(self, root: Path | str, *, pipeline: str, options: Mapping[str, str] | None = None) -> None:
        self.pipeline = pipeline
        self._place: Place = LocalPlace(root) if isinstance(root, Path) else _in_a_store(root, options or {})

    def path(self, table: TableName) -> str:
        """Where a table lies."""
        return self._place.path(table)

    def check(self) -> Finding:
        """See `Destination.check`."""
        return self._place.check()

    def inspect(self) -> Sequence[Finding]:
        """See `Destination.inspect`."""
        return (self.check(),)

    def rehearse(self, tables: Sequence[TableName], *, start: bool) -> Sequence[Finding]:  # noqa: ARG002
        """See `Destination.rehearse`. `check` has tried it."""
        return ()

    def target(self, table: TableName) -> Target | None:
        """See `Destination.target`."""
        with self._translated(table):
            delta = self._place.find(table)
            return None if delta is None else self._target(table, delta)

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
                self._place.create(table, reader, properties)
            else:
                write_deltalake(
                    self._expected(old),
                    reader,
                    mode="append" if keep else "overwrite",
                    schema_mode="merge" if keep else "overwrite",
                    commit_properties=properties,
                )
            failpoint("apply.after-commit")
            return self._target(table, self._place.open(table))

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
            if self._place.open(old.table).version() == version:
                # delta-rs makes no commit of a merge that finds nothing to do
                failpoint("apply.watermark-alone")
                delta.create_write_transaction([], "append", delta.schema(), commit_properties=properties)
            failpoint("apply.after-commit")
            delta = self._place.open(old.table)
            upkeep.join_small_files(delta)
            return self._target(old.table, delta)

    def advance(self, old: Target, schema: pa.Schema, watermark: Lsn) -> Target:
        """See `Destination.advance`."""
        return self.merge(old, schema, nothing(schema), watermark)

    def annotate(self, target: Target, column: str, metadata: Mapping[bytes, str]) -> Target:
        """See `Destination.annotate`."""
        with self._translated(target.table):
            delta = self._place.open(target.table)
            failpoint("apply.before-annotation")
            delta.alter.set_column_metadata(column, {key.decode(): value for key, value in metadata.items()})
            return self._target(target.table, self._place.open(target.table))

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
            removed = upkeep.remove_old_files(self._place.open(target.table))
            removed += self._place.sweep(target.table)
            failpoint("expire.files-removed")
            return removed

    def count(self, target: Target) -> int:
        """See `Destination.count`."""
        statement = "SELECT count(*) AS n FROM t"
        if DELETED_AT in target.schema.names:
            statement += f" WHERE {DELETED_AT} IS NULL"
        if OP in target.schema.names:
            statement = BALANCE.format(table="t")
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
        return self._place.open(target.table, target.version)

    def _expected(self, old: Target) -> DeltaTable:
        """The newest version, which must stand where `old` stood; another writer's upkeep does not matter."""
        delta = self._place.open(old.table)
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
        except self._place.errors as exc:
            cause = None if self._place.secretive else exc
            if trouble := self._place.trouble(exc):
                raise DestinationUnavailable(
                    f"The Delta table {self.path(table)} cannot be used ({trouble}); {self._place.remedy}."
                ) from cause
            if isinstance(exc, CommitFailedError):
                raise DestinationConflict(
                    f"Another writer committed to {self.path(table)} at the same time; nothing was written; "
                    "run this again."
                ) from cause
            raise DestinationError(
                f"The Delta table {self.path(table)} cannot be used: {self._place.said(exc)}"
            ) from cause


def _in_a_store(url: str, options: Mapping[str, str]) -> Place:
    # only who has an object store loads its client
    from neon_lake.destinations.delta.object_place import ObjectPlace  # noqa: PLC0415

    return ObjectPlace(url, options)


def _with_keys(rows: pa.Table, keys: pa.Table) -> pa.Table:
    """The rows whose key is in `keys`. Only the key is joined: Arrow joins no lists."""
    places = rows.select(keys.column_names).append_column("place", pa.array(np.arange(len(rows))))
    return rows.take(places.join(keys, keys.column_names, join_type="left semi")["place"])
