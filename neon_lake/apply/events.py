"""Changes as events of keys: each row speaks of one key, and knows the row that spoke of it before.

An update that changes the key is two events: the old key ends, and the new key begins with the old row's values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.apply.plan import Truncation
from neon_lake.change import COMMITTED_AT, DELETE, INSERT, LSN, OLD_KEY, OP, TRUNCATE, Lsn
from neon_lake.schema import Relation

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Events:
    """Events in the order of their changes, after the last TRUNCATE.

    rows: the changes, one row per event; `key`: a dense number of each event's key; `previous`: the event that left
    the state which this one starts from (of a moved row: the last one of its old key), or -1 when that state is the
    target's; `begins`: the event brings a key that was not there; `ends`: it takes it away; `truncated`: the TRUNCATE
    that came before all of them.
    """

    relation: Relation
    rows: pa.Table
    key: Indices
    previous: Indices
    begins: Mask
    ends: Mask
    truncated: Truncation | None

    @property
    def last(self) -> Indices:
        """The last event of each key, in the order of the log."""
        last = np.full(int(self.key.max()) + 1 if len(self.key) else 0, -1, dtype=np.int64)
        last[self.key] = np.arange(len(self.key))
        return np.sort(last)

    @property
    def first(self) -> Indices:
        """For each key number, its first event."""
        first = np.full(int(self.key.max()) + 1 if len(self.key) else 0, -1, dtype=np.int64)
        first[self.key[::-1]] = np.arange(len(self.key))[::-1]
        return first


def events(relation: Relation, changes: pa.Table) -> Events:
    """Turn changes (schema `change_schema(relation)`, in order) into events."""
    changes, truncated = after_truncate(changes)
    rows, moved = split_moves(changes, [column.name for column in relation.key])
    key = key_numbers([rows[column.name] for column in relation.key])
    previous = _previous_of_same_key(key)
    # a moved row goes on from what its old key was; that key's end is the event just before it
    previous[moved] = previous[moved - 1]
    op = rows[OP].combine_chunks()
    ends = np.asarray(pc.equal(op, DELETE))
    begins = np.asarray(pc.equal(op, INSERT)).copy()
    begins[moved] = True
    return Events(
        relation=relation, rows=rows, key=key, previous=previous, begins=begins, ends=ends, truncated=truncated
    )


def after_truncate(changes: pa.Table) -> tuple[pa.Table, Truncation | None]:
    """The changes behind the last TRUNCATE, and that one."""
    found = np.flatnonzero(np.asarray(pc.equal(changes[OP].combine_chunks(), TRUNCATE)))
    if not len(found):
        return changes, None
    last = int(found[-1])
    truncation = Truncation(lsn=Lsn(changes[LSN][last].as_py()), committed_at=changes[COMMITTED_AT][last].as_py())
    return changes.slice(last + 1), truncation


def split_moves(changes: pa.Table, names: Sequence[str]) -> tuple[pa.Table, Indices]:
    """Put the end of the old row before each change that moved one; also gives where the moved rows are then.

    `names` are the columns of the old row, as `_old_key` has them.
    """
    moves = np.asarray(pc.is_valid(changes[OLD_KEY].combine_chunks()))
    repeats = np.where(moves, 2, 1)
    rows = changes.take(np.repeat(np.arange(len(changes)), repeats)) if moves.any() else changes
    moved = (np.cumsum(repeats) - 1)[moves]
    if not len(moved):
        return rows, moved
    is_end = np.zeros(len(rows), dtype=bool)
    is_end[moved - 1] = True
    mask = pa.array(is_end)
    old = rows[OLD_KEY].combine_chunks()
    rows = with_column(rows, OP, pc.if_else(mask, DELETE, rows[OP]))
    for name in names:
        rows = with_column(rows, name, pc.if_else(mask, pc.struct_field(old, name), rows[name]))
    return rows, moved


def key_numbers(columns: list[pa.ChunkedArray]) -> Indices:
    """A dense number for each distinct combination of values, the same for equal ones. Null is a value."""
    numbers: Indices | None = None
    for column in columns:
        codes = np.asarray(pc.dictionary_encode(column.combine_chunks(), null_encoding="encode").indices, np.int64)
        if numbers is None:
            numbers = codes
        else:
            numbers = np.unique(numbers * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1]
    assert numbers is not None, "a table in mirror mode has a key"
    return numbers


def _previous_of_same_key(key: Indices) -> Indices:
    order = np.argsort(key, kind="stable")
    previous = np.full(len(key), -1, dtype=np.int64)
    if len(key):
        same = key[order[1:]] == key[order[:-1]]
        previous[order[1:][same]] = order[:-1][same]
    return previous


def with_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with other values in the column `name`, in its place and with its field."""
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), values)
