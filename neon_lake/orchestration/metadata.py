"""What a run tells Dagster of a table: numbers that can be plotted, positions, and the rows that differ."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from neon_lake.orchestration.batch import Outcome
from neon_lake.orchestration.hours import Hours, first_hour, hour_of, key_of
from neon_lake.orchestration.translator import Translator
from neon_lake.pipeline.results import Parity
from neon_lake.staging.segment import Counts


def of_table(outcome: Outcome, counts: Counts, translator: Translator, now: datetime) -> dict[str, Any]:
    """Metadata of a table's materialization; `counts` are the changes of its hour.

    `lag_seconds`: from the newest commit that this run brought to the moment it was in the lake; 0 when nothing waited.
    `lag_bytes`: WAL that the source had written since. Columns and lineage are said again when rows were written, as
    they may be others than when the definitions were loaded.
    """
    result = outcome.result
    found: dict[str, Any] = {
        "state": result.state.value,
        **of_counts(counts),
        "lag_bytes": outcome.lag,
        "lag_seconds": 0.0,
    }
    if outcome.rows is not None:
        found["dagster/row_count"] = outcome.rows
    if result.snapshot_rows is not None:
        found["snapshot_rows"] = result.snapshot_rows
    if outcome.replayed is not None:
        found["replayed_changes"] = outcome.replayed.counts.total
    if result.last_commit_at is not None:
        found["lag_seconds"] = round(max((now - result.last_commit_at).total_seconds(), 0.0), 3)
        found["last_commit"] = dg.MetadataValue.timestamp(result.last_commit_at)
    if result.watermark is not None:
        first = result.watermark if result.first is None else result.first
        found["lsn_from"], found["lsn_to"] = str(first), str(result.watermark)
    if (version := _version(outcome)) is not None:
        found["delta_version"] = version
    if result.relation is not None and outcome.moved:
        found["dagster/column_schema"] = translator.columns(result.relation)
        found["dagster/column_lineage"] = translator.lineage(result.relation)
    return found


def _version(outcome: Outcome) -> int | None:
    versions = [outcome.result.version, outcome.replayed.version if outcome.replayed else None]
    if outcome.parity:
        versions.append(outcome.parity.version)
    return max((version for version in versions if version is not None), default=None)


def of_counts(counts: Counts) -> dict[str, Any]:
    """How many changes of each kind."""
    found = {"inserts": counts.inserts, "updates": counts.updates, "deletes": counts.deletes}
    return found | ({"truncates": counts.truncates} if counts.truncates else {})


def by_hour(outcome: Outcome) -> dict[datetime, Counts]:
    """The changes of each hour of commit that had any: those of the batch, and those that were applied again."""
    again = outcome.replayed.hours if outcome.replayed else {}
    return {
        hour: again.get(hour, Counts()) + outcome.result.hours.get(hour, Counts())
        for hour in sorted({*again, *outcome.result.hours})
    }


def outside(
    outcome: Outcome, key: dg.AssetKey, hours: Hours | None, translator: Translator, now: datetime
) -> Iterable[dg.AssetMaterialization]:
    """A materialization of each hour that the run wrote and was not asked for. `hours` is what it was asked for."""
    first = first_hour(translator.config.orchestration)
    written = dict(outcome.result.hours)
    if outcome.result.snapshot_rows is not None and hours is None:
        written.setdefault(hour_of(now), Counts())
    for hour, counts in sorted(written.items()):
        if hour >= first and (hours is None or hour not in hours):
            facts = of_table(outcome, counts, translator, now)
            yield dg.AssetMaterialization(key, partition=key_of(hour), metadata=facts)


def check_result(parity: Parity, key: dg.AssetKey, name: str) -> dg.AssetCheckResult:
    """The result of a parity check."""
    return dg.AssetCheckResult(
        passed=parity.ok,
        asset_key=key,
        check_name=name,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(parity),
        metadata=_of_parity(parity),
    )


def sentence(parity: Parity) -> str:
    """What was found, for a person."""
    at = f"at {parity.lsn}"
    if not parity.counts_equal and parity.content_equal is None:
        return f"The source has {parity.source_rows:,} rows and the lake {parity.lake_rows:,} {at}."
    if parity.content_equal is False:
        least = "At least " if parity.at_least else ""
        named = "; ".join(str(difference) for difference in parity.differences[:3])
        more = "" if parity.differing <= 3 else "; …"
        plural = "row differs" if parity.differing == 1 and not parity.at_least else "rows differ"
        return f"{least}{parity.differing:,} {plural} {at}: {named}{more}."
    what = "with the same values " if parity.content_equal else ""
    return f"Source and lake both have {parity.source_rows:,} rows {what}{at}."


def _of_parity(parity: Parity) -> Mapping[str, Any]:
    found: dict[str, Any] = {
        "source_rows": parity.source_rows,
        "lake_rows": parity.lake_rows,
        "lsn": str(parity.lsn),
        "delta_version": parity.version,
    }
    if parity.content_equal is not None:
        found["differing_rows"] = parity.differing
    if parity.differences:
        found["differences"] = dg.MetadataValue.table(
            records=[
                dg.TableRecord({"key": _key(d.key), "row": d.kind, "columns": ", ".join(d.columns)})
                for d in parity.differences
            ],
            schema=dg.TableSchema([dg.TableColumn(name) for name in ("key", "row", "columns")]),
        )
    return found


def _key(key: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in key.items())


def utc_now() -> datetime:
    """This moment."""
    return datetime.now(UTC)
