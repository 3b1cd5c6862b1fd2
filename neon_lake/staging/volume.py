"""The change log on a Unity Catalog volume, through the Files API of a Databricks workspace."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from tempfile import SpooledTemporaryFile, gettempdir
from typing import BinaryIO, Final, cast

from neon_lake.errors import Finding
from neon_lake.failpoints import failpoint
from neon_lake.staging.storage import Entry
from neon_lake.workspace.files import Listed, VolumeFiles, VolumeUnavailable

_PROBE: Final = ".unfinished-probe-"
_SPOOL: Final = 4 << 20
"""Bytes of a sink that are held in memory; what is longer waits on the disk."""
_AT_ONCE: Final = 5
"""Folders that are listed at the same time. A workspace refuses more than ten requests at once."""


class VolumeStorage:
    """`Storage` in a folder of a volume: `/Volumes/<catalog>/<schema>/<volume>/…`.

    A sink is spooled to a temporary file and uploaded at its end, so a writer that dies leaves nothing there. Errors of
    the workspace become `VolumeUnavailable`, a `StagingUnavailable` that names the path.

    A request may be carried out twice when its answer is lost. So `create` gives True whenever what is there is what
    was to be created: callers of whom only one may win bring different bytes, as two manifests are.
    """

    def __init__(self, files: VolumeFiles, root: str) -> None:
        self.files, self.root = files, root.rstrip("/")

    def check(self) -> Finding:
        """See `Storage.check`."""
        probe, problem = self._at(f"{_PROBE}{secrets.token_hex(8)}"), None
        try:
            self.files.replace(probe, b"?")
            try:
                self.files.read(probe)
            finally:
                self.files.delete(probe)
        except KeyError:
            problem = f"What is written to {self.root} is not there afterwards; see who else removes files there."
        except VolumeUnavailable as exc:
            problem = str(exc)
        return Finding(subject="staging", detail=self.root if problem else f"{self.root} is writable", problem=problem)

    def create(self, path: str, data: bytes) -> bool:
        """See `Storage.create`."""
        failpoint("manifest.unnamed")
        created = self.files.create(self._at(path), data)
        failpoint("manifest.named")
        return created

    def replace(self, path: str, data: bytes) -> None:
        """See `Storage.replace`."""
        self.files.replace(self._at(path), data)

    @contextmanager
    def sink(self, path: str) -> Iterator[BinaryIO]:
        """See `Storage.sink`."""
        try:
            with SpooledTemporaryFile(max_size=_SPOOL, prefix="neon-lake-") as file:
                yield cast("BinaryIO", file)
                failpoint("file.unnamed")
                file.flush()
                self.files.upload(self._at(path), cast("BinaryIO", file))
        except OSError as exc:
            raise VolumeUnavailable(
                f"{self._at(path)} cannot be held in {gettempdir()} before it is uploaded ({exc.strerror or exc}); "
                "make room there, or set TMPDIR to a directory with more."
            ) from exc

    def read(self, path: str) -> bytes:
        """See `Storage.read`."""
        return self.files.read(self._at(path))

    def names(self, folder: str) -> Sequence[str]:
        """See `Storage.names`: one request for each thousand."""
        return sorted(entry.name for entry in self._folder(folder))

    def list(self, prefix: str) -> Iterator[Entry]:
        """See `Storage.list`. Folders are listed ahead, a few at a time."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="volume") as pool:
            yield from self._walk(pool, prefix, self._folder(prefix))

    def delete(self, paths: Iterable[str]) -> None:
        """See `Storage.delete`. Folders that this leaves empty go too, but for those at the top."""
        for path in paths:
            self.files.delete(self._at(path))
            folder = path.rpartition("/")[0]
            while "/" in folder and self.files.remove_folder(self._at(folder)):
                folder = folder.rpartition("/")[0]

    def sweep(self, before: datetime) -> int:
        """See `Storage.sweep`: what was not uploaded to its end is nowhere, but a `check` may have been cut."""
        old = [entry for entry in self._folder("") if entry.name.startswith(_PROBE) and entry.modified < before]
        for entry in old:
            self.files.delete(self._at(entry.name))
        return len(old)

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def _folder(self, folder: str) -> Sequence[Listed]:
        try:
            return self.files.list(self._at(folder))
        except KeyError:
            return ()

    def _walk(self, pool: ThreadPoolExecutor, folder: str, found: Sequence[Listed]) -> Iterator[Entry]:
        ordered = sorted(found, key=lambda entry: entry.name + "/" if entry.folder else entry.name)
        inside = f"{folder}/" if folder else ""
        folders = (inside + entry.name for entry in ordered if entry.folder)
        ahead = deque(pool.submit(self._folder, path) for path in islice(folders, 2 * _AT_ONCE))
        for entry in ordered:
            if entry.folder:
                below = ahead.popleft().result()
                ahead.extend(pool.submit(self._folder, path) for path in islice(folders, 1))
                yield from self._walk(pool, inside + entry.name, below)
            elif not entry.name.startswith(_PROBE):
                yield Entry(path=inside + entry.name, bytes=entry.bytes, modified=entry.modified)
