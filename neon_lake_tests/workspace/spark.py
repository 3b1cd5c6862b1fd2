"""Spark with Delta's own library: what Databricks comes from. It needs Java, and seconds for what Sail does at once.

Source: https://docs.delta.io/latest/delta-batch.html
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from neon_lake_tests.workspace import commands as c
from neon_lake_tests.workspace import delta_log
from neon_lake_tests.workspace.engines import STATEMENT, NewTable, Relation, literal, quoted
from neon_lake_tests.workspace.foreign_errors import of_spark
from neon_lake_tests.workspace.jars import DELTA
from neon_lake_tests.workspace.sql_errors import unsupported

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_SETTINGS: Final = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # what tests read tables with takes its own default, INT96, for nanoseconds, which end in 2262
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "1g",
    # The data of tests is tiny: what helps with much of it costs more than all the rest.
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
    # VACUUM looks at files in so many tasks
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "1",
    "spark.sql.adaptive.enabled": "false",
    # Measured: a quarter less of the processor for a statement without code generation, and for the start without the
    # verification of classes.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.driver.extraJavaOptions": (
        "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote "
        "-Duser.timezone=UTC"
    ),
}


class Spark:
    """The engine, in a JVM of its own that ends with this process."""

    workers = 4

    def __init__(self, jars: Sequence[Path], *, settings: Mapping[str, str] | None = None) -> None:
        from pyspark import __version__
        from pyspark.sql import SparkSession

        self.title = f"spark {__version__} + delta {DELTA}"
        self._folder = tempfile.TemporaryDirectory(prefix="workspace-spark-")
        builder = SparkSession.builder.master("local[2]").config("spark.jars", ",".join(map(str, jars)))
        for name, value in {**_SETTINGS, **(settings or {})}.items():
            builder = builder.config(name, value)
        self._session = builder.config("spark.sql.warehouse.dir", self._folder.name).getOrCreate()
        self._session.sparkContext.setLogLevel("OFF")
        # what goes wrong with a statement is its answer
        for name in ("py4j", "SQLQueryContextLogger"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._databases: set[str] = set()
        # Delta's classes are loaded by the first use of them, in seconds that no test should see
        probe = Relation(database="default", name="probe", location=f"{self._folder.name}/probe")
        columns = (c.ColumnSpec(name="n", kind="BIGINT"),)
        self.create(probe, NewTable(columns=columns, properties={}))
        self.detach(probe)

    def run(self, sql: str) -> pa.Table:
        """The rows of a statement."""
        from py4j.protocol import Py4JError  # type: ignore[import-untyped] # it ships none
        from pyspark.errors import PySparkException

        # a job's tags would do too, but Delta cannot send a session that has some to its tasks
        self._session.sparkContext.setJobGroup(STATEMENT.get(), "", interruptOnCancel=True)
        try:
            return _arrow(self._session.sql(sql))
        except (PySparkException, Py4JError) as exc:
            raise of_spark(exc) from exc

    def change(self, relation: Relation, sql: str) -> pa.Table:  # noqa: ARG002 - see `Engine`
        """What a statement gives that changes rows of a table."""
        return self.run(sql)

    def interrupt(self, statement: str) -> None:
        """End the jobs of a statement; one that is about to commit goes on."""
        self._session.sparkContext.cancelJobGroup(statement)

    def close(self) -> None:
        """End it."""
        self._session.stop()
        self._folder.cleanup()

    # --- names

    def attach(self, relation: Relation) -> None:
        """Know the table that lies at the relation's location, by its name."""
        if delta_log.is_url(relation.location):
            raise unsupported("object store on Spark; run it on Sail")
        self._ensure_database(relation)
        self.run(f"CREATE TABLE IF NOT EXISTS {relation.quoted} USING DELTA LOCATION {literal(relation.location)}")

    def _ensure_database(self, relation: Relation) -> None:
        if relation.database not in self._databases:
            self.run(f"CREATE DATABASE IF NOT EXISTS {quoted(relation.database)}")
            self._databases.add(relation.database)

    def detach(self, relation: Relation) -> None:
        """Know it no more; its files stay."""
        self.run(f"DROP TABLE IF EXISTS {relation.quoted}")

    def drop_database(self, database: str) -> None:
        """Know no more of a schema that is gone."""
        if database in self._databases:
            self.run(f"DROP DATABASE IF EXISTS {quoted(database)} CASCADE")
            self._databases.discard(database)

    # --- tables

    def create(self, relation: Relation, new: NewTable) -> int:
        """Make a table, or replace all of the one that is there, in one commit; gives the number of its rows."""
        self._ensure_database(relation)
        before = delta_log.version_of(relation.location)
        clauses = [f"CREATE OR REPLACE TABLE {relation.quoted}"]
        if new.query is None:
            clauses.append(f"({', '.join(_column(column) for column in new.columns)})")
        clauses.append("USING DELTA")
        if new.cluster_by:
            clauses.append(f"CLUSTER BY ({', '.join(map(quoted, new.cluster_by))})")
        clauses.append(f"LOCATION {literal(relation.location)}")
        if new.comment is not None:
            clauses.append(f"COMMENT {literal(new.comment)}")
        if new.properties:
            clauses.append(_properties(new.properties))
        if new.query is not None:
            clauses.append(f"AS {new.query}")
        self.run(" ".join(clauses))
        rows = 0
        for _, metrics in delta_log.metrics_since(relation.location, before):
            rows = metrics.get("numOutputRows", 0)
        return rows

    def alter(self, relation: Relation, action: c.Action) -> None:
        """Change a table, in one of the ways that are not the metastore's alone."""
        for clause in _clauses(action):
            self.run(f"ALTER TABLE {relation.quoted} {clause}")

    def comment(self, relation: Relation, text: str | None) -> None:
        """Say what a table is."""
        self.run(f"COMMENT ON TABLE {relation.quoted} IS {'NULL' if text is None else literal(text)}")

    def truncate(self, relation: Relation) -> int:
        """Remove all rows; gives their number."""
        before = delta_log.version_of(relation.location)
        self.run(f"DELETE FROM {relation.quoted}")
        return sum(each.get("numDeletedRows", 0) for _, each in delta_log.metrics_since(relation.location, before))

    def properties(self, relation: Relation) -> Mapping[str, str]:
        """The table's properties."""
        return delta_log.snapshot(relation.location).properties

    def history(self, relation: Relation, limit: int | None) -> pa.Table:
        """The commits of a table, the last one first."""
        return self.run(f"DESCRIBE HISTORY {relation.quoted}{'' if limit is None else f' LIMIT {limit}'}")

    def detail(self, relation: Relation) -> pa.Table:
        """One row about a table."""
        return self.run(f"DESCRIBE DETAIL {relation.quoted}")

    def restore(self, relation: Relation, version: int) -> pa.Table:
        """Bring back a table as it was; gives what that took."""
        return self.run(f"RESTORE TABLE {relation.quoted} TO VERSION AS OF {version}")

    def optimize(self, relation: Relation) -> pa.Table:
        """Make few large files of many small ones."""
        return self.run(f"OPTIMIZE {relation.quoted}")

    def vacuum(self, relation: Relation, hours: int | None) -> pa.Table:
        """Remove files that no version needs which is younger than so many hours."""
        return self.run(f"VACUUM {relation.quoted}{'' if hours is None else f' RETAIN {hours} HOURS'}")


