"""The change log in an object store: S3, Azure or Google."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import BinaryIO, Final

import obstore

from neon_lake import objects
from neon_lake.errors import Finding, StagingUnavailable
from neon_lake.failpoints import failpoint
from neon_lake.staging.storage import Entry

_PART: Final = 8 << 20
"""Bytes of a part of a multipart put; smaller files are put by one request."""

_AT_ONCE: Final = 4
"""Parts on their way at a time: what a sink holds in memory."""


class ObjectStorage:
    """`Storage` below the URL of an object store (`s3://bucket/folder`, `gs://…`, `abfss://…`).

    An object appears whole, by its put, so that nothing unfinished is ever seen. Errors of the store become
    `StagingUnavailable`, which names the URL; wrong options become `ConfigError` at once.
    """

    def __init__(self, url: str, *, options: Mapping[str, str]) -> None:
        self.url = url.rstrip("/")
        self._options = objects.Options(self.url, options)
        self._store = self._options.store

    def check(self) -> Finding:
        """See `Storage.check`."""
        probe = f".probe-{secrets.token_hex(8)}"
        try:
            with self._translated(""):
                obstore.put(self._store, probe, b"?")
                obstore.get(self._store, probe).bytes()
                objects.delete(self._store, [probe])
                obstore.list(self._store, probe).collect()
        except StagingUnavailable as exc:
            return Finding(subject="staging", detail=self.url, problem=str(exc))
        return Finding(subject="staging", detail=f"{self.url} is writable")

    def create(self, path: str, data: bytes) -> bool:
        """See `Storage.create`: a conditional put."""
        failpoint("manifest.unnamed")
        with self._translated(path):
            if not objects.put_if_absent(self._store, path, data):
                return False
        failpoint("manifest.named")
        return True

    def replace(self, path: str, data: bytes) -> None:
        """See `Storage.replace`."""
        with self._translated(path):
            obstore.put(self._store, path, data)

    @contextmanager
    def sink(self, path: str) -> Iterator[BinaryIO]:
        """See `Storage.sink`. What is written waits in a nameless temporary file on the local disk."""
        with _spool() as file:
            yield file
            file.seek(0)
            failpoint("file.unnamed")
            with self._translated(path):
                obstore.put(self._store, path, file, chunk_size=_PART, max_concurrency=_AT_ONCE)

    def read(self, path: str) -> bytes:
        """See `Storage.read`."""
        with self._translated(path):
            try:
                return bytes(obstore.get(self._store, path).bytes())
            except FileNotFoundError as exc:
                if objects.missing_bucket(exc):
                    raise
                raise KeyError(path) from None

    def names(self, folder: str) -> list[str]:
        """See `Storage.names`. One request for each thousand."""
        with self._translated(folder):
            found = obstore.list_with_delimiter(self._store, folder)["objects"]
        return sorted(each["path"].rpartition("/")[2] for each in found)

    def list(self, prefix: str) -> Iterator[Entry]:
        """See `Storage.list`."""
        with self._translated(prefix):
            found = [
                Entry(path=each["path"], bytes=each["size"], modified=each["last_modified"])
                for page in obstore.list(self._store, prefix, chunk_size=1000)
                for each in page
            ]
        # not every store lists in the order of names
        yield from sorted(found, key=lambda entry: entry.path)

    def delete(self, paths: Iterable[str]) -> None:
        """See `Storage.delete`."""
        wanted = list(paths)
        if wanted:
            with self._translated(wanted[0]):
                objects.delete(self._store, wanted)

    def sweep(self, before: datetime) -> int:  # noqa: ARG002 - of the protocol
        """See `Storage.sweep`. There is nothing to remove: gives 0.

        A writer that dies leaves no object, and at most the parts of a file that is larger than one part. obstore
        cannot list those: a lifecycle rule of the bucket removes them (AbortIncompleteMultipartUpload, on S3 and
        Google; Azure does it by itself after a week).
        Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpu-abort-incomplete-mpu-lifecycle-config.html
        """
        return 0

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except objects.FAILURES as exc:
            trouble = self._options.trouble(exc) or self._options.hushed(str(exc).partition("\n")[0])
            raise StagingUnavailable(
                f"Staging at {f'{self.url}/{path}'.rstrip('/')} cannot be used ({trouble}); "
                "check staging.path, its options, and the credentials and their rights."
            ) from None  # the store's answer may hold what is secret


@contextmanager
def _spool() -> Iterator[BinaryIO]:
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as exc:
        raise StagingUnavailable(
            f"The temporary directory {tempfile.gettempdir()} cannot hold a file on its way to staging "
            f"({exc.strerror or exc}); make room there, or set TMPDIR."
        ) from exc
