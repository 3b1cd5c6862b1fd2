"""The jobs of a pipeline: which assets and checks `sync` and `verify` run, and the jobs that make no asset."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from neon_lake.config import Table
from neon_lake.errors import ConfigError, listed
from neon_lake.orchestration import metadata
from neon_lake.orchestration.batch import Outcome
from neon_lake.orchestration.names import CONTENT, ROW_COUNT, Names
from neon_lake.orchestration.resources import opened
from neon_lake.orchestration.steps import fail_for, progress_to, sentences
from neon_lake.orchestration.translator import Translator
from neon_lake.schema import Relation, TableName


def sync_selection(relations: Sequence[Relation], translator: Translator) -> dg.AssetSelection:
    """Every table and its row count; contents are compared on demand only."""
    keys = [translator.asset_key(relation.table) for relation in relations]
    counts = dg.AssetSelection.checks(*(spec.key for spec in translator.check_specs(ROW_COUNT, relations)))
    return dg.AssetSelection.assets(*keys).without_checks() | counts


def verify_selection(relations: Sequence[Relation], translator: Translator) -> dg.AssetSelection:
    """Every check of every table, row counts of large ones included."""
    specs = [spec for name in (ROW_COUNT, CONTENT) for spec in translator.check_specs(name, relations)]
    return dg.AssetSelection.checks(*(spec.key for spec in specs))


class ResyncConfig(dg.Config):
    """Which tables to snapshot anew."""

    tables: list[str] = Field(
        min_length=1,
        description='Names or patterns of tables, such as public.orders or "public.*"; "*.*" are all of the pipeline.',
    )


def resync_job(translator: Translator, names: Names) -> dg.JobDefinition:
    """A new snapshot of live tables; what the lake has stays readable until the new rows take its place."""

    @dg.op(name=f"{names.pipeline}_resync", pool=names.pool, required_resource_keys=names.resources)
    def resync(context: dg.OpExecutionContext, config: ResyncConfig) -> None:
        with sentences(context.retry_number):
            replication = opened(context.resources, names, progress_to(context.log))
            chosen = matching(config.tables, replication.relations())
            synced = replication.resync(chosen)
        now, outcomes = metadata.utc_now(), dict[TableName, Outcome]()
        for table, result in synced.tables.items():
            outcome = Outcome(result=result, rows=result.snapshot_rows, error=result.error, transient=result.transient)
            outcomes[table] = outcome
            if outcome.moved:
                for event in metadata.outside(outcome, translator.asset_key(table), None, translator, now):
                    context.log_event(event)
        fail_for(outcomes, context.retry_number)

    @dg.job(name=names.resync, tags=names.tags, description="Snapshots tables anew, while they stay readable.")
    def job() -> None:
        resync()

    return job


def matching(patterns: Sequence[str], relations: Sequence[Relation]) -> list[TableName]:
    """The tables that names or patterns mean. Raises `ConfigError` for one that means none."""
    lines = []
    for pattern in patterns:
        try:
            lines.append(Table(name=pattern))
        except ValueError:
            raise ConfigError(f"{pattern!r} is not a table name; it looks like public.orders or public.*.") from None
    tables = [relation.table for relation in relations]
    for line in lines:
        if not any(line.matches(table) for table in tables):
            raise ConfigError(f"{line.name} is not a table of the pipeline; its tables are {listed(tables, most=20)}.")
    return [table for table in tables if any(line.matches(table) for line in lines)]


def expire_job(names: Names) -> dg.JobDefinition:
    """Retention: what is older than `staging.retention_days` and in every table goes."""

    @dg.op(name=f"{names.pipeline}_expire", pool=names.pool, required_resource_keys=names.resources)
    def expire(context: dg.OpExecutionContext) -> dg.Output[None]:
        with sentences(context.retry_number):
            gone = opened(context.resources, names, progress_to(context.log)).expire()
        facts: Mapping[str, Any] = {key: value for key, value in gone.to_json().items() if value is not None}
        return dg.Output(None, metadata=facts)

    @dg.job(name=names.expire, tags=names.tags, description="Removes what staging need not keep any longer.")
    def job() -> None:
        expire()

    return job
