"""Files of volumes, through the SDK, as a real workspace keeps them."""

from __future__ import annotations

import http.client
import io
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from databricks.sdk.errors import AlreadyExists, InvalidParameterValue, NotFound
from databricks.sdk.mixins import files as mixins

from neon_lake_tests.fixtures.workspaces import Workspace

pytestmark = [pytest.mark.engines("sail"), pytest.mark.sdk]


def _read(workspace: Workspace, path: str) -> bytes:
    contents = workspace.client().files.download(path).contents
    assert contents is not None
    with contents:
        return contents.read()


@pytest.mark.parametrize("name", ["plain", "a b", "with?#%&+=", "ünï", "deep/er/still"])
def test_a_file_comes_back_as_it_was(workspace: Workspace, name: str) -> None:
    path, body = f"{workspace.volume()}/{name}", bytes(range(256)) * 100
    files = workspace.client().files
    files.upload(path, io.BytesIO(body))
    assert _read(workspace, path) == body
    assert files.get_metadata(path).content_length == len(body)
    assert workspace.local(path).read_bytes() == body
    files.upload(path, io.BytesIO(b""), overwrite=True)
    assert _read(workspace, path) == b""
    files.delete(path)
    with pytest.raises(NotFound):
        files.get_metadata(path)
    with pytest.raises(NotFound):
        files.delete(path)


def test_put_if_absent_admits_one(workspace: Workspace) -> None:
    path = f"{workspace.volume()}/file"
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def put(number: int) -> None:
        files = workspace.client().files
        barrier.wait()
        try:
            files.upload(path, io.BytesIO(str(number).encode() * 100_000), overwrite=False)
        except AlreadyExists:
            outcomes.append("there")
        else:
            outcomes.append(str(number))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("there") == 7
    (winner,) = set(outcomes) - {"there"}
    assert _read(workspace, path) == winner.encode() * 100_000


def test_lists_come_in_pages(workspace: Workspace) -> None:
    volume, files = workspace.volume(), workspace.client().files
    for number in range(7):
        files.upload(f"{volume}/many/{number}", io.BytesIO(b"x" * number))
    entries = list(files.list_directory_contents(f"{volume}/many", page_size=3))
    assert [(entry.name, entry.file_size) for entry in entries] == [(str(n), n) for n in range(7)]
    assert all(entry.path == f"{volume}/many/{entry.name}" and not entry.is_directory for entry in entries)
    assert all((entry.last_modified or 0) > 1_600_000_000_000 for entry in entries)
    asked = [
        each["path"] for each in workspace.requests() if each["method"] == "GET" and "/directories/" in each["path"]
    ]
    assert len(asked) == 3
    (folder,) = files.list_directory_contents(volume)
    assert (folder.name, folder.is_directory) == ("many", True)


def test_a_page_goes_on_where_the_last_one_ended_whatever_came_meanwhile(workspace: Workspace) -> None:
    volume, files = workspace.volume(), workspace.client().files
    for name in "bdf":
        files.upload(f"{volume}/{name}", io.BytesIO(b""))
    pages = files.list_directory_contents(volume, page_size=2)
    seen = [next(pages).name, next(pages).name]
    files.upload(f"{volume}/a", io.BytesIO(b""))
    files.upload(f"{volume}/e", io.BytesIO(b""))
    assert [*seen, *(entry.name for entry in pages)] == ["b", "d", "e", "f"]


def test_a_token_of_another_folder_is_refused(workspace: Workspace) -> None:
    volume, files = workspace.volume(), workspace.client().files
    for name in ("a/1", "a/2", "b/1"):
        files.upload(f"{volume}/{name}", io.BytesIO(b""))
    head = {"authorization": f"Bearer {workspace.token}"}
    url = f"{workspace.host}/api/2.0/fs/directories{volume}"
    token = requests.get(f"{url}/a", params={"page_size": "1"}, headers=head, timeout=60).json()["next_page_token"]
    for folder, given, status in (("a", token, 200), ("b", token, 400), ("a", "nonsense", 400)):
        answer = requests.get(f"{url}/{folder}", params={"page_token": given}, headers=head, timeout=60)
        assert answer.status_code == status


