"""Statements that the workspace carries out itself, or leads: all but queries and changes of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Name: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ColumnSpec:
    """A column as a statement declares it; `kind` is its type as it is written."""

    name: str
    kind: str
    nullable: bool = True
    comment: str | None = None


@dataclass(frozen=True, kw_only=True)
class PrimaryKey:
    """A constraint; without a name the workspace makes one up."""

    name: str | None
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Create:
    """CREATE CATALOG, SCHEMA or VOLUME."""

    what: str
    name: Name
    if_not_exists: bool
    comment: str | None


@dataclass(frozen=True, kw_only=True)
class Drop:
    """DROP CATALOG, SCHEMA, VOLUME or TABLE."""

    what: str
    name: Name
    if_exists: bool
    cascade: bool


@dataclass(frozen=True, kw_only=True)
class CreateTable:
    """CREATE TABLE, with columns, or with the query whose result fills it, or for what lies at `location`."""

    name: Name
    if_not_exists: bool = False
    or_replace: bool = False
    columns: tuple[ColumnSpec, ...] = ()
    primary_key: PrimaryKey | None = None
    cluster_by: tuple[str, ...] = ()
    comment: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    location: str | None = None
    query: str | None = None


@dataclass(frozen=True, kw_only=True)
class AddColumns:
    """New columns, at the end."""

    columns: tuple[ColumnSpec, ...]


@dataclass(frozen=True, kw_only=True)
class DropColumns:
    """Columns that go."""

    names: tuple[str, ...]
    if_exists: bool


@dataclass(frozen=True, kw_only=True)
class RenameColumn:
    """A column's new name."""

    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class ChangeColumn:
    """What changes of a column: one of these is not None."""

    name: str
    nullable: bool | None = None
    comment: str | None = None
    kind: str | None = None


@dataclass(frozen=True, kw_only=True)
class SetProperties:
    """Properties that are set, and names of those that go."""

    values: Mapping[str, str] = field(default_factory=dict)
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AddPrimaryKey:
    """A new constraint."""

    key: PrimaryKey


@dataclass(frozen=True, kw_only=True)
class DropConstraint:
    """A constraint that goes: the one of this name, or the primary key."""

    name: str | None
    if_exists: bool


@dataclass(frozen=True, kw_only=True)
class Rename:
    """A table's new name."""

    name: Name


@dataclass(frozen=True, kw_only=True)
class ClusterBy:
    """The columns to cluster by from now on."""

    columns: tuple[str, ...]


Action: TypeAlias = (
    AddColumns
    | DropColumns
    | RenameColumn
    | ChangeColumn
    | SetProperties
    | AddPrimaryKey
    | DropConstraint
    | Rename
    | ClusterBy
)


@dataclass(frozen=True, kw_only=True)
class AlterTable:
    """ALTER TABLE."""

    name: Name
    action: Action


@dataclass(frozen=True, kw_only=True)
class Comment:
    """COMMENT ON CATALOG, SCHEMA, VOLUME, TABLE or COLUMN."""

    what: str
    name: Name
    text: str | None


@dataclass(frozen=True, kw_only=True)
class History:
    """DESCRIBE HISTORY."""

    name: Name
    limit: int | None


@dataclass(frozen=True, kw_only=True)
class Detail:
    """DESCRIBE DETAIL."""

    name: Name


@dataclass(frozen=True, kw_only=True)
class Describe:
    """DESCRIBE TABLE."""

    name: Name


@dataclass(frozen=True, kw_only=True)
class Restore:
    """RESTORE TABLE."""

    name: Name
    version: int


@dataclass(frozen=True, kw_only=True)
class Optimize:
    """OPTIMIZE."""

    name: Name


@dataclass(frozen=True, kw_only=True)
class Refresh:
    """MSCK REPAIR TABLE … SYNC METADATA."""

    name: Name


@dataclass(frozen=True, kw_only=True)
class Vacuum:
    """VACUUM, of what is older than `hours`, if that is said."""

    name: Name
    hours: int | None


@dataclass(frozen=True, kw_only=True)
class ShowProperties:
    """SHOW TBLPROPERTIES."""

    name: Name
    key: str | None


@dataclass(frozen=True, kw_only=True)
class ShowTables:
    """SHOW TABLES."""

    schema: Name


@dataclass(frozen=True, kw_only=True)
class Truncate:
    """TRUNCATE TABLE."""

    name: Name


Command: TypeAlias = (
    Create
    | Drop
    | CreateTable
    | AlterTable
    | Comment
    | History
    | Detail
    | Describe
    | Restore
    | Optimize
    | Refresh
    | Vacuum
    | ShowProperties
    | ShowTables
    | Truncate
)
