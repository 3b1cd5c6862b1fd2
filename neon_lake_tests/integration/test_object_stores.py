"""A pipeline with its log and lake in an object store, and what is said when the store cannot be used."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from neon_lake.errors import DestinationUnavailable, NeonLakeError, StagingUnavailable
from neon_lake.lifecycle import State
from neon_lake.orchestration.known_tables import FILE, known_tables
from neon_lake.orchestration.resources import PostgresResource
from neon_lake.pipeline import Replication
from neon_lake.schema import TableName
from neon_lake_tests.fixtures.object_stores import ObjectStore, object_store
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.processes import run
from neon_lake_tests.fixtures.store_pipelines import StoreLab

A = TableName("public", "a")
TABLES = ("public.a", "public.Odd Name")
IMPATIENT = {"max_retries": "1", "retry_timeout": "1s", "connect_timeout": "1s"}


@pytest.fixture(scope="module")
def s3() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture(scope="module")
def strict_s3() -> Iterator[ObjectStore]:
    """One that lets only its own key in."""
    with object_store() as store:
        yield store.strict()


@pytest.fixture
def stored(filled: Lab, s3: ObjectStore) -> StoreLab:
    return StoreLab(database=filled.database, root=filled.root, bucket=s3.bucket(), options=s3.options)


@pytest.fixture
def refused(filled: Lab, strict_s3: ObjectStore) -> StoreLab:
    options = {**strict_s3.options, **IMPATIENT}
    # moto verifies the query of a request as it came, and takes the ~ of `Odd~20Name` in it for another character
    return StoreLab(
        database=filled.database, root=filled.root, tables=("public.a",), bucket=strict_s3.bucket(), options=options
    )


def synced(lab: StoreLab) -> None:
    done = Replication.open(lab.config).sync()
    assert done.ok, done


def nothing_unfinished(lab: StoreLab) -> bool:
    return not [path for path in lab.bucket.paths() if "/." in path] and lab.bucket.uploads() == 0


def test_a_pipeline_lives_in_an_object_store(stored: StoreLab) -> None:
    assert all(finding.problem is None for finding in stored.replication.check())
    synced(stored)
    stored.assert_equal(*TABLES)
    begin = datetime.now(UTC) - timedelta(minutes=5)
    stored.database.execute(
        "UPDATE a SET name = 'new' WHERE id < 50; DELETE FROM a WHERE id = 100; INSERT INTO a (id) VALUES (2000);"
        'UPDATE "Odd Name" SET "K2" = \'moved\' WHERE "Key.1" = 1'
    )
    synced(stored)
    stored.assert_equal(*TABLES)
    stored.database.execute(
        "ALTER TABLE a ADD later timestamp; UPDATE a SET later = '2026-01-01' WHERE id = 3;"
        'ALTER TABLE "Odd Name" RENAME doc TO document;'
        "CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)"
    )
    synced(stored)
    stored.assert_equal(*TABLES, "public.late")
    verified = stored.replication.verify(deep=True)
    assert verified.ok, verified

    stored.delta("public.a").update(updates={"name": "'wrong'"}, predicate="id = 3")
    assert not stored.replication.verify([A], deep=True).ok
    assert stored.replication.replay(A, begin).ok
    stored.assert_equal("public.a")
    stored.delta("public.a").delete("id = 7")
    assert stored.replication.resync([A]).ok
    stored.assert_equal("public.a")

    segments = [path for path in stored.bucket.paths("lab/staging/") if path.endswith(".parquet")]
    removed = stored.replication.expire(datetime.now(UTC) + timedelta(days=31))
    assert removed.manifests >= 2
    assert removed.segments >= len(segments)
    (manifest,) = stored.bucket.paths("lab/staging/manifests/")
    stored.database.execute("UPDATE a SET name = 'on' WHERE id = 1")
    synced(stored)
    stored.assert_equal(*TABLES, "public.late")
    assert len(stored.bucket.paths("lab/staging/manifests/")) == 2
    assert manifest in stored.bucket.paths("lab/staging/manifests/")
    assert nothing_unfinished(stored)


@pytest.mark.parametrize(
    "at", ["capture.segments-written", "capture.manifest-published", "file.unnamed", "manifest.named"]
)
def test_a_run_that_dies_while_it_captures_is_carried_on(stored: StoreLab, at: str) -> None:
    synced(stored)
    stored.database.execute("UPDATE a SET name = 'new' WHERE id < 50; INSERT INTO a (id) VALUES (2000)")
    assert run(stored, "sync", NEON_LAKE_FAILPOINT=at, **stored.environment).returncode == -signal.SIGKILL
    synced(stored)
    stored.assert_equal(*TABLES)


@pytest.mark.parametrize("at", ["apply.table-unnamed", "apply.table-unnamed:2", "apply.after-commit"])
def test_a_run_that_dies_while_it_makes_a_table_is_carried_on(stored: StoreLab, at: str) -> None:
    assert run(stored, "sync", NEON_LAKE_FAILPOINT=at, **stored.environment).returncode == -signal.SIGKILL
    synced(stored)
    stored.assert_equal(*TABLES)


def test_the_environment_alone_is_enough(stored: StoreLab) -> None:
    environment = {name.upper(): value for name, value in stored.options.items()}
    bare = replace(stored, options={})
    ended = run(bare, "sync", **environment)
    assert ended.returncode == 0, ended.said
    stored.assert_equal(*TABLES)


def test_what_the_source_last_had_is_remembered_there(stored: StoreLab) -> None:
    found = known_tables(stored.config, PostgresResource())
    assert {relation.table for relation in found} == {TableName.parse(table) for table in TABLES}
    assert len(json.loads(stored.bucket.read(f"lab/staging/{FILE}"))) == 2
    config = stored.config
    away = replace(config, source=replace(config.source, url="postgresql://nobody@127.0.0.1:1/nothing"))
    assert known_tables(away, PostgresResource()) == found


def test_a_missing_segment_parks_its_table_alone(stored: StoreLab) -> None:
    synced(stored)
    stored.database.execute('UPDATE a SET name = \'x\' WHERE id = 1; DELETE FROM "Odd Name" WHERE "Key.1" = 1')
    stored.replication.sync([TableName("public", "Odd Name")])
    (segment,) = [s for m in stored.replication.parts.log.manifests() for s in m.of(A)]
    stored.bucket.store.client().delete_object(Bucket=stored.bucket.name, Key=f"lab/staging/{segment.path}")
    result = stored.replication.sync()
    assert result.tables[A].state is State.PARKED
    assert f"{segment.path} is missing" in str(result.tables[A].error)
    stored.assert_equal("public.Odd Name")


def test_a_missing_file_of_a_table_is_that_tables_fault(stored: StoreLab) -> None:
    synced(stored)
    path = next(p for p in stored.bucket.paths("lab/lake/public/a/") if p.endswith(".parquet"))
    stored.bucket.store.client().delete_object(Bucket=stored.bucket.name, Key=path)
    stored.database.execute("UPDATE a SET name = 'x' WHERE id = 1; UPDATE \"Odd Name\" SET doc = 'x'")
    result = stored.replication.sync()
    assert result.tables[A].state is State.PARKED
    assert "public/a cannot be used" in str(result.tables[A].error)
    stored.assert_equal("public.Odd Name")


# --- a store that cannot be used


def unreachable() -> str:
    """The URL of a server that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


