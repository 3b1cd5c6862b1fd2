"""Unity Catalog, warehouses and sign-in of the workspace for tests, through the SDK; and how it starts and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from databricks.sdk.errors import AlreadyExists, BadRequest, NotFound, PermissionDenied
from databricks.sdk.service.catalog import SecurableType, VolumeType
from databricks.sdk.version import __version__

from neon_lake_tests.fixtures.workspaces import Workspace

pytestmark = [pytest.mark.engines("sail"), pytest.mark.sdk]

_WANTS_TEXT = int(__version__.split(".")[1]) >= 50


def test_catalogs_schemas_and_volumes(workspace: Workspace) -> None:
    client = workspace.client()
    assert client.catalogs.get(workspace.catalog).name == workspace.catalog
    assert workspace.catalog in [each.name for each in client.catalogs.list()]
    made = client.schemas.create(name="Shop", catalog_name=workspace.catalog, comment="what is sold")
    assert (made.full_name, made.comment) == (f"{workspace.catalog}.shop", "what is sold")
    assert [each.name for each in client.schemas.list(workspace.catalog)] == ["default", "shop"]
    with pytest.raises(BadRequest, match="already exists"):
        client.schemas.create(name="shop", catalog_name=workspace.catalog)
    volume = client.volumes.create(workspace.catalog, "shop", "staging", VolumeType.MANAGED, comment="files")
    assert volume.full_name == f"{workspace.catalog}.shop.staging"
    assert client.volumes.read(str(volume.full_name)).comment == "files"
    assert [each.name for each in client.volumes.list(workspace.catalog, "shop")] == ["staging"]
    with pytest.raises(AlreadyExists):
        client.volumes.create(workspace.catalog, "shop", "staging", VolumeType.MANAGED)
    with pytest.raises(BadRequest, match="not empty"):
        client.schemas.delete(f"{workspace.catalog}.shop")
    client.volumes.delete(str(volume.full_name))
    client.schemas.delete(f"{workspace.catalog}.shop")


def test_what_is_not_there(workspace: Workspace) -> None:
    client, name = workspace.client(), workspace.catalog
    with pytest.raises(NotFound, match="Catalog 'none' does not exist"):
        client.catalogs.get("none")
    with pytest.raises(NotFound, match=r"Schema .* does not exist"):
        client.schemas.get(f"{name}.none")
    with pytest.raises(NotFound, match=r"Volume .* does not exist"):
        client.volumes.read(f"{name}.default.none")
    with pytest.raises(NotFound, match=r"Table .* does not exist"):
        client.tables.get(f"{name}.default.none")
    with pytest.raises(NotFound, match="warehouse none does not exist"):
        client.warehouses.get("none")


def test_names_are_names(workspace: Workspace) -> None:
    client = workspace.client()
    for name in ("a.b", "a b", "a/b", "", "../x"):
        with pytest.raises(BadRequest):
            client.schemas.create(name=name, catalog_name=workspace.catalog)


def test_tables(workspace: Workspace) -> None:
    client, table = workspace.client(), f"{workspace.schema()}.orders"
    workspace.sql(
        f"CREATE TABLE {table} (id BIGINT NOT NULL COMMENT 'number', price DECIMAL(10,2), tags ARRAY<STRING>, "
        "CONSTRAINT pk PRIMARY KEY (id)) USING DELTA COMMENT 'sold' TBLPROPERTIES ('a' = 'b')"
    )
    found = client.tables.get(table)
    columns = [
        (each.name, each.type_text, str(each.type_name).partition(".")[2], each.nullable, each.comment)
        for each in found.columns or ()
    ]
    assert columns == [
        ("id", "bigint", "LONG", False, "number"),
        ("price", "decimal(10,2)", "DECIMAL", True, None),
        ("tags", "array<string>", "ARRAY", True, None),
    ]
    assert (found.columns or [])[1].type_precision == 10
    assert (found.comment, (found.properties or {})["a"]) == ("sold", "b")
    assert found.storage_location == f"file://{workspace.path(table)}"
    assert [each.name for each in client.tables.list(workspace.catalog, "shop")] == ["orders"]
    assert client.tables.exists(table).table_exists
    client.tables.delete(table)
    assert not client.tables.exists(table).table_exists


def test_a_catalog_goes_with_all_that_is_in_it(workspace: Workspace) -> None:
    client, table = workspace.client(), f"{workspace.schema()}.orders"
    workspace.sql(f"CREATE TABLE {table} (id BIGINT) USING DELTA")
    path, volume = workspace.path(table), workspace.local(workspace.volume())
    assert path.exists()
    assert volume.exists()
    with pytest.raises(BadRequest):
        client.catalogs.delete(workspace.catalog)
    client.catalogs.delete(workspace.catalog, force=True)
    assert not path.exists()
    assert not volume.exists()
    client.catalogs.create(name=workspace.catalog)
    workspace.schema()
    workspace.sql(f"CREATE TABLE {table} (other STRING) USING DELTA")
    assert workspace.sql(f"SELECT other FROM {table}") == []


def test_privileges(workspace: Workspace) -> None:
    client = workspace.client()
    workspace.take(f"{workspace.catalog}.shop", "CREATE TABLE")

    def held(name: str) -> set[str]:
        kind = SecurableType.CATALOG if "." not in name else SecurableType.SCHEMA
        # newer versions of the SDK want text here, and older ones what has its value
        found = client.grants.get_effective(kind.value if _WANTS_TEXT else kind, name)  # type: ignore[arg-type]
        return {
            str(each.privilege).partition(".")[2]
            for assignment in found.privilege_assignments or ()
            for each in assignment.privileges or ()
        }

    workspace.schema()
    assert "CREATE_TABLE" in held(workspace.catalog)
    assert held(f"{workspace.catalog}.shop") == held(workspace.catalog) - {"CREATE_TABLE"}
    answer = workspace.statement(f"CREATE TABLE {workspace.catalog}.shop.t (a INT) USING DELTA")
    assert "does not have CREATE TABLE on Schema" in answer["status"]["error"]["message"]


def test_tokens_that_are_fetched_expire(workspace: Workspace) -> None:
    def signed_in() -> str:
        client = workspace.client(
            client_id=workspace.client_id, client_secret=workspace.client_secret, auth_type="oauth-m2m"
        )
        return str(client.current_user.me().user_name)

    assert signed_in() == "tester@example.com"
    assert workspace.client().current_user.me().user_name == "tester@example.com"
    with pytest.raises(ValueError, match="invalid_client"):
        workspace.client(client_id=workspace.client_id, client_secret="wrong", auth_type="oauth-m2m").current_user.me()
    with pytest.raises(PermissionDenied):
        workspace.client(token="wrong").current_user.me()
    workspace.lifetime(0)
    with pytest.raises(PermissionDenied):
        signed_in()


def test_the_warehouse_is_listed(workspace: Workspace) -> None:
    (found,) = workspace.client().warehouses.list()
    assert (found.id, str(found.state)) == (workspace.warehouse, "State.RUNNING")


_PARENT = """
import subprocess, sys
command = [sys.executable, "-m", "neon_lake_tests.workspace", "--engine", "sail", "--root", sys.argv[1]]
child = subprocess.Popen(command, stdout=subprocess.PIPE)
sys.stdout.write(f"{child.pid}\\n")
sys.stdout.write(child.stdout.readline().decode())
sys.stdout.flush()
sys.stdin.read()
"""


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        ready = json.loads(parent.stdout.readline())
        assert set(ready) == {"host", "token", "client_id", "client_secret", "warehouse", "engine"}
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while _alive(child):
        assert time.monotonic() < until, "the workspace outlived the process that started it"
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # what nobody waits for stays as a name until somebody does
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
