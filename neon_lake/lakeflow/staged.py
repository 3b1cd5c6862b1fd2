"""The files of one table as a table: all that was staged of it, whether or not a manifest names it."""

# ruff: noqa: S608 - names come quoted, or spelt by `internal`, and values as literals of `sql.text`

from __future__ import annotations

import pyarrow as pa

from neon_lake.apply.delta_types import delta_type
from neon_lake.change import COMMITTED_AT, LSN, OLD_KEY, OP, READ, SEQUENCE, UNCHANGED, XID
from neon_lake.destinations.databricks.sql import quoted, text
from neon_lake.lakeflow.exported import LOG, STAGING, Exported, new, old, parameter
from neon_lake.lakeflow.log import file_of
from neon_lake.schema import RESCUED

_MISREAD = "_misread"


def staged_sql(table: Exported) -> str:
    """The statements that read a table's segments: changes by one flow, rows of snapshots by another.

    Columns of the table: file, op, lsn, seq, at, unchanged, moved, rescued, misread, and of the source's columns the
    values after (`c_…`) and, as far as `_old_key` has them, before (`o_…`) a change. Of rows of a snapshot lsn and at
    are null: the log has them.
    """
    columns = {
        "file": "STRING",
        "op": "STRING",
        "lsn": "BIGINT",
        "seq": "BIGINT",
        "at": "TIMESTAMP",
        "unchanged": "ARRAY<STRING>",
        "moved": "BOOLEAN",
        "rescued": "STRING",
        "misread": "STRING",
        **{new(column): _type(column.arrow) for column in table.relation.columns},
        **{old(column): _type(column.arrow) for column in table.identifying},
        **({"o_rescued": "STRING"} if table.relation.keyless else {}),
    }
    declared = ",\n".join(f"  {name} {kind}" for name, kind in columns.items())
    return f"""\
-- All that is staged of the table. The flows wait for {LOG}: what that names is on the volume when they list it.
CREATE OR REFRESH PRIVATE STREAMING TABLE {table.staged} (
{declared}
)
CLUSTER BY (file)
COMMENT {text(f"What is staged of {table.relation.table}")};

CREATE FLOW {table.flow("changes")} AS INSERT INTO {table.staged} BY NAME
SELECT
{_listed(_of_changes(table))}
FROM STREAM {_files(table, changes=True)} AS f
CROSS JOIN (SELECT count(*) AS listed FROM {LOG}) AS before
WHERE {_own(table)};

CREATE FLOW {table.flow("rows")} AS INSERT INTO {table.staged} BY NAME
SELECT
{_listed(_of_rows(table))}
FROM STREAM {_files(table, changes=False)} AS f
CROSS JOIN (SELECT count(*) AS listed FROM {LOG}) AS before
WHERE {_own(table)};
"""


def _of_changes(table: Exported) -> dict[str, str]:
    chosen = {
        "file": file_of("f._metadata.file_path"),
        "op": f"f.{OP}",
        "lsn": f"f.{LSN}",
        "seq": f"f.{SEQUENCE}",
        "at": f"f.{COMMITTED_AT}",
        "unchanged": f"f.{UNCHANGED}",
        "moved": f"f.{OLD_KEY} IS NOT NULL" if table.identifying else "false",
        "rescued": f"f.{RESCUED}",
        "misread": f"f.{_MISREAD}",
    }
    chosen |= {new(column): f"f.{quoted(column.name)}" for column in table.relation.columns}
    chosen |= {old(column): f"f.{OLD_KEY}.{quoted(column.name)}" for column in table.identifying}
    if table.relation.keyless:
        chosen["o_rescued"] = f"f.{OLD_KEY}.{RESCUED}"
    return chosen


def _of_rows(table: Exported) -> dict[str, str]:
    chosen = {
        "file": file_of("f._metadata.file_path"),
        "op": text(READ),
        "seq": "CAST(0 AS BIGINT)",
        "moved": "false",
        "rescued": f"f.{RESCUED}",
        "misread": f"f.{_MISREAD}",
    }
    return chosen | {new(column): f"f.{quoted(column.name)}" for column in table.relation.columns}


def _listed(chosen: dict[str, str]) -> str:
    return ",\n".join(f"  {value} AS {name}" for name, value in chosen.items())


def _files(table: Exported, *, changes: bool) -> str:
    """The files that may be the table's: a name with more behind it may be another's."""
    named = table.relation.table.path
    folder = "batches/*" if changes else f"snapshots/{named}/*"
    path = f"{parameter(STAGING)}/{folder}/{named.replace('/', '.')}-*.parquet"
    options = {
        "format": "'parquet'",
        "schema": text(_schema(table, changes=changes)),
        "rescuedDataColumn": text(_MISREAD),
    }
    given = ",\n  ".join([f"'{path}'", *(f"{name} => {value}" for name, value in options.items())])
    return f"read_files(\n  {given}\n)"


def _own(table: Exported) -> str:
    name = table.relation.table.path.replace("/", ".").replace(".", "[.]")
    return f"f._metadata.file_name RLIKE {text(f'^{name}-[0-9]+[.]parquet$')}"


def _schema(table: Exported, *, changes: bool) -> str:
    """The columns of a segment, as docs/staging-format.md has them."""
    source = [f"{quoted(column.name)} {_type(column.arrow)}" for column in table.relation.columns]
    if not changes:
        return ", ".join([*source, f"{RESCUED} STRING"])
    own = [f"{OP} STRING", f"{LSN} BIGINT", f"{SEQUENCE} BIGINT", f"{XID} BIGINT", f"{COMMITTED_AT} TIMESTAMP"]
    own.append(f"{UNCHANGED} ARRAY<STRING>")
    before = [f"{quoted(column.name)}: {_type(column.arrow)}" for column in table.identifying]
    if table.relation.keyless:
        before.append(f"{RESCUED}: STRING")
    if before:
        own.append(f"{OLD_KEY} STRUCT<{', '.join(before)}>")
    return ", ".join([*own, f"{RESCUED} STRING", *source])


def _type(kind: pa.DataType) -> str:
    return delta_type(kind).upper()
