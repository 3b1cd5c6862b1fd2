"""The changes of one table as events: what AUTO CDC is given, or what becomes a row each.

An update that moved a row to another key is two events: the old key ends (half 0), and then the new one begins
(half 1). A snapshot is a TRUNCATE just before its rows. Where ended rows stay (all versions, or soft deletes), a
TRUNCATE is the end of each key that was there, because AUTO CDC would remove the rows.
"""

# ruff: noqa: S608 - names come quoted, or spelt by `internal`, and values as literals of `sql.text`

from __future__ import annotations

from collections.abc import Mapping, Sequence

from neon_lake.apply.delta_types import delta_type
from neon_lake.change import (
    COMMITTED_AT,
    DELETE,
    DELETED_AT,
    INSERT,
    LSN,
    OP,
    READ,
    SEQUENCE,
    TRUNCATE,
    UNCHANGED,
    UPDATE,
)
from neon_lake.destinations.databricks.sql import quoted, text
from neon_lake.lakeflow.exported import BROKEN, LOG, Exported, new, old
from neon_lake.lakeflow.log import MISSING, raised
from neon_lake.schema import RESCUED, Column

HALF = "_half"
SENT = "_sent"


def events_sql(table: Exported) -> str:
    """The statements that define the view of events, and what that needs."""
    before = _known_sql(table) if _ends(table) else ""
    return before + _events_sql(table)


def _ends(table: Exported) -> bool:
    """Whether a TRUNCATE has to be the end of each key."""
    return not table.appends and not table.truncates


def _events_sql(table: Exported) -> str:
    own = ", ".join([*(new(column) for column in table.relation.columns), *(old(c) for c in table.identifying)])
    if table.relation.keyless:
        own += ", o_rescued"
    selected = _listed(_values(table))
    if _ends(table):
        rows = f"""SELECT
{selected}
FROM halves WHERE op <> {text(TRUNCATE)}
UNION ALL
SELECT
{_listed(_ended(table))}
FROM halves AS h
JOIN {table.known} AS k ON k.lsn = h.lsn AND k.seq = h.seq
WHERE h.op = {text(TRUNCATE)}"""
    else:
        rows = f"SELECT\n{selected}\nFROM halves"
    return f"""\
-- What came of the table, segment by segment as the log names them, in the order of ({LSN}, {SEQUENCE}, {HALF}).
CREATE TEMPORARY VIEW {table.events}
AS WITH named AS (
  SELECT
    coalesce(r.op, {text(TRUNCATE)}) AS op, coalesce(r.lsn, l.lsn) AS lsn, coalesce(r.seq, -1) AS seq,
    coalesce(r.at, l.taken_at) AS at, r.unchanged AS unchanged, r.rescued AS rescued,
    coalesce(r.moved, false) AS moved, {own}
  FROM STREAM({LOG}) AS l
  CROSS JOIN (SELECT max(lsn) + 1 AS newest FROM {LOG} WHERE kind = 'snapshot' AND {_of(table)}) AS s
  CROSS JOIN {BROKEN} AS b
  LEFT JOIN (SELECT file, count(*) AS found FROM {table.staged} GROUP BY file) AS n ON n.file = l.file
  LEFT JOIN {table.staged} AS r ON r.file = l.file
  WHERE {_of(table, "l.")} AND {_sound(table)}
), halves AS (
  SELECT *, explode(CASE WHEN moved THEN array(0, 1) ELSE array(1) END) AS half FROM named
)
{rows};
"""


