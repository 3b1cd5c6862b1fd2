"""The logical replication protocol of the pgoutput plugin, version 1, decoded a chunk of messages at a time.

No I/O: bytes in, pieces of the stream out. Message kinds, transactions and positions are vectors over a chunk;
only Relation and Truncate messages, which are rare, are read one by one.

Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neon_lake.change import ChangeBatch, Lsn, Piece, Transactions
from neon_lake.errors import ProtocolError
from neon_lake.schema import TableName
from neon_lake.sources.postgres.columns import PADDING, Mask, Positions, Wire
from neon_lake.sources.postgres.messages import RelationMessage, parse_truncate
from neon_lake.sources.postgres.rows import Heads, Layout, decode_rows, truncated

Describe: TypeAlias = Callable[[RelationMessage], Layout | None]
"""What the catalogue knows of a relation on the wire; None when the pipeline does not want its rows."""

HEADER: Final = 25
"""Bytes before the message in an XLogData frame: kind, start, end and clock."""

_FRAME: Final = ord("w")
_EPOCH: Final = 946_684_800_000_000
"""Microseconds from 1970 to 2000, where Postgres' clock begins."""

_A, _B, _C, _I, _U, _D, _R, _T = b"ABCIUDRT"


def _set(letters: bytes) -> Mask:
    members = np.zeros(256, np.bool_)
    members[np.frombuffer(letters, np.uint8)] = True
    return members


_KNOWN: Final = _set(b"BCIUDRTYOM")
_ROW: Final = _set(b"IUD")


@dataclass(frozen=True, kw_only=True)
class _Open:
    """The transaction that the last chunk ended inside of, and how many changes of it have been seen."""

    lsn: int
    xid: int
    committed_at: int
    seen: int


@dataclass(frozen=True, kw_only=True)
class _Messages:
    """A chunk's messages: where each lies, its kind, its transaction and its ordinal therein.

    `lsns`, `xids` and `committed_at` (microseconds since 1970) are per transaction.
    """

    wire: Wire
    starts: Positions
    ends: Positions
    kinds: npt.NDArray[np.uint8]
    transaction: Positions
    ordinals: Positions
    lsns: Positions
    xids: Positions
    committed_at: Positions

    def heads(self, at: Positions) -> Heads:
        """The heads of the changes in messages `at`."""
        of = self.transaction[at]
        return Heads(
            ops=self.kinds[at],
            lsns=self.lsns[of],
            ordinals=self.ordinals[at],
            xids=self.xids[of],
            committed_at=self.committed_at[of],
        )

    def body(self, index: int) -> bytes:
        """The bytes of one message."""
        return self.wire.bytes[self.starts[index] : self.ends[index]].tobytes()


@dataclass(frozen=True, kw_only=True)
class _Located:
    """A batch, and the message that each of its rows came in."""

    at: Positions
    batch: ChangeBatch


