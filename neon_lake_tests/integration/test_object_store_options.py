"""What pipeline file and environment say of an object store reaches both of its clients: obstore and delta-rs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from obstore.store import AzureStore, GCSStore, S3Store

from neon_lake.destinations.delta import DeltaDestination
from neon_lake.errors import ConfigError, DestinationUnavailable, NeonLakeError
from neon_lake.objects import Options
from neon_lake.schema import TableName
from neon_lake.staging.object_store import ObjectStorage

KEY = base64.b64encode(b"a key of an account").decode()
ABFSS = "abfss://container@account.dfs.core.windows.net/folder"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer's shell sets must not reach a test."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("url", "kind"), [("s3://bucket/folder", S3Store), ("gs://bucket/folder", GCSStore), (ABFSS, AzureStore)]
)
def test_a_url_leads_to_the_store_of_its_scheme(url: str, kind: type) -> None:
    options = Options(url, {"skip_signature": "true"})
    assert isinstance(options.store, kind)
    assert options.store.prefix == "folder"
    assert options.for_delta()["retry_timeout"] == "30s"


@pytest.mark.parametrize(
    ("url", "given", "full"),
    [
        ("s3://b/f", {"REGION": "r", "endpoint": "http://x"}, {"aws_region": "r", "aws_endpoint": "http://x"}),
        ("s3://b/f", {"AWS_ENDPOINT_URL": "http://x"}, {"aws_endpoint": "http://x"}),
        ("s3://b/f", {"aws_token": "t", "aws_allow_http": "true"}, {"aws_session_token": "t", "allow_http": "true"}),
        (ABFSS, {"access_key": KEY}, {"azure_storage_account_key": KEY}),
        (ABFSS, {"azure_client_id": "c", "tenant_id": "t"}, {"azure_storage_client_id": "c"}),
        (ABFSS, {"sas_token": "sv=1"}, {"azure_storage_sas_key": "sv=1"}),
        (ABFSS, {"azure_msi_endpoint": "http://x", "use_azure_cli": "true"}, {"azure_msi_endpoint": "http://x"}),
        ("gs://b/f", {"skip_signature": "true"}, {"google_skip_signature": "true"}),
        ("gs://b/f", {"max_retries": "2", "GOOGLE_TIMEOUT": "7s"}, {"max_retries": "2", "timeout": "7s"}),
    ],
)
def test_delta_rs_gets_the_same_by_full_names(url: str, given: dict[str, str], full: dict[str, str]) -> None:
    assert full.items() <= Options(url, given).for_delta().items()


def test_a_service_account_is_taken_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    subprocess.run(["openssl", "genrsa", "-out", tmp_path / "key.pem", "2048"], check=True, capture_output=True)
    account = {"client_email": "a@b", "private_key_id": "1", "private_key": (tmp_path / "key.pem").read_text("utf-8")}
    path.write_text(json.dumps(account), encoding="utf-8")
    options = Options("gs://bucket/folder", {"service_account": str(path)})
    assert options.for_delta()["google_service_account"] == str(path)
    with pytest.raises(ConfigError, match=r"gs://bucket/folder cannot be used .*nowhere"):
        Options("gs://bucket/folder", {"service_account": str(tmp_path / "nowhere")})


# --- a server that refuses everything, and notes what it was asked


@contextmanager
def listener(status: int = 404, body: str = "") -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Its URL, and who asked for what: (path, Authorization)."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            asked.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_HEAD = do_PUT = _answer  # noqa: N815 - the names that the base class calls

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


ENVIRONMENTS = {
    "s3": (
        "s3://bucket/folder",
        {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_REGION": "eu-north-7"},
        "AWS_ENDPOINT_URL",
        "Credential=AKIA1/",
    ),
    "azure": (
        ABFSS,
        {"AZURE_STORAGE_ACCOUNT_KEY": KEY},
        "AZURE_STORAGE_ENDPOINT",
        "SharedKey account:",
    ),
    "google": ("gs://bucket/folder", {"GOOGLE_SKIP_SIGNATURE": "true"}, "GOOGLE_BASE_URL", ""),
}


@pytest.mark.parametrize("by", ["environment", "options"])
@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_both_clients_ask_the_server_that_was_named(monkeypatch: pytest.MonkeyPatch, kind: str, by: str) -> None:
    url, variables, endpoint, authorization = ENVIRONMENTS[kind]
    with listener() as (server, asked):
        prefix = endpoint.partition("_")[0]
        settings = {**variables, endpoint: server, f"{prefix}_ALLOW_HTTP": "true", f"{prefix}_MAX_RETRIES": "0"}
        if by == "environment":
            for name, value in settings.items():
                monkeypatch.setenv(name, value)
            settings = {}
        with pytest.raises(KeyError):
            ObjectStorage(url, options=settings).read("x")
        assert asked, "obstore asked"
        assert all(authorization in said for _, said in asked)
        by_obstore = len(asked)
        with pytest.raises(DestinationUnavailable, match="it answers 404 Not Found"):
            DeltaDestination(url, pipeline="shop", options=settings).target(TableName("public", "a"))
        assert len(asked) > by_obstore, "delta-rs asked"
        assert all(authorization in said for _, said in asked)
        assert all("folder" in path for path, _ in asked)


def test_an_answer_that_repeats_a_secret_is_not_passed_on() -> None:
    token = "a-token-of-a-session"
    body = f"<Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>{token}</CanonicalRequest></Error>"
    with listener(403, body) as (server, _):
        given = {"access_key_id": "AKIA1", "secret_access_key": "hush", "session_token": token, "region": "r"}
        options = {**given, "endpoint": server, "allow_http": "true"}
        storage = ObjectStorage("s3://bucket/folder", options=options)
        lake = DeltaDestination("s3://bucket/folder", pipeline="shop", options=options)
        for use in (lambda: storage.read("x"), lambda: lake.target(TableName("public", "a"))):
            with pytest.raises(NeonLakeError, match="403 Forbidden, SignatureDoesNotMatch") as told:
                use()
            assert token not in "".join(traceback.format_exception(told.value))
        assert token not in f"{storage!r} {lake!r} {vars(storage)!r} {vars(lake)!r} {storage.check()} {lake.check()}"


def test_a_text_is_shown_without_what_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-the-environment")
    options = Options("s3://bucket", {"aws_access_key_id": "k", "aws_secret_access_key": "of-the-options"})
    said = options.hushed("of-the-options \x1b[31m↳\x1b[0m of-the-environment\n GET http://x/y?sig=abc%3D&se=1 in 2 ms")
    assert said == "…: … GET http://x/y?… in 2 ms"
