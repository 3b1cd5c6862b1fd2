"""What a warehouse is given to apply: files that are staged where it can read them, and what is known of them.

The counterpart of `MergePlan`, for a destination that compacts and merges by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.apply.events import Mask
from neon_lake.apply.events import events as events_of
from neon_lake.apply.plan import Truncation
from neon_lake.apply.toast import Lookup, before, filled, origins, unsent
from neon_lake.change import COMMITTED_AT, LSN, OP, SEQUENCE, TIMESTAMP, TRUNCATE, UNCHANGED, UPDATE, Lsn
from neon_lake.config import Deletes, WriteMode
from neon_lake.schema import RESCUED, Relation


@dataclass(frozen=True, kw_only=True)
class StagedFile:
    """A segment: its path in staging, the relation that its rows are of, and its size in bytes."""

    path: str
    relation: Relation
    bytes: int


@dataclass(frozen=True, kw_only=True)
class StagedChanges:
    """The changes of one table that commit in [since, until), in `change_schema` of each file's relation.

    relation: what the table is at their end; `after`: only what comes behind this (`_lsn`, `_seq`) counts, the place of
    the last TRUNCATE, which is `truncation`; unsent: columns that some change may not have sent; moved: whether a key
    may have changed; grows: whether there is nothing but inserts. `resolved`: the one file is of `resolved_schema`, and
    has the changes as events.
    """

    relation: Relation
    files: Sequence[StagedFile]
    since: Lsn
    until: Lsn
    mode: WriteMode
    deletes: Deletes
    unsent: frozenset[str] = frozenset()
    moved: bool = False
    grows: bool = False
    truncation: Truncation | None = None
    after: tuple[int, int] | None = None
    resolved: bool = False


@dataclass(frozen=True, kw_only=True)
class StagedSnapshot:
    """The rows of a whole table as it was at `lsn`; `keep`: they are put to what the target has (mode append)."""

    relation: Relation
    files: Sequence[StagedFile]
    lsn: Lsn
    taken_at: datetime
    mode: WriteMode
    deletes: Deletes
    keep: bool = False


HALF: Final = "half"
ORIGIN: Final = "origin"


def resolved_schema(relation: Relation) -> pa.Schema:
    """Events of keys, whose unsent values are filled in as far as their batch knows them.

    `half` is 0 for the end of a moved row's old key, else 1; `origin` is the key under which the target has the values
    of the columns in `_unchanged`.
    """
    return pa.schema(
        [
            pa.field(OP, pa.string()),
            pa.field(LSN, pa.int64()),
            pa.field(SEQUENCE, pa.int64()),
            pa.field(HALF, pa.int32()),
            pa.field(COMMITTED_AT, TIMESTAMP),
            pa.field(UNCHANGED, pa.list_(pa.string())),
            pa.field(ORIGIN, pa.struct([pa.field(column.name, column.arrow) for column in relation.key])),
            pa.field(RESCUED, pa.string()),
            *(pa.field(column.name, column.arrow) for column in relation.columns),
        ]
    )


def resolved(relation: Relation, changes: pa.Table, *, mode: WriteMode, deletes: Deletes) -> pa.Table:
    """Changes (schema `change_schema(relation)`, in order) as events in `resolved_schema`.

    For changes that moved rows to other keys and left values of theirs unsent: which row of the target has a value then
    depends on a chain of any length. With soft deletes the end of a row leaves its values unsent too. In the mode
    append nothing that was before a TRUNCATE is left out, nor the TRUNCATE itself.
    """
    if mode is WriteMode.APPEND:
        truncates = pc.equal(changes[OP], TRUNCATE)
        events = _resolved(relation, changes.filter(pc.invert(truncates)), soft=False)
        emptied = changes.filter(truncates).select([OP, LSN, SEQUENCE, COMMITTED_AT])
        return pa.concat_tables([events, emptied], promote_options="default")
    return _resolved(relation, changes, soft=deletes is Deletes.SOFT)


def _resolved(relation: Relation, changes: pa.Table, *, soft: bool) -> pa.Table:
    events = events_of(relation, changes)
    keys = [column.name for column in relation.key]
    masks = unsent(events)
    if soft:
        for column in relation.columns:
            if column.name not in keys:
                masks[column.name] = masks.get(column.name, np.zeros_like(events.ends)) | events.ends
    every = np.arange(len(events.rows))
    rows, _ = filled(events, every, masks, _empty_target(events.rows.schema))
    of_chain = ~origins(events.previous, np.ones_like(events.ends))
    origin = events.rows.select(keys).take(before(events, of_chain))
    half = np.ones(len(every), dtype=np.int32)
    half[np.flatnonzero(events.begins & np.asarray(pc.equal(events.rows[OP], UPDATE))) - 1] = 0
    return pa.table(
        {
            OP: rows[OP],
            LSN: rows[LSN],
            SEQUENCE: rows[SEQUENCE],
            HALF: pa.array(half),
            COMMITTED_AT: rows[COMMITTED_AT],
            UNCHANGED: _names({name: origins(events.previous, mask) < 0 for name, mask in masks.items()}, len(every)),
            ORIGIN: pa.StructArray.from_arrays([origin[name].combine_chunks() for name in keys], names=keys),
            RESCUED: rows[RESCUED],
            **{column.name: rows[column.name] for column in relation.columns},
        }
    ).cast(resolved_schema(relation))


def _empty_target(schema: pa.Schema) -> Lookup:
    """A target that has no rows: what it would give stays open."""
    return lambda keys, columns: pa.schema([schema.field(n) for n in [*keys.column_names, *columns]]).empty_table()


def _names(masks: Mapping[str, Mask], length: int) -> pa.Array:
    """For each row the list of the names whose mask has it."""
    if not masks:
        return pa.nulls(length, pa.list_(pa.string()))
    rows, places = np.nonzero(np.column_stack(list(masks.values())))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=length))])
    names = pa.array(list(masks), pa.string()).take(pa.array(places))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names)
