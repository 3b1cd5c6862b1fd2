"""The connection to a Databricks workspace, and what its refusals mean.

Source: https://docs.databricks.com/dev-tools/auth
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from neon_lake.config import UnityConfig
from neon_lake.errors import ConfigError, DestinationError, DestinationUnavailable

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

HTTP_SECONDS: Final = 60
"""How long one answer is waited for; a statement is waited for in shorter pieces."""

RETRY_SECONDS: Final = 300
"""For how long the SDK sends a request again that was refused for the moment, or whose connection was cut."""


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


@contextmanager
def translated(what: str, remedy: str) -> Iterator[None]:
    """Turn what the SDK raises into sentences on `what`; `remedy` says what to do when access to it is refused.

    Raises `DestinationUnavailable` for what is not the table's own fault, and `DestinationError`.
    """
    from databricks.sdk import errors  # noqa: PLC0415 - see `connect`
    from databricks.sdk.errors.base import DatabricksError  # noqa: PLC0415
    from requests import RequestException  # noqa: PLC0415

    try:
        yield
    except errors.Unauthenticated as exc:
        raise DestinationUnavailable(
            f"Databricks does not accept the credentials for {what}; renew the token or the secret."
        ) from exc
    except errors.PermissionDenied as exc:
        raise DestinationUnavailable(f"Databricks refuses access to {what}; {remedy}.") from exc
    except errors.NotFound as exc:
        raise DestinationError(f"Databricks has no {what} ({brief(exc)}); {remedy}.") from exc
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
