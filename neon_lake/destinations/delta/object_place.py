"""Delta tables in an object store."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property

import obstore
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from neon_lake import objects
from neon_lake.destinations.delta import creation, object_creation
from neon_lake.errors import Finding
from neon_lake.schema import TableName


class ObjectPlace:
    """A folder in an object store, by its URL. Wrong options become `ConfigError` at once."""

    remedy = "check destination.path, its options, and the credentials and their rights"
    errors: tuple[type[Exception], ...] = (OSError, DeltaError, objects.StoreError)
    secretive = True

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        self.url = url.rstrip("/")
        self._options = objects.Options(self.url, options)
        self._store = self._options.store

    def path(self, table: TableName) -> str:
        """See `Place.path`."""
        return f"{self.url}/{table.path}"

    def check(self) -> Finding:
        """See `Place.check`."""
        probe = f".probe-{secrets.token_hex(8)}"
        try:
            obstore.put(self._store, probe, b"?")
            objects.delete(self._store, [probe])
        except objects.FAILURES as exc:
            trouble = self._options.trouble(exc) or self.said(exc)
            problem = f"The lake at {self.url} cannot be used ({trouble}); {self.remedy}."
            return Finding(subject="destination", detail=self.url, problem=problem)
        return Finding(subject="destination", detail=f"{self.url} is writable")

    def open(self, table: TableName, version: int | None = None) -> DeltaTable:
        """See `Place.open`."""
        return DeltaTable(self.path(table), version=version, storage_options=self._delta)

    def find(self, table: TableName) -> DeltaTable | None:
        """See `Place.find`. `DeltaTable.is_deltatable` would halt all threads until the store answers."""
        try:
            return self.open(table)
        except TableNotFoundError:
            return None

    def create(self, table: TableName, rows: pa.RecordBatchReader, properties: CommitProperties) -> None:
        """See `Place.create`."""
        object_creation.create(self._options, table.path, rows, properties, self._delta)

    def sweep(self, schema: TableName) -> int:
        """See `Place.sweep`."""
        before = datetime.fromtimestamp(time.time() - creation.ABANDONED, UTC)
        return object_creation.sweep(self._store, schema.path.rpartition("/")[0], before)

    def trouble(self, exc: Exception) -> str | None:
        """See `Place.trouble`."""
        return self._options.trouble(exc)

    def said(self, exc: Exception) -> str:
        """See `Place.said`."""
        return self._options.hushed(str(exc))

    @cached_property
    def _delta(self) -> dict[str, str]:
        return self._options.for_delta()
