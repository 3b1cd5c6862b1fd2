"""What Databricks refuses of a table, and which of its properties an engine can live with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from neon_lake_tests.workspace.sql_errors import SqlFailed, column_not_found

_WRITTEN: Final = frozenset(
    {
        "delta.appendOnly",
        "delta.checkpointInterval",
        "delta.dataSkippingNumIndexedCols",
        "delta.deletedFileRetentionDuration",
        "delta.isolationLevel",
        "delta.logRetentionDuration",
    }
)
"""Properties of Delta's own that Sail can live with. Those that are nobody's go into the log too."""
_REMEMBERED: Final = frozenset(
    {
        "delta.autoOptimize.autoCompact",
        "delta.autoOptimize.optimizeWrite",
        "delta.checkpointPolicy",
        "delta.columnMapping.mode",
        "delta.columnMapping.maxColumnId",
        "delta.dataSkippingStatsColumns",
        "delta.enableChangeDataFeed",
        "delta.enableDeletionVectors",
        "delta.enableInCommitTimestamps",
        "delta.enableRowTracking",
        "delta.enableTypeWidening",
        "delta.enableVariantShredding",
        "delta.minReaderVersion",
        "delta.minWriterVersion",
        "delta.parquet.compression.codec",
        "delta.randomizeFilePrefixes",
        "delta.setTransactionRetentionDuration",
        "delta.targetFileSize",
        "delta.tuneFileSizesForRewrites",
        "delta.universalFormat.enabledFormats",
        "delta.enableIcebergCompatV2",
    }
)
_UNFIT: Final = frozenset(" ,;{}()\n\t=")
"""Characters that a column's name can have under column mapping only."""


def place(fields: Sequence[Mapping[str, Any]], name: str) -> int:
    """Which of the columns has this name. Raises `SqlFailed` where none has."""
    for at, each in enumerate(fields):
        if each["name"].lower() == name.lower():
            return at
    raise column_not_found(name)


def ensure_unique(fields: Sequence[Mapping[str, Any]]) -> None:
    """Refuse two columns of one name."""
    names = [each["name"].lower() for each in fields]
    for name in names:
        if names.count(name) > 1:
            said = f"Found duplicate column(s): {name}."
            raise SqlFailed("DELTA_DUPLICATE_COLUMNS_FOUND", said, "42711")


def ensure_fit(fields: Sequence[Mapping[str, Any]], properties: Mapping[str, str]) -> None:
    """Refuse names of columns that need column mapping, where it is off."""
    if properties.get("delta.columnMapping.mode", "none") != "none":
        return
    for each in fields:
        if _UNFIT & set(each["name"]):
            said = f"Found invalid character(s) among ' ,;{{}}()\\n\\t=' in the name of a column: {each['name']}."
            raise SqlFailed("DELTA_INVALID_CHARACTERS_IN_COLUMN_NAMES", said, "42K05")


def ensure_known(properties: Mapping[str, str]) -> None:
    """Refuse properties that look like Delta's and are not."""
    for name in properties:
        if name.startswith("delta.") and not (
            name in _WRITTEN or name in _REMEMBERED or name.startswith("delta.feature.")
        ):
            raise SqlFailed("DELTA_UNKNOWN_CONFIGURATION", f"Unknown configuration was specified: {name}.", "F0000")


def written(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties that go into the log."""
    return {name: value for name, value in properties.items() if name in _WRITTEN or not name.startswith("delta.")}


def kept(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties that are only remembered."""
    return {name: value for name, value in properties.items() if name not in written(properties)}
