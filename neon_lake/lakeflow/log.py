"""The manifests of the change log as tables: what counts of all the files on the volume.

The manifests come first, and then the files that they name. A segment is stored before its manifest is, so who lists
them in this order misses none; and a segment that no manifest names is never asked for.
See docs/staging-format.md.
"""

# ruff: noqa: S608 - names come quoted, or spelt by `internal`, and values as literals of `sql.text`

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from neon_lake.destinations.databricks.sql import text
from neon_lake.lakeflow.exported import BROKEN, LOG, MANIFESTS, SOUND, STAGING, parameter
from neon_lake.schema import TableName
from neon_lake.staging.seal import FORMAT

_RELATION: Final = "STRUCT<`schema`: STRING, `name`: STRING>"
_DOCUMENT: Final = (
    "STRUCT<`format`: INT, `sha256`: STRING, `body`: STRUCT<"
    f"`start`: STRING, `end`: STRING, `gap`: STRING, `lsn`: STRING, `taken_at`: STRING, `relation`: {_RELATION}, "
    f"`relations`: ARRAY<{_RELATION}>, "
    "`segments`: ARRAY<STRUCT<`path`: STRING, `relation`: INT, `rows`: BIGINT>>>>"
)

_FILE: Final = r"([0-9a-f]{16}-[0-9a-f]{8})/[^/]*-([0-9]+)[.]parquet$"


MISSING: Final = "are missing in the change log; run neon-lake resync for it, then start an update"


def file_of(path: str) -> str:
    """An expression: what names a segment, from its path, whatever comes before and however that is encoded."""
    parts = [f"regexp_extract({path}, {text(_FILE)}, {group})" for group in (1, 2)]
    return f"concat({parts[0]}, '/', {parts[1]})"


def raised(sentence: str) -> str:
    """A condition that ends the flow, with a sentence."""
    return f"CAST(raise_error({text(f'neon_lake: {sentence}')}) AS BOOLEAN)"


def _position(lsn: str) -> str:
    """An expression: the number of a position, which is written as `16/B374D848`."""
    high, low = (f"CAST(conv(split({lsn}, '/')[{part}], 16, 10) AS BIGINT)" for part in (0, 1))
    return f"{high} * 4294967296 + {low}"


def log_sql(tables: Sequence[TableName]) -> str:
    """The statements that read the manifests, and look after the tables that are exported."""
    staging = parameter(STAGING)
    exported = ",\n  ".join(f"({text(table.schema)}, {text(table.name)}, {text(str(table))})" for table in tables)
    return f"""\
-- What counts of the change log: what its manifests name. Files of a capture that died are on the volume too, and no
-- manifest names them. Every other file of this pipeline builds on these three.

-- The manifests, each as it was stored. One whose checksum does not fit ends the update.
CREATE OR REFRESH PRIVATE STREAMING TABLE {MANIFESTS}
COMMENT 'The manifests of the change log'
AS SELECT document.body AS body
FROM (
  SELECT
    from_json(value, {text(_DOCUMENT)}) AS document,
    substring(value, instr(value, '\\n') + 1, length(value) - instr(value, '\\n') - 3) AS sealed
  FROM (
    SELECT value FROM STREAM read_files('{staging}/manifests/*.json', format => 'text', wholeText => true)
    UNION ALL
    SELECT value FROM STREAM read_files('{staging}/snapshots/*/*/*.json', format => 'text', wholeText => true)
  )
)
WHERE CASE
  WHEN document.format IS NULL OR document.format <> {FORMAT}
    THEN {raised("a manifest has a format that this SQL does not know; export it anew")}
  WHEN sha2(sealed, 256) <> document.sha256
    THEN {raised("a manifest is damaged (its checksum does not fit); restore it, or resync its tables")}
  ELSE true
END;

-- One row for each segment of changes (kind changes), each segment of a snapshot (rows) and each snapshot (snapshot).
-- lsn: the place of a snapshot, which is just before what it does not have.
CREATE OR REFRESH PRIVATE STREAMING TABLE {LOG}
COMMENT 'The segments and snapshots that manifests name'
AS SELECT
  'changes' AS kind, named.`schema` AS table_schema, named.name AS table_name,
  {file_of("segment.path")} AS file,
  segment.`rows` AS row_count, CAST(NULL AS BIGINT) AS lsn, CAST(NULL AS TIMESTAMP) AS taken_at
FROM (
  SELECT element_at(relations, segment.relation + 1) AS named, segment
  FROM (
    SELECT body.relations AS relations, explode(body.segments) AS segment
    FROM STREAM({MANIFESTS}) WHERE body.`start` IS NOT NULL
  )
)
UNION ALL
SELECT
  'rows', relation.`schema`, relation.name,
  {file_of("segment.path")},
  segment.`rows`, {_position("position")} - 1, CAST(taken_at AS TIMESTAMP)
FROM (
  SELECT body.relation AS relation, body.lsn AS position, body.taken_at AS taken_at, explode(body.segments) AS segment
  FROM STREAM({MANIFESTS}) WHERE body.lsn IS NOT NULL
)
UNION ALL
SELECT
  'snapshot', body.relation.`schema`, body.relation.name, CAST(NULL AS STRING),
  CAST(NULL AS BIGINT), {_position("body.lsn")} - 1, CAST(body.taken_at AS TIMESTAMP)
FROM STREAM({MANIFESTS}) WHERE body.lsn IS NOT NULL;

-- Up to where changes are missing: they were not captured, or their manifest was removed before it was read here. A
-- table is right when it has a snapshot from there on.
CREATE TEMPORARY VIEW {BROKEN}
AS SELECT coalesce(max(lsn), 0) AS until
FROM (
  SELECT {_position("body.`end`")} AS lsn
  FROM {MANIFESTS} WHERE body.gap IS NOT NULL
  UNION ALL
  SELECT {_position("later.`start`")} AS lsn
  FROM (SELECT body.`start` AS `start` FROM {MANIFESTS} WHERE body.`start` <> '0/0') AS later
  LEFT ANTI JOIN (SELECT body.`end` AS `end` FROM {MANIFESTS} WHERE body.`start` IS NOT NULL) AS earlier
    ON earlier.`end` = later.`start`
);

-- Fails the update as long as a table lacks changes, also when it has no new ones.
CREATE OR REFRESH PRIVATE MATERIALIZED VIEW {SOUND}
COMMENT 'The tables, and the place of their last snapshot'
AS SELECT t.title, l.newest
FROM VALUES
  {exported}
AS t(table_schema, table_name, title)
CROSS JOIN {BROKEN} AS b
LEFT JOIN (
  SELECT table_schema, table_name, max(lsn) + 1 AS newest
  FROM {LOG} WHERE kind = 'snapshot' GROUP BY table_schema, table_name
) AS l ON l.table_schema = t.table_schema AND l.table_name = t.table_name
WHERE CASE
  WHEN coalesce(l.newest, -1) < b.until OR l.newest IS NULL
    THEN CAST(raise_error(concat('neon_lake: changes of ', t.title, {text(f" {MISSING}")})) AS BOOLEAN)
  ELSE true
END;
"""
