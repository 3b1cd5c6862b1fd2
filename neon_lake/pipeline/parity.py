"""The verb `verify`: is the lake the source, exactly, at one position, while the source goes on being written?

A plain snapshot of the source sees a set of transactions. The log tells in which order they commit. When the set is a
prefix of that order, up to a position F, the lake applied up to F must equal the snapshot, with nothing to account
for. It nearly always is; when two transactions became visible in another order than they were logged just as the
snapshot was taken, or the lake is already past F, another snapshot is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neon_lake.change import LSN, OP, XID, Lsn
from neon_lake.destinations.base import Target
from neon_lake.fingerprint import BucketSums, Hashes, buckets, column_hashes, hashes
from neon_lake.pipeline.parts import Parts, Progress
from neon_lake.pipeline.results import Parity, RowDifference
from neon_lake.schema import RESCUED, Relation, TableName
from neon_lake.sources.base import Snapshot

NAMED: Final = 20
"""How many differing rows are named."""
LOOKED_AT: Final = 64
"""How many differing buckets are looked at row by row."""
LINGER: Final = timedelta(minutes=10)
"""A transaction that was in the log so long before a snapshot is taken to be visible in it."""


def frontier(parts: Parts, snapshot: Snapshot, tables: Sequence[TableName]) -> Lsn | None:
    """The position F that the snapshot shows of these tables; None when it is not a prefix of the commit order.

    The log must reach `snapshot.lsn`, so that every transaction that the snapshot sees is in it.
    """
    head = parts.log.head()
    assert head is not None, "the log was captured up to the snapshot"
    # an idle stretch is captured without a manifest, so the log may end before the snapshot and yet hold all it sees
    seen_up_to, unseen_from = Lsn(0), max(head.end, snapshot.lsn)
    # by this machine's clock, as when it was published
    now = datetime.now(UTC)
    for manifest in parts.log.newest_first():
        if now - manifest.published_at > LINGER:
            break
        if int(snapshot.visible.sees(np.array([manifest.transactions.max_xid]))[0]) and not snapshot.visible.xip:
            # the newest of its transactions is visible and none is running: so are all
            if any(manifest.of(table) for table in tables):
                seen_up_to = Lsn(max(seen_up_to, manifest.end - 1))
            continue
        for table in tables:
            for segment in manifest.of(table):
                rows = parts.log.read(segment, [LSN, XID])
                lsns, seen = np.asarray(rows[LSN]), snapshot.visible.sees(np.asarray(rows[XID]))
                seen_up_to = Lsn(max(seen_up_to, int(lsns[seen].max(initial=0))))
                unseen_from = Lsn(min(unseen_from, int(lsns[~seen].min(initial=unseen_from))))
    return unseen_from if seen_up_to < unseen_from else None


def compare(parts: Parts, snapshot: Snapshot, relation: Relation, target: Target, *, at: Lsn, deep: bool) -> Parity:
    """Compare a table of the snapshot with a version of its target that is applied exactly up to `at`."""
    parity = Parity(
        table=relation.table,
        lsn=at,
        version=target.version,
        source_rows=parts.source.count(snapshot, relation.table),
        lake_rows=parts.destination.count(target),
    )
    parts.progress(Progress(verb="verify", table=relation.table, rows=parity.source_rows, done=not deep))
    # changes do not stand in the lake as rows, and are counted up only
    return (
        _compare_content(parts, snapshot, relation, target, parity)
        if deep and OP not in target.schema.names
        else parity
    )


def _compare_content(parts: Parts, snapshot: Snapshot, relation: Relation, target: Target, parity: Parity) -> Parity:
    names = [*(column.name for column in relation.columns), RESCUED]
    if absent := [name for name in names if name not in target.schema.names]:
        difference = RowDifference(key={}, kind="different", columns=tuple(absent))
        return replace(parity, content_equal=False, differing=parity.source_rows, differences=(difference,))

    def source() -> Iterator[pa.RecordBatch]:
        return parts.source.read(snapshot, relation)

    def lake() -> Iterator[pa.RecordBatch]:
        return parts.destination.read(target, names)

    sums = []
    for side in (source, lake):
        total = BucketSums()
        for batch in side():
            total.add(*_hashed(relation, batch.select(names)))
            parts.progress(Progress(verb="verify", table=relation.table, rows=int(total.rows.sum())))
        sums.append(total)
    parts.progress(Progress(verb="verify", table=relation.table, rows=int(sums[0].rows.sum()), done=True))
    suspect = sums[0].differing(sums[1])
    if not len(suspect):
        return replace(parity, content_equal=True)
    chosen = suspect[:LOOKED_AT]
    differing, named = _rows_that_differ(relation, names, source, lake, chosen)
    return replace(
        parity,
        content_equal=False,
        differing=differing,
        differences=named,
        at_least=len(chosen) < len(suspect),
    )


def _hashed(relation: Relation, batch: pa.RecordBatch) -> tuple[Hashes, Hashes]:
    return hashes([batch[name] for name in _identity(relation)]), hashes(batch.columns)


def _identity(relation: Relation) -> list[str]:
    """The columns by which a row is found on the other side: without a key all of them."""
    if relation.key:
        return [column.name for column in relation.key]
    return [*(column.name for column in relation.columns), RESCUED]


def _rows_that_differ(
    relation: Relation,
    names: Sequence[str],
    source: Callable[[], Iterator[pa.RecordBatch]],
    lake: Callable[[], Iterator[pa.RecordBatch]],
    suspect: npt.NDArray[np.int64],
) -> tuple[int, tuple[RowDifference, ...]]:
    """Count the rows of the suspect buckets that are not the same, and name the first of them."""
    ours, theirs = (_rows_of(relation, names, side(), suspect) for side in (source, lake))
    differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    named = []
    for key in differing[:NAMED]:
        shown = dict(zip(_identity(relation), key, strict=True))
        if key not in theirs:
            named.append(RowDifference(key=shown, kind="missing"))
        elif key not in ours:
            named.append(RowDifference(key=shown, kind="extra"))
        else:
            columns = tuple(n for n, a, b in zip(names, ours[key], theirs[key], strict=False) if a != b)
            named.append(RowDifference(key=shown, kind="different" if columns else "copies", columns=columns))
    return len(differing), tuple(named)


def _printable(column: pa.Array) -> list[object]:
    """Values of a column as they are shown; moments as text, and NaN, which equals nothing."""
    if pa.types.is_nested(column.type):
        return [str(value) for value in column]
    as_text = pa.types.is_temporal(column.type) or pa.types.is_floating(column.type)
    values: list[object] = (column.cast(pa.string()) if as_text else column).to_pylist()
    return values


def _rows_of(
    relation: Relation,
    names: Sequence[str],
    batches: Iterator[pa.RecordBatch],
    suspect: npt.NDArray[np.int64],
) -> Mapping[tuple[object, ...], tuple[int, ...]]:
    """Key → hash of each column, of the rows in the suspect buckets; of a key that stands twice, of both rows."""
    found: dict[tuple[object, ...], tuple[int, ...]] = {}
    for batch in batches:
        keys = hashes([batch[name] for name in _identity(relation)])
        rows = batch.filter(pa.array(np.isin(buckets(keys), suspect)))
        per_column = [column_hashes(rows[name]).tolist() for name in names]
        key_values = zip(*(_printable(rows[name]) for name in _identity(relation)), strict=True)
        for key, values in zip(key_values, zip(*per_column, strict=True), strict=True):
            found[key] = found.get(key, ()) + values
    return found
