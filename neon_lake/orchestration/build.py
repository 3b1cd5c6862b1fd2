"""Everything that Dagster is told of a pipeline."""

from pathlib import Path
from typing import Any

import dagster as dg

from neon_lake.config import DatabricksConfig
from neon_lake.orchestration.assets import lake_assets, source_assets
from neon_lake.orchestration.checks import content_checks
from neon_lake.orchestration.jobs import expire_job, resync_job, sync_selection, verify_selection
from neon_lake.orchestration.known_tables import known_tables
from neon_lake.orchestration.names import CONTENT, Names
from neon_lake.orchestration.resources import PostgresResource, ReplicationResource, WorkspaceResource
from neon_lake.orchestration.schedules import schedules
from neon_lake.orchestration.sensors import lag_sensor, waiting_sensor
from neon_lake.orchestration.translator import Translator
from neon_lake.pipeline_file import load


def build_definitions(
    pipeline_file: Path,
    *,
    postgres: PostgresResource | None = None,
    databricks: Any = None,
    translator: type[Translator] = Translator,
    qualified: bool = False,
) -> dg.Definitions:
    """The assets, checks, jobs, sensor, schedules and resources of a pipeline file.

    Args:
        pipeline_file: its path.
        postgres: overrides what the file says of the source.
        databricks: a `DatabricksClientResource` of dagster-databricks, in place of what the file says of the workspace.
        translator: how tables become assets.
        qualified: put the pipeline's name before the names of jobs, sensor, schedules and resources, so that several
            pipelines can live in one code location.

    Raises:
        ConfigError: the file is missing or wrong. A source that cannot be reached is no error: the tables are then
            those that it last had.
    """
    path = pipeline_file.resolve()
    config = load(path)
    on_databricks = isinstance(config.destination, DatabricksConfig)
    names = Names(pipeline=config.name, qualified=qualified, on_databricks=on_databricks)
    source = postgres or PostgresResource()
    replication = ReplicationResource(pipeline_file=str(path))
    relations, shown = known_tables(config, source), translator(config)
    resources: dict[str, Any] = {names.postgres: source, names.replication: replication}
    if on_databricks:
        resources[names.databricks] = databricks or WorkspaceResource(pipeline_file=str(path))
    upkeep = [resync_job(shown, names), expire_job(names)]
    if not relations:
        return dg.Definitions(
            jobs=upkeep, sensors=[waiting_sensor(names)], resources=resources, executor=dg.in_process_executor
        )
    return dg.Definitions(
        assets=[lake_assets(config, relations, shown, names), *source_assets(relations, shown)],
        asset_checks=[content_checks(config, relations, shown, names)] if shown.check_specs(CONTENT, relations) else [],
        jobs=[
            dg.define_asset_job(
                names.sync,
                sync_selection(relations, shown),
                tags=names.tags,
                description="A micro-batch: brings all tables to where the source is, and counts their rows.",
            ),
            dg.define_asset_job(
                names.verify,
                verify_selection(relations, shown),
                tags=names.tags,
                description="Compares every row of source and lake, while both go on being written.",
            ),
            *upkeep,
        ],
        sensors=[lag_sensor(config, relations, shown, names)],
        schedules=schedules(config, names),
        resources=resources,
        executor=dg.in_process_executor,
    )
