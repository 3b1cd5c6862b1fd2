"""The connection to a Databricks workspace, and what its refusals mean.

Source: https://docs.databricks.com/dev-tools/auth
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from neon_lake.config import UnityConfig
from neon_lake.errors import ConfigError, DestinationUnavailable

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_T = TypeVar("_T")

HTTP_SECONDS: Final = 60
"""How long one answer is waited for; a statement is waited for in shorter pieces."""

RETRY_SECONDS: Final = 300
"""For how long the SDK sends a request again that was refused for the moment, or whose connection was cut."""

ATTEMPTS: Final = 4
"""How often a request is sent that the workspace answers with an error of its own, or with half of an answer."""
_FIRST_PAUSE: Final = 0.1
_INVALID_TOKEN: Final = re.compile(r"(?i)invalid (access )?token|token (is |has )?(expired|invalid)|expired token")
"""What is said of a token that is not accepted: some workspaces refuse it with 403, as they refuse a missing grant."""


def connect(config: UnityConfig) -> WorkspaceClient:
    """A client for the workspace that the pipeline file names. Raises `ConfigError`; sends nothing yet."""
    try:
        from databricks.sdk import WorkspaceClient  # noqa: PLC0415 - half a second, which only Databricks' users pay
        from databricks.sdk.core import Config  # noqa: PLC0415
    except ImportError as exc:
        raise ConfigError(
            "destination.kind: databricks needs the extra packages: install neon-lake[databricks]."
        ) from exc
    try:
        return WorkspaceClient(
            config=Config(
                host=config.host,
                product="neon-lake",
                http_timeout_seconds=HTTP_SECONDS,
                retry_timeout_seconds=RETRY_SECONDS,
                **_credentials(config),
            )
        )
    except ValueError as exc:
        # the SDK's own text may show what it was given
        raise ConfigError(
            "The pipeline file and the environment do not say how to sign in to Databricks; give destination.host, and "
            "token, or client_id and client_secret, or the azure_… keys, or profile."
        ) from exc


def _credentials(config: UnityConfig) -> dict[str, Any]:
    """The chosen way to authenticate, named, so that the environment does not bring in another one."""
    if config.token is not None:
        return {"token": config.token, "auth_type": "pat"}
    if config.client_id is not None:
        return {"client_id": config.client_id, "client_secret": config.client_secret, "auth_type": "oauth-m2m"}
    if config.azure_client_id is not None:
        return {
            "azure_tenant_id": config.azure_tenant_id,
            "azure_client_id": config.azure_client_id,
            "azure_client_secret": config.azure_client_secret,
            "auth_type": "azure-client-secret",
        }
    return {"profile": config.profile} if config.profile is not None else {}


def asked(client: WorkspaceClient, action: Callable[[], _T]) -> _T:
    """Carry out a request that may be carried out twice; again when the workspace fails by itself.

    What is refused for the moment, the SDK sends again already. A token that is refused before its time is fetched
    anew, once; one that a person gave cannot be. Raises what the SDK raises.
    """
    from databricks.sdk.errors.base import DatabricksError  # noqa: PLC0415 - see `connect`
    from requests import RequestException  # noqa: PLC0415

    renewable, attempt = client.config.auth_type != "pat", 0
    while True:
        try:
            return action()
        except (DatabricksError, RequestException, ValueError) as exc:
            if renewable and unauthenticated(exc):
                renewable = False
                client.config.init_auth()  # type: ignore[no-untyped-call]
                continue
            attempt += 1
            if attempt == ATTEMPTS or not _passing(exc):
                raise
        client.config.clock.sleep(_FIRST_PAUSE * (1 << attempt))


def in_path(name: str) -> str:
    """A name as the SDK is to put it into the path of a request: there it quotes neither `%` nor `?` nor `#`."""
    return quote(name)


def unauthenticated(exc: Exception) -> bool:
    """Whether the credentials were not accepted."""
    from databricks.sdk import errors  # noqa: PLC0415 - see `connect`

    refused = isinstance(exc, errors.PermissionDenied) and _INVALID_TOKEN.search(str(exc)) is not None
    return refused or isinstance(exc, errors.Unauthenticated)


def _passing(exc: Exception) -> bool:
    """Whether an error is the workspace's own, or the network's, and not what it says of the request."""
    from databricks.sdk import errors  # noqa: PLC0415 - see `connect`
    from databricks.sdk.errors.base import DatabricksError  # noqa: PLC0415

    if not isinstance(exc, DatabricksError):
        return True
    # the class itself stands for what the SDK has no class for, such as the 502 of a proxy; a proxy's 503 the SDK does
    # not send again by itself
    passing = (errors.InternalError, errors.DeadlineExceeded, errors.TemporarilyUnavailable)
    return type(exc) is DatabricksError or isinstance(exc, passing)


@contextmanager
def translated(what: str, remedy: str) -> Iterator[None]:
    """Turn what the SDK raises into sentences on `what`; `remedy` says what to do when access to it is refused.

    Raises `DestinationUnavailable`: none of it is the fault of a table.
    """
    from databricks.sdk import errors  # noqa: PLC0415 - see `connect`
    from databricks.sdk.errors.base import DatabricksError  # noqa: PLC0415
    from requests import RequestException  # noqa: PLC0415

    try:
        yield
    except (errors.Unauthenticated, errors.PermissionDenied) as exc:
        if unauthenticated(exc):
            raise DestinationUnavailable(
                f"Databricks does not accept the credentials for {what}; renew the token or the secret."
            ) from exc
        raise DestinationUnavailable(f"Databricks refuses access to {what}; {remedy}.") from exc
    except errors.NotFound as exc:
        raise DestinationUnavailable(f"Databricks has no {what} ({brief(exc)}); {remedy}.") from exc
    except (DatabricksError, RequestException, TimeoutError, ValueError) as exc:
        raise DestinationUnavailable(
            f"Databricks does not answer for {what} ({brief(exc)}); run this again, and look at the workspace's status "
            "if it stays so."
        ) from exc


_CREDENTIAL: Final = re.compile(r"(?i)(bearer |token[=: ]+|secret[=: ]+|dapi)[\w.~+/-]+=*")


def brief(exc: BaseException) -> str:
    """What an error says, as one line, without anything that looks like a credential."""
    said = " ".join(str(exc).split()) or type(exc).__name__
    return _CREDENTIAL.sub(r"\1…", said)[:300]
