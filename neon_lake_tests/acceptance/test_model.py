"""Random tables, transactions, DDL, crashes and syncs: in the end the lake is the source, row by row.

`python3 dev.py soak --minutes N` does the same for as long as one likes, with cases that nobody has seen.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from neon_lake.demo.embedded import EmbeddedPostgres
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.postgres import StartServer
from neon_lake_tests.soak import oracle
from neon_lake_tests.soak.plan import plan, show
from neon_lake_tests.soak.reduce import reduced
from neon_lake_tests.soak.run import SETTINGS, run
from neon_lake_tests.soak.steps import Plan, Sql
from neon_lake_tests.soak.tables import name
from neon_lake_tests.soak.values import KINDS

SEEDS = range(6)


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Iterator[EmbeddedPostgres]:
    """A server that a case may crash: the other tests have theirs."""
    with start_server(**SETTINGS) as started:
        yield started


@pytest.mark.parametrize("seed", SEEDS)
def test_the_lake_is_the_source_whatever_happens(server: EmbeddedPostgres, tmp_path: Path, seed: int) -> None:
    case = plan(seed, steps=20)
    try:
        seen = run(case, server, tmp_path)
    except Exception as exc:
        exc.add_note(f"python3 dev.py soak --seed {seed} --steps 20 --reduce\n{show(case.steps)}")
        raise
    assert seen.transactions
    assert seen.comparisons


def test_a_seed_is_a_case() -> None:
    before = random.getstate()
    assert plan(7) == plan(7) != plan(8)
    assert random.getstate() == before


SETUP = """
CREATE TABLE t (
    id int PRIMARY KEY, v text, n numeric(8,2), f float8, day date, at timestamptz, tags text[], raw bytea, ok bool
);
INSERT INTO t VALUES
    (1, 'a', 1.50, '-0', '0044-03-15 BC', '20000-01-01 00:00+00', '{x,NULL,""}', '\\x00ff', true),
    (2, NULL, 'NaN', 'NaN', 'infinity', '1969-12-31 23:59:59.5+00', '{{a,b}}', '', false)
"""


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        ("", None),
        ("UPDATE v = 'b'", "('1',) v: 'a' at the source, 'b' in the lake"),
        ("UPDATE f = 0.0", "('1',) f: '-0.0' at the source, '0.0' in the lake"),
        ("UPDATE n = 1.51", "('1',) n: '1.50' at the source, '1.51' in the lake"),
        ("UPDATE v = NULL", "('1',) v: 'a' at the source, None in the lake"),
        ("DELETE", "('1',) is missing in the lake"),
        ("UPDATE id = 2", "the key ('2',) is 2 times in the lake"),
        ("UPDATE id = 3", "('3',) is only in the lake"),
    ],
)
def test_the_judge_sees_what_is_not_the_same(lab: Lab, harm: str, line: str | None) -> None:
    lab.database.execute(SETUP)
    lab.replication.sync()
    delta = lab.delta("public.t")
    if harm == "DELETE":
        delta.delete("id = 1")
    elif harm:
        column, value = harm.removeprefix("UPDATE ").split(" = ")
        delta.update(updates={column: value}, predicate="id = 1")
    (table,) = oracle.tables(lab.database.url)
    rows, lines = oracle.differences(lab.database.url, table, lab.root / "lake/public/t")
    assert rows == 2
    assert lines == [] if line is None else f"public.t: {line}" in lines


def test_the_judge_knows_every_kind_of_column(lab: Lab) -> None:
    rng = random.Random(5)
    columns = ", ".join(f"{name(kind)} {of.sql}" for kind, of in KINDS.items())
    lab.database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    for row in range(30):
        lab.database.execute(f"INSERT INTO t VALUES ({row}, {', '.join(of.draw(rng) for of in KINDS.values())})")
    lab.replication.sync()
    for row in range(30, 60):
        lab.database.execute(f"INSERT INTO t VALUES ({row}, {', '.join(of.draw(rng) for of in KINDS.values())})")
    assert lab.replication.sync().ok
    (table,) = oracle.tables(lab.database.url)
    assert oracle.differences(lab.database.url, table, lab.root / "lake/public/t") == (60, [])


def test_a_failure_is_cut_down_to_what_it_takes() -> None:
    case = replace(plan(3), steps=tuple(Sql(0, str(n)) for n in range(100)))

    def failure(shorter: Plan) -> str | None:
        texts = {step.text for step in shorter.steps if isinstance(step, Sql)}
        return "both" if {"17", "71"} <= texts else None

    assert reduced(case, failure, lambda _: None).steps == (Sql(0, "17"), Sql(0, "71"))
