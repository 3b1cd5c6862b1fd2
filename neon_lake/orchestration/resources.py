"""Resources: where the source is, and the pipeline that replicates it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field, ValidationError

from neon_lake.config import DatabricksConfig, SourceConfig
from neon_lake.errors import ConfigError
from neon_lake.orchestration.names import Names
from neon_lake.pipeline import Progress, Replication
from neon_lake.pipeline_file import load
from neon_lake.sources.postgres.connection import Connection, ConnectionSettings
from neon_lake.workspace.connection import connect


class PostgresResource(dg.ConfigurableResource[ConnectionSettings]):
    """A Postgres database to read from.

    In a pipeline, what is left out is as the pipeline file says. Give secrets as `EnvVar`, so that Dagster shows the
    variable's name and not its value.
    """

    url: str | None = Field(default=None, description="postgresql://role:password@host/database; not a pooled host.")
    sslmode: str | None = Field(default=None, description="disable, allow, prefer, require, verify-ca or verify-full.")
    sslrootcert: str | None = Field(default=None, description="File with the certificates that sign the server's.")
    application_name: str | None = Field(default=None, description="How the server names our connections.")
    connect_timeout: int | None = Field(default=None, description="Seconds to wait for a connection.")

    def over(self, source: SourceConfig) -> SourceConfig:
        """The source of a pipeline file, with what is given here instead. Raises `ConfigError`."""
        given = {field.name: getattr(self, field.name, None) for field in fields(SourceConfig)}
        try:
            return replace(source, **{name: value for name, value in given.items() if value is not None})
        except ValidationError as exc:
            first = exc.errors(include_input=False, include_url=False)[0]
            where, what = first["loc"][0] if first["loc"] else "url", first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"The resource postgres is configured wrongly: {where} {what}.") from None

    def settings(self) -> ConnectionSettings:
        """What a connection needs. Raises `ConfigError` when there is no `url`."""
        if self.url is None:
            raise ConfigError("The resource postgres has no url; give it one to connect with it directly.")
        source = self.over(SourceConfig(url=self.url))
        return ConnectionSettings(**{f.name: getattr(source, f.name) for f in fields(ConnectionSettings)})

    def connect(self) -> AbstractContextManager[Connection]:
        """An ordinary connection, closed at the end of the context.

        Raises `SourceUnavailable` and `SourceRefused`, also for what the queries in the context meet.
        """
        return self.settings().connect()


def _quiet(_: Progress) -> None:
    """Tell nobody."""


class WorkspaceResource(dg.ConfigurableResource[Any]):
    """The Databricks workspace that a pipeline file describes.

    A `DatabricksClientResource` of dagster-databricks can take its place: both give a client by `get_client`.
    """

    pipeline_file: str = Field(description="Path of the pipeline file.")

    def get_client(self) -> Any:
        """What has the SDK's client as `workspace_client`. Raises `ConfigError`."""
        destination = load(Path(self.pipeline_file)).destination
        assert isinstance(destination, DatabricksConfig)
        # three seconds, because it loads pyspark: only runs pay for it
        from dagster_databricks.databricks import DatabricksClient  # noqa: PLC0415
        from dagster_databricks.resources import (  # noqa: PLC0415
            AzureServicePrincipalCredentials,
            DatabricksClientResource,
            OauthCredentials,
        )

        given: dict[str, Any] = {"host": destination.host}
        if destination.token is not None:
            given["token"] = destination.token
        elif destination.client_id is not None:
            given["oauth_credentials"] = OauthCredentials(
                client_id=destination.client_id, client_secret=str(destination.client_secret)
            )
        elif destination.azure_client_id is not None:
            given["azure_credentials"] = AzureServicePrincipalCredentials(
                azure_client_id=destination.azure_client_id,
                azure_client_secret=str(destination.azure_client_secret),
                azure_tenant_id=str(destination.azure_tenant_id),
            )
        else:
            # a profile, or what the environment says: the SDK finds it
            return _Found(connect(destination))
        client: DatabricksClient = DatabricksClientResource(**given).get_client()
        return client


class _Found:
    """A client of the SDK, as `DatabricksClient` holds one."""

    def __init__(self, client: Any) -> None:
        self.workspace_client = client


class ReplicationResource(dg.ConfigurableResource[Replication]):
    """A pipeline, as its pipeline file describes it."""

    pipeline_file: str = Field(description="Path of the pipeline file.")

    def open(
        self,
        postgres: PostgresResource | None = None,
        progress: Callable[[Progress], None] = _quiet,
        databricks: Any = None,
    ) -> Replication:
        """The pipeline, ready for its verbs; `postgres` overrides what the file says of the source.

        `databricks` is a resource that connects to the workspace, or the client that such a one gives.

        Connects to nothing yet. Raises `ConfigError`.
        """
        config = load(Path(self.pipeline_file))
        if postgres is not None:
            config = replace(config, source=postgres.over(config.source))
        if databricks is not None and hasattr(databricks, "get_client"):
            databricks = databricks.get_client()
        client = databricks.workspace_client if databricks is not None else None
        return Replication.open(config, progress=progress, client=client)


def opened(resources: Any, names: Names, progress: Callable[[Progress], None] = _quiet) -> Replication:
    """The pipeline from a context's resources, which need `names.resources`. Raises `ConfigError`."""
    replication: ReplicationResource = getattr(resources, names.replication)
    databricks = getattr(resources, names.databricks) if names.on_databricks else None
    return replication.open(getattr(resources, names.postgres), progress, databricks)
