"""What a pipeline is to do: the values that a pipeline file gives, refused when they are wrong."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)
from pydantic.dataclasses import dataclass

from neon_lake.schema import TableName

_STRICT: Final = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True)


STORES: Final = ("s3", "gs", "abfss")
"""Schemes of the URLs of object stores."""


def _place(path: str) -> str:
    scheme, found, rest = path.partition("://")
    if not path or (found and (scheme not in STORES or not rest.strip("/"))):
        raise ValueError("must be a directory, or a URL that begins with s3://, gs:// or abfss:// and names a bucket")
    return path.rstrip("/") if found else path


Place = Annotated[str, AfterValidator(_place)]
"""A local directory, or the URL of one in an object store."""


def is_url(place: str) -> bool:
    """Whether a place lies in an object store."""
    return "://" in place


def _numeric_type(text: str) -> str:
    if text in ("double", "string"):
        return text
    if match := re.fullmatch(r"decimal\((\d+), ?(\d+)\)", text):
        precision, scale = int(match[1]), int(match[2])
        if 1 <= precision <= 38 and scale <= precision:
            return f"decimal({precision}, {scale})"
    raise ValueError(
        "must be double, string, or a decimal of at most 38 digits, in quotes: "
        '"decimal(20,4)" has 20 digits, 4 of them behind the point'
    )


NumericType = Annotated[str, AfterValidator(_numeric_type)]


class WriteMode(enum.StrEnum):
    """How a table's changes become rows of the lake.

    `mirror`: the lake has the rows that the source has (SCD 1). `append`: the lake has a row for every change.
    """

    MIRROR = "mirror"
    APPEND = "append"


class Deletes(enum.StrEnum):
    """What a delete does in the lake: remove the row, or keep it and set `_deleted_at`."""

    HARD = "hard"
    SOFT = "soft"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Table:
    """A line under `tables`: a name, or a pattern with shell wildcards, and how its tables are written.

    The last line that matches a table is the one that counts. `exclude` names columns that stay at the source;
    `types` gives numeric columns the type that they land as; `target` is the table's name in Unity Catalog, where it is
    not the source's; `skip` leaves the tables out that an earlier pattern took in.
    """

    name: str
    mode: WriteMode = WriteMode.MIRROR
    deletes: Deletes = Deletes.HARD
    exclude: tuple[str, ...] = ()
    types: Mapping[str, NumericType] = field(default_factory=dict)
    target: str | None = None
    skip: bool = False

    def __post_init__(self) -> None:
        TableName.parse(self.name)
        if self.target is not None and (self.is_pattern or not self.target):
            raise ValueError("has target, which names one table: give it to the line of a table, not to a pattern")
        if self.mode is WriteMode.APPEND and self.deletes is Deletes.SOFT:
            raise ValueError("has deletes: soft, which is for mode: mirror; with mode: append every delete is a row")

    @property
    def is_pattern(self) -> bool:
        """Whether the name holds wildcards, so that matching nothing is no mistake."""
        return any(mark in self.name for mark in "*?[")

    def matches(self, table: TableName) -> bool:
        """Whether this line speaks of `table`."""
        wanted = TableName.parse(self.name)
        return fnmatchcase(table.schema, wanted.schema) and fnmatchcase(table.name, wanted.name)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SourceConfig:
    """The database to read. `url` is a libpq URL; the other keys override what it says."""

    url: str = field(repr=False)
    kind: Literal["postgres"] = "postgres"
    application_name: str = "neon_lake"
    connect_timeout: Annotated[int, Field(ge=1)] = 10
    stall_timeout: Annotated[float, Field(gt=0)] = 30
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = None
    sslrootcert: str | None = None

    def __post_init__(self) -> None:
        if not re.match(r"postgres(ql)?://", self.url):
            raise ValueError("must be a URL such as postgresql://role:password@host/database")


Options = Annotated[Mapping[str, str], Field(repr=False)]
"""What an object store's client needs beside the environment, by object_store's names (`aws_region`, …)."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StagingConfig:
    """Where the change log lies, and for how long it is kept once it is applied everywhere.

    `path`: a local directory, the URL of an object store, or, with a Databricks destination, a folder of a Unity
    Catalog volume: `/Volumes/<catalog>/<schema>/<volume>/…`. `options` are for an object store.
    """

    path: Place
    retention_days: Annotated[float, Field(ge=0)] = 30
    options: Options = field(default_factory=dict, repr=False)


