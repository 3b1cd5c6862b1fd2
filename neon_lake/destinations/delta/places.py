"""Where the Delta tables of a lake can lie: what is asked of such a place, and the one on a local disk."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError

from neon_lake.destinations.delta import creation
from neon_lake.errors import Finding
from neon_lake.schema import TableName

_UNAVAILABLE: Final = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ESTALE,
    }
)
"""Errors of the file system that are not about one table."""


class Place(Protocol):
    """A folder with a folder for each schema, and in it one for each table."""

    def path(self, table: TableName) -> str:
        """Where a table lies."""
        ...

    def check(self) -> Finding:
        """Whether files can be written and removed."""
        ...

    def open(self, table: TableName, version: int | None = None) -> DeltaTable:
        """A table, at its newest version unless one is given. Raises delta-rs' errors."""
        ...

    def find(self, table: TableName) -> DeltaTable | None:
        """The newest version of a table; None when there is no table."""
        ...

    def create(self, table: TableName, rows: pa.RecordBatchReader, properties: CommitProperties) -> None:
        """Make a table. Raises `DestinationConflict` when another run has made it first."""
        ...

    def sweep(self, schema: TableName) -> int:
        """Remove what runs that died left unfinished a day ago, beside a table; gives how many files."""
        ...

    def trouble(self, exc: Exception) -> str | None:
        """What keeps all tables from being used, in a few words; None for what is about one table."""
        ...

    def said(self, exc: Exception) -> str:
        """What an error says, on one line and without a secret."""
        ...

    remedy: str
    """What to do when there is trouble: the end of a sentence."""

    errors: tuple[type[Exception], ...]
    """What is raised when a table cannot be used."""

    secretive: bool
    """Whether these may hold what is secret, so that nobody may see more of them than `trouble` and `said`."""


class LocalPlace:
    """A directory on a local disk."""

    remedy = "make it readable and writable for this user, or make room"
    errors: tuple[type[Exception], ...] = (OSError, DeltaError)
    secretive = False

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, table: TableName) -> str:
        """See `Place.path`."""
        return str(self.root / table.path)

    def check(self) -> Finding:
        """See `Place.check`."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as exc:
            problem = (
                f"The lake at {self.root} cannot be written ({exc.strerror}); "
                "make it writable for this user, or change destination.path."
            )
            return Finding(subject="destination", detail=str(self.root), problem=problem)
        return Finding(subject="destination", detail=f"{self.root} is writable")

    def open(self, table: TableName, version: int | None = None) -> DeltaTable:
        """See `Place.open`."""
        return DeltaTable(self.path(table), version=version)

    def find(self, table: TableName) -> DeltaTable | None:
        """See `Place.find`."""
        return self.open(table) if DeltaTable.is_deltatable(self.path(table)) else None

    def create(self, table: TableName, rows: pa.RecordBatchReader, properties: CommitProperties) -> None:
        """See `Place.create`."""
        creation.create(Path(self.path(table)), rows, properties)

    def sweep(self, schema: TableName) -> int:
        """See `Place.sweep`."""
        return creation.sweep(Path(self.path(schema)).parent)

    def trouble(self, exc: Exception) -> str | None:
        """See `Place.trouble`: what the file system says. delta-rs has its number only in the text."""
        if isinstance(exc, OSError) and exc.errno:
            return exc.strerror
        found = re.search(r"os error (\d+)|code: (\d+)", str(exc))
        number = int(found[1] or found[2]) if found else 0
        if number in _UNAVAILABLE:
            return os.strerror(number)
        # a file of the table that is gone is the table's own fault; any other word of the system's is not
        return self.said(exc) if isinstance(exc, OSError) and number != errno.ENOENT else None

    def said(self, exc: Exception) -> str:
        """See `Place.said`."""
        return " ".join(str(exc).split())
