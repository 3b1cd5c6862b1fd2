"""The sensor of a slot: one cheap look per tick, and a run when it is worth one. It never reads from the slot."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg

from neon_lake.change import Lsn
from neon_lake.config import Pipeline
from neon_lake.errors import NeonLakeError
from neon_lake.lifecycle import State
from neon_lake.orchestration.hours import Hours, first_hour, newest, recent
from neon_lake.orchestration.lag import Decision, Ending, LastRun, Memory, Seen, confirmed, decide
from neon_lake.orchestration.names import PIPELINE_TAG, STARTED_BY_TAG, Names
from neon_lake.orchestration.resources import opened
from neon_lake.orchestration.translator import Translator
from neon_lake.pipeline import Replication
from neon_lake.schema import Relation
from neon_lake.sources.base import Slot
from neon_lake.staging.manifest import Manifest

SENSOR: Final = "sensor"
OBSERVED_EVERY: Final = timedelta(minutes=1)

_IN_FLIGHT: Final = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def lag_sensor(
    config: Pipeline, relations: Sequence[Relation], translator: Translator, names: Names
) -> dg.SensorDefinition:
    """Starts the job `sync` when WAL waits for too long, or too much of it."""
    keys = frozenset(translator.asset_key(relation.table) for relation in relations)

    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        memory = Memory.from_cursor(context.cursor)
        try:
            replication = opened(context.resources, names)
            look = _Look(replication, context.instance, config.name, keys)
            decision = look.decision(memory)
        except NeonLakeError as exc:
            return dg.SensorResult(skip_reason=str(exc), cursor=context.cursor)
        memory = decision.memory
        observed = look.observations(translator.slot_key, memory, asked=decision.ask)
        if observed:
            memory = replace(memory, observed_at=look.now, observed=look.stretch)
        if not decision.ask:
            return dg.SensorResult(skip_reason=decision.reason, cursor=memory.to_cursor(), asset_events=observed)
        context.log.info(decision.reason)
        request = dg.RunRequest(tags={**names.tags, STARTED_BY_TAG: SENSOR, **look.hours().tags})
        return dg.SensorResult(run_requests=[request], cursor=memory.to_cursor(), asset_events=observed)

    return dg.SensorDefinition(
        name=names.sensor,
        evaluation_fn=tick,
        job_name=names.sync,
        # the daemon looks at its sensors every few seconds: one that is due a moment later waits for its next look
        minimum_interval_seconds=config.orchestration.interval_seconds - 1,
        description=f"Starts {names.sync} when {config.orchestration.lag_kb:,} kB of WAL are waiting, or any WAL for "
        f"{config.orchestration.max_age_seconds:g} s.",
        default_status=dg.DefaultSensorStatus.RUNNING
        if config.orchestration.sensor_on
        else dg.DefaultSensorStatus.STOPPED,
        required_resource_keys=names.resources,
        tags=names.tags,
    )


def waiting_sensor(names: Names) -> dg.SensorDefinition:
    """Stands in for the lag sensor while no table is known, and says so."""

    def tick(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            found = opened(context.resources, names).relations()
        except NeonLakeError as exc:
            return dg.SkipReason(f"No table is known yet. {exc}")
        if not found:
            return dg.SkipReason(
                "The pipeline file's patterns match no table of the source; correct them, then reload."
            )
        return dg.SkipReason(f"The source has {len(found)} tables now; reload the definitions to see them.")

    return dg.SensorDefinition(
        name=names.sensor,
        evaluation_fn=tick,
        minimum_interval_seconds=30,
        description="Says why no table is known.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys=names.resources,
        tags=names.tags,
    )


class _Look:
    """What one tick sees. The tables are looked at only when the log has grown since they were last found settled."""

    def __init__(
        self, replication: Replication, instance: dg.DagsterInstance, pipeline: str, keys: frozenset[dg.AssetKey]
    ) -> None:
        self._replication, self._instance, self._pipeline, self._keys = replication, instance, pipeline, keys
        self.now = datetime.now(UTC)
        self._head: Manifest | None = replication.parts.log.head()
        self._slot: Slot | None = replication.parts.source.slot()
        self._position: Lsn = replication.parts.source.position()

    def decision(self, memory: Memory) -> Decision:
        """See what there is to see, and decide."""
        checkpoint = self._head.end if self._head else None
        seen = Seen(
            now=self.now, position=self._position, checkpoint=checkpoint, busy=self._busy(), problem=self._problem()
        )
        if seen.busy is None and seen.problem is None:
            seen = replace(seen, last=self._last_run())
            if checkpoint is not None and memory.after(seen.last).settled != checkpoint:
                seen = replace(seen, behind=self._behind())
        decision = decide(seen, memory, self._replication.parts.config.orchestration)
        return confirmed(decision, seen, memory, self._writers()) if decision.ask else decision

    def hours(self) -> Hours:
        """The hours that a run of now covers: from that of the last commit in the log on."""
        return recent(newest(self._head), self.now, first_hour(self._replication.parts.config.orchestration))

    @property
    def stretch(self) -> str:
        """What lag is measured between."""
        return f"{self._head.end if self._head else None}..{self._position}"

    def observations(self, key: dg.AssetKey, memory: Memory, *, asked: bool) -> list[dg.AssetObservation]:
        """The slot's lag, when a run is asked for, and else every so often while it changes."""
        due = memory.observed_at is None or self.now - memory.observed_at >= OBSERVED_EVERY
        if self._slot is None or self._head is None or not (asked or (due and memory.observed != self.stretch)):
            return []
        facts: dict[str, Any] = {
            "lag_bytes": max(self._position - self._head.end, 0),
            "retained_bytes": self._slot.retained,
            "position": str(self._position),
            "checkpoint": str(self._head.end),
        }
        return [dg.AssetObservation(key, metadata=facts)]

    def _problem(self) -> str | None:
        """Why slot and log do not fit together; asked in full only when a first look gives reason to."""
        head, slot = self._head, self._slot
        if head is None and slot is None:
            self._replication.status()
            return None
        if head and slot and not slot.lost and slot.confirmed <= head.end <= self._position:
            return None
        return self._replication.status().slot_problem

    def _writers(self) -> str:
        """Which transactions have ended, as the server's snapshots tell it."""
        with self._replication.parts.source.snapshot() as snapshot:
            visible = snapshot.visible
        return f"{visible.xmin}:{visible.xmax}:{','.join(map(str, visible.xip))}"

    def _behind(self) -> tuple[str, ...]:
        waiting = (State.NEW, State.STALE)
        return tuple(
            str(table.table)
            for table in self._replication.status().tables
            if table.state in waiting or (table.state is State.LIVE and table.lag)
        )

    def _busy(self) -> str | None:
        """A run of the pipeline that is queued or at work, whoever started it; backfills are such runs too."""
        for record in self._instance.get_run_records(dg.RunsFilter(statuses=_IN_FLIGHT)):
            run = record.dagster_run
            checked = {key.asset_key for key in run.asset_check_selection or ()}
            if run.tags.get(PIPELINE_TAG) == self._pipeline or self._keys & {*(run.asset_selection or ()), *checked}:
                return run.run_id
        return None

    def _last_run(self) -> LastRun | None:
        ours = dg.RunsFilter(tags={PIPELINE_TAG: self._pipeline, STARTED_BY_TAG: SENSOR})
        records = self._instance.get_run_records(ours, limit=1)
        if not records:
            return None
        run, ended = records[0].dagster_run, records[0].end_time
        ended_at = datetime.fromtimestamp(ended, UTC) if ended else records[0].update_timestamp
        if run.status is dg.DagsterRunStatus.SUCCESS:
            ending = Ending.WELL
        else:
            ending = Ending.PARTLY if self._brought_on(run.run_id) else Ending.BADLY
        return LastRun(run_id=run.run_id, ending=ending, ended_at=ended_at)

    def _brought_on(self, run_id: str) -> bool:
        """Whether a run materialized any of the tables."""
        records = self._instance.get_asset_records(sorted(self._keys))
        latest = (record.asset_entry.last_materialization for record in records)
        return any(event is not None and event.run_id == run_id for event in latest)
