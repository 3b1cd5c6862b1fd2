"""The Postgres source: what the pipeline asks for, put together from its parts."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Self

import pyarrow as pa

from neon_lake.change import Lsn
from neon_lake.config import Pipeline, Table
from neon_lake.errors import Finding
from neon_lake.failpoints import failpoint
from neon_lake.schema import Relation, TableName
from neon_lake.sources.base import ChangeStream, Slot, Snapshot, SourceIdentity, Survey
from neon_lake.sources.postgres import catalog, checks, publication, selection, slot, snapshots, stream
from neon_lake.sources.postgres.connection import Connection, ConnectionSettings
from neon_lake.sources.postgres.messages import RelationMessage
from neon_lake.sources.postgres.queries import query
from neon_lake.sources.postgres.rows import Layout


class PostgresSource:
    """A Postgres database, and the slot and publication of one pipeline in it, both named `neon_lake_<pipeline>`."""

    def __init__(self, connection: ConnectionSettings, *, pipeline: str, tables: Sequence[Table]) -> None:
        self._settings = connection
        self._name = f"neon_lake_{pipeline}"
        self._tables = tuple(tables)

    @classmethod
    def of(cls, config: Pipeline) -> Self:
        """The source of a pipeline file."""
        source = config.source
        settings = ConnectionSettings(
            url=source.url,
            sslmode=source.sslmode,
            sslrootcert=source.sslrootcert,
            application_name=source.application_name,
            connect_timeout=source.connect_timeout,
            stall_timeout=source.stall_timeout,
        )
        return cls(settings, pipeline=config.name, tables=config.tables)

    def identity(self) -> SourceIdentity:
        """Which server and database this is."""
        with self._settings.connect() as connection:
            row = connection.execute(query("identity")).fetchone()
        assert row is not None
        return SourceIdentity(system_identifier=row[0], database=row[1], server_version=row[2])

    def check(self) -> Sequence[Finding]:
        """Everything about the source that would go wrong later."""
        return checks.findings(self._settings, self._name, self._tables)

    def survey(self) -> Survey:
        """The pipeline's tables as they are now."""
        with self._settings.connect() as connection:
            return selection.survey(connection, self._tables)

    def position(self) -> Lsn:
        """The end of the flushed WAL."""
        with self._settings.connect() as connection:
            row = connection.execute(query("position")).fetchone()
        assert row is not None
        return Lsn.parse(row[0])

    def slot(self) -> Slot | None:
        """The pipeline's slot, or None."""
        with self._settings.connect() as connection:
            return slot.inspect(connection, self._name)

    def published(self, wanted: Sequence[Relation]) -> frozenset[TableName]:
        """See `Source.published`."""
        with self._settings.connect() as connection:
            return publication.published(connection, self._name, wanted)

    def publish(self, wanted: Sequence[Relation]) -> None:
        """See `Source.publish`."""
        with self._settings.connect() as connection:
            publication.publish(connection, self._name, wanted)
        failpoint("publication.made")

    @contextmanager
    def create_slot(self) -> Iterator[Snapshot]:
        """Create the pipeline's slot and hold its snapshot. The publication has to be there before."""
        with snapshots.of_slot(self._settings, self._name, temporary=False) as taken:
            failpoint("slot.created")
            yield taken

    def slot_snapshot(self) -> AbstractContextManager[Snapshot]:
        """A snapshot at an exact position, through a temporary slot."""
        name = f"{self._name}_{secrets.token_hex(4)}"
        return snapshots.of_slot(self._settings, name, temporary=True)

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """A plain snapshot of this moment."""
        return snapshots.plain(self._settings)

    def read(self, snapshot: Snapshot, relation: Relation) -> Iterator[pa.RecordBatch]:
        """The rows of a table in a snapshot."""
        return snapshots.read(self._settings, snapshot, relation)

    def count(self, snapshot: Snapshot, table: TableName) -> int:
        """The number of rows of a table in a snapshot."""
        return snapshots.count(self._settings, snapshot, table)

    @contextmanager
    def changes(self, start: Lsn, until: Lsn | None) -> Iterator[ChangeStream]:
        """Stream what commits from `start` on."""
        with (
            _Descriptions(self._settings, self._tables) as descriptions,
            stream.opened(
                self._settings,
                slot_name=self._name,
                publication=self._name,
                describe=descriptions.of,
                start=start,
                until=until,
            ) as opened,
        ):
            yield opened

    def drop_slot(self) -> None:
        """Remove the slot. Raises `SlotInUse` while something streams."""
        with self._settings.connect() as connection:
            slot.drop(connection, self._name)

    def drop(self) -> None:
        """Remove slot and publication. Raises `SlotInUse` while something streams."""
        with self._settings.connect() as connection:
            slot.drop(connection, self._name)
            failpoint("drop.slot-dropped")
            publication.drop(connection, self._name)


class _Descriptions:
    """Relation messages, joined with the catalogue over one connection that is opened when the first one comes."""

    def __init__(self, settings: ConnectionSettings, tables: Sequence[Table]) -> None:
        self._settings, self._tables = settings, tables
        self._stack = ExitStack()
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def of(self, message: RelationMessage) -> Layout | None:
        """The layout of a relation's rows; None when no line of the pipeline speaks of it."""
        line = selection.line_of(self._tables, TableName(message.schema, message.name))
        if line is None:
            return None
        with self._settings.translated():
            if self._connection is None:
                self._connection = self._stack.enter_context(self._settings.connect())
            return catalog.layout(self._connection, message, line)
