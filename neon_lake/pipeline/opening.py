"""From what the pipeline file names to the places themselves: source, staging, destination."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neon_lake.config import DatabricksConfig, Pipeline, is_url
from neon_lake.destinations.base import Lake, Warehouse
from neon_lake.pipeline.costs import Costs
from neon_lake.pipeline.parts import Parts, Progress
from neon_lake.sources.postgres import PostgresSource
from neon_lake.staging.local import LocalStorage
from neon_lake.staging.log import ChangeLog
from neon_lake.staging.storage import Storage

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


@dataclass(frozen=True, kw_only=True)
class _Places:
    storage: Storage
    destination: Lake | Warehouse
    costs: Callable[[], Costs]


def open_parts(config: Pipeline, progress: Callable[[Progress], None], client: WorkspaceClient | None) -> Parts:
    """The parts of a pipeline. Touches nothing yet; `client` takes the place of the one that the file describes."""
    places = (
        _on_databricks(config, progress, client) if isinstance(config.destination, DatabricksConfig) else _here(config)
    )
    return Parts(
        config=config,
        source=PostgresSource.of(config),
        log=ChangeLog(places.storage, memory=config.limits.memory_mb << 20),
        destination=places.destination,
        progress=progress,
        costs=places.costs,
    )


def storage_of(config: Pipeline) -> Storage:
    """Where staging lies. Touches nothing yet."""
    if isinstance(config.destination, DatabricksConfig):
        return _on_databricks(config, lambda _: None, None).storage
    if is_url(config.staging.path):
        from neon_lake.staging.object_store import ObjectStorage  # noqa: PLC0415 - only who has a store loads its client

        return ObjectStorage(config.staging.path, options=config.staging.options)
    return LocalStorage(Path(config.staging.path))


def _here(config: Pipeline) -> _Places:
    from neon_lake.destinations.delta import DeltaDestination  # noqa: PLC0415 - see `storage_of`

    destination = config.destination
    assert not isinstance(destination, DatabricksConfig)
    root = destination.path if is_url(destination.path) else Path(destination.path)
    lake = DeltaDestination(root, pipeline=config.name, options=destination.options)
    return _Places(storage=storage_of(config), destination=lake, costs=Costs)


def _on_databricks(config: Pipeline, progress: Callable[[Progress], None], client: WorkspaceClient | None) -> _Places:
    from neon_lake.destinations.databricks import DatabricksDestination  # noqa: PLC0415 - see `storage_of`
    from neon_lake.staging.volume import VolumeStorage  # noqa: PLC0415
    from neon_lake.workspace.connection import connect  # noqa: PLC0415
    from neon_lake.workspace.files import VolumeFiles  # noqa: PLC0415
    from neon_lake.workspace.statements import Warehouse as SqlWarehouse  # noqa: PLC0415

    assert isinstance(config.destination, DatabricksConfig)
    client = client or connect(config.destination)
    files = VolumeFiles(client)
    storage = VolumeStorage(files, config.staging.path)
    warehouse = SqlWarehouse(
        client,
        config.destination.warehouse_id,
        label=f"neon_lake pipeline={config.name}",
        notice=lambda said: progress(Progress(verb="warehouse", said=said)),
    )

    def costs() -> Costs:
        used, moved = warehouse.usage, files.traffic
        return Costs(
            statements=used.statements,
            warehouse_seconds=used.seconds,
            starting_seconds=used.starting,
            bytes_uploaded=moved.uploaded,
        )

    destination = DatabricksDestination(client, config, storage, warehouse=warehouse)
    return _Places(storage=storage, destination=destination, costs=costs)