class Decoder:
    """Decodes one stream. Remembers the relations it was told about and the transaction that is open."""

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._bodies: dict[int, bytes] = {}
        self._layouts: dict[int, Layout | None] = {}
        self._open: _Open | None = None
        self._described: int | None = None

    def decode(self, frames: Sequence[bytes | memoryview], position: Lsn | None = None) -> list[Piece]:
        """Decode whole XLogData frames: one piece, or two when the last commit is not the last message.

        `position` is that of a keepalive received after the frames: it counts when no transaction is open.
        Raises `ProtocolError` when the bytes do not follow the protocol; the stream cannot be carried on then.
        """
        try:
            wire, starts, ends = _without_aborts(*_joined(frames))
            if not len(starts):
                return [Piece(committed=position)] if position is not None and self._open is None else []
            messages = self._messages(wire, starts, ends)
            located = list(self._batches(messages))
            first, *rest = _split(messages, located, position if self._open is None else None)
            return [replace(first, partitions=self._partitions(messages)), *rest]
        except (pa.ArrowInvalid, IndexError, ValueError, OverflowError) as exc:
            raise ProtocolError("the replication stream is damaged") from exc

    def _messages(self, wire: Wire, starts: Positions, ends: Positions) -> _Messages:
        """Assign every message to its transaction; the open one is carried over from the last chunk."""
        kinds = wire.bytes[starts]
        if not _KNOWN[kinds].all():
            raise ProtocolError("the replication stream has a message of an unknown kind")
        rows, begun, ended = _ROW[kinds], kinds == _B, kinds == _C
        begins = np.flatnonzero(begun)
        sizes = ends - starts
        if (sizes[begins] != 21).any() or (sizes[ended] != 26).any() or (sizes[rows] < 8).any():
            raise ProtocolError("the replication stream has a message of the wrong length")
        opened = self._open
        began = np.cumsum(begun)
        inside = began - np.cumsum(ended) + (opened is not None)
        if (inside != ~ended).any():
            raise ProtocolError("the replication stream has a message that is in no transaction, or in two")

        weights = rows.astype(np.int64)
        for index in np.flatnonzero(kinds == _T):
            weights[index] = len(parse_truncate(wire.bytes[starts[index] : ends[index]].tobytes()))
        before = np.cumsum(weights) - weights
        base, transaction = before[begins], began - 1
        at = starts[begins]
        lsns, committed_at, xids = wire.i8(at + 1), wire.i8(at + 9) + _EPOCH, wire.u4(at + 17)
        if opened:
            base, transaction = np.insert(base, 0, -opened.seen), began
            lsns = np.insert(lsns, 0, opened.lsn)
            committed_at = np.insert(committed_at, 0, opened.committed_at)
            xids = np.insert(xids, 0, opened.xid)
        self._open = None
        if inside[-1]:
            seen = int(before[-1] + weights[-1] - base[-1])
            self._open = _Open(lsn=int(lsns[-1]), xid=int(xids[-1]), committed_at=int(committed_at[-1]), seen=seen)
        return _Messages(
            wire=wire,
            starts=starts,
            ends=ends,
            kinds=kinds,
            transaction=transaction,
            ordinals=before - base[transaction],
            lsns=lsns,
            xids=xids,
            committed_at=committed_at,
        )

    def _batches(self, messages: _Messages) -> Iterator[_Located]:
        """Every relation's changes; a relation whose layout changes within the chunk gives several batches."""
        rows = np.flatnonzero(_ROW[messages.kinds])
        oids = messages.wire.u4(messages.starts[rows] + 1)
        emptied: dict[int, list[int]] = {}
        for index in np.flatnonzero(messages.kinds == _T).tolist():
            for oid in parse_truncate(messages.body(index)):
                emptied.setdefault(oid, []).append(index)
        known = dict(self._layouts)
        changes = self._relations(messages)
        for oid in sorted({*_distinct(oids), *emptied}):
            mine, empties = rows[oids == oid], np.array(emptied.get(oid, []), np.int64)
            first = [(0, known[oid])] if oid in known else []
            spans = [*first, *changes.get(oid, [])]
            if not spans or min(*mine[:1], *empties[:1], len(messages.kinds)) < spans[0][0]:
                raise ProtocolError("the replication stream has a row of a relation that it did not describe")
            stops = [start for start, _ in spans[1:]] + [len(messages.kinds)]
            for (start, layout), stop in zip(spans, stops, strict=True):
                if layout is not None:
                    yield from _batch(messages, layout, _between(mine, start, stop), _between(empties, start, stop))

    def _relations(self, messages: _Messages) -> dict[int, list[tuple[int, Layout | None]]]:
        """Learn from the Relation messages; returns, per relation, from which message on it has another layout."""
        changes: dict[int, list[tuple[int, Layout | None]]] = {}
        for index in np.flatnonzero(messages.kinds == _R).tolist():
            body = messages.body(index)
            oid = int.from_bytes(body[1:5], "big")
            # The server says again what it said whenever its caches are reset.
            if self._bodies.get(oid) == body:
                continue
            layout = self._describe(RelationMessage.parse(body))
            if oid not in self._layouts or layout != self._layouts[oid]:
                changes.setdefault(oid, []).append((index, layout))
            self._bodies[oid], self._layouts[oid] = body, layout
        return changes

    def _partitions(self, messages: _Messages) -> tuple[tuple[TableName, int], ...]:
        """The partitions whose first row is here, and their tables.

        The server describes a partition just before its first row, though that comes as a row of the table.
        """
        if self._described is None and not (messages.kinds == _R).any():
            return ()
        at = np.flatnonzero(_ROW[messages.kinds] | (messages.kinds == _R) | (messages.kinds == _T))
        kinds, oids = messages.kinds[at], messages.wire.u4(messages.starts[at] + 1)
        pairs = [(int(oids[k]), int(oids[k - 1])) for k in np.flatnonzero(kinds[:-1] == _R) + 1 if _ROW[kinds[k]]]
        if self._described is not None and len(at):
            if _ROW[kinds[0]]:
                pairs.append((int(oids[0]), self._described))
            self._described = None
        if len(at) and kinds[-1] == _R:
            self._described = int(oids[-1])
        layouts = [(self._layouts.get(table), table, partition) for table, partition in pairs]
        return tuple((of.relation.table, part) for of, table, part in layouts if of is not None and part != table)


