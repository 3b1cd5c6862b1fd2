"""Staging or the lake runs out of room, or may not be written any more: nothing counts that is not whole."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from neon_lake.pipeline import Replication
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.processes import Ended, run

ROOM = 1 << 20
BIG = "SELECT g, string_agg(md5(g::text || h), '') FROM generate_series(1, 900) g, generate_series(1, 160) h GROUP BY g"
"""Rows of about five megabytes that no compression makes smaller than `ROOM`."""


def may_mount() -> bool:
    with TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


@dataclass(frozen=True, kw_only=True)
class Cramped:
    """A pipeline with too little room in one of its directories.

    It is a small file system, where this user may mount one; else files may not grow beyond `ROOM`.
    """

    lab: Lab
    place: Path
    mounted: bool

    def sync(self) -> Ended:
        if self.place.name == "lake" and not self.mounted:
            # the limit is on staging too: so what is to be applied is staged before
            run(self.lab, "sync", NEON_LAKE_FAILPOINT="apply.before-commit")
        limit = {} if self.mounted else {"NEON_LAKE_TEST_FILE_SIZE": str(ROOM)}
        return run(self.lab, "sync", "--json", **limit)

    def make_room(self) -> None:
        if self.mounted:
            self.remount("size=64m")

    def remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.place)], check=True)


KINDS = [False, True] if os.geteuid() == 0 and may_mount() else [False]


@contextmanager
def small(place: Path, *, mounted: bool) -> Iterator[None]:
    place.mkdir()
    if not mounted:
        yield
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(params=[(place, kind) for place in ("staging", "lake") for kind in KINDS])
def cramped(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Cramped]:
    name, mounted = request.param
    lab.database.execute(
        """
        CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (-1, 'small');
        CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1)
        """
    )
    with small(lab.root / name, mounted=mounted):
        yield Cramped(lab=lab, place=lab.root / name, mounted=mounted)


def assert_told(cramped: Cramped, ended: Ended) -> None:
    """One sentence, which names the place; no table is given up."""
    assert ended.returncode in (1, 2), ended.said
    told = json.loads(ended.document)
    sentences = {told["error"]} if "error" in told else {t["error"] for t in told["tables"].values() if t["error"]}
    assert len(sentences) == 1, sentences
    (sentence,) = sentences
    assert str(cramped.place) in sentence
    assert "No space left on device" in sentence or "File too large" in sentence
    assert "make room" in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "parked" not in ended.said
    assert not list(cramped.lab.root.rglob(".unfinished-*"))


def assert_made_good(cramped: Cramped) -> None:
    cramped.make_room()
    assert Replication.open(cramped.lab.config).sync().ok
    cramped.lab.assert_equal("public.a", "public.b")
    versions = [cramped.lab.delta(table).version() for table in ("public.a", "public.b")]
    assert Replication.open(cramped.lab.config).sync().ok
    assert [cramped.lab.delta(table).version() for table in ("public.a", "public.b")] == versions


def test_in_a_first_sync(cramped: Cramped) -> None:
    cramped.lab.database.execute(f"INSERT INTO a {BIG}")
    assert_told(cramped, cramped.sync())
    assert not (cramped.lab.root / "lake/public/a/_delta_log").exists()
    # the other table is not held up
    cramped.lab.assert_equal("public.b")
    assert_made_good(cramped)


def test_in_a_later_sync(cramped: Cramped) -> None:
    assert cramped.sync().returncode == 0
    cramped.lab.database.execute(f"INSERT INTO a {BIG}; UPDATE a SET v = 'on' WHERE id < 0")
    before, version = Replication.open(cramped.lab.config).parts.log.head(), cramped.lab.delta("public.a").version()
    for _ in range(2):
        assert_told(cramped, cramped.sync())
        assert cramped.lab.delta("public.a").version() == version
    if cramped.place.name == "staging":
        assert Replication.open(cramped.lab.config).parts.log.head() == before
    cramped.lab.database.execute("DELETE FROM b")
    assert_made_good(cramped)


@contextmanager
def read_only(place: Path, *, mounted: bool) -> Iterator[None]:
    """A directory that may not be written; without the right to mount, by its permissions."""
    if mounted:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        yield
        subprocess.run(["mount", "-o", "remount,rw,size=64m", str(place)], check=True)
        return
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.parametrize("name", ["staging", "lake"])
def test_what_may_not_be_written_any_more(lab: Lab, name: str) -> None:
    mounted = KINDS[-1]
    lab.database.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)")
    with small(lab.root / name, mounted=mounted):
        assert run(lab, "sync").returncode == 0
        lab.database.execute("INSERT INTO a VALUES (2)")
        with read_only(lab.root / name, mounted=mounted):
            # at the beginning, where it is looked for, and in the middle of the work
            ended = run(lab, "sync", "--json")
            assert ended.returncode == 2, ended.said
            told = json.loads(ended.document)
            assert str(lab.root / name) in told["error"]
            assert "make it writable" in told["error"]
            if name == "lake":
                replication = Replication.open(lab.config)
                with pytest.MonkeyPatch.context() as patched:
                    destination = replication.parts.destination
                    found = destination.check()
                    patched.setattr(destination, "check", lambda: type(found)(subject="", detail=""))
                    (result,) = replication.sync().tables.values()
                    assert result.transient
                    assert "make it readable and writable" in str(result.error)
                    assert "\n" not in str(result.error)
        assert Replication.open(lab.config).sync().ok
        lab.assert_equal("public.a")
