"""The row messages of one relation as a record batch in the schema of the change log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.change import CHANGE_FIELDS, OLD_KEY, TIMESTAMP, UNCHANGED, change_schema
from neon_lake.errors import ProtocolError
from neon_lake.schema import RESCUED, Column, Relation
from neon_lake.sources.postgres.columns import Field, Positions, Wire, gather, mask_buffer, walk
from neon_lake.sources.postgres.type_map import SqlType, cast, rescue

_INSERT, _UPDATE, _DELETE = b"IUD"
_NEW, _KEY, _OLD = b"NKO"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A relation and how its rows lie on the wire.

    `types` has the type of each wire column, None for one that the pipeline leaves out; the others are the relation's
    columns, in order. `identity` tells which wire columns an old key tuple holds.
    """

    relation: Relation
    types: tuple[SqlType | None, ...]
    identity: tuple[bool, ...]

    def __iter__(self) -> Iterator[tuple[int, Column, SqlType]]:
        """The wanted columns: their place on the wire, what they are in the relation, and their type."""
        columns = iter(self.relation.columns)
        for place, sql_type in enumerate(self.types):
            if sql_type is not None:
                yield place, next(columns), sql_type


@dataclass(frozen=True, kw_only=True)
class Heads:
    """What is known of each change apart from its row: the values of the log's own columns."""

    ops: npt.NDArray[np.uint8]
    lsns: Positions
    ordinals: Positions
    xids: Positions
    committed_at: Positions

    def arrays(self, unchanged: pa.Array) -> list[pa.Array]:
        """The columns of `CHANGE_FIELDS`."""
        rows = len(self.ops)
        offsets = pa.py_buffer(np.arange(rows + 1, dtype=np.int32))
        ops = pa.Array.from_buffers(pa.string(), rows, [None, offsets, pa.py_buffer(self.ops)])
        numbers = [pa.array(values) for values in (self.lsns, self.ordinals, self.xids)]
        return [ops, *numbers, pa.array(self.committed_at).cast(TIMESTAMP), unchanged]


@dataclass(frozen=True, kw_only=True)
class _Tuples:
    """The fields of the rows' main tuples (a delete's is its old one), and of the old tuples of updates with one."""

    main: list[Field]
    old: list[Field]
    old_rows: Positions


def truncated(relation: Relation, heads: Heads) -> pa.RecordBatch:
    """The rows that stand for TRUNCATE: `heads.ops` is T, and the columns are null."""
    schema = change_schema(relation)
    rows = len(heads.ops)
    rest = [pa.nulls(rows, field.type) for field in list(schema)[len(CHANGE_FIELDS) :]]
    return pa.record_batch([*heads.arrays(pa.nulls(rows, schema.field(UNCHANGED).type)), *rest], schema=schema)


def decode_rows(layout: Layout, wire: Wire, starts: Positions, ends: Positions, heads: Heads) -> pa.RecordBatch:
    """Decode the Insert, Update and Delete messages of one relation. Raises `ProtocolError`."""
    tuples = _read(layout, wire, starts, ends, heads.ops)
    rows = len(starts)
    columns, misfits, key_texts = [], [], []
    for place, column, sql_type in layout:
        text = gather(wire, tuples.main[place])
        typed, rescued = cast(text, sql_type)
        columns.append(typed)
        if rescued is not None:
            misfits.append((column.name, text, rescued))
        if column.key or layout.relation.keyless:
            key_texts.append(text)
    schema = change_schema(layout.relation)
    old_key = _old_key(layout, wire, tuples, key_texts, rows)
    return pa.record_batch(
        [
            *heads.arrays(_unchanged(layout, tuples.main, rows)),
            pa.nulls(rows, schema.field(OLD_KEY).type) if old_key is None else old_key,
            rescue(misfits, rows),
            *columns,
        ],
        schema=schema,
    )


