"""How many rows a statement changed, as Databricks reports it: from the table's log, where the engine says less."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from neon_lake_tests.workspace.delta_log import metrics_since


def counts_of(verb: str, given: pa.Table, location: str, before: int) -> pa.Table:
    """One row of counts. `given`: what the engine gave; `before`: the version that the table had."""
    if "num_affected_rows" in given.column_names:
        return given
    metrics: Mapping[str, int] = {}
    wanted = "WRITE" if verb == "INSERT" else verb
    for operation, found in metrics_since(location, before):
        if operation == wanted:
            metrics = found
    if verb == "MERGE":
        updated, deleted, inserted = (
            metrics.get(f"numTargetRows{name}", 0) for name in ("Updated", "Deleted", "Inserted")
        )
        return _row(
            num_affected_rows=updated + deleted + inserted,
            num_updated_rows=updated,
            num_deleted_rows=deleted,
            num_inserted_rows=inserted,
        )
    if verb == "INSERT":
        count = metrics.get("numOutputRows", 0)
        return _row(num_affected_rows=count, num_inserted_rows=count)
    return _row(num_affected_rows=metrics.get("numUpdatedRows" if verb == "UPDATE" else "numDeletedRows", 0))


def _row(**counts: int) -> pa.Table:
    return pa.table({name: pa.array([count], pa.int64()) for name, count in counts.items()})
