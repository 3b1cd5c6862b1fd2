"""From a pipeline file and the tables of its source to the texts of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from neon_lake.config import DatabricksConfig, Pipeline, WriteMode
from neon_lake.errors import ConfigError
from neon_lake.lakeflow.bundle import bundle
from neon_lake.lakeflow.exported import Exported
from neon_lake.lakeflow.log import log_sql
from neon_lake.lakeflow.targets import needs, table_sql
from neon_lake.schema import Relation, TableName

BUNDLE: Final = "databricks.yml"
LOG_FILE: Final = "src/log.sql"


@dataclass(frozen=True, kw_only=True)
class Export:
    """Texts by their path in the bundle; the tables that are in it, and why others are not."""

    files: Mapping[str, str]
    tables: Mapping[TableName, Exported]
    left_out: Mapping[TableName, str]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "files": list(self.files),
            "tables": {
                str(name): {
                    "mode": table.mode.value,
                    "scd": None if table.appends else table.scd,
                    "schema": table.schema,
                    "name": table.name,
                    "needs": needs(table),
                }
                for name, table in self.tables.items()
            },
            "left_out": {str(name): reason for name, reason in self.left_out.items()},
        }


def export(
    pipeline: Pipeline,
    relations: Sequence[Relation],
    refused: Mapping[TableName, str] | None = None,
    *,
    scd: int = 1,
    variant: bool = False,
) -> Export:
    """The bundle of a pipeline and its tables. `refused`: tables that cannot be replicated at all, and why.

    `variant`: json and jsonb land as VARIANT, else as text.

    Raises `ConfigError` when the lake is not on Databricks, when nothing is left, or when two tables have one name.
    """
    of_databricks(pipeline)
    left_out = dict(refused or {})
    chosen: list[tuple[Relation, WriteMode, str, str]] = []
    for relation in sorted(relations, key=lambda relation: relation.table):
        line, named = pipeline.table(relation.table), pipeline.unity_name(relation.table)
        assert line is not None, "the source gives only tables of the pipeline file"
        assert named is not None, "the destination is in Unity Catalog"
        if reason := _obstacle(relation, line.mode):
            left_out[relation.table] = reason
        else:
            chosen.append((relation, line.mode, named[1], named[2]))
    if not chosen:
        raise ConfigError("No table of the pipeline can be a table of Lakeflow; neon-lake check says more of each.")
    places = {schema: f"neon_lake.schema_{n}" for n, schema in enumerate(dict.fromkeys(c[2] for c in chosen), 1)}
    tables: dict[TableName, Exported] = {}
    taken: dict[tuple[str, str], TableName] = {}
    for relation, mode, schema, name in chosen:
        if other := taken.get((schema, name)):
            raise ConfigError(
                f"{other} and {relation.table} would both be {schema}.{name}; give one of them another name with "
                "target."
            )
        taken[schema, name] = relation.table
        line = pipeline.table(relation.table)
        assert line is not None
        tables[relation.table] = Exported(
            relation=relation,
            mode=mode,
            deletes=line.deletes,
            scd=scd,
            place=places[schema],
            schema=schema,
            name=name,
            variant=variant,
        )
    files = {LOG_FILE: log_sql(list(tables))} | {_file(table): table_sql(table) for table in tables.values()}
    schemas = {place: schema for schema, place in places.items()}
    return Export(files={BUNDLE: bundle(pipeline, list(files), schemas)} | files, tables=tables, left_out=left_out)


def of_databricks(pipeline: Pipeline) -> DatabricksConfig:
    """The destination of a pipeline whose change log is on a volume. Raises `ConfigError` when it is not."""
    if not isinstance(pipeline.destination, DatabricksConfig):
        raise ConfigError(
            "The destination of the pipeline file is not a Databricks workspace, and Lakeflow reads only what is staged"
            " on a volume; give the file a destination with kind: databricks."
        )
    return pipeline.destination


def _file(table: Exported) -> str:
    return f"src/{table.relation.table.path.replace('/', '.')}.sql"


def _obstacle(relation: Relation, mode: WriteMode) -> str | None:
    """Why AUTO CDC cannot keep a table."""
    seen: dict[str, str] = {}
    for column in relation.columns:
        if other := seen.get(column.name.casefold()):
            return (
                f"It has the columns {other} and {column.name}, which Databricks does not tell apart; leave one out "
                "with exclude, or rename it."
            )
        seen[column.name.casefold()] = column.name
    if mode is not WriteMode.APPEND and not relation.key:
        return (
            "It has no key, and AUTO CDC tells rows apart by one; add a primary key, or take all of its changes with "
            "mode: append."
        )
    return None
