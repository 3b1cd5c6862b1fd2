"""Source and lake side by side, value by value, without the project's own comparison and its decoding.

Postgres renders every value of the source; the lake's values are rendered the same way, by their Arrow type. A value
that the lake's type cannot hold is null there, and its text is in `_rescued_data`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import deltalake
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from neon_lake_tests.soak.tables import name

_SESSION: Final = (
    "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=iso_8601 -c bytea_output=hex -c extra_float_digits=1"
    " -c search_path="
)
_OWN: Final = {"_lsn", "_committed_at", "_rescued_data", "_deleted_at", "_row_id"}
_EXCLUDED: Final = {"x_1": {"hidden"}}
_SHOWN: Final = 5

Row = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Found:
    """One table of the source: its columns, and those of its key, if it has one."""

    schema: str
    called: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.schema}.{self.called}"


def tables(url: str) -> list[Found]:
    """The tables that the pipeline follows, as the catalogue has them: keys of the replica identity or primary."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            """
            SELECT n.nspname, c.relname, array_agg(a.attname ORDER BY a.attnum),
                   (SELECT array_agg(k.attname ORDER BY k.attnum) FROM pg_index i
                      JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = ANY (i.indkey)
                     WHERE i.indrelid = c.oid
                       AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END)
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname IN ('public', 'other')
               AND a.attnum > 0 AND NOT a.attisdropped
             GROUP BY c.oid, n.nspname, c.relname ORDER BY 1, 2
            """
        ).fetchall()
    return [
        Found(
            schema=schema,
            called=called,
            columns=tuple(c for c in columns if c not in _EXCLUDED.get(called, ())),
            key=tuple(key or ()),
        )
        for schema, called, columns, key in rows
    ]


def differences(url: str, table: Found, lake: Path) -> tuple[int, list[str]]:
    """How many rows the source has, and a line for each of the first things that are not the same."""
    delta = deltalake.DeltaTable(lake)
    data: pa.Table = delta.to_pyarrow_table()
    names = [c for c in data.column_names if c not in _OWN]
    if names != list(table.columns) and set(names) != set(table.columns):
        return 0, [f"{table}: the lake has the columns {names}, the source {list(table.columns)}"]
    kinds = [data.schema.field(c).type for c in table.columns]
    ours, theirs = source_rows(url, table, kinds), lake_rows(data, table)
    live = [row for row, gone in theirs if not gone]
    found = []
    if not table.key:
        mine_of, its_of = Counter(map(repr, ours)), Counter(map(repr, live))
        found += [f"{table}: {_short(r)} {n} times at the source only" for r, n in (mine_of - its_of).items()]
        found += [f"{table}: {_short(r)} {n} times in the lake only" for r, n in (its_of - mine_of).items()]
        return len(ours), found[:_SHOWN]
    keys = Counter(_key(table, row) for row, _ in theirs)
    found += [f"{table}: the key {key} is {n} times in the lake" for key, n in keys.items() if n > 1]
    mine, its = {_key(table, r): r for r in ours}, {_key(table, r): r for r in live}
    found += [f"{table}: {k} is missing in the lake" for k in mine if k not in its]
    found += [f"{table}: {k} is only in the lake" for k in its if k not in mine]
    for key in mine.keys() & its.keys():
        for column, a, b in zip(table.columns, mine[key], its[key], strict=True):
            if a != b:
                found.append(f"{table}: {key} {column}: {_short(a)} at the source, {_short(b)} in the lake")
    if not found and Counter(map(repr, ours)) != Counter(map(repr, live)):
        found.append(f"{table}: rows differ")
    return len(ours), found[:_SHOWN]


def kept(table: Found, lake: Path) -> set[Row]:
    """Every key that a table of the lake has, with those of deleted rows where it keeps them; else none."""
    data: pa.Table = deltalake.DeltaTable(lake).to_pyarrow_table()
    return {_key(table, row) for row, _ in lake_rows(data, table)} if "_deleted_at" in data.column_names else set()


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 120 else f"{shown[:80]}… ({len(shown)} characters)"


def _key(table: Found, row: Row) -> Row:
    return tuple(row[table.columns.index(column)] for column in table.key)


def source_rows(url: str, table: Found, kinds: Sequence[pa.DataType]) -> list[Row]:
    """Every row as `lake_rows` has it: what the server's output functions write, straight from the wire."""
    asked = ", ".join(map(name, table.columns))
    statement = f"SELECT {asked} FROM {name(table.schema)}.{name(table.called)}"
    with psycopg.connect(url, options=_SESSION) as connection:
        result = connection.execute(statement.encode()).pgresult
        assert result is not None
        delimiters: dict[int, str] = dict(
            connection.execute("SELECT typarray, typdelim FROM pg_catalog.pg_type").fetchall()
        )
    parted_by = [delimiters.get(result.ftype(place), ",") for place in range(len(kinds))]
    return [
        tuple(_plain(result.get_value(row, n), kind, parted_by[n]) for n, kind in enumerate(kinds))
        for row in range(result.ntuples)
    ]