CASES = {
    "unknown key": ({"aws_access_key_id": "AKIANOBODYKNOWSME"}, "it answers 403 Forbidden, InvalidAccessKeyId"),
    "session token": ({"aws_session_token": "not-a-token-of-this-key"}, "it answers 400 Bad Request, InvalidToken"),
    "missing bucket": ({}, "it answers 404 Not Found, NoSuchBucket"),
    "unreachable": ({"aws_endpoint_url": unreachable()}, "it cannot be reached"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("where", ["staging", "lake"])
def test_what_is_wrong_is_said_in_one_sentence(refused: StoreLab, where: str, case: str) -> None:
    options, said = CASES[case]
    url = f"s3://nobody-has-this-bucket/{where}" if case == "missing bucket" else ""
    lab = (
        replace(refused, at_staging=options, staging=url)
        if where == "staging"
        else replace(refused, at_lake=options, lake_url=url)
    )
    begun = time.monotonic()
    ended = run(lab, "sync", "--json", **lab.environment)
    assert time.monotonic() - begun < 60, "it is bounded"
    assert ended.returncode == 2, ended.said
    error = json.loads(ended.document)["error"]
    assert said in error
    assert re.search(rf"s3://[\w/.-]+{where}", error)
    assert error.count(". ") == 0
    for secret in (lab.bucket.store.secret_key, lab.bucket.store.access_key, "not-a-token", "AKIANOBODY"):
        assert secret not in ended.said
        assert secret not in repr(lab.config)
    problems = [finding for finding in Replication.open(lab.config).check() if finding.problem]
    assert [finding.problem for finding in problems] == [error]


@pytest.mark.parametrize("verb", ["target", "read", "append"])
def test_a_key_that_is_taken_away_is_said_by_every_part(refused: StoreLab, verb: str) -> None:
    synced(refused)
    wrong = replace(refused, options={**refused.options, "aws_access_key_id": "AKIANOBODYKNOWSME"})
    fine, parts = refused.replication.parts.destination, Replication.open(wrong.config).parts
    target = fine.target(A)
    assert target is not None

    def broken() -> None:
        if verb == "target":
            parts.destination.target(A)
        elif verb == "read":
            list(parts.destination.read(target, ["id"]))
        else:
            with parts.log.storage.sink("a/x") as file:
                file.write(b"1")

    with pytest.raises(
        StagingUnavailable if verb == "append" else DestinationUnavailable, match="403 Forbidden"
    ) as told:
        broken()
    whole = "".join(traceback.format_exception(told.value))
    assert "AKIANOBODY" not in whole
    assert refused.bucket.store.secret_key not in whole


def test_a_disk_without_room_for_what_is_on_its_way_is_named(
    stored: StoreLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with (
        pytest.raises(StagingUnavailable, match=r"nowhere.*TMPDIR"),
        stored.replication.parts.log.storage.sink("a/x") as file,
    ):
        file.write(b"1")


@pytest.mark.parametrize("options", [{"aws_regoin": "eu-central-1"}, {"aws_allow_http": "perhaps"}])
def test_an_option_that_nobody_knows_is_refused_before_anything_is_done(
    stored: StoreLab, options: dict[str, str]
) -> None:
    with pytest.raises(NeonLakeError, match="cannot be used") as told:
        Replication.open(replace(stored, options={**stored.options, **options}).config)
    assert told.value.exit_code == 2
    assert stored.bucket.store.secret_key not in str(told.value)
