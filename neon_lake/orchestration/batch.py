"""One run's work on some tables: replay what is asked for, a micro-batch, and parity."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from neon_lake.destinations.base import Warehouse
from neon_lake.errors import NeonLakeError, retry_policy
from neon_lake.orchestration.hours import Hours
from neon_lake.pipeline import Replication
from neon_lake.pipeline.costs import NO_COSTS, Costs
from neon_lake.pipeline.results import Parity, TableResult
from neon_lake.schema import Relation, TableName


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a run is asked to do.

    `tables`: which, when `everything` is not set. `everything`: all tables of the pipeline, those that came after the
    definitions were loaded too; parked ones are left alone then, and tried again when they are named. `again`: hours to
    replay first. `compare`: the tables whose parity is wanted, by content if `deep`, else by the number of their rows;
    those with more than `max_rows` rows are left out.
    """

    tables: Sequence[TableName]
    everything: bool
    again: Hours | None = None
    compare: Collection[TableName] = ()
    deep: bool = False
    max_rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one table.

    `result` sums up the micro-batch; `replayed` is what was applied again; `rows` counts the table in the lake; `lag`:
    bytes of WAL that the source had written past what the table shows. `error`: the sentence, when it failed.
    """

    result: TableResult
    replayed: TableResult | None = None
    parity: Parity | None = None
    rows: int | None = None
    lag: int = 0
    error: str | None = None
    transient: bool = False

    @property
    def moved(self) -> bool:
        """Whether the content of the table was written."""
        return self.result.moved or (self.replayed is not None and self.replayed.moved)


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of an order. `trouble` is what kept parity from being looked at, though the tables were brought on."""

    tables: Mapping[TableName, Outcome]
    trouble: NeonLakeError | None = None
    costs: Costs = NO_COSTS


def carry_out(replication: Replication, order: Order) -> Done:
    """Do what is ordered. Raises what stops all tables; what stops one is in its outcome."""
    asked = () if order.everything else order.tables
    again = _replayed(replication, order) if order.again else {}
    position = replication.parts.source.position()
    synced = replication.sync(asked)
    results, reached = dict(synced.tables), max(position, synced.captured.end)
    parity: Mapping[TableName, Parity] = {}
    unchecked: Mapping[TableName, str] = {}
    trouble: NeonLakeError | None = None
    rows: dict[TableName, int] = {}
    if order.compare:
        moved = {table for table, result in (results | again).items() if result.moved}
        try:
            verified = replication.verify(asked, deep=order.deep, only=_chosen(replication, order, rows, moved))
        except NeonLakeError as exc:
            trouble = exc
        else:
            parity, unchecked = verified.parity, verified.unchecked
            reached = max(reached, verified.synced.captured.end)
            for table, later in verified.synced.tables.items():
                results[table] = results[table].then(later) if table in results else later
    for table, equal in parity.items():
        rows[table] = equal.lake_rows
    behind = max(replication.parts.source.position() - reached, 0)
    outcomes = {
        table: _outcome(replication, result, again.get(table), parity.get(table), unchecked.get(table), rows)
        for table, result in results.items()
    }
    return Done(
        tables={t: replace(o, lag=behind) for t, o in outcomes.items()},
        trouble=trouble,
        costs=replication.parts.costs(),
    )


def _chosen(
    replication: Replication, order: Order, rows: dict[TableName, int], moved: Collection[TableName]
) -> Callable[[Relation], bool]:
    """Which relations to compare; `rows` learns how many rows they have in the lake.

    A warehouse is not kept awake for tables that did not change, unless a person asks for it.
    """
    spared = isinstance(replication.parts.destination, Warehouse) and order.max_rows is not None

    def chosen(relation: Relation) -> bool:
        if relation.table not in order.compare or (spared and relation.table not in moved):
            return False
        found = _rows(replication, relation.table)
        if found is not None:
            rows[relation.table] = found
        return found is None or order.max_rows is None or found <= order.max_rows

    return chosen


def _rows(replication: Replication, table: TableName) -> int | None:
    target = replication.parts.destination.target(table)
    return None if target is None else replication.parts.destination.count(target)


def _replayed(replication: Replication, order: Order) -> dict[TableName, TableResult]:
    """Replay the hours of the tables that are in the lake; for the others the coming snapshot is everything."""
    assert order.again is not None
    done = {}
    for status in replication.status(() if order.everything else order.tables).tables:
        if status.watermark is None:
            continue
        try:
            done[status.table] = replication.replay(status.table, order.again.start, order.again.end)
        except NeonLakeError as exc:
            done[status.table] = TableResult(
                table=status.table, state=status.state, error=str(exc), transient=retry_policy(exc) is not None
            )
    return done


def _outcome(
    replication: Replication,
    result: TableResult,
    replayed: TableResult | None,
    parity: Parity | None,
    unchecked: str | None,
    rows: Mapping[TableName, int],
) -> Outcome:
    error = result.error or (replayed.error if replayed else None) or unchecked
    count = rows.get(result.table)
    moved = result.moved or (replayed is not None and replayed.moved)
    if count is None and error is None and (moved or not isinstance(replication.parts.destination, Warehouse)):
        count = _rows(replication, result.table)
    return Outcome(
        result=result,
        replayed=replayed,
        parity=parity,
        rows=count,
        error=error,
        transient=(result.transient if result.error else bool(replayed and replayed.transient)),
    )
