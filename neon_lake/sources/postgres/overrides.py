"""What the pipeline file asks of numeric columns: to land as a decimal, a double or a string."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pyarrow as pa

from neon_lake.config import Table
from neon_lake.errors import TableRefused
from neon_lake.schema import TableName, arrow_type
from neon_lake.sources.postgres.type_map import SqlType


def numeric_overrides(line: Table) -> dict[str, pa.DataType]:
    """Column → the Arrow type that a line of the pipeline file asks for."""
    return {name: arrow_type(asked.replace("decimal", "decimal128")) for name, asked in line.types.items()}


def check_overrides(table: TableName, line: Table, columns: Mapping[str, SqlType], key: Collection[str]) -> None:
    """Refuse an override that cannot be followed. Raises `TableRefused`. `columns` are all that the table has."""
    for name, asked in numeric_overrides(line).items():
        if name not in columns:
            if line.is_pattern:
                continue
            raise TableRefused(f"The table {table} has no column {name} to give a type; correct its line.")
        if columns[name].base != "numeric":
            raise TableRefused(
                f"The column {name} of {table} is {columns[name].name}, and types: is for numeric columns alone; "
                "take it out of the table's line."
            )
        if name in key and pa.types.is_floating(asked):
            raise TableRefused(
                f"The column {name} of {table} is part of its key and cannot be a double, which would take different "
                "keys for the same; make it a decimal or a string."
            )
