"""The command line: arguments in, verbs out, tables for people and JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

from neon_lake import lakeflow
from neon_lake.cli import views
from neon_lake.config import Pipeline
from neon_lake.errors import ConfigError, NeonLakeError
from neon_lake.lakeflow.writing import write
from neon_lake.pipeline import Replication
from neon_lake.pipeline.results import Synced
from neon_lake.pipeline_file import config_path, load
from neon_lake.schema import TableName
from neon_lake.sources.postgres import PostgresSource

EXIT_FAILED = 1
EXIT_MISTAKE = 2


class _Commands(click.Group):
    """Turns every known error into its sentence and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NeonLakeError as exc:
            if ctx.obj and ctx.obj.get("json"):
                click.echo(json.dumps({"error": str(exc), "kind": type(exc).__name__}))
            click.echo(f"{click.style('error:', fg='red', bold=True)} {exc}", err=True)
            ctx.exit(exc.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="neon-lake", prog_name="neon-lake")
@click.option("--config", metavar="FILE", help="Pipeline file. Default: NEON_LAKE_CONFIG, else ./neon_lake.yaml.")
@click.pass_context
def commands(ctx: click.Context, config: str | None) -> None:
    """Keep Postgres tables as Delta Lake tables, by change data capture.

    Exit codes: 0 all is well; 1 a table failed or parity broke; 2 a mistake in the configuration or the arguments.
    """
    ctx.obj = {"config": config, "json": False}


