"""Statements through the SDK: large results, several at once, and conflicts."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest
import requests
from databricks.sdk.service import sql as api

from neon_lake_tests.fixtures.workspaces import Workspace

MANY = "SELECT id, CAST(id AS STRING) AS text FROM range(250000) ORDER BY id"


@pytest.mark.engines("sail")
@pytest.mark.sdk
def test_a_large_result_comes_in_chunks_of_text(workspace: Workspace) -> None:
    run = workspace.client().statement_execution
    answer = run.execute_statement(statement=MANY, warehouse_id=workspace.warehouse, wait_timeout="50s")
    assert answer.manifest is not None
    assert answer.manifest.total_row_count == 250_000
    chunk, rows = answer.result, []
    while chunk is not None:
        rows += chunk.data_array or []
        if chunk.next_chunk_index is None:
            break
        chunk = run.get_statement_result_chunk_n(str(answer.statement_id), chunk.next_chunk_index)
    assert rows == [[str(n), str(n)] for n in range(250_000)]
    again = run.get_statement(str(answer.statement_id))
    assert again.result is not None
    assert again.result.row_count == 100_000


@pytest.mark.engines("sail")
@pytest.mark.sdk
def test_a_large_result_comes_in_chunks_of_arrow(workspace: Workspace) -> None:
    run = workspace.client().statement_execution
    answer = run.execute_statement(
        statement=MANY,
        warehouse_id=workspace.warehouse,
        wait_timeout="50s",
        disposition=api.Disposition.EXTERNAL_LINKS,
        format=api.Format.ARROW_STREAM,
    )
    chunk, tables = answer.result, []
    while chunk is not None:
        (link,) = chunk.external_links or []
        tables.append(pa.ipc.open_stream(requests.get(str(link.external_link), timeout=60).content).read_all())
        if link.next_chunk_index is None:
            break
        chunk = run.get_statement_result_chunk_n(str(answer.statement_id), link.next_chunk_index)
    assert len(tables) == 3
    assert pa.concat_tables(tables)["id"].to_pylist() == list(range(250_000))


def _at_once(workspace: Workspace, statements: list[str]) -> list[str]:
    """What each statement ended with: SUCCEEDED, or the error class."""
    ended = [""] * len(statements)
    barrier = threading.Barrier(len(statements))

    def run(place: int) -> None:
        barrier.wait()
        status = workspace.statement(statements[place])["status"]
        message = status.get("error", {}).get("message", "")
        ended[place] = message[1 : message.index("]")] if message else status["state"]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(statements))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def test_of_statements_at_once_each_happens_whole_or_meets_a_conflict(workspace: Workspace) -> None:
    table = f"{workspace.schema()}.counted"
    workspace.sql(f"CREATE TABLE {table} (id BIGINT, n BIGINT) USING DELTA")
    workspace.sql(f"INSERT INTO {table} VALUES (1, 0)")
    ended = _at_once(workspace, [f"UPDATE {table} SET n = n + 1 WHERE id = 1"] * 3)
    conflicts = [each for each in ended if each.startswith("DELTA_CONCURRENT")]
    assert ended.count("SUCCEEDED") + len(conflicts) == 3
    assert workspace.sql(f"SELECT n FROM {table}") == [[str(ended.count("SUCCEEDED"))]]
    if workspace.engine.startswith("sail"):
        # it carries out one statement at a time
        assert conflicts == []


def test_of_two_that_make_one_table_one_finds_it_there(workspace: Workspace) -> None:
    table = f"{workspace.schema()}.once"
    ended = _at_once(workspace, [f"CREATE TABLE {table} (id BIGINT) USING DELTA"] * 3)
    assert sorted(ended) == ["SUCCEEDED", "TABLE_OR_VIEW_ALREADY_EXISTS", "TABLE_OR_VIEW_ALREADY_EXISTS"]
    assert _at_once(workspace, [f"CREATE TABLE IF NOT EXISTS {table} (id BIGINT) USING DELTA"] * 2) == ["SUCCEEDED"] * 2
