"""Random values as SQL literals, by kind of column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of column: its SQL type, its values (without NULL), what it can be widened to, and how it is stored."""

    sql: str
    draw: Callable[[Random], str]
    wider: str | None = None
    external: bool = False
    """Large values are stored out of line, so that an update that leaves them alone does not send them."""


_TEXTS: Final = (
    "",
    "a",
    "ü\u00a0ñ",
    "\U0001f40d",
    "it's",
    'q"q',
    "back\\slash",
    "tab\tnl\n",
    "{,}",
    "NULL",
    " x ",
    "%s",
)


def _text(rng: Random) -> str:
    return quoted(rng.choice(_TEXTS) + str(rng.randrange(1000)))


def _large(rng: Random) -> str:
    """Sometimes short enough to lie in the row, mostly TOASTed."""
    unit = quoted(f"{rng.randrange(1 << 32):08x}")
    return f"repeat({unit}, {rng.choice((1, 20, 400, 700, 1500))})"


def _of(*literals: str) -> Callable[[Random], str]:
    return lambda rng: rng.choice(literals)


def _cast(sql: str, *texts: str) -> Callable[[Random], str]:
    return lambda rng: f"{quoted(rng.choice(texts))}::{sql}"


def _array(rng: Random) -> str:
    return rng.choice(
        (
            "'{}'::int[]",
            "'{NULL}'::int[]",
            "'{{1,2},{3,4}}'::int[]",
            "'[0:1]={5,6}'::int[]",
            f"ARRAY[{rng.randrange(100)}, NULL, -{rng.randrange(100)}]",
        )
    )


def _numeric(rng: Random) -> str:
    return rng.choice(
        (f"{rng.randrange(-(10**8), 10**8)}.{rng.randrange(100):02}", "0", "'NaN'", "-0.01", "99999999.99")
    )


