from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neon_lake.change import Lsn, Piece, Transactions
from neon_lake.errors import ProtocolError
from neon_lake.schema import TableName
from neon_lake.sources.postgres.pgoutput import Decoder
from neon_lake_tests.fixtures import wire
from neon_lake_tests.fixtures.wire import Toast, Value

T0 = 1_760_000_000_000_000
"""A commit time in microseconds since 1970."""

Row = dict[str, Any]


@dataclass
class Stream:
    """Messages, and what they must decode to."""

    frames: list[bytes] = field(default_factory=list)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    commits_at: list[int] = field(default_factory=list)

    def add(self, message: bytes) -> None:
        self.frames.append(wire.frame(message))


@dataclass(frozen=True)
class Table:
    oid: int
    name: str
    columns: tuple[tuple[str, int, bool], ...]

    def message(self) -> bytes:
        return wire.relation(self.oid, "public", self.name, self.columns)


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


def values_of(type_oid: int) -> st.SearchStrategy[str]:
    if type_oid == 23:
        return st.integers(-(2**31), 2**31 - 1).map(str)
    if type_oid == 16:
        return st.sampled_from(["t", "f"])
    return text


def typed(value: Value, type_oid: int) -> Any:
    if not isinstance(value, str):
        return None
    if type_oid == 16:
        return value == "t"
    return int(value) if type_oid == 23 else value


@st.composite
def tables(draw: st.DrawFn, oid: int) -> Table:
    types = draw(st.lists(st.sampled_from([25, 23, 16]), min_size=1, max_size=5))
    keys = draw(st.lists(st.booleans(), min_size=len(types), max_size=len(types)))
    keys[0] = keys[0] or not any(keys)
    columns = zip([f"c{i}" for i in range(len(types))], types, keys, strict=True)
    return Table(oid, f"t{oid}", tuple(columns))


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    stream = Stream()
    known = [draw(tables(oid)) for oid in range(1, draw(st.integers(1, 3)) + 1)]
    announced: set[int] = set()
    lsn, xid = 1000, draw(st.sampled_from([5, 2**32 - 2]))
    for _ in range(draw(st.integers(1, 5))):
        xid = (xid + 1) % 2**32
        lsn += 100
        changes = draw(st.integers(0, 6))
        committed_at = T0 + lsn
        stream.add(wire.begin(lsn, committed_at, xid))
        for seq in range(changes):
            place = draw(st.integers(0, len(known) - 1))
            if draw(st.integers(0, 9)) == 0:
                known[place] = draw(tables(known[place].oid))
                announced.discard(place)
            if place not in announced or draw(st.booleans()):
                stream.add(known[place].message())
                announced.add(place)
            head = {"_lsn": lsn, "_seq": seq, "_xid": xid, "_committed_at": _time(committed_at)}
            message, row = draw(_changes(known[place]))
            stream.add(message)
            stream.rows.setdefault(known[place].name, []).append(head | row)
        stream.add(wire.commit(lsn, lsn + 50, committed_at))
        stream.ends.append(lsn + 50)
        stream.commits_at.append(len(stream.frames))
    return stream


@st.composite
def _changes(draw: st.DrawFn, table: Table) -> tuple[bytes, Row]:
    names = [name for name, _, _ in table.columns]
    keys = [name for name, _, key in table.columns if key]
    new: list[Value] = [
        draw(values_of(t) if key else st.one_of(st.none(), values_of(t))) for _, t, key in table.columns
    ]

    def row(op: str, values: Sequence[Value], **more: Any) -> Row:
        columns = {n: typed(v, t) for n, v, (_, t, _) in zip(names, values, table.columns, strict=True)}
        return {"_op": op, "_unchanged": None, "_old_key": None, "_rescued_data": None} | columns | more

    kind = draw(st.sampled_from("IUKODT"))
    if kind == "T":
        return wire.truncate([table.oid]), row("T", [None] * len(names))
    if kind == "I":
        return wire.insert(table.oid, new), row("I", new)
    if kind == "D":
        whole = draw(st.booleans())
        old = [v if key or whole else None for v, (_, _, key) in zip(new, table.columns, strict=True)]
        return wire.delete(table.oid, old, "O" if whole else "K"), row("D", old)
    sent = [
        draw(st.sampled_from([v, Toast.UNCHANGED])) if not key or kind != "U" else v
        for v, (_, _, key) in zip(new, table.columns, strict=True)
    ]
    if kind == "U":
        missing = [n for n, v in zip(names, sent, strict=True) if v is Toast.UNCHANGED]
        return wire.update(table.oid, sent), row("U", sent, _unchanged=missing or None)
    old = [draw(values_of(t)) if key or kind == "O" else None for _, t, key in table.columns]
    result = [
        o if v is Toast.UNCHANGED and (key or kind == "O") else v
        for o, v, (_, _, key) in zip(old, sent, table.columns, strict=True)
    ]
    missing = [n for n, v in zip(names, result, strict=True) if v is Toast.UNCHANGED]
    before = {n: typed(o, t) for n, o, (_, t, key) in zip(names, old, table.columns, strict=True) if key}
    moved = any(o != v for o, v, (_, _, key) in zip(old, result, table.columns, strict=True) if key)
    assert list(before) == keys
    return (
        wire.update(table.oid, sent, old, kind),
        row("U", result, _unchanged=missing or None, _old_key=before if moved else None),
    )