_AUTHENTICATIONS: Final = (
    ("token",),
    ("client_id", "client_secret"),
    ("azure_tenant_id", "azure_client_id", "azure_client_secret"),
    ("profile",),
)
SECRETS: Final = frozenset({"token", "client_secret", "azure_client_secret"})
"""Keys whose value the pipeline file may only take from the environment."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class UnityConfig:
    """A Databricks workspace, its SQL warehouse, and the names that tables have in its Unity Catalog.

    `warehouse` is the id of the SQL warehouse, or `http_path` the path that its page shows. A table of the source's
    schema S lands in the schema `schemas[S]`, else `schema`, else S, of `catalog`. One way to authenticate: `token`, or
    `client_id` and `client_secret` (OAuth of a service principal), or the three of `azure_…` (Entra ID), or `profile`
    of the file `~/.databrickscfg`; without any, the environment says (https://docs.databricks.com/dev-tools/auth).
    """

    catalog: Annotated[str, Field(min_length=1)]
    warehouse: str | None = None
    http_path: str | None = None
    schema: str | None = None
    schemas: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None
    profile: str | None = None
    token: str | None = field(default=None, repr=False)
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    azure_tenant_id: str | None = None
    azure_client_id: str | None = None
    azure_client_secret: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.warehouse is None) is (self.http_path is None):
            raise ValueError("needs the id of a SQL warehouse as warehouse, or its path as http_path, and not both")
        if self.http_path is not None and not re.fullmatch(r"/sql/1\.0/(warehouses|endpoints)/\w+", self.http_path):
            raise ValueError("has an http_path that is no SQL warehouse's; it looks like /sql/1.0/warehouses/1a2b3c4d")
        given = {key for keys in _AUTHENTICATIONS for key in keys if getattr(self, key) is not None}
        if given and given not in map(set, _AUTHENTICATIONS):
            raise ValueError(
                "needs one whole way to authenticate: token, or client_id and client_secret, or azure_tenant_id, "
                "azure_client_id and azure_client_secret, or profile"
            )

    @property
    def warehouse_id(self) -> str:
        """The id of the SQL warehouse."""
        return self.warehouse or str(self.http_path).rpartition("/")[2]

    def name(self, table: TableName, target: str | None) -> tuple[str, str, str]:
        """Catalog, schema and name of a table in Unity Catalog; `target` is what the table's line says.

        Unity Catalog has names in lower case, and not with every character; others become `_`.
        Source: https://docs.databricks.com/sql/language-manual/sql-ref-names
        """
        schema = self.schemas.get(table.schema) or self.schema or table.schema
        return _allowed(self.catalog), _allowed(schema), _allowed(target or table.name)


def _allowed(name: str) -> str:
    return re.sub(r"[\x00-\x20./\x7f]", "_", name.lower())


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DatabricksConfig(UnityConfig):
    """Delta tables in Unity Catalog, which a SQL warehouse writes from the files that are staged on a volume."""

    kind: Literal["databricks"]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DeltaConfig:
    """Delta tables at `<path>/<schema>/<table>`, written by delta-rs: in a local directory or an object store.

    `options` are for an object store. With `unity`, tables in an object store are registered as external tables.
    """

    path: Place
    kind: Literal["delta"] = "delta"
    options: Options = field(default_factory=dict, repr=False)
    unity: UnityConfig | None = None

    def __post_init__(self) -> None:
        if self.unity is not None and not is_url(self.path):
            raise ValueError("has unity, which registers tables of an object store: path is to be its URL")


def _kind(data: object) -> str:
    return str(data.get("kind", "delta") if isinstance(data, dict) else getattr(data, "kind", "delta"))


_BY_KIND: Final = Discriminator(
    _kind, custom_error_type="kind", custom_error_message="kind must be delta or databricks"
)
DestinationConfig = Annotated[
    Annotated[DeltaConfig, Tag("delta")] | Annotated[DatabricksConfig, Tag("databricks")], _BY_KIND
]
"""What a pipeline file says of its lake."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Limits:
    """Bounds on memory and on the size of a batch.

    `memory_mb` bounds what capture holds before it writes a segment, and how much of the log one commit applies;
    `batch_mb` and `batch_seconds`: a manifest is published at the first commit after so much was captured.
    """

    memory_mb: Annotated[int, Field(ge=16)] = 256
    batch_mb: Annotated[int, Field(ge=1)] = 256
    batch_seconds: Annotated[float, Field(gt=0)] = 60


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Parity:
    """`max_rows`: tables that the planner thinks larger are counted by the `verify` job only, not after every sync."""

    max_rows: Annotated[int, Field(ge=0)] = 1_000_000


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Orchestration:
    """How Dagster runs the pipeline.

    The sensor looks at the slot every `interval_seconds` and starts a run when `lag_kb` of WAL are waiting, or any
    WAL for `max_age_seconds`. `cron` is for the schedule, the alternative to the sensor. `start` is the first hourly
    partition (UTC). `prefix` comes before schema and table in asset keys; it is the pipeline's name unless given.
    """

    prefix: tuple[str, ...] | None = None
    start: datetime = datetime(2026, 1, 1)  # noqa: DTZ001 - the start of an hourly partition, in UTC as all of them
    interval_seconds: Annotated[int, Field(ge=5)] = 10
    lag_kb: Annotated[int, Field(ge=0)] = 1024
    max_age_seconds: Annotated[float, Field(ge=0)] = 30
    cron: str = "*/15 * * * *"
    sensor_on: bool = True


def _slot_safe(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise ValueError("must begin with a letter and hold at most 40 lower-case letters, digits and _")
    return name


def _entry(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Pipeline:
    """One source database, one slot, one change log, one lake. `pipeline` in the file is `name` here."""

    name: Annotated[str, Field(alias="pipeline"), AfterValidator(_slot_safe)]
    source: SourceConfig
    staging: StagingConfig
    destination: DestinationConfig
    tables: Annotated[tuple[Annotated[Table, BeforeValidator(_entry)], ...], Field(min_length=1)]
    limits: Limits = Limits()
    parity: Parity = Parity()
    orchestration: Orchestration = Orchestration()

    def __post_init__(self) -> None:
        path, databricks = self.staging.path, isinstance(self.destination, DatabricksConfig)
        if databricks and not re.match(r"/Volumes/[^/]+/[^/]+/[^/]+", path):
            raise ValueError(
                "with a Databricks destination, staging.path is a folder of a volume that the warehouse can read: "
                "/Volumes/<catalog>/<schema>/<volume>/…"
            )
        if not isinstance(self.destination, DatabricksConfig) and any(
            line.target for line in self.tables if self.destination.unity is None
        ):
            raise ValueError("target gives a table another name in Unity Catalog, and the destination has none")

    def table(self, name: TableName) -> Table | None:
        """What the file says of a table: the last line that matches, or None."""
        return next((line for line in reversed(self.tables) if line.matches(name)), None)

    def unity_name(self, table: TableName) -> tuple[str, str, str] | None:
        """Catalog, schema and name of a table in Unity Catalog, when it is to be there."""
        destination = self.destination
        unity = destination if isinstance(destination, UnityConfig) else destination.unity
        line = self.table(table)
        return unity.name(table, line.target if line else None) if unity else None
