"""A Databricks workspace on 127.0.0.1: its HTTP interface, over a SQL engine that writes real Delta tables.

`python -m neon_lake_tests.workspace --engine sail --root DIR` starts one, for tests, the demonstration and benchmarks.
Shapes follow the REST reference (https://docs.databricks.com/api/workspace/introduction) and recordings of real
workspaces (https://github.com/databricks/databricks-jdbc, src/test/resources).
"""