def _joined(frames: Sequence[bytes | memoryview]) -> tuple[Wire, Positions, Positions]:
    """The frames as one buffer, and where each one's message starts and ends."""
    sizes = np.fromiter(map(len, frames), np.int64, len(frames))
    if sizes.sum() + PADDING >= 1 << 31:
        raise ProtocolError("the replication stream was read in too large a chunk")
    wire = Wire(b"".join([*frames, bytes(PADDING)]))
    ends = np.cumsum(sizes)
    starts = ends - sizes + HEADER
    if (sizes <= HEADER).any() or (wire.bytes[starts - HEADER] != _FRAME).any():
        raise ProtocolError("the replication stream has a frame that is not WAL data")
    return wire, starts, ends


def _without_aborts(wire: Wire, starts: Positions, ends: Positions) -> tuple[Wire, Positions, Positions]:
    """The messages without Stream Abort.

    Version 18 also sends it to a client that asked for no streaming: of a subtransaction in a transaction that was
    rolled back and did not fit into logical_decoding_work_mem (seen with 18.4). Nothing else of either is sent.
    """
    keep = wire.bytes[starts] != _A
    return (wire, starts, ends) if keep.all() else (wire, starts[keep], ends[keep])


def _distinct(values: Positions) -> list[int]:
    if not len(values) or (values == values[0]).all():
        return [int(value) for value in values[:1]]
    return [int(value) for value in np.unique(values)]


def _between(indices: Positions, start: int, stop: int) -> Positions:
    first, end = np.searchsorted(indices, [start, stop])
    return indices[first:end]


def _batch(messages: _Messages, layout: Layout, rows: Positions, empties: Positions) -> Iterator[_Located]:
    """The batch of a relation's rows and truncates, in the order of their messages."""
    if not len(rows) and not len(empties):
        return
    batches = []
    if len(rows):
        starts, ends = messages.starts[rows], messages.ends[rows]
        batches.append(decode_rows(layout, messages.wire, starts, ends, messages.heads(rows)))
    if len(empties):
        batches.append(truncated(layout.relation, messages.heads(empties)))
    at, batch = np.concatenate([rows, empties]), batches[0]
    if len(batches) == 2:
        order = np.argsort(at, kind="stable")
        at, batch = at[order], pa.concat_batches(batches).take(pa.array(order))
    yield _Located(at=at, batch=ChangeBatch(relation=layout.relation, rows=batch))


def _split(messages: _Messages, located: Sequence[_Located], position: Lsn | None) -> list[Piece]:
    """Cut the batches at the last commit, so that what is complete is not held up by what is not."""
    commits = np.flatnonzero(messages.kinds == _C)
    if not len(commits):
        return [Piece(changes=tuple(part.batch for part in located), committed=position)]
    last = int(commits[-1])
    end = Lsn(messages.wire.i8(messages.starts[commits[-1:]] + 10)[0])
    done: list[ChangeBatch] = []
    rest: list[ChangeBatch] = []
    for part in located:
        cut = int(np.searchsorted(part.at, last))
        for pieces, rows in ((done, part.batch.rows.slice(0, cut)), (rest, part.batch.rows.slice(cut))):
            if rows.num_rows:
                pieces.append(ChangeBatch(relation=part.batch.relation, rows=rows))
    complete = Piece(
        changes=tuple(done),
        committed=end if position is None else max(end, position),
        transactions=_summary(messages, messages.transaction[commits]),
    )
    return [complete, Piece(changes=tuple(rest))] if rest else [complete]


def _summary(messages: _Messages, transactions: Positions) -> Transactions:
    """Count the transactions. Their xids are compared by their distance from the first: ids wrap at 2³²."""
    xids = messages.xids[transactions]
    distance = (xids - xids[0] + (1 << 31)) % (1 << 32)
    return Transactions(
        count=len(transactions),
        first_commit_at=_time(messages.committed_at[transactions[0]]),
        last_commit_at=_time(messages.committed_at[transactions[-1]]),
        max_xid=int(xids[np.argmax(distance)]),
    )


def _time(microseconds: np.int64) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(microseconds))
