"""Batches of changes as one MERGE each, which may be carried out twice, late, and beside itself.

Two guards make it so. A statement reads the ledger's entry that it builds on, and that entry is removed before the next
statement is sent: a late one finds no file and fails. And rows that the batch has touched, which are those with an
`_lsn` of its range, are left alone by a second run of the same batch. Two that run at once meet in Delta's commit: the
tables are `Serializable`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import pyarrow as pa

from neon_lake.apply.staged import StagedChanges
from neon_lake.change import COMMITTED_AT, DELETED_AT, INSERT, LSN, OP, ROW_ID, SEQUENCE, TIMESTAMP, TRUNCATE, UPDATE
from neon_lake.config import WriteMode
from neon_lake.destinations.databricks.changes import INCOMPLETE, Query, entry, rescuable, rescued_object
from neon_lake.destinations.databricks.rows import row_id
from neon_lake.destinations.databricks.sql import failing, moment, null, quoted, text
from neon_lake.schema import RESCUED


def merge(table: str, changes: StagedChanges, *, root: str, fence: str) -> str:
    """The statement that applies changes to `table`; `fence` is a condition that only a timely statement meets."""
    query = Query(changes=changes, root=root)
    if changes.mode is WriteMode.APPEND:
        return _append(table, query, fence)
    if changes.relation.keyless:
        return _copies(table, query, fence)
    return _mirror(table, query, fence, guarded=True)


def repair(table: str, changes: StagedChanges, *, root: str, fence: str, before: datetime | None) -> str:
    """The statement that gives the keys of changes that were applied already the state that they have after them.

    With `before`, of keys that a change committed before then speaks of. A value that no change sent stays as it is,
    also that of a row that came from another key: it has arrived long since.
    """
    return _mirror(table, Query(changes=changes, root=root), fence, guarded=False, before=before)


# --- with a key


def _mirror(table: str, query: Query, fence: str, *, guarded: bool, before: datetime | None = None) -> str:
    values = query.values()
    wanted = "rank = 1" + (f" AND first_at < {moment(before)}" if before else "")
    chosen, joined = ["v.*"], ""
    from_origin = query.changes.resolved and guarded
    if from_origin and query.open:
        same = " AND ".join(f"o.{quoted(query.columns[p].name)} = v.g{p}" for p in query.keys)
        joined = f" LEFT JOIN {table} AS o ON {same} AND o.{LSN} < {int(query.changes.since)}"
        chosen.append(f"o.{LSN} IS NOT NULL AS found, o.{RESCUED} AS xrescued")
        chosen += [f"o.{quoted(query.columns[place].name)} AS x{place}" for place in query.open]
        values += [f"g{place}" for place in query.keys]
    source = (
        f"WITH raw AS ({query.raw()}), events AS ({query.events()}), "
        f"filled AS ({query.filled(first_at=before is not None)}), "
        f"v AS (SELECT {', '.join(values)} FROM filled WHERE {wanted}) "
        f"SELECT {', '.join(chosen)} FROM v{joined} WHERE {fence}"
    )
    on = " AND ".join(f"t.{quoted(query.columns[place].name)} = s.c{place}" for place in query.keys)
    newer = f" AND t.{LSN} < s.lsn" if guarded else ""
    update = ", ".join(f"t.{quoted(name)} = {value}" for name, value in _values(query, from_origin, kept=True).items())
    given = _values(query, from_origin, kept=False)
    insert = f"({', '.join(map(quoted, given))}) VALUES ({', '.join(given.values())})"
    clauses = []
    if query.soft or not (query.changes.grows and guarded):
        if not query.soft:
            clauses.append(f"WHEN MATCHED AND s.gone{newer} THEN DELETE")
        clauses.append(f"WHEN MATCHED{newer} THEN UPDATE SET {update}")
    clauses.append(f"WHEN NOT MATCHED{'' if query.soft else ' AND NOT s.gone'} THEN INSERT {insert}")
    if query.changes.truncation and guarded:
        clauses.append(_emptied(query))
    return f"MERGE INTO {table} AS t USING ({source}) AS s ON {on} {' '.join(clauses)}"


def _emptied(query: Query) -> str:
    """What a TRUNCATE does to rows that no later change speaks of. Later rows have a later `_lsn`."""
    truncation = query.changes.truncation
    assert truncation is not None
    older = f"WHEN NOT MATCHED BY SOURCE AND t.{LSN} < {int(truncation.lsn)}"
    if not query.soft:
        return f"{older} THEN DELETE"
    at = moment(truncation.committed_at)
    return (
        f"{older} AND t.{DELETED_AT} IS NULL THEN UPDATE SET t.{DELETED_AT} = {at}, t.{COMMITTED_AT} = {at}, "
        f"t.{LSN} = {int(truncation.lsn)}"
    )


def _values(query: Query, from_origin: bool, *, kept: bool) -> Mapping[str, str]:
    """Target column → its value, for a row that is there (`kept`) or for a new one.

    A value that was not sent is that of the row which has the key, or, `from_origin`, had the key it came from.
    """
    values = {}
    for place, column in enumerate(query.columns):
        value = f"s.c{place}"
        if place in query.open:
            lost = failing(INCOMPLETE, column.arrow)
            other = f"t.{quoted(column.name)}" if kept else lost
            if from_origin:
                other = f"CASE WHEN s.found THEN s.x{place} ELSE {lost} END"
            value = f"CASE WHEN s.k{place} THEN {other} ELSE s.c{place} END"
        values[column.name] = value
    values[RESCUED] = _rescued(query, from_origin, kept=kept)
    values[LSN], values[COMMITTED_AT] = "s.lsn", "s.at"
    if query.soft:
        values[DELETED_AT] = f"CASE WHEN s.gone THEN s.at ELSE {null(TIMESTAMP)} END"
    return values


def _rescued(query: Query, from_origin: bool, *, kept: bool) -> str:
    if not query.carried:
        return "s.rescued"
    entries = []
    for place, column in enumerate(query.columns):
        if rescuable(column.arrow):
            value = f"s.e{place}"
            if place in query.open and (kept or from_origin):
                old = entry("s.xrescued" if from_origin else f"t.{RESCUED}", column.name)
                value = f"CASE WHEN s.k{place} THEN {old} ELSE s.e{place} END"
            entries.append((column.name, value))
    return rescued_object(entries)


# --- without a key


def _copies(table: str, query: Query, fence: str) -> str:
    """Rows of a table without a key: of each content, as many as its changes add up to.

    What is put has an `_lsn` of the batch; a content that has such a row was applied already. One that is not there is
    taken for applied too, when it is to go.
    """
    since = int(query.changes.since)
    columns = [column.name for column in query.columns]
    content = {name: f"c{place}" for place, name in enumerate(columns)}
    identity = row_id([(c.name, c.arrow, f"c{place}") for place, c in enumerate(query.columns)], "rescued")
    last = ", ".join(f"'{name}', {name}" for name in (*content.values(), "rescued", "lsn", "at"))
    there = f"AND {LSN} >= {int(query.changes.truncation.lsn)}" if query.changes.truncation else ""
    source = (
        f"WITH raw AS ({query.raw()}), versions AS ({query.versions()}), "
        f"net AS (SELECT {identity} AS id, sum(sign) AS net, "
        f"max_by(named_struct({last}), named_struct('lsn', lsn, 'seq', seq)) "
        f"AS row FROM versions GROUP BY {identity}), "
        f"held AS (SELECT {ROW_ID} AS id, count(*) AS n, max({LSN}) AS newest FROM {table} "
        f"WHERE {ROW_ID} IN (SELECT id FROM net) {there} GROUP BY {ROW_ID}), "
        f"wanted AS (SELECT net.id, net.row, net.net, coalesce(held.n, 0) AS n "
        f"FROM net LEFT JOIN held ON held.id = net.id WHERE net.net <> 0 AND coalesce(held.newest, -1) < {since}), "
        f"s AS (SELECT id, row, true AS removed FROM wanted WHERE net < 0 AND n > 0 UNION ALL "
        f"SELECT id, row, false AS removed FROM (SELECT id, row, explode(sequence(1, "
        f"CAST(CASE WHEN net > 0 THEN net ELSE n + net END AS int))) AS copy FROM wanted "
        f"WHERE net > 0 OR {_copies_left()} > 0)) "
        f"SELECT * FROM s WHERE {fence}"
    )
    given = {name: f"s.row.{alias}" for name, alias in content.items()}
    given |= {RESCUED: "s.row.rescued", ROW_ID: "s.id", LSN: "s.row.lsn", COMMITTED_AT: "s.row.at"}
    insert = f"({', '.join(map(quoted, given))}) VALUES ({', '.join(given.values())})"
    clauses = ["WHEN MATCHED THEN DELETE", f"WHEN NOT MATCHED AND NOT s.removed THEN INSERT {insert}"]
    if query.changes.truncation:
        clauses.append(_emptied(query))
    return f"MERGE INTO {table} AS t USING ({source}) AS s ON s.removed AND t.{ROW_ID} = s.id {' '.join(clauses)}"


def _copies_left() -> str:
    return f"CASE WHEN n > 0 AND n + net < 0 THEN {failing(INCOMPLETE, pa.int64())} ELSE n + net END"


# --- every change as a row


def _append(table: str, query: Query, fence: str) -> str:
    columns = query.columns
    emptied = (
        f"SELECT {text(TRUNCATE)} AS op, lsn, seq, at, CAST(NULL AS string) AS rescued, "
        + ", ".join(f"{null(column.arrow)} AS c{place}" for place, column in enumerate(columns))
        + f" FROM raw WHERE op = {text(TRUNCATE)}"
    )
    if query.keys:
        body, rows = _whole_events(table, query)
        body = f"{body}, rows AS ({rows}), s AS (SELECT * FROM rows UNION ALL {emptied})"
    else:
        body = f"s AS ({query.halves()})"
    source = f"WITH raw AS ({query.raw()}), {body} SELECT * FROM s WHERE {fence}"
    given = {column.name: f"s.c{place}" for place, column in enumerate(columns)}
    given |= {RESCUED: "s.rescued", OP: "s.op", LSN: "s.lsn", SEQUENCE: "s.seq", COMMITTED_AT: "s.at"}
    insert = f"({', '.join(map(quoted, given))}) VALUES ({', '.join(given.values())})"
    on = f"t.{LSN} >= {int(query.changes.since)} AND t.{LSN} = s.lsn AND t.{SEQUENCE} = s.seq AND t.{OP} = s.op"
    return f"MERGE INTO {table} AS t USING ({source}) AS s ON {on} WHEN NOT MATCHED THEN INSERT {insert}"


def _whole_events(table: str, query: Query) -> tuple[str, str]:
    """CTEs, and the query of every event with all of its values: those that were not sent are of the newest row."""
    body = f"events AS ({query.events()}), filled AS ({query.filled()}), "
    values = query.values()
    if query.changes.resolved:
        values += [f"g{place}" for place in query.keys]
    body += f"v AS (SELECT {', '.join(values)} FROM filled)"
    op = f"CASE WHEN v.op = {text(UPDATE)} AND v.arrived THEN {text(INSERT)} ELSE v.op END AS op"
    held = {place: f"x{place}" for place in query.open}
    joined = ""
    if query.open:
        keys = [quoted(query.columns[place].name) for place in query.keys]
        own = [f"v.{'g' if query.changes.resolved else 'c'}{place}" for place in query.keys]
        newest = ", ".join(f"'{alias}', {quoted(query.columns[place].name)}" for place, alias in held.items())
        body += (
            f", o AS (SELECT {', '.join(keys)}, max_by(named_struct({newest}, 'rescued', {RESCUED}), "
            f"named_struct('lsn', {LSN}, 'seq', {SEQUENCE})) AS row FROM {table} "
            f"WHERE {LSN} < {int(query.changes.since)} GROUP BY {', '.join(keys)})"
        )
        same = " AND ".join(f"o.{key} = {mine}" for key, mine in zip(keys, own, strict=True))
        joined = f" LEFT JOIN o ON {same}"
    chosen = []
    for place, column in enumerate(query.columns):
        value = f"v.c{place}"
        if place in held:
            lost = f"CASE WHEN o.row IS NULL THEN {failing(INCOMPLETE, column.arrow)} ELSE o.row.x{place} END"
            value = f"CASE WHEN v.k{place} AND NOT v.gone THEN {lost} ELSE v.c{place} END"
        if not column.key:
            # the end of a moved row's old key has no other values
            value = f"CASE WHEN v.half = 1 THEN {value} END"
        chosen.append(f"{value} AS c{place}")
    rescued = "v.rescued"
    if query.carried:
        entries = []
        for place, column in enumerate(query.columns):
            if rescuable(column.arrow):
                old = entry("o.row.rescued", column.name)
                kept = place in held
                entries.append(
                    (column.name, f"CASE WHEN v.k{place} THEN {old} ELSE v.e{place} END" if kept else f"v.e{place}")
                )
        rescued = rescued_object(entries)
    rescued = f"CASE WHEN v.half = 1 THEN {rescued} END"
    return body, f"SELECT {op}, v.lsn, v.seq, v.at, {rescued} AS rescued, {', '.join(chosen)} FROM v{joined}"
