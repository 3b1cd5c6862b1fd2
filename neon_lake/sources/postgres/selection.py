"""Which tables of the database are the pipeline's, and which of those cannot be replicated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from neon_lake.change import RESERVED
from neon_lake.config import Deletes, Table, WriteMode
from neon_lake.errors import TableRefused, listed
from neon_lake.schema import Relation, ReplicaIdentity, TableName
from neon_lake.sources.base import Survey
from neon_lake.sources.postgres import catalog
from neon_lake.sources.postgres.catalog import ColumnFacts, TableFacts, TypeFacts
from neon_lake.sources.postgres.connection import Connection
from neon_lake.sources.postgres.overrides import check_overrides, numeric_overrides

_KINDS: Final = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


def line_of(tables: Sequence[Table], name: TableName) -> Table | None:
    """What the pipeline says of a table: the last line that matches, or None when it does not want the table."""
    line = next((line for line in reversed(tables) if line.matches(name)), None)
    return None if line is None or line.skip else line


def survey(connection: Connection, tables: Sequence[Table]) -> Survey:
    """The pipeline's tables as they are now, by name, and what is wrong with those that cannot be replicated."""
    refused: dict[TableName, str] = {}
    present = {facts.table: facts for facts in catalog.tables(connection)}
    chosen = list(_chosen(tables, present, refused))
    columns = catalog.columns(connection, [facts.oid for facts, _ in chosen])
    types = catalog.types(connection, {column.type_oid for of in columns.values() for column in of})
    imprints = catalog.imprints(connection, [facts.oid for facts, _ in chosen])
    found = []
    for facts, line in chosen:
        try:
            relation = _relation(facts, line, columns[facts.oid], types)
            found.append(replace(relation, imprint=imprints.get(facts.oid)))
        except TableRefused as problem:
            refused[facts.table] = str(problem)
    return Survey(relations=tuple(found), refused=refused)


def _chosen(
    tables: Sequence[Table], present: dict[TableName, TableFacts], refused: dict[TableName, str]
) -> Iterator[tuple[TableFacts, Table]]:
    """The tables that a line names, and those that match a pattern and can be replicated in principle."""
    named = [TableName.parse(line.name) for line in tables if not line.is_pattern and not line.skip]
    for name in dict.fromkeys(named):
        if name not in present:
            refused[name] = f"The table {name} does not exist at the source; correct or remove its line."
        elif obstacle := _obstacle(present[name]):
            refused[name] = f"The table {name} cannot be replicated: {obstacle}."
    for name, facts in present.items():
        line = line_of(tables, name)
        if line is not None and not _obstacle(facts) and (name in named or not facts.of_extension):
            yield facts, line


def _obstacle(facts: TableFacts) -> str | None:
    """Why no rows of a table come through a publication."""
    if facts.kind in _KINDS:
        return f"it is {_KINDS[facts.kind]}; name the tables behind it instead"
    if facts.persistence == "u":
        return "it is unlogged, so that its changes are not in the write-ahead log; run ALTER TABLE … SET LOGGED"
    if facts.is_partition:
        return "it is a partition; name its partitioned table instead"
    return None


def _unlike(facts: TableFacts, *, keyless: bool) -> str | None:
    """A partition whose rows are not logged with what the table's identity promises; None when there is none.

    The identity of a table is not handed down to its partitions; the index of its primary key is.
    """
    enough = {facts.identity, ReplicaIdentity.FULL}
    if facts.identity is ReplicaIdentity.FULL and not keyless:
        enough.add(ReplicaIdentity.DEFAULT)
    return next((leaf for identity, leaf in facts.partitions.items() if identity not in enough), None)


def _relation(facts: TableFacts, line: Table, columns: Sequence[ColumnFacts], types: dict[int, TypeFacts]) -> Relation:
    """The relation of a table. Raises `TableRefused` when its changes cannot be followed, or names are taken."""
    name, left_out = facts.table, frozenset(line.exclude)
    append = line.mode is WriteMode.APPEND
    if facts.identity is ReplicaIdentity.NOTHING and not append:
        raise TableRefused(
            f"The table {name} has REPLICA IDENTITY NOTHING, so that its updates and deletes cannot be followed; "
            f"run ALTER TABLE {name.sql} REPLICA IDENTITY DEFAULT, or take its inserts alone with mode: append, "
            "or leave it out with skip: true."
        )
    if facts.identity is ReplicaIdentity.NOTHING:
        columns = [replace(column, key=False) for column in columns]
    key = [column.name for column in columns if column.key]
    sends_all = bool(key) or facts.identity is ReplicaIdentity.FULL
    if not sends_all and not append:
        raise TableRefused(
            f"The table {name} has no key; add a primary key, or run "
            f"ALTER TABLE {name.sql} REPLICA IDENTITY USING INDEX with a unique index over NOT NULL columns, "
            f"or ALTER TABLE {name.sql} REPLICA IDENTITY FULL, or take its inserts alone with mode: append, "
            "or leave it out with skip: true."
        )
    if not key and line.deletes is Deletes.SOFT:
        raise TableRefused(
            f"The table {name} has no key, so that its deletes cannot be soft; add a primary key, or correct its line."
        )
    if sends_all and (other := _unlike(facts, keyless=not key)):
        raise TableRefused(
            f"The partition {other} has another replica identity than its table {name}, so that its updates and "
            f"deletes cannot be followed; run ALTER TABLE {other} REPLICA IDENTITY FULL."
        )
    unknown = sorted(left_out - {column.name for column in columns})
    if unknown and not line.is_pattern:
        raise TableRefused(f"The table {name} has no column {listed(unknown)} to exclude; correct its line.")
    if left_out.intersection(key):
        raise TableRefused(
            f"The column {listed(sorted(left_out.intersection(key)))} of {name} is part of its key "
            "and cannot be excluded."
        )
    wanted = [column for column in columns if column.name not in left_out]
    taken = [column.name for column in wanted if column.name in RESERVED]
    if taken:
        raise TableRefused(
            f"The table {name} has a column {listed(taken)}, a name that the lake uses itself; "
            "rename the column or exclude it."
        )
    of_type = {c.name: catalog.sql_type(c.type_name, c.type_oid, c.modifier, types) for c in columns}
    check_overrides(name, line, of_type, key)
    overrides = numeric_overrides(line)
    return Relation(
        table=name,
        columns=tuple(catalog.column(c, of_type[c.name], overrides.get(c.name)) for c in wanted),
        identity=facts.identity,
        comment=facts.comment,
    )
