"""What can go wrong with a request, as a client of the workspace sees it."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest
import requests
from databricks.sdk.errors import NotFound, PermissionDenied
from databricks.sdk.service.sql import StatementState

from neon_lake_tests.fixtures.workspaces import Workspace

pytestmark = pytest.mark.engines("sail")


def _counter(workspace: Workspace) -> str:
    table = f"{workspace.schema()}.counted"
    workspace.sql(f"CREATE TABLE {table} (n BIGINT) USING DELTA")
    return table


def _insert(workspace: Workspace, table: str) -> requests.Response:
    return requests.post(
        f"{workspace.host}/api/2.0/sql/statements",
        json={"statement": f"INSERT INTO {table} VALUES (1)", "warehouse_id": workspace.warehouse},
        headers={"authorization": f"Bearer {workspace.token}"},
        timeout=60,
    )


def _count(workspace: Workspace, table: str) -> int:
    return int(str(workspace.sql(f"SELECT count(*) FROM {table}")[0][0]))


def test_a_duplicated_statement_is_carried_out_twice(workspace: Workspace) -> None:
    table = _counter(workspace)
    workspace.fault(do="duplicate", method="POST", path="statements", body="INSERT")
    assert _insert(workspace, table).json()["status"]["state"] == "SUCCEEDED"
    assert _count(workspace, table) == 2


@pytest.mark.parametrize(("act", "rows"), [("drop_before", 0), ("drop_after", 1), ("late", 0)])
def test_a_dropped_request_has_no_answer(workspace: Workspace, act: str, rows: int) -> None:
    table = _counter(workspace)
    workspace.fault(do=act, method="POST", path="statements", body="INSERT")
    with pytest.raises(requests.ConnectionError):
        _insert(workspace, table)
    assert _count(workspace, table) == rows


def test_a_late_request_is_carried_out_after_the_next_one(workspace: Workspace) -> None:
    table = _counter(workspace)
    workspace.fault(do="late", method="POST", path="statements", body="INSERT")
    with pytest.raises(requests.ConnectionError):
        _insert(workspace, table)
    assert _insert(workspace, table).ok
    seen = [each for each in workspace.requests() if "INSERT" in (each["statement"] or "")]
    assert [each["carried"] for each in seen] == [1, 1]
    assert _count(workspace, table) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("carry", [False, True])
def test_an_error_is_answered_before_or_after_the_work(workspace: Workspace, status: int, carry: bool) -> None:
    table = _counter(workspace)
    workspace.fault(do="status", status=status, retry_after=7, carry=carry, method="POST", path="statements")
    answer = _insert(workspace, table)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
    assert answer.json()["error_code"]
    assert _count(workspace, table) == int(carry)


def test_the_page_of_a_proxy_is_no_json(workspace: Workspace) -> None:
    workspace.fault(do="status", status=503, plain=True, path="/Me")
    answer = requests.get(f"{workspace.host}/api/2.0/preview/scim/v2/Me", timeout=60)
    assert answer.text.startswith("<html>")


def test_an_upload_that_is_cut_leaves_nothing(workspace: Workspace) -> None:
    path = f"{workspace.volume()}/file"
    workspace.fault(do="cut_upload", method="PUT")
    url = f"{workspace.host}/api/2.0/fs/files{path}"
    head = {"authorization": f"Bearer {workspace.token}"}
    with pytest.raises(requests.ConnectionError):
        requests.put(url, data=b"x" * 4_000_000, headers=head, timeout=60)
    with pytest.raises(NotFound):
        workspace.client().files.download(path)
    assert [each["taken"] for each in workspace.requests() if each["method"] == "PUT"] == [2_000_000]
    assert list((workspace.root / "arriving").iterdir()) == []


def test_an_answer_that_is_cut_is_noticed_by_its_length(workspace: Workspace) -> None:
    path = f"{workspace.volume()}/file"
    workspace.client().files.upload(path, io.BytesIO(b"x" * 4_000_000))
    workspace.fault(do="cut_answer", method="GET", path="/fs/files/")
    head = {"authorization": f"Bearer {workspace.token}"}
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(f"{workspace.host}/api/2.0/fs/files{path}", headers=head, timeout=60)


def test_rules_count_the_requests_that_they_are_for(workspace: Workspace) -> None:
    table = _counter(workspace)
    workspace.fault(do="status", status=500, method="POST", path="statements", body="INSERT", nth=2, times=2)
    assert [_insert(workspace, table).status_code for _ in range(5)] == [200, 500, 500, 200, 200]
    (rule,) = workspace.faults()
    assert (rule["matched"], rule["happened"]) == (5, 2)
    workspace.forget()
    workspace.fault(do="status", status=500, method="POST", path="statements", body="INSERT", every=2, times=0)
    assert [_insert(workspace, table).status_code for _ in range(5)] == [200, 500, 200, 500, 200]


def test_a_delayed_answer_comes_after_the_work(workspace: Workspace) -> None:
    table = _counter(workspace)
    workspace.fault(do="delay", ms=50, method="POST", path="statements", body="INSERT")
    assert _insert(workspace, table).json()["status"]["state"] == "SUCCEEDED"
    workspace.fault(do="delay", ms=50, carry=False, method="POST", path="statements", body="INSERT")
    assert _insert(workspace, table).json()["status"]["state"] == "SUCCEEDED"
    assert _count(workspace, table) == 2


def test_expired_tokens_are_refused_and_renewed(workspace: Workspace) -> None:
    client = workspace.client(
        client_id=workspace.client_id, client_secret=workspace.client_secret, auth_type="oauth-m2m"
    )
    assert client.current_user.me().user_name
    workspace.fault(do="expire_tokens", path="/Me")
    with pytest.raises(PermissionDenied):
        client.current_user.me()
    fresh = workspace.client(
        client_id=workspace.client_id, client_secret=workspace.client_secret, auth_type="oauth-m2m"
    )
    assert fresh.current_user.me().user_name


@pytest.mark.parametrize(("carry", "rows"), [(False, 0), (True, 1)])
def test_a_stopped_warehouse_fails_what_runs_and_is_started_by_the_next_statement(
    workspace: Workspace, carry: bool, rows: int
) -> None:
    table = _counter(workspace)
    workspace.fault(do="stop_warehouse", carry=carry, method="POST", path="statements", body="INSERT")
    answer = _insert(workspace, table).json()
    assert answer["status"]["state"] == "FAILED"
    assert answer["status"]["error"]["error_code"] == "ABORTED"
    client = workspace.client()
    assert str(client.warehouses.get(workspace.warehouse).state) == "State.STOPPED"
    assert _count(workspace, table) == rows
    assert str(client.warehouses.get(workspace.warehouse).state) == "State.RUNNING"


def test_a_stopped_warehouse_starts_over_polls(workspace: Workspace) -> None:
    client = workspace.client()
    client.warehouses.stop(workspace.warehouse)
    client.warehouses.start(workspace.warehouse)
    states = [str(client.warehouses.get(workspace.warehouse).state).removeprefix("State.") for _ in range(3)]
    assert states == ["STARTING", "STARTING", "RUNNING"]


def test_a_taken_privilege_is_missing(workspace: Workspace) -> None:
    path = f"{workspace.volume()}/file"
    table = _counter(workspace)
    client = workspace.client()
    workspace.take(workspace.catalog, "WRITE_VOLUME")
    with pytest.raises(PermissionDenied, match="WRITE VOLUME"):
        client.files.upload(path, io.BytesIO(b"x"))
    workspace.take(table, "MODIFY")
    answer = _insert(workspace, table).json()["status"]["error"]
    assert answer["message"].startswith("[INSUFFICIENT_PERMISSIONS]")
    held = client.api_client.do("GET", f"/api/2.1/unity-catalog/effective-permissions/catalog/{workspace.catalog}")
    assert isinstance(held, dict)
    names = {each["privilege"] for each in held["privilege_assignments"][0]["privileges"]}
    assert "READ_VOLUME" in names
    assert "WRITE_VOLUME" not in names


def test_what_was_received_is_listed(workspace: Workspace) -> None:
    table = _counter(workspace)
    workspace.forget()
    _insert(workspace, table)
    (seen,) = workspace.requests()
    assert (seen["method"], seen["path"], seen["status"]) == ("POST", "/api/2.0/sql/statements", 200)
    assert seen["statement"] == f"INSERT INTO {table} VALUES (1)"
    assert min(seen["taken"], seen["given"]) > 0


def test_a_cancelled_statement_is_cancelled(workspace: Workspace) -> None:
    client = workspace.client()
    client.warehouses.stop(workspace.warehouse)
    begun = client.statement_execution.execute_statement(
        statement="SELECT 1", warehouse_id=workspace.warehouse, wait_timeout="0s"
    )
    assert begun.status is not None
    assert begun.status.state is StatementState.PENDING
    client.statement_execution.cancel_execution(str(begun.statement_id))
    ended = client.statement_execution.get_statement(str(begun.statement_id))
    assert ended.status is not None
    assert ended.status.state is StatementState.CANCELED


@pytest.mark.parametrize(("carry", "rows"), [(False, 0), (True, 1)])
def test_a_cancelled_statement_may_have_happened_all_the_same(workspace: Workspace, carry: bool, rows: int) -> None:
    table = _counter(workspace)
    workspace.fault(do="slow_statement", ms=60_000, carry=carry, method="POST", path="statements", body="INSERT")
    run = workspace.client().statement_execution
    begun = run.execute_statement(
        statement=f"INSERT INTO {table} VALUES (1)", warehouse_id=workspace.warehouse, wait_timeout="0s"
    )
    while (now := run.get_statement(str(begun.statement_id)).status) and now.state is StatementState.PENDING:
        pass
    run.cancel_execution(str(begun.statement_id))
    assert _count(workspace, table) == rows
    # what happened afterwards does not change what is said of it
    ended = run.get_statement(str(begun.statement_id)).status
    assert ended is not None
    assert ended.state is StatementState.CANCELED


def test_a_rule_that_is_none_is_refused(workspace: Workspace) -> None:
    with pytest.raises(AssertionError, match="no rule"):
        workspace.fault(do="nothing")


def test_a_dead_link_is_refused(workspace: Workspace) -> None:
    assert requests.get(f"{workspace.host}/presigned/results/none", timeout=60).status_code == 403
    with pytest.raises(NotFound):
        workspace.client().statement_execution.get_statement("none")


def test_links_want_no_credentials(workspace: Workspace) -> None:
    answer = workspace.statement("SELECT 5 AS n", disposition="EXTERNAL_LINKS", format="ARROW_STREAM")
    link = answer["result"]["external_links"][0]["external_link"]
    assert pa.ipc.open_stream(requests.get(link, timeout=60).content).read_all().to_pylist() == [{"n": 5}]
    head = {"authorization": f"Bearer {workspace.token}"}
    assert requests.get(link, headers=head, timeout=60).status_code == 400
