"""The check of contents: every row of the source against every row of the lake, when somebody wants to know."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from neon_lake.config import Pipeline
from neon_lake.orchestration import metadata
from neon_lake.orchestration.batch import Order, carry_out
from neon_lake.orchestration.names import CONTENT, Names
from neon_lake.orchestration.resources import opened
from neon_lake.orchestration.steps import fail_for, progress_to, sentences
from neon_lake.orchestration.translator import Translator
from neon_lake.schema import Relation


def content_checks(
    config: Pipeline, relations: Sequence[Relation], translator: Translator, names: Names
) -> dg.AssetChecksDefinition:
    """The check `content_parity` of every table.

    It first brings the tables to the position at which they are compared, which is told as materializations. In a run
    that materializes assets too, tables of more than `parity.max_rows` rows are left out: reading them whole has to be
    asked for by itself, as the job `verify` does.
    """
    tables = {translator.asset_key(relation.table): relation.table for relation in relations}

    @dg.multi_asset_check(
        name=names.content_op,
        specs=translator.check_specs(CONTENT, relations),
        can_subset=True,
        pool=names.pool,
        required_resource_keys=names.resources,
        description=f"Compares the contents of {config.name}'s source and lake.",
    )
    def content_parity(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        chosen = {tables[key.asset_key] for key in context.selected_asset_check_keys}
        by_itself = not context.run.asset_selection
        order = Order(
            tables=sorted(chosen),
            everything=chosen == set(tables.values()),
            compare=chosen,
            deep=True,
            max_rows=None if by_itself else config.parity.max_rows,
        )
        with sentences(context.retry_number):
            replication = opened(context.resources, names, progress_to(context.log))
            done = carry_out(replication, order)
        now = metadata.utc_now()
        for table, outcome in done.tables.items():
            key = translator.asset_key(table)
            if outcome.moved:
                for event in metadata.outside(outcome, key, None, translator, now):
                    context.op_execution_context.log_event(event)
            if outcome.error is not None:
                context.log.error("%s: %s", table, outcome.error)
            if outcome.parity is not None:
                yield metadata.check_result(outcome.parity, key, CONTENT)
            elif outcome.error is None and table in chosen and outcome.rows is not None:
                context.log.info(
                    "%s has %s rows, more than parity.max_rows; run the job %s to compare it.",
                    table,
                    outcome.rows,
                    names.verify,
                )
        fail_for(done.tables, context.retry_number, done.trouble)

    return content_parity
