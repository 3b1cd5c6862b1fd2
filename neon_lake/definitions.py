"""The code location: the pipeline that `NEON_LAKE_CONFIG` names, else `neon_lake.yaml` in the working directory."""

import dagster as dg

from neon_lake.config import config_path
from neon_lake.orchestration import build_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """Everything of the pipeline. Raises `ConfigError` with one sentence when its file is missing or wrong."""
    return build_definitions(config_path())
