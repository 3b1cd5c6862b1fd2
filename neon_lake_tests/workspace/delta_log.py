"""Delta tables, read and changed through their log alone: for what an engine has no statement for.

Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

ENGINE: Final = "workspace-for-tests"
_NTZ: Final = {
    "minReaderVersion": 3,
    "minWriterVersion": 7,
    "readerFeatures": ["timestampNtz"],
    "writerFeatures": ["timestampNtz", "appendOnly", "invariants"],
}
_PLAIN: Final = {"minReaderVersion": 1, "minWriterVersion": 2}


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A table as it is now: its version, and the `metaData` action that counts."""

    version: int
    metadata: Mapping[str, Any]

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The columns."""
        found: list[dict[str, Any]] = json.loads(self.metadata["schemaString"])["fields"]
        return found

    @property
    def properties(self) -> dict[str, str]:
        """The table's properties."""
        return dict(self.metadata.get("configuration") or {})


def is_url(location: str) -> bool:
    """Whether a table lies elsewhere than on this machine's disk."""
    return "://" in location


def exists(location: str) -> bool:
    """Whether a table lies here."""
    if is_url(location):
        return DeltaTable.is_deltatable(location)
    return any(Path(location, "_delta_log").glob("*.json"))


def version_of(location: str) -> int:
    """The number of the last commit; -1 where there is no table."""
    if is_url(location):
        return DeltaTable(location).version()
    try:
        names = [path.name for path in Path(location, "_delta_log").iterdir()]
    except FileNotFoundError:
        return -1
    return max((int(name[:20]) for name in names if name.endswith(".json") and name[:20].isdigit()), default=-1)


def snapshot(location: str) -> Snapshot:
    """A table as it is now."""
    if is_url(location):
        table = DeltaTable(location)
        metadata = table.metadata()
        return Snapshot(
            version=table.version(),
            metadata={
                "id": str(metadata.id),
                "name": metadata.name,
                "description": metadata.description,
                "schemaString": table.schema().to_json(),
                "partitionColumns": metadata.partition_columns,
                "configuration": metadata.configuration,
                "createdTime": metadata.created_time,
            },
        )
    version = version_of(location)
    for at in range(version, -1, -1):
        for action in actions_of(location, at):
            if "metaData" in action:
                return Snapshot(version=version, metadata=action["metaData"])
    raise FileNotFoundError(f"There is no Delta table at {location}.")


def actions_of(location: str, version: int) -> list[dict[str, Any]]:
    """What a commit did; nothing when it is not there any more."""
    try:
        text = Path(location, "_delta_log", f"{version:020}.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def metrics_since(location: str, version: int) -> Iterator[tuple[str, Mapping[str, int]]]:
    """The operations after a version, each with its counts."""
    if is_url(location):
        return
    for at in range(version + 1, version_of(location) + 1):
        for action in actions_of(location, at):
            if info := action.get("commitInfo"):
                metrics = {
                    name: int(value) for name, value in (info.get("operationMetrics") or {}).items() if _whole(value)
                }
                yield str(info.get("operation")), metrics


def _whole(value: Any) -> bool:
    return str(value).lstrip("-").isdigit()


# --- commits


def commit(location: str, version: int, operation: str, actions: Sequence[Mapping[str, Any]], **info: Any) -> None:
    """Write a commit. Raises FileExistsError when another has this version."""
    log = Path(location, "_delta_log")
    log.mkdir(parents=True, exist_ok=True)
    said = {
        "timestamp": _now(),
        "operation": operation,
        "operationParameters": {},
        "isBlindAppend": False,
        "engineInfo": ENGINE,
        "operationMetrics": {},
        **info,
    }
    lines = [json.dumps(action, ensure_ascii=False) for action in ({"commitInfo": said}, *actions)]
    aside = log / f".{uuid.uuid4().hex}.tmp"
    aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        os.link(aside, log / f"{version:020}.json")
    finally:
        aside.unlink()


def metadata(
    fields: Sequence[Mapping[str, Any]], *, properties: Mapping[str, str], comment: str | None = None
) -> dict[str, Any]:
    """The description of a new table."""
    return {
        "id": str(uuid.uuid4()),
        "description": comment,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": list(fields)}),
        "partitionColumns": [],
        "configuration": dict(properties),
        "createdTime": _now(),
    }


def protocol(fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What readers and writers of a table with these columns must know."""
    return _NTZ if "timestamp_ntz" in json.dumps(list(fields)) else _PLAIN


def change_metadata(location: str, operation: str, changed: Mapping[str, Any], **parameters: str) -> None:
    """Commit a table's description with some of its entries changed, and no rows."""
    now = snapshot(location)
    described = {**now.metadata, **changed}
    commit(location, now.version + 1, operation, [{"metaData": described}], operationParameters=parameters)


def with_fields(fields: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What `change_metadata` is given to change the columns."""
    return {"schemaString": json.dumps({"type": "struct", "fields": list(fields)})}


# --- data files


def add_file(location: str, table: pa.Table) -> dict[str, Any]:
    """Write rows beside a table; gives the action that makes them part of it."""
    name = f"part-00000-{uuid.uuid4()}-c000.snappy.parquet"
    Path(location).mkdir(parents=True, exist_ok=True)
    path = Path(location, name)
    pq.write_table(table, path, compression="snappy")
    status = path.stat()
    return {
        "add": {
            "path": quote(name),
            "partitionValues": {},
            "size": status.st_size,
            "modificationTime": int(status.st_mtime * 1000),
            "dataChange": True,
            "stats": json.dumps({"numRecords": table.num_rows}),
        }
    }


def removals(location: str) -> list[dict[str, Any]]:
    """Actions that take all files out of a table."""
    found = pa.table(DeltaTable(location).get_add_actions())
    paths, sizes = found["path"].to_pylist(), found["size_bytes"].to_pylist()
    return [
        {
            "remove": {
                "path": quote(path, safe="/%=._-"),
                "deletionTimestamp": _now(),
                "dataChange": True,
                "extendedFileMetadata": True,
                "partitionValues": {},
                "size": size,
            }
        }
        for path, size in zip(paths, sizes, strict=True)
    ]


def _now() -> int:
    return int(time.time() * 1000)
