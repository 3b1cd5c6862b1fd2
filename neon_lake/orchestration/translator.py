"""How a table becomes an asset: keys, groups, kinds, columns, lineage."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import dagster as dg

from neon_lake.apply.delta_types import delta_type
from neon_lake.apply.plan import target_schema
from neon_lake.change import COMMITTED_AT, DELETED_AT, LSN, OP, ROW_ID, SEQUENCE
from neon_lake.config import DatabricksConfig, DeltaConfig, Pipeline, Table, WriteMode, is_url
from neon_lake.orchestration.names import CONTENT, ROW_COUNT
from neon_lake.schema import KEY, RESCUED, Relation, TableName

_OWN_COLUMNS: Mapping[str, str] = {
    RESCUED: "What the typed columns cannot hold, as a JSON object of column and Postgres' text.",
    ROW_ID: "What rows of the same content share: their table has no key.",
    LSN: "Position in the source's write-ahead log of the commit that the row is from.",
    OP: "What was done: I, U, D, T for TRUNCATE, or R for a row that a snapshot read.",
    SEQUENCE: "The place of the change in its transaction.",
    COMMITTED_AT: "When that transaction was committed at the source.",
    DELETED_AT: "When the row was deleted at the source; null while it is there.",
}


class Translator:
    """What Dagster shows of a pipeline's tables. Subclass it to show them in another way."""

    def __init__(self, config: Pipeline) -> None:
        self.config = config
        self.prefix = config.orchestration.prefix or (config.name,)

    # --- names

    def asset_key(self, table: TableName) -> dg.AssetKey:
        """The key of the table in the lake: prefix, schema, table."""
        return dg.AssetKey([*self.prefix, *(_part(name) for name in (table.schema, table.name))])

    def source_key(self, table: TableName) -> dg.AssetKey:
        """The key of the table at the source, upstream of the one in the lake."""
        return dg.AssetKey([*self.prefix, "source", *(_part(name) for name in (table.schema, table.name))])

    @property
    def slot_key(self) -> dg.AssetKey:
        """The key of the replication slot, whose lag is observed."""
        return dg.AssetKey([*self.prefix, "source", "replication_slot"])

    def group(self) -> str:
        """The asset group of the tables in the lake."""
        return self.config.name

    def source_group(self) -> str:
        """The asset group of the tables at the source."""
        return f"{self.config.name}_source"

    # --- specs

    def asset_spec(self, relation: Relation) -> dg.AssetSpec:
        """The table in the lake."""
        return dg.AssetSpec(
            key=self.asset_key(relation.table),
            deps=[self.source_key(relation.table)],
            description=relation.comment or f"The table {relation.table} of the source, as a Delta table.",
            group_name=self.group(),
            kinds={"postgres", "databricks" if isinstance(self.config.destination, DatabricksConfig) else "delta"},
            metadata=self.metadata(relation),
        )

    def source_spec(self, relation: Relation) -> dg.AssetSpec:
        """The table at the source, which is not ours to make."""
        database = unquote(urlsplit(self.config.source.url).path.lstrip("/"))
        metadata: dict[str, Any] = {"dagster/table_name": f"{database}.{relation.table}".lstrip(".")}
        if relation.columns:
            metadata["dagster/column_schema"] = source_columns(relation)
        return dg.AssetSpec(
            key=self.source_key(relation.table),
            description=relation.comment or f"The table {relation.table} in Postgres.",
            group_name=self.source_group(),
            kinds={"postgres", "table"},
            metadata=metadata,
        )

    def slot_spec(self) -> dg.AssetSpec:
        """The replication slot."""
        return dg.AssetSpec(
            key=self.slot_key,
            description=f"The replication slot neon_lake_{self.config.name}: how much of the write-ahead log waits to "
            "be read, as the lag sensor saw it.",
            group_name=self.source_group(),
            kinds={"postgres"},
        )

    def check_spec(self, name: str, relation: Relation) -> dg.AssetCheckSpec:
        """One of the checks `row_count_parity` and `content_parity`."""
        description = {
            ROW_COUNT: "Source and lake have the same number of rows, at one position of the write-ahead log.",
            CONTENT: "Source and lake have the same rows with the same values, at one position of the write-ahead log.",
        }
        return dg.AssetCheckSpec(name, asset=self.asset_key(relation.table), description=description[name])

    def check_specs(self, name: str, relations: Sequence[Relation]) -> list[dg.AssetCheckSpec]:
        """The check `name` of the tables that have it."""
        return [self.check_spec(name, relation) for relation in relations if name in self.checks(relation)]

    def checks(self, relation: Relation) -> tuple[str, ...]:
        """The names of a table's checks.

        What changes come to can be counted only, and where not all of them are sent, nothing can be compared.
        """
        if relation.columns and relation.inserts_only:
            return ()
        line = self.config.table(relation.table)
        return (ROW_COUNT,) if line and line.mode is WriteMode.APPEND else (ROW_COUNT, CONTENT)

    def metadata(self, relation: Relation) -> dict[str, Any]:
        """What is known of the table in the lake before anything runs."""
        unity = self.config.unity_name(relation.table)
        found: dict[str, Any] = {"dagster/table_name": ".".join(unity) if unity else str(relation.table)}
        if isinstance(self.config.destination, DeltaConfig):
            path = f"{self.config.destination.path.rstrip('/')}/{relation.table.path}"
            found["dagster/uri"] = path if is_url(path) else f"file://{path}"
        if relation.columns:
            found["dagster/column_schema"] = self.columns(relation)
            found["dagster/column_lineage"] = self.lineage(relation)
        return found

    def columns(self, relation: Relation) -> dg.TableSchema:
        """The columns of the table in the lake."""
        sources = {column.name: column for column in relation.columns}
        line = self.config.table(relation.table) or Table(name=str(relation.table))
        return dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name=field.name,
                    type=delta_type(field.type),
                    description=_OWN_COLUMNS.get(field.name) or f"{sources[field.name].type} at the source",
                    constraints=_key_constraint(key=bool(field.metadata and KEY in field.metadata), nullable=True),
                )
                for field in target_schema(relation, line.deletes, mode=line.mode)
            ]
        )

    def lineage(self, relation: Relation) -> dg.TableColumnLineage:
        """Which column of the source each column of the lake is from."""
        source = self.source_key(relation.table)
        return dg.TableColumnLineage(
            deps_by_column={
                column.name: [dg.TableColumnDep(asset_key=source, column_name=column.name)]
                for column in relation.columns
            }
        )


def source_columns(relation: Relation) -> dg.TableSchema:
    """The columns of the table at the source."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.type,
                constraints=_key_constraint(key=column.key, nullable=column.nullable),
            )
            for column in relation.columns
        ]
    )


def _key_constraint(*, key: bool, nullable: bool) -> dg.TableColumnConstraints:
    return dg.TableColumnConstraints(nullable=nullable and not key, other=["key"] if key else [])


def _part(name: str) -> str:
    """A part of an asset key. A name with other characters, or `__`, gets a short hash, so that none meet.

    Dagster makes names of outputs from keys: parts joined by `__`, of letters, digits and underscores alone.
    """
    if re.fullmatch(r"_?[A-Za-z0-9]+(_[A-Za-z0-9]+)*", name):
        return name
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:6]}".lstrip("_")
