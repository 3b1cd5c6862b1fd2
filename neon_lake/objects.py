"""Object stores: how one is opened by its URL, and what is said when it cannot be used.

Amazon S3 (and what speaks its protocol), Azure Blob Storage and Google Cloud Storage, through the library obstore.
What it has not been given as an option, it takes from the environment (`AWS_…`, `AZURE_…`, `GOOGLE_…`), as delta-rs
does.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.exceptions import BaseError as StoreError
from obstore.store import AzureStore, GCSStore, S3Store, from_url

from neon_lake.errors import ConfigError

Store = S3Store | GCSStore | AzureStore

__all__ = ["FAILURES", "Options", "Store", "StoreError", "delete", "missing_bucket", "put_if_absent"]

FAILURES: Final = (StoreError, OSError, ValueError)
"""What obstore raises when a store cannot be used, or lacks an object."""

_CLIENT: Final = frozenset(
    {
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "http1_only",
        "http2_only",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_ca_certificate",
        "proxy_excludes",
        "proxy_url",
        "timeout",
        "user_agent",
    }
)
"""Options about the connection: object_store has them apart from those about the store."""

_RETRY: Final = frozenset({"max_retries", "retry_timeout"})

_DEFAULTS: Final = {"timeout": "120s", "connect_timeout": "5s", "max_retries": "10", "retry_timeout": "30s"}
"""A request may move some megabytes over a slow line; a store that is away is given up after half a minute."""

_PREFIXES: Final = {"s3": "aws_", "abfss": "azure_", "gs": "google_"}
"""How a scheme's options begin, and in upper case its environment variables."""

_AZURE_WITHOUT_STORAGE: Final = frozenset(
    {"disable_tagging", "federated_token_file", "msi_endpoint", "msi_resource_id", "object_id", "skip_signature"}
    | {"use_azure_cli"}
)
"""Azure's options whose full name is `azure_…`; the others' is `azure_storage_…`."""

_NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound", "FilesystemNotFound")

_SILENCE: Final = {
    "builder error": "its endpoint begins with http://, which is to be permitted by the option allow_http",
    "timed out|kind: Timeout": "it does not answer in time",
    "refused|dns error|kind: Connect|error sending request": "it cannot be reached",
}

_WRITER: Final = "writer"
"""Metadata of an object that only its first writer may make: a random word of the one who did."""


