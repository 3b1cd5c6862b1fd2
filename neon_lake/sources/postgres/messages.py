"""The messages of pgoutput that are rare, read one by one.

Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

from neon_lake.errors import ProtocolError
from neon_lake.schema import ReplicaIdentity


@dataclass(frozen=True, kw_only=True)
class WireColumn:
    """A column as a Relation message declares it; `identity` says that an old key tuple holds it."""

    name: str
    identity: bool
    type_oid: int
    modifier: int


@dataclass(frozen=True, kw_only=True)
class RelationMessage:
    """A Relation message: how the rows that follow it are laid out."""

    oid: int
    schema: str
    name: str
    identity: ReplicaIdentity
    columns: tuple[WireColumn, ...]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a whole message, kind byte included. Raises `ProtocolError`."""
        try:
            (oid,) = struct.unpack_from(">I", body, 1)
            schema, at = _string(body, 5)
            name, at = _string(body, at)
            identity, count = struct.unpack_from(">cH", body, at)
            at += 3
            columns = []
            for _ in range(count):
                flags = body[at]
                column, at = _string(body, at + 1)
                type_oid, modifier = struct.unpack_from(">Ii", body, at)
                at += 8
                columns.append(WireColumn(name=column, identity=bool(flags & 1), type_oid=type_oid, modifier=modifier))
            if at != len(body):
                raise ProtocolError("the replication stream has a Relation message of the wrong length")
            return cls(
                oid=oid,
                schema=schema or "pg_catalog",
                name=name,
                identity=ReplicaIdentity(identity.decode()),
                columns=tuple(columns),
            )
        except (struct.error, IndexError, ValueError) as exc:
            raise ProtocolError("the replication stream has a damaged Relation message") from exc


def parse_truncate(body: bytes) -> tuple[int, ...]:
    """The oids of the relations that a Truncate message empties. Raises `ProtocolError`."""
    try:
        (count,) = struct.unpack_from(">I", body, 1)
        if len(body) != 6 + 4 * count:
            raise ProtocolError("the replication stream has a Truncate message of the wrong length")
        return struct.unpack_from(f">{count}I", body, 6)
    except struct.error as exc:
        raise ProtocolError("the replication stream has a damaged Truncate message") from exc


def _string(body: bytes, at: int) -> tuple[str, int]:
    """A zero-terminated string and the position after it."""
    end = body.index(0, at)
    return body[at:end].decode(), end + 1
