"""Dagster: assets, checks, sensor, schedules and jobs of a pipeline."""

from neon_lake.orchestration.build import build_definitions
from neon_lake.orchestration.component import NeonLakeComponent
from neon_lake.orchestration.resources import PostgresResource, ReplicationResource
from neon_lake.orchestration.translator import Translator

__all__ = ["NeonLakeComponent", "PostgresResource", "ReplicationResource", "Translator", "build_definitions"]
