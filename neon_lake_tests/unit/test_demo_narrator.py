"""What a person is told while the demonstration works."""

import io

import pytest
from rich.console import Console

from neon_lake.demo.narrator import Narrator


def told(*, terminal: bool) -> tuple[Narrator, io.StringIO]:
    out = io.StringIO()
    return Narrator(Console(file=out, force_terminal=terminal, width=80, highlight=False)), out


def test_where_no_terminal_is_each_step_is_one_line_when_it_is_done() -> None:
    narrator, out = told(terminal=False)
    with narrator.step("Filling the shop", total=2) as step:
        step.tell("orders")
        step.reach(1)
        assert out.getvalue() == ""
        step.tell("3 rows")
    (line,) = out.getvalue().splitlines()
    assert line.startswith("✓ Filling the shop     3 rows (")
    assert "orders" not in line


def test_a_terminal_gets_a_bar_and_then_the_line() -> None:
    narrator, out = told(terminal=True)
    with narrator.step("Filling the shop", total=2) as step:
        step.tell("orders")
        step.reach(1)
    assert "━" in out.getvalue()
    assert "✓" in out.getvalue().splitlines()[-1]


def test_a_step_that_fails_is_not_said_to_be_done() -> None:
    narrator, out = told(terminal=False)
    with pytest.raises(KeyError), narrator.step("Starting Dagster"):
        raise KeyError
    assert "✓" not in out.getvalue()