KINDS: Final[Mapping[str, Kind]] = {
    "int": Kind(sql="int", draw=lambda rng: str(rng.choice((0, -1, 2147483647, rng.randrange(10000)))), wider="bigint"),
    "smallint": Kind(sql="smallint", draw=lambda rng: str(rng.randrange(-32768, 32767)), wider="int"),
    "bigint": Kind(sql="bigint", draw=lambda rng: str(rng.randrange(-(1 << 62), 1 << 62)), wider="numeric"),
    "bool": Kind(sql="boolean", draw=_of("true", "false")),
    "real": Kind(sql="real", draw=_cast("real", "1.5", "0.1", "NaN", "Infinity", "-0", "3.4e38"), wider="double"),
    "double": Kind(
        sql="double precision", draw=_cast("float8", "1.1", "NaN", "-Infinity", "-0", "1e-300", "0.30000000000000004")
    ),
    "money2": Kind(sql="numeric(10,2)", draw=_numeric, wider="numeric"),
    "numeric": Kind(
        sql="numeric", draw=_of("1.50", "'NaN'", "'Infinity'", "1e40", "-0.000000000000000000000001", "0.0", "7")
    ),
    "text": Kind(sql="text", draw=_text),
    "varchar": Kind(sql="varchar(40)", draw=_text, wider="text"),
    "char": Kind(sql="char(6)", draw=_of("'ab'", "''", "'123456'")),
    "large": Kind(sql="text", draw=_large, external=True),
    "blob": Kind(
        sql="bytea",
        draw=lambda rng: f"decode(repeat('{rng.randrange(256):02x}00ff', {rng.choice((0, 3, 2500))}), 'hex')",
        external=True,
    ),
    "document": Kind(sql="jsonb", draw=lambda rng: f'\'{{"n": {rng.randrange(99)}, "t": [null, "ü"]}}\''),
    "moment": Kind(
        sql="timestamptz",
        draw=_cast(
            "timestamptz",
            "2026-03-01 12:00:00.000001+02",
            "infinity",
            "-infinity",
            "0044-03-15 12:00+00 BC",
            "20000-01-01 00:00+00",
            "1970-01-01 00:00+00",
        ),
    ),
    "local": Kind(sql="timestamp", draw=_cast("timestamp", "2026-03-01 12:00", "infinity", "0001-01-01", "9999-12-31")),
    "day": Kind(sql="date", draw=_cast("date", "2026-03-01", "infinity", "0044-03-15 BC", "0001-01-01", "12345-01-01")),
    "clock": Kind(sql="time", draw=_cast("time", "00:00", "24:00", "23:59:59.999999")),
    "span": Kind(sql="interval", draw=_cast("interval", "1 day", "-3 mons 2 days 00:00:01.5", "0")),
    "who": Kind(sql="uuid", draw=lambda rng: f"'{rng.getrandbits(128):032x}'::uuid"),
    "numbers": Kind(sql="int[]", draw=_array),
    "words": Kind(
        sql="text[]", draw=_of("ARRAY['x', NULL, '', 'y\"z\\', ' {,} ']", "'{}'", "ARRAY['null', 'NULL', 'ü']")
    ),
    "range": Kind(sql="int4range", draw=_of("'[1,5)'", "'empty'", "'(,7)'")),
    "ranges": Kind(sql="nummultirange", draw=_of("'{}'", "'{[1.50,2],(3,)}'", "'{(,-1)}'")),
    "days": Kind(
        sql="date[]",
        draw=_of("'{}'", "'{2026-01-01,NULL}'", "'{infinity}'", "'{{2026-01-01}}'", "'{\"0044-03-15 BC\"}'"),
    ),
    "moments": Kind(sql="timestamptz[]", draw=_of("'{\"2026-01-01 00:00+02\"}'", "'{NULL,-infinity}'", "'{}'")),
    "ratios": Kind(sql="float8[]", draw=_of("'{NaN,-0,Infinity,0.1}'", "'{5e-324,NULL}'", "'{}'")),
    "amounts": Kind(sql="numeric(8,2)[]", draw=_of("'{1.5,NULL}'", "'{NaN}'", "'{-0.01}'")),
    "flags": Kind(sql="boolean[]", draw=_of("'{t,f,NULL}'", "'{}'")),
    "blobs": Kind(
        sql="bytea[]",
        draw=lambda rng: f"ARRAY[decode(repeat('00ff5c', {rng.choice((0, 1, 3000))}), 'hex'), NULL]",
        external=True,
    ),
    "spans": Kind(sql="int4range[]", draw=_of("'{\"[1,5)\",empty,NULL}'", "'{}'")),
    "boxes": Kind(sql="box[]", draw=_of("'{(1,1),(0,0);(2,2),(0,0.1)}'", "'{NULL}'")),
    "shape": Kind(sql="circle", draw=_of("'<(0.1,0),2>'", "'<(Infinity,-0),0>'")),
    "bits": Kind(sql="varbit", draw=_of("B''", "B'10100'")),
    "words found": Kind(sql="tsvector", draw=_of("'a:1 b:2A'", "''", "$$'it''s'$$")),
    "money": Kind(sql="money", draw=_of("-1234.5", "0")),
    "object": Kind(sql="regclass", draw=_of("'pg_catalog.pg_class'", "'-'")),
    "numbers apart": Kind(sql="oidvector", draw=_of("''", "'1 2 4294967295'")),
    "any plane": Kind(
        sql="text", draw=_of(*(quoted(chr(c)) for c in (0xFFFD, 0xE000, 0x5D0, 0x301, 0x20000, 0x10FFFF)))
    ),
    "address": Kind(sql="inet", draw=_of("'10.0.0.1'", "'10.0.0.0/8'", "'::1'")),
}


@dataclass(frozen=True, kw_only=True)
class KeyKind:
    """A kind of key: its columns with their SQL types, and the literals of the key number `n`."""

    columns: tuple[tuple[str, str], ...]
    literals: Callable[[int], tuple[str, ...]]


KEYS: Final[Mapping[str, KeyKind]] = {
    "int": KeyKind(columns=(("id", "int"),), literals=lambda n: (str(n),)),
    "bigint": KeyKind(columns=(("id", "bigint"),), literals=lambda n: (str(n * 10**13),)),
    "text": KeyKind(columns=(("id", "text"),), literals=lambda n: (quoted(("K", "k", "ü", "", " ")[n % 5] + str(n)),)),
    "uuid": KeyKind(columns=(("id", "uuid"),), literals=lambda n: (f"'{n * 0x9E3779B97F4A7C15:032x}'::uuid",)),
    "numeric": KeyKind(columns=(("id", "numeric(12,3)"),), literals=lambda n: (f"{n}.125",)),
    "moment": KeyKind(
        columns=(("id", "timestamptz"),),
        literals=lambda n: (f"'2026-01-01 00:00+00'::timestamptz + interval '{n} minutes 1 microsecond'",),
    ),
    "pair": KeyKind(columns=(("k 1", "int"), ("K2", "text")), literals=lambda n: (str(n % 4), quoted(f"{n // 4}"))),
    "bytes": KeyKind(columns=(("id", "bytea"),), literals=lambda n: (f"'\\x{n:04x}'::bytea",)),
}