def _time(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def decoded(pieces: Sequence[Piece]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    for piece in pieces:
        for batch in piece.changes:
            batch.rows.validate(full=True)
            rows.setdefault(batch.relation.table.name, []).extend(batch.rows.to_pylist())
    return rows


def decode_in(frames: Sequence[bytes], cuts: Sequence[int]) -> list[Piece]:
    decoder = Decoder(wire.describe)
    edges = [0, *sorted(cuts), len(frames)]
    return [p for a, b in itertools.pairwise(edges) for p in decoder.decode(frames[a:b])]


@given(streams(), st.data())
def test_any_stream_cut_anywhere_gives_its_rows(stream: Stream, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream.frames))))
    pieces = decode_in(stream.frames, cuts)
    assert decoded(pieces) == stream.rows
    total = sum((piece.transactions for piece in pieces), Transactions())
    assert total.count == len(stream.ends)
    assert [p.committed for p in pieces if p.committed is not None][-1] == stream.ends[-1]


@given(streams())
def test_what_is_committed_holds_exactly_the_transactions_before_it(stream: Stream) -> None:
    for cut in range(len(stream.frames) + 1):
        whole = sum(at <= cut for at in stream.commits_at)
        pieces = Decoder(wire.describe).decode(stream.frames[:cut])
        committed = [p.committed for p in pieces if p.committed is not None]
        assert committed == ([stream.ends[whole - 1]] if whole else [])
        for piece in pieces:
            limit = stream.ends[whole - 1] if whole and piece.committed is not None else None
            for batch in piece.changes:
                lsns = batch.rows.column("_lsn").to_pylist()
                assert all(lsn < limit if limit else lsn > (stream.ends[whole - 1] if whole else 0) for lsn in lsns)


@given(streams(), st.data())
def test_damage_is_refused_or_gives_valid_rows(stream: Stream, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(stream.frames) - 1))
    damaged = bytearray(stream.frames[place])
    match data.draw(st.sampled_from(["flip", "cut", "grow", "drop", "double"])):
        case "flip":
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
            changed = [bytes(damaged)]
        case "cut":
            changed = [bytes(damaged[: data.draw(st.integers(0, len(damaged) - 1))])]
        case "grow":
            changed = [bytes(damaged) + data.draw(st.binary(min_size=1, max_size=9))]
        case "drop":
            changed = []
        case _:
            changed = [bytes(damaged)] * 2
    frames = [*stream.frames[:place], *changed, *stream.frames[place + 1 :]]
    try:
        pieces = Decoder(wire.describe).decode(frames)
    except ProtocolError:
        return
    decoded(pieces)


def one(
    *messages: bytes, columns: Sequence[tuple[str, int, bool]] = (("id", 23, True), ("v", 25, False))
) -> list[bytes]:
    """A transaction of `messages` on table 7."""
    body = [wire.begin(100, T0, 9), wire.relation(7, "public", "t", columns), *messages, wire.commit(100, 150, T0)]
    return [wire.frame(message) for message in body]


