"""Reads commands. What is not one of them is a query or a change of rows, and is left to the engine.

Source: https://docs.databricks.com/sql/language-manual
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import sqlglot
from sqlglot.errors import SqlglotError

from neon_lake_tests.workspace import commands as c
from neon_lake_tests.workspace.sql_errors import SqlFailed, unsupported
from neon_lake_tests.workspace.words import Reading, Word, words_of

# sqlglot says in its log which statements it passes on as they are.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

_ENTITIES: Final = ("CATALOG", "SCHEMA", "DATABASE", "VOLUME")


def command_of(sql: str, words: list[Word]) -> c.Command | None:
    """The command that a statement is, or None for queries and changes of rows.

    Raises `SqlFailed` for what is neither: a query is one that sqlglot can read as Databricks SQL. Commands are not
    given to it: of DESCRIBE DETAIL, DESCRIBE HISTORY … LIMIT, RESTORE and COMMENT … IS NULL it knows nothing, and of
    many others only the first word.
    """
    if words and words[-1].says(";"):
        words = words[:-1]
    reading = Reading(sql, words)
    for keyword, read in _COMMANDS.items():
        if reading.take(keyword):
            command = read(reading)
            reading.ensure_end()
            return command
    _ensure_query(sql, reading)
    return None


def _ensure_query(sql: str, reading: Reading) -> None:
    if reading.next is None:
        raise reading.syntax_error()
    try:
        found = [each for each in sqlglot.parse(sql, dialect="databricks") if each is not None]
    except SqlglotError as exc:
        said = str(exc).splitlines()[0].replace("\x1b[4m", "").replace("\x1b[0m", "")
        raise SqlFailed("PARSE_SYNTAX_ERROR", f"Syntax error: {said}", "42601") from exc
    if len(found) != 1:
        raise SqlFailed("PARSE_SYNTAX_ERROR", "Syntax error at or near ';': extra input.", "42601")
    if isinstance(found[0], sqlglot.exp.Command):
        raise unsupported(f"statement {reading.sql[: reading.next.stop].strip()}")


def _create(reading: Reading) -> c.Command:
    replace = reading.take("OR", "REPLACE")
    for what in _ENTITIES:
        if not replace and reading.take(what):
            absent = reading.take("IF", "NOT", "EXISTS")
            name = reading.name()
            comment = reading.text() if reading.take("COMMENT") else None
            kind = "SCHEMA" if what == "DATABASE" else what
            return c.Create(what=kind, name=name, if_not_exists=absent, comment=comment)
    external = reading.take("EXTERNAL")
    reading.expect("TABLE")
    absent = reading.take("IF", "NOT", "EXISTS")
    name = reading.name()
    columns, key = _columns(reading) if reading.sees("(") else ((), None)
    clauses: dict[str, object] = {}
    while reading.next is not None and not reading.sees("AS") and not reading.sees("SELECT"):
        _table_clause(reading, clauses)
    if external and "location" not in clauses:
        raise reading.syntax_error()
    query = None
    if reading.take("AS") or reading.sees("SELECT"):
        query = reading.rest()
        _ensure_query(query, Reading(query, words_of(query)))
        if columns:
            raise SqlFailed("PARSE_SYNTAX_ERROR", "Schema may not be specified in a CTAS statement.", "42601")
    return c.CreateTable(
        name=name,
        if_not_exists=absent,
        or_replace=replace,
        columns=columns,
        primary_key=key,
        query=query,
        **clauses,  # type: ignore[arg-type]
    )


def _table_clause(reading: Reading, clauses: dict[str, object]) -> None:
    word = reading.next
    if reading.take("USING"):
        reading.expect("DELTA")
        name: str = "using"
        value: object = None
    elif reading.take("CLUSTER", "BY"):
        name, value = "cluster_by", () if reading.take("AUTO") or reading.take("NONE") else reading.identifiers()
    elif reading.take("COMMENT"):
        name, value = "comment", reading.text()
    elif reading.take("TBLPROPERTIES"):
        name, value = "properties", _properties(reading)
    elif reading.take("LOCATION"):
        name, value = "location", reading.text()
    else:
        raise reading.syntax_error()
    if name in clauses:
        assert word is not None
        raise SqlFailed("DUPLICATE_CLAUSES", f"Found duplicate clauses: {word.text.upper()}.", "42614")
    if name != "using":
        clauses[name] = value


def _columns(reading: Reading) -> tuple[tuple[c.ColumnSpec, ...], c.PrimaryKey | None]:
    reading.expect("(")
    columns: list[c.ColumnSpec] = []
    key: c.PrimaryKey | None = None
    while True:
        if reading.sees("CONSTRAINT") or reading.sees("PRIMARY", "KEY"):
            key = _primary_key(reading)
        else:
            column, own = _column(reading)
            columns.append(column)
            key = own or key
        if not reading.take(","):
            break
    reading.expect(")")
    return tuple(columns), key


def _column(reading: Reading) -> tuple[c.ColumnSpec, c.PrimaryKey | None]:
    name = reading.identifier()
    kind = reading.written_until("NOT", "COMMENT", ",", ")", "PRIMARY", "CONSTRAINT", "GENERATED", "DEFAULT")
    nullable, comment, key = True, None, None
    while True:
        if reading.take("NOT", "NULL"):
            nullable = False
        elif reading.take("COMMENT"):
            comment = reading.text()
        elif reading.take("PRIMARY", "KEY"):
            key = c.PrimaryKey(name=None, columns=(name,))
        elif reading.sees("GENERATED") or reading.sees("DEFAULT"):
            raise unsupported("generated column and no default")
        else:
            break
    return c.ColumnSpec(name=name, kind=kind, nullable=nullable, comment=comment), key


def _primary_key(reading: Reading) -> c.PrimaryKey:
    name = reading.identifier() if reading.take("CONSTRAINT") else None
    reading.expect("PRIMARY", "KEY")
    columns = reading.identifiers()
    while any(reading.take(*words) for words in (("NOT", "ENFORCED"), ("NORELY",), ("RELY",), ("DEFERRABLE",))):
        pass
    return c.PrimaryKey(name=name, columns=columns)


def _properties(reading: Reading) -> Mapping[str, str]:
    reading.expect("(")
    found: dict[str, str] = {}
    while True:
        key = reading.text() if reading.next is not None and reading.next.kind == "text" else ".".join(reading.name())
        reading.take("=")
        text = reading.next is not None and reading.next.kind == "text"
        found[key] = reading.text() if text else reading.advance().text
        if not reading.take(","):
            break
    reading.expect(")")
    return found


def _drop(reading: Reading) -> c.Command:
    for what in (*_ENTITIES, "TABLE"):
        if reading.take(what):
            if_exists = reading.take("IF", "EXISTS")
            name = reading.name()
            cascade = reading.take("CASCADE")
            reading.take("RESTRICT")
            kind = "SCHEMA" if what == "DATABASE" else what
            return c.Drop(what=kind, name=name, if_exists=if_exists, cascade=cascade)
    raise reading.syntax_error()


def _alter(reading: Reading) -> c.Command:
    reading.expect("TABLE")
    return c.AlterTable(name=reading.name(), action=_action(reading))


def _action(reading: Reading) -> c.Action:
    for keyword, read in _ACTIONS.items():
        if reading.take(keyword):
            return read(reading)
    raise reading.syntax_error()


def _add(reading: Reading) -> c.Action:
    if reading.sees("CONSTRAINT") or reading.sees("PRIMARY", "KEY"):
        return c.AddPrimaryKey(key=_primary_key(reading))
    if not reading.take("COLUMNS"):
        reading.expect("COLUMN")
    if not reading.sees("("):
        return c.AddColumns(columns=(_column(reading)[0],))
    return c.AddColumns(columns=_columns(reading)[0])


def _drop_part(reading: Reading) -> c.Action:
    if reading.take("CONSTRAINT"):
        if_exists = reading.take("IF", "EXISTS")
        name: str | None = reading.identifier()
    elif reading.take("PRIMARY", "KEY"):
        if_exists, name = reading.take("IF", "EXISTS"), None
    else:
        if not reading.take("COLUMNS"):
            reading.expect("COLUMN")
        if_exists = reading.take("IF", "EXISTS")
        names = reading.identifiers() if reading.sees("(") else (reading.identifier(),)
        return c.DropColumns(names=names, if_exists=if_exists)
    reading.take("CASCADE")
    reading.take("RESTRICT")
    return c.DropConstraint(name=name, if_exists=if_exists)


def _rename(reading: Reading) -> c.Action:
    if reading.take("COLUMN"):
        old = reading.identifier()
        reading.expect("TO")
        return c.RenameColumn(old=old, new=reading.identifier())
    reading.expect("TO")
    return c.Rename(name=reading.name())


def _change_column(reading: Reading) -> c.Action:
    reading.take("COLUMN")
    name = reading.identifier()
    if reading.take("SET", "NOT", "NULL"):
        return c.ChangeColumn(name=name, nullable=False)
    if reading.take("DROP", "NOT", "NULL"):
        return c.ChangeColumn(name=name, nullable=True)
    if reading.take("COMMENT"):
        return c.ChangeColumn(name=name, comment=reading.text())
    reading.expect("TYPE")
    return c.ChangeColumn(name=name, kind=reading.rest())


def _set(reading: Reading) -> c.Action:
    reading.expect("TBLPROPERTIES")
    return c.SetProperties(values=_properties(reading))


def _unset(reading: Reading) -> c.Action:
    reading.expect("TBLPROPERTIES")
    reading.take("IF", "EXISTS")
    reading.expect("(")
    names = [reading.text()]
    while reading.take(","):
        names.append(reading.text())
    reading.expect(")")
    return c.SetProperties(gone=tuple(names))


def _cluster(reading: Reading) -> c.Action:
    reading.expect("BY")
    return c.ClusterBy(columns=() if reading.take("NONE") or reading.take("AUTO") else reading.identifiers())


_ACTIONS: Final[Mapping[str, Callable[[Reading], c.Action]]] = {
    "ADD": _add,
    "DROP": _drop_part,
    "RENAME": _rename,
    "ALTER": _change_column,
    "CHANGE": _change_column,
    "SET": _set,
    "UNSET": _unset,
    "CLUSTER": _cluster,
}


def _comment(reading: Reading) -> c.Command:
    reading.expect("ON")
    for what in (*_ENTITIES, "TABLE", "COLUMN"):
        if reading.take(what):
            name = reading.name()
            reading.expect("IS")
            text = None if reading.take("NULL") else reading.text()
            return c.Comment(what="SCHEMA" if what == "DATABASE" else what, name=name, text=text)
    raise reading.syntax_error()


def _describe(reading: Reading) -> c.Command:
    if reading.take("HISTORY"):
        name = reading.name()
        return c.History(name=name, limit=reading.number() if reading.take("LIMIT") else None)
    if reading.take("DETAIL"):
        return c.Detail(name=reading.name())
    reading.take("TABLE")
    reading.take("EXTENDED")
    return c.Describe(name=reading.name())


def _restore(reading: Reading) -> c.Command:
    reading.take("TABLE")
    name = reading.name()
    reading.expect("TO", "VERSION", "AS", "OF")
    return c.Restore(name=name, version=reading.number())


def _optimize(reading: Reading) -> c.Command:
    name = reading.name()
    reading.take("FULL")
    return c.Optimize(name=name)


def _msck(reading: Reading) -> c.Command:
    reading.expect("REPAIR", "TABLE")
    name = reading.name()
    reading.expect("SYNC", "METADATA")
    return c.Refresh(name=name)


def _vacuum(reading: Reading) -> c.Command:
    name = reading.name()
    hours = None
    if reading.take("RETAIN"):
        hours = reading.number()
        reading.expect("HOURS")
    return c.Vacuum(name=name, hours=hours)


def _show(reading: Reading) -> c.Command:
    if reading.take("TABLES"):
        if not reading.take("IN"):
            reading.expect("FROM")
        return c.ShowTables(schema=reading.name())
    reading.expect("TBLPROPERTIES")
    name, key = reading.name(), None
    if reading.take("("):
        key = reading.text()
        reading.expect(")")
    return c.ShowProperties(name=name, key=key)


def _truncate(reading: Reading) -> c.Command:
    reading.expect("TABLE")
    return c.Truncate(name=reading.name())


_COMMANDS: Final[Mapping[str, Callable[[Reading], c.Command]]] = {
    "CREATE": _create,
    "DROP": _drop,
    "ALTER": _alter,
    "COMMENT": _comment,
    "DESCRIBE": _describe,
    "DESC": _describe,
    "RESTORE": _restore,
    "MSCK": _msck,
    "OPTIMIZE": _optimize,
    "VACUUM": _vacuum,
    "SHOW": _show,
    "TRUNCATE": _truncate,
}
