"""A merge plan as one Delta commit: an append, an overwrite, or a MERGE."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake

from neon_lake.apply.plan import MergePlan
from neon_lake.change import COMMITTED_AT, DELETED_AT, LSN
from neon_lake.schema import KEY

_REMOVED: Final = "_removed"
_RANGES: Final = 16
"""Ranges of keys that a MERGE is told of, at most."""


def widened(delta: DeltaTable, schema: pa.Schema, plan: MergePlan) -> bool:
    """Add the columns that a MERGE will need, by a commit of their own; False when there was nothing to add.

    delta-rs' MERGE can add columns too, but leaves out the table features that their types need, such as timestampNtz:
    nobody can open the table after that.
    """
    if not _is_merge(schema, plan) or {f.name for f in delta.schema().fields}.issuperset(schema.names):
        return False
    write_deltalake(delta, schema.empty_table(), mode="append", schema_mode="merge")
    return True


def _is_merge(schema: pa.Schema, plan: MergePlan) -> bool:
    emptied = plan.truncate is not None and DELETED_AT not in schema.names
    return not plan.empty and not emptied and not (plan.only_new and plan.truncate is None)


def commit(delta: DeltaTable, schema: pa.Schema, plan: MergePlan, properties: CommitProperties) -> None:
    """Carry out a plan. A merge that finds nothing to do makes no commit, and no plan that is empty either.

    Columns of `schema` that the table lacks are added; for a MERGE, `widened` has done it.
    """
    fields = {f.name for f in delta.schema().fields}
    added = set(schema.names) - fields
    if plan.empty and not added:
        return
    if _is_merge(schema, plan):
        _merge(delta, schema, plan, properties)
    elif plan.truncate:
        write_deltalake(
            delta, plan.rows, mode="overwrite", schema_mode="merge" if added else None, commit_properties=properties
        )
    else:
        write_deltalake(
            delta,
            plan.rows,
            mode="append",
            schema_mode="merge" if fields != set(schema.names) else None,
            commit_properties=properties,
        )


def _merge(delta: DeltaTable, schema: pa.Schema, plan: MergePlan, properties: CommitProperties) -> None:
    keys = [f.name for f in schema if f.metadata and KEY in f.metadata]
    values = {quoted(name): f"s.{quoted(name)}" for name in schema.names}
    source = _with_removals(schema, plan)
    # of a table without a key, what is put never takes the place of a row that is there
    put_apart = [f"s.{_REMOVED}"] if plan.copies else []
    merger = (
        delta.merge(
            source,
            " AND ".join([*(_same(schema.field(name)) for name in keys), *put_apart, *_near(source, keys[0])]),
            source_alias="s",
            target_alias="t",
            # planned with the source in hand, files outside its key range are not read
            streamed_exec=False,
            commit_properties=properties,
        )
        .when_matched_delete(f"s.{_REMOVED}")
        .when_matched_update(values)
        .when_not_matched_insert(values, predicate=f"NOT s.{_REMOVED}")
    )
    if plan.truncate:
        gone = f"to_timestamp_micros({int(plan.truncate.committed_at.timestamp() * 1_000_000)})"
        merger = merger.when_not_matched_by_source_update(
            {
                quoted(DELETED_AT): f"arrow_cast({gone}, 'Timestamp(Microsecond, Some(\"UTC\"))')",
                quoted(COMMITTED_AT): f"arrow_cast({gone}, 'Timestamp(Microsecond, Some(\"UTC\"))')",
                quoted(LSN): str(int(plan.truncate.lsn)),
            },
            predicate=f"t.{quoted(DELETED_AT)} IS NULL",
        )
    merger.execute()


def _same(field: pa.Field) -> str:
    """The condition that a key column is the same on both sides.

    Files' statistics know nothing of NaN, and the planner trusts them: it takes a file with 1 and NaN for one with 1
    alone. So floating-point keys are compared by their text, which has as many digits as it takes.
    """
    sides = (f"t.{quoted(field.name)}", f"s.{quoted(field.name)}")
    return " = ".join(f"CAST({side} AS STRING)" if pa.types.is_floating(field.type) else side for side in sides)


def _near(source: pa.Table, key: str) -> list[str]:
    """A condition that says nothing new of matching rows: their key lies where the source has keys.

    By it, files are passed over that lie between an old row and the new ones. delta-rs reads the others, and holds what
    it has read until it knows whether the file changes.
    """
    if not len(source) or not pa.types.is_integer(source.schema.field(key).type):
        return []
    column = f"t.{quoted(key)}"
    near = [f"({column} >= {a} AND {column} <= {b})" for a, b in ranges(source[key].to_numpy(), _RANGES)]
    return [f"({' OR '.join(near)})"]


def ranges(keys: np.ndarray[Any, Any], most: int) -> list[tuple[int, int]]:
    """Ranges that all of the integer keys lie in, `most` of them at most, with the widest gaps between them."""
    found = np.unique(keys)
    # without a sign, the widest gap of 64 bits fits too
    gaps = np.diff(found.astype(np.int64).view(np.uint64))
    ends = np.sort(np.argsort(gaps)[::-1][: most - 1])
    firsts, lasts = found[np.r_[0, ends + 1]], found[np.r_[ends, len(found) - 1]]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _with_removals(schema: pa.Schema, plan: MergePlan) -> pa.Table:
    """Rows and keys to remove as one source, told apart by the column `_removed`."""
    rows = plan.rows.append_column(_REMOVED, pa.repeat(False, len(plan.rows)))
    if not len(plan.deletes):
        return rows
    count, keys = len(plan.deletes), plan.deletes.column_names
    columns = [plan.deletes[f.name].cast(f.type) if f.name in keys else pa.nulls(count, f.type) for f in schema]
    removals = pa.table(columns, schema=schema)
    return pa.concat_tables([rows, removals.append_column(_REMOVED, pa.repeat(True, len(removals)))])


def quoted(name: str) -> str:
    """A column name as delta-rs' SQL takes any name."""
    return "`" + name.replace("`", "``") + "`"