@pytest.mark.parametrize(
    "message",
    [
        b"I" + bytes([0, 0, 0, 7]) + b"N" + bytes([0, 2]) + b"t" + bytes([255] * 4) + b"nn",
        b"I" + bytes([0, 0, 0, 7]) + b"N" + bytes([0, 2]) + b"t" + bytes([0, 0, 0, 9]) + b"1",
        b"I" + bytes([0, 0, 0, 7]) + b"N" + bytes([0, 3]) + b"nnn",
        b"I" + bytes([0, 0, 0, 7]) + b"N" + bytes([0, 2]) + b"n",
        b"I" + bytes([0, 0, 0, 7]) + b"N" + bytes([0, 2]) + b"nnn",
        b"I" + bytes([0, 0, 0, 7]) + b"N" + bytes([0, 2]) + b"nb",
        b"I" + bytes([0, 0, 0, 7]) + b"K" + bytes([0, 2]) + b"nn",
        b"D" + bytes([0, 0, 0, 7]) + b"N" + bytes([0, 2]) + b"nn",
        b"U" + bytes([0, 0, 0, 7]) + b"K" + bytes([0, 2]) + b"nn",
        b"I" + bytes([0, 0, 0, 8]) + b"N" + bytes([0, 2]) + b"nn",
        b"I" + bytes([0, 0, 0, 7]),
        b"T" + bytes([0, 0, 0, 9, 0, 0, 0, 0, 7]),
        b"T" + bytes([0, 0, 0, 1, 0, 0, 0, 0, 8]),
        b"R" + bytes([0, 0, 0, 7]) + b"public",
        b"Z",
        wire.begin(1, T0, 1),
    ],
)  # fmt: skip
def test_a_message_that_breaks_the_protocol_is_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder(wire.describe).decode(one(message))


def test_text_that_is_not_utf8_is_refused() -> None:
    message = b"I" + bytes([0, 0, 0, 7]) + b"N" + bytes([0, 2]) + b"t" + bytes([0, 0, 0, 1]) + b"1"
    with pytest.raises(ProtocolError, match="UTF-8"):
        Decoder(wire.describe).decode(one(message + b"t" + bytes([0, 0, 0, 1]) + b"\xff"))


def test_a_frame_that_is_not_wal_data_is_refused() -> None:
    with pytest.raises(ProtocolError):
        Decoder(wire.describe).decode([b"k" + bytes(40)])


def test_a_relation_that_is_said_again_does_not_cut_the_batch() -> None:
    columns = (("id", 23, True), ("v", 25, False))
    again = wire.relation(7, "public", "t", columns)
    (piece,) = Decoder(wire.describe).decode(one(wire.insert(7, ["1", "a"]), again, wire.insert(7, ["2", "b"])))
    (batch,) = piece.changes
    assert batch.rows.column("id").to_pylist() == [1, 2]


def test_a_relation_that_changes_within_a_transaction_gives_a_batch_for_each_layout() -> None:
    wider = wire.relation(7, "public", "t", (("id", 23, True), ("v", 25, False), ("w", 16, False)))
    frames = one(wire.insert(7, ["1", "a"]), wider, wire.insert(7, ["2", "b", "t"]))
    (piece,) = Decoder(wire.describe).decode(frames)
    assert [batch.rows.schema.names[-1] for batch in piece.changes] == ["v", "w"]
    assert [batch.rows.column("_seq").to_pylist() for batch in piece.changes] == [[0], [1]]


def test_a_relation_that_nobody_wants_counts_in_the_order_but_gives_no_rows() -> None:
    other = wire.relation(8, "public", "other", (("id", 23, True),))
    frames = one(other, wire.insert(8, ["1"]), wire.insert(7, ["2", "b"]))
    decoder = Decoder(lambda message: wire.describe(message) if message.name == "t" else None)
    (piece,) = decoder.decode(frames)
    (batch,) = piece.changes
    assert batch.relation.table == TableName("public", "t")
    assert batch.rows.column("_seq").to_pylist() == [1]


@pytest.mark.parametrize("at", range(7))
def test_a_rolled_back_subtransaction_that_was_never_sent_is_passed_over(at: int) -> None:
    frames = one(wire.insert(7, ["1", "a"]), wire.insert(7, ["2", "b"]))
    aborted = wire.frame(b"A" + bytes([0, 0, 3, 8, 0, 0, 3, 9]))
    plain, noisy = Decoder(wire.describe), Decoder(wire.describe)
    (whole,) = noisy.decode([*frames[:at], aborted, *frames[at:]])
    assert [batch.rows for batch in whole.changes] == [batch.rows for batch in plain.decode(frames)[0].changes]
    assert whole.committed == 150
    assert noisy.decode([aborted], Lsn(400)) == [Piece(committed=Lsn(400))]
    assert noisy.decode([aborted]) == []


