"""Changes of tables that stay: columns, properties, comments, primary keys, names."""

from __future__ import annotations

import pyarrow as pa

from neon_lake_tests.workspace import commands as c
from neon_lake_tests.workspace import delta_log
from neon_lake_tests.workspace.data_types import catalog_text_of
from neon_lake_tests.workspace.engines import Engine, quoted, relation_of
from neon_lake_tests.workspace.metastore import Metastore, Table
from neon_lake_tests.workspace.sql_errors import SqlFailed, column_not_found, unsupported
from neon_lake_tests.workspace.translation import Scope


class Alterations:
    """What ALTER TABLE and COMMENT ON do. Every method may raise `SqlFailed` and `Refused`."""

    def __init__(self, metastore: Metastore, engine: Engine) -> None:
        self._metastore, self._engine = metastore, engine

    def alter(self, table: Table, action: c.Action, scope: Scope) -> None:
        """Change a table."""
        match action:
            case c.AddPrimaryKey():
                self._add_key(table, action.key)
            case c.DropConstraint():
                self._drop_key(table, action)
            case c.Rename():
                self._rename(table, scope.full(action.name))
            case c.ChangeColumn(nullable=False):
                self._set_not_null(table, action)
            case _:
                self._ensure_no_key_lost(table, action)
                self._engine.alter(relation_of(table), action)
                if isinstance(action, c.RenameColumn) and table.primary_key is not None:
                    name, columns = table.primary_key
                    columns = tuple(action.new if each.lower() == action.old.lower() else each for each in columns)
                    table.primary_key = (name, columns)

    def comment(self, command: c.Comment, scope: Scope) -> None:
        """Say what something is."""
        if command.what == "CATALOG":
            self._metastore.catalog(*command.name).comment = command.text
        elif command.what == "SCHEMA":
            self._metastore.schema(*command.name).comment = command.text
        elif command.what == "VOLUME":
            self._metastore.volume(*scope.full(command.name)).comment = command.text
        elif command.what == "TABLE":
            table = scope.table(command.name)
            self._engine.comment(relation_of(table), command.text)
            table.comment = command.text
        else:
            table = scope.table(command.name[:-1])
            action = c.ChangeColumn(name=command.name[-1], comment=command.text or "")
            self._engine.alter(relation_of(table), action)

    # --- primary keys, which Databricks notes and does not check

    @staticmethod
    def ensure_key(command: c.CreateTable) -> None:
        """Refuse a primary key of columns that are not there, or may be null."""
        if command.primary_key is None:
            return
        if command.query is not None or command.location is not None:
            raise unsupported("primary key in a statement without columns")
        declared = {column.name.lower(): column for column in command.columns}
        for name in command.primary_key.columns:
            if name.lower() not in declared:
                raise column_not_found(name)
            # of a key that is declared with its table, Databricks makes the columns NOT NULL by itself

    def named(self, table: Table, key: c.PrimaryKey) -> tuple[str, tuple[str, ...]]:
        """The constraint with a name, made up if need be."""
        return key.name or f"{table.name}_pk", key.columns

    def _add_key(self, table: Table, key: c.PrimaryKey) -> None:
        if table.primary_key is not None:
            said = f"Table `{table.full_name}` already has a primary key constraint: {table.primary_key[0]}."
            raise SqlFailed("UC_PRIMARY_KEY_ALREADY_EXISTS", said, "42889")
        nullable = {each["name"].lower(): each["nullable"] for each in delta_log.snapshot(table.location).fields}
        for name in key.columns:
            if name.lower() not in nullable:
                raise column_not_found(name)
        bad = [name for name in key.columns if nullable[name.lower()]]
        constraint = self.named(table, key)
        if bad:
            said = (
                f"Cannot create the primary key `{constraint[0]}` because its child column(s) "
                f"{', '.join(f'`{name}`' for name in bad)} is nullable. Please change the column nullability and retry."
            )
            raise SqlFailed("INVALID_PARAMETER_VALUE", said, "22023")
        table.primary_key = constraint

    def _drop_key(self, table: Table, action: c.DropConstraint) -> None:
        there = table.primary_key is not None and action.name in (None, table.primary_key[0])
        if not there and not action.if_exists:
            name = action.name or "PRIMARY KEY"
            said = f"Cannot drop nonexistent constraint {name} from table {table.full_name}."
            raise SqlFailed("DELTA_CONSTRAINT_DOES_NOT_EXIST", said, "42704")
        if there:
            table.primary_key = None

    @staticmethod
    def _ensure_no_key_lost(table: Table, action: c.Action) -> None:
        if table.primary_key is None:
            return
        gone: tuple[str, ...] = ()
        if isinstance(action, c.DropColumns):
            gone = action.names
        elif isinstance(action, c.ChangeColumn) and action.nullable:
            gone = (action.name,)
        held = {name.lower() for name in table.primary_key[1]}
        if any(name.lower() in held for name in gone):
            said = f"The columns of the primary key {table.primary_key[0]} cannot be changed so; drop it first."
            raise SqlFailed("INVALID_PARAMETER_VALUE", said, "22023")

    # --- columns and names

    def _set_not_null(self, table: Table, action: c.ChangeColumn) -> None:
        """Neither engine has it: a look at the rows, and a commit that only describes the table."""
        fields = delta_log.snapshot(table.location).fields
        changed = [each for each in fields if each["name"].lower() == action.name.lower()]
        if not changed:
            raise column_not_found(action.name)
        sql = f"SELECT count(*) AS n FROM {relation_of(table).quoted} WHERE {quoted(action.name)} IS NULL"
        if nulls := self._engine.run(sql)["n"][0].as_py():
            said = f"{nulls} rows in {table.full_name} violate the new NOT NULL constraint on {action.name}."
            raise SqlFailed("DELTA_NEW_NOT_NULL_VIOLATION", said, "23512")
        if changed[0]["nullable"]:
            changed[0]["nullable"] = False
            delta_log.change_metadata(table.location, "CHANGE COLUMN", delta_log.with_fields(fields))

    def _rename(self, table: Table, name: c.Name) -> None:
        catalog, schema, own = (part.lower() for part in name)
        self._metastore.schema(catalog, schema)
        if self._metastore.find_table(catalog, schema, own) is not None:
            said = f"Cannot create table or view `{'`.`'.join(name)}` because it already exists."
            raise SqlFailed("TABLE_OR_VIEW_ALREADY_EXISTS", said, "42P07")
        self._engine.detach(relation_of(table))
        self._metastore.remove_table(table)
        table.catalog, table.schema, table.name = catalog, schema, own
        self._engine.attach(relation_of(table))
        self._metastore.add_table(table)

    # --- what is shown

    def described(self, table: Table) -> pa.Table:
        """Columns with their types and comments."""
        fields = delta_log.snapshot(table.location).fields
        return pa.table(
            {
                "col_name": pa.array([each["name"] for each in fields], pa.string()),
                "data_type": pa.array([catalog_text_of(each["type"]) for each in fields], pa.string()),
                "comment": pa.array([each["metadata"].get("comment") for each in fields], pa.string()),
            }
        )

    def shown(self, table: Table, key: str | None) -> pa.Table:
        """Properties, or one of them."""
        found = dict(self._engine.properties(relation_of(table)))
        if key is not None:
            found = {key: found.get(key, f"Table {table.full_name} does not have property: {key}")}
        rows = sorted(found.items())
        return pa.table(
            {
                "key": pa.array([name for name, _ in rows], pa.string()),
                "value": pa.array([value for _, value in rows], pa.string()),
            }
        )
