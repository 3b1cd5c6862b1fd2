"""The publications: which tables' changes the server decodes for the pipeline.

There are two. The server refuses updates of a published table whose rows it has nothing to tell apart by. Of such a
table only the inserts are taken, through a publication of inserts alone, so that nobody's update is refused for our
sake. A publication has to be older than the changes that are decoded with it, so both are made before the slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import errors, sql

from neon_lake.errors import SourceBusy, SourceRefused, listed
from neon_lake.schema import Relation, TableName
from neon_lake.sources.postgres.catalog import GENERATED_SINCE
from neon_lake.sources.postgres.connection import Connection
from neon_lake.sources.postgres.queries import query


@dataclass(frozen=True, kw_only=True)
class _Publication:
    """One of the two, whether or not it is there yet."""

    name: str
    inserts_only: bool

    def tables(self, wanted: Iterable[Relation]) -> set[TableName]:
        """Those of `wanted` that belong into it."""
        return {relation.table for relation in wanted if relation.inserts_only is self.inserts_only}

    def state(self, connection: Connection) -> tuple[int, bool] | None:
        """Its oid, and whether it publishes what it has to; None when it is missing."""
        arguments = {"publication": self.name, "all": not self.inserts_only}
        row = connection.execute(query("publication"), arguments).fetchone()
        return None if row is None else (row[0], row[1])

    def creation(self, wanted: Iterable[Relation], connection: Connection) -> sql.Composed:
        """The statement that makes it."""
        tables = self.tables(wanted)
        listing = sql.SQL(" FOR TABLE ") + _listing(tables) if tables else sql.SQL("")
        return sql.SQL("CREATE PUBLICATION {}{} WITH {}").format(
            sql.Identifier(self.name), listing, self._options(connection)
        )

    def alter(self, connection: Connection, state: tuple[int, bool], wanted: Iterable[Relation]) -> None:
        """Put right what is not."""
        oid, right = state
        tables, present = self.tables(wanted), _members(connection, oid)
        change = sql.SQL("ALTER PUBLICATION {} {} {}")
        name = sql.Identifier(self.name)
        if not right:
            connection.execute(change.format(name, sql.SQL("SET"), self._options(connection)))
        if gone := present - tables:
            connection.execute(change.format(name, sql.SQL("DROP TABLE"), _listing(gone)))
        if new := tables - present:
            connection.execute(change.format(name, sql.SQL("ADD TABLE"), _listing(new)))

    def _options(self, connection: Connection) -> sql.Composed:
        kinds = "insert, truncate" if self.inserts_only else "insert, update, delete, truncate"
        generated = ", publish_generated_columns = stored" if connection.info.server_version >= GENERATED_SINCE else ""
        return sql.SQL("(publish = {}, publish_via_partition_root = true" + generated + ")").format(kinds)


def _both(name: str) -> tuple[_Publication, _Publication]:
    # no pipeline's name makes a publication's begin as the second's does
    return (
        _Publication(name=name, inserts_only=False),
        _Publication(name=f"inserts_of_{name}", inserts_only=True),
    )


def published(connection: Connection, name: str, wanted: Sequence[Relation]) -> frozenset[TableName]:
    """Those of `wanted` that are in the publication for their kind, if nobody has altered what that publishes."""
    found: set[TableName] = set()
    for each in _both(name):
        state = each.state(connection)
        if state is not None and state[1]:
            found |= _members(connection, state[0]) & each.tables(wanted)
    return frozenset(found)


def names(connection: Connection, name: str) -> list[str]:
    """The publications to stream: the one of all changes, and that of inserts where it is.

    Raises `SourceRefused` when the first is missing: from version 18 on, the server then passes over all changes.
    """
    present = [each.name for each in _both(name) if each.state(connection) is not None]
    if name not in present:
        raise SourceRefused(f"The publication {name} is gone; run neon-lake sync, which creates it again.")
    return present


def publish(connection: Connection, name: str, wanted: Sequence[Relation]) -> None:
    """Make the publications hold exactly `wanted`; touches nothing that is right already, so that no right is needed.

    Raises `SourceRefused` when the role may not create a publication, or does not own a table.
    """
    everything, inserts = _both(name)
    try:
        with connection.transaction():
            state, of_inserts = everything.state(connection), inserts.state(connection)
            if state is not None and of_inserts is None and inserts.tables(wanted):
                raise SourceRefused(
                    f"The publication {inserts.name} is missing, and changes were captured without it; "
                    "run neon-lake drop, then neon-lake resync --all."
                )
            if state is not None:
                everything.alter(connection, state, wanted)
            else:
                connection.execute(everything.creation(wanted, connection))
            if of_inserts is not None:
                inserts.alter(connection, of_inserts, wanted)
            elif state is None:
                connection.execute(inserts.creation(wanted, connection))
    except (errors.DuplicateObject, errors.UndefinedObject, errors.UniqueViolation, errors.InternalError_) as exc:
        if isinstance(exc, errors.InternalError_) and "concurrently" not in str(exc):
            raise
        raise SourceBusy(
            f"Another run has changed the publication {name} at the same moment ({exc.diag.message_primary}); "
            "run this again."
        ) from exc
    except errors.InsufficientPrivilege as exc:
        by_hand = "; ".join(each.creation(wanted, connection).as_string(connection) for each in _both(name))
        raise SourceRefused(
            f"The role may not publish {listed(sorted(relation.table for relation in wanted))} "
            f"({exc.diag.message_primary}); let it own the tables and GRANT CREATE ON DATABASE to it, "
            f"or have their owner run: {by_hand}."
        ) from exc


def drop(connection: Connection, name: str) -> None:
    """Remove the publications, as far as they are there."""
    for each in _both(name):
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(each.name)))


def _members(connection: Connection, oid: int) -> set[TableName]:
    return {TableName(*of) for of in connection.execute(query("published"), {"oid": oid})}


def _listing(tables: Iterable[TableName]) -> sql.Composed:
    # ONLY: tables that inherit from a published one have changes of their own, under their own names.
    return sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(t.schema, t.name)) for t in sorted(tables))
