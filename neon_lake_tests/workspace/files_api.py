"""The Files API: files and folders of volumes.

Source: https://docs.databricks.com/api/workspace/files
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from collections.abc import AsyncIterator
from email.utils import formatdate, parsedate_to_datetime
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from neon_lake_tests.workspace.refusals import Refused, already_exists, invalid
from neon_lake_tests.workspace.uploads import Uploads
from neon_lake_tests.workspace.volumes import FILE_EXISTS, NO_FOLDER, WRITE, Volumes

PAGE = 1000
_CHUNK = 1 << 18


class FilesApi:
    """The routes under `/api/2.0/fs`, and the addresses that they hand out for parts of files."""

    def __init__(self, volumes: Volumes, uploads: Uploads) -> None:
        self._volumes, self._uploads = volumes, uploads
        self._signed: dict[str, str] = {}

    def routes(self) -> list[Route]:
        """What this answers to."""
        file, folder = "/api/2.0/fs/files/{path:path}", "/api/2.0/fs/directories/{path:path}"
        return [
            Route(file, self._put, methods=["PUT"]),
            Route(file, self._get, methods=["GET", "HEAD"]),
            Route(file, self._delete, methods=["DELETE"]),
            Route(file, self._act, methods=["POST"]),
            Route(folder, self._put_folder, methods=["PUT"]),
            Route(folder, self._list, methods=["GET"]),
            Route(folder, self._look, methods=["HEAD"]),
            Route(folder, self._delete_folder, methods=["DELETE"]),
            Route("/api/2.0/fs/create-upload-part-urls", self._part_urls, methods=["POST"]),
            Route("/api/2.0/fs/create-abort-upload-url", self._abort_url, methods=["POST"]),
            Route("/api/2.0/fs/create-download-url", self._download_url, methods=["POST"]),
            Route("/presigned/parts/{token}/{number:int}", self._put_part, methods=["PUT"]),
            Route("/presigned/uploads/{token}", self._abort, methods=["DELETE"]),
            Route("/presigned/files/{token}", self._get_presigned, methods=["GET"]),
        ]

    # --- files

    async def _put(self, request: Request) -> Response:
        address, overwrite = _address(request), _overwrite(request)
        if "session_token" in request.query_params:
            return await self._put_part(request)
        # a refusal that needs no body
        self._volumes.path(address, WRITE)
        with self._volumes.arriving() as (file, path):
            await _receive(request, file)
            self._volumes.put(path, address, overwrite=overwrite)
        return Response(status_code=204)

    async def _get(self, request: Request) -> Response:
        return await self._sent(request, _address(request))

    async def _sent(self, request: Request, address: str) -> Response:
        file = await run_in_threadpool(self._volumes.open, address)
        status = os.fstat(file.fileno())
        changed = int(status.st_mtime)
        headers = {
            "content-type": "application/octet-stream",
            "last-modified": formatdate(changed, usegmt=True),
            "accept-ranges": "bytes",
        }
        try:
            _ensure_unmodified(request.headers.get("if-unmodified-since"), changed)
            start, stop = _range(request.headers.get("range"), status.st_size)
        except BaseException:
            file.close()
            raise
        headers["content-length"] = str(stop - start)
        code = 200
        if "range" in request.headers:
            code, headers["content-range"] = 206, f"bytes {start}-{stop - 1}/{status.st_size}"
        if request.method == "HEAD":
            file.close()
            return Response(status_code=200, headers=headers)
        return StreamingResponse(_read(file, start, stop), status_code=code, headers=headers)

    def _delete(self, request: Request) -> Response:
        self._volumes.delete(_address(request))
        return Response(status_code=204)

    # --- folders

    def _put_folder(self, request: Request) -> Response:
        self._volumes.make_folder(_address(request))
        return Response(status_code=204)

    def _look(self, request: Request) -> Response:
        self._volumes.ensure_folder(_address(request))
        return Response(status_code=200)

    def _delete_folder(self, request: Request) -> Response:
        self._volumes.delete_folder(_address(request))
        return Response(status_code=204)

    def _list(self, request: Request) -> Response:
        address = _address(request)
        limit = min(int(request.query_params.get("page_size") or PAGE), PAGE)
        after = _after(request.query_params.get("page_token"), address)
        entries, more = self._volumes.listing(address, after=after, limit=limit)
        contents = [
            {"path": f"{address}/{entry.name}", "is_directory": True, "name": entry.name}
            if entry.folder
            else {
                "path": f"{address}/{entry.name}",
                "is_directory": False,
                "file_size": entry.size,
                "last_modified": entry.modified,
                "name": entry.name,
            }
            for entry in entries
        ]
        # an empty list is left out, as Databricks does
        body: dict[str, object] = {"contents": contents} if contents else {}
        if more:
            body["next_page_token"] = base64.urlsafe_b64encode(f"{address}\n{entries[-1].name}".encode()).decode()
        return JSONResponse(body)

    # --- files in parts

    async def _act(self, request: Request) -> Response:
        address, action = _address(request), request.query_params.get("action")
        if action == "initiate-upload":
            overwrite = _overwrite(request)
            if self._volumes.path(address, WRITE).exists() and not overwrite:
                raise already_exists(FILE_EXISTS)
            return JSONResponse({"multipart_upload": {"session_token": self._uploads.begin(address, overwrite)}})
        token = request.query_params.get("session_token", "")
        if action == "complete-upload":
            parts = [(int(part["part_number"]), str(part["etag"])) for part in (await request.json())["parts"]]
            await run_in_threadpool(self._uploads.complete, token, address, parts)
            return JSONResponse({})
        if action == "abort-upload":
            self._uploads.abort(token)
            return JSONResponse({})
        raise invalid(f"There is no action '{action}'.")

    async def _part_urls(self, request: Request) -> Response:
        body = await request.json()
        self._uploads.ensure(body["session_token"], body["path"])
        first, count = int(body["start_part_number"]), int(body["count"])
        base = f"{_host(request)}/presigned/parts/{body['session_token']}"
        urls = [{"url": f"{base}/{n}", "part_number": n, "headers": []} for n in range(first, first + count)]
        return JSONResponse({"upload_part_urls": urls})

    async def _put_part(self, request: Request) -> Response:
        token = request.path_params.get("token") or request.query_params["session_token"]
        number = request.path_params.get("number") or int(request.query_params["part_number"])
        self._uploads.ensure(token)
        with self._volumes.arriving() as (file, path):
            await _receive(request, file)
            etag = self._uploads.put_part(token, number, path)
        return Response(status_code=200, headers={"etag": etag})

    async def _abort_url(self, request: Request) -> Response:
        body = await request.json()
        url = f"{_host(request)}/presigned/uploads/{body['session_token']}"
        return JSONResponse({"abort_upload_url": {"url": url, "headers": []}})

    def _abort(self, request: Request) -> Response:
        self._uploads.abort(request.path_params["token"])
        return Response(status_code=200)

    async def _download_url(self, request: Request) -> Response:
        address = request.query_params.get("path")
        if address is None:
            address = str((await request.json())["path"])
        with self._volumes.open(address):
            token = secrets.token_urlsafe(24)
        self._signed[token] = address
        return JSONResponse({"url": f"{_host(request)}/presigned/files/{token}", "headers": []})

    async def _get_presigned(self, request: Request) -> Response:
        address = self._signed.get(request.path_params["token"])
        if address is None:
            raise Refused(403, "AccessDenied", "Request has expired")
        return await self._sent(request, address)


def _address(request: Request) -> str:
    path: str = request.path_params["path"]
    return "/" + path.strip("/")


def _host(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def _overwrite(request: Request) -> bool:
    return request.query_params.get("overwrite", "true").lower() == "true"


async def _receive(request: Request, file: BinaryIO) -> None:
    """The body, into a file. Raises Starlette's ClientDisconnect when it is cut."""
    async for chunk in request.stream():
        file.write(chunk)
    file.flush()


