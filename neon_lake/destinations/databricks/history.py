"""What happened to a table, as Delta tells it: the version that it stands at, and whether others have written it.

Source: https://docs.databricks.com/delta/history
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

MOST: Final = 100
"""How far back a table's history is read; more versions than that between two batches are not looked at."""

FOREIGN: Final = frozenset(
    {
        "CLONE",
        "COPY INTO",
        "DELETE",
        "RESTORE",
        "STREAMING UPDATE",
        "TRUNCATE",
        "UPDATE",
    }
)
"""Operations that change rows, and that this pipeline never carries out on a table of the lake."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One version of a table: its number, and what made it."""

    version: int
    operation: str


def changes(rows: pa.Table) -> Sequence[Change]:
    """The rows of DESCRIBE HISTORY, the newest first."""
    versions, operations = rows["version"].to_pylist(), rows["operation"].to_pylist()
    found = [Change(version=int(v), operation=str(o)) for v, o in zip(versions, operations, strict=True)]
    return sorted(found, key=lambda change: -change.version)


def foreign(found: Sequence[Change], since: int) -> Change | None:
    """The first change of rows after a version that is not this pipeline's, or None.

    A table whose versions end before `since` is another one.
    """
    newest = found[0].version if found else -1
    if newest < since:
        return Change(version=newest, operation="REPLACE")
    return next((c for c in reversed(found) if c.version > since and c.operation.upper() in FOREIGN), None)
