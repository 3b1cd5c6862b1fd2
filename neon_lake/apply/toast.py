"""Unchanged TOAST: values that an update did not send because they are what they were.

The value is the last one sent for the row: in an earlier event of the batch (also under a key that the row had before),
or, where the batch has none, in the target.
Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html (TupleData, 'u')
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.apply.events import Events, Indices, Mask, with_column
from neon_lake.change import UNCHANGED
from neon_lake.schema import RESCUED, Relation

Lookup = Callable[[pa.Table, Sequence[str]], pa.Table]
"""(keys, columns) → the rows of the target with these keys: key columns and `columns`; absent keys are left out."""


def unsent(events: Events) -> dict[str, Mask]:
    """Column → which events did not send it; columns that every event sent are left out."""
    lists = events.rows[UNCHANGED].combine_chunks()
    names = pc.list_flatten(lists)
    if not len(names):
        return {}
    parents = np.asarray(pc.list_parent_indices(lists))
    result = {}
    for name in pc.unique(names).to_pylist():
        mask = np.zeros(len(events.rows), dtype=bool)
        mask[parents[np.asarray(pc.equal(names, name))]] = True
        result[name] = mask
    return result


def filled(
    events: Events, chosen: Indices, unsent: dict[str, Mask], lookup: Lookup, *, applied: bool = False
) -> tuple[pa.Table, Mask]:
    """The rows of the chosen events with every unsent value filled in.

    `applied` says that the target has the events already: then a value that none of them sent is in its row of the
    chosen event's key, where the first of them took it, whatever key that had.

    Gives the rows, and which of them could not be completed because neither batch nor target has the value (possible
    only when the target lacks a row that it should have): those hold null there.
    """
    rows = events.rows.take(chosen)
    incomplete = np.zeros(len(chosen), dtype=bool)
    wanted = {name: mask for name, mask in unsent.items() if mask[chosen].any()}
    if not wanted:
        return rows, incomplete
    found_in = {name: origins(events.previous, mask)[chosen] for name, mask in wanted.items()}
    if applied:
        found_in = {name: np.where(origin < 0, ~chosen, origin) for name, origin in found_in.items()}
    asked = np.unique(np.concatenate([~o[o < 0] for o in found_in.values()]))
    keys = [column.name for column in events.relation.key]
    there = asked if applied else before(events, asked)
    found, place = _from_target(events, there, keys, [*wanted, RESCUED], lookup)
    for name, origin in found_in.items():
        outside = origin < 0
        at = np.where(outside, place[np.searchsorted(asked, np.where(outside, ~origin, 0))], -1) if len(asked) else None
        pool = pa.chunked_array([*events.rows[name].chunks, *found[name].chunks], found.schema.field(name).type)
        index = origin if at is None else np.where(outside, at + len(events.rows), origin)
        missing = outside & (at < 0) if at is not None else np.zeros(len(chosen), dtype=bool)
        incomplete |= missing
        rows = with_column(rows, name, pool.take(pa.array(index, mask=missing)))
        rescued = pa.chunked_array([*events.rows[RESCUED].chunks, *found[RESCUED].chunks], pa.string())
        source = rescued.take(pa.array(index, mask=missing | ~wanted[name][chosen]))
        rows = with_column(rows, RESCUED, _carried(events.relation, rows[RESCUED], source, name))
    return rows, incomplete


def origins(previous: Indices, mask: Mask) -> Indices:
    """For each event the event that sent the value; or ~e, when event e was the first and the target has the value.

    Follows `previous` for all events at once, doubling the stride: log2 of the longest chain rounds.
    """
    here = np.arange(len(mask))
    step = np.where(mask & (previous >= 0), previous, here)
    while True:
        further = step[step]
        if np.array_equal(further, step):
            break
        step = further
    return np.where(mask[step], ~step, step)


def before(events: Events, asked: Indices) -> Indices:
    """The events that have the keys which the target knows these by: a moved row has the key that it moved from."""
    moved = events.begins[asked] & (asked > 0)
    return np.where(moved, asked - 1, asked)


def _from_target(
    events: Events, asked: Indices, keys: list[str], columns: list[str], lookup: Lookup
) -> tuple[pa.Table, Indices]:
    """Rows of the target with the keys of the events in `asked`, and each event's place among them (-1: not there)."""
    schema = pa.schema([events.rows.schema.field(name) for name in [*keys, *columns]])
    if not len(asked):
        return schema.empty_table(), np.empty(0, dtype=np.int64)
    wanted = events.rows.select(keys).take(asked)
    wanted = wanted.append_column("place", pa.array(np.arange(len(asked))))
    distinct = wanted.group_by(keys).aggregate([])
    found = lookup(distinct, columns).select([*keys, *columns]).cast(schema)
    joined = wanted.join(
        found.select(keys).append_column("at", pa.array(np.arange(len(found)))), keys, join_type="left outer"
    )
    place = np.full(len(asked), -1, dtype=np.int64)
    place[np.asarray(joined["place"])] = np.asarray(joined["at"].fill_null(-1))
    return found, place


def _carried(relation: Relation, rescued: pa.ChunkedArray, source: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Rescued text of column `name` goes along with its value, and stands where a snapshot has it: by column order.

    Rows that have some are rare, so they go one by one.
    """
    mentions = pc.match_substring(source, json.dumps(name, ensure_ascii=False))
    hits = np.flatnonzero(np.asarray(pc.fill_null(mentions, False)))
    if not len(hits):
        return rescued
    values = rescued.to_pylist()
    for hit in hits.tolist():
        old = json.loads(source[hit].as_py())
        if name in old:
            whole = json.loads(values[hit] or "{}") | {name: old[name]}
            ordered = {column.name: whole[column.name] for column in relation.columns if column.name in whole}
            values[hit] = json.dumps(ordered, ensure_ascii=False)
    return pa.chunked_array([pa.array(values, pa.string())])
