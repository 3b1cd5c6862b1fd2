"""Carries statements out: commands on the metastore and on tables here, queries and changes of rows by the engine."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Final

import pyarrow as pa

from neon_lake_tests.workspace import commands as c
from neon_lake_tests.workspace import delta_log
from neon_lake_tests.workspace.alterations import Alterations
from neon_lake_tests.workspace.engines import Engine, NewTable, database_of, relation_of
from neon_lake_tests.workspace.grants import Grants
from neon_lake_tests.workspace.metastore import Metastore, Table
from neon_lake_tests.workspace.parsing import command_of
from neon_lake_tests.workspace.refusals import Refused
from neon_lake_tests.workspace.row_counts import counts_of
from neon_lake_tests.workspace.sql_errors import SqlFailed
from neon_lake_tests.workspace.translation import Scope, Translated, translated, untranslated
from neon_lake_tests.workspace.words import Word, words_of

_NOTHING: Final = pa.table({})


class Execution:
    """The SQL of a workspace. `run` may be called from as many threads as the engine has workers."""

    def __init__(self, metastore: Metastore, engine: Engine, grants: Grants) -> None:
        self.engine = engine
        self._metastore, self._grants = metastore, grants
        self._alterations = Alterations(metastore, engine)
        # of two statements that make one table, one finds that it is there
        self._making = threading.RLock()

    def run(self, sql: str, scope: Scope) -> pa.Table:
        """The rows of a statement, of which some have no columns either. Raises `SqlFailed`."""
        words = words_of(sql)
        command = command_of(sql, words)
        done: Translated | None = None
        try:
            if command is not None:
                return self._command(command, scope)
            done = translated(sql, scope)
            return self._rows(words, done)
        except SqlFailed as exc:
            tables = done.tables if done else tuple(self._metastore.tables().values())
            exc.args = (untranslated(str(exc), tables, str(self._metastore.root)),)
            raise
        except Refused as refusal:
            code = {404: "NOT_FOUND", 409: "ALREADY_EXISTS"}.get(refusal.status, "BAD_REQUEST")
            name = (
                str(refusal.code) if refusal.status != 404 else str(refusal.code).replace("DOES_NOT_EXIST", "NOT_FOUND")
            )
            raise SqlFailed(name, refusal.message, "42704", code=code) from refusal

    def _rows(self, words: list[Word], done: Translated) -> pa.Table:
        verb = next((word.text.upper() for word in words if word.kind == "word"), "")
        if verb == "WITH" and any(word.says("MERGE") for word in words):
            verb = "MERGE"
        changes = verb in ("INSERT", "MERGE", "UPDATE", "DELETE")
        for table in done.tables[1:] if changes else done.tables:
            self._grants.ensure_sql("Table", table.full_name, "SELECT")
        if not changes:
            return self.engine.run(done.sql)
        if not done.tables:
            raise SqlFailed("TABLE_OR_VIEW_NOT_FOUND", "The statement names no table of the workspace.", "42P01")
        target = done.tables[0]
        self._grants.ensure_sql("Table", target.full_name, "MODIFY", *(() if verb == "INSERT" else ("SELECT",)))
        before = delta_log.version_of(target.location)
        given = self.engine.change(relation_of(target), done.sql)
        return counts_of(verb, given, target.location, before)

    # --- commands

    def _command(self, command: c.Command, scope: Scope) -> pa.Table:
        match command:
            case c.Create():
                self._create(command)
            case c.Drop():
                self._drop(command, scope)
            case c.CreateTable():
                return self._create_table(command, scope)
            case c.AlterTable():
                self._grants.ensure_sql("Table", ".".join(scope.full(command.name)), "MODIFY")
                self._alterations.alter(scope.table(command.name), command.action, scope)
            case c.Comment():
                self._alterations.comment(command, scope)
            case _:
                return self._look(command, scope)
        return _NOTHING

    def _look(self, command: c.Command, scope: Scope) -> pa.Table:  # noqa: PLR0911 - one return per command
        if isinstance(command, c.ShowTables):
            found = self._metastore.schema(*command.schema).tables
            rows = sorted(found)
            return pa.table(
                {"database": [command.schema[-1]] * len(rows), "tableName": rows, "isTemporary": [False] * len(rows)},
                schema=pa.schema({"database": pa.string(), "tableName": pa.string(), "isTemporary": pa.bool_()}),
            )
        assert not isinstance(command, c.Create | c.Drop | c.CreateTable | c.AlterTable | c.Comment)
        table = scope.table(command.name)
        relation = relation_of(table)
        match command:
            case c.History():
                return self.engine.history(relation, command.limit)
            case c.Detail():
                rows = self.engine.detail(relation)
                place = rows.schema.get_field_index("name")
                return rows.set_column(place, "name", pa.array([table.full_name]))
            case c.Describe():
                return self._alterations.described(table)
            case c.Restore():
                return self.engine.restore(relation, command.version)
            case c.Optimize():
                return self.engine.optimize(relation)
            case c.Refresh():
                # tables are described as their log has them, always
                return pa.table({})
            case c.Vacuum():
                if command.hours is not None and command.hours < 168:
                    said = "Are you sure you would like to vacuum files with such a low retention period?"
                    raise SqlFailed("DELTA_VACUUM_RETENTION_PERIOD_TOO_SHORT", said, "22003")
                return self.engine.vacuum(relation, command.hours)
            case c.ShowProperties():
                return self._alterations.shown(table, command.key)
            case c.Truncate():
                return pa.table({"num_affected_rows": pa.array([self.engine.truncate(relation)], pa.int64())})

    # --- what comes and goes

    def _create(self, command: c.Create) -> None:
        parts = {"CATALOG": 1, "SCHEMA": 2, "VOLUME": 3}[command.what]
        if len(command.name) != parts:
            raise SqlFailed("PARSE_SYNTAX_ERROR", f"A {command.what} has a name of {parts} parts.", "42601")
        if parts > 1:
            above = ".".join(command.name[:-1])
            self._grants.ensure_sql(["", "Catalog", "Schema"][parts - 1], above, f"CREATE_{command.what}")
        try:
            if command.what == "CATALOG":
                self._metastore.create_catalog(*command.name, comment=command.comment)
            elif command.what == "SCHEMA":
                self._metastore.create_schema(*command.name, comment=command.comment)
            else:
                self._metastore.create_volume(*command.name, comment=command.comment)
        except Refused as refusal:
            if not (command.if_not_exists and "ALREADY_EXISTS" in str(refusal.code)):
                raise

    def _drop(self, command: c.Drop, scope: Scope) -> None:
        try:
            if command.what == "CATALOG":
                self.drop_catalog(command.name[0], force=command.cascade)
            elif command.what == "SCHEMA":
                catalog, schema = command.name if len(command.name) == 2 else (str(scope.catalog), command.name[0])
                self.drop_schema(catalog, schema, force=command.cascade)
            elif command.what == "VOLUME":
                self.drop_volume(*scope.full(command.name))
            else:
                self.drop_table(scope.table(command.name))
        except Refused as refusal:
            if not (command.if_exists and refusal.status == 404):
                raise
        except SqlFailed as exc:
            if not (command.if_exists and exc.error_class == "TABLE_OR_VIEW_NOT_FOUND"):
                raise

    def drop_table(self, table: Table) -> None:
        """A table that goes; the files of one that is the workspace's own go with it."""
        self.engine.detach(relation_of(table))
        self._metastore.remove_table(table)
        if not table.external:
            shutil.rmtree(table.location, ignore_errors=True)

    def drop_volume(self, catalog: str, schema: str, name: str) -> None:
        """A volume that goes, with its files."""
        shutil.rmtree(self._metastore.drop_volume(catalog, schema, name).folder, ignore_errors=True)

    def drop_schema(self, catalog: str, name: str, *, force: bool) -> None:
        """A schema that goes, with all that is in it."""
        schema = self._metastore.schema(catalog, name)
        tables = list(schema.tables.values())
        self._metastore.drop_schema(catalog, name, force=force)
        for table in tables:
            self.engine.detach(relation_of(table))
        self.engine.drop_database(database_of(schema.catalog, schema.name))
        for kind in ("tables", "volumes"):
            shutil.rmtree(Path(self._metastore.root, kind, schema.catalog, schema.name), ignore_errors=True)

    def drop_catalog(self, name: str, *, force: bool) -> None:
        """A catalog that goes, with all that is in it."""
        catalog = self._metastore.catalog(name)
        if force:
            for schema in list(catalog.schemas.values()):
                self.drop_schema(name, schema.name, force=True)
        self._metastore.drop_catalog(name, force=force)

    def _create_table(self, command: c.CreateTable, scope: Scope) -> pa.Table:
        name = scope.full(command.name)
        self._metastore.schema(*name[:2])
        with self._making:
            there = self._metastore.find_table(*name)
            if there is not None and command.if_not_exists:
                return _NOTHING
            if there is not None and not command.or_replace:
                said = f"Cannot create table or view `{'`.`'.join(name)}` because it already exists."
                raise SqlFailed("TABLE_OR_VIEW_ALREADY_EXISTS", said, "42P07")
            self._grants.ensure_sql("Schema", ".".join(name[:2]), "CREATE_TABLE")
            if command.location is not None:
                return self._register(command, name)
            return self._make(command, name, there, scope)

    def _make(self, command: c.CreateTable, name: c.Name, there: Table | None, scope: Scope) -> pa.Table:
        self._alterations.ensure_key(command)
        query = None
        if command.query is not None:
            done = translated(command.query, scope)
            for table in done.tables:
                self._grants.ensure_sql("Table", table.full_name, "SELECT")
            query = done.sql
        if not command.columns and query is None:
            raise SqlFailed("DELTA_SCHEMA_NOT_PROVIDED", "Table schema is not provided.", "42908")
        catalog, schema, own = (part.lower() for part in name)
        location = there.location if there else self._metastore.place(*name[:2])
        table = Table(catalog=catalog, schema=schema, name=own, location=location, comment=command.comment)
        if there is not None:
            table.id, table.created, table.external = there.id, there.created, there.external
        if command.primary_key is not None:
            table.primary_key = self._alterations.named(table, command.primary_key)
        new = NewTable(
            columns=command.columns,
            query=query,
            cluster_by=command.cluster_by,
            comment=command.comment,
            properties=command.properties,
        )
        relation = relation_of(table)
        rows = self.engine.create(relation, new)
        if there is None:
            self.engine.attach(relation)
        self._metastore.add_table(table)
        if command.query is None:
            return _NOTHING
        return pa.table({"num_affected_rows": pa.array([rows]), "num_inserted_rows": pa.array([rows])})

    def _register(self, command: c.CreateTable, name: c.Name) -> pa.Table:
        assert command.location is not None
        catalog, schema, own = (part.lower() for part in name)
        location = command.location.removeprefix("file://").rstrip("/")
        table = Table(
            catalog=catalog, schema=schema, name=own, location=location, external=True, comment=command.comment
        )
        relation = relation_of(table)
        if not delta_log.exists(location):
            if not command.columns:
                said = f"The schema is not specified for an external table at {location}, where no Delta table is."
                raise SqlFailed("DELTA_CREATE_EXTERNAL_TABLE_WITHOUT_SCHEMA", said, "42601")
            new = NewTable(columns=command.columns, comment=command.comment, properties=command.properties)
            self.engine.create(relation, new)
        self.engine.attach(relation)
        self._metastore.add_table(table)
        return _NOTHING