async def _read(file: BinaryIO, start: int, stop: int) -> AsyncIterator[bytes]:
    with file:
        file.seek(start)
        while start < stop:
            chunk = await run_in_threadpool(file.read, min(_CHUNK, stop - start))
            start += len(chunk)
            yield chunk


def _ensure_unmodified(since: str | None, changed: int) -> None:
    if since is not None and parsedate_to_datetime(since).timestamp() < changed:
        raise Refused(412, "FAILED_PRECONDITION", "The file was modified meanwhile.")


def _range(header: str | None, size: int) -> tuple[int, int]:
    """First byte, and the one behind the last. Raises `Refused` when the file has none of them."""
    if header is None:
        return 0, size
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if found is None or not any(found.groups()):
        raise invalid(f"'{header}' is not a range that is served.")
    first, last = found.groups()
    if not first:
        return max(size - int(last), 0), size
    if int(first) >= size:
        raise Refused(416, "OUT_OF_RANGE", "The requested range is not satisfiable.")
    return int(first), min(int(last) + 1, size) if last else size


def _after(token: str | None, address: str) -> str:
    """The name that a page comes after. A token is good for its folder only."""
    if not token:
        return ""
    try:
        where, _, name = base64.urlsafe_b64decode(token).decode().partition("\n")
    except (binascii.Error, UnicodeDecodeError):
        where, name = "", ""
    if where != address:
        raise invalid(f"The page token is not one of this directory. {NO_FOLDER}")
    return name
