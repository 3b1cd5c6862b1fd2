"""Whatever happens to the requests to a Databricks workspace, source and lake are equal afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from neon_lake.errors import NeonLakeError
from neon_lake.lifecycle import State
from neon_lake.pipeline import Replication
from neon_lake.pipeline.results import Synced
from neon_lake.workspace import statements
from neon_lake_tests.fixtures.databricks import DatabricksLab
from neon_lake_tests.fixtures.judging import MODES, assert_whole, changed, filled
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.volumes import Hasty
from neon_lake_tests.fixtures.workspaces import Workspace, catalog, started

pytestmark = pytest.mark.engines("sail")

STATEMENTS: Final = "/api/2.0/sql/statements"
FILES: Final = "/api/2.0/fs/files/"
FOLDERS: Final = "/api/2.0/fs/directories/"
UNITY: Final = "/api/2.1/unity-catalog/"

KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "statement sent": ("POST", f"{STATEMENTS}/?$"),
    "statement looked at": ("GET", f"{STATEMENTS}/[^/]+$"),
    "chunk": ("GET", "/result/chunks/"),
    "link": ("GET", "/presigned/results/"),
    "file written": ("PUT", FILES),
    "file read": ("GET", FILES),
    "file removed": ("DELETE", FILES),
    "folder listed": ("GET", FOLDERS),
    "folder removed": ("DELETE", FOLDERS),
    "warehouse": ("GET", "/api/2.0/sql/warehouses/"),
    "table": ("GET", f"{UNITY}tables/"),
    "catalog, schema or volume": ("GET", f"{UNITY}(catalogs|schemas|volumes)/"),
    "identity": ("GET", "/scim/v2/Me"),
}
"""Every kind of request that a sync, a deep verify and an expiry make."""

FAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "duplicated": {"do": "duplicate", "every": 1},
    "answered late": {"do": "delay", "ms": 20, "every": 3},
    "carried out late": {"do": "late", "every": 3},
    "dropped before": {"do": "drop_before", "every": 2},
    "dropped after success": {"do": "drop_after", "every": 2},
    "429": {"do": "status", "status": 429, "retry_after": 1, "every": 2},
    "503": {"do": "status", "status": 503, "every": 2},
    "503 by a proxy, after success": {"do": "status", "status": 503, "plain": True, "carry": True, "every": 2},
    "500": {"do": "status", "status": 500, "every": 2},
    "500 after success": {"do": "status", "status": 500, "carry": True, "every": 2},
    "cut in the answer": {"do": "cut_answer", "every": 2},
    # as in life, one that was just fetched is good for a while: several threads share it
    "with an expired token": {"do": "expire_tokens", "every": 3, "ms": 200},
}
CUT: Final = frozenset({"statement sent", "statement looked at", "chunk", "link", "file read", "folder listed"})
"""What has answers that can be cut so that it shows; for others no answer was made by this fault's server."""
UNSIGNED: Final = frozenset({"link"})
"""What wants no token."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace whose results come in small chunks."""
    with started("sail", tmp_path_factory.mktemp("workspace"), "--chunk-rows", "10") as workspace:
        yield workspace


@pytest.fixture
def lab(database: Database, tmp_path: Any, server: Workspace, engine: str) -> Iterator[DatabricksLab]:
    """A pipeline of four tables that are written in four ways; nothing is synced yet."""
    with catalog(server) as workspace:
        workspace.schema("public")
        lab = DatabricksLab(
            database=database,
            root=tmp_path,
            workspace=workspace,
            volume=workspace.volume(),
            tables=MODES,
            client=workspace.client(
                client_id=workspace.client_id,
                client_secret=workspace.client_secret,
                auth_type="oauth-m2m",
                clock=Hasty(),
                retry_timeout_seconds=60,
            ),
        )
        filled(lab)
        yield lab


def synced(lab: DatabricksLab) -> Synced:
    done = lab.opened().sync()
    assert done.ok, {str(name): result.error for name, result in done.tables.items()}
    return done


def mended(lab: DatabricksLab) -> None:
    """Without faults, after one more sync, both sides are equal, and the next one with changes finds nothing amiss."""
    lab.workspace.forget()
    synced(lab)
    assert_whole(lab)
    changed(lab, 3)
    done = synced(lab)
    assert all(result.snapshot_rows is None for result in done.tables.values()), done
    assert_whole(lab)