def _common(command: Callable[..., int]) -> Callable[..., None]:
    """The options of every command, and its exit code."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout; messages go to stderr.")
    @click.option("--config", metavar="FILE", help="Pipeline file.")
    @click.pass_context
    @wraps(command)
    def run(ctx: click.Context, /, *args: Any, as_json: bool, config: str | None, **kwargs: Any) -> None:
        ctx.obj["json"] = as_json
        ctx.obj["config"] = config or ctx.obj["config"]
        ctx.exit(command(ctx, *args, **kwargs))

    return run


_TABLES = click.argument("tables", nargs=-1, metavar="[TABLE]...")


def _names(tables: Sequence[str]) -> list[TableName]:

    try:
        return [TableName.parse(table) for table in tables]
    except ValueError as exc:
        raise ConfigError(f"{exc}.") from exc


class _Run:
    """A verb being carried out: opens the pipeline, shows progress, prints the result."""

    def __init__(self, ctx: click.Context) -> None:
        self.as_json: bool = ctx.obj["json"]
        self._config: str | None = ctx.obj["config"]
        self.display = views.Display(quiet=self.as_json or not sys.stderr.isatty())

    def config(self) -> Pipeline:
        """The pipeline file, read."""
        return load(config_path(self._config))

    def open(self) -> Replication:
        return Replication.open(self.config(), progress=self.display.progress)

    def print(self, data: dict[str, Any], view: Callable[[], Any]) -> None:
        """One JSON document, or the view for people."""
        if self.as_json:
            click.echo(json.dumps(data, indent=2, default=str))
        else:
            self.display.show(view())

    def tell(self, result: Synced) -> int:
        """What a micro-batch did; gives the exit code."""
        self.print(result.to_json(), lambda: views.synced(result))
        return 0 if result.ok else EXIT_FAILED


@commands.command()
@click.option("--ui", is_flag=True, help="Keep everything running, with the Dagster UI, until Ctrl-C.")
@click.option(
    "--destination",
    type=click.Choice(["delta", "databricks"]),
    default="delta",
    help="Where the tables land: beside it, or in the workspace that the environment names (DATABRICKS_HOST, …).",
)
@_common
def demo(ctx: click.Context, ui: bool, destination: str) -> int:
    """Run an embedded Postgres, a live workload and real Dagster runs; report parity."""
    from neon_lake.demo.run import run_demo  # noqa: PLC0415 - it loads Dagster, which no other command needs

    return run_demo(ui=ui, as_json=ctx.obj["json"], destination=destination)


@commands.command()
@click.option("--start", is_flag=True, help="Start a SQL warehouse that is stopped, and try what it may do.")
@_common
def check(ctx: click.Context, start: bool) -> int:
    """Say everything that would go wrong, before it does."""
    run = _Run(ctx)
    found = run.open().check(start=start)
    data = [{"subject": f.subject, "detail": f.detail, "problem": f.problem} for f in found]
    bad = any(f.problem for f in found)
    run.print({"ok": not bad, "findings": data}, lambda: views.findings(found))
    return EXIT_MISTAKE if bad else 0


@commands.command()
@_TABLES
@_common
def sync(ctx: click.Context, tables: tuple[str, ...]) -> int:
    """Do one micro-batch: snapshot new tables, capture up to now, apply."""
    run = _Run(ctx)
    with run.display:
        result = run.open().sync(_names(tables))
    return run.tell(result)


@commands.command()
@_TABLES
@click.option("--deep", is_flag=True, help="Compare contents, not only counts.")
@_common
def verify(ctx: click.Context, tables: tuple[str, ...], deep: bool) -> int:
    """Compare source and lake at one position, while the source is being written."""
    run = _Run(ctx)
    with run.display:
        result = run.open().verify(_names(tables), deep=deep)
    run.print(result.to_json(), lambda: views.verified(result))
    return 0 if result.ok else EXIT_FAILED


@commands.command()
@_TABLES
@_common
def status(ctx: click.Context, tables: tuple[str, ...]) -> int:
    """Show slot, lag, table states and watermarks."""
    run = _Run(ctx)
    result = run.open().status(_names(tables))
    run.print(result.to_json(), lambda: views.status(result))
    return EXIT_FAILED if result.slot_problem or any(t.reason for t in result.tables) else 0


@commands.command()
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--all", "everything", is_flag=True, help="Every table of the pipeline.")
@_common
def resync(ctx: click.Context, tables: tuple[str, ...], everything: bool) -> int:
    """Take a new snapshot of live tables; make a lost slot anew."""
    if bool(tables) == everything:
        raise ConfigError("Name the tables to snapshot anew, or give --all.")
    run = _Run(ctx)
    with run.display:
        result = run.open().resync(_names(tables))
    return run.tell(result)


@commands.command()
@click.argument("table")
@click.option("--from", "since", required=True, metavar="TIME", help="ISO 8601, UTC unless it has an offset.")
@click.option("--to", "until", metavar="TIME", help="Only keys that changed before then. Default: all.")
@_common
def replay(ctx: click.Context, table: str, since: str, until: str | None) -> int:
    """Apply again the changes of a table that the log still has."""
    run = _Run(ctx)
    with run.display:
        result = run.open().replay(_names([table])[0], _moment(since), _moment(until) if until else None)
    run.print({"tables": {str(result.table): result.to_json()}}, lambda: views.replayed(result))
    return 0 if result.ok else EXIT_FAILED


@commands.command()
@_common
def expire(ctx: click.Context) -> int:
    """Remove what of the change log is past its retention and applied everywhere."""
    run = _Run(ctx)
    result = run.open().expire()
    run.print(result.to_json(), lambda: views.expired(result))
    return 0


@commands.command()
@_common
def drop(ctx: click.Context) -> int:
    """Remove slot and publication, so that nothing holds WAL at the source."""
    run = _Run(ctx)
    replication = run.open()
    replication.drop()
    name = replication.parts.config.name
    run.print({"dropped": f"neon_lake_{name}"}, lambda: f"Slot and publication neon_lake_{name} are gone.")
    return 0


@commands.group("export")
def export_group() -> None:
    """Write what other tools need to build on the change log."""


@export_group.command("lakeflow")
@click.option("--to", "folder", default="lakeflow", metavar="DIR", help="Where to. Default: lakeflow.")
@click.option("--scd", type=click.Choice(["1", "2"]), default="1", help="Rows as they are (1), or all versions (2).")
@click.option("--variant", is_flag=True, help="Let json and jsonb land as VARIANT.")
@click.option("--force", is_flag=True, help="Overwrite files that differ.")
@_common
def export_lakeflow(ctx: click.Context, folder: str, scd: str, variant: bool, force: bool) -> int:
    """Write a Databricks bundle: a Lakeflow pipeline that keeps tables of its own from the staged change log."""
    run = _Run(ctx)
    config = run.config()
    # the file may be wrong for this; that is said before the source is asked
    lakeflow.of_databricks(config)
    survey = PostgresSource.of(config).survey()
    made = lakeflow.export(config, survey.relations, survey.refused, scd=int(scd), variant=variant)
    changed = write(Path(folder), made.files, force=force)
    tables = {str(name): f"{table.schema}.{table.name}" for name, table in made.tables.items()}
    left_out = {str(name): reason for name, reason in made.left_out.items()}
    run.print(
        {"to": folder, "written": changed} | made.to_json(), lambda: views.exported(folder, tables, changed, left_out)
    )
    return 0


def _moment(text: str) -> datetime:

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigError(f"{text!r} is not a time; it looks like 2026-11-21T14:00.") from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def main() -> None:
    """The entry point `neon-lake`."""
    commands(prog_name="neon-lake")
