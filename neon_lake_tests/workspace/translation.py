"""Databricks' SQL as an engine of this machine reads it: names of tables, and paths of files, are put in their place.

All that a statement says beside them stays as it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from neon_lake_tests.workspace.commands import Name
from neon_lake_tests.workspace.engines import literal, quoted, relation_of
from neon_lake_tests.workspace.metastore import Metastore, Table
from neon_lake_tests.workspace.refusals import Refused
from neon_lake_tests.workspace.sql_errors import SqlFailed, path_not_found, table_not_found
from neon_lake_tests.workspace.volumes import Volumes
from neon_lake_tests.workspace.words import Word, words_of

_FORMATS: Final = frozenset({"PARQUET", "JSON", "CSV", "TEXT", "ORC", "AVRO", "BINARYFILE"})
_BEFORE_TABLES: Final = frozenset({"FROM", "JOIN", "INTO", "UPDATE", "TABLE", "USING", "OVERWRITE"})


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A value for `:name` in a statement; `kind` is its type as SQL writes it."""

    value: str | None
    kind: str = "STRING"


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where a statement's names are looked up. `catalog` and `schema` are those of names that say none."""

    metastore: Metastore
    volumes: Volumes
    catalog: str | None = None
    schema: str | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def full(self, name: Name) -> Name:
        """A name of a table in all its parts. Raises `SqlFailed` when a part is nowhere."""
        if len(name) == 3:
            return name
        if len(name) == 2 and self.catalog is not None:
            return (self.catalog, *name)
        if len(name) == 1 and self.catalog is not None and self.schema is not None:
            return (self.catalog, self.schema, *name)
        raise table_not_found(".".join(name))

    def find(self, name: Name) -> Table | None:
        """The table of this name, if there is one."""
        try:
            catalog, schema, own = self.full(name)
        except SqlFailed:
            return None
        return self.metastore.find_table(catalog, schema, own)

    def table(self, name: Name) -> Table:
        """The table of this name. Raises `SqlFailed` where there is none."""
        found = self.find(name)
        if found is None:
            raise table_not_found(".".join(name))
        return found


@dataclass(frozen=True, kw_only=True)
class Translated:
    """A statement for the engine, and the tables that it names, in their order."""

    sql: str
    tables: tuple[Table, ...]


def translated(sql: str, scope: Scope) -> Translated:
    """Put names and paths of a statement in their place. Raises `SqlFailed` for tables and files that are not there."""
    words = words_of(sql)
    changes: list[tuple[int, int, str]] = []
    tables: list[Table] = []
    at = 0
    while at < len(words):
        if words[at].says(":") and _is_parameter(words, at):
            changes.append((words[at].start, words[at + 1].stop, _parameter(words[at + 1].text, scope)))
            at += 2
            continue
        chain = _chain(words, at)
        if not chain:
            at += 1
            continue
        at += 2 * len(chain) - 1
        if len(chain) == 2 and chain[0].text.upper() in _FORMATS and chain[1].kind == "name":
            changes.append((chain[1].start, chain[1].stop, quoted(_path(chain[1].text, scope))))
        elif (table := _table(words, at, chain, scope)) is not None:
            tables.append(table)
            last = chain[min(len(chain), 3) - 1] if len(chain) >= 3 else chain[-1]
            changes.append((chain[0].start, last.stop, relation_of(table).quoted))
            if at + 1 < len(words) and words[at].says("@") and words[at + 1].text[:1] in "vV":
                changes.append((words[at].start, words[at + 1].stop, f" VERSION AS OF {words[at + 1].text[1:]}"))
                at += 2
    return Translated(sql=_changed(sql, changes), tables=tuple(tables))


def _changed(sql: str, changes: list[tuple[int, int, str]]) -> str:
    pieces, at = [], 0
    for start, stop, text in changes:
        pieces += [sql[at:start], text]
        at = stop
    return "".join([*pieces, sql[at:]]).rstrip().rstrip(";")


def _chain(words: list[Word], at: int) -> list[Word]:
    """The parts of the dotted name that begins here, if one does."""
    if words[at].kind not in ("name", "word") or (at and words[at - 1].says(".")):
        return []
    chain = [words[at]]
    while at + 2 < len(words) and words[at + 1].says(".") and words[at + 2].kind in ("name", "word"):
        at += 2
        chain.append(words[at])
    return chain


def _table(words: list[Word], after: int, chain: list[Word], scope: Scope) -> Table | None:
    """The table that a dotted name means, unless it means a column, a function, or a name of the statement's own."""
    name = tuple(word.text for word in chain)
    if len(name) >= 3 and (found := scope.find(name[:3])) is not None:
        return found
    first = after - 2 * len(chain) + 1
    before = words[first - 1] if first else None
    wanted = before is not None and before.kind == "word" and before.text.upper() in _BEFORE_TABLES
    if not wanted or (first > 1 and words[first - 2].says("DISTINCT")):
        return None
    if after < len(words) and words[after].says("("):
        assert before is not None
        if not before.says("INTO"):
            return None
    if len(name) == 3:
        raise table_not_found(".".join(name))
    return scope.find(name)


def _is_parameter(words: list[Word], at: int) -> bool:
    """Whether a colon begins a parameter; behind a name it is a path into JSON."""
    if at + 1 >= len(words) or words[at + 1].start != words[at].stop or words[at + 1].kind != "word":
        return False
    before = words[at - 1] if at else None
    adjacent = before is not None and before.stop == words[at].start
    return not (adjacent and before is not None and (before.kind in ("name", "word") or before.text in ")]:"))


def _parameter(name: str, scope: Scope) -> str:
    found = scope.parameters.get(name)
    if found is None:
        said = f"Found the unbound parameter: {name}. Please, fix `args` and provide a mapping of the parameter."
        raise SqlFailed("UNBOUND_SQL_PARAMETER", said, "42P02")
    return "NULL" if found.value is None else f"CAST({literal(found.value)} AS {found.kind})"


def _path(address: str, scope: Scope) -> str:
    """Where files of a volume lie. Raises `SqlFailed` when none are there."""
    try:
        path = str(scope.volumes.path(address))
    except Refused as refusal:
        if refusal.status == 404:
            said = f"{refusal.message} Please use 'SHOW VOLUMES' to list available volumes."
            raise SqlFailed("UC_VOLUME_NOT_FOUND", said, "42704") from refusal
        if refusal.status == 403:
            raise SqlFailed("INSUFFICIENT_PERMISSIONS", refusal.message, "42501") from refusal
        raise path_not_found(f"dbfs:{address}") from refusal
    if not (Path(path).exists() or any(Path("/").glob(path[1:]))):
        raise path_not_found(f"dbfs:{address}")
    return path


def untranslated(said: str, tables: tuple[Table, ...], root: str) -> str:
    """What an engine says, with the names and paths that the statement had."""
    for table in tables:
        relation = relation_of(table)
        own: Callable[[str], str] = lambda name: f"`{name}`"  # noqa: E731
        full = ".".join(own(part) for part in (table.catalog, table.schema, table.name))
        for name in (f"`spark_catalog`.{relation.quoted}", relation.quoted, f"{relation.database}.{relation.name}"):
            said = said.replace(name, full)
        said = said.replace(table.location, full)
    return said.replace(f"{root}/volumes/", "/Volumes/").replace("file:/Volumes", "dbfs:/Volumes")
