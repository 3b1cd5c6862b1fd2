"""A pipeline as a component: a line of YAML in a Dagster project of one's own."""

from pathlib import Path

import dagster as dg

from neon_lake.orchestration.build import build_definitions


class NeonLakeComponent(dg.Component, dg.Model, dg.Resolvable):
    """Postgres tables as Delta tables, as a neon_lake pipeline file describes them.

    `config_path` is that file's path, relative to the file that holds the component. Names of jobs, sensor, schedules
    and resources begin with the pipeline's name.
    """

    config_path: str

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions of the pipeline. Raises `ConfigError`."""
        return build_definitions(Path(context.path) / self.config_path, qualified=True)
