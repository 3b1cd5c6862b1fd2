"""The code location: the pipeline that `NEON_LAKE_CONFIG` names, else `neon_lake.yaml` in the working directory."""

import dagster as dg

from neon_lake.errors import ConfigError
from neon_lake.orchestration import build_definitions
from neon_lake.pipeline_file import config_path


@dg.definitions
def defs() -> dg.Definitions:
    """Everything of the pipeline. Raises `ConfigError` with one sentence when its file is missing or wrong."""
    try:
        return build_definitions(config_path())
    except ConfigError as exc:
        # raised anew: Dagster shows what led to an error, which would bury the sentence
        raise ConfigError(str(exc)) from None
