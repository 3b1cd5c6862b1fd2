"""Files that arrive in parts, each put to an address of its own; they appear when all parts are there."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from neon_lake_tests.workspace.refusals import invalid, not_found
from neon_lake_tests.workspace.volumes import Volumes


@dataclass(kw_only=True)
class _Upload:
    address: str
    overwrite: bool
    folder: Path
    etags: dict[int, str] = field(default_factory=dict)
    done: bool = False


class Uploads:
    """The unfinished ones, by their token. Raises `Refused`."""

    def __init__(self, volumes: Volumes, folder: Path) -> None:
        self._volumes, self._folder = volumes, folder
        shutil.rmtree(folder, ignore_errors=True)
        self._lock = threading.Lock()
        self._uploads: dict[str, _Upload] = {}

    def begin(self, address: str, overwrite: bool) -> str:
        """A new upload; gives its token."""
        token = secrets.token_urlsafe(24)
        folder = self._folder / token
        folder.mkdir(parents=True)
        self._uploads[token] = _Upload(address=address, overwrite=overwrite, folder=folder)
        return token

    def ensure(self, token: str, address: str | None = None) -> None:
        """Refuse a token that is none, or another file's."""
        upload = self._uploads.get(token)
        if upload is None or address not in (None, upload.address):
            raise not_found("The upload session is not found.")

    def put_part(self, token: str, number: int, arrived: Path) -> str:
        """Take a part, instead of an earlier one of its number; gives its tag."""
        with arrived.open("rb") as part:
            etag = hashlib.file_digest(part, "md5").hexdigest()
        with self._lock:
            self.ensure(token)
            upload = self._uploads[token]
            arrived.replace(upload.folder / str(number))
            upload.etags[number] = etag
        return etag

    def complete(self, token: str, address: str, parts: Sequence[tuple[int, str]]) -> None:
        """Make the file of its parts, in their order. Of an upload that is complete already, does nothing."""
        with self._lock:
            self.ensure(token, address)
            upload = self._uploads[token]
            if upload.done:
                return
            if not parts or any(upload.etags.get(number) != etag for number, etag in parts):
                raise invalid("A part is missing, or is not the one that was uploaded.")
            with self._volumes.arriving() as (file, path):
                for number, _ in sorted(parts):
                    with (upload.folder / str(number)).open("rb") as part:
                        shutil.copyfileobj(part, file, 1 << 20)
                file.flush()
                self._volumes.put(path, upload.address, overwrite=upload.overwrite)
            upload.done = True
            shutil.rmtree(upload.folder)

    def abort(self, token: str) -> None:
        """Forget an upload and its parts."""
        with self._lock:
            upload = self._uploads.pop(token, None)
        if upload is not None:
            shutil.rmtree(upload.folder, ignore_errors=True)
