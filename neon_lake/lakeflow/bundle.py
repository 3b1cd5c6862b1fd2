"""An Asset Bundle: what `databricks bundle deploy` makes of the SQL files.

Source: https://docs.databricks.com/dev-tools/bundles/settings, and the schema that `databricks bundle schema` prints
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from neon_lake.config import DatabricksConfig, Pipeline
from neon_lake.lakeflow.exported import STAGING

_HEAD = """\
# The change log of the pipeline {name}, kept as tables by a pipeline of Databricks' own. Written by
# `neon-lake export lakeflow`; docs/databricks.md tells how to use it.
#
#   databricks bundle validate
#   databricks bundle deploy --target dev       schemas of your own, and no schedule
#   databricks bundle run {key} --target dev
#   databricks bundle deploy --target prod
#
# It signs in as the CLI does (a profile, or the environment): no secret belongs here.
"""


def bundle(pipeline: Pipeline, files: Sequence[str], schemas: Mapping[str, str]) -> str:
    """The text of `databricks.yml`. `files` are relative to it; `schemas`: parameter of the SQL → a schema's name."""
    destination = pipeline.destination
    assert isinstance(destination, DatabricksConfig)
    key = f"neon_lake_{pipeline.name}"
    # the schemas of a developer's target get the developer's name: whoever names one, names the resource
    places = {place: f"${{resources.schemas.{_resource(place)}.name}}" for place in schemas}
    first = next(iter(places.values()))
    data: dict[str, Any] = {
        "bundle": {"name": key},
        "variables": {
            "catalog": {"description": "The catalog of the tables", "default": destination.catalog},
            "suffix": {
                "description": "What is put behind the names of schemas, beside those that a SQL warehouse writes",
                "default": "_lakeflow",
            },
            "staging": {"description": "Where the change log lies", "default": pipeline.staging.path},
            "schedule": {
                "description": "When the pipeline runs, in Quartz' syntax and UTC",
                "default": "0 0/15 * * * ?",
            },
        },
        "resources": {
            "schemas": {
                _resource(place): {"catalog_name": "${var.catalog}", "name": f"{name}${{var.suffix}}"}
                for place, name in schemas.items()
            },
            "pipelines": {
                key: {
                    "name": key,
                    "serverless": True,
                    "continuous": False,
                    "catalog": "${var.catalog}",
                    "schema": first,
                    "configuration": {STAGING: "${var.staging}", **places},
                    "libraries": [{"file": {"path": file}} for file in files],
                }
            },
            "jobs": {
                f"{key}_schedule": {
                    "name": f"{key}_schedule",
                    "max_concurrent_runs": 1,
                    "schedule": {
                        "quartz_cron_expression": "${var.schedule}",
                        "timezone_id": "UTC",
                        "pause_status": "UNPAUSED",
                    },
                    "tasks": [
                        {
                            "task_key": "update",
                            "pipeline_task": {"pipeline_id": f"${{resources.pipelines.{key}.id}}"},
                        }
                    ],
                }
            },
        },
        "targets": {
            "dev": {"mode": "development", "default": True, "workspace": _workspace(destination)},
            "prod": {
                "mode": "production",
                "workspace": _workspace(destination)
                | {
                    "root_path": "/Workspace/Users/${workspace.current_user.userName}/.bundle/"
                    "${bundle.name}/${bundle.target}"
                },
            },
        },
    }
    for target in data["targets"].values():
        if not target["workspace"]:
            del target["workspace"]
    return _HEAD.format(name=pipeline.name, key=key) + "\n" + yaml.safe_dump(data, sort_keys=False, width=120)


def _resource(place: str) -> str:
    return place.rpartition(".")[2]


def _workspace(destination: DatabricksConfig) -> dict[str, str]:
    """Which workspace, as far as the pipeline file says it; a bundle takes no variable there."""
    if destination.host is not None:
        return {"host": destination.host if "://" in destination.host else f"https://{destination.host}"}
    return {"profile": destination.profile} if destination.profile is not None else {}
