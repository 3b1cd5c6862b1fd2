"""Positions, transactions and changes: what flows between source, log and lake."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neon_lake.schema import RESCUED, Relation, TableName


class Lsn(int):
    """A byte position in the write-ahead log, shown `X/Y` as Postgres does.

    Source: https://www.postgresql.org/docs/current/datatype-pg-lsn.html
    """

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `16/B374D848`. Raises ValueError on anything else."""
        high, slash, low = text.partition("/")
        if not slash or not re.fullmatch("[0-9A-Fa-f]{1,8}", high) or not re.fullmatch("[0-9A-Fa-f]{1,8}", low):
            raise ValueError(f"{text!r} is not an LSN; it looks like 16/B374D848")
        return cls((int(high, 16) << 32) | int(low, 16))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Read the 16 hex digits of `hex`."""
        if len(text) != 16:
            raise ValueError(f"{text!r} is not 16 hex digits")
        return cls(int(text, 16))

    @property
    def hex(self) -> str:
        """16 zero-padded hex digits: names made of it sort by position."""
        return f"{int(self):016x}"

    def __str__(self) -> str:
        return f"{int(self) >> 32:X}/{int(self) & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({self})"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


INSERT: Final = "I"
UPDATE: Final = "U"
DELETE: Final = "D"
TRUNCATE: Final = "T"
READ: Final = "R"
"""In the write mode `append`: a row of a snapshot."""

OP: Final = "_op"
LSN: Final = "_lsn"
SEQUENCE: Final = "_seq"
XID: Final = "_xid"
COMMITTED_AT: Final = "_committed_at"
DELETED_AT: Final = "_deleted_at"
UNCHANGED: Final = "_unchanged"
OLD_KEY: Final = "_old_key"
ROW_ID: Final = "_row_id"

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

CHANGE_FIELDS: Final = (
    pa.field(OP, pa.string(), nullable=False),
    pa.field(LSN, pa.int64(), nullable=False),
    pa.field(SEQUENCE, pa.int64(), nullable=False),
    pa.field(XID, pa.int64(), nullable=False),
    pa.field(COMMITTED_AT, TIMESTAMP, nullable=False),
    pa.field(UNCHANGED, pa.list_(pa.string())),
)

RESERVED: Final = frozenset({OP, LSN, SEQUENCE, XID, COMMITTED_AT, DELETED_AT, UNCHANGED, OLD_KEY, ROW_ID, RESCUED})
"""Column names that a source table may not have, because the log or the lake uses them."""


def change_schema(relation: Relation) -> pa.Schema:
    """The Arrow schema of a relation's changes, and of its segments in the log.

    Columns, in this order:
      `_op`            I, U, D or T (truncate; the row's columns are then null)
      `_lsn`           LSN of the transaction's commit record, as in pgoutput's Begin message
      `_seq`           ordinal of the change in its transaction; (`_lsn`, `_seq`) is the order of all changes
      `_xid`           32-bit id of the transaction
      `_committed_at`  commit time at the source
      `_unchanged`     names of the columns whose TOASTed value was not sent; null when there is none
      `_old_key`       struct of the key columns before an update that changed the key; else null. Without a key,
                       of all columns and `_rescued_data`, before an update that changed anything
      `_rescued_data`  JSON object: column → Postgres' text of what its typed column cannot hold; else null
      then the relation's columns; of a D row only the key is sure to be there.
    """
    rescued = pa.field(RESCUED, pa.string())
    identity = [pa.field(c.name, c.arrow) for c in (relation.columns if relation.keyless else relation.key)]
    if relation.keyless:
        identity.append(rescued)
    # A table can lose its key while it is followed, and Parquet has no structs without fields.
    old_key = pa.field(OLD_KEY, pa.struct(identity) if identity else pa.null())
    return pa.schema([*CHANGE_FIELDS, old_key, rescued, *(c.field for c in relation.columns)])


@dataclass(frozen=True, kw_only=True)
class ChangeBatch:
    """Changes of one relation, in the order of (`_lsn`, `_seq`), in the schema of `change_schema(relation)`."""

    relation: Relation
    rows: pa.RecordBatch


@dataclass(frozen=True, kw_only=True)
class Transactions:
    """A summary of the transactions that end in a piece of the stream."""

    count: int = 0
    first_commit_at: datetime | None = None
    last_commit_at: datetime | None = None
    max_xid: int = 0

    def __add__(self, other: Transactions) -> Transactions:
        if not other.count:
            return self
        if not self.count:
            return other
        return Transactions(
            count=self.count + other.count,
            first_commit_at=self.first_commit_at,
            last_commit_at=other.last_commit_at,
            max_xid=other.max_xid if _xid_after(other.max_xid, self.max_xid) else self.max_xid,
        )


NO_TRANSACTIONS: Final = Transactions()


def _xid_after(a: int, b: int) -> bool:
    """Whether 32-bit xid `a` is later than `b`, by the modulo-2³² rule of the server."""
    return 0 < (a - b) & 0xFFFFFFFF < 1 << 31


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of the stream: changes, and where it ends when it ends at a commit.

    `committed` is a position that everything sent so far lies before and nothing sent later does, or None inside a
    transaction. A piece may hold no changes: then it only moves `committed` on. `partitions`: tables, and oids of
    partitions of theirs that rows come from which are new to the stream.
    """

    changes: tuple[ChangeBatch, ...] = ()
    committed: Lsn | None = None
    transactions: Transactions = NO_TRANSACTIONS
    partitions: tuple[tuple[TableName, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class XidSnapshot:
    """Which transactions a snapshot sees: those before `xmax` that are not in progress (`xip`).

    64-bit transaction ids, as `pg_current_snapshot()` gives them.
    Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT-PARTS
    """

    xmin: int
    xmax: int
    xip: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `xmin:xmax:xip,xip`."""
        xmin, xmax, xip = text.split(":")
        return cls(xmin=int(xmin), xmax=int(xmax), xip=tuple(int(x) for x in xip.split(",") if x))

    def sees(self, xids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of these committed 32-bit xids are visible: a mask of the same length.

        A 32-bit id is read as the one closest to `xmax`, as the server does.
        """
        offset = (xids - (self.xmax & 0xFFFFFFFF)).astype(np.int64) & 0xFFFFFFFF
        offset = np.where(offset >= 1 << 31, offset - (1 << 32), offset)
        full = self.xmax + offset
        running = np.asarray(self.xip, dtype=np.int64)
        seen: npt.NDArray[np.bool_] = (full < self.xmax) & ~np.isin(full, running)
        return seen
