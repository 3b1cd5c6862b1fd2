"""Resources: where the source is, and the pipeline that replicates it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field, ValidationError

from neon_lake.config import SourceConfig, load
from neon_lake.errors import ConfigError
from neon_lake.orchestration.names import Names
from neon_lake.pipeline import Progress, Replication
from neon_lake.sources.postgres.connection import Connection, ConnectionSettings


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


class ReplicationResource(dg.ConfigurableResource[Replication]):
    """A pipeline, as its pipeline file describes it."""

    pipeline_file: str = Field(description="Path of the pipeline file.")

    def open(
        self, postgres: PostgresResource | None = None, progress: Callable[[Progress], None] = _quiet
    ) -> Replication:
        """The pipeline, ready for its verbs; `postgres` overrides what the file says of the source.

        Connects to nothing yet. Raises `ConfigError`.
        """
        config = load(Path(self.pipeline_file))
        if postgres is not None:
            config = replace(config, source=postgres.over(config.source))
        return Replication.open(config, progress=progress)


def opened(resources: Any, names: Names, progress: Callable[[Progress], None] = _quiet) -> Replication:
    """The pipeline from a context's resources, which need `names.resources`. Raises `ConfigError`."""
    replication: ReplicationResource = getattr(resources, names.replication)
    return replication.open(getattr(resources, names.postgres), progress)
