"""The definitions read the pipeline file, and the database only where they have to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from neon_lake.orchestration import PostgresResource, build_definitions
from neon_lake_tests.fixtures.dagster_shop import Dagster
from neon_lake_tests.fixtures.pipelines import Lab


def test_the_url_of_the_resource_goes_before_that_of_the_file(dagster: Dagster) -> None:
    file, url = dagster.lab.file, dagster.lab.database.url
    file.write_text(dagster.lab.text().replace(url, "postgresql://nobody@127.0.0.1:1/nowhere"), encoding="utf-8")
    definitions = build_definitions(file, postgres=PostgresResource(url=url))
    assert replace(dagster, definitions=definitions).sync().ok


def test_the_postgres_resource_connects(lab: Lab) -> None:
    with PostgresResource(url=lab.database.url, application_name="somebody").connect() as connection:
        row = connection.execute("SHOW application_name").fetchone()
    assert row == ("somebody",)


def test_names_without_a_pattern_need_no_database(tmp_path: Path) -> None:
    (tmp_path / "neon_lake.yaml").write_text(
        "pipeline: lab\nsource: {url: 'postgresql://me@127.0.0.1:1/away'}\nstaging: {path: s}\n"
        "destination: {path: l}\ntables: [public.users, public.orders]\n",
        encoding="utf-8",
    )
    definitions = build_definitions(tmp_path / "neon_lake.yaml")
    keys = {key.path[-1] for key in definitions.resolve_asset_graph().materializable_asset_keys}
    assert keys == {"users", "orders"}