@pytest.mark.parametrize("cut", range(8))
def test_a_partition_is_named_with_its_first_row(cut: int) -> None:
    leaf = wire.relation(8, "public", "leaf", (("id", 23, True), ("v", 25, False)))
    other = wire.relation(9, "public", "other", (("id", 23, True),))
    rows = (wire.insert(7, ["1", "a"]), wire.insert(7, ["2", "b"]), other, wire.insert(9, ["3"]))
    frames = one(leaf, *rows)
    decoder = Decoder(wire.describe)
    pieces = [*decoder.decode(frames[:cut]), *decoder.decode(frames[cut:])]
    assert [pair for piece in pieces for pair in piece.partitions] == [(TableName("public", "t"), 8)]


def test_a_truncate_of_several_tables_is_a_row_of_each() -> None:
    other = wire.relation(8, "public", "other", (("id", 23, True),))
    frames = one(other, wire.insert(7, ["1", "a"]), wire.truncate([7, 8]), wire.insert(7, ["2", "b"]))
    (piece,) = Decoder(wire.describe).decode(frames)
    ops = {b.relation.table.name: b.rows.select(["_op", "_seq"]).to_pylist() for b in piece.changes}
    assert ops["t"] == [{"_op": "I", "_seq": 0}, {"_op": "T", "_seq": 1}, {"_op": "I", "_seq": 3}]
    assert ops["other"] == [{"_op": "T", "_seq": 1}]


def test_a_value_that_does_not_fit_its_type_is_rescued() -> None:
    frames = one(
        wire.insert(7, ["1", "infinity"]),
        wire.insert(7, ["2", "2026-01-02 03:04:05.5"]),
        wire.insert(7, ["3", "0044-03-15 00:00:00 BC"]),
        columns=(("id", 23, True), ("v", 1114, False)),
    )
    (piece,) = Decoder(wire.describe).decode(frames)
    rows = piece.changes[0].rows
    assert rows.column("v").to_pylist() == [None, datetime(2026, 1, 2, 3, 4, 5, 500000), None]  # noqa: DTZ001
    assert rows.column("_rescued_data").to_pylist() == ['{"v": "infinity"}', None, '{"v": "0044-03-15 00:00:00 BC"}']


def test_a_position_counts_only_outside_a_transaction() -> None:
    decoder = Decoder(wire.describe)
    frames = one(wire.insert(7, ["1", "a"]))
    assert decoder.decode([], Lsn(90)) == [Piece(committed=Lsn(90))]
    (inside,) = decoder.decode(frames[:3], Lsn(95))
    assert inside.committed is None
    assert decoder.decode([], Lsn(99)) == []
    (done,) = decoder.decode(frames[3:], Lsn(400))
    assert done.committed == 400


def test_an_empty_transaction_only_moves_the_position() -> None:
    frames = [wire.frame(wire.begin(100, T0, 9)), wire.frame(wire.commit(100, 150, T0))]
    (piece,) = Decoder(wire.describe).decode(frames)
    assert piece.changes == ()
    assert piece.committed == 150
    assert piece.transactions == Transactions(count=1, first_commit_at=_time(T0), last_commit_at=_time(T0), max_xid=9)


def test_the_highest_xid_is_found_across_the_wrap() -> None:
    frames = [
        wire.frame(message)
        for lsn, xid in ((100, 2**32 - 1), (200, 3), (300, 1))
        for message in (wire.begin(lsn, T0, xid), wire.commit(lsn, lsn + 50, T0))
    ]
    (piece,) = Decoder(wire.describe).decode(frames)
    assert piece.transactions.max_xid == 3


def test_an_unchanged_value_of_a_full_identity_comes_from_the_old_row() -> None:
    columns = (("id", 23, True), ("v", 25, True))
    frames = one(wire.update(7, ["2", Toast.UNCHANGED], ["1", "long"], "O"), columns=columns)
    (piece,) = Decoder(wire.describe).decode(frames)
    (row,) = piece.changes[0].rows.to_pylist()
    assert (row["v"], row["_unchanged"], row["_old_key"]) == ("long", None, {"id": 1, "v": "long"})


def test_batches_follow_their_declared_schema() -> None:
    (piece,) = Decoder(wire.describe).decode(one(wire.insert(7, ["1", "a"])))
    assert isinstance(piece.changes[0].rows, pa.RecordBatch)
    assert piece.changes[0].rows.schema.names == [
        "_op", "_lsn", "_seq", "_xid", "_committed_at", "_unchanged", "_old_key", "_rescued_data", "id", "v",
    ]  # fmt: skip
