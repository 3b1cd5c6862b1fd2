"""What is wrong gets one sentence that says what to do, exit code 2, and leaves nothing half-done."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from neon_lake.cli.commands import commands
from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.postgres import StartServer


@pytest.fixture
def filled(lab: Lab) -> Lab:
    lab.database.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)")
    return lab


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(commands, [*arguments, "--config", str(file)])


def refused(lab: Lab, *arguments: str, url: str | None = None, says: str, code: int = 2) -> None:
    """The command fails with the sentence, on stderr and in JSON, and nothing is there that was not before."""
    file = lab.file
    if url:
        file.write_text(lab.text().replace(lab.database.url, url), encoding="utf-8")
    before = files(lab.root)
    result = run(file, *arguments)
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert result.stderr.count("\n") == 1, "one sentence"
    assert "Traceback" not in result.output
    assert "hunter2" not in result.output
    document = json.loads(run(file, *arguments, "--json").stdout)
    assert says in document["error"]
    assert files(lab.root) == before
    slots = (
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'neon_lake%' AND database = current_database()"
    )
    if "_lab" not in "".join(before):
        assert lab.database.query(slots) == [(0,)]
        assert lab.database.query("SELECT count(*) FROM pg_publication") == [(0,)]


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_a_port_where_nobody_answers(filled: Lab) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    refused(filled, "sync", url=f"postgresql://postgres:hunter2@127.0.0.1:{port}/x", says="cannot be reached")


def test_a_database_that_does_not_exist(filled: Lab) -> None:
    url = filled.database.url.replace(filled.database.name, "nowhere")
    refused(filled, "sync", url=url, says='"nowhere" does not exist')


def test_a_url_that_is_none(filled: Lab) -> None:
    refused(filled, "sync", url="mysql://hunter2", says="line 2: source: must be a URL")


def test_a_pooled_host(filled: Lab) -> None:
    url = "postgresql://u:hunter2@ep-cool-1-pooler.eu.aws.neon.tech/db"
    refused(filled, "sync", url=url, says="use the direct host ep-cool-1.eu.aws.neon.tech")


@pytest.fixture(scope="module")
def strict_server(start_server: StartServer) -> Iterator[EmbeddedPostgres]:
    """A server without logical replication that asks for passwords."""
    with start_server(wal_level="replica") as server:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'; CREATE TABLE a (id int PRIMARY KEY)")
        hba = server.data_dir / "pg_hba.conf"
        hba.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("SELECT pg_reload_conf()")
        yield server


def test_a_wrong_password(filled: Lab, strict_server: EmbeddedPostgres) -> None:
    url = strict_server.url(user="guarded").replace("guarded", "guarded:hunter2")
    refused(filled, "sync", url=url, says="password authentication failed")


def test_a_server_without_logical_replication(filled: Lab, strict_server: EmbeddedPostgres) -> None:
    refused(filled, "sync", url=strict_server.url(), says="wal_level")
    with psycopg.connect(strict_server.url()) as connection:
        assert connection.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)


def test_a_role_that_may_not_replicate(filled: Lab) -> None:
    filled.database.execute(
        """
        DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT SELECT ON a TO reader;
        ALTER TABLE a OWNER TO reader
        """
    )
    filled.database.execute(f"GRANT CREATE ON DATABASE {filled.database.name} TO reader")
    url = filled.database.url.replace("postgres@", "reader@")
    refused(filled, "sync", url=url, says="REPLICATION")


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        (("public.nowhere",), "public.nowhere does not exist"),
        (("public.keyless",), "public.keyless has no key; add a primary key"),
        (("public.*",), "public.keyless has no key"),
        (("public.v",), "public.v cannot be replicated: it is a view"),
        (("{name: public.a, exclude: [id]}",), "is part of its key"),
        (("{name: public.a, exclude: [none]}",), "has no column none"),
    ],
)
def test_a_table_that_cannot_be_replicated(filled: Lab, tables: tuple[str, ...], says: str) -> None:
    filled.database.execute("CREATE TABLE keyless (id int); CREATE VIEW v AS SELECT 1 AS one")
    refused(replace(filled, tables=tables), "sync", says=says)


def test_an_unknown_key_in_the_pipeline_file(filled: Lab) -> None:
    refused(replace(filled, extra="retention: 5\n"), "sync", says="neon_lake.yaml line 7: unknown key 'retention'")


def test_a_pipeline_file_that_is_not_there(filled: Lab) -> None:
    result = run(filled.root / "none.yaml", "sync")
    assert result.exit_code == 2
    assert "give its path with --config" in result.stderr


@pytest.mark.parametrize("place", ["staging", "lake"])
def test_a_path_that_cannot_be_written(filled: Lab, place: str) -> None:
    # a file where the directory should be: it stops root as well
    (filled.root / place).write_bytes(b"")
    refused(filled, "sync", says="make it writable")


def test_a_table_name_that_is_not_of_the_pipeline(filled: Lab) -> None:
    assert run(filled.file, "sync").exit_code == 0
    result = run(filled.file, "sync", "public.b")
    assert result.exit_code == 2
    assert "public.b is not a table of the pipeline lab; its tables are public.a." in result.stderr
    assert run(filled.file, "sync", "a.b.c").exit_code == 2
    assert run(filled.file, "replay", "public.a", "--from", "yesterday").exit_code == 2
    assert run(filled.file, "resync").exit_code == 2
    assert run(filled.file, "frobnicate").exit_code == 2


def test_a_slot_that_is_in_use(filled: Lab) -> None:
    assert run(filled.file, "sync").exit_code == 0
    filled.database.execute("INSERT INTO a VALUES (2)")
    stream = filled.replication.parts.source.changes(filled.replication.parts.log.head().end, None)  # type: ignore[union-attr]
    with stream as opened:
        next(iter(opened))
        result = run(filled.file, "sync")
    assert result.exit_code == 2
    assert "in use" in result.stderr
    assert run(filled.file, "sync").exit_code == 0
    filled.assert_equal("public.a")


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT pg_drop_replication_slot('neon_lake_lab')", "The slot neon_lake_lab is gone"),
        (
            "INSERT INTO a VALUES (2); SELECT pg_replication_slot_advance('neon_lake_lab', pg_current_wal_lsn())",
            "was advanced to",
        ),
    ],
)
def test_a_slot_that_does_not_fit_the_log(filled: Lab, sql: str, says: str) -> None:
    assert run(filled.file, "sync").exit_code == 0
    for statement in sql.split(";"):
        filled.database.execute(statement)
    result = run(filled.file, "sync")
    assert result.exit_code == 2
    assert says in result.stderr
    assert "neon-lake resync --all" in result.stderr
    assert says in run(filled.file, "check").stdout.replace("\n", " ")
    assert run(filled.file, "resync", "--all").exit_code == 0
    filled.assert_equal("public.a")


def test_a_staging_directory_of_another_pipeline(filled: Lab) -> None:
    assert run(filled.file, "sync").exit_code == 0
    other = filled.root / "other.yaml"
    other.write_text(filled.text().replace("pipeline: lab", "pipeline: other"), encoding="utf-8")
    before = files(filled.root)
    result = run(other, "sync")
    assert result.exit_code == 2
    assert "belongs to the pipeline lab, not to other" in result.stderr
    assert files(filled.root) == before


def test_a_damaged_manifest(filled: Lab) -> None:
    assert run(filled.file, "sync").exit_code == 0
    (manifest,) = (filled.root / "staging" / "manifests").iterdir()
    manifest.write_bytes(manifest.read_bytes().replace(b"lab", b"lob"))
    result = run(filled.file, "sync")
    assert result.exit_code == 2
    assert f"manifests/{manifest.name} is damaged" in result.stderr


def test_a_damaged_segment_names_its_table_and_file(filled: Lab) -> None:
    assert run(filled.file, "sync").exit_code == 0
    filled.database.execute("INSERT INTO a VALUES (2); CREATE TABLE b (id int PRIMARY KEY)")
    assert run(filled.file, "sync", "public.b").exit_code == 0
    (segment,) = (p for p in (filled.root / "staging" / "batches").rglob("*.parquet"))
    segment.write_bytes(segment.read_bytes()[::-1])
    result = run(filled.file, "sync", "--json")
    assert result.exit_code == 1
    table = json.loads(result.stdout)["tables"]["public.a"]
    assert table["state"] == "parked"
    assert segment.name in table["error"]
    assert run(filled.file, "resync", "public.a").exit_code == 0
    filled.assert_equal("public.a")


def test_check_says_what_would_go_wrong(filled: Lab) -> None:
    good = run(filled.file, "check", "--json")
    assert good.exit_code == 0, good.output
    assert json.loads(good.stdout)["ok"]
    filled.database.execute("CREATE TABLE keyless (id int)")
    (filled.root / "lake").rmdir()
    (filled.root / "lake").write_bytes(b"")
    bad = run(filled.file, "check", "--json")
    assert bad.exit_code == 2
    problems = [f["problem"] for f in json.loads(bad.stdout)["findings"] if f["problem"]]
    assert len(problems) == 2
    assert any("has no key" in p for p in problems)


def test_check_is_readable_by_people(filled: Lab) -> None:
    shown = run(filled.file, "check").stdout
    assert "✓" in shown
    assert "wal_level" in shown
