"""How errors become retries and failures of a step."""

import dagster as dg
import pytest

from neon_lake.errors import NeonLakeError, ParityBroken, SlotInUse, SlotLost, SourceUnavailable
from neon_lake.lifecycle import State
from neon_lake.orchestration.batch import Outcome
from neon_lake.orchestration.steps import fail_for, sentences
from neon_lake.pipeline.results import TableResult
from neon_lake.schema import TableName

A, B = TableName("public", "a"), TableName("public", "b")


def outcome(table: TableName, error: str | None = None, *, transient: bool = False) -> Outcome:
    return Outcome(result=TableResult(table=table, state=State.LIVE), error=error, transient=transient)


def attempt(error: NeonLakeError, number: int) -> Exception:
    with pytest.raises((dg.RetryRequested, dg.Failure)) as raised, sentences(number):
        raise error
    assert raised.value.__cause__ is error
    return raised.value


def test_what_may_pass_is_tried_again_after_growing_pauses() -> None:
    pauses = []
    for number in range(4):
        again = attempt(SourceUnavailable("It is away."), number)
        assert isinstance(again, dg.RetryRequested)
        pauses.append(again.seconds_to_wait)
    assert pauses == [0.5, 1, 2, 4]


@pytest.mark.parametrize(
    ("error", "number"),
    [(SlotInUse("The slot is in use."), 2), (SourceUnavailable("It is away."), 4), (SlotLost("It is gone."), 0)],
)
def test_in_the_end_a_step_fails_with_the_sentence(error: NeonLakeError, number: int) -> None:
    failed = attempt(error, number)
    assert isinstance(failed, dg.Failure)
    assert failed.description == str(error)
    assert failed.allow_retries is False


def test_a_run_in_which_all_is_well_does_not_fail() -> None:
    fail_for({A: outcome(A), B: outcome(B)}, 0)


def test_every_table_that_failed_is_named() -> None:
    with pytest.raises(dg.Failure) as raised:
        fail_for({A: outcome(A, "public.a has no key."), B: outcome(B, "The disk is full.")}, 0)
    assert raised.value.description == "public.a has no key.\npublic.b: The disk is full."


def test_tables_that_failed_in_passing_are_tried_again_but_not_beside_one_that_stays_failed() -> None:
    passing = outcome(A, "Another writer was first.", transient=True)
    with pytest.raises(dg.RetryRequested):
        fail_for({A: passing, B: outcome(B)}, 0)
    with pytest.raises(dg.Failure):
        fail_for({A: passing, B: outcome(B)}, 3)
    with pytest.raises(dg.Failure):
        fail_for({A: passing, B: outcome(B, "public.b is parked.")}, 0)


def test_parity_that_could_not_be_looked_at_fails_the_step() -> None:
    with pytest.raises(dg.Failure, match="No snapshot"):
        fail_for({A: outcome(A)}, 0, ParityBroken("No snapshot of the source could be compared."))
    with pytest.raises(dg.RetryRequested):
        fail_for({A: outcome(A)}, 0, SourceUnavailable("It is away."))
