"""The write mode `append`: every change is a row of the lake, and none is ever altered.

A row has the operation, its position (`_lsn`, `_seq`), and all values of its version of the row: what was not sent,
because it is stored apart and did not change, is filled in. An update that changes the key, or of a table without a key
anything, is two rows at one position: the old row's end, and the new row's beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.apply.events import Events, events, key_numbers, split_moves, with_column
from neon_lake.apply.plan import MergePlan, target_schema
from neon_lake.apply.toast import Lookup, filled, unsent
from neon_lake.change import INSERT, LSN, OLD_KEY, OP, SEQUENCE, TRUNCATE, UPDATE
from neon_lake.config import Deletes, WriteMode
from neon_lake.schema import RESCUED, Relation


def append(relation: Relation, changes: pa.Table, lookup: Lookup) -> MergePlan:
    """Turn changes (schema `change_schema(relation)`, in order) into rows to append, in order."""
    truncate = pc.equal(changes[OP], TRUNCATE)
    of_rows = changes.filter(pc.invert(truncate))
    incomplete = 0
    if relation.key:
        rows, incomplete = _of_keys(relation, of_rows, lookup)
    else:
        rows = _of_whole_rows(relation, of_rows) if relation.keyless else of_rows
    schema = target_schema(relation, Deletes.HARD, mode=WriteMode.APPEND)
    rows = pa.concat_tables([rows, changes.filter(truncate)]).select(schema.names).cast(schema)
    if pc.any(truncate).as_py():
        rows = rows.sort_by([(LSN, "ascending"), (SEQUENCE, "ascending")])
    return MergePlan(rows=rows, deletes=rows.select([]), only_new=True, incomplete=incomplete)


def _of_keys(relation: Relation, changes: pa.Table, lookup: Lookup) -> tuple[pa.Table, int]:
    """One row per event of a key, whole; and how many could not be made whole."""
    found = events(relation, changes)
    rows, incomplete = filled(found, np.arange(len(found.rows)), unsent(found), _newest(lookup))
    begins = pc.and_(pc.equal(rows[OP], UPDATE), pa.chunked_array([pa.array(found.begins)]))
    rows = with_column(rows, OP, pc.if_else(begins, INSERT, rows[OP]))
    return _without_new_values(found, rows), int((incomplete & ~found.ends).sum())


def _without_new_values(found: Events, rows: pa.Table) -> pa.Table:
    """The end of a moved row's old key has no other values: those of its change are the new row's."""
    split = pa.array(found.ends & np.asarray(rows[OLD_KEY].combine_chunks().is_valid()))
    if not pc.any(split).as_py():
        return rows
    keys = {column.name for column in found.relation.key}
    for name in [*(column.name for column in found.relation.columns if column.name not in keys), RESCUED]:
        rows = with_column(rows, name, pc.if_else(split, pa.scalar(None, rows.schema.field(name).type), rows[name]))
    return rows


def _newest(lookup: Lookup) -> Lookup:
    """The newest row of each key, from a target that has many."""

    def newest(keys: pa.Table, columns: Sequence[str]) -> pa.Table:
        names = keys.column_names
        found = lookup(keys, [*columns, LSN, SEQUENCE]).sort_by([(LSN, "ascending"), (SEQUENCE, "ascending")])
        number = key_numbers([found[name] for name in names])
        last = np.zeros(int(number.max(initial=-1)) + 1, dtype=np.int64)
        last[number] = np.arange(len(number))
        return found.take(last).select([*names, *columns])

    return newest


def _of_whole_rows(relation: Relation, changes: pa.Table) -> pa.Table:
    """Changes of a table without a key; an update is the end of one row and the beginning of another."""
    rows, moved = split_moves(changes, [*(column.name for column in relation.columns), RESCUED])
    is_begin = np.zeros(len(rows), dtype=bool)
    is_begin[moved] = True
    return with_column(rows, OP, pc.if_else(pa.array(is_begin), INSERT, rows[OP]))