def _known_sql(table: Exported) -> str:
    """A view of the keys that each TRUNCATE ends: lsn and seq of the TRUNCATE, and the key."""
    keys = [new(column) for column in table.keys]
    both = ", ".join(
        f"CASE WHEN half = 0 THEN {old(column)} ELSE {new(column)} END AS {new(column)}" for column in table.keys
    )
    chosen = ", ".join(f"r.{new(column)} AS {new(column)}, r.{old(column)} AS {old(column)}" for column in table.keys)
    last = "max(struct(k.lsn, k.seq, k.half, k.op))"
    return f"""\
-- The keys that each TRUNCATE ends, and each snapshot that does not have them.
CREATE TEMPORARY VIEW {table.known}
AS WITH named AS (
  SELECT
    coalesce(r.op, {text(TRUNCATE)}) AS op, coalesce(r.lsn, l.lsn) AS lsn, coalesce(r.seq, -1) AS seq,
    coalesce(r.moved, false) AS moved, {chosen}
  FROM {LOG} AS l LEFT JOIN {table.staged} AS r ON r.file = l.file
  WHERE {_of(table, "l.")}
), halves AS (
  SELECT *, explode(CASE WHEN moved THEN array(0, 1) ELSE array(1) END) AS half FROM named
), keys AS (
  SELECT CASE WHEN half = 0 THEN {text(DELETE)} ELSE op END AS op, lsn, seq, half, {both}
  FROM halves WHERE op <> {text(TRUNCATE)}
), emptied AS (
  SELECT lsn, seq, lag(lsn) OVER (ORDER BY lsn, seq) AS lsn_before, lag(seq) OVER (ORDER BY lsn, seq) AS seq_before
  FROM named WHERE op = {text(TRUNCATE)}
)
SELECT lsn, seq, {", ".join(keys)}
FROM (
  SELECT e.lsn, e.seq, e.lsn_before, e.seq_before, {", ".join(f"k.{key} AS {key}" for key in keys)}, {last} AS last
  FROM emptied AS e
  JOIN keys AS k ON k.lsn < e.lsn OR (k.lsn = e.lsn AND (k.seq < e.seq OR k.op = {text(READ)}))
  GROUP BY e.lsn, e.seq, e.lsn_before, e.seq_before, {", ".join(f"k.{key}" for key in keys)}
)
WHERE last.op <> {text(DELETE)} AND NOT (last.lsn = lsn AND last.op = {text(READ)})
  AND (lsn_before IS NULL OR last.lsn > lsn_before OR (last.lsn = lsn_before AND last.seq > seq_before));

"""


def _of(table: Exported, alias: str = "") -> str:
    name = table.relation.table
    return f"{alias}table_schema = {text(name.schema)} AND {alias}table_name = {text(name.name)}"


def _sound(table: Exported) -> str:
    """The condition that ends the flow rather than lose something. What a newer snapshot replaces may be as it is."""
    name = table.relation.table
    current = "coalesce(r.lsn, l.lsn) + 1 >= s.newest"
    broken = {
        "s.newest IS NULL OR s.newest < b.until": f"changes of {name} {MISSING}",
        "l.file IS NOT NULL AND coalesce(n.found, 0) <> l.row_count": (
            f"a segment of {name} is not whole in {table.staged}; start an update, and, if this comes again, one with "
            "a full refresh of that table"
        ),
        f"r.misread IS NOT NULL AND {current}": (
            f"{name} has columns that this SQL does not know or that changed their type; export it anew, deploy it, "
            f"and start an update with a full refresh of {table.staged}"
        ),
    }
    if table.partial and table.open:
        names = _array([column.name for column in table.open])
        broken[f"coalesce(r.moved, false) AND coalesce(arrays_overlap(r.unchanged, {names}), false) AND {current}"] = (
            f"a row of {name} moved to another key without all of its values; run neon-lake resync for it, and, so "
            f"that it does not come again, ALTER TABLE {name.sql} REPLICA IDENTITY FULL at the source"
        )
    elif table.keys and not table.open:
        # an identity that is full now may not always have been
        broken[f"coalesce(size(r.unchanged), 0) > 0 AND {current}"] = (
            f"an update of {name} came without all of its values, before REPLICA IDENTITY FULL; run neon-lake resync "
            "for it"
        )
    if mixed := table.rescued(table.open) if table.partial else []:
        names = _array([column.name for column in mixed])
        broken[f"r.rescued IS NOT NULL AND coalesce(arrays_overlap(r.unchanged, {names}), false) AND {current}"] = (
            f"a row of {name} has rescued values beside values that were not sent; run neon-lake resync for it"
        )
    if unfit := table.rescued(table.keys):
        lost = " OR ".join(f"r.{new(column)} IS NULL" for column in unfit)
        broken[f"r.op IN ({', '.join(map(text, (INSERT, UPDATE, DELETE, READ)))}) AND ({lost}) AND {current}"] = (
            f"a key of {name} has a value that its column cannot hold; correct the row at the source"
        )
    cases = "".join(f"\n    WHEN {condition}\n      THEN {raised(said)}" for condition, said in broken.items())
    # first, because an engine may look at this condition before it looks at the table's name
    return f"CASE\n    WHEN NOT ({_of(table, 'l.')}) THEN false{cases}\n    ELSE true\n  END"


