"""Answers have the keys and types that recordings of real workspaces have.

The recordings: https://github.com/databricks/databricks-jdbc, src/test/resources/{sqlexecapi,cloudfetchapi}. What is
noted here of them are names and types of fields.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests

from neon_lake_tests.fixtures.workspaces import Workspace

pytestmark = pytest.mark.engines("sail")

COLUMN = {"name": str, "type_text": str, "type_name": str, "position": int}
DECIMAL = COLUMN | {"type_precision": int, "type_scale": int}
CHUNK = {"chunk_index": int, "row_offset": int, "row_count": int}
STATUS = {"state": str}
NO_ROWS = {
    "statement_id": str,
    "status": STATUS,
    "manifest": {
        "format": str,
        "schema": {"column_count": int},
        "total_chunk_count": int,
        "total_row_count": int,
        "truncated": bool,
    },
    "result": {},
}
INLINE = {
    "statement_id": str,
    "status": STATUS,
    "manifest": {
        "format": str,
        "schema": {"column_count": int, "columns": [COLUMN]},
        "total_chunk_count": int,
        "chunks": [CHUNK],
        "total_row_count": int,
        "truncated": bool,
    },
    "result": CHUNK | {"data_array": [[str]]},
}
LINKED = {
    "statement_id": str,
    "status": STATUS,
    "manifest": INLINE["manifest"] | {"chunks": [CHUNK | {"byte_count": int}], "total_byte_count": int},  # type: ignore[operator]
    "result": {"external_links": [CHUNK | {"byte_count": int, "external_link": str, "expiration": str}]},
}
FAILED = {"statement_id": str, "status": {"state": str, "error": {"error_code": str, "message": str}}}
PENDING = {"statement_id": str, "status": STATUS}


def _shape(value: Any) -> Any:
    """Keys, and types of what they lead to; of a list, what all its items are."""
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    if isinstance(value, list):
        shapes = [_shape(each) for each in value if each is not None]
        assert all(shape == shapes[0] for shape in shapes), value
        return shapes[:1]
    return type(value)


@pytest.mark.parametrize(
    ("statement", "shape"),
    [
        ("SELECT 'x' AS s, 1 AS i", INLINE),
        ("INSERT INTO {table} VALUES (1)", INLINE),
        ("UPDATE {table} SET n = 2", INLINE),
        ("DROP TABLE IF EXISTS {table}", NO_ROWS),
        ("CREATE TABLE IF NOT EXISTS {table} (n INT) USING DELTA", NO_ROWS),
        ("INSER INTO {table} VALUES (1)", FAILED),
        ("SELECT * FROM {table}_not", FAILED),
    ],
)
def test_statements(workspace: Workspace, statement: str, shape: dict[str, Any]) -> None:
    table = f"{workspace.schema()}.t"
    workspace.sql(f"CREATE TABLE {table} (n INT) USING DELTA")
    assert _shape(workspace.statement(statement.format(table=table))) == shape


def test_a_decimal_says_its_digits(workspace: Workspace) -> None:
    (column,) = workspace.statement("SELECT CAST(1 AS DECIMAL(7,2)) AS d")["manifest"]["schema"]["columns"]
    assert _shape(column) == DECIMAL
    assert column == {
        "name": "d",
        "type_text": "DECIMAL(7,2)",
        "type_name": "DECIMAL",
        "position": 0,
        "type_precision": 7,
        "type_scale": 2,
    }


def test_a_query_without_rows_has_columns_and_no_chunks(workspace: Workspace) -> None:
    answer = workspace.statement("SELECT 1 AS n WHERE false")
    assert "chunks" not in answer["manifest"]
    assert answer["manifest"]["schema"]["column_count"] == 1
    assert answer["result"] == {}


@pytest.mark.parametrize("form", ["ARROW_STREAM", "JSON_ARRAY"])
def test_links(workspace: Workspace, form: str) -> None:
    answer = workspace.statement("SELECT 'x' AS s", disposition="EXTERNAL_LINKS", format=form)
    assert _shape(answer) == LINKED
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:]{8}\.\d{3}Z", answer["result"]["external_links"][0]["expiration"])
    link = answer["result"]["external_links"][0]["external_link"]
    body = requests.get(link, timeout=60)
    if form == "JSON_ARRAY":
        assert body.json() == [["x"]]


def test_what_has_not_ended(workspace: Workspace) -> None:
    workspace.client().warehouses.stop(workspace.warehouse)
    head = {"authorization": f"Bearer {workspace.token}"}
    body = {"statement": "SELECT 1", "warehouse_id": workspace.warehouse, "wait_timeout": "0s"}
    url = f"{workspace.host}/api/2.0/sql/statements"
    answer = requests.post(url, json=body, headers=head, timeout=60).json()
    assert _shape(answer) == PENDING
    assert answer["status"]["state"] == "PENDING"


@pytest.mark.parametrize(
    ("token", "status", "message"),
    [
        (None, 401, "Credential was not sent or was of an unsupported type for this API."),
        ("Basic eDp5", 401, "Credential was not sent or was of an unsupported type for this API."),
        ("Bearer wrong", 403, "Invalid access token."),
    ],
)
def test_credentials_that_are_none(workspace: Workspace, token: str | None, status: int, message: str) -> None:
    head = {} if token is None else {"authorization": token}
    answer = requests.post(f"{workspace.host}/api/2.0/sql/statements", json={}, headers=head, timeout=60)
    assert answer.status_code == status
    assert answer.json() == {"error_code": status, "message": message}


@pytest.mark.parametrize(
    "fields",
    [
        {"warehouse_id": "nothing"},
        {"wait_timeout": "4s"},
        {"wait_timeout": "51s"},
        {"wait_timeout": "soon"},
        {"wait_timeout": "0s", "on_wait_timeout": "CANCEL"},
        {"on_wait_timeout": "WONDER"},
        {"format": "CSV"},
        {"format": "ARROW_STREAM"},
        {"statement": " "},
        {"statement": f"SELECT '{'x' * (16 << 20)}'"},
        {"unheard_of": 1},
    ],
    ids="-".join,
)
def test_requests_that_are_refused(workspace: Workspace, fields: dict[str, Any]) -> None:
    head = {"authorization": f"Bearer {workspace.token}"}
    body = {"statement": "SELECT 1", "warehouse_id": workspace.warehouse, **fields}
    answer = requests.post(f"{workspace.host}/api/2.0/sql/statements", json=body, headers=head, timeout=60)
    assert answer.status_code in (400, 404)
    assert _shape(answer.json()) == {"error_code": str, "message": str}


def test_rows_beyond_the_limit_are_cut(workspace: Workspace) -> None:
    answer = workspace.statement("SELECT explode(sequence(1, 5)) AS n", row_limit=2)
    assert answer["result"]["data_array"] == [["1"], ["2"]]
    assert answer["manifest"]["truncated"] is True


def test_parameters_and_defaults(workspace: Workspace) -> None:
    workspace.sql(f"CREATE TABLE {workspace.schema()}.t USING DELTA AS SELECT 1 AS n")
    given = [{"name": "a", "value": "4", "type": "INT"}, {"name": "b", "value": "it's"}, {"name": "c"}]
    answer = workspace.statement(
        "SELECT n + :a, :b, :c FROM t",
        parameters=given,
        catalog=workspace.catalog,
        schema="shop",
        query_tags=[{"key": "pipeline", "value": "shop"}],
    )
    assert answer["result"]["data_array"] == [["5", "it's", None]]


def test_a_statement_that_takes_too_long_is_cancelled_when_that_is_asked_for(workspace: Workspace) -> None:
    workspace.fault(do="slow_statement", ms=60_000, method="POST", path="statements")
    answer = workspace.statement("SELECT 1", wait_timeout="5s", on_wait_timeout="CANCEL")
    assert answer["status"] == {"state": "CANCELED"}
