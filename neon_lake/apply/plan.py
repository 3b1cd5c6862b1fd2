"""What one commit does to a Delta table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from neon_lake.change import COMMITTED_AT, DELETED_AT, LSN, OP, ROW_ID, SEQUENCE, TIMESTAMP, Lsn
from neon_lake.config import Deletes, WriteMode
from neon_lake.schema import EXCLUDED, IMPRINT, KEY, RESCUED, Relation


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """A TRUNCATE: the commit LSN and commit time of its transaction."""

    lsn: Lsn
    committed_at: datetime


@dataclass(frozen=True, kw_only=True)
class MergePlan:
    """Rows to put and keys to remove; no key is in it twice.

    rows: complete target rows, in `target_schema`; `only_new`: the target has none of their keys, so they can be
    appended without looking; deletes: key columns of the rows to remove; `truncate`: everything that the target has
    goes first (with soft deletes: it is marked as deleted then). `incomplete` counts rows that could not be
    made whole, because the target lacks a row that it should have; they are left out.

    Of a table without a key, `_row_id` stands for the key, and `rows` may hold the same row more than once: all of them
    are put, after all rows whose id is in `deletes` are removed.
    """

    rows: pa.Table
    deletes: pa.Table
    only_new: bool
    truncate: Truncation | None = None
    incomplete: int = 0
    copies: bool = False

    @property
    def empty(self) -> bool:
        """Whether the commit would change nothing but the watermark."""
        return not (len(self.rows) or len(self.deletes) or self.truncate)


def target_schema(
    relation: Relation, deletes: Deletes, excluded: Sequence[str] = (), mode: WriteMode = WriteMode.MIRROR
) -> pa.Schema:
    """The columns of a target table: the source's, `_rescued_data`, `_lsn` and `_committed_at`.

    Without a key also `_row_id`: 16 bytes that rows of the same content share. With soft deletes also `_deleted_at`:
    when the row was deleted at the source, else null. In the mode `append`: `_op` and `_seq` as in the change log (of a
    snapshot's row R and 0), and no key. `excluded` is noted in the schema, so that it is seen when a
    column is excluded no longer; and so is the relation's imprint.
    """
    noted = {EXCLUDED: json.dumps(sorted(excluded))} if excluded else {}
    if relation.imprint:
        noted[IMPRINT] = json.dumps(relation.imprint.to_json())
    position = pa.field(LSN, pa.int64(), metadata=noted or None)
    if mode is WriteMode.APPEND:
        columns = [column.unkeyed for column in relation.columns]
        own = [pa.field(OP, pa.string()), position, pa.field(SEQUENCE, pa.int64()), pa.field(COMMITTED_AT, TIMESTAMP)]
        return pa.schema([*columns, pa.field(RESCUED, pa.string()), *own])
    fields = [*relation.row_schema, pa.field(RESCUED, pa.string())]
    if relation.keyless:
        fields.append(pa.field(ROW_ID, pa.binary(), metadata={KEY: b"true"}))
    fields.append(position)
    fields.append(pa.field(COMMITTED_AT, TIMESTAMP))
    if deletes is Deletes.SOFT:
        fields.append(pa.field(DELETED_AT, TIMESTAMP))
    return pa.schema(fields)


def nothing(schema: pa.Schema) -> MergePlan:
    """A plan that changes no row of a target of this schema."""
    empty = schema.empty_table()
    keys = [f.name for f in schema if f.metadata and KEY in f.metadata]
    return MergePlan(rows=empty, deletes=empty.select(keys), only_new=True)
