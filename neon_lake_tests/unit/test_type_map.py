from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neon_lake.errors import ProtocolError
from neon_lake.sources.postgres.array_text import parse
from neon_lake.sources.postgres.type_map import SqlType, arrow_type, cast, rescue


def numeric(precision: int, scale: int) -> int:
    """The type modifier of a numeric with that precision and scale."""
    return (precision << 16 | scale & 0x7FF) + 4


def of(base: str, modifier: int = -1) -> SqlType:
    return SqlType(name=base, base=base, modifier=modifier)


def array_of(element: SqlType) -> SqlType:
    return SqlType(name=f"{element.name}[]", base=f"_{element.base}", modifier=element.modifier, element=element)


def binary(texts: Sequence[str | None]) -> pa.Array:
    return pa.array([None if text is None else text.encode() for text in texts], pa.binary())


@pytest.mark.parametrize(
    ("sql_type", "arrow"),
    [
        (of("bool"), pa.bool_()),
        (of("int2"), pa.int16()),
        (of("int4"), pa.int32()),
        (of("int8"), pa.int64()),
        (of("oid"), pa.int64()),
        (of("float4"), pa.float32()),
        (of("float8"), pa.float64()),
        (of("numeric", numeric(12, 2)), pa.decimal128(12, 2)),
        (of("numeric", numeric(38, 38)), pa.decimal128(38, 38)),
        (of("numeric", numeric(39, 2)), pa.string()),
        (of("numeric", numeric(3, -2)), pa.string()),
        (of("numeric", numeric(2, 5)), pa.string()),
        (of("numeric"), pa.string()),
        (of("date"), pa.date32()),
        (of("timestamp"), pa.timestamp("us")),
        (of("timestamptz"), pa.timestamp("us", tz="UTC")),
        (of("bytea"), pa.binary()),
        (of("interval"), pa.string()),
        (of(""), pa.string()),
        (array_of(of("numeric", numeric(5, 1))), pa.list_(pa.decimal128(5, 1))),
    ],
)
def test_each_type_has_its_arrow_type(sql_type: SqlType, arrow: pa.DataType) -> None:
    assert arrow_type(sql_type) == arrow


