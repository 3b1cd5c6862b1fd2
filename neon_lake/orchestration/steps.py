"""What the steps of all jobs share: progress in the log, and failures that are one sentence."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import dagster as dg

from neon_lake.errors import NeonLakeError, Retry, retry_policy
from neon_lake.orchestration.batch import Outcome
from neon_lake.pipeline import Progress
from neon_lake.schema import TableName


def progress_to(log: dg.DagsterLogManager) -> Callable[[Progress], None]:
    """Tell the run's log what was finished."""

    def tell(step: Progress) -> None:
        if step.said:
            log.info("%s", step.said)
        if step.done and step.rows:
            what = "changes" if step.verb in ("capture", "apply") else "rows"
            log.info("%s %s: %s %s", step.verb, step.table or "the stream", f"{step.rows:,}", what)

    return tell


@contextmanager
def sentences(attempt: int) -> Iterator[None]:
    """Turn our errors into Dagster's: a retry for what may pass by itself, else a failure with the sentence.

    `attempt` is 0 the first time that the step runs.
    """
    try:
        yield
    except NeonLakeError as exc:
        raise _failure(str(exc), retry_policy(exc), attempt) from exc


def fail_for(outcomes: Mapping[TableName, Outcome], attempt: int, trouble: NeonLakeError | None = None) -> None:
    """Raise when tables failed, or parity could not be looked at; say each sentence."""
    failed = {table: outcome.error for table, outcome in outcomes.items() if outcome.error is not None}
    said = [_named(table, error) for table, error in failed.items()] + ([str(trouble)] if trouble else [])
    if not said:
        return
    passing = all(outcome.transient for outcome in outcomes.values() if outcome.error is not None)
    retry = Retry(attempts=3, delay=1.0) if failed and passing and trouble is None else None
    if not failed and trouble is not None:
        retry = retry_policy(trouble)
    raise _failure("\n".join(said), retry, attempt)


def _failure(text: str, retry: Retry | None, attempt: int) -> Exception:
    if retry is not None and attempt < retry.attempts:
        return dg.RetryRequested(max_retries=retry.attempts, seconds_to_wait=retry.delay * 2**attempt)
    return dg.Failure(description=text, allow_retries=False)


def _named(table: TableName, error: str) -> str:
    return error if str(table) in error else f"{table}: {error}"
