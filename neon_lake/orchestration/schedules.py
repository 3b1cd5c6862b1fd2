"""Schedules: the alternative to the sensor, and upkeep."""

from typing import Final

import dagster as dg

from neon_lake.config import Pipeline
from neon_lake.errors import NeonLakeError
from neon_lake.orchestration.hours import first_hour, newest, recent
from neon_lake.orchestration.names import STARTED_BY_TAG, Names
from neon_lake.orchestration.resources import opened

SCHEDULE: Final = "schedule"
NIGHTLY_EXPIRE: Final = "20 2 * * *"
NIGHTLY_VERIFY: Final = "40 2 * * *"


def schedules(config: Pipeline, names: Names) -> list[dg.ScheduleDefinition]:
    """`sync` by the clock (off: the sensor does it), `expire` (on) and `verify` (off) every night, in UTC."""

    def sync(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        try:
            head = opened(context.resources, names).parts.log.head()
        except NeonLakeError as exc:
            return dg.SkipReason(str(exc))
        hours = recent(newest(head), context.scheduled_execution_time, first_hour(config.orchestration))
        return dg.RunRequest(tags={**names.tags, STARTED_BY_TAG: SCHEDULE, **hours.tags})

    return [
        dg.ScheduleDefinition(
            name=f"{names.sync}_schedule",
            job_name=names.sync,
            cron_schedule=config.orchestration.cron,
            execution_timezone="UTC",
            execution_fn=sync,
            required_resource_keys=names.resources,
            description=f"A micro-batch by the clock, instead of the sensor {names.sensor}.",
        ),
        dg.ScheduleDefinition(
            name=f"{names.expire}_schedule",
            job_name=names.expire,
            cron_schedule=NIGHTLY_EXPIRE,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Removes what staging need not keep any longer ({config.staging.retention_days:g} days).",
        ),
        dg.ScheduleDefinition(
            name=f"{names.verify}_schedule",
            job_name=names.verify,
            cron_schedule=NIGHTLY_VERIFY,
            execution_timezone="UTC",
            description="Compares every row of source and lake.",
        ),
    ]