class Options:
    """What `staging.options` or `destination.options` say of the object store at `url`, understood.

    A name may be written in each way that object_store knows, with or without `aws_`, `azure_` or `google_`, and in
    upper case. Raises `ConfigError` for one that it does not know, and for a value that it cannot take.
    """

    def __init__(self, url: str, given: Mapping[str, str]) -> None:
        self.url = url
        options = _DEFAULTS | _connection(url) | {_plain(key): value for key, value in given.items()}
        self._client = {key: options.pop(key) for key in list(options) if key in _CLIENT}
        self._retry = {key: options.pop(key) for key in list(options) if key in _RETRY}
        self._secrets = tuple(value for key, value in [*given.items(), *os.environ.items()] if _is_secret(key, value))
        self.store = self._opened(options)

    def _opened(self, options: Mapping[str, str]) -> Store:
        try:
            retry: Any = {
                "max_retries": int(self._retry["max_retries"]),
                "retry_timeout": _duration(self._retry["retry_timeout"]),
            }
            config: Any = options
            client: Any = self._client
            store = from_url(self.url, config=config, client_options=client, retry_config=retry)
        except FAILURES as exc:
            raise ConfigError(
                f"The options of the object store {self.url} cannot be used ({self.hushed(_first_line(exc))}); "
                "see staging.options and destination.options, and the environment."
            ) from None  # its text goes on with the values, of which some are secrets
        assert isinstance(store, Store), "the configuration admits the schemes of these alone"
        return store

    def for_delta(self) -> dict[str, str]:
        """The same for delta-rs, by the full names: where two names mean one thing, the environment's could win."""
        prefix = _prefix(self.url)
        config = {key: str(value) for key, value in (self.store.config or {}).items()}
        for key in ("bucket", "container_name"):
            config.pop(key, None)
        if isinstance(self.store, AzureStore):
            named = {key if key in _AZURE_WITHOUT_STORAGE else f"storage_{key}": v for key, v in config.items()}
        else:
            named = config
        return {**{prefix + key: value for key, value in named.items()}, **self._client, **self._retry}

    def trouble(self, exc: BaseException) -> str | None:
        """What keeps the store from being used, in a few words; None when only an object is missing or in the way.

        The store's own answer is not repeated: when it refuses a signature, it holds what was signed, session token
        included (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
        """
        text = _flat(str(exc))
        code, status = (
            re.search(r"<Code>(\w+)</Code>", text),
            re.search(r"status(?: code)?: ([345]\d\d[A-Za-z ]*)", text),
        )
        if re.search(r"169\.254\.16|metadata\.google|CredentialsNotLoaded", text):
            return (
                "no credentials for it were found, neither in the options nor in the environment or the machine's role"
            )
        if status:
            # a list has no objects that could be missing
            of_bucket = (code and code[1] in _NO_BUCKET) or "list request" in text
            # an object that is missing, or that is there already
            if (status[1].startswith("404") and not of_bucket) or isinstance(exc, AlreadyExistsError):
                return None
            return f"it answers {', '.join([status[1].strip(), *([code[1]] if code else [])])}"
        for pattern, words in _SILENCE.items():
            if re.search(pattern, text):
                return words
        if isinstance(exc, StoreError) or re.search("Generic (S3|GCS|MicrosoftAzure|HTTP|Config) ", text):
            return self.hushed(_first_line(exc))
        return None

    def hushed(self, text: str) -> str:
        """A text without the secrets that the options and the environment hold, and on one line."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return re.sub(r"\?[\w%.~=&+/-]+", "?…", _flat(text))


def put_if_absent(store: Store, path: str, data: bytes) -> bool:
    """Store an object unless there is one: exactly one of several callers gets True.

    A put whose answer was lost is sent again, and then finds what it has stored itself: the writer's word tells.
    """
    writer = secrets.token_hex(16)
    try:
        obstore.put(store, path, data, mode="create", attributes={_WRITER: writer}, use_multipart=False)
    except AlreadyExistsError:
        with suppress(FileNotFoundError):
            return obstore.get(store, path, options={"head": True}).attributes.get(_WRITER) == writer
        return False
    return True


def delete(store: Store, paths: Iterable[str]) -> None:
    """Remove objects, as far as they exist: idempotent. A missing bucket is a FileNotFoundError too."""
    wanted = list(paths)
    try:
        obstore.delete(store, wanted)
    except FileNotFoundError as exc:
        if missing_bucket(exc):
            raise
        # Azure and Google say so, and may have left the others
        for path in wanted:
            with suppress(FileNotFoundError):
                obstore.delete(store, path)


def missing_bucket(exc: FileNotFoundError) -> bool:
    """Whether not an object, but the bucket or container is not there."""
    return any(f"<Code>{code}</Code>" in str(exc) for code in _NO_BUCKET)


def _prefix(url: str) -> str:
    return _PREFIXES[url.partition("://")[0]]


def _connection(url: str) -> dict[str, str]:
    """What the environment says of the connection: obstore does not look there once it is given anything of it."""
    prefix = _prefix(url).upper()
    return {key: os.environ[prefix + key.upper()] for key in _CLIENT | _RETRY if prefix + key.upper() in os.environ}


def _plain(key: str) -> str:
    """An option's name in lower case; one about the connection, without `aws_`, `azure_` or `google_`."""
    key = key.lower()
    bare = re.sub("^(aws|azure|google)_", "", key)
    return bare if bare in _CLIENT | _RETRY else key


def _is_secret(key: str, value: str) -> bool:
    # a short value is none, and would be found in any text
    return len(value) > 7 and re.search("secret|password|token|key|sas", key.lower()) is not None


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+) ?(ms|s|m|min)", text)
    if not found:
        raise ValueError(f"retry_timeout is to be like 30s, and is {text}")
    return timedelta(milliseconds=int(found[1]) * {"ms": 1, "s": 1000}.get(found[2], 60_000))


def _first_line(exc: BaseException) -> str:
    return str(exc).partition("\n\nDebug source")[0].strip().rstrip(".")


def _flat(text: str) -> str:
    """On one line; delta-rs draws a coloured tree of causes."""
    return " ".join(re.sub("\\s*\x1b\\[\\d+m↳\x1b\\[0m\\s*", ": ", text).split())
