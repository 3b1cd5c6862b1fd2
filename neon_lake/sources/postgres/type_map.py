"""Postgres types as Arrow types, and Postgres' text as Arrow values.

The session's settings are part of the contract: `TimeZone=UTC`, `DateStyle=ISO`, `bytea_output=hex` and exact floats.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.errors import ProtocolError
from neon_lake.sources.postgres import array_text, hstore_text
from neon_lake.sources.postgres.columns import Mask, binary_parts, mask_buffer


@dataclass(frozen=True, kw_only=True)
class SqlType:
    """A column's type with domains resolved.

    `name` is the declared type as SQL writes it; `base` is the built-in type's name in pg_type (`int4`, `numeric`),
    that of an extension's type behind the extension's (`hstore.hstore`), or empty for a type that a user made;
    `modifier` is pg_attribute's atttypmod (-1 without); `element` and `delimiter` describe an array's elements.
    `override` is the Arrow type that the pipeline file asks for, of a numeric.
    """

    name: str
    base: str
    modifier: int = -1
    element: SqlType | None = None
    delimiter: str = ","
    override: pa.DataType | None = None


class Cast(NamedTuple):
    """Typed values, and which texts their type cannot hold (those are null in `values`); None when it holds all."""

    values: pa.Array
    rescued: Mask | None = None


_PLAIN: Final = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "hstore.hstore": hstore_text.MAP,
}

NATIVE: Final = frozenset({"bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar", "bytea"})
"""Types whose binary value needs no session setting and equals what `cast` makes of their text."""


def arrow_type(sql_type: SqlType) -> pa.DataType:
    """The Arrow type of a column; a type without one of its own lands as Postgres' text."""
    if sql_type.override is not None:
        return sql_type.override
    if sql_type.element is not None:
        return pa.list_(arrow_type(sql_type.element))
    if sql_type.base == "numeric":
        return _decimal(sql_type.modifier) or pa.string()
    return _PLAIN.get(sql_type.base, pa.string())


def _decimal(modifier: int) -> pa.DataType | None:
    """The decimal of a numeric's type modifier, where Arrow has one.

    Source: `make_numeric_typmod` in src/backend/utils/adt/numeric.c: precision, then the scale as 11 signed bits.
    """
    if modifier < 4:
        return None
    packed = modifier - 4
    precision, scale = packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 0x400) - 0x400
    return pa.decimal128(precision, scale) if 0 <= scale <= precision <= 38 else None


def cast(text: pa.Array, sql_type: SqlType) -> Cast:
    """Turn Postgres' text (a binary array) into values of `arrow_type(sql_type)`. Raises `ProtocolError`."""
    target = arrow_type(sql_type)
    if pa.types.is_nested(target):
        return _nested(text, sql_type)
    if target == pa.binary():
        return _bytes(text)
    strings = _utf8(text)
    if target == pa.string():
        return Cast(strings)
    if target == pa.bool_():
        true = pc.equal(strings, "t")
        return _hold(Cast(true), pc.or_(true, pc.equal(strings, "f")))
    return _parsed(strings, target) if sql_type.override is None else _asked(strings, target)


def _utf8(text: pa.Array) -> pa.Array:
    try:
        return text.cast(pa.string())
    except pa.ArrowInvalid as exc:
        raise ProtocolError("the source sent text that is not UTF-8") from exc


_DATE: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME: Final = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"


def _parsed(strings: pa.Array, target: pa.DataType) -> Cast:
    """Cast by Arrow's parser. One misfit fails a whole column there, so only then are misfits looked for."""
    try:
        return Cast(strings.cast(target))
    except pa.ArrowInvalid:
        fits = pc.match_substring_regex(strings, f"^(?:{_pattern(target)})$")
    try:
        return _hold(Cast(pc.if_else(fits, strings, None).cast(target)), fits)
    except pa.ArrowInvalid:
        fits = pa.array([_fits(value, target) for value in strings], pa.bool_())
        return _hold(Cast(pc.if_else(fits, strings, None).cast(target)), fits)


def _asked(strings: pa.Array, target: pa.DataType) -> Cast:
    """Read numerics of any length as what the pipeline file asks for: as decimals when exact, as doubles rounded."""
    if pa.types.is_floating(target):
        values = strings.cast(target)
        infinite = pc.match_substring(strings, "Infinity")
        return _hold(Cast(values), pc.or_(infinite, pc.invert(pc.is_inf(values))))
    # Zeros at the end are no digits that get lost.
    short = pc.replace_substring_regex(strings, r"^(-?[0-9]+)(?:(\.[0-9]*[1-9])|\.)0*$", r"\1\2")
    # Nothing may be cast that does not fit: of 39 digits and more Arrow makes another number, without a word.
    fits = pc.match_substring_regex(short, f"^(?:{_pattern(target)})$")
    return _hold(Cast(pc.if_else(fits, short, None).cast(target)), fits)


