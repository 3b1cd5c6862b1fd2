"""Files on a Unity Catalog volume.

A request whose answer was lost is sent again, here or by the SDK, so each may be carried out twice: all are safe
against that, and a file is there whole or not at all.
Source: https://docs.databricks.com/api/workspace/files
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, TypeVar, cast
from urllib.parse import quote

from neon_lake.errors import StagingUnavailable
from neon_lake.workspace.connection import RETRY_SECONDS, brief, unauthenticated

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_T = TypeVar("_T")

PARTS: Final = 64 << 20
"""Bytes from which a file goes up in parts, where the SDK can."""
ATTEMPTS: Final = 4
"""How often a request is tried that the workspace answers with an error of its own."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
_CHUNK: Final = 1 << 20
_RACES: Final = 100
"""How often a folder may vanish before a file is put in it: whoever removes its last file removes it too."""


class VolumeUnavailable(StagingUnavailable):
    """A volume cannot be read or written."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What went over the network: bytes of files, and requests. What the SDK itself sent again is not in it."""

    uploaded: int = 0
    downloaded: int = 0
    requests: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            uploaded=self.uploaded + other.uploaded,
            downloaded=self.downloaded + other.downloaded,
            requests=self.requests + other.requests,
        )


class Listed(NamedTuple):
    """A file or folder as its folder lists it: name, size in bytes, and when it was written."""

    name: str
    folder: bool
    bytes: int
    modified: datetime


class _Answer(Exception):
    """An answer that the caller has a use for; its cause is the SDK's error."""


class _NotThere(_Answer):
    """404."""


class _Conflict(_Answer):
    """409."""


class _Bad(_Answer):
    """400."""


