"""What the changes in a table of the mode `append` come to: the rows that they leave after the last TRUNCATE."""

from __future__ import annotations

from typing import Final

from neon_lake.change import DELETE, INSERT, LSN, OP, READ, SEQUENCE, TRUNCATE

BALANCE: Final = f"""
WITH changes AS (SELECT {OP} AS op, {LSN} AS lsn, {SEQUENCE} AS seq FROM {{table}}),
     emptied AS (SELECT lsn AS at, seq AS place FROM changes WHERE op = '{TRUNCATE}'
                  ORDER BY lsn DESC, seq DESC LIMIT 1)
SELECT coalesce(sum(CASE op WHEN '{READ}' THEN 1 WHEN '{INSERT}' THEN 1 WHEN '{DELETE}' THEN -1 ELSE 0 END), 0) AS n
  FROM changes LEFT JOIN emptied ON true
 WHERE at IS NULL OR lsn > at OR (lsn = at AND seq > place)
"""  # noqa: S608 - names of our own columns alone
"""The statement; `{table}` is the table. It is the same for every engine."""
