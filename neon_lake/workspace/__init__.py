"""The one door to a Databricks workspace: its connection, its SQL warehouse, and the files of its volumes."""
