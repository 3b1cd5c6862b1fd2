"""The change log on a local disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from neon_lake.errors import Finding, StagingUnavailable
from neon_lake.failpoints import failpoint
from neon_lake.staging.storage import Entry

_UNFINISHED: Final = ".unfinished-"

_RACES: Final = 100
"""How often a folder may vanish before a file is made in it: whoever removes its last file removes it too."""


class LocalStorage:
    """`Storage` in a directory: temporary file, fsync, link or rename, fsync of the directory.

    Errors of the file system become `StagingUnavailable`, which names the path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self) -> Finding:
        """See `Storage.check`."""
        try:
            with self._translated(""):
                probe = self._unfinished("probe")
                try:
                    _write(probe, b"?")
                finally:
                    probe.unlink(missing_ok=True)
        except StagingUnavailable as exc:
            return Finding(subject="staging", detail=str(self.root), problem=str(exc))
        return Finding(subject="staging", detail=f"{self.root} is writable")

    def create(self, path: str, data: bytes) -> bool:
        """See `Storage.create`."""
        with self._translated(path):
            temporary = self._unfinished(path)
            try:
                _write(temporary, data)
                failpoint("manifest.unnamed")
                # link(2) fails when the name exists, which rename(2) does not
                os.link(temporary, self.root / path)
                failpoint("manifest.named")
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            _sync_directory(temporary.parent)
        return True

    def replace(self, path: str, data: bytes) -> None:
        """See `Storage.replace`."""
        with self.sink(path) as file:
            file.write(data)

    @contextmanager
    def sink(self, path: str) -> Iterator[BinaryIO]:
        """See `Storage.sink`."""
        with self._translated(path):
            temporary = self._unfinished(path)
            try:
                with temporary.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                failpoint("file.unnamed")
                temporary.rename(self.root / path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_directory(temporary.parent)

    def read(self, path: str) -> bytes:
        """See `Storage.read`."""
        with self._translated(path):
            try:
                return (self.root / path).read_bytes()
            except FileNotFoundError:
                raise KeyError(path) from None

    def names(self, folder: str) -> list[str]:
        """See `Storage.names`."""
        with self._translated(folder):
            try:
                found = os.listdir(self.root / folder)  # noqa: PTH208 - a Path per name costs ten times as much
            except FileNotFoundError:
                return []
            return sorted(name for name in found if not name.startswith(_UNFINISHED))

    def list(self, prefix: str) -> Iterator[Entry]:
        """See `Storage.list`."""
        with self._translated(prefix):
            yield from self._walk(self.root / prefix if prefix else self.root)

    def delete(self, paths: Iterable[str]) -> None:
        """See `Storage.delete`. Directories that this leaves empty go too."""
        for path in paths:
            with self._translated(path):
                file = self.root / path
                file.unlink(missing_ok=True)
                for parent in file.parents:
                    if parent == self.root or not _removed(parent):
                        break

    def sweep(self, before: datetime) -> int:
        """See `Storage.sweep`."""
        with self._translated(""):
            old = [e for e in self._walk(self.root, unfinished=True) if e.modified < before]
        self.delete(entry.path for entry in old)
        return len(old)

    def _walk(self, directory: Path, *, unfinished: bool = False) -> Iterator[Entry]:
        try:
            entries = sorted(os.scandir(directory), key=lambda e: e.name + "/" if e.is_dir() else e.name)
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.is_dir():
                yield from self._walk(Path(entry.path), unfinished=unfinished)
            elif entry.name.startswith(_UNFINISHED) == unfinished:
                try:
                    stat = entry.stat()
                except FileNotFoundError:
                    continue
                path = Path(entry.path).relative_to(self.root).as_posix()
                yield Entry(path=path, bytes=stat.st_size, modified=datetime.fromtimestamp(stat.st_mtime, UTC))

    def _unfinished(self, path: str) -> Path:
        directory = (self.root / path).parent
        for attempt in range(_RACES):
            try:
                _make(directory)
                handle, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=directory)
            except FileNotFoundError:
                if attempt == _RACES - 1:
                    raise
            else:
                os.close(handle)
                return Path(name)
        raise AssertionError("the last attempt raises")

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise StagingUnavailable(
                f"Staging at {self.root / path} cannot be used ({exc.strerror or exc}); "
                "make it writable for this user, or make room, or change staging.path."
            ) from exc


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _make(directory: Path) -> None:
    """Make a directory and those above it, each durable in its parent."""
    if directory.is_dir():
        return
    _make(directory.parent)
    with suppress(FileExistsError):
        directory.mkdir()
        _sync_directory(directory.parent)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True
