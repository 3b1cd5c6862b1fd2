"""From what the pipeline file names to the places themselves: source, staging, destination."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from neon_lake.config import DatabricksConfig, DeltaConfig, Pipeline, UnityConfig, is_url
from neon_lake.destinations.base import Lake, Warehouse
from neon_lake.pipeline.costs import Costs
from neon_lake.pipeline.parts import Parts, Progress
from neon_lake.sources.postgres import PostgresSource
from neon_lake.staging.local import LocalStorage
from neon_lake.staging.log import ChangeLog
from neon_lake.staging.storage import Storage

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from neon_lake.workspace.files import VolumeFiles
    from neon_lake.workspace.statements import Warehouse as SqlWarehouse


@dataclass(frozen=True, kw_only=True)
class _Places:
    storage: Storage
    destination: Lake | Warehouse
    costs: Callable[[], Costs]


def open_parts(config: Pipeline, progress: Callable[[Progress], None], client: WorkspaceClient | None) -> Parts:
    """The parts of a pipeline. Touches nothing yet; `client` takes the place of the one that the file describes."""
    destination = config.destination
    if isinstance(destination, DatabricksConfig):
        places = _on_databricks(config, destination, progress, client)
    elif destination.unity is not None:
        places = _external(config, destination, destination.unity, progress, client)
    else:
        places = _here(config, destination)
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
        return _on_databricks(config, config.destination, lambda _: None, None).storage
    if is_url(config.staging.path):
        from neon_lake.staging.object_store import ObjectStorage  # noqa: PLC0415 - only who has a store loads its client

        return ObjectStorage(config.staging.path, options=config.staging.options)
    return LocalStorage(Path(config.staging.path))


def _here(config: Pipeline, destination: DeltaConfig) -> _Places:
    from neon_lake.destinations.delta import DeltaDestination  # noqa: PLC0415 - see `storage_of`

    root = destination.path if is_url(destination.path) else Path(destination.path)
    lake = DeltaDestination(root, pipeline=config.name, options=destination.options)
    return _Places(storage=storage_of(config), destination=lake, costs=Costs)


def _external(
    config: Pipeline,
    destination: DeltaConfig,
    unity: UnityConfig,
    progress: Callable[[Progress], None],
    client: WorkspaceClient | None,
) -> _Places:
    from neon_lake.destinations.databricks.external import ExternalDestination  # noqa: PLC0415 - see `storage_of`
    from neon_lake.workspace.connection import connect  # noqa: PLC0415

    client = client or connect(unity)
    warehouse = _warehouse(config, unity, progress, client)
    lake = ExternalDestination(client, config, warehouse=warehouse, options=destination.options)
    return _Places(storage=storage_of(config), destination=lake, costs=partial(_costs, warehouse))


def _on_databricks(
    config: Pipeline,
    destination: DatabricksConfig,
    progress: Callable[[Progress], None],
    client: WorkspaceClient | None,
) -> _Places:
    from neon_lake.destinations.databricks import DatabricksDestination  # noqa: PLC0415 - see `storage_of`
    from neon_lake.staging.volume import VolumeStorage  # noqa: PLC0415
    from neon_lake.workspace.connection import connect  # noqa: PLC0415
    from neon_lake.workspace.files import VolumeFiles  # noqa: PLC0415

    client = client or connect(destination)
    files = VolumeFiles(client)
    storage = VolumeStorage(files, config.staging.path)
    warehouse = _warehouse(config, destination, progress, client)
    return _Places(
        storage=storage,
        destination=DatabricksDestination(client, config, storage, warehouse=warehouse),
        costs=partial(_costs, warehouse, files),
    )


def _warehouse(
    config: Pipeline, unity: UnityConfig, progress: Callable[[Progress], None], client: WorkspaceClient
) -> SqlWarehouse:
    from neon_lake.workspace.statements import Warehouse  # noqa: PLC0415 - see `storage_of`

    return Warehouse(
        client,
        unity.warehouse_id,
        label=f"neon_lake pipeline={config.name}",
        notice=lambda said: progress(Progress(verb="warehouse", said=said)),
    )


def _costs(warehouse: SqlWarehouse, files: VolumeFiles | None = None) -> Costs:
    return Costs(
        statements=warehouse.usage.statements,
        warehouse_seconds=warehouse.usage.seconds,
        starting_seconds=warehouse.usage.starting,
        bytes_uploaded=files.traffic.uploaded if files else 0,
    )
