"""`python -m neon_lake_tests.benchmarks NAME [--json]`."""

from __future__ import annotations

import json
from typing import Any

import click

from neon_lake_tests.benchmarks import capture


@click.group()
def benchmarks() -> None:
    """Measure neon_lake beside what else runs on this machine."""


@benchmarks.command("capture")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option(
    "--rows", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="Inserts, in one transaction."
)
@click.option(
    "--updates", type=click.IntRange(min=0), default=200_000, show_default=True, help="Updates, one per transaction."
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
def capture_command(as_json: bool, rows: int, updates: int, rounds: int) -> None:
    """Changes per second into published manifests, beside pg_recvlogical to the null device."""
    report = capture.run(rows=rows, updates=updates, rounds=rounds, say=lambda line: click.echo(line, err=True))
    _print(report, as_json=as_json)


@benchmarks.command("databricks")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option(
    "--rows", type=click.IntRange(min=1), default=900_000, show_default=True, help="Inserts, in one transaction."
)
@click.option(
    "--updates", type=click.IntRange(min=0), default=100_000, show_default=True, help="Updates, one per transaction."
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--engine", type=click.Choice(["sail", "spark"]), default="sail", show_default=True)
def databricks_command(as_json: bool, rows: int, updates: int, rounds: int, engine: str) -> None:
    """Bytes uploaded and statements for a million changes, in a workspace on this machine."""
    # only the tests' environment has an engine
    from neon_lake_tests.benchmarks import databricks

    report = databricks.run(
        rows=rows, updates=updates, rounds=rounds, engine=engine, say=lambda line: click.echo(line, err=True)
    )
    _print(report, as_json=as_json)


def _print(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report))
        return
    for name, value in report.items():
        click.echo(f"{name:>12}  {value}")


if __name__ == "__main__":
    benchmarks()