@pytest.mark.sdk
@pytest.mark.parametrize("fault", FAULTS)
def test_a_pipeline_works_with_every_kind_of_request_faulted(
    lab: DatabricksLab, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = FAULTS[fault]
    kinds = {
        kind: at
        for kind, at in KINDS.items()
        if not (rule["do"] == "cut_answer" and kind not in CUT)
        and not (rule["do"] == "expire_tokens" and kind in UNSIGNED)
    }
    for method, path in kinds.values():
        lab.workspace.fault(method=method, path=path, times=0, **rule)
    synced(lab)
    assert_whole(lab)
    # statements that take long are looked at again and again
    monkeypatch.setattr(statements, "WAIT", "0s")
    for round_ in (1, 2):
        changed(lab, round_)
        synced(lab)
        assert_whole(lab)
    found = lab.opened().verify(deep=True)
    assert found.ok, found.to_json()
    assert lab.opened().expire(datetime.now(UTC) + timedelta(days=32)).manifests
    happened = dict(zip(kinds, (each["happened"] for each in lab.workspace.faults()), strict=True))
    assert all(happened.values()), happened
    mended(lab)


@pytest.mark.sdk
@pytest.mark.parametrize("carry", [False, True])
def test_a_warehouse_that_stops_in_the_middle_is_started_again(lab: DatabricksLab, carry: bool) -> None:
    for body in ("CREATE OR REPLACE", "MERGE INTO", "DESCRIBE HISTORY"):
        lab.workspace.fault(
            do="stop_warehouse", carry=carry, method="POST", path=STATEMENTS, body=body, every=2, times=0
        )
    synced(lab)
    for round_ in (1, 2):
        changed(lab, round_)
        synced(lab)
        assert_whole(lab)
    assert all(each["happened"] for each in lab.workspace.faults())
    mended(lab)


@pytest.mark.sdk
def test_an_upload_that_is_cut_is_made_again(lab: DatabricksLab) -> None:
    lab.workspace.fault(do="cut_upload", method="PUT", path=FILES, every=2, times=0)
    synced(lab)
    for round_ in (1, 2):
        changed(lab, round_)
        synced(lab)
        assert_whole(lab)
    (rule,) = lab.workspace.faults()
    assert rule["happened"] > 10
    mended(lab)


# --- what stays wrong

FOREVER: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "the workspace is away": ({"do": "status", "status": 503, "path": "/api/"}, "does not answer"),
    "every connection is cut": ({"do": "drop_before", "path": "/api/"}, "does not answer"),
    "the workspace fails": ({"do": "status", "status": 500, "path": "/api/"}, "does not answer"),
    "the token is revoked": ({"do": "status", "status": 401, "path": "/api/"}, "renew the token"),
    "no statement is taken": ({"do": "status", "status": 503, "path": STATEMENTS}, "does not answer"),
    "the warehouse is deleted": ({"do": "status", "status": 404, "path": "/api/2.0/sql/"}, "destination.warehouse"),
    "no file is taken": ({"do": "status", "status": 503, "path": FILES, "method": "PUT"}, "does not answer"),
    "no file is given": ({"do": "cut_answer", "path": FILES, "method": "GET"}, "does not answer"),
    "nothing is listed": ({"do": "status", "status": 500, "path": FOLDERS}, "does not answer"),
}


@pytest.mark.parametrize("first", [1, 40], ids=["from the start", "in the middle"])
@pytest.mark.parametrize("fault", FOREVER)
def test_what_stays_wrong_ends_the_run_in_one_sentence_and_parks_nothing(
    lab: DatabricksLab, fault: str, first: int
) -> None:
    rule, words = FOREVER[fault]
    synced(lab)
    changed(lab, 1)
    # a token that a person gave cannot be fetched anew
    lab = replace(lab, client=lab.workspace.client(clock=Hasty(), retry_timeout_seconds=60))
    lab.workspace.forget()
    narrow = "sql" in rule["path"] or "fs" in rule["path"]
    lab.workspace.fault(times=0, nth=1 if first == 1 else 4 if narrow else first, **rule)
    sentences, code = ended(lab.opened())
    assert sentences
    assert code == (2 if first == 1 and "statement" not in fault else code) != 0
    for said in sentences:
        assert words in said, said
        assert "\n" not in said
        assert said.endswith(".")
        assert lab.workspace.token not in said
    assert len(lab.workspace.requests()) < 800
    lab.workspace.forget()
    assert not lab.opened().parts.log.marks()
    mended(lab)


def ended(replication: Replication) -> tuple[list[str], int]:
    """What a sync that fails says, and the exit code of its command."""
    try:
        done = replication.sync()
    except NeonLakeError as exc:
        return [str(exc)], exc.exit_code
    failed = [result for result in done.tables.values() if result.error]
    assert all(result.transient and result.state is not State.PARKED for result in failed), done.to_json()
    return [str(result.error) for result in failed], int(not done.ok)
