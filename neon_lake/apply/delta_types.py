"""What Delta's SQL calls the types that a column of the lake can have."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

_SQL_TYPES: Mapping[pa.DataType, str] = {
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.binary(): "binary",
    pa.date32(): "date",
    pa.timestamp("us"): "timestamp_ntz",
    pa.timestamp("us", tz="UTC"): "timestamp",
}


def delta_type(arrow: pa.DataType) -> str:
    """The name that Delta's SQL has for an Arrow type (https://docs.delta.io, data types)."""
    if pa.types.is_decimal(arrow):
        return f"decimal({arrow.precision},{arrow.scale})"
    if pa.types.is_list(arrow):
        return f"array<{delta_type(arrow.value_type)}>"
    if pa.types.is_map(arrow):
        return f"map<{delta_type(arrow.key_type)},{delta_type(arrow.item_type)}>"
    return _SQL_TYPES.get(arrow, str(arrow))
