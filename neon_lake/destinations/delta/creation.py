"""New tables, which appear whole or not at all.

Two writers that create one table with delta-rs both succeed: the second one's rows are added to the first one's. So a
new table is written where nobody looks, and renamed: of two renames to one name, the file system refuses the second.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake

from neon_lake.errors import DestinationConflict, DestinationError
from neon_lake.failpoints import failpoint

_UNFINISHED: Final = ".unfinished-"

ABANDONED: Final = 86_400.0
"""Seconds after which an unfinished table is nobody's."""


def create(path: Path, rows: pa.RecordBatchReader, properties: CommitProperties) -> None:
    """Make the table at `path`. Raises `DestinationConflict` when another run has made it first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=path.parent))
    try:
        write_deltalake(folder / "table", rows, mode="error", commit_properties=properties)
        failpoint("apply.table-unnamed")
        _rename(folder / "table", path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rename(made: Path, path: Path) -> None:
    try:
        made.rename(path)
    except OSError as exc:
        if DeltaTable.is_deltatable(str(path)):
            raise DestinationConflict(
                f"Another run has made the Delta table {path} at the same time; nothing was written; run this again."
            ) from exc
        if path.exists():
            raise DestinationError(f"{path} is there and is no Delta table; move it away.") from exc
        raise


def sweep(folder: Path) -> int:
    """Remove the unfinished tables of runs that died; gives how many files they had."""
    abandoned = [each for each in folder.glob(f"{_UNFINISHED}*") if each.stat().st_mtime < time.time() - ABANDONED]
    files = sum(1 for each in abandoned for file in each.rglob("*") if file.is_file())
    for each in abandoned:
        shutil.rmtree(each, ignore_errors=True)
    return files
