"""Tables of an object store that Unity Catalog knows: delta-rs writes them, a warehouse registers them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from neon_lake_tests.fixtures.object_stores import ObjectStore, object_store
from neon_lake_tests.fixtures.postgres import Database
from neon_lake_tests.fixtures.store_pipelines import StoreLab
from neon_lake_tests.fixtures.workspaces import Workspace, catalog, started


@dataclass(frozen=True, kw_only=True)
class ExternalLab(StoreLab):
    """A pipeline whose lake is registered in a workspace."""

    workspace: Workspace

    @property
    def environment(self) -> dict[str, str]:
        """What the pipeline file takes from the environment."""
        return super().environment | {"DATABRICKS_TOKEN": self.workspace.token}

    def text(self) -> str:
        """What the pipeline file says."""
        unity = (
            f"unity: {{host: '{self.workspace.host}', token: '${{DATABRICKS_TOKEN}}', "
            f"warehouse: {self.workspace.warehouse}, catalog: {self.workspace.catalog}}}"
        )
        lines = super().text().split("\n")
        return "\n".join(line[:-1] + f", {unity}}}" if line.startswith("destination:") else line for line in lines)


@pytest.fixture(scope="module")
def s3() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture(scope="module")
def server(s3: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace whose engine reads the store."""
    with pytest.MonkeyPatch.context() as environment:
        for key, value in s3.options.items():
            environment.setenv(key.upper(), value)
        with started("sail", tmp_path_factory.mktemp("workspace")) as server:
            yield server


@pytest.fixture
def external(database: Database, tmp_path: Path, s3: ObjectStore, server: Workspace) -> Iterator[ExternalLab]:
    bucket = s3.bucket()
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    with catalog(server) as workspace:
        workspace.schema("public")
        yield ExternalLab(database=database, root=tmp_path, bucket=bucket, options=s3.options, workspace=workspace)


def test_a_new_table_is_registered_once_and_merges_do_not_ask_the_warehouse(external: ExternalLab) -> None:
    first = external.replication.sync()
    assert first.ok
    assert first.costs.statements == 1
    found = external.workspace.client().tables.get(f"{external.workspace.catalog}.public.t")
    assert found.storage_location == f"{external.bucket.url}/lab/lake/public/t"
    external.database.execute("UPDATE t SET v = 'c' WHERE id = 1; INSERT INTO t VALUES (3, 'd')")
    later = external.opened().sync()
    assert later.ok
    assert later.costs.statements == 0
    external.assert_equal("public.t")
    assert external.opened().verify(deep=True).ok


def test_new_columns_are_made_known(external: ExternalLab) -> None:
    external.replication.sync()
    external.database.execute("ALTER TABLE t ADD extra int; UPDATE t SET extra = 7 WHERE id = 2")
    external.workspace.forget()
    assert external.opened().sync().ok
    sent = [str(seen["statement"]) for seen in external.workspace.requests() if seen.get("statement")]
    assert [statement.split("*/ ")[-1].split(" ")[0] for statement in sent] == ["MSCK"]


def test_a_table_of_that_name_that_lies_elsewhere_is_refused(external: ExternalLab) -> None:
    name = f"`{external.workspace.catalog}`.public.t"
    external.workspace.sql(f"CREATE TABLE {name} (id int) USING DELTA")
    (result,) = external.replication.sync().tables.values()
    assert "lies elsewhere" in str(result.error)
