"""`Warehouse` in Unity Catalog: Delta tables that a SQL warehouse writes from what is staged on a volume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from neon_lake.apply.delta_types import delta_type
from neon_lake.apply.staged import StagedChanges, StagedSnapshot
from neon_lake.change import DELETED_AT, OP, Lsn
from neon_lake.config import DatabricksConfig, Pipeline
from neon_lake.destinations.balance import BALANCE
from neon_lake.destinations.base import Target
from neon_lake.destinations.databricks import history, loads
from neon_lake.destinations.databricks.changes import INCOMPLETE, UNFIT_KEY
from neon_lake.destinations.databricks.inspection import Inspection
from neon_lake.destinations.databricks.ledger import LOAD, MERGE, NOTE, REPAIR, Entry, Intent, Ledger, Shelf
from neon_lake.destinations.databricks.loads import Load
from neon_lake.destinations.databricks.merges import merge, repair
from neon_lake.destinations.databricks.namespace import make_schema, refuse_foreign
from neon_lake.destinations.databricks.rehearsal import rehearse
from neon_lake.destinations.databricks.sql import file, quoted
from neon_lake.errors import DestinationConflict, Finding, ResyncNeeded, TableRefused
from neon_lake.failpoints import failpoint
from neon_lake.schema import TableName
from neon_lake.workspace.statements import StatementFailed, Usage, Warehouse

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


_GONE: Final = frozenset({"TABLE_OR_VIEW_NOT_FOUND", "DELTA_TABLE_NOT_FOUND", "DELTA_PATH_DOES_NOT_EXIST"})
_THERE_ALREADY: Final = "ALREADY_EXISTS"
_DRESSINGS: Final = 3
"""How often a new table gets its key: another run that loads the same snapshot may put its own in between."""


class DatabricksDestination:
    """`Warehouse` in a workspace: the table `schema.name` is `<catalog>.<schema>.<name>`, as the pipeline file maps it.

    `shelf` is where staging lies, at `root` for the warehouse; the ledger lies there too.
    """

    def __init__(self, client: WorkspaceClient, pipeline: Pipeline, shelf: Shelf, *, warehouse: Warehouse) -> None:
        assert isinstance(pipeline.destination, DatabricksConfig)
        self._client, self._pipeline, self._config = client, pipeline, pipeline.destination
        self._root = pipeline.staging.path
        self._shelf, self._ledger, self._warehouse = shelf, Ledger(shelf), warehouse

    # --- names

    def name(self, table: TableName) -> str:
        """The full name of a table in Unity Catalog, without quotes."""
        return ".".join(self._parts(table))

    def _parts(self, table: TableName) -> tuple[str, str, str]:
        name = self._pipeline.unity_name(table)
        assert name is not None, "the destination is in Unity Catalog"
        return name

    def _sql(self, table: TableName) -> str:
        return quoted(*self._parts(table))

    @property
    def usage(self) -> Usage:
        """What the warehouse has done so far."""
        return self._warehouse.usage

    # --- looking

    def check(self) -> Finding:
        """See `Destination.check`. Does not start the warehouse."""
        return next((found for found in self.inspect() if found.problem), Finding(subject="destination", detail="ok"))

    def inspect(self) -> Sequence[Finding]:
        """See `Destination.inspect`. Does not start the warehouse."""
        return Inspection(self._client, self._config, self._root).findings()

    def rehearse(self, tables: Sequence[TableName], *, start: bool) -> Sequence[Finding]:
        """See `Destination.rehearse`. Asks the warehouse when it runs, or is to be started."""
        schemas = list(dict.fromkeys(self._parts(table)[:2] for table in tables))
        return rehearse(self._client, self._warehouse, self._shelf, self._root, schemas, start=start)

    def target(self, table: TableName) -> Target | None:
        """See `Destination.target`. Asks the ledger, and not the warehouse."""
        entry, intent = self._ledger.newest(table)
        if entry is None or entry.watermark is None or entry.schema is None:
            return None
        pending = intent.until if intent and intent.kind == MERGE else None
        return Target(
            table=table, version=entry.version, schema=entry.schema, watermark=entry.watermark, pending=pending
        )

    # --- writing

    def load(self, old: Target | None, schema: pa.Schema, snapshot: StagedSnapshot) -> Target:
        """See `Warehouse.load`."""
        table = snapshot.relation.table
        loads.refuse_twins(snapshot)
        entry, intent = self._ledger.newest(table)
        if entry is None or entry.watermark is None:
            catalog, namespace, _ = self._parts(table)
            make_schema(self._client, catalog, namespace)
            refuse_foreign(self._client, self.name(table), self._pipeline.name, table)
            entry = entry or self._ledger.originate(table)
        wanted = Intent(kind=LOAD, until=snapshot.lsn)
        if intent is not None and intent != wanted:
            # what was begun by a run that died is not to come after this
            if intent.kind == LOAD:
                self._run(table, f"DROP TABLE IF EXISTS {self._side(table, entry, intent.until)}")
            entry, intent = self._ledger.finish(table, entry, entry), None
        if intent is None:
            self._ledger.begin(table, entry, wanted)
        failpoint("apply.before-commit")
        with self._unless_overtaken(table, entry):
            self._load(old, schema, snapshot, entry)
        failpoint("apply.after-commit")
        # whatever others did before, the snapshot has taken the place of
        self._ledger.finish(table, entry, self._entry(self._history(table), schema, snapshot.lsn))
        return self._found(table)

    def _load(self, old: Target | None, schema: pa.Schema, snapshot: StagedSnapshot, entry: Entry) -> None:
        table = snapshot.relation.table
        of = Load(
            table=self._sql(table), snapshot=snapshot, schema=schema, root=self._root, fence=self._fence(table, entry)
        )
        if not (snapshot.keep and old is not None and self._ours(table, entry)):
            old = None
        if old is not None and OP in schema.names:
            self._widen(old, schema)
            self._run(table, of.append())
            return
        kept = old.schema if old is not None else None
        name = self._parts(table)[-1]
        options = loads.options(snapshot.relation, self._pipeline)
        groups = loads.groups(snapshot.files)
        if len(groups) <= 1:
            self._run(table, of.create(options, kept=kept))
        else:
            side = self._side(table, entry, snapshot.lsn)
            self._run(table, of.create_side(side))
            failpoint("load.side-made")
            for part, files in enumerate(groups):
                self._run(table, of.fill_side(side, part, files))
                failpoint("load.group-loaded")
            self._run(table, of.create(options, side, kept))
            failpoint("load.made")
            self._run(table, f"DROP TABLE IF EXISTS {side}")
        self._dress(table, loads.dressing(self._sql(table), name, snapshot))

    def _dress(self, table: TableName, statements: Sequence[str]) -> None:
        for attempt in range(_DRESSINGS):
            try:
                for statement in statements:
                    self._run_unless_there(table, statement)
            except StatementFailed:
                if attempt == _DRESSINGS - 1:
                    raise
            else:
                return

    def carry_out(self, old: Target, schema: pa.Schema, changes: StagedChanges) -> Target:
        """See `Warehouse.carry_out`."""
        table = old.table
        if changes.until < (old.watermark or 0):
            raise DestinationConflict(f"{table} is at {old.watermark} already, past {changes.until}; run this again.")
        entry = self._begun(old, Intent(kind=MERGE, until=changes.until))
        with self._unless_foreign(table, entry):
            if self._widen(old, schema):
                failpoint("apply.columns-added")
            failpoint("apply.before-commit")
            self._run(table, merge(self._sql(table), changes, root=self._root, fence=self._fence(table, entry)))
        failpoint("apply.after-commit")
        return self._stands(table, entry, schema, changes.until)

    def repair(self, old: Target, changes: StagedChanges, before: datetime | None) -> Target:
        """See `Warehouse.repair`."""
        table = old.table
        assert old.watermark is not None
        entry = self._begun(old, Intent(kind=REPAIR, until=old.watermark))
        fence = self._fence(table, entry)
        failpoint("apply.before-commit")
        with self._unless_foreign(table, entry):
            self._run(table, repair(self._sql(table), changes, root=self._root, fence=fence, before=before))
        failpoint("apply.after-commit")
        return self._stands(table, entry, old.schema, old.watermark, merges=None)

    def advance(self, old: Target, schema: pa.Schema, watermark: Lsn) -> Target:
        """See `Destination.advance`. Asks the warehouse only when columns are to be added."""
        if old.watermark is not None and watermark < old.watermark:
            raise DestinationConflict(f"{old.table} is at {old.watermark} already, past {watermark}; run this again.")
        entry = self._begun(old, Intent(kind=NOTE, until=watermark))
        with self._unless_foreign(old.table, entry):
            widened = self._widen(old, schema)
        if widened:
            failpoint("apply.columns-added")
            return self._stands(old.table, entry, schema, watermark, merges=0)
        failpoint("apply.watermark-alone")
        self._ledger.finish(old.table, entry, replace(entry, watermark=watermark))
        return self._found(old.table)

    def annotate(self, target: Target, column: str, metadata: Mapping[bytes, str]) -> Target:
        """See `Destination.annotate`."""
        assert target.watermark is not None
        entry = self._begun(target, Intent(kind=NOTE, until=target.watermark))
        assert entry.schema is not None
        place = entry.schema.get_field_index(column)
        field = entry.schema.field(place)
        noted = field.with_metadata({**(field.metadata or {}), **{k: v.encode() for k, v in metadata.items()}})
        failpoint("apply.before-annotation")
        self._ledger.finish(target.table, entry, replace(entry, schema=entry.schema.set(place, noted)))
        return self._found(target.table)

    def remove_old_files(self, target: Target) -> int:
        """See `Destination.remove_old_files`. How many files it were, Databricks tells in the table's history alone."""
        self._run(target.table, f"VACUUM {self._sql(target.table)}")
        self._ledger.sweep(target.table)
        failpoint("expire.files-removed")
        return 0

    # --- reading

    def count(self, target: Target) -> int:
        """See `Destination.count`."""
        counted = f"SELECT count(*) AS n FROM {self._version(target)}"
        if DELETED_AT in target.schema.names:
            counted += f" WHERE {DELETED_AT} IS NULL"
        if OP in target.schema.names:
            counted = BALANCE.format(table=self._version(target))
        with self._told(target.table):
            return int(self._warehouse.rows(counted, str(target.table))["n"][0].as_py())

    def read(self, target: Target, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Destination.read`."""
        alive = f" WHERE {DELETED_AT} IS NULL" if DELETED_AT in target.schema.names else ""
        wanted = ", ".join(f"{quoted(name)} AS c{place}" for place, name in enumerate(columns))
        schema = pa.schema([target.schema.field(name) for name in columns])
        with self._told(target.table):
            for batch in self._warehouse.batches(
                f"SELECT {wanted} FROM {self._version(target)}{alive}", str(target.table)
            ):
                if batch.num_rows:
                    yield batch.rename_columns(list(columns)).cast(schema)

    def _version(self, target: Target) -> str:
        """The table as it is now, or, when another run has moved it on since, as it was then."""
        entry, _ = self._ledger.newest(target.table)
        version = target.version
        if entry is not None and entry.version == target.version:
            # what others have done to the rows since is to be seen
            version = self._history(target.table)[0].version
        return f"{self._sql(target.table)} VERSION AS OF {version}"

    # --- steps

    def _begun(self, old: Target, wanted: Intent) -> Entry:
        """Begin to bring a table on from where the caller saw it, or go on with what was begun just so; the entry.

        Raises `DestinationConflict` when another run is at it. A note or a repair of a run that died is given up: what
        was begun for it can come no more when its entry has gone. Raises `ResyncNeeded` when others have written where
        a repair was begun.
        """
        table = old.table
        entry, intent = self._ledger.newest(table)
        if entry is None or entry.watermark != old.watermark:
            there = entry.watermark if entry else "nothing"
            raise DestinationConflict(
                f"Another run has brought {table} to {there} while this one was at {old.watermark}; run this again."
            )
        if intent is not None and intent.kind in (NOTE, REPAIR):
            version = entry.version
            if intent.kind == REPAIR:
                version = self._own_history(table, entry, merges=None)[0].version
            entry, intent = self._ledger.finish(table, entry, replace(entry, version=version)), None
        if intent is None:
            self._ledger.begin(table, entry, wanted)
        elif intent != wanted or old.pending is None:
            raise DestinationConflict(f"Another run is bringing {table} to {intent.until}; run this again.")
        return entry

    def _stands(
        self, table: TableName, entry: Entry, schema: pa.Schema, watermark: Lsn, *, merges: int | None = 1
    ) -> Target:
        """Note in the ledger that a table was brought on. Raises `ResyncNeeded` when others have written it too."""
        found = self._own_history(table, entry, merges=merges)
        self._ledger.finish(table, entry, self._entry(found, schema, watermark))
        return self._found(table)

    def _own_history(self, table: TableName, entry: Entry, *, merges: int | None) -> Sequence[history.Change]:
        """A table's history. Raises `ResyncNeeded` when others have written it since the entry."""
        found = self._history(table)
        if other := history.foreign(found, entry.version, merges=merges):
            raise ResyncNeeded(f"{self.name(table)} was changed by somebody else: {other.told}.")
        return found

    @contextmanager
    def _unless_foreign(self, table: TableName, entry: Entry) -> Iterator[None]:
        """Raise `ResyncNeeded` for a statement that failed on a table that others have written."""
        try:
            with self._unless_overtaken(table, entry):
                yield
        except StatementFailed:
            self._own_history(table, entry, merges=None)
            raise

    @contextmanager
    def _unless_overtaken(self, table: TableName, entry: Entry) -> Iterator[None]:
        """Raise `DestinationConflict` for a statement that failed on a table that another run has brought on.

        How a statement fails whose entry goes while it is looked at is up to the moment.
        """
        try:
            yield
        except (StatementFailed, ResyncNeeded) as exc:
            now, _ = self._ledger.newest(table, fresh=True)
            if now is None or now.number != entry.number:
                raise DestinationConflict(f"Another run has brought {table} on meanwhile; run this again.") from exc
            raise

    def _ours(self, table: TableName, entry: Entry) -> bool:
        """Whether the table is there, and none was put in its place."""
        try:
            return not history.replaced(self._history(table), entry.version)
        except ResyncNeeded:
            return False

    def _entry(self, found: Sequence[history.Change], schema: pa.Schema, watermark: Lsn) -> Entry:
        return Entry(number=0, watermark=watermark, version=found[0].version, schema=schema)

    def _found(self, table: TableName) -> Target:
        target = self.target(table)
        assert target is not None, "it was just written to the ledger"
        return target

    def _history(self, table: TableName) -> Sequence[history.Change]:
        with self._told(table):
            sql = f"DESCRIBE HISTORY {self._sql(table)} LIMIT {history.MOST}"
            return history.changes(self._warehouse.rows(sql, str(table)))

    def _widen(self, old: Target, schema: pa.Schema) -> bool:
        """Add the columns that a table lacks."""
        added = [field for field in schema if field.name not in old.schema.names]
        for field in added:
            column = f"{quoted(field.name)} {delta_type(field.type)}"
            self._run_unless_there(old.table, f"ALTER TABLE {self._sql(old.table)} ADD COLUMNS ({column})")
        return bool(added)

    def _side(self, table: TableName, entry: Entry, lsn: Lsn) -> str:
        """The table that a snapshot is loaded into group by group, beside the one whose place it is to take."""
        catalog, schema, name = self._parts(table)
        return quoted(catalog, schema, f"{name}__neon_lake_{entry.number:08d}_{lsn.hex}")

    def _fence(self, table: TableName, entry: Entry) -> str:
        path = file("json", f"{self._root}/{self._ledger.path(table, entry)}")
        return f"EXISTS (SELECT 1 FROM {path} WHERE entry = {entry.number})"

    def _run(self, table: TableName, sql: str) -> Mapping[str, int]:
        with self._told(table):
            return self._warehouse.run(sql, str(table))

    def _run_unless_there(self, table: TableName, sql: str) -> None:
        """A statement that makes what a former run may have made."""
        try:
            self._run(table, sql)
        except StatementFailed as exc:
            if _THERE_ALREADY not in exc.error_class:
                raise

    @contextmanager
    def _told(self, table: TableName) -> Iterator[None]:
        """Turn failures of statements into what they mean for a table."""
        try:
            yield
        except StatementFailed as exc:
            if INCOMPLETE in exc.said:
                raise ResyncNeeded(
                    f"A changed row of {table} was not in the lake, so its unchanged values are unknown."
                ) from exc
            if UNFIT_KEY in exc.said:
                raise TableRefused(
                    f"A key of {table} has a value that its column in the lake cannot hold, such as an infinite date; "
                    "correct the row, or leave the table out with skip: true."
                ) from exc
            if exc.error_class in _GONE:
                raise ResyncNeeded(f"{self.name(table)} is gone from Unity Catalog.") from exc
            if "CONCURRENT" in exc.error_class:
                raise DestinationConflict(
                    f"Another writer committed to {self.name(table)} at the same time; run this again."
                ) from exc
            raise
