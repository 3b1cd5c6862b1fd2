"""The assets of a pipeline: one per table, made by one step that can bring any of them along."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import dagster as dg

from neon_lake.config import Pipeline
from neon_lake.orchestration import metadata
from neon_lake.orchestration.batch import Done, Order, carry_out
from neon_lake.orchestration.hours import Hours, key_of, partitions
from neon_lake.orchestration.names import COSTS_TAG, ROW_COUNT, STARTED_BY_TAG, Names
from neon_lake.orchestration.resources import opened
from neon_lake.orchestration.steps import fail_for, progress_to, sentences
from neon_lake.orchestration.translator import Translator
from neon_lake.schema import Relation, TableName
from neon_lake.staging.segment import Counts


def source_assets(relations: Sequence[Relation], translator: Translator) -> list[dg.AssetSpec]:
    """The tables at the source, and the slot: upstream, and not ours to make."""
    return [*(translator.source_spec(relation) for relation in relations), translator.slot_spec()]


def lake_assets(
    config: Pipeline, relations: Sequence[Relation], translator: Translator, names: Names
) -> dg.AssetsDefinition:
    """The tables in the lake, with a check of their row counts.

    A run is one micro-batch of the tables that are chosen. Hours of the past that a person chooses are replayed first.
    """
    tables = {translator.asset_key(relation.table): relation.table for relation in relations}

    @dg.multi_asset(
        name=names.op,
        specs=[translator.asset_spec(relation) for relation in relations],
        check_specs=translator.check_specs(ROW_COUNT, relations),
        can_subset=True,
        partitions_def=partitions(config.orchestration),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=names.pool,
        required_resource_keys=names.resources,
        description=f"Brings changes of {config.name}'s source into the lake.",
    )
    def micro_batch(context: dg.AssetExecutionContext) -> Iterator[Any]:
        chosen = {tables[key] for key in context.selected_asset_keys}
        counted = {tables[key.asset_key] for key in context.selected_asset_check_keys}
        order = Order(
            tables=sorted(chosen | counted),
            everything=(chosen | counted) == set(tables.values()),
            again=replayed_hours(context),
            compare=counted,
            # a count that a person or the job `verify` asks for by itself is made whatever the table's size
            max_rows=config.parity.max_rows if chosen else None,
        )
        with sentences(context.retry_number):
            replication = opened(context.resources, names, progress_to(context.log))
            done = carry_out(replication, order)
        if done.costs:
            context.log.info("Databricks: %s", done.costs)
            context.instance.add_run_tags(context.run_id, {COSTS_TAG: str(done.costs)})
        yield from told(context, done, chosen, translator)
        fail_for(done.tables, context.retry_number, done.trouble)

    return micro_batch


def replayed_hours(context: dg.AssetExecutionContext) -> Hours | None:
    """The hours of the past that the run is to replay; none when sensor or schedule started it to take what is new."""
    hours = asked_hours(context)
    if hours is None or context.run.tags.get(STARTED_BY_TAG):
        return None
    return hours.before(metadata.utc_now())


def asked_hours(context: dg.AssetExecutionContext) -> Hours | None:
    """The partitions of the run; a run of checks alone has none."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return None
    window = context.partition_time_window
    return Hours(start=window.start, end=window.end)


def told(
    context: dg.AssetExecutionContext, done: Done, chosen: Collection[TableName], translator: Translator
) -> Iterator[Any]:
    """What Dagster is told: a materialization of each chosen table, events for what else was written, and checks."""
    now, hours = metadata.utc_now(), asked_hours(context)
    wanted = {(key.asset_key, key.name) for key in context.selected_asset_check_keys}
    for table, outcome in done.tables.items():
        key = translator.asset_key(table)
        if outcome.error is not None:
            context.log.error("%s: %s", table, outcome.error)
        asked = hours if table in chosen and outcome.error is None else None
        for event in metadata.outside(outcome, key, asked, translator, now) if outcome.moved else ():
            context.log_event(event)
        checks = []
        if outcome.parity is not None and (key, ROW_COUNT) in wanted:
            checks.append(metadata.check_result(outcome.parity, key, ROW_COUNT))
        if asked is not None:
            for hour, counts in metadata.by_hour(outcome).items():
                if hour in asked:
                    facts = metadata.of_counts(counts)
                    context.add_asset_metadata(facts, asset_key=key, partition_key=key_of(hour))
            # all hours of the run have this in common; those with changes have their own counts besides
            facts = metadata.of_table(outcome, Counts(), translator, now)
            yield dg.MaterializeResult(asset_key=key, metadata=facts, check_results=checks)
        else:
            yield from checks
