"""What happened to a table, as Delta tells it: the version that it stands at, and whether others have written it.

Source: https://docs.databricks.com/delta/history
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

MOST: Final = 100
"""How far back a table's history is read; more versions than that between two batches are not looked at."""

REPLACED: Final = frozenset(
    {
        "CREATE OR REPLACE TABLE",
        "CREATE OR REPLACE TABLE AS SELECT",
        "CREATE TABLE",
        "CREATE TABLE AS SELECT",
        "REPLACE TABLE",
        "REPLACE TABLE AS SELECT",
    }
)
"""Operations that make a table, or put another in its place."""

FOREIGN: Final = REPLACED | {
    "CLONE",
    "COPY INTO",
    "DELETE",
    "RESTORE",
    "STREAMING UPDATE",
    "TRUNCATE",
    "UPDATE",
    "WRITE",
}
"""Operations that change rows, and that no batch of changes is applied by."""

_EFFECTS: Final = ("numTargetRowsInserted", "numTargetRowsUpdated", "numTargetRowsDeleted")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One version of a table: its number, and what made it. `effect`: how many rows a merge changed, if it is said."""

    version: int
    operation: str
    effect: int = 0

    @property
    def told(self) -> str:
        """The change, as it stands in a sentence."""
        return f"{self.operation} (version {self.version})"


def changes(rows: pa.Table) -> Sequence[Change]:
    """The rows of DESCRIBE HISTORY, the newest first."""
    found = [
        Change(version=int(row["version"]), operation=str(row["operation"]).upper(), effect=_effect(row))
        for row in rows.select(["version", "operation", "operationMetrics"]).to_pylist()
    ]
    return sorted(found, key=lambda change: -change.version)


def _effect(row: Mapping[str, str | None]) -> int:
    """The rows that a merge has changed, of metrics that are a JSON object of texts."""
    try:
        metrics = dict(json.loads(row["operationMetrics"] or "{}"))
        return sum(int(metrics.get(name, 0)) for name in _EFFECTS)
    except (ValueError, TypeError):
        return 0


def foreign(found: Sequence[Change], since: int, *, merges: int | None = 1) -> Change | None:
    """The first change of rows after a version that is not this pipeline's, or None.

    Of merges that change something there are to be `merges`, if that is said: a second one is somebody else's, or one
    that the ledger has forgotten, since what is carried out twice changes nothing. A table whose versions end before
    `since` is another one.
    """
    newest = found[0].version if found else -1
    if newest < since:
        return Change(version=newest, operation="REPLACE TABLE")
    later = [change for change in reversed(found) if change.version > since]
    effective = [change for change in later if change.operation == "MERGE" and change.effect]
    extra = effective[merges:] if merges is not None else []
    return next((change for change in later if change.operation in FOREIGN or change in extra), None)


def replaced(found: Sequence[Change], since: int) -> bool:
    """Whether another table stands where one of this version stood."""
    newest = found[0].version if found else -1
    return newest < since or any(c.version > since and c.operation in REPLACED for c in found)
