"""How rows are stored, and what tells rows apart that have no key."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from neon_lake.destinations.databricks.sql import text


def row_id(columns: Sequence[tuple[str, pa.DataType, str]], rescued: str) -> str:
    """An expression of 16 bytes that rows of the same content share, whatever the order of their columns.

    `columns` are (name, type, expression). A null counts as if its column was not there, so that a row keeps its id
    when a column is added. By xxhash64, which is defined on values and not on their text.
    """
    parts: list[str] = []
    for name, kind, expression in sorted([*columns, ("_rescued_data", pa.string(), rescued)]):
        parts += [f"CASE WHEN {expression} IS NOT NULL THEN {text(name)} END", _hashable(kind, expression)]
    content = ", ".join(parts)
    halves = [f"lpad(hex(xxhash64({text(salt)}, {content})), 16, '0')" for salt in ("first", "second")]
    return f"unhex(concat({', '.join(halves)}))"


def _hashable(kind: pa.DataType, expression: str) -> str:
    if pa.types.is_map(kind):
        return f"map_entries({expression})"
    # the hash of 0 is that of -0
    return f"CAST({expression} AS string)" if pa.types.is_floating(kind) else expression
