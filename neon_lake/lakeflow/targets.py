"""The tables that people read: kept by AUTO CDC, or one row for every change.

Source: https://docs.databricks.com/ldp/developer/ldp-sql-ref-apply-changes-into
"""

# ruff: noqa: S608 - names come quoted, or spelt by `internal`, and values as literals of `sql.text`

from __future__ import annotations

import re

from neon_lake.change import COMMITTED_AT, DELETE, LSN, OP, SEQUENCE, TRUNCATE
from neon_lake.destinations.databricks.sql import quoted, text
from neon_lake.lakeflow.events import HALF, SENT, events_sql
from neon_lake.lakeflow.exported import Exported
from neon_lake.lakeflow.staged import staged_sql


def table_sql(table: Exported) -> str:
    """The file of a table: its segments, its events, and the target."""
    return f"{_head(table)}\n{staged_sql(table)}\n{events_sql(table)}\n{target_sql(table)}"


def target_sql(table: Exported) -> str:
    """The statements of the target."""
    comment = table.relation.comment or f"The table {table.relation.table} of Postgres"
    options = f"\nTBLPROPERTIES ({text('delta.columnMapping.mode')} = 'name')" if _odd(table) else ""
    made = f"CREATE OR REFRESH STREAMING TABLE {table.target}\nCOMMENT {text(comment)}{options}"
    if table.appends:
        return f"{made}\nAS SELECT * FROM STREAM({table.events});\n"
    own = [OP, SEQUENCE, HALF, *([SENT] if table.partial else [])]
    clauses = [
        f"KEYS ({', '.join(quoted(column.name) for column in table.keys)})",
        *([] if table.soft else [f"APPLY AS DELETE WHEN {OP} = {text(DELETE)}"]),
        *([f"APPLY AS TRUNCATE WHEN {OP} = {text(TRUNCATE)}"] if table.truncates else []),
        f"SEQUENCE BY STRUCT({LSN}, {SEQUENCE}, {HALF})",
        f"COLUMNS * EXCEPT ({', '.join(own)})",
        f"STORED AS SCD TYPE {table.scd}",
        *([f"TRACK HISTORY ON * EXCEPT ({LSN}, {COMMITTED_AT})"] if table.scd == 2 else []),
        *([f"COLUMNS TO UPDATE {SENT}"] if table.partial else []),
    ]
    flow = f"CREATE FLOW {table.flow('auto_cdc')} AS AUTO CDC INTO {table.target}\nFROM STREAM({table.events})\n"
    return f"{made};\n\n{flow}" + "\n".join(clauses) + ";\n"


def needs(table: Exported) -> list[str]:
    """What a table asks of its source or of the workspace, or cannot have: sentences."""
    name = table.relation.table
    said = []
    if table.open and table.appends:
        said.append(
            "A value that was not sent, because it is stored apart and did not change, is null, and its column is "
            f"named in _unchanged; with ALTER TABLE {name.sql} REPLICA IDENTITY FULL every value is sent."
        )
    if table.partial:
        said.append(
            "An update may speak of some columns alone, which _sent names: this needs a workspace whose AUTO CDC knows "
            "COLUMNS TO UPDATE."
        )
    if table.partial and table.open:
        said.append(
            "An update that changes the key of a row and leaves a value unsent ends the flow with a sentence; with "
            f"ALTER TABLE {name.sql} REPLICA IDENTITY FULL at the source this cannot happen."
        )
    if table.scd == 2 and not table.appends:
        said.append("Where __END_AT is null is the row as it is now. TRUNCATE is the end of each row.")
    if table.soft:
        said.append("A deleted row stays, with the time of its end in _deleted_at.")
    return said


def _head(table: Exported) -> str:
    name = table.relation.table
    what = (
        "a row for every change"
        if table.appends
        else "its rows as they are (SCD type 1)"
        if table.scd == 1
        else "all versions of its rows (SCD type 2)"
    )
    lines = [f"{name}: {what}.", *needs(table)]
    return "".join(f"-- {' '.join(line.split())}\n" for line in lines)


def _odd(table: Exported) -> bool:
    """Whether a column's name has a character that Delta takes with column mapping only.

    Source: https://docs.databricks.com/delta/column-mapping
    """
    return any(re.search(r"[ ,;{}()\n\t=]", column.name) for column in table.relation.columns)