@pytest.mark.parametrize(
    ("sql_type", "text", "value"),
    [
        (of("bool"), "t", True),
        (of("bool"), "f", False),
        (of("int2"), "-32768", -32768),
        (of("int8"), "9223372036854775807", 2**63 - 1),
        (of("oid"), "4294967295", 2**32 - 1),
        (of("float4"), "3.4028235e+38", float(np.float32(3.4028235e38))),
        (of("float8"), "5e-324", 5e-324),
        (of("float8"), "-Infinity", float("-inf")),
        (of("numeric", numeric(38, 0)), "9" * 38, Decimal("9" * 38)),
        (of("numeric", numeric(5, 2)), "-0.01", Decimal("-0.01")),
        (of("numeric"), "NaN", "NaN"),
        (of("date"), "0001-01-01", date(1, 1, 1)),
        (of("timestamp"), "9999-12-31 23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999999)),  # noqa: DTZ001
        (of("timestamptz"), "2026-01-02 03:04:05.6+00", datetime(2026, 1, 2, 3, 4, 5, 600000, UTC)),
        (of("bytea"), "\\x00ff10", b"\x00\xff\x10"),
        (of("bytea"), "\\x", b""),
        (of("time"), "24:00:00", "24:00:00"),
        (of("text"), "", ""),
    ],
)
def test_text_becomes_its_value(sql_type: SqlType, text: str, value: Any) -> None:
    values, rescued = cast(binary([None, text, None]), sql_type)
    assert values.type == arrow_type(sql_type)
    assert values.to_pylist() == [None, value, None]
    assert rescued is None


@pytest.mark.parametrize(
    ("sql_type", "text"),
    [
        (of("numeric", numeric(5, 2)), "NaN"),
        (of("date"), "infinity"),
        (of("date"), "-infinity"),
        (of("date"), "0044-03-15 BC"),
        (of("date"), "10000-01-01"),
        (of("timestamp"), "infinity"),
        (of("timestamp"), "294276-12-31 23:59:59.999999"),
        (of("timestamptz"), "4714-11-24 00:00:00+00 BC"),
        (of("int4"), "what"),
        (of("numeric", numeric(5, 2)), "12345.00"),
        (of("bool"), "yes"),
        (array_of(of("int4")), "{{1,2},{3,4}}"),
        (array_of(of("int4")), "[0:1]={1,2}"),
        (array_of(of("int4")), "{1,2"),
        (array_of(of("date")), "{2026-01-01,infinity}"),
    ],
)
def test_what_a_type_cannot_hold_is_null_and_rescued(sql_type: SqlType, text: str) -> None:
    fine = {
        "bool": "t",
        "int4": "1",
        "numeric": "1.00",
        "date": "2026-01-01",
        "timestamp": "2026-01-01 00:00:00",
        "timestamptz": "2026-01-01 00:00:00+00",
    }.get(sql_type.base)
    others = [fine, None] if fine else ["{}", None]
    values, rescued = cast(binary([others[0], text, others[1]]), sql_type)
    assert rescued is not None
    assert rescued.tolist() == [False, True, False]
    assert values[1].as_py() is None
    assert values[0].as_py() is not None
    values.validate(full=True)


def asked(target: pa.DataType) -> SqlType:
    """A numeric that the pipeline file gives a type."""
    return SqlType(name="numeric", base="numeric", override=target)


@pytest.mark.parametrize(
    ("target", "text", "value"),
    [
        (pa.decimal128(6, 2), "-0001.50", Decimal("-1.50")),
        (pa.decimal128(6, 2), "1234.5" + "0" * 60, Decimal("1234.50")),
        (pa.decimal128(6, 2), "9999", Decimal("9999.00")),
        (pa.decimal128(38, 38), "0." + "1" * 38, Decimal("0." + "1" * 38)),
        (pa.decimal128(6, 0), "7.000", Decimal(7)),
        (pa.decimal128(6, 0), "700", Decimal(700)),
        (pa.decimal128(6, 2), "1.005", None),
        (pa.decimal128(6, 2), "10000", None),
        (pa.decimal128(6, 0), "7.1", None),
        (pa.decimal128(6, 2), "NaN", None),
        (pa.decimal128(6, 2), "-Infinity", None),
        (pa.float64(), "0.1", 0.1),
        (pa.float64(), "123456789012345678901234567890.5", 123456789012345678901234567890.5),
        (pa.float64(), "-Infinity", float("-inf")),
        (pa.float64(), "9" * 400, None),
        (pa.float64(), "-" + "9" * 400, None),
        (pa.string(), "1.50", "1.50"),
    ],
)
def test_a_numeric_lands_as_it_is_asked_for_or_is_rescued(target: pa.DataType, text: str, value: Any) -> None:
    for company in ("0", "NaN", "1.001"):
        values, rescued = cast(binary([None, text, company, "0"]), asked(target))
        values.validate(full=True)
        assert values.type == target
        assert values[:2].to_pylist() == [None, value]
        assert values[3].is_valid
        assert (rescued is not None and bool(rescued[1])) is (value is None)


def test_nan_stays_in_a_double() -> None:
    values, rescued = cast(binary(["NaN", "1"]), asked(pa.float64()))
    assert repr(values.to_pylist()) == "[nan, 1.0]"
    assert rescued is None


@pytest.mark.parametrize("digits", [37, 38, 39, 40, 57, 58, 76, 77, 300])
def test_a_number_of_more_digits_than_a_decimal_has_is_never_another_one(digits: int) -> None:
    text = "1" + "0" * (digits - 2) + "7"
    for number in (text, f"-{text}", f"0.{text}", f"{text}.5", f"{text}.{'0' * 70}"):
        values, rescued = cast(binary([number]), asked(pa.decimal128(38, 2)))
        assert values.to_pylist() == [None]
        assert rescued is not None


def test_null_elements_hold_nothing() -> None:
    values, _ = cast(binary([r'{"\\x00ff",NULL,"\\x"}', "{NULL}"]), array_of(of("bytea")))
    assert values.to_pylist() == [[b"\x00\xff", None, b""], [None]]


def test_hstore_is_a_map_also_within_arrays() -> None:
    hstore = SqlType(name="public.hstore", base="hstore.hstore")
    values, _ = cast(binary([r'{"\"a\"=>\"1\", \"b\"=>NULL","",NULL}']), array_of(hstore))
    assert values.type == pa.list_(pa.map_(pa.string(), pa.string()))
    assert values.to_pylist() == [[[("a", "1"), ("b", None)], [], None]]


@pytest.mark.parametrize("text", ["00ff", "\\x0", "\\x0g", "\\", ""])
def test_bytea_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="hex"):
        cast(binary([text]), of("bytea"))