class VolumeFiles:
    """The files of volumes, by absolute path (`/Volumes/<catalog>/<schema>/<volume>/…`), for any number of threads.

    Every method may raise `VolumeUnavailable`, also when the volume is not there, or hidden from this identity.
    """

    def __init__(self, client: WorkspaceClient) -> None:
        from databricks.sdk.service.files import FilesAPI  # noqa: PLC0415 - half a second; see `connection.connect`

        self._client = client
        # The plain requests: newer SDKs ask for a signed link before each download, however small.
        self._plain = FilesAPI(client.api_client)  # type: ignore[no-untyped-call]
        self._in_parts = type(client.files).upload is not FilesAPI.upload
        self._patience = client.config.retry_timeout_seconds or RETRY_SECONDS
        self._clock = client.config.clock
        self._seen: set[str] = set()
        self._traffic, self._lock = Traffic(), Lock()

    @property
    def traffic(self) -> Traffic:
        """What was moved since this was made."""
        return self._traffic

    def create(self, path: str, data: bytes) -> bool:
        """Store `data` unless there is a file: atomic. True when the file that is there then has these bytes.

        An answer may be lost and the request sent again, which then meets its own file: so callers that must not both
        win have to bring different bytes.
        """
        for attempt in range(ATTEMPTS):
            try:
                self._put(path, BytesIO(data), len(data), overwrite=False)
            except _Conflict:
                try:
                    return self.read(path) == data
                except KeyError:
                    # it was there for a moment, or another request was just being carried out
                    self._clock.sleep(_pause(attempt))
            else:
                return True
        return False

    def replace(self, path: str, data: bytes) -> None:
        """Store `data`, whether or not there is a file: atomic."""
        self._put(path, BytesIO(data), len(data), overwrite=True)

    def upload(self, path: str, file: BinaryIO) -> None:
        """Store a local file, read from its start, in place of what is there: it appears when it is whole."""
        size = file.seek(0, 2)
        if size < PARTS or not self._in_parts:
            self._put(path, file, size, overwrite=True)
            return

        def send() -> None:
            file.seek(0)
            self._client.files.upload(path, file, overwrite=True)

        self._into_folder(path, send)
        self._count(Traffic(uploaded=size))

    def read(self, path: str) -> bytes:
        """The bytes of a file. Raises KeyError when there is none."""
        try:
            data = self._asked(path, lambda: self._whole(path), _NotThere)
        except _NotThere:
            self._look_for_volume(path)
            raise KeyError(path) from None
        self._count(Traffic(downloaded=len(data)))
        return data

    def list(self, folder: str) -> list[Listed]:
        """What lies directly in a folder, in no order. Raises KeyError when there is no such folder."""
        found: list[Listed] = []
        token = ""
        try:
            while True:
                page = self._asked(folder, partial(self._page, folder, token), _NotThere)
                found += [_listed(entry) for entry in page.get("contents", ())]
                if not (token := page.get("next_page_token", "")):
                    return found
        except _NotThere:
            self._look_for_volume(folder)
            raise KeyError(folder) from None

    def delete(self, path: str) -> None:
        """Remove a file, if it is there."""
        try:
            self._asked(path, lambda: self._plain.delete(path), _NotThere)
        except _NotThere:
            self._look_for_volume(path)

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it, if they are not there."""
        self._asked(path, lambda: self._plain.create_directory(path))

    def remove_folder(self, path: str) -> bool:
        """Remove a folder if it is empty; gives whether it is gone."""
        try:
            self._asked(path, lambda: self._plain.delete_directory(path), _NotThere, _Bad, _Conflict)
        except _NotThere:
            return True
        except _Answer:
            return False
        return True

    # --- requests

    def _put(self, path: str, file: BinaryIO, size: int, *, overwrite: bool) -> None:
        """Store a file by one request. Raises `_Conflict` when it is not to overwrite, and there is one."""
        from databricks.sdk.errors.base import DatabricksError  # noqa: PLC0415 - see `connection.connect`

        def send() -> None:
            file.seek(0)
            try:
                self._plain.upload(path, cast("BinaryIO", _Once(file, size)), overwrite=overwrite)
            except TypeError as exc:
                # An answer that is no JSON, as a proxy gives, the SDK tells with the request, which it fails to print.
                raise DatabricksError("its answer was not understood") from exc

        self._into_folder(path, send, *(() if overwrite else (_Conflict,)))
        self._count(Traffic(uploaded=size))

    def _into_folder(self, path: str, send: Callable[[], None], *expected: type[_Answer]) -> None:
        """Carry out an upload. A workspace makes the folders above a file; where one does not, they are made first."""
        for _ in range(_RACES):
            try:
                return self._asked(path, send, _NotThere, *expected)
            except _NotThere:
                self.make_folder(path.rpartition("/")[0])
        raise VolumeUnavailable(f"The folder of {path} is removed as often as it is made; see who else removes it.")

    def _page(self, folder: str, token: str) -> dict[str, Any]:
        query = {"page_token": token} if token else {}
        path = f"/api/2.0/fs/directories{quote(folder)}"
        return cast(
            "dict[str, Any]",
            self._client.api_client.do("GET", path, query=query, headers={"Accept": "application/json"}),
        )

    def _whole(self, path: str) -> bytes:
        from requests import ConnectionError as Cut  # noqa: PLC0415 - the SDK's own; see `connection.connect`

        answer = self._plain.download(path)
        assert answer.contents is not None
        with answer.contents as contents:
            data = b"".join(iter(lambda: contents.read(_CHUNK), b""))
        # urllib3 1 gives an answer that was cut as if it were whole
        if answer.content_length not in (None, len(data)):
            raise Cut(f"{len(data)} of {answer.content_length} bytes came")
        return data

    def _look_for_volume(self, path: str) -> None:
        """Tell a file that is not there from a volume that is not: for the log it is not the same. Asked once."""
        volume = "/".join(path.split("/")[:5])
        if volume not in self._seen:
            self._asked(volume, lambda: self._plain.get_directory_metadata(volume))
            self._seen.add(volume)

    def _asked(self, path: str, action: Callable[[], _T], *expected: type[_Answer]) -> _T:
        """Carry out `action`, again while it fails for a reason that may pass. Raises the `expected` answers.

        A token that is refused before its time is fetched anew, once; one that a person gave cannot be.
        """
        from databricks.sdk.errors.base import DatabricksError  # noqa: PLC0415 - see `connection.connect`
        from requests import RequestException  # noqa: PLC0415

        began, attempt, renewable = self._clock.time(), 0, self._client.config.auth_type != "pat"
        while True:
            self._count(Traffic(requests=1))
            try:
                return action()
            except (DatabricksError, RequestException, TimeoutError, ValueError) as exc:
                kind = _kind(exc)
                if kind in expected:
                    raise kind from exc
                wait = _wait(exc, attempt)
                if renewable and unauthenticated(exc):
                    wait, renewable = self._renewed(), False
                if wait is None or self._clock.time() - began + wait > self._patience:
                    raise VolumeUnavailable(_sentence(path, exc)) from exc
            self._clock.sleep(wait)
            attempt += 1

    def _renewed(self) -> float | None:
        """Fetch a new token; gives the seconds to wait then, or None when there is none to be had."""
        from databricks.sdk.errors.base import DatabricksError  # noqa: PLC0415 - see `connection.connect`
        from requests import RequestException  # noqa: PLC0415

        try:
            self._client.config.init_auth()  # type: ignore[no-untyped-call]
        except (DatabricksError, RequestException, ValueError):
            return None
        return 0.0

    def _count(self, traffic: Traffic) -> None:
        with self._lock:
            self._traffic += traffic


class _Once:
    """A request's body of known length that cannot be rewound, so that the SDK never sends it again by itself.

    SDK 0.41 sends the rest of a body that was cut as if it were the whole.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self._file.read(_CHUNK), b"")

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


