"""Sail: an engine in Rust that speaks Spark's SQL. It starts in seconds and needs no Java.

It has statements for rows only. What changes a table is written into the table's log here, and some properties are only
remembered: those that would make a table one that Sail cannot write.
Source: https://docs.lakesail.com/sail
"""

from __future__ import annotations

import importlib.metadata
import logging
import warnings

import pyarrow as pa

from neon_lake_tests.workspace import delta_log
from neon_lake_tests.workspace.engines import Relation, literal, quoted
from neon_lake_tests.workspace.foreign_errors import of_sail
from neon_lake_tests.workspace.log_tables import LogTables
from neon_lake_tests.workspace.sql_errors import column_not_found
from neon_lake_tests.workspace.words import Reading, words_of


class Sail(LogTables):
    """The engine. One statement at a time, all in one session: the session has the names of the tables."""

    workers = 1

    def __init__(self) -> None:
        # It looks at pandas, which warns of its version.
        warnings.filterwarnings("ignore", message=".*pandas", category=FutureWarning)
        from pysail.spark import SparkConnectServer  # type: ignore[import-untyped] # it ships none
        from pyspark.sql import SparkSession

        # what goes wrong with a statement is its answer
        logging.getLogger("pyspark.sql.connect.logging").setLevel(logging.CRITICAL)
        self.title = f"sail {importlib.metadata.version('pysail')}"
        self._server = SparkConnectServer("127.0.0.1", 0)
        self._server.start(background=True)
        address = self._server.listening_address
        assert address is not None
        self._session = SparkSession.builder.remote(f"sc://127.0.0.1:{address[1]}").getOrCreate()
        self._session.conf.set("spark.sql.session.timeZone", "UTC")
        self._session.conf.set("spark.sql.ansi.enabled", "true")
        self._databases: set[str] = set()
        super().__init__()
        self.run("SELECT 1")

    def run(self, sql: str) -> pa.Table:
        """The rows of a statement."""
        from pyspark.errors import PySparkException

        with self._lock:
            try:
                return self._session.sql(sql).toArrow()
            except PySparkException as exc:
                raise of_sail(exc, sql) from exc

    def change(self, relation: Relation, sql: str) -> pa.Table:
        """What a statement gives that changes rows of a table."""
        return self.run(_completed(sql, relation))

    def interrupt(self, statement: str) -> None:
        """Sail cannot: the statement goes on, and what it does stays done."""

    def close(self) -> None:
        """End it."""
        self._session.stop()
        self._server.stop()

    # --- names

    def attach(self, relation: Relation) -> None:
        """Know the table that lies at the relation's location, by its name."""
        if relation.database not in self._databases:
            self.run(f"CREATE DATABASE IF NOT EXISTS {quoted(relation.database)}")
            self._databases.add(relation.database)
        self.run(f"CREATE TABLE {relation.quoted} USING DELTA LOCATION {literal(relation.location)}")

    def detach(self, relation: Relation) -> None:
        """Know it no more; its files stay."""
        self.run(f"DROP TABLE IF EXISTS {relation.quoted}")

    def drop_database(self, database: str) -> None:
        """Know no more of a schema that is gone."""
        if database in self._databases:
            self.run(f"DROP DATABASE IF EXISTS {quoted(database)} CASCADE")
            self._databases.discard(database)


def _completed(sql: str, relation: Relation) -> str:
    """An INSERT that names some columns, as one that gives all of them: Sail wants that."""
    reading = Reading(sql, words_of(sql))
    if not reading.take("INSERT", "INTO"):
        return sql
    reading.take("TABLE")
    reading.name()
    if not reading.sees("("):
        return sql
    named = reading.identifiers()
    given = {name.lower(): quoted(name) for name in named}
    chosen = []
    for each in delta_log.snapshot(relation.location).fields:
        name = each["name"]
        chosen.append(f"{given.pop(name.lower(), 'NULL')} AS {quoted(name)}")
    for name in given:
        raise column_not_found(name)
    columns = ", ".join(quoted(name) for name in named)
    return f"INSERT INTO {relation.quoted} SELECT {', '.join(chosen)} FROM ({reading.rest()}) AS given({columns})"
