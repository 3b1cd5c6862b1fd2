"""Staged changes as queries: which row each key has after them, or which rows they add up to.

Inside of the queries the columns of the source are called `c0`, `c1`, … in their order, so that no name of a table's
own meets one of ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import pyarrow as pa

from neon_lake.apply.staged import HALF, ORIGIN, StagedChanges, StagedFile
from neon_lake.change import COMMITTED_AT, DELETE, INSERT, LSN, OLD_KEY, OP, SEQUENCE, TRUNCATE, UNCHANGED
from neon_lake.config import Deletes
from neon_lake.destinations.databricks.sql import failing, file, null, quoted, text
from neon_lake.schema import RESCUED, Column

INCOMPLETE: Final = "neon_lake: a changed row is not in the lake"
"""What a statement fails with when a value that was not sent is nowhere: the table needs a new snapshot."""
UNFIT_KEY: Final = "neon_lake: a key does not fit its column"
"""What a statement fails with when a key has a value that its column in the lake cannot hold."""

_POSITION: Final = "lsn, seq, half"
_LATEST: Final = "lsn DESC, seq DESC, half DESC"


def rescuable(kind: pa.DataType) -> bool:
    """Whether a column of this type may have values that go to `_rescued_data`."""
    return bool(
        pa.types.is_temporal(kind)
        or pa.types.is_nested(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_floating(kind)
    )


@dataclass(frozen=True, kw_only=True)
class Query:
    """The queries of one batch. `root`: where staging lies, for the warehouse."""

    changes: StagedChanges
    root: str

    @cached_property
    def columns(self) -> Sequence[Column]:
        """The source's columns; the one at place i is called `c<i>`."""
        return self.changes.relation.columns

    @cached_property
    def keys(self) -> Sequence[int]:
        """The places of the key's columns."""
        return [place for place, column in enumerate(self.columns) if column.key]

    @cached_property
    def _key(self) -> str:
        return ", ".join(f"c{place}" for place in self.keys)

    @cached_property
    def soft(self) -> bool:
        """Whether a delete leaves the row where it is."""
        return self.changes.deletes is Deletes.SOFT

    @cached_property
    def open(self) -> Sequence[int]:
        """The places of columns whose value may have to be the one that the target has."""
        ends = self.soft and not self.changes.grows
        return [
            place
            for place, column in enumerate(self.columns)
            if not column.key and (ends or column.name in self.changes.unsent)
        ]

    @cached_property
    def carried(self) -> bool:
        """Whether rescued text has to go along with values that were not sent."""
        return any(rescuable(self.columns[place].arrow) for place in self.open)

    # --- the changes as they are staged

    def raw(self) -> str:
        """All changes of the batch, in no order: op, lsn, seq, at, unchanged, rescued, moved, `o<i>`, `c<i>`.

        `o<i>` are the columns before an update that moved the row: those of the key, or without a key all of them.
        """
        return " UNION ALL ".join(self._file(staged) for staged in self.changes.files)

    def _file(self, staged: StagedFile) -> str:
        if self.changes.resolved:
            path = file("parquet", f"{self.root}/{staged.path}")
            return f"SELECT {OP} AS op, {LSN} AS lsn, {SEQUENCE} AS seq, {COMMITTED_AT} AS at FROM {path}"
        there = {column.name for column in staged.relation.columns}
        old = {c.name for c in (staged.relation.columns if staged.relation.keyless else staged.relation.key)}
        keyed = self.keys or range(len(self.columns))
        chosen = [f"{OP} AS op, {LSN} AS lsn, {SEQUENCE} AS seq, {COMMITTED_AT} AS at, {UNCHANGED} AS unchanged"]
        chosen.append(f"{RESCUED} AS rescued, {f'{OLD_KEY} IS NOT NULL' if old else 'false'} AS moved")
        for place in keyed:
            name, kind = self.columns[place].name, self.columns[place].arrow
            chosen.append(f"{f'{OLD_KEY}.{quoted(name)}' if name in old else null(kind)} AS o{place}")
        if not self.keys:
            chosen.append(f"{f'{OLD_KEY}.{RESCUED}' if staged.relation.keyless else null(pa.string())} AS orescued")
        for place, column in enumerate(self.columns):
            chosen.append(f"{quoted(column.name) if column.name in there else null(column.arrow)} AS c{place}")
        within = [f"{LSN} >= {int(self.changes.since)}", f"{LSN} < {int(self.changes.until)}"]
        path = file("parquet", f"{self.root}/{staged.path}")
        return f"SELECT {', '.join(chosen)} FROM {path} WHERE {' AND '.join(within)}"

    def _behind(self) -> str:
        """The condition that a change counts: no TRUNCATE is behind it, nor is it one."""
        if self.changes.after is None:
            return f"op <> {text(TRUNCATE)}"
        lsn, seq = self.changes.after
        return f"op <> {text(TRUNCATE)} AND (lsn > {lsn} OR (lsn = {lsn} AND seq > {seq}))"

    # --- with a key

    def events(self) -> str:
        """One row per event of a key: op, lsn, seq, half, at, unchanged, rescued, `c<i>`, and `g<i>` when resolved."""
        if self.changes.resolved:
            return self._resolved_events()
        chosen = ", ".join(f"c{place}" for place in range(len(self.columns)))
        query = f"SELECT op, lsn, seq, 1 AS half, at, unchanged, rescued, {chosen} FROM raw WHERE {self._behind()}"
        if not self.changes.moved:
            return query
        ends = ", ".join(
            f"o{place} AS c{place}" if column.key else f"{null(column.arrow)} AS c{place}"
            for place, column in enumerate(self.columns)
        )
        nothing = "CAST(NULL AS array<string>) AS unchanged, CAST(NULL AS string) AS rescued"
        return (
            f"{query} UNION ALL SELECT {text(DELETE)} AS op, lsn, seq, 0 AS half, at, {nothing}, {ends} "
            f"FROM raw WHERE moved AND {self._behind()}"
        )

    def _resolved_events(self) -> str:
        (staged,) = self.changes.files
        chosen = [f"{quoted(column.name)} AS c{place}" for place, column in enumerate(self.columns)]
        chosen += [f"{ORIGIN}.{quoted(self.columns[place].name)} AS g{place}" for place in self.keys]
        return (
            f"SELECT {OP} AS op, {LSN} AS lsn, {SEQUENCE} AS seq, {HALF} AS half, {COMMITTED_AT} AS at, "
            f"{UNCHANGED} AS unchanged, {RESCUED} AS rescued, {', '.join(chosen)} "
            f"FROM {file('parquet', f'{self.root}/{staged.path}')} WHERE {OP} <> {text(TRUNCATE)}"
        )

    def _sent(self, place: int) -> str:
        sent = f"NOT coalesce(array_contains(unchanged, {text(self.columns[place].name)}), false)"
        return f"({sent} AND op <> {text(DELETE)})" if self.soft else f"({sent})"

    def filled(self, *, first_at: bool = False) -> str:
        """The events, with what the batch knows of unsent values.

        `u<i>` has the value and the rescued text of the last event that sent column i, and is null where none did.
        `rank` is 1 for the last event of a key; `arrived` says that a row came to its key from another one.
        """
        over = f"OVER (PARTITION BY {self._key} ORDER BY {_POSITION} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
        chosen = [f"*, row_number() OVER (PARTITION BY {self._key} ORDER BY {_LATEST}) AS rank"]
        chosen.append("half = 1 AND min(half) OVER (PARTITION BY lsn, seq) = 0 AS arrived")
        if first_at:
            chosen.append(f"min(at) OVER (PARTITION BY {self._key}) AS first_at")
        if not self.changes.resolved:
            for place in self.open:
                value = f"named_struct('v', c{place}, 'r', rescued)"
                chosen.append(f"last_value(CASE WHEN {self._sent(place)} THEN {value} END, true) {over} AS u{place}")
        return f"SELECT {', '.join(chosen)} FROM events"

    def values(self) -> list[str]:
        """What is selected of `filled`: gone, op, arrived, lsn, seq, half, at, rescued, and `c<i>`.

        Of open columns also `k<i>`: whether the target has the value; and `e<i>`: rescued text of column i alone.
        """
        chosen = [f"op = {text(DELETE)} AS gone, op, arrived, lsn, seq, half, at"]
        for place, column in enumerate(self.columns):
            name = f"c{place}"
            if column.key and rescuable(column.arrow):
                name = f"CASE WHEN c{place} IS NULL THEN {failing(UNFIT_KEY, column.arrow)} ELSE c{place} END"
            if place in self.open:
                name = f"CASE WHEN {self._sent(place)} THEN c{place} ELSE u{place}.v END"
                if self.changes.resolved:
                    name = f"c{place}"
            chosen.append(f"{name} AS c{place}")
            if place in self.open:
                chosen.append(f"{self._kept(place)} AS k{place}")
            if self.carried and rescuable(column.arrow):
                chosen.append(f"{self._entry(place)} AS e{place}")
        if not self.carried:
            chosen.append("rescued")
        return chosen

    def _kept(self, place: int) -> str:
        if self.changes.resolved:
            return f"coalesce(array_contains(unchanged, {text(self.columns[place].name)}), false)"
        return f"(NOT {self._sent(place)} AND u{place} IS NULL)"

    def _entry(self, place: int) -> str:
        own = entry("rescued", self.columns[place].name)
        if place not in self.open or self.changes.resolved:
            return own
        return f"CASE WHEN {self._sent(place)} THEN {own} ELSE {entry(f'u{place}.r', self.columns[place].name)} END"

    # --- without a key

    def versions(self) -> str:
        """The rows that come (sign 1) and go (sign -1): sign, lsn, seq, at, rescued, `c<i>`."""
        new, old = self._new_and_old()
        return (
            f"SELECT CASE WHEN op = {text(DELETE)} THEN -1 ELSE 1 END AS sign, lsn, seq, at, {new} FROM raw "
            f"WHERE (op IN ({text(INSERT)}, {text(DELETE)}) OR moved) AND {self._behind()} "
            f"UNION ALL SELECT -1 AS sign, lsn, seq, at, {old} FROM raw "
            f"WHERE moved AND {self._behind()}"
        )

    def _new_and_old(self) -> tuple[str, str]:
        """What is selected as the row after a change, and before it. A table may be without columns."""
        places = range(len(self.columns))
        return (
            ", ".join(["rescued", *(f"c{place}" for place in places)]),
            ", ".join(["orescued AS rescued", *(f"o{place} AS c{place}" for place in places)]),
        )

    # --- every change as a row

    def halves(self) -> str:
        """Every change of a table without a key; an update that altered its row as the old row and the new one."""
        new, old = self._new_and_old()
        renamed = f"CASE WHEN moved THEN {text(INSERT)} ELSE op END AS op"
        return (
            f"SELECT {renamed}, lsn, seq, at, {new} FROM raw UNION ALL "
            f"SELECT {text(DELETE)} AS op, lsn, seq, at, {old} FROM raw WHERE moved"
        )


def entry(rescued: str, name: str) -> str:
    """The text that a JSON object of rescued values has for a column, or null."""
    return f"from_json({rescued}, 'map<string,string>')[{text(name)}]"


def rescued_object(entries: Sequence[tuple[str, str]]) -> str:
    """The JSON object of (column's name, expression of its text), without the nulls, as the log writes it; or null."""
    parts = []
    for name, value in entries:
        key = json.dumps(name, ensure_ascii=False)
        parts.append(f"concat({text(key)}, ': ', {_json_text(value)})")
    joined = f"concat_ws(', ', {', '.join(parts)})"
    return f"nullif(concat('{{', {joined}, '}}'), '{{}}')"


def _json_text(value: str) -> str:
    """A text as JSON; null stays null."""
    whole = f"to_json(named_struct('v', {value}))"
    return f"CASE WHEN {value} IS NOT NULL THEN substring({whole}, 6, length({whole}) - 6) END"
