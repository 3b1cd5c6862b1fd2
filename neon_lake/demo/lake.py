"""Where the demonstration's tables land: a directory, or a schema of its own in a Databricks workspace."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from neon_lake.config import UnityConfig
from neon_lake.errors import ConfigError, NeonLakeError
from neon_lake.schema import TableName
from neon_lake.workspace.connection import connect, translated
from neon_lake.workspace.statements import Warehouse

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

KINDS: Final = ("delta", "databricks")

_VOLUME: Final = "staging"
_NEEDED: Final = {
    "DATABRICKS_HOST": "the workspace's address",
    "DATABRICKS_WAREHOUSE_ID": "the id of a SQL warehouse",
    "NEON_LAKE_DEMO_CATALOG": "a catalog in which it may make a schema for itself, and remove it afterwards",
}


class Lake(Protocol):
    """A place for the tables."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""

    @property
    def staging(self) -> Mapping[str, Any]:
        """The section `staging` of the pipeline file."""

    @property
    def destination(self) -> Mapping[str, Any]:
        """The section `destination` of the pipeline file."""

    @property
    def where(self) -> str:
        """The place, in words."""

    @property
    def patience(self) -> float:
        """Seconds that any one step of the demonstration may take with it, on a slow machine too."""

    def landed(self, tables: Collection[TableName]) -> int:
        """How many of the tables are there."""


@dataclass(frozen=True, kw_only=True)
class LocalLake:
    """Delta tables in `<root>/lake`, with the change log beside them."""

    root: Path
    kind: str = KINDS[0]
    patience: float = 120.0

    @property
    def path(self) -> Path:
        """The Delta tables: `<schema>/<table>`."""
        return self.root / "lake"

    @property
    def staging(self) -> Mapping[str, Any]:
        """See `Lake`."""
        return {"path": "staging"}

    @property
    def destination(self) -> Mapping[str, Any]:
        """See `Lake`."""
        return {"kind": self.kind, "path": self.path.name}

    @property
    def where(self) -> str:
        """See `Lake`."""
        return str(self.path)

    def landed(self, tables: Collection[TableName]) -> int:
        """See `Lake.landed`."""
        return sum((self.path / name.path / "_delta_log").is_dir() for name in tables)


class UnityLake:
    """Tables in the schema `name` of `catalog`, in the workspace that the environment names; staging in a volume there.

    Raises `ConfigError` when the environment does not say enough.
    """

    kind: Final = KINDS[1]
    # A warehouse takes seconds for every statement, and minutes to start.
    patience: Final = 600.0

    def __init__(self, environment: Mapping[str, str], *, notice: Callable[[str], None] = lambda _: None) -> None:
        missing = [f"{name} ({what})" for name, what in _NEEDED.items() if not environment.get(name)]
        if missing:
            raise ConfigError(f"The demonstration on Databricks needs in its environment: {'; '.join(missing)}.")
        # What signs in otherwise, the SDK finds in the environment by itself.
        self._token = environment.get("DATABRICKS_TOKEN")
        self._unity = UnityConfig(
            catalog=environment["NEON_LAKE_DEMO_CATALOG"],
            warehouse=environment["DATABRICKS_WAREHOUSE_ID"],
            schema=f"neon_lake_demo_{secrets.token_hex(4)}",
            host=environment["DATABRICKS_HOST"],
            token=self._token,
        )
        self._client: WorkspaceClient = connect(self._unity)
        self._warehouse = Warehouse(
            self._client, self._unity.warehouse_id, label="neon_lake demonstration", notice=notice
        )
        self._looked, self._found = 0.0, 0

    @property
    def _schema(self) -> str:
        return f"{self._unity.catalog}.{self._unity.schema}"

    @property
    def _sql(self) -> str:
        return ".".join(f"`{name.replace('`', '``')}`" for name in (self._unity.catalog, str(self._unity.schema)))

    @property
    def staging(self) -> Mapping[str, Any]:
        """See `Lake`."""
        return {"path": f"/Volumes/{self._unity.catalog}/{self._unity.schema}/{_VOLUME}/shop"}

    @property
    def destination(self) -> Mapping[str, Any]:
        """See `Lake`. The token is not in it, but the name of its variable."""
        return {
            "kind": self.kind,
            "host": "${DATABRICKS_HOST}",
            **({"token": "${DATABRICKS_TOKEN}"} if self._token else {}),
            "warehouse": self._unity.warehouse,
            "catalog": self._unity.catalog,
            "schema": self._unity.schema,
        }

    @property
    def where(self) -> str:
        """See `Lake`."""
        return f"the schema {self._schema} at {self._unity.host}"

    def make(self) -> None:
        """Make schema and volume; the warehouse is started for it. Raises what statements raise."""
        comment = "COMMENT 'Made by neon-lake demo, which removes it when it ends'"
        self._warehouse.run(f"CREATE SCHEMA IF NOT EXISTS {self._sql} {comment}", f"the schema {self._schema}")
        self._warehouse.run(
            f"CREATE VOLUME IF NOT EXISTS {self._sql}.`{_VOLUME}`", f"the volume {self._schema}.{_VOLUME}"
        )

    def remove(self) -> None:
        """Remove the schema with everything in it. Raises what statements raise."""
        self._warehouse.run(f"DROP SCHEMA IF EXISTS {self._sql} CASCADE", f"the schema {self._schema}")

    def landed(self, tables: Collection[TableName]) -> int:
        """See `Lake.landed`. Asks Unity Catalog, and not the warehouse, once a second."""
        if time.monotonic() - self._looked > 1:
            with translated(f"the schema {self._schema}", "grant this identity USE SCHEMA on it"):
                listed = self._client.tables.list(self._unity.catalog, str(self._unity.schema))
                self._found = len({table.name for table in tables} & {table.name for table in listed})
            self._looked = time.monotonic()
        return self._found


@contextmanager
def lasting(lake: UnityLake, *, say: Callable[[str], None]) -> Iterator[UnityLake]:
    """The schema for as long as the context; `say` is told when it could not be removed. Raises what `make` raises."""
    made = False
    try:
        lake.make()
        made = True
        yield lake
    finally:
        try:
            lake.remove()
        except NeonLakeError as exc:
            if made:
                say(f"Remove {lake.where} by hand: {exc}")
