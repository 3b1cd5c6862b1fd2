"""A table as the exported pipeline has it, and the names that its parts have there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import pyarrow as pa

from neon_lake.change import COMMITTED_AT, DELETED_AT, LSN
from neon_lake.config import Deletes, WriteMode
from neon_lake.destinations.databricks.changes import rescuable
from neon_lake.destinations.databricks.sql import quoted
from neon_lake.schema import RESCUED, Column, Relation, ReplicaIdentity

STAGING: Final = "neon_lake.staging"
"""The parameter of the pipeline that says where the change log lies."""

MANIFESTS: Final = "neon_lake_manifests"
LOG: Final = "neon_lake_log"
BROKEN: Final = "neon_lake_broken"
SOUND: Final = "neon_lake_sound"


def parameter(name: str) -> str:
    """A parameter of the pipeline, as SQL refers to it.

    Source: https://docs.databricks.com/ldp/parameters
    """
    return f"${{{name}}}"


def internal(name: str) -> str:
    """A name whose characters that are no letters, digits or `_` are written as their bytes: fit for any table."""
    return re.sub(rb"[^A-Za-z0-9_]", lambda match: b"_x%02x" % match[0][0], name.encode()).decode()


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A table of the source, and what is to become of it.

    scd: 1 for its rows as they are, 2 for all of their versions; `place`: the parameter that names its schema, which is
    `schema` with a suffix; `name`: its name there; `variant`: json lands as variant.
    """

    relation: Relation
    mode: WriteMode
    deletes: Deletes
    scd: int
    place: str
    schema: str
    name: str
    variant: bool = False

    # --- names

    @property
    def target(self) -> str:
        """The table that people read."""
        return f"`{parameter(self.place)}`.{quoted(self.name)}"

    @property
    def staged(self) -> str:
        """The table of all changes and rows that are staged."""
        return f"{self._stem}_staged"

    @property
    def known(self) -> str:
        """The view of what was said of which key."""
        return f"{self._stem}_known"

    @property
    def events(self) -> str:
        """The view of events, as they come."""
        return f"{self._stem}_events"

    def flow(self, name: str) -> str:
        """The name of a flow."""
        return f"{self._stem}_{name}"

    @cached_property
    def _stem(self) -> str:
        table = self.relation.table
        return f"neon_lake_{internal(table.schema)}__{internal(table.name)}"

    # --- columns

    @cached_property
    def keys(self) -> Sequence[Column]:
        """The columns of the key; none where every change is to be a row."""
        return () if self.appends else self.relation.key

    @cached_property
    def identifying(self) -> Sequence[Column]:
        """The columns that `_old_key` has."""
        return self.relation.columns if self.relation.keyless else self.relation.key

    @cached_property
    def open(self) -> Sequence[Column]:
        """The columns whose value an update may leave unsent.

        With REPLICA IDENTITY FULL none: the old row, which is sent whole, has the value.
        Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html (TupleData)
        """
        if self.relation.identity is ReplicaIdentity.FULL:
            return ()
        return [column for column in self.relation.columns if not column.key and _stored_apart(column.arrow)]

    @property
    def appends(self) -> bool:
        """Whether every change is a row."""
        return self.mode is WriteMode.APPEND

    @property
    def soft(self) -> bool:
        """Whether a deleted row stays. Where all versions are kept, it stays as its last version anyway."""
        return self.deletes is Deletes.SOFT and self.scd == 1 and not self.appends

    @property
    def partial(self) -> bool:
        """Whether an event may speak of some columns alone."""
        return not self.appends and (self.soft or bool(self.open))

    @property
    def truncates(self) -> bool:
        """Whether AUTO CDC can empty the table. It cannot where ended rows stay."""
        return not self.appends and not self.soft and self.scd == 1

    @cached_property
    def updated(self) -> Sequence[str]:
        """The target's columns but for its key."""
        own = [RESCUED, LSN, COMMITTED_AT, *([DELETED_AT] if self.soft else [])]
        return [*(column.name for column in self.relation.columns if not column.key), *own]

    @cached_property
    def variants(self) -> frozenset[str]:
        """The columns that land as variant."""
        return frozenset(c.name for c in self.relation.columns if self.variant and c.type in ("json", "jsonb"))

    def rescued(self, columns: Sequence[Column]) -> Sequence[Column]:
        """Those that may have values in `_rescued_data`."""
        return [column for column in columns if rescuable(column.arrow)]


def new(column: Column) -> str:
    """What a column's value is called in the tables and views between: its name may be any."""
    return f"c_{internal(column.name)}"


def old(column: Column) -> str:
    """What a column's value before an update is called there."""
    return f"o_{internal(column.name)}"


def _stored_apart(kind: pa.DataType) -> bool:
    """Whether Postgres may store values apart from their row (TOAST): those of varying length."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_nested(kind) or pa.types.is_decimal(kind)
    )
