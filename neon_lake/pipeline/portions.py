"""The log of one table: its changes in order, and in portions that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neon_lake.change import LSN, OP, Lsn, change_schema
from neon_lake.destinations.base import Target
from neon_lake.errors import ResyncNeeded
from neon_lake.pipeline.following import check_keys
from neon_lake.pipeline.parts import Parts
from neon_lake.schema import Relation, difference
from neon_lake.staging.manifest import Manifest
from neon_lake.staging.segment import Segment

Rows = tuple[pa.Table, Relation]
"""Changes, and the relation that they were made of."""


@dataclass(frozen=True, kw_only=True)
class Portion:
    """Changes of one table, and where it stands once they are applied: see `Target` on `watermark` and `within`."""

    pieces: tuple[Rows, ...]
    watermark: Lsn
    within: int = 0


def behind(parts: Parts, target: Target) -> tuple[Manifest, ...]:
    """The manifests past a target's watermark. Raises `ResyncNeeded` when the log does not lead on from it."""
    assert target.watermark is not None
    chain = parts.log.since(target.watermark)
    if chain and chain[0].start > target.watermark:
        raise ResyncNeeded(f"The log no longer reaches back to {target.watermark}, where {target.table} stands.")
    for manifest in chain:
        if manifest.gap:
            raise ResyncNeeded(f"Changes from {manifest.start} to {manifest.end} were not captured: {manifest.gap}")
    return chain


def changes_of(
    parts: Parts, target: Target, manifests: Sequence[Manifest], *, since: Lsn, until: Lsn | None = None
) -> Iterator[Rows]:
    """The changes of the target's table that commit in [since, until), segment by segment."""
    found = [(s, manifest.relations[s.relation]) for manifest in manifests for s in manifest.of(target.table)]
    return within(parts, found, since=since, until=until)


def within(
    parts: Parts, segments: Sequence[tuple[Segment, Relation]], *, since: Lsn, until: Lsn | None = None
) -> Iterator[Rows]:
    """The changes of these segments that commit in [since, until), segment by segment."""
    for segment, relation in segments:
        rows = parts.log.read(segment)
        inside = pc.greater_equal(rows[LSN], int(since))
        if until is not None:
            inside = pc.and_(inside, pc.less(rows[LSN], int(until)))
        # a copy of everything would be the dearest step of all, and is seldom called for
        rows = rows if pc.all(inside).as_py() else rows.filter(inside)
        if len(rows):
            yield rows, relation


def portions(parts: Parts, target: Target, chain: Sequence[Manifest], end: Lsn) -> Iterator[Portion]:
    """Cut what is behind the target's watermark and before `end` so that a part fits into half of `parts.memory`.

    The cuts are between transactions, but for a transaction that is larger than that by itself.
    """
    assert target.watermark is not None
    held: list[Rows] = []
    at, within = target.watermark, target.within
    for new in _by_transaction(changes_of(parts, target, chain, since=target.watermark, until=end), skip=within):
        while held and _size([*held, new]) > parts.memory // 2:
            done, held = _cut(held, _first([new]))
            if done:
                at, within = _first(held or [new]), 0
                yield Portion(pieces=done, watermark=at)
            else:
                within = sum(len(rows) for rows, _ in held) + (within if _first(held) == at else 0)
                at = _first(held)
                yield Portion(pieces=tuple(held), watermark=at, within=within)
                held = []
        held.append(new)
    if held:
        yield Portion(pieces=tuple(held), watermark=end)


def _by_transaction(found: Iterator[Rows], *, skip: int) -> Iterator[Rows]:
    """The changes without the first `skip`, cut where a transaction ends that began in an earlier piece."""
    last = None
    for rows, relation in found:
        skipped = min(skip, len(rows))
        skip -= skipped
        lsns = np.asarray(rows[LSN])
        ends = int(np.searchsorted(lsns, last, side="right")) if last is not None else 0
        last = int(lsns[-1])
        for start, stop in ((skipped, ends), (max(skipped, ends), len(rows))):
            if start < stop:
                yield rows.slice(start, stop - start), relation


def _size(pieces: Sequence[Rows]) -> int:
    return sum(rows.nbytes for rows, _ in pieces)


def _first(pieces: Sequence[Rows]) -> Lsn:
    return Lsn(pieces[0][0][LSN][0].as_py())


def _cut(held: Sequence[Rows], following: Lsn) -> tuple[tuple[Rows, ...], list[Rows]]:
    """The transactions that are whole, and the last one when it goes on in what follows."""
    last = int(held[-1][0][LSN][-1].as_py())
    if following != last:
        return tuple(held), []
    done, rest = [], []
    for rows, relation in held:
        end = int(np.searchsorted(np.asarray(rows[LSN]), last))
        if end:
            done.append((rows.slice(0, end), relation))
        if end < len(rows):
            rest.append((rows.slice(end), relation))
    return tuple(done), rest


def joined(target: Target, pieces: Sequence[Rows]) -> tuple[pa.Table, Relation]:
    """Pieces as one table of changes, and the relation that they end with.

    Columns that an older change lacks are null in it; those that the table no longer has are left out. Raises
    `ResyncNeeded` when the target cannot follow the relation by adding columns.
    """
    relation = check_follows(target, [relation for _, relation in pieces])
    schema = change_schema(relation)
    found = [rows for rows, _ in pieces]
    changes = pa.concat_tables(found, promote_options="default").select(schema.names).cast(schema)
    check_keys(relation, changes.select([OP, *(column.name for column in relation.key)]))
    return changes, relation


def check_follows(target: Target, relations: Sequence[Relation]) -> Relation:
    """The last of these relations. Raises `ResyncNeeded` when the target cannot follow them by adding columns."""
    for relation in relations:
        if changed := difference(target.schema, relation).changed:
            raise ResyncNeeded(f"Column {changed[0]} of {target.table} changed its type or its part in the key.")
    if obstacle := difference(target.schema, relations[-1]).obstacle:
        raise ResyncNeeded(f"The schema of {target.table} changed: {obstacle}.")
    return relations[-1]
