"""Types of columns, in four spellings: as SQL declares them, as Delta's log, Arrow and Databricks' answers have them.

Delta's log is the one that the others are turned into: a word such as `long`, or an object.
Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#schema-serialization-format
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import pyarrow as pa

from neon_lake_tests.workspace.sql_errors import SqlFailed, unsupported
from neon_lake_tests.workspace.words import Reading, words_of

DeltaType: TypeAlias = str | dict[str, Any]

_SQL: Final = {
    "BIGINT": "long",
    "LONG": "long",
    "INT": "integer",
    "INTEGER": "integer",
    "SMALLINT": "short",
    "SHORT": "short",
    "TINYINT": "byte",
    "BYTE": "byte",
    "STRING": "string",
    "DOUBLE": "double",
    "FLOAT": "float",
    "REAL": "float",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_NTZ": "timestamp_ntz",
    "BINARY": "binary",
    "VARIANT": "variant",
    "VOID": "void",
}
_TEXTS: Final = {
    "long": "BIGINT",
    "integer": "INT",
    "short": "SMALLINT",
    "byte": "TINYINT",
}
_NAMES: Final = {
    "long": "LONG",
    "integer": "INT",
    "short": "SHORT",
    "byte": "BYTE",
    "void": "NULL",
}


def sql_type(written: str) -> DeltaType:
    """The type that SQL text declares. Raises `SqlFailed`."""
    reading = Reading(written, words_of(written))
    found = _type(reading)
    reading.ensure_end()
    return found


def _type(reading: Reading) -> DeltaType:
    name = reading.identifier().upper()
    if name in ("DECIMAL", "DEC", "NUMERIC"):
        precision, scale = 10, 0
        if reading.take("("):
            precision = reading.number()
            scale = reading.number() if reading.take(",") else 0
            reading.expect(")")
        return f"decimal({precision},{scale})"
    if name in ("VARCHAR", "CHAR"):
        reading.expect("(")
        reading.number()
        reading.expect(")")
        return "string"
    if name == "ARRAY":
        reading.expect("<")
        element = _type(reading)
        reading.expect(">")
        return {"type": "array", "elementType": element, "containsNull": True}
    if name == "MAP":
        reading.expect("<")
        key = _type(reading)
        reading.expect(",")
        value = _type(reading)
        reading.expect(">")
        return {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": True}
    if name == "STRUCT":
        return _struct(reading)
    if name not in _SQL:
        raise SqlFailed("UNSUPPORTED_DATATYPE", f'Unsupported data type "{name}".', "0A000")
    return _SQL[name]


def _struct(reading: Reading) -> DeltaType:
    reading.expect("<")
    fields: list[dict[str, Any]] = []
    while not reading.take(">"):
        if fields:
            reading.expect(",")
        name = reading.identifier()
        reading.take(":")
        kind, nullable, metadata = _type(reading), True, {}
        if reading.take("NOT", "NULL"):
            nullable = False
        if reading.take("COMMENT"):
            metadata["comment"] = reading.text()
        fields.append(field(name, kind, nullable=nullable, metadata=metadata))
    return {"type": "struct", "fields": fields}


def field(
    name: str, kind: DeltaType, *, nullable: bool = True, metadata: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A column, or a part of a struct, as Delta's log has it."""
    return {"name": name, "type": kind, "nullable": nullable, "metadata": metadata or {}}


def arrow_type(kind: pa.DataType) -> DeltaType:  # noqa: PLR0911 - one return per type
    """The type of an Arrow column. Raises `SqlFailed` for one that Delta has not."""
    types = pa.types
    for test, name in _ARROW.items():
        if test(kind):
            return name
    if types.is_timestamp(kind):
        return "timestamp" if kind.tz is not None else "timestamp_ntz"
    if types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if types.is_struct(kind):
        return {"type": "struct", "fields": [field(each.name, arrow_type(each.type)) for each in kind]}
    if types.is_list(kind) or types.is_large_list(kind):
        return {"type": "array", "elementType": arrow_type(kind.value_type), "containsNull": True}
    if types.is_map(kind):
        key, value = arrow_type(kind.key_type), arrow_type(kind.item_type)
        return {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": True}
    if types.is_duration(kind) or types.is_interval(kind):
        return "interval day to second"
    raise unsupported(f"type {kind}")


_ARROW: Final = {
    pa.types.is_int64: "long",
    pa.types.is_int32: "integer",
    pa.types.is_int16: "short",
    pa.types.is_int8: "byte",
    pa.types.is_string: "string",
    pa.types.is_large_string: "string",
    pa.types.is_string_view: "string",
    pa.types.is_float64: "double",
    pa.types.is_float32: "float",
    pa.types.is_boolean: "boolean",
    pa.types.is_date: "date",
    pa.types.is_binary: "binary",
    pa.types.is_large_binary: "binary",
    pa.types.is_binary_view: "binary",
    pa.types.is_null: "void",
}


def storable(kind: pa.DataType) -> pa.DataType:
    """The Arrow type that a column of a Delta table has in its files: nullable throughout, and without views."""
    types = pa.types
    if types.is_struct(kind):
        return pa.struct([pa.field(each.name, storable(each.type)) for each in kind])
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.list_(storable(kind.value_type))
    if types.is_map(kind):
        return pa.map_(storable(kind.key_type), storable(kind.item_type))
    if types.is_string_view(kind) or types.is_large_string(kind):
        return pa.string()
    if types.is_binary_view(kind) or types.is_large_binary(kind):
        return pa.binary()
    return kind


def text_of(kind: DeltaType) -> str:
    """As Databricks writes it in answers: `BIGINT`, `STRUCT<a: INT>`."""
    if isinstance(kind, str):
        return _TEXTS.get(kind, kind.upper())
    if kind["type"] == "array":
        return f"ARRAY<{text_of(kind['elementType'])}>"
    if kind["type"] == "map":
        return f"MAP<{text_of(kind['keyType'])}, {text_of(kind['valueType'])}>"
    fields = ", ".join(f"{each['name']}: {text_of(each['type'])}" for each in kind["fields"])
    return f"STRUCT<{fields}>"


def catalog_text_of(kind: DeltaType) -> str:
    """As Unity Catalog writes it: `bigint`, `struct<a:int>`."""
    if isinstance(kind, str):
        return _TEXTS.get(kind, kind).lower()
    if kind["type"] == "array":
        return f"array<{catalog_text_of(kind['elementType'])}>"
    if kind["type"] == "map":
        return f"map<{catalog_text_of(kind['keyType'])},{catalog_text_of(kind['valueType'])}>"
    fields = ",".join(f"{each['name']}:{catalog_text_of(each['type'])}" for each in kind["fields"])
    return f"struct<{fields}>"


def name_of(kind: DeltaType) -> str:
    """Databricks' name of the kind of type: `LONG`, `STRUCT`, `DECIMAL`."""
    if not isinstance(kind, str):
        return str(kind["type"]).upper()
    if kind.startswith("interval"):
        return "INTERVAL"
    return _NAMES.get(kind, kind.partition("(")[0].upper())
