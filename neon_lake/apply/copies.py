"""The write mode `mirror` for tables without a key: as many copies of each row as the source has.

Such a table is a multiset. A change adds a copy of its new row and takes away one of its old row, which the WAL holds
whole (REPLICA IDENTITY FULL); copies of the same row are not to be told apart, here or there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.apply.events import Indices, after_truncate, key_numbers
from neon_lake.apply.plan import MergePlan, target_schema
from neon_lake.change import COMMITTED_AT, DELETE, INSERT, LSN, OLD_KEY, OP, ROW_ID
from neon_lake.config import Deletes
from neon_lake.fingerprint import row_ids
from neon_lake.schema import RESCUED, Relation

Held = Callable[[pa.Table], pa.Table]
"""(`_row_id`s) → the `_row_id` of every row of the target that has one of these."""


def copies(relation: Relation, changes: pa.Table, held: Held) -> MergePlan:
    """Count changes (schema `change_schema(relation)`, in order) up to the copies of each row that have to be there."""
    changes, truncated = after_truncate(changes)
    rows, sign = _versions(relation, changes)
    number = key_numbers([rows[ROW_ID]])
    net = np.bincount(number, weights=sign).astype(np.int64)
    last = np.zeros(len(net), dtype=np.int64)
    last[number] = np.arange(len(number))
    losing = np.flatnonzero(net < 0)
    ids = rows.select([ROW_ID]).take(last[losing])
    present = np.zeros(len(net), dtype=np.int64)
    if len(losing) and truncated is None:
        found = pc.value_counts(held(ids)[ROW_ID].combine_chunks())
        place = pc.index_in(ids[ROW_ID].combine_chunks(), found.field("values"))
        there = np.asarray(pc.fill_null(pc.take(found.field("counts"), place), 0))
        present[losing] = there
    wanted = present + net
    schema = target_schema(relation, Deletes.HARD)
    put = np.repeat(last, np.maximum(wanted, 0))
    return MergePlan(
        rows=rows.take(put).select(schema.names).cast(schema),
        deletes=ids.filter(pa.array(present[losing] > 0)),
        only_new=not present.any(),
        truncate=truncated,
        incomplete=int(-wanted[wanted < 0].sum()),
        copies=True,
    )


def _versions(relation: Relation, changes: pa.Table) -> tuple[pa.Table, Indices]:
    """The rows that changes bring (+1) and take away (-1), with their ids. An update of nothing is neither."""
    names = [*(column.name for column in relation.columns), RESCUED]
    op, old = changes[OP].combine_chunks(), changes[OLD_KEY].combine_chunks()
    moved = old.is_valid()
    new = changes.filter(pc.or_(pc.equal(op, INSERT), moved)).select([*names, LSN, COMMITTED_AT])
    gone = changes.filter(pc.equal(op, DELETE)).select([*names, LSN, COMMITTED_AT])
    before = changes.filter(moved).select([LSN, COMMITTED_AT])
    for name in names:
        before = before.append_column(new.schema.field(name), pc.struct_field(old.filter(moved), name))
    rows = pa.concat_tables([new, gone, before.select(new.column_names)])
    sign = np.repeat([1, -1], [len(new), len(gone) + len(before)])
    return rows.append_column(ROW_ID, row_ids(rows, names)), sign
