"""What the change log asks of the place where it lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol

from neon_lake.errors import Finding


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A stored object: its path (relative, with `/`), size in bytes, and when it was written."""

    path: str
    bytes: int
    modified: datetime


class Storage(Protocol):
    """A flat space of named byte strings. What a method has written is durable when it returns.

    Every method may raise `StagingUnavailable`.
    """

    def check(self) -> Finding:
        """Whether objects can be written, read and deleted here."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Store `data` unless `path` exists: atomic, and exactly one of several callers gets True."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Store `data`, whether or not `path` exists: atomic and idempotent."""
        ...

    def sink(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A file to write `path` through; it is there, whole, when the context ends well, and not before."""
        ...

    def read(self, path: str) -> bytes:
        """The bytes at `path`. Raises KeyError when there are none."""
        ...

    def names(self, folder: str) -> Sequence[str]:
        """The names of what lies directly in a folder, sorted: cheap also when there are hundreds of thousands."""
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Everything below the folder `prefix`, in the order of paths. Unfinished sinks are not listed."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove these, as far as they exist: idempotent."""
        ...

    def sweep(self, before: datetime) -> int:
        """Remove what writers that died left unfinished, if they began before a moment; gives how many. Idempotent."""
        ...
