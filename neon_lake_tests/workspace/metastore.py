"""What Unity Catalog knows: catalogs, schemas, volumes and tables. In memory, as long as the server lives.

Names are compared in lower case, as Unity Catalog does.
Source: https://docs.databricks.com/data-governance/unity-catalog
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neon_lake_tests.workspace.refusals import Refused, already_exists, invalid, not_found

FIRST_CATALOG = "main"
"""The catalog that every workspace has from the start, with the schema `default`."""


def _now() -> int:
    return int(time.time() * 1000)


def _id() -> str:
    return str(uuid.uuid4())


@dataclass(kw_only=True)
class Column:
    """What the server adds to a column that Delta itself does not say."""

    comment: str | None = None


@dataclass(kw_only=True)
class Table:
    """A table: a Delta table at `location` (a path of this machine, or a URL), and what only Unity Catalog knows.

    `primary_key` is the constraint's name and its columns.
    """

    catalog: str
    schema: str
    name: str
    location: str
    external: bool = False
    comment: str | None = None
    primary_key: tuple[str, tuple[str, ...]] | None = None
    column_comments: dict[str, str] = field(default_factory=dict)
    created: int = field(default_factory=_now)
    id: str = field(default_factory=_id)

    @property
    def full_name(self) -> str:
        """The three parts, with dots between."""
        return f"{self.catalog}.{self.schema}.{self.name}"


@dataclass(kw_only=True)
class Volume:
    """A managed volume: a folder."""

    catalog: str
    schema: str
    name: str
    folder: Path
    comment: str | None = None
    created: int = field(default_factory=_now)
    id: str = field(default_factory=_id)

    @property
    def full_name(self) -> str:
        """The three parts, with dots between."""
        return f"{self.catalog}.{self.schema}.{self.name}"


@dataclass(kw_only=True)
class Schema:
    """A schema, with its tables and volumes by name."""

    catalog: str
    name: str
    comment: str | None = None
    tables: dict[str, Table] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    created: int = field(default_factory=_now)
    id: str = field(default_factory=_id)


@dataclass(kw_only=True)
class Catalog:
    """A catalog, with its schemas by name."""

    name: str
    comment: str | None = None
    schemas: dict[str, Schema] = field(default_factory=dict)
    created: int = field(default_factory=_now)
    id: str = field(default_factory=_id)


class Metastore:
    """All catalogs. Every method may be called from any thread; what it gives is shared.

    Raises `Refused`, in the words of the REST interface, for what is missing or there already.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        self._catalogs: dict[str, Catalog] = {}
        self.create_catalog(FIRST_CATALOG)

    # --- catalogs and schemas

    def catalogs(self) -> list[Catalog]:
        """All of them, by name."""
        with self._lock:
            return [self._catalogs[name] for name in sorted(self._catalogs)]

    def catalog(self, name: str) -> Catalog:
        """The catalog of this name."""
        with self._lock:
            found = self._catalogs.get(name.lower())
        if found is None:
            raise Refused(404, "CATALOG_DOES_NOT_EXIST", f"Catalog '{name}' does not exist.")
        return found

    def create_catalog(self, name: str, *, comment: str | None = None) -> Catalog:
        """A new catalog; it has a schema `default`."""
        name = _good(name)
        with self._lock:
            if name in self._catalogs:
                raise Refused(400, "CATALOG_ALREADY_EXISTS", f"Catalog '{name}' already exists")
            self._catalogs[name] = made = Catalog(name=name, comment=comment)
            self.create_schema(name, "default")
        return made

    def drop_catalog(self, name: str, *, force: bool) -> None:
        """Forget a catalog; one that has more than an empty `default` only by `force`."""
        with self._lock:
            catalog = self.catalog(name)
            full = [each for each in catalog.schemas.values() if each.name != "default" or each.tables or each.volumes]
            if full and not force:
                raise invalid(f"Cannot delete catalog '{name}' because it is not empty.")
            del self._catalogs[catalog.name]

    def schema(self, catalog: str, name: str) -> Schema:
        """The schema of this name."""
        with self._lock:
            found = self.catalog(catalog).schemas.get(name.lower())
        if found is None:
            raise Refused(404, "SCHEMA_DOES_NOT_EXIST", f"Schema '{catalog}.{name}' does not exist.")
        return found

    def create_schema(self, catalog: str, name: str, *, comment: str | None = None) -> Schema:
        """A new schema."""
        name = _good(name)
        with self._lock:
            schemas = self.catalog(catalog).schemas
            if name in schemas:
                raise Refused(400, "SCHEMA_ALREADY_EXISTS", f"Schema '{name}' already exists")
            schemas[name] = made = Schema(catalog=catalog.lower(), name=name, comment=comment)
        return made

    def drop_schema(self, catalog: str, name: str, *, force: bool) -> None:
        """Forget a schema; one with tables or volumes only by `force`."""
        with self._lock:
            schema = self.schema(catalog, name)
            if (schema.tables or schema.volumes) and not force:
                raise invalid(f"Cannot delete schema '{catalog}.{name}' because it is not empty.")
            del self.catalog(catalog).schemas[schema.name]

    # --- volumes

    def volume(self, catalog: str, schema: str, name: str) -> Volume:
        """The volume of this name."""
        with self._lock:
            found = self._catalogs.get(catalog.lower())
            within = found.schemas.get(schema.lower()) if found else None
            volume = within.volumes.get(name.lower()) if within else None
        if volume is None:
            raise not_found(f"Volume '{catalog}.{schema}.{name}' does not exist.")
        return volume

    def create_volume(self, catalog: str, schema: str, name: str, *, comment: str | None = None) -> Volume:
        """A new, empty volume."""
        name = _good(name)
        with self._lock:
            within = self.schema(catalog, schema)
            if name in within.volumes:
                raise already_exists(f"Volume '{catalog}.{schema}.{name}' already exists")
            folder = self.root / "volumes" / within.catalog / within.name / name
            folder.mkdir(parents=True, exist_ok=True)
            within.volumes[name] = made = Volume(
                catalog=within.catalog, schema=within.name, name=name, folder=folder, comment=comment
            )
        return made

    def drop_volume(self, catalog: str, schema: str, name: str) -> Volume:
        """Forget a volume; its files stay where they are."""
        with self._lock:
            volume = self.volume(catalog, schema, name)
            del self.schema(catalog, schema).volumes[volume.name]
        return volume

    # --- tables

    def find_table(self, catalog: str, schema: str, name: str) -> Table | None:
        """The table of this name, if there is one."""
        with self._lock:
            found = self._catalogs.get(catalog.lower())
            within = found.schemas.get(schema.lower()) if found else None
            return within.tables.get(name.lower()) if within else None

    def table(self, catalog: str, schema: str, name: str) -> Table:
        """The table of this name."""
        found = self.find_table(catalog, schema, name)
        if found is None:
            raise Refused(404, "TABLE_DOES_NOT_EXIST", f"Table '{catalog}.{schema}.{name}' does not exist.")
        return found

    def place(self, catalog: str, schema: str) -> str:
        """Where a new managed table lies: a folder that no other table has, or had, and that tells no name."""
        within = self.schema(catalog, schema)
        return str(self.root / "tables" / within.catalog / within.name / uuid.uuid4().hex)

    def add_table(self, table: Table) -> None:
        """Make a table known under its name, instead of one that has it."""
        with self._lock:
            self.schema(table.catalog, table.schema).tables[table.name] = table

    def remove_table(self, table: Table) -> None:
        """Forget a table."""
        with self._lock:
            self.schema(table.catalog, table.schema).tables.pop(table.name, None)

    def tables(self) -> Mapping[str, Table]:
        """All tables, by full name."""
        with self._lock:
            return {table.full_name: table for table in self._tables()}

    def _tables(self) -> Iterator[Table]:
        for catalog in self._catalogs.values():
            for schema in catalog.schemas.values():
                yield from schema.tables.values()


def _good(name: str) -> str:
    """A name as Unity Catalog keeps it. Refuses what cannot be one: it would also be a path of this machine."""
    if not name or len(name) > 255 or any(char in "./ " or ord(char) < 0x20 or ord(char) == 0x7F for char in name):
        raise invalid(f"'{name}' is not a valid name.")
    return name.lower()
