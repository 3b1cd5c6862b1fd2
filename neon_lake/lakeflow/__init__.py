"""A pipeline of Databricks' own over the change log on a volume: SQL of a Lakeflow pipeline, and a bundle around it.

Pure, but for `writing`. Databricks reads what `sync` stages, and keeps tables of its own by AUTO CDC, beside the ones
that a SQL warehouse merges.
Source: https://docs.databricks.com/ldp/developer/ldp-sql-ref-apply-changes-into
"""

from neon_lake.lakeflow.exporting import Export, export, of_databricks

__all__ = ["Export", "export", "of_databricks"]
