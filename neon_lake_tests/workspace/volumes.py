"""Files of volumes, on this machine's disk. A file is there whole or not at all, and put-if-absent is exact."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from neon_lake_tests.workspace.grants import Grants
from neon_lake_tests.workspace.metastore import Metastore
from neon_lake_tests.workspace.refusals import already_exists, invalid, not_found

WRITE = "WRITE_VOLUME"
NO_FILE = "The file being accessed is not found."
NO_FOLDER = "The directory being accessed is not found."
FILE_EXISTS = "The file being created already exists."


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a folder's list. `size` in bytes and `modified` in milliseconds are those of a file."""

    name: str
    folder: bool
    size: int = 0
    modified: int = 0


class Volumes:
    """The files under `/Volumes/<catalog>/<schema>/<volume>`. Raises `Refused`."""

    def __init__(self, metastore: Metastore, grants: Grants | None = None) -> None:
        self._metastore, self._grants = metastore, grants or Grants()
        self._arriving = metastore.root / "arriving"
        # what a server that was killed left behind
        shutil.rmtree(self._arriving, ignore_errors=True)
        self._arriving.mkdir(parents=True)

    def path(self, address: str, privilege: str = "READ_VOLUME") -> Path:
        """Where `/Volumes/…` lies, for who has a privilege on it. Its volume is there; the path itself may not be."""
        parts = address.strip("/").split("/")
        if parts[0] != "Volumes" or len(parts) < 4 or any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise invalid(f"Path '{address}' is not a valid path of a volume.")
        volume = self._metastore.volume(*parts[1:4])
        self._grants.ensure(volume.full_name, "USE_CATALOG", "USE_SCHEMA", privilege)
        return volume.folder.joinpath(*parts[4:])

    @contextmanager
    def arriving(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A file to be written aside; what has not been `put` by the end is removed."""
        handle, name = tempfile.mkstemp(dir=self._arriving)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file, Path(name)
        finally:
            with suppress(FileNotFoundError):
                Path(name).unlink()

    def put(self, arrived: Path, address: str, *, overwrite: bool) -> None:
        """Give a file that was written aside its place; its folders appear with it."""
        target = self.path(address, WRITE)
        if target.is_dir():
            raise already_exists("A directory already exists at the given path.")
        while True:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise invalid("A parent of the given path is a file.") from None
            try:
                if overwrite:
                    arrived.replace(target)
                else:
                    os.link(arrived, target)
            except FileNotFoundError:
                # somebody deleted the folder meanwhile
                continue
            except FileExistsError:
                raise already_exists(FILE_EXISTS) from None
            return

    def open(self, address: str) -> BinaryIO:
        """A file, to be read; it stays readable when it is replaced."""
        try:
            return self.path(address).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise not_found(NO_FILE) from None

    def delete(self, address: str) -> None:
        """Remove a file."""
        try:
            self.path(address, WRITE).unlink()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError):
            raise not_found(NO_FILE) from None

    def make_folder(self, address: str) -> None:
        """A folder, with its parents, if it is not there yet."""
        try:
            self.path(address, WRITE).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise already_exists("A file already exists at the given path.") from None

    def ensure_folder(self, address: str) -> None:
        """Refuse what is not a folder."""
        if not self.path(address).is_dir():
            raise not_found(NO_FOLDER)

    def delete_folder(self, address: str) -> None:
        """Remove an empty folder."""
        self.ensure_folder(address)
        path = self.path(address, WRITE)
        if path == self.path("/".join(address.strip("/").split("/")[:4])):
            raise invalid("The root of a volume cannot be deleted.")
        try:
            path.rmdir()
        except OSError:
            raise invalid("The directory is not empty.", reason="FILES_API_DIRECTORY_IS_NOT_EMPTY") from None

    def listing(self, address: str, *, after: str, limit: int) -> tuple[list[Entry], bool]:
        """At most `limit` entries of a folder whose names are behind `after`, in order, and whether there are more."""
        self.ensure_folder(address)
        path = self.path(address)
        with os.scandir(path) as found:
            names = sorted(entry.name for entry in found if entry.name > after)
        entries = []
        for name in names[:limit]:
            with suppress(FileNotFoundError):
                status = (path / name).stat()
                if (path / name).is_dir():
                    entries.append(Entry(name=name, folder=True))
                else:
                    modified = status.st_mtime_ns // 1_000_000
                    entries.append(Entry(name=name, folder=False, size=status.st_size, modified=modified))
        return entries, len(names) > limit