def _listed(entry: dict[str, Any]) -> Listed:
    path = str(entry["path"]).rstrip("/")
    return Listed(
        name=entry.get("name") or path.rpartition("/")[2],
        folder=bool(entry.get("is_directory")),
        bytes=int(entry.get("file_size") or 0),
        # a folder has no moment of its own
        modified=datetime.fromtimestamp(int(entry.get("last_modified") or 0) / 1000, UTC),
    )


def _kind(exc: Exception) -> type[_Answer]:
    from databricks.sdk import errors  # noqa: PLC0415 - see `connection.connect`

    kinds = {errors.NotFound: _NotThere, errors.ResourceConflict: _Conflict, errors.BadRequest: _Bad}
    return next((kind for error, kind in kinds.items() if isinstance(exc, error)), _Answer)


def _wait(exc: Exception, attempt: int) -> float | None:
    """Seconds to wait before the next attempt; None when it would not help, or the SDK has tried for long enough."""
    from databricks.sdk import errors  # noqa: PLC0415 - see `connection.connect`
    from databricks.sdk.errors.base import DatabricksError  # noqa: PLC0415
    from requests import RequestException  # noqa: PLC0415

    if isinstance(exc, RequestException):
        return _pause(attempt)
    if not isinstance(exc, DatabricksError) or _kind(exc) is not _Answer:
        return None
    throttled = getattr(exc, "retry_after_secs", None)
    if throttled is not None:
        return float(max(throttled, _pause(attempt)))
    if isinstance(exc, (errors.Unauthenticated, errors.PermissionDenied, errors.NotImplemented)):
        return None
    return _pause(attempt) if attempt < ATTEMPTS - 1 else None


def _pause(attempt: int) -> float:
    return min(_FIRST_PAUSE * (1 << attempt), _LONGEST_PAUSE)


def _sentence(path: str, exc: Exception) -> str:
    """What went wrong at `path`, and what to do."""
    from databricks.sdk import errors  # noqa: PLC0415 - see `connection.connect`

    catalog, schema, volume = (*path.split("/"), "", "", "")[2:5]
    grants = (
        f"USE CATALOG on {catalog}, USE SCHEMA on {catalog}.{schema}, and READ VOLUME and WRITE VOLUME on "
        f"{catalog}.{schema}.{volume}"
    )
    if unauthenticated(exc):
        return f"Databricks does not accept the credentials for {path}; renew the token or the secret."
    if isinstance(exc, errors.PermissionDenied):
        return f"Databricks refuses access to {path}; grant this identity {grants}."
    if isinstance(exc, errors.NotFound):
        return (
            f"Databricks has no volume for {path}, or hides it from this identity; create the volume "
            f"{catalog}.{schema}.{volume}, or grant {grants}, or change staging.path."
        )
    if isinstance(exc, (errors.BadRequest, errors.ResourceConflict)):
        return f"Databricks refuses {path} ({brief(exc)}); change staging.path."
    return (
        f"Databricks does not answer for {path} ({brief(exc.__cause__ or exc)}); run this again, and look at the "
        "workspace's status if it stays so."
    )