def _read(layout: Layout, wire: Wire, starts: Positions, ends: Positions, ops: npt.NDArray[np.uint8]) -> _Tuples:
    """Find every row's fields. An unchanged value that the old tuple holds is taken from there."""
    at = starts + 5
    kinds = wire.bytes[at]
    new, key, full = kinds == _NEW, kinds == _KEY, kinds == _OLD
    if (np.where(ops == _INSERT, ~new, np.where(ops == _DELETE, ~key & ~full, ~new & ~key & ~full))).any():
        raise ProtocolError("the replication stream has a row without the tuple that its kind needs")
    count = len(layout.types)
    old_rows = np.flatnonzero((ops == _UPDATE) & ~new)
    old: list[Field] = []
    if len(old_rows):
        old, after = walk(wire, at[old_rows] + 1, ends[old_rows], count)
        if (after >= ends[old_rows]).any() or (wire.bytes[after] != _NEW).any():
            raise ProtocolError("the replication stream has an update without a new row")
        at[old_rows] = after
    main, after = walk(wire, at + 1, ends, count)
    if (after != ends).any():
        raise ProtocolError("the replication stream has a row that is longer than its columns")
    if old:
        whole = full[old_rows]
        main = [
            field.filled(old_rows, before, whole | identity)
            for field, before, identity in zip(main, old, layout.identity, strict=True)
        ]
    return _Tuples(main=main, old=old, old_rows=old_rows)


def _old_key(
    layout: Layout, wire: Wire, tuples: _Tuples, key_texts: list[pa.Array], rows: int
) -> pa.StructArray | None:
    """The key, or without a key the row, before each update that changed it; None when no row did.

    The server also sends the old key when it did not change: whenever the key is TOASTed, and for full identity.
    """
    keyless = layout.relation.keyless
    keys = [(place, column, sql_type) for place, column, sql_type in layout if column.key or keyless]
    if not keys or not len(tuples.old_rows):
        return None
    olds = [gather(wire, tuples.old[place]) for place, _, _ in keys]
    at = pa.array(tuples.old_rows)
    differs = np.zeros(len(tuples.old_rows), np.bool_)
    for old, text in zip(olds, key_texts, strict=True):
        now = text.take(at)
        same = pc.or_(pc.fill_null(pc.equal(old, now), False), pc.and_(old.is_null(), now.is_null()))
        differs |= ~same.to_numpy(zero_copy_only=False)
    if not differs.any():
        return None
    place_of = np.full(rows, -1, np.int64)
    place_of[tuples.old_rows[differs]] = np.flatnonzero(differs)
    missing = place_of < 0
    place_array = pa.array(place_of, mask=missing)
    casts = [cast(old, sql_type) for old, (_, _, sql_type) in zip(olds, keys, strict=True)]
    children = [typed.values.take(place_array) for typed in casts]
    fields = [pa.field(column.name, column.arrow) for _, column, _ in keys]
    if keyless:
        names = [column.name for _, column, _ in keys]
        misfits = [(n, o, c.rescued) for n, o, c in zip(names, olds, casts, strict=True) if c.rescued is not None]
        children.append(rescue(misfits, len(tuples.old_rows)).take(place_array))
        fields.append(pa.field(RESCUED, pa.string()))
    return pa.StructArray.from_arrays(children, fields=fields, mask=pa.array(missing))


def _unchanged(layout: Layout, fields: list[Field], rows: int) -> pa.Array:
    """The names of the columns whose values were not sent, per row."""
    list_type = pa.list_(pa.string())
    masks = [(column.name, fields[place].unchanged) for place, column, _ in layout]
    masks = [(name, mask) for name, mask in masks if mask.any()]
    if not masks:
        return pa.nulls(rows, list_type)
    matrix = np.column_stack([mask for _, mask in masks])
    counts = matrix.sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    names = pa.array([name for name, _ in masks], pa.string()).take(pa.array(np.nonzero(matrix)[1]))
    buffers = [mask_buffer(counts > 0), pa.py_buffer(offsets)]
    return pa.Array.from_buffers(list_type, rows, buffers, children=[names])
