"""`python -m neon_lake_tests.soak --minutes N [--seed S]`."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path

import click

from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake_tests.fixtures.postgres import starter
from neon_lake_tests.soak.plan import plan, show
from neon_lake_tests.soak.reduce import reduced
from neon_lake_tests.soak.run import SETTINGS, Tally, run
from neon_lake_tests.soak.steps import Plan


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0), default=1, show_default=True)
@click.option("--seed", type=int, help="This case alone, once.")
@click.option("--steps", type=click.IntRange(min=1), default=60, show_default=True, help="Length of a case.")
@click.option("--pg", "major", type=int, default=18, show_default=True, help="PostgreSQL to run on.")
@click.option("--reduce", "shorter", is_flag=True, help="Cut the steps of a failure down before they are printed.")
@click.option("--go-on", is_flag=True, help="Do not stop at a failure.")
def soak(minutes: float, seed: int | None, steps: int, major: int, *, shorter: bool, go_on: bool) -> None:
    """Random cases for so many minutes; a failure prints its seed, which alone makes the case again."""
    end, total, failed = time.monotonic() + minutes * 60, Tally(), list[int]()
    with starter(major) as start, start(**SETTINGS) as server:
        while True:
            chosen = random.SystemRandom().randrange(1 << 31) if seed is None else seed
            case, began = plan(chosen, steps), time.monotonic()
            trouble = attempt(case, server)
            if isinstance(trouble, Tally):
                total += trouble
                click.echo(f"seed {chosen}: the same, {trouble} ({time.monotonic() - began:.1f} s)")
            else:
                failed.append(chosen)
                click.echo(f"seed {chosen}: FAILED")
                if shorter:
                    case = reduced(case, lambda shorter_: _failure(shorter_, server), click.echo)
                click.echo(f"{'racing, ' if case.racing else ''}{case.limits or 'default limits'}\n{show(case.steps)}")
                click.echo(described(case, trouble))
                click.echo(f"again: python3 dev.py soak --seed {chosen} --steps {steps} --reduce")
            if seed is not None or time.monotonic() >= end or (failed and not go_on):
                break
    click.echo(f"{total}; " + (f"FAILED: seeds {', '.join(map(str, failed))}" if failed else "no difference"))
    sys.exit(bool(failed))


def attempt(case: Plan, server: EmbeddedPostgres) -> Tally | Exception:
    """Carry a case out: what it saw, or what went wrong."""
    root = Path(tempfile.mkdtemp(prefix="neon-lake-soak-"))
    try:
        return run(case, server, root)
    except Exception as exc:  # noqa: BLE001 - whatever went wrong is the result
        return exc
    finally:
        shutil.rmtree(root)


def described(case: Plan, trouble: Exception) -> str:
    """What went wrong, and where."""
    return f"{len(case.steps)} steps\n" + "".join(traceback.format_exception(trouble, limit=-4))


def _failure(case: Plan, server: EmbeddedPostgres) -> str | None:
    trouble = attempt(replace(case), server)
    return None if isinstance(trouble, Tally) else type(trouble).__name__


if __name__ == "__main__":
    soak()
