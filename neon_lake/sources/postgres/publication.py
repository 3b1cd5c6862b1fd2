"""The publication: which tables' changes the server decodes for the pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import errors, sql

from neon_lake.errors import SourceBusy, SourceRefused, listed
from neon_lake.schema import TableName
from neon_lake.sources.postgres.catalog import GENERATED_SINCE
from neon_lake.sources.postgres.connection import Connection
from neon_lake.sources.postgres.queries import query


def published(connection: Connection, name: str) -> frozenset[TableName]:
    """The tables in the publication; none when it is missing, or was altered to leave out kinds of changes."""
    row = connection.execute(query("publication"), {"publication": name}).fetchone()
    if row is None or not row[1]:
        return frozenset()
    return frozenset(TableName(*of) for of in connection.execute(query("published"), {"oid": row[0]}))


def publish(connection: Connection, name: str, tables: Sequence[TableName]) -> None:
    """Make the publication hold exactly `tables`; touches nothing that is right already, so that no right is needed.

    Raises `SourceRefused` when the role may not create the publication, or does not own a table.
    """
    wanted = set(tables)
    try:
        with connection.transaction():
            row = connection.execute(query("publication"), {"publication": name}).fetchone()
            if row is None:
                connection.execute(_statement("CREATE PUBLICATION {} {} WITH {}", name, wanted, connection))
                return
            oid, options_right = row
            present = {TableName(*of) for of in connection.execute(query("published"), {"oid": oid})}
            if not options_right:
                connection.execute(_statement("ALTER PUBLICATION {} SET {}{}", name, (), connection))
            if gone := present - wanted:
                connection.execute(_statement("ALTER PUBLICATION {} DROP {}", name, gone, connection))
            if new := wanted - present:
                connection.execute(_statement("ALTER PUBLICATION {} ADD {}", name, new, connection))
    except (errors.DuplicateObject, errors.UndefinedObject, errors.UniqueViolation, errors.InternalError_) as exc:
        if isinstance(exc, errors.InternalError_) and "concurrently" not in str(exc):
            raise
        raise SourceBusy(
            f"Another run has changed the publication {name} at the same moment ({exc.diag.message_primary}); "
            "run this again."
        ) from exc
    except errors.InsufficientPrivilege as exc:
        raise SourceRefused(
            f"The role may not publish {listed(sorted(wanted))} ({exc.diag.message_primary}); let it own the tables "
            f"and GRANT CREATE ON DATABASE to it, or have their owner run: "
            f"CREATE PUBLICATION {name} FOR TABLE {', '.join(table.sql for table in sorted(wanted))} "
            f"WITH {_options(connection).as_string(connection)}."
        ) from exc


def drop(connection: Connection, name: str) -> None:
    """Remove the publication if it is there."""
    connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))


def _statement(form: str, name: str, tables: Iterable[TableName], connection: Connection) -> sql.Composed:
    # ONLY: tables that inherit from a published one have changes of their own, under their own names.
    listing = sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(t.schema, t.name)) for t in sorted(tables))
    target = sql.SQL("FOR TABLE ") if form.startswith("CREATE") else sql.SQL("TABLE ")
    parts = [sql.Identifier(name), target + listing if tables else sql.SQL("")]
    if form.count("{}") == 3:
        parts.append(_options(connection))
    return sql.SQL(form).format(*parts)


def _options(connection: Connection) -> sql.SQL:
    generated = ", publish_generated_columns = stored" if connection.info.server_version >= GENERATED_SINCE else ""
    return sql.SQL("(publish = 'insert, update, delete, truncate', publish_via_partition_root = true" + generated + ")")
