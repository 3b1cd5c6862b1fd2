"""The pages say what the code does."""

import enum
import re
from dataclasses import MISSING, Field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from neon_lake import config, pipeline_file
from neon_lake.change import CHANGE_FIELDS, OLD_KEY
from neon_lake.schema import RESCUED
from neon_lake.staging.manifest import Manifest, SnapshotManifest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def settings_on_the_page() -> dict[str, dict[str, str]]:
    """Section → key → default, as `docs/configuration.md` has them."""
    found: dict[str, dict[str, str]] = {}
    for part in (DOCS / "configuration.md").read_text("utf-8").split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        found[title.strip("`")] = dict(re.findall(r"^\| `(\w+)` \|(?: (.*?))? \| \S.*\|$", text, re.MULTILINE))
    return found


def shown(field: Field[Any]) -> str:
    """A default as the page writes it."""
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    # pydantic wraps what is declared with Field()
    default = getattr(default, "default", default)
    if default is MISSING or str(default) == "PydanticUndefined":
        return ""
    if hasattr(default, "__dataclass_fields__"):
        return "defaults"
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, enum.Enum):
        return f"`{default.value}`"
    return f"`{default:%Y-%m-%d}`" if isinstance(default, datetime) else f"`{default}`"


@pytest.mark.parametrize("section", ["Top level", *pipeline_file._SECTIONS])
def test_every_setting_is_on_the_page_with_its_default_and_no_other(section: str) -> None:
    described = config.Pipeline if section == "Top level" else pipeline_file._SECTIONS[section]
    declared = {
        "pipeline" if (described is config.Pipeline and field.name == "name") else field.name: shown(field)
        for field in fields(described)
    }
    assert settings_on_the_page()[section] == declared


def test_the_example_on_the_page_is_a_pipeline_file(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "configuration.md").read_text("utf-8"), re.DOTALL)
    pipeline = pipeline_file.parse(example, tmp_path / "neon_lake.yaml", {"NEON_DATABASE_URL": "postgresql://r:p@h/d"})
    assert pipeline.name == "shop"
    assert [table.skip for table in pipeline.tables] == [False, False, True]


def test_the_manifests_on_the_page_are_whole_files() -> None:
    batch, snapshot = re.findall(r"```json\n(.*?)```", (DOCS / "staging-format.md").read_text("utf-8"), re.DOTALL)
    manifest = Manifest.from_bytes(batch.encode(), "the page")
    assert manifest.to_bytes().decode() == batch
    assert manifest.segments
    assert SnapshotManifest.from_bytes(snapshot.encode(), "the page").to_bytes().decode() == snapshot


def test_every_key_of_the_manifests_is_explained() -> None:
    page = (DOCS / "staging-format.md").read_text("utf-8")
    keys = set(re.findall(r'"(\w+)":', "".join(re.findall(r"```json\n(.*?)```", page, re.DOTALL))))
    cells = re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE)
    explained = {name for cell in cells for name in re.findall(r"(\w+)`", cell)}
    assert keys - explained == set()


def test_every_column_of_a_segment_is_explained() -> None:
    page = (DOCS / "staging-format.md").read_text("utf-8")
    explained = re.findall(r"^\| `(_\w+)` \| ([\w\[\], =<>]+) \|", page, re.MULTILINE)
    assert [name for name, _ in explained][: len(CHANGE_FIELDS) + 2] == [
        *(field.name for field in CHANGE_FIELDS),
        OLD_KEY,
        RESCUED,
    ]
    types = dict(explained)
    assert {f.name: str(f.type) for f in CHANGE_FIELDS if f.name != "_unchanged"}.items() <= types.items()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS.parent).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
