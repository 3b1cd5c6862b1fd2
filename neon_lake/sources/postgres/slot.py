"""The replication slot: the server's promise to keep the WAL that we have not confirmed."""

from __future__ import annotations

from psycopg import errors, sql

from neon_lake.change import Lsn
from neon_lake.errors import SlotInUse, SlotsExhausted, SourceBusy, SourceRefused
from neon_lake.sources.base import Slot
from neon_lake.sources.postgres.connection import Connection
from neon_lake.sources.postgres.queries import query

PLUGIN = "pgoutput"


def inspect(connection: Connection, name: str) -> Slot | None:
    """The slot as it is now, or None. Raises `SourceRefused` when the name is taken by another kind of slot."""
    row = connection.execute(query("slot"), {"slot": name}).fetchone()
    if row is None:
        return None
    _, confirmed, retained, active_pid, wal_status, reason, plugin, here = row
    if plugin != PLUGIN or not here:
        raise SourceRefused(
            f"The replication slot {name} belongs to another database or plugin; rename the pipeline, or drop the slot."
        )
    lost = reason or ("its WAL was removed" if wal_status == "lost" else None)
    return Slot(
        name=name,
        confirmed=Lsn.parse(confirmed) if confirmed else Lsn(0),
        retained=retained or 0,
        active_pid=active_pid,
        lost=lost,
    )


def create(walsender: Connection, name: str, *, temporary: bool) -> tuple[Lsn, str]:
    """Create a slot; returns its consistent point and the name of the snapshot exported there.

    The snapshot lives until the connection runs another command. Waits for the transactions that are writing.
    """
    # Before version 15 the option is a bare keyword.
    old = walsender.info.server_version < 150000
    statement = sql.SQL("CREATE_REPLICATION_SLOT {} {}LOGICAL {} {}").format(
        sql.Identifier(name),
        sql.SQL("TEMPORARY " if temporary else ""),
        sql.SQL(PLUGIN),
        sql.SQL("EXPORT_SNAPSHOT" if old else "(SNAPSHOT 'export')"),
    )
    try:
        row = walsender.execute(statement).fetchone()
    except errors.DuplicateObject as exc:
        raise SourceBusy(
            f"The replication slot {name} exists already: another run has just made it; run this again."
        ) from exc
    except errors.ConfigurationLimitExceeded as exc:
        raise SlotsExhausted(
            "All replication slots of the server are in use; drop one that nobody needs, "
            "or raise max_replication_slots."
        ) from exc
    assert row is not None
    return Lsn.parse(row[1]), row[2]


def drop(connection: Connection, name: str) -> None:
    """Remove the slot if it is there. Raises `SlotInUse` while something streams from it."""
    try:
        connection.execute(query("drop_slot"), {"slot": name})
    except errors.ObjectInUse as exc:
        raise SlotInUse(f"The replication slot {name} is in use; stop what streams from it first.") from exc