def _plain(value: bytes | str | None, kind: pa.DataType, delimiter: str = ",") -> Any:
    """Postgres' text as `_render` gives what the lake has.

    Arrays that are no plain lists, or have an element that its type cannot hold, are text in the lake.
    """
    if value is None:
        return None
    text = value if isinstance(value, str) else value.decode()
    if pa.types.is_list(kind):
        elements = _elements(text, delimiter)
        if elements is None or not all(_fits(element, kind.value_type) for element in elements):
            return text
        return [_plain(element, kind.value_type) for element in elements]
    if pa.types.is_map(kind):
        return _pairs(text)
    return _float(float(text), kind) if pa.types.is_floating(kind) else text


def _elements(text: str, delimiter: str) -> list[str | None] | None:
    """The elements of an array's text, or None when it has several dimensions, or bounds of its own."""
    part = re.escape(delimiter)
    element = rf'(?:"(?:[^"\\]|\\.)*"|[^"{{}}{part}]+)'
    if not re.fullmatch(rf"\{{({element}({part}{element})*)?\}}", text, re.DOTALL):
        return None
    return [
        None if one == "NULL" else _unescaped(one[1:-1]) if one.startswith('"') else one
        for one in re.findall(element, text[1:-1], re.DOTALL)
    ]


def _fits(text: str | None, kind: pa.DataType) -> bool:
    """Whether a type of the lake can hold an element: dates of four-digit years, finite decimals, all else."""
    if text is None or not (pa.types.is_temporal(kind) or pa.types.is_decimal(kind)):
        return True
    return re.fullmatch(r"\d{4}-\d\d-\d\d[ \d:.+]*|-?[\d.]+", text) is not None


def _pairs(text: str) -> dict[str, str | None]:
    """The pairs of an hstore's text."""
    quoted = r'"((?:[^"\\]|\\.)*)"'
    pairs = re.findall(rf"{quoted}=>(NULL|{quoted})", text, re.DOTALL)
    return {_unescaped(key): None if whole == "NULL" else _unescaped(inner) for key, whole, inner in pairs}


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _float(value: float, kind: pa.DataType) -> str:
    return repr(pa.scalar(value, kind).as_py())


def lake_rows(data: pa.Table, table: Found) -> list[tuple[Row, bool]]:
    """Every row as Postgres would write it, what was rescued in its place; and whether it is marked as deleted."""
    columns = [_rendered(data[c].combine_chunks(), data.schema.field(c).type) for c in table.columns]
    rescued = data["_rescued_data"].to_pylist()
    gone = data["_deleted_at"].to_pylist() if "_deleted_at" in data.column_names else [None] * len(data)
    rows = []
    for n, texts in enumerate(rescued):
        kept = json.loads(texts) if texts else {}
        values = []
        for column, rendered in zip(table.columns, columns, strict=True):
            value = rendered[n]
            if column in kept:
                # what is rescued is nowhere else
                value = kept[column] if value is None else f"both {value!r} and {kept[column]!r}"
            values.append(value)
        if unknown := set(kept) - set(table.columns):
            values.append(f"rescued for no column: {unknown}")
        rows.append((tuple(values), gone[n] is not None))
    return rows


def _rendered(column: pa.Array, kind: pa.DataType) -> list[Any]:
    if pa.types.is_list(kind):
        elements = iter(_rendered(column.flatten(), kind.value_type))
        return [None if n is None else list(islice(elements, n)) for n in pc.list_value_length(column).to_pylist()]
    return [None if v is None else _render(kind)(v) for v in _values(column, kind)]


def _values(column: pa.Array, kind: pa.DataType) -> list[Any]:
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    if pa.types.is_date(kind):
        column = column.cast(pa.int32())
    return list(column.to_pylist())


def _render(kind: pa.DataType) -> Callable[[Any], Any]:  # noqa: PLR0911 - one for each Arrow type
    """From a value of the lake to Postgres' text."""
    if pa.types.is_boolean(kind):
        return lambda v: "t" if v else "f"
    if pa.types.is_integer(kind):
        return str
    if pa.types.is_floating(kind):
        return lambda v: _float(v, kind)
    if pa.types.is_decimal(kind):
        return lambda v: f"{v:f}"
    if pa.types.is_timestamp(kind):
        return lambda v: _moment(v, zone=kind.tz is not None)
    if pa.types.is_date(kind):
        return _date
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return lambda v: "\\x" + v.hex()
    if pa.types.is_map(kind):
        return dict
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return str
    raise AssertionError(f"the oracle does not know how Postgres writes what the lake has as {kind}")


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a day since 1970 in the proleptic Gregorian calendar, any year.

    Source: http://howardhinnant.github.io/date_algorithms.html#civil_from_days
    """
    era, of_era = divmod(days + 719468, 146097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year_of_era + era * 400 + (month <= 2), month, of_year - (153 * shifted + 2) // 5 + 1


def _date(days: int, clock: str = "") -> str:
    year, month, day = _civil(days)
    before = year <= 0
    return f"{1 - year if before else year:04}-{month:02}-{day:02}{clock}{' BC' if before else ''}"


def _moment(micros: int, *, zone: bool) -> str:
    seconds, fraction = divmod(micros, 1_000_000)
    days, second = divmod(seconds, 86400)
    text = f" {second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    if fraction:
        text += f".{fraction:06}".rstrip("0")
    return _date(days, text + ("+00" if zone else ""))
