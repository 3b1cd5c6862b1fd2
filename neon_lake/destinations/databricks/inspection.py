"""Whether a workspace gives what a pipeline needs: said by its REST interface, without starting the warehouse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from neon_lake.config import UnityConfig
from neon_lake.errors import DestinationError, Finding
from neon_lake.workspace.connection import asked, in_path, translated

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


class Inspection:
    """Looks at one thing after another; the first that is wrong ends it, since the others depend on it.

    `root` is where staging lies on a volume, if it does.
    """

    def __init__(self, client: WorkspaceClient, config: UnityConfig, root: str | None = None) -> None:
        self._client, self._config, self._root = client, config, root

    def findings(self) -> Sequence[Finding]:
        """What was looked at, in the order in which a person would set it up."""
        config, client = self._config, self._client
        found: list[Finding] = []
        steps: list[tuple[str, str, Callable[[], Any]]] = [
            ("sign-in", "check host and credentials", client.current_user.me),
            (
                f"SQL warehouse {config.warehouse_id}",
                "name one as destination.warehouse that there is, and grant this identity CAN USE on it",
                lambda: client.warehouses.get(config.warehouse_id),
            ),
            (
                f"catalog {config.catalog}",
                "make it, and grant this identity USE CATALOG on it",
                lambda: client.catalogs.get(in_path(config.catalog)),
            ),
            *(
                (
                    f"schema {config.catalog}.{name}",
                    "make it, and grant this identity USE SCHEMA, CREATE TABLE, SELECT and MODIFY on it",
                    lambda name=name: client.schemas.get(in_path(f"{config.catalog}.{name}")),
                )
                for name in dict.fromkeys([*([config.schema] if config.schema else []), *config.schemas.values()])
            ),
        ]
        if self._root is not None:
            volume = ".".join(self._root.split("/")[2:5])
            remedy = "make it, and grant this identity READ VOLUME and WRITE VOLUME on it"
            steps.append((f"volume {volume}", remedy, lambda: client.volumes.read(in_path(volume))))
        for what, remedy, look in steps:
            try:
                with translated(what, remedy):
                    asked(client, look)
            except DestinationError as exc:
                return [*found, Finding(subject="destination", detail=what, problem=str(exc))]
            found.append(Finding(subject="destination", detail=f"{what} is there"))
        return found
