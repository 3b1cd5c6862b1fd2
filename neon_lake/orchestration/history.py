"""What Dagster's instance has recorded of a pipeline's runs, as plain values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dagster as dg

from neon_lake.config import Pipeline
from neon_lake.orchestration.names import PIPELINE_TAG
from neon_lake.orchestration.translator import Translator
from neon_lake.schema import TableName


@dataclass(frozen=True, kw_only=True)
class Materialized:
    """A table came along in a step of a run: when Dagster was told, and the metadata by name.

    Of a step that brings changes of several hours there is one per hour, with the changes of that hour.
    """

    table: TableName
    step: str
    at: datetime
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A check of a table was evaluated in a run."""

    table: TableName
    name: str
    passed: bool
    description: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that has ended.

    `seconds` is how long its steps worked, without the start of its process; `errors` are the sentences of what failed.
    """

    id: str
    job: str
    succeeded: bool
    seconds: float
    materialized: tuple[Materialized, ...] = ()
    checked: tuple[Checked, ...] = ()
    errors: tuple[str, ...] = field(default=())


class History:
    """The runs of one pipeline in the instance at `home`. A context manager: it closes the instance.

    Only what happened to `tables` is told of.
    """

    def __init__(self, home: Path, config: Pipeline, tables: Iterable[TableName]) -> None:
        self._instance = dg.DagsterInstance.from_config(str(home))
        self._pipeline = config.name
        translator = Translator(config)
        self._tables = {translator.asset_key(table): table for table in tables}
        self._ended: dict[str, Run] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._instance.dispose()

    def runs(self) -> tuple[Run, ...]:
        """The runs that have ended, the oldest first."""
        filters = dg.RunsFilter(tags={PIPELINE_TAG: self._pipeline})
        for run in reversed(self._instance.get_runs(filters)):
            if run.is_finished and run.run_id not in self._ended:
                self._ended[run.run_id] = self._read(run)
        return tuple(self._ended.values())

    def waiting(self) -> int:
        """How many runs are queued, starting or at work."""
        filters = dg.RunsFilter(tags={PIPELINE_TAG: self._pipeline})
        return sum(not run.is_finished for run in self._instance.get_runs(filters))

    def _read(self, run: dg.DagsterRun) -> Run:
        materialized, checked, errors, started, ended = [], [], [], [], []
        for entry in self._instance.all_logs(run.run_id):
            event = entry.dagster_event
            if event is None:
                continue
            match event.event_type:
                case dg.DagsterEventType.STEP_START:
                    started.append(entry.timestamp)
                case dg.DagsterEventType.STEP_SUCCESS | dg.DagsterEventType.STEP_FAILURE:
                    ended.append(entry.timestamp)
                case dg.DagsterEventType.ASSET_MATERIALIZATION:
                    made = event.step_materialization_data.materialization
                    if table := self._tables.get(made.asset_key):
                        at = datetime.fromtimestamp(entry.timestamp, UTC)
                        materialized.append(
                            Materialized(table=table, step=event.step_key or "", at=at, metadata=_plain(made.metadata))
                        )
                case dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                    found = event.asset_check_evaluation_data
                    if table := self._tables.get(found.asset_key):
                        checked.append(
                            Checked(
                                table=table,
                                name=found.check_name,
                                passed=found.passed,
                                description=found.description,
                                metadata=_plain(found.metadata),
                            )
                        )
                case _:
                    pass
            if event.is_failure:
                errors.append(_sentence(event))
        return Run(
            id=run.run_id,
            job=run.job_name,
            succeeded=run.is_success,
            seconds=max(ended) - min(started) if started and ended else 0.0,
            materialized=tuple(materialized),
            checked=tuple(checked),
            errors=tuple(dict.fromkeys(errors)),
        )


def _plain(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, Any]:
    return {name: value.value for name, value in metadata.items()}


def _sentence(event: dg.DagsterEvent) -> str:
    """What a failed step said; Dagster's own words about it are left out when it said something."""
    data = event.event_specific_data
    failure = getattr(data, "user_failure_data", None)
    if failure is not None and failure.description:
        return str(failure.description)
    error = getattr(data, "error", None)
    if error is not None:
        return str((error.cause or error).message).strip()
    return event.message or "the run failed"