def _arrow(frame: DataFrame) -> pa.Table:
    try:
        return frame.toArrow()
    except pa.ArrowInvalid:
        # it has no arrays for structs in structs that are never null, such as OPTIMIZE gives
        return pa.Table.from_pylist([row.asDict(recursive=True) for row in frame.collect()])


def _column(column: c.ColumnSpec) -> str:
    comment = "" if column.comment is None else f" COMMENT {literal(column.comment)}"
    return f"{quoted(column.name)} {column.kind}{'' if column.nullable else ' NOT NULL'}{comment}"


def _properties(values: Mapping[str, str]) -> str:
    return f"TBLPROPERTIES ({', '.join(f'{literal(name)} = {literal(value)}' for name, value in values.items())})"


def _clauses(action: c.Action) -> list[str]:
    """What stands behind ALTER TABLE, once per statement."""
    found: list[str] = []
    match action:
        case c.AddColumns():
            found = [f"ADD COLUMNS ({', '.join(_column(column) for column in action.columns)})"]
        case c.DropColumns():
            exists = "IF EXISTS " if action.if_exists else ""
            found = [f"DROP COLUMNS {exists}({', '.join(map(quoted, action.names))})"]
        case c.RenameColumn():
            found = [f"RENAME COLUMN {quoted(action.old)} TO {quoted(action.new)}"]
        case c.ChangeColumn():
            found = [f"ALTER COLUMN {quoted(action.name)} {_change(action)}"]
        case c.SetProperties():
            if action.values:
                found.append(f"SET {_properties(action.values)}")
            if action.gone:
                found.append(f"UNSET TBLPROPERTIES IF EXISTS ({', '.join(map(literal, action.gone))})")
        case c.ClusterBy():
            columns = f"({', '.join(map(quoted, action.columns))})" if action.columns else "NONE"
            found = [f"CLUSTER BY {columns}"]
        case _:
            raise unsupported("such change of a table")
    return found


def _change(action: c.ChangeColumn) -> str:
    if action.kind is not None:
        return f"TYPE {action.kind}"
    if action.comment is not None:
        return f"COMMENT {literal(action.comment)}"
    return "SET NOT NULL" if action.nullable is False else "DROP NOT NULL"