def test_folders(workspace: Workspace) -> None:
    volume, files = workspace.volume(), workspace.client().files
    files.create_directory(f"{volume}/a/b")
    files.create_directory(f"{volume}/a/b")
    files.get_directory_metadata(f"{volume}/a")
    with pytest.raises(InvalidParameterValue, match="not empty"):
        files.delete_directory(f"{volume}/a")
    files.delete_directory(f"{volume}/a/b")
    files.delete_directory(f"{volume}/a")
    for ask in (
        files.get_directory_metadata,
        files.delete_directory,
        lambda path: list(files.list_directory_contents(path)),
    ):
        with pytest.raises(NotFound):
            ask(f"{volume}/a")
    with pytest.raises(InvalidParameterValue):
        files.delete_directory(volume)


def test_files_and_folders_are_not_each_other(workspace: Workspace) -> None:
    volume, files = workspace.volume(), workspace.client().files
    files.upload(f"{volume}/file", io.BytesIO(b""))
    files.create_directory(f"{volume}/folder")
    head = {"authorization": f"Bearer {workspace.token}"}
    for method, kind, name, status in (
        ("PUT", "directories", "file", 409),
        ("PUT", "files", "folder", 409),
        ("PUT", "files", "file/below", 400),
        ("GET", "files", "folder", 404),
        ("GET", "directories", "file", 404),
        ("DELETE", "files", "folder", 404),
    ):
        url = f"{workspace.host}/api/2.0/fs/{kind}{volume}/{name}"
        assert requests.request(method, url, data=b"", headers=head, timeout=60).status_code == status, (method, name)


def test_without_a_volume_there_is_nothing(workspace: Workspace) -> None:
    files = workspace.client().files
    path = f"/Volumes/{workspace.catalog}/default/none/file"
    with pytest.raises(NotFound, match="does not exist"):
        files.upload(path, io.BytesIO(b"x"))
    with pytest.raises(NotFound, match="does not exist"):
        files.download(path)
    for strange in ("/Volumes/a/b", "/elsewhere/a/b/c", f"{workspace.volume()}/../../x"):
        head = {"authorization": f"Bearer {workspace.token}"}
        answer = _raw(workspace, "GET", f"/api/2.0/fs/files{strange}", head)
        assert answer == 400


def _raw(workspace: Workspace, method: str, path: str, head: dict[str, str]) -> int:
    """The status of a request whose path no client tidies up."""
    connection = http.client.HTTPConnection(urlsplit(workspace.host).netloc, timeout=60)
    try:
        connection.request(method, path, headers=head)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("header", "status", "body"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=5-100", 206, b"56789"),
        ("bytes=10-", 416, None),
        ("lines=1-2", 400, None),
    ],
)
def test_ranges(workspace: Workspace, header: str, status: int, body: bytes | None) -> None:
    path = f"{workspace.volume()}/file"
    workspace.client().files.upload(path, io.BytesIO(b"0123456789"))
    head = {"authorization": f"Bearer {workspace.token}", "range": header}
    answer = requests.get(f"{workspace.host}/api/2.0/fs/files{path}", headers=head, timeout=60)
    assert answer.status_code == status
    if body is not None:
        assert answer.content == body
        assert answer.headers["content-range"].endswith("/10")


def test_a_file_that_changed_is_not_read_on(workspace: Workspace) -> None:
    path = f"{workspace.volume()}/file"
    workspace.client().files.upload(path, io.BytesIO(b"0123456789"))
    url = f"{workspace.host}/api/2.0/fs/files{path}"
    head = {"authorization": f"Bearer {workspace.token}"}
    since = requests.head(url, headers=head, timeout=60).headers["last-modified"]
    assert requests.get(url, headers={**head, "if-unmodified-since": since}, timeout=60).ok
    long_ago = "Thu, 01 Jan 2026 00:00:00 GMT"
    assert requests.get(url, headers={**head, "if-unmodified-since": long_ago}, timeout=60).status_code == 412


