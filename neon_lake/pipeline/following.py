"""Does a target still have the shape that the source and the pipeline file ask for, and what makes it so."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.apply.plan import target_schema
from neon_lake.change import DELETED_AT, LSN, OP, TRUNCATE
from neon_lake.config import Deletes, Table, WriteMode
from neon_lake.destinations.base import Target
from neon_lake.errors import ResyncNeeded, TableRefused
from neon_lake.imprint import Imprint
from neon_lake.pipeline.parts import Parts
from neon_lake.schema import EXCLUDED, IMPRINT, Relation, difference
from neon_lake.staging.manifest import Manifest


def check_settings(target: Target, settings: Table) -> None:
    """Raise `ResyncNeeded` when the pipeline file has changed in a way that only a new snapshot can follow."""
    if (OP in target.schema.names) is not (settings.mode is WriteMode.APPEND):
        raise ResyncNeeded(f"The mode of {target.table} is {settings.mode} now.")
    if DELETED_AT in target.schema.names and settings.deletes is Deletes.HARD:
        raise ResyncNeeded(f"Deletes of {target.table} are hard now, and its Delta table keeps deleted rows.")
    if taken_in := _excluded(target) - set(settings.exclude):
        raise ResyncNeeded(f"Column {min(taken_in)} of {target.table} is no longer excluded.")


def _excluded(target: Target) -> set[str]:
    return set(json.loads((target.schema.field(LSN).metadata or {}).get(EXCLUDED, b"[]")))


def note_excluded(parts: Parts, target: Target, settings: Table) -> Target:
    """Let the target note which columns are left at the source."""
    if _excluded(target) == set(settings.exclude):
        return target
    return parts.destination.annotate(target, LSN, {EXCLUDED: json.dumps(sorted(settings.exclude))})


def check_imprint(target: Target, relation: Relation) -> None:
    """Raise `ResyncNeeded` when rows of the table changed at the source in a way that is not sent."""
    old = _imprint(target)
    if old and relation.imprint and (unseen := relation.imprint.unseen(old)):
        raise ResyncNeeded(f"Rows of {target.table} changed without being sent: {unseen}.")


def check_partitions(relation: Relation, chain: Sequence[Manifest]) -> None:
    """Raise `ResyncNeeded` when rows came from a partition that the table has no longer.

    It may be younger than the target's imprint, and no row of it was deleted when it went.
    """
    if relation.imprint is None:
        return
    present = {int(oid.partition("/")[0]) for oid in relation.imprint.files}
    seen = {oid for manifest in chain for table, oid in manifest.partitions if table == relation.table}
    if seen - present:
        raise ResyncNeeded(f"Rows of {relation.table} went without being sent: a partition was detached or dropped.")


def _imprint(target: Target) -> Imprint | None:
    noted = (target.schema.field(LSN).metadata or {}).get(IMPRINT)
    return Imprint.from_json(json.loads(noted)) if noted else None


def note_imprint(parts: Parts, target: Target, relation: Relation) -> Target:
    """Let the target hold the relation's imprint, when it has every change of before."""
    if relation.imprint is None or relation.imprint == _imprint(target):
        return target
    return parts.destination.annotate(target, LSN, {IMPRINT: json.dumps(relation.imprint.to_json())})


def check_keys(relation: Relation, rows: pa.Table | pa.RecordBatch) -> None:
    """Raise `TableRefused` when a row's key has a value that its column in the lake cannot hold.

    `rows` are of a snapshot or changes; a TRUNCATE has no key.
    """
    if OP in rows.schema.names and any(rows[column.name].null_count for column in relation.key):
        rows = rows.filter(pc.not_equal(rows[OP], TRUNCATE))
    for column in relation.key:
        if rows[column.name].null_count:
            raise TableRefused(
                f"A key of {relation.table} has a value that {column.arrow} cannot hold, such as an infinite date, "
                f"in {column.name}; correct the row, or leave the table out with skip: true."
            )


def follow(parts: Parts, target: Target, relation: Relation, settings: Table) -> Target:
    """Give a target that has every change of its table the columns that the table has now, and its imprint.

    DDL alone sends nothing: it shows in the stream only with the next change of a row. Raises `ResyncNeeded`.
    """
    target = note_imprint(parts, note_excluded(parts, target, settings), relation)
    if difference(target.schema, relation).none:
        return target
    # the table may have been altered since, and the target may have followed already
    now = {known.table: known for known in parts.source.survey().relations}.get(target.table, relation)
    found = difference(target.schema, now)
    if found.obstacle:
        raise ResyncNeeded(f"The schema of {target.table} changed: {found.obstacle}.")
    assert target.watermark is not None
    schema = target_schema(now, settings.deletes, mode=settings.mode)
    return parts.destination.advance(target, schema, target.watermark)
