"""Names and values as Databricks SQL writes them.

Source: https://docs.databricks.com/sql/language-manual/sql-ref-identifiers
"""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from neon_lake.apply.delta_types import delta_type


def quoted(*parts: str) -> str:
    """A name of one or several parts, each as it is."""
    return ".".join("`" + part.replace("`", "``") + "`" for part in parts)


def text(value: str) -> str:
    """A string literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def moment(value: datetime) -> str:
    """A timestamp literal, in UTC whatever the session's time zone is."""
    return f"TIMESTAMP {text(value.astimezone(UTC).isoformat(sep=' '))}"


def file(form: str, path: str) -> str:
    """A file, or a folder of files, as a table."""
    return f"{form}.{quoted(path)}"


def null(kind: pa.DataType) -> str:
    """Null, of a type."""
    return f"CAST(NULL AS {delta_type(kind)})"


def failing(code: str, kind: pa.DataType) -> str:
    """An expression that fails the statement when a row needs its value; `code` comes back in the message."""
    return f"CAST(raise_error({text(code)}) AS {delta_type(kind)})"


def properties(values: dict[str, str]) -> str:
    """The clause that sets table properties."""
    return "TBLPROPERTIES (" + ", ".join(f"{text(name)} = {text(value)}" for name, value in values.items()) + ")"
