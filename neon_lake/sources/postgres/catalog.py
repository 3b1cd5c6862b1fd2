"""What the catalogue says of tables, columns and types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from neon_lake.config import Table
from neon_lake.imprint import Imprint
from neon_lake.schema import Column, Relation, ReplicaIdentity, TableName
from neon_lake.sources.postgres.connection import Connection
from neon_lake.sources.postgres.messages import RelationMessage
from neon_lake.sources.postgres.overrides import numeric_overrides
from neon_lake.sources.postgres.queries import query
from neon_lake.sources.postgres.rows import Layout
from neon_lake.sources.postgres.type_map import SqlType, arrow_type

GENERATED_SINCE = 180000
"""The server version (as in server_version_num) from which on stored generated columns can be published."""


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """A row of pg_class, as far as it decides whether and how a table can be replicated.

    `partitions` has, for each replica identity that partitions of the table have, one of them, as SQL writes its name.
    """

    oid: int
    table: TableName
    kind: str
    persistence: str
    identity: ReplicaIdentity
    is_partition: bool
    comment: str | None
    of_extension: bool
    partitions: Mapping[ReplicaIdentity, str]


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """A row of pg_attribute; `key` says that the merge key has it."""

    name: str
    type_oid: int
    modifier: int
    type_name: str
    nullable: bool
    has_default: bool
    key: bool
    comment: str | None


@dataclass(frozen=True, kw_only=True)
class TypeFacts:
    """A row of pg_type. `base` is as in `SqlType`; oids are 0 where there is none.

    `output` is the function that makes its text, None when SQL cannot call it.
    """

    base: str
    domain_of: int
    modifier: int
    element: int
    delimiter: str
    output: tuple[str, str] | None


def tables(connection: Connection) -> list[TableFacts]:
    """Every table, view and foreign table outside the system's schemas, by name."""
    return [
        TableFacts(
            oid=oid,
            table=TableName(schema, name),
            kind=kind,
            persistence=persistence,
            identity=ReplicaIdentity(identity),
            is_partition=is_partition,
            comment=comment,
            of_extension=of_extension,
            partitions={ReplicaIdentity(key): leaf for key, leaf in (partitions or {}).items()},
        )
        for (
            oid,
            schema,
            name,
            kind,
            persistence,
            identity,
            is_partition,
            comment,
            of_extension,
            partitions,
        ) in connection.execute(query("tables"))
    ]


def columns(connection: Connection, oids: Sequence[int]) -> dict[int, list[ColumnFacts]]:
    """The columns that are published, by table oid."""
    generated = connection.info.server_version >= GENERATED_SINCE
    found: dict[int, list[ColumnFacts]] = {oid: [] for oid in oids}
    arguments: dict[str, Any] = {"tables": list(oids), "generated": generated}
    for oid, name, type_oid, modifier, type_name, not_null, has_default, key, comment in connection.execute(
        query("columns"), arguments
    ):
        found[oid].append(
            ColumnFacts(
                name=name,
                type_oid=type_oid,
                modifier=modifier,
                type_name=type_name,
                nullable=not not_null,
                has_default=has_default,
                key=key,
                comment=comment,
            )
        )
    return found


def types(connection: Connection, oids: Iterable[int]) -> dict[int, TypeFacts]:
    """The types `oids`, and those that they are made of. A type that was dropped is not there."""
    rows = connection.execute(query("types"), {"types": sorted(set(oids))})
    return {
        oid: TypeFacts(
            base=base,
            domain_of=domain_of,
            modifier=modifier,
            element=element,
            delimiter=delimiter,
            output=(schema, function) if callable_ else None,
        )
        for oid, base, domain_of, modifier, element, delimiter, schema, function, callable_ in rows
    }


def imprints(connection: Connection, oids: Sequence[int]) -> dict[int, Imprint]:
    """What the catalogue shows of changes that are not sent, by table oid."""
    rows = connection.execute(query("imprints"), {"tables": list(oids)})
    return {oid: Imprint.from_json(facts) for oid, facts in rows}


def sql_type(name: str, oid: int, modifier: int, known: Mapping[int, TypeFacts]) -> SqlType:
    """Resolve a type's domains, down to its elements. A type that is not known any more is text."""
    facts = known.get(oid)
    while facts is not None and facts.domain_of:
        modifier = facts.modifier
        facts = known.get(facts.domain_of)
    if facts is None:
        return SqlType(name=name, base="")
    element = sql_type("", facts.element, modifier, known) if facts.element else None
    return SqlType(name=name, base=facts.base, modifier=modifier, element=element, delimiter=facts.delimiter)


def landing(of_type: SqlType, *, key: bool, override: pa.DataType | None = None) -> SqlType:
    """The type as which a column's values land.

    An array or a map in a key is text: nothing joins or merges by them. `override` is what the pipeline file asks for;
    it is for numerics alone.
    """
    if override is not None and of_type.base == "numeric":
        return replace(of_type, override=override)
    return SqlType(name=of_type.name, base="") if key and pa.types.is_nested(arrow_type(of_type)) else of_type


def column(facts: ColumnFacts, of_type: SqlType, override: pa.DataType | None = None) -> Column:
    """The column of a relation."""
    of_type = landing(of_type, key=facts.key, override=override)
    return Column(
        name=facts.name,
        type=of_type.name,
        arrow=arrow_type(of_type),
        key=facts.key,
        nullable=facts.nullable,
        has_default=facts.has_default,
        comment=facts.comment,
    )


def layout(connection: Connection, message: RelationMessage, line: Table) -> Layout:
    """Join a Relation message with what the catalogue knows now of its types and columns, and the pipeline file asks.

    The message says what the columns were when the rows were written; the catalogue may be ahead of it.
    """
    oids = [column.type_oid for column in message.columns]
    known = types(connection, oids)
    arguments = {"types": oids, "modifiers": [column.modifier for column in message.columns]}
    names = [name for (name,) in connection.execute(query("type_names"), arguments)]
    facts = {column.name: column for column in columns(connection, [message.oid])[message.oid]}
    # With full identity the message marks every column; the key is then the primary key.
    overrides = numeric_overrides(line)
    from_catalogue = message.identity is ReplicaIdentity.FULL
    wanted: list[Column] = []
    sql_types: list[SqlType | None] = []
    for wire, name in zip(message.columns, names, strict=True):
        if wire.name in line.exclude:
            sql_types.append(None)
            continue
        now = facts.get(wire.name)
        key = now is not None and now.key if from_catalogue else wire.identity
        of_type = sql_type(name, wire.type_oid, wire.modifier, known)
        of_type = landing(of_type, key=key, override=overrides.get(wire.name))
        sql_types.append(of_type)
        wanted.append(
            Column(
                name=wire.name,
                type=name,
                arrow=arrow_type(of_type),
                key=key,
                nullable=now is None or now.nullable,
                has_default=now is not None and now.has_default,
            )
        )
    relation = Relation(table=TableName(message.schema, message.name), columns=tuple(wanted), identity=message.identity)
    identity = tuple(column.identity for column in message.columns)
    return Layout(relation=relation, types=tuple(sql_types), identity=identity)
