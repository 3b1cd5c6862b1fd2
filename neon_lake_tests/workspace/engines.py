"""What carries SQL out: one of two engines, behind one interface."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from neon_lake_tests.workspace import commands as c
from neon_lake_tests.workspace.metastore import Table

STATEMENT: ContextVar[str] = ContextVar("statement", default="")
"""The id of the statement for which an engine is called."""


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A table as an engine knows it: its database, its name in it, and where its files lie."""

    database: str
    name: str
    location: str

    @property
    def quoted(self) -> str:
        """Both names, as SQL writes them."""
        return f"{quoted(self.database)}.{quoted(self.name)}"


@dataclass(frozen=True, kw_only=True)
class NewTable:
    """A table to be made: its columns, or the query that fills it, in the engine's own SQL."""

    columns: Sequence[c.ColumnSpec] = ()
    query: str | None = None
    cluster_by: Sequence[str] = ()
    comment: str | None = None
    properties: Mapping[str, str]


class Engine(Protocol):
    """Carries out SQL over Delta tables. Every method may raise `SqlFailed`, as Databricks would say it."""

    title: str
    """Its name and version."""
    workers: int
    """How many statements it carries out at a time."""

    def run(self, sql: str) -> pa.Table:
        """The rows of a statement. `tag` names it for `interrupt`."""

    def change(self, relation: Relation, sql: str) -> pa.Table:
        """What a statement gives that changes rows of a table."""

    def interrupt(self, statement: str) -> None:
        """End the statement of this tag, if it can be ended; it may go on all the same."""

    def attach(self, relation: Relation) -> None:
        """Know the table that lies at the relation's location, by its name."""

    def detach(self, relation: Relation) -> None:
        """Know it no more; its files stay."""

    def create(self, relation: Relation, new: NewTable) -> int:
        """Make a table, or replace all of the one that is there, in one commit; gives the number of its rows."""

    def alter(self, relation: Relation, action: c.Action) -> None:
        """Change a table, in one of the ways that are not the metastore's alone."""

    def comment(self, relation: Relation, text: str | None) -> None:
        """Say what a table is."""

    def properties(self, relation: Relation) -> Mapping[str, str]:
        """The table's properties."""

    def history(self, relation: Relation, limit: int | None) -> pa.Table:
        """The commits of a table, the last one first."""

    def detail(self, relation: Relation) -> pa.Table:
        """One row about a table."""

    def restore(self, relation: Relation, version: int) -> pa.Table:
        """Bring back a table as it was; gives what that took."""

    def optimize(self, relation: Relation) -> pa.Table:
        """Make few large files of many small ones."""

    def vacuum(self, relation: Relation, hours: int | None) -> pa.Table:
        """Remove files that no version needs which is younger than so many hours."""

    def truncate(self, relation: Relation) -> int:
        """Remove all rows; gives their number."""

    def drop_database(self, database: str) -> None:
        """Know no more of a schema that is gone."""

    def close(self) -> None:
        """End it."""


def relation_of(table: Table) -> Relation:
    """A table's name for engines: of letters, digits and underscores, and its own where it has no others."""
    return Relation(database=database_of(table.catalog, table.schema), name=_plain(table.name), location=table.location)


def database_of(catalog: str, schema: str) -> str:
    """A schema's name for engines."""
    return f"{_plain(catalog)}__{_plain(schema)}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", lambda found: f"_x{ord(found[0]):x}_", name)


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """A string as SQL writes it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"
