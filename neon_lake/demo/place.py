"""The demonstration's directory: pipeline file and Dagster's home, and the lake if it is local; all temporary."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from neon_lake.demo.lake import Lake

PIPELINE: Final = "shop"

_DAGSTER: Final[dict[str, Any]] = {
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},
    "concurrency": {"pools": {"default_limit": 1, "granularity": "run"}, "runs": {"max_concurrent_runs": 2}},
    "run_coordinator": {
        "module": "dagster.core.run_coordinator",
        "class": "QueuedRunCoordinator",
        "config": {"dequeue_interval_seconds": 1},
    },
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A directory that holds everything of one demonstration."""

    root: Path

    @property
    def pipeline_file(self) -> Path:
        """The pipeline file."""
        return self.root / "neon_lake.yaml"

    @property
    def workspace_file(self) -> Path:
        """Where Dagster's programs find the code location."""
        return self.root / "workspace.yaml"

    @property
    def dagster_home(self) -> Path:
        """What Dagster knows of runs, assets and checks."""
        return self.root / "dagster"

    def log(self, name: str) -> Path:
        """The file with a program's output."""
        return self.root / f"{name}.log"

    def furnish(self, url: str, lake: Lake, *, code_port: int, hurry: bool) -> None:
        """Write every file. `hurry` has the sensor start a run as often as Dagster can, else a few times a minute."""
        pace = {"interval_seconds": 5, "lag_kb": 16, "max_age_seconds": 5}
        calm = {"interval_seconds": 15, "lag_kb": 1024, "max_age_seconds": 20}
        # Partitions need to begin before the first change, and each one is a square in the UI: yesterday will do.
        start = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:00:00")
        self._write(
            self.pipeline_file,
            {
                "pipeline": PIPELINE,
                "source": {"kind": "postgres", "url": url},
                "staging": dict(lake.staging),
                "destination": dict(lake.destination),
                "tables": ["public.*"],
                "orchestration": {"start": start, **(pace if hurry else calm)},
            },
        )
        server = {"host": "127.0.0.1", "port": code_port, "location_name": "neon_lake"}
        self._write(self.workspace_file, {"load_from": [{"grpc_server": server}]})
        self.dagster_home.mkdir()
        self._write(self.dagster_home / "dagster.yaml", _DAGSTER)

    def environment(self) -> dict[str, str]:
        """The environment of Dagster's programs: this process's, without what speaks of another pipeline."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("DAGSTER_", "NEON_LAKE_", "PG"))}
        return kept | {"DAGSTER_HOME": str(self.dagster_home), "NEON_LAKE_CONFIG": str(self.pipeline_file)}

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")


def free_port(wanted: int = 0) -> int:
    """A free TCP port of 127.0.0.1: the wanted one if nobody has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])
