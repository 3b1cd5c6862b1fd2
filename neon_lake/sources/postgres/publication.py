"""The publications: which tables' changes the server decodes for the pipeline.

There are two. The server refuses updates of a published table whose rows it has nothing to tell apart by. Of such a
table only the inserts are taken, through a publication of inserts alone, so that nobody's update is refused for our
sake. A publication has to be older than the changes that are decoded with it, so both are made before the slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from psycopg import errors, sql

from neon_lake.errors import SourceBusy, SourceRefused, listed
from neon_lake.schema import Relation, TableName
from neon_lake.sources.postgres.catalog import GENERATED_SINCE
from neon_lake.sources.postgres.connection import Connection
from neon_lake.sources.postgres.queries import query

_KINDS: Final = {"": "insert, update, delete, truncate", "_inserts": "insert, truncate"}
"""Suffix of a publication's name, and what it publishes."""


def published(connection: Connection, name: str, wanted: Sequence[Relation]) -> frozenset[TableName]:
    """Those of `wanted` that are in the publication for their kind, if nobody has altered what that publishes."""
    found: set[TableName] = set()
    for suffix in _KINDS:
        state = _state(connection, name, suffix)
        if state is not None and state[1]:
            found |= _members(connection, state[0]) & _of_kind(wanted, suffix)
    return frozenset(found)


def names(connection: Connection, name: str) -> list[str]:
    """The publications to stream: the one of all changes, and that of inserts where it is.

    Raises `SourceRefused` when the first is missing: from version 18 on, the server then passes over all changes.
    """
    if _state(connection, name, "") is None:
        raise SourceRefused(f"The publication {name} is gone; run neon-lake sync, which creates it again.")
    return [name + suffix for suffix in _KINDS if not suffix or _state(connection, name, suffix) is not None]


def publish(connection: Connection, name: str, wanted: Sequence[Relation]) -> None:
    """Make the publications hold exactly `wanted`; touches nothing that is right already, so that no right is needed.

    Raises `SourceRefused` when the role may not create a publication, or does not own a table.
    """
    try:
        with connection.transaction():
            new = _state(connection, name, "") is None
            for suffix in _KINDS:
                tables = _of_kind(wanted, suffix)
                state = _state(connection, name, suffix)
                if state is not None:
                    _alter(connection, name + suffix, state, tables, suffix)
                elif new:
                    connection.execute(_statement("CREATE PUBLICATION {} {} WITH {}", name, suffix, tables, connection))
                elif tables:
                    raise SourceRefused(
                        f"The publication {name}{suffix} is missing, and changes were captured without it; "
                        "run neon-lake drop, then neon-lake resync --all."
                    )
    except (errors.DuplicateObject, errors.UndefinedObject, errors.UniqueViolation, errors.InternalError_) as exc:
        if isinstance(exc, errors.InternalError_) and "concurrently" not in str(exc):
            raise
        raise SourceBusy(
            f"Another run has changed the publication {name} at the same moment ({exc.diag.message_primary}); "
            "run this again."
        ) from exc
    except errors.InsufficientPrivilege as exc:
        by_hand = "; ".join(
            _statement(
                "CREATE PUBLICATION {} {} WITH {}", name, suffix, _of_kind(wanted, suffix), connection
            ).as_string()
            for suffix in _KINDS
        )
        raise SourceRefused(
            f"The role may not publish {listed(sorted(relation.table for relation in wanted))} "
            f"({exc.diag.message_primary}); let it own the tables and GRANT CREATE ON DATABASE to it, "
            f"or have their owner run: {by_hand}."
        ) from exc


def drop(connection: Connection, name: str) -> None:
    """Remove the publications, as far as they are there."""
    for suffix in _KINDS:
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name + suffix)))


def _of_kind(wanted: Iterable[Relation], suffix: str) -> set[TableName]:
    return {relation.table for relation in wanted if relation.inserts_only is bool(suffix)}


def _state(connection: Connection, name: str, suffix: str) -> tuple[int, bool] | None:
    """The oid of a publication, and whether it publishes what it has to."""
    arguments = {"publication": name + suffix, "all": not suffix}
    row = connection.execute(query("publication"), arguments).fetchone()
    return None if row is None else (row[0], row[1])


def _members(connection: Connection, oid: int) -> set[TableName]:
    return {TableName(*of) for of in connection.execute(query("published"), {"oid": oid})}


def _alter(connection: Connection, name: str, state: tuple[int, bool], tables: set[TableName], suffix: str) -> None:
    present = _members(connection, state[0])
    name = name.removesuffix(suffix)
    if not state[1]:
        connection.execute(_statement("ALTER PUBLICATION {} SET {}{}", name, suffix, (), connection))
    if gone := present - tables:
        connection.execute(_statement("ALTER PUBLICATION {} DROP {}", name, suffix, gone, connection))
    if new := tables - present:
        connection.execute(_statement("ALTER PUBLICATION {} ADD {}", name, suffix, new, connection))


def _statement(form: str, name: str, suffix: str, tables: Iterable[TableName], connection: Connection) -> sql.Composed:
    # ONLY: tables that inherit from a published one have changes of their own, under their own names.
    listing = sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(t.schema, t.name)) for t in sorted(tables))
    target = sql.SQL("FOR TABLE ") if form.startswith("CREATE") else sql.SQL("TABLE ")
    parts = [sql.Identifier(name + suffix), target + listing if tables else sql.SQL("")]
    if form.count("{}") == 3:
        parts.append(_options(connection, suffix))
    return sql.SQL(form).format(*parts)


def _options(connection: Connection, suffix: str) -> sql.Composed:
    generated = ", publish_generated_columns = stored" if connection.info.server_version >= GENERATED_SINCE else ""
    return sql.SQL("(publish = {}, publish_via_partition_root = true" + generated + ")").format(_KINDS[suffix])
