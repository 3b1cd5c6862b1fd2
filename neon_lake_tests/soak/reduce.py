"""Cutting a failing plan down to the steps that it takes (delta debugging).

Source: A. Zeller, R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28 (2002).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from neon_lake_tests.soak.steps import Plan


def reduced(plan: Plan, failure: Callable[[Plan], str | None], say: Callable[[str], object]) -> Plan:
    """The plan with fewer steps, that still fails in the same way. `failure` names the kind of failure, or is None."""
    wanted = failure(plan)
    if wanted is None:
        say("the case does not fail each time")
        return plan
    size = max(len(plan.steps) // 2, 1)
    while size:
        start = 0
        while start < len(plan.steps):
            shorter = replace(plan, steps=plan.steps[:start] + plan.steps[start + size :])
            if failure(shorter) == wanted:
                plan = shorter
                say(f"{len(plan.steps)} steps")
            else:
                start += size
        size //= 2
    return plan