# --- columns


def _values(table: Exported) -> Mapping[str, str]:
    """The columns of an event."""
    half = table.relation.keyless and table.appends
    chosen = {}
    for column in table.relation.columns:
        value = new(column)
        if column in table.identifying:
            value = f"CASE WHEN half = 0 THEN {old(column)} ELSE {value} END"
        elif table.identifying:
            # the end of a moved row's old key has no other values: those of its change are the new row's
            value = f"CASE WHEN half = 1 THEN {value} END"
        chosen[quoted(column.name)] = _landed(table, column, value)
    chosen[RESCUED] = "CASE WHEN half = 1 THEN rescued " + ("ELSE o_rescued END" if half else "END")
    if table.relation.keyless and not half:
        chosen[RESCUED] = "rescued"
    chosen |= {LSN: "lsn", COMMITTED_AT: "at"}
    gone = f"(half = 0 OR op = {text(DELETE)})"
    if table.soft:
        chosen[DELETED_AT] = f"CASE WHEN {gone} THEN at END"
    if table.appends:
        arrived = f"WHEN moved THEN {text(INSERT)} " if table.identifying else ""
        return chosen | {
            OP: f"CASE WHEN half = 0 THEN {text(DELETE)} {arrived}ELSE op END",
            SEQUENCE: "seq",
            UNCHANGED: "CASE WHEN half = 1 THEN unchanged END",
        }
    chosen |= {OP: f"CASE WHEN half = 0 THEN {text(DELETE)} ELSE op END", SEQUENCE: "seq", HALF: "half"}
    if table.partial:
        chosen[SENT] = _sent(table, gone)
    return chosen


def _ended(table: Exported) -> Mapping[str, str]:
    """The columns of the end of a key by a TRUNCATE."""
    chosen = {quoted(column.name): f"CAST(NULL AS {_type(table, column)})" for column in table.relation.columns}
    chosen |= {quoted(column.name): f"k.{new(column)}" for column in table.keys}
    chosen |= {RESCUED: "CAST(NULL AS STRING)", LSN: "h.lsn", COMMITTED_AT: "h.at"}
    if table.soft:
        chosen[DELETED_AT] = "h.at"
    chosen |= {OP: text(DELETE), SEQUENCE: "h.seq", HALF: "1"}
    if table.partial:
        chosen[SENT] = _array([LSN, COMMITTED_AT, DELETED_AT] if table.soft else table.updated)
    return chosen


def _sent(table: Exported, gone: str) -> str:
    """The names of the columns that an event has a value for, without the key's."""
    names = _array(table.updated)
    held = "coalesce(array_contains(unchanged, name), false)"
    if mixed := table.rescued(table.open):
        # rescued text of a value that was not sent stays, and it lies in one column with that of others
        overlap = f"coalesce(arrays_overlap(unchanged, {_array([column.name for column in mixed])}), false)"
        held = f"{held} OR (name = {text(RESCUED)} AND {overlap})"
    sent = f"filter({names}, name -> NOT ({held}))" if table.open else names
    if not table.soft:
        return sent
    return f"CASE WHEN {gone} THEN {_array([LSN, COMMITTED_AT, DELETED_AT])} ELSE {sent} END"


def _landed(table: Exported, column: Column, value: str) -> str:
    return f"parse_json({value})" if column.name in table.variants else value


def _type(table: Exported, column: Column) -> str:
    return "VARIANT" if column.name in table.variants else delta_type(column.arrow).upper()


def _array(names: Sequence[str]) -> str:
    return f"array({', '.join(map(text, names))})"


def _listed(chosen: Mapping[str, str]) -> str:
    return ",\n".join(f"  {value} AS {name}" for name, value in chosen.items())