@pytest.mark.parametrize("sql_type", [of("text"), of("int4"), array_of(of("text"))])
def test_text_that_is_not_utf8_is_refused(sql_type: SqlType) -> None:
    with pytest.raises(ProtocolError, match="UTF-8"):
        cast(pa.array([b"{\xff}"]), sql_type)


@given(st.lists(st.none() | st.binary(max_size=20)))
def test_bytea_is_what_was_stored(values: list[bytes | None]) -> None:
    text = binary([None if value is None else "\\x" + value.hex() for value in values])
    assert cast(text, of("bytea")).values.to_pylist() == values


def array_out(elements: Sequence[str | None]) -> str:
    """An array's text as the server writes it (src/backend/utils/adt/arrayfuncs.c)."""

    def one(element: str | None) -> str:
        if element is None:
            return "NULL"
        special = any(c in element for c in '{}",\\') or any(c in element for c in " \t\n\r\v\f")
        if element == "" or special or element.upper() == "NULL":
            return '"' + element.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return element

    return "{" + ",".join(one(element) for element in elements) + "}"


tricky = st.text(st.sampled_from('a{},"\\ \n¤€NUL'), max_size=8) | st.sampled_from(["NULL", "null", ""])
arrays = st.none() | st.lists(st.none() | tricky, max_size=5)


@given(st.lists(arrays))
def test_arrays_of_text_are_what_was_stored(rows: list[list[str | None] | None]) -> None:
    text = binary([None if row is None else array_out(row) for row in rows])
    values, rescued = cast(text, array_of(of("text")))
    values.validate(full=True)
    assert values.to_pylist() == rows
    assert rescued is None


@given(st.lists(arrays), st.integers(0, 3), st.integers(0, 3))
def test_a_slice_of_an_array_is_read_as_such(rows: list[list[str | None] | None], skip: int, end: int) -> None:
    text = binary([None if row is None else array_out(row) for row in rows])
    values, _ = cast(text[skip : len(rows) - end], array_of(of("text")))
    assert values.to_pylist() == rows[skip : len(rows) - end]


@given(st.lists(st.none() | st.binary(max_size=12)))
def test_no_bytes_make_the_array_parser_fail(rows: list[bytes | None]) -> None:
    elements = parse(pa.array(rows, pa.binary()), ",")
    elements.values.validate(full=True)
    assert len(elements.offsets) == len(rows) + 1
    assert elements.offsets[-1] == len(elements.values)


def test_boxes_are_parted_by_semicolons() -> None:
    box = SqlType(name="box[]", base="_box", element=of("box"), delimiter=";")
    values, _ = cast(binary(["{(1,1),(0,0);(2,2),(0,0)}"]), box)
    assert values.to_pylist() == [["(1,1),(0,0)", "(2,2),(0,0)"]]


def test_rescued_texts_are_one_object_per_row() -> None:
    first = ("a", binary(["1", "infinity", "infinity"]), np.array([False, True, True]))
    second = ("ü", binary(['"', "x", '"']), np.array([False, False, True]))
    lines = rescue([first, second], 3).to_pylist()
    assert [line and json.loads(line) for line in lines] == [None, {"a": "infinity"}, {"a": "infinity", "ü": '"'}]


def test_nothing_to_rescue_is_null() -> None:
    assert rescue([], 2).to_pylist() == [None, None]
