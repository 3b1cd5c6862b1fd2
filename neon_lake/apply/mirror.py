"""The write mode `mirror`: the lake has the rows that the source has (SCD type 1)."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.apply.events import events as events_of
from neon_lake.apply.plan import MergePlan, target_schema
from neon_lake.apply.toast import Lookup, filled, unsent
from neon_lake.change import COMMITTED_AT, DELETED_AT, TIMESTAMP
from neon_lake.config import Deletes
from neon_lake.schema import Relation


def mirror(
    relation: Relation,
    changes: pa.Table,
    lookup: Lookup,
    *,
    deletes: Deletes,
    fresh: bool = True,
    touched_before: datetime | None = None,
) -> MergePlan:
    """Compact changes (schema `change_schema(relation)`, in order) to what the target has to become.

    The last event of a key decides. `fresh` says that the target has not seen these changes, so that an insert is of
    a key that it lacks: the mirror is exact and in order. A replay is not fresh. With `touched_before`, only keys
    that a change committed before then speaks of are in the plan.
    """
    events = events_of(relation, changes)
    last, soft, applied = events.last, deletes is Deletes.SOFT, not fresh
    fresh = fresh or events.truncated is not None
    # a key that begins in this batch and ends in it was never in the target
    known_absent = events.begins[events.first] & fresh
    if touched_before is not None:
        early = np.asarray(pc.less(events.rows[COMMITTED_AT], pa.scalar(touched_before, TIMESTAMP)))
        last = last[np.isin(events.key[last], events.key[early])]
    missing = unsent(events)
    if soft:
        keys = {column.name for column in relation.key}
        for column in relation.columns:
            if column.name not in keys:
                missing[column.name] = missing.get(column.name, np.zeros_like(events.ends)) | events.ends
        puts, ends = last, last[:0]
    else:
        puts = last[~events.ends[last]]
        ends = last[events.ends[last] & ~known_absent[events.key[last]]]
    rows, incomplete = filled(events, puts, missing, lookup, applied=applied)
    if soft:
        gone = pa.array(events.ends[puts])
        rows = rows.append_column(DELETED_AT, pc.if_else(gone, rows[COMMITTED_AT], pa.scalar(None, TIMESTAMP)))
    rows = rows.select(target_schema(relation, deletes).names).cast(target_schema(relation, deletes))
    return MergePlan(
        rows=rows.filter(pa.array(~incomplete)) if incomplete.any() else rows,
        deletes=events.rows.select([column.name for column in relation.key]).take(ends),
        only_new=not soft and not len(ends) and bool(known_absent[events.key[puts]].all()),
        truncate=events.truncated,
        incomplete=int(incomplete.sum()),
    )