def _pattern(target: pa.DataType) -> str:
    if pa.types.is_decimal(target):
        whole = rf"-?0*[0-9]{{0,{target.precision - target.scale}}}"
        return whole + (rf"(\.[0-9]{{1,{target.scale}}})?" if target.scale else "")
    if pa.types.is_date(target):
        return _DATE
    if pa.types.is_timestamp(target):
        return f"{_DATE} {_TIME}" + (r"\+00" if target.tz else "")
    return "-?[0-9].*"


def _fits(value: pa.Scalar, target: pa.DataType) -> bool | None:
    """Whether one text can be cast; the last resort for a form that no pattern foresees."""
    try:
        return value.cast(target).is_valid or None
    except pa.ArrowInvalid:
        return False


def _hold(cast_: Cast, fits: pa.Array) -> Cast:
    """`cast_` with null where the text does not fit."""
    mask = ~np.asarray(pc.fill_null(fits, True).to_numpy(zero_copy_only=False), np.bool_)
    if not mask.any():
        return cast_
    return Cast(pc.if_else(pa.array(~mask), cast_.values, None), mask)


_NIBBLE: Final = np.full(256, 0xFF, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def _bytes(text: pa.Array) -> Cast:
    r"""Read `\x…` (https://www.postgresql.org/docs/current/datatype-binary.html#DATATYPE-BINARY-BYTEA-HEX-FORMAT)."""
    data, starts, ends, valid = binary_parts(text)
    padded = np.concatenate([data, np.zeros(2, np.uint8)])
    lengths = ends - starts
    prefix = (padded[starts] == ord("\\")) & (padded[starts + 1] == ord("x"))
    if (valid & ~(prefix & (lengths >= 2) & (lengths % 2 == 0))).any():
        raise ProtocolError("the source sent bytea in another form than hex")
    digits = np.ones(len(data), np.bool_)
    digits[starts[valid]] = False
    digits[starts[valid] + 1] = False
    nibbles = _NIBBLE[data[digits]]
    if (nibbles == 0xFF).any():
        raise ProtocolError("the source sent bytea in another form than hex")
    octets = nibbles[0::2] << 4 | nibbles[1::2]
    offsets = np.concatenate([[0], np.cumsum(np.where(valid, lengths // 2 - 1, 0))]).astype(np.int32)
    buffers = [None if valid.all() else mask_buffer(valid), pa.py_buffer(offsets), pa.py_buffer(octets)]
    return Cast(pa.Array.from_buffers(pa.binary(), len(text), buffers))


def _nested(text: pa.Array, sql_type: SqlType) -> Cast:
    _utf8(text)
    if sql_type.element is not None:
        return _lists(text, sql_type.element, sql_type.delimiter)
    return Cast(hstore_text.parse(text))


def _lists(text: pa.Array, element: SqlType, delimiter: str) -> Cast:
    """Read arrays; a row that is not a plain list, or has an element that does not fit, is rescued whole."""
    elements = array_text.parse(text, delimiter)
    values, misfits = cast(elements.values, element)
    rescued = elements.other
    if misfits is not None:
        owners = np.searchsorted(elements.offsets, np.flatnonzero(misfits), side="right") - 1
        rescued = rescued.copy()
        rescued[owners] = True
    null = rescued | np.asarray(text.is_null())
    offsets = pa.py_buffer(elements.offsets)
    bitmap = mask_buffer(~null) if null.any() else None
    lists = pa.Array.from_buffers(pa.list_(values.type), len(text), [bitmap, offsets], children=[values])
    return Cast(lists, rescued if rescued.any() else None)


def rescue(misfits: Sequence[tuple[str, pa.Array, Mask]], rows: int) -> pa.Array:
    """The `_rescued_data` column: for each row a JSON object of column → text, or null.

    `misfits` has a column's name, its text (binary) and which of its texts did not fit, in column order.
    """
    objects: dict[int, dict[str, str]] = {}
    for name, text, mask in misfits:
        at = np.flatnonzero(mask)
        for row, value in zip(at.tolist(), text.take(pa.array(at)).to_pylist(), strict=True):
            objects.setdefault(row, {})[name] = value.decode()
    if not objects:
        return pa.nulls(rows, pa.string())
    texts = pa.array([json.dumps(fields, ensure_ascii=False) for fields in objects.values()], pa.string())
    place = np.full(rows, -1, np.int64)
    place[list(objects)] = np.arange(len(objects))
    return texts.take(pa.array(place, mask=place < 0))
