"""Delta tables in Unity Catalog, written by a SQL warehouse from what is staged on a volume."""

from neon_lake.destinations.databricks.destination import DatabricksDestination

__all__ = ["DatabricksDestination"]