BIG = b"0123456789abcdef" * (1 << 16) * 6
"""Six MiB."""


def _parts(workspace: Workspace) -> mixins.FilesExt:
    """A client that sends in parts what is larger than a MiB; of the oldest SDK, one that cannot."""
    client = workspace.client()
    config = client.config
    for name in ("multipart_upload_min_stream_size", "files_ext_multipart_upload_min_stream_size"):
        setattr(config, name, 1 << 20)
    for name in ("multipart_upload_chunk_size", "files_ext_multipart_upload_default_part_size"):
        setattr(config, name, 1 << 20)
    return mixins.FilesExt(client.api_client, config)


def test_a_large_file_comes_in_parts(workspace: Workspace) -> None:
    path = f"{workspace.volume()}/big"
    files = _parts(workspace)
    files.upload(path, io.BytesIO(BIG), overwrite=False)
    assert _read(workspace, path) == BIG
    contents = files.download(path).contents
    assert contents is not None
    with contents:
        assert contents.read() == BIG
    with pytest.raises(AlreadyExists):
        files.upload(path, io.BytesIO(BIG), overwrite=False)
    files.upload(path, io.BytesIO(BIG[:-1]), overwrite=True)
    assert _read(workspace, path) == BIG[:-1]
    assert list(Path(workspace.root, "arriving").iterdir()) == []


def _post(workspace: Workspace, path: str, body: Any = None) -> requests.Response:
    head = {"authorization": f"Bearer {workspace.token}"}
    return requests.post(f"{workspace.host}{path}", json=body, headers=head, timeout=60)


def test_parts_are_no_file_until_they_are_complete(workspace: Workspace) -> None:
    path = f"{workspace.volume()}/big"
    address = f"/api/2.0/fs/files{path}"
    token = _post(workspace, f"{address}?action=initiate-upload").json()["multipart_upload"]["session_token"]
    asked = {"path": path, "session_token": token, "start_part_number": 1, "count": 2}
    urls = _post(workspace, "/api/2.0/fs/create-upload-part-urls", asked).json()["upload_part_urls"]
    etags = [
        requests.put(each["url"], data=data, timeout=60).headers["etag"]
        for each, data in zip(urls, (b"a", b"b"), strict=True)
    ]
    with pytest.raises(NotFound):
        workspace.client().files.download(path)
    done = f"{address}?action=complete-upload&upload_type=multipart&session_token={token}"
    wrong = {"parts": [{"part_number": 1, "etag": "wrong"}]}
    assert _post(workspace, done, wrong).status_code == 400
    parts = {"parts": [{"part_number": n, "etag": etag} for n, etag in enumerate(etags, 1)]}
    # sent twice, because the first answer was lost
    assert [_post(workspace, done, parts).status_code for _ in range(2)] == [200, 200]
    assert _read(workspace, path) == b"ab"


def test_parts_that_are_given_up_are_gone(workspace: Workspace) -> None:
    path = f"{workspace.volume()}/big"
    answer = _post(workspace, f"/api/2.0/fs/files{path}?action=initiate-upload").json()
    token = answer["multipart_upload"]["session_token"]
    assert (workspace.root / "uploads" / token).exists()
    asked = _post(workspace, "/api/2.0/fs/create-abort-upload-url", {"path": path, "session_token": token}).json()
    assert requests.delete(asked["abort_upload_url"]["url"], timeout=60).status_code == 200
    assert not (workspace.root / "uploads" / token).exists()
    asked = {"path": path, "session_token": token, "start_part_number": 1, "count": 1}
    assert _post(workspace, "/api/2.0/fs/create-upload-part-urls", asked).status_code == 404
