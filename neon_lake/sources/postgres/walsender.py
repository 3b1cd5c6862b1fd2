"""The conversation with a walsender: starting, statuses, keepalives and an orderly end.

Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Final

from psycopg import generators, pq, sql

from neon_lake.change import Lsn
from neon_lake.errors import SlotInUse, SlotLost, SourceError, SourceRefused, SourceUnavailable
from neon_lake.sources.postgres.connection import Connection

KEEPALIVE_SIZE: Final = 18
"""Bytes of a keepalive frame. A frame with WAL data is always longer."""

_KEEPALIVE: Final = struct.Struct(">cqqB")
_STATUS: Final = struct.Struct(">cqqqqB")
_POSTGRES_EPOCH: Final = 946_684_800


def start(walsender: Connection, slot: str, publications: Sequence[str], position: Lsn) -> None:
    """Begin streaming. Raises `SlotInUse`, `SlotLost` and `SourceRefused`."""
    names = ",".join(sql.Identifier(name).as_string() for name in publications)
    statement = sql.SQL("START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})").format(
        sql.Identifier(slot), sql.SQL(str(position)), sql.Literal(names)
    )
    pgconn = walsender.pgconn
    pgconn.send_query(statement.as_bytes(walsender))
    # waits as every query does: watched, in case the connection is stalled
    result = walsender.wait(generators.execute(pgconn))[0]
    if result.status != pq.ExecStatus.COPY_BOTH:
        raise _failure(slot, result)
    pgconn.nonblocking = 1


def keepalive(frame: bytes | memoryview) -> tuple[Lsn, bool]:
    """Read a keepalive: how far the server has read the WAL, and whether it wants a status at once."""
    _, position, _, wanted = _KEEPALIVE.unpack(frame)
    return Lsn(position), bool(wanted)


def status(position: Lsn, *, reply: bool) -> bytes:
    """A standby status: everything before `position` is durable here; `reply` asks for a keepalive at once."""
    clock = int((time.time() - _POSTGRES_EPOCH) * 1_000_000)
    return _STATUS.pack(b"r", position, position, position, clock, reply)


def ended(walsender: Connection, slot: str) -> SourceError:
    """Why the server ended the stream."""
    return _failure(slot, walsender.pgconn.get_result())


def _failure(slot: str, result: pq.abc.PGresult | None) -> SourceError:
    if result is None or result.status != pq.ExecStatus.FATAL_ERROR:
        return SourceUnavailable("The server ended the replication stream; it is shutting down or was promoted.")
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    said = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
    if state == "55006":
        return SlotInUse(f"The replication slot {slot} is in use ({said}); stop the other sync, or wait for it.")
    if state in ("55000", "58P01") or (state == "42704" and "replication slot" in said):
        return SlotLost(f"The replication slot {slot} cannot be read any more ({said}); run neon-lake resync --all.")
    if state[:2] in ("57", "08", "53"):
        return SourceUnavailable(f"The server ended the replication stream: {said}.")
    return SourceRefused(f"The server refuses to stream from the slot {slot}: {said}.")
