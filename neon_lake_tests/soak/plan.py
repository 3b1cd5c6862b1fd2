"""From a seed to a plan. It depends on nothing but the seed: the generator keeps its own model of the schema."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Final

from neon_lake.failpoints import FAILPOINTS
from neon_lake_tests.soak.changes import Changes
from neon_lake_tests.soak.ddl import Ddl
from neon_lake_tests.soak.steps import (
    Beside,
    Compare,
    Join,
    Killed,
    LoseSlot,
    Plan,
    Remember,
    Replay,
    Restart,
    Sql,
    Step,
    Verb,
)
from neon_lake_tests.soak.tables import NAMES, SLOTS, Maker, Table

CONNECTIONS: Final = 3
TABLES: Final = (
    "'public.*'",
    "'other.*'",
    "{name: 'public.soft_*', deletes: soft}",
    "{name: 'other.soft_*', deletes: soft}",
    "{name: 'public.x_*', exclude: [hidden]}",
    "{name: 'other.x_*', exclude: [hidden]}",
)


def plan(seed: int, steps: int = 60) -> Plan:
    """The case of a seed, of about so many steps (a step may be a whole transaction)."""
    return _Planner(seed).plan(steps)


@dataclass(kw_only=True)
class _Open:
    """An open transaction: the keys that it may touch are those that are `share` modulo the number of connections."""

    share: int
    savepoints: int = 0


class _Planner:
    def __init__(self, seed: int) -> None:
        self.seed, self.rng = seed, Random(seed)
        self.maker = Maker(self.rng)
        self.tables: list[Table] = []
        self.changes = Changes(self.maker)
        self.ddl = Ddl(self.maker)
        self.open: dict[int, _Open] = {}
        self.steps: list[Step] = []
        self.moments = 0
        self.beside = False

    def plan(self, steps: int) -> Plan:
        rng = self.rng
        racing = rng.random() < 0.35
        limits = rng.choice(("", "", "limits: {batch_seconds: 0.001}", "limits: {memory_mb: 16, batch_mb: 1}"))
        self.sql(0, "CREATE SCHEMA other")
        for called in rng.sample(NAMES, rng.randrange(2, 5)):
            table = self.maker.table(called)
            for statement in self.maker.create(table):
                self.sql(0, statement)
            if rng.random() < 0.9:
                self.sql(0, self.changes.insert(table, range(rng.choice((1, SLOTS, SLOTS, SLOTS)))))
            self.tables.append(table)
        for _ in range(steps):
            self._one(racing=racing)
        self._quiet()
        self.steps.append(Compare(verify=True))
        return Plan(seed=self.seed, tables=TABLES, limits=limits, racing=racing, steps=tuple(self.steps))

    def sql(self, connection: int, *statements: str) -> None:
        self.steps.extend(Sql(connection, text) for text in statements)

    def _one(self, *, racing: bool) -> None:
        weights = {
            self._write: 50,
            self._alone: 7,
            self._alter: 7,
            self._verb: 9,
            self._kill: 5,
            self._compare: 3,
            self._replay: 2,
            self._restart: 2,
            self._lose: 1,
        }
        if racing:
            weights[self._race] = 9
        self.rng.choices(list(weights), list(weights.values()))[0]()

    # --- the source is written

    def _write(self) -> None:
        for _ in range(self.rng.randrange(1, 6)):
            self._write_once()

    def _write_once(self) -> None:
        rng = self.rng
        connection = rng.randrange(CONNECTIONS)
        now = self.open.get(connection)
        if not self.tables:
            return
        if now is None:
            free = sorted(set(range(CONNECTIONS)) - {other.share for other in self.open.values()})
            share = rng.choice(free)
            if rng.random() < 0.4:
                self.sql(connection, *self._statements(share, connection))
                return
            now = self.open[connection] = _Open(share=share)
            self.sql(connection, "BEGIN")
            if rng.random() < 0.2:
                self.sql(connection, "SET LOCAL synchronous_commit = off")
            self.sql(connection, *self._statements(share, connection))
        action = rng.choices(("write", "savepoint", "back", "release", "end", "message"), (10, 2, 2, 1, 5, 0.3))[0]
        if action == "end":
            self._end(connection)
        elif action == "savepoint":
            now.savepoints += 1
            self.sql(connection, f"SAVEPOINT s{now.savepoints}", *self._statements(now.share, connection))
        elif action in ("back", "release") and now.savepoints:
            verb = "ROLLBACK TO" if action == "back" else "RELEASE"
            self.sql(connection, f"{verb} s{now.savepoints}")
            now.savepoints -= action == "release"
        elif action == "message":
            self.sql(connection, f"SELECT pg_logical_emit_message({rng.random() < 0.5}, 'other', 'a message')")
        else:
            for _ in range(rng.randrange(1, 4)):
                self.sql(connection, *self._statements(now.share, connection))

    def _statements(self, share: int, connection: int) -> list[str]:
        table = self.rng.choice(self.tables)
        return self.changes.any(table, range(share, SLOTS, CONNECTIONS), 1000 + connection)

    def _end(self, connection: int) -> None:
        del self.open[connection]
        how = self.rng.random()
        if how < 0.75:
            self.sql(connection, "COMMIT")
        elif how < 0.9:
            self.sql(connection, "ROLLBACK")
        else:
            called = f"'t{next(self.maker.serial)}'"
            self.sql(connection, f"PREPARE TRANSACTION {called}")
            if not self.beside and self.rng.random() < 0.3:
                self._restart(quiet=False)
            self.sql(connection, f"{self.rng.choice(('COMMIT', 'COMMIT', 'ROLLBACK'))} PREPARED {called}")

    def _quiet(self) -> None:
        """End the open transactions."""
        for connection in self.rng.sample(list(self.open), len(self.open)):
            if connection in self.open:
                self._end(connection)
        if self.beside:
            self.steps.append(Join())
            self.beside = False

    def _settle(self) -> None:
        """End the open transactions, and go on beside what runs."""
        for connection in list(self.open):
            if connection in self.open:
                self._end(connection)

    def _alone(self) -> None:
        """A transaction that has the tables for itself: truncates and changes of every row among others."""
        self._settle()
        if not self.tables:
            return
        self.sql(0, "BEGIN")
        for _ in range(self.rng.randrange(1, 5)):
            whole = self.rng.random() < 0.5
            self.sql(0, *self._whole() if whole else self._statements(self.rng.randrange(CONNECTIONS), 0))
        self.sql(0, "COMMIT" if self.rng.random() < 0.85 else "ROLLBACK")

    def _whole(self) -> list[str]:
        if len(self.tables) > 1 and self.rng.random() < 0.15:
            return [f"TRUNCATE {', '.join(t.sql for t in self.rng.sample(self.tables, 2))}"]
        return self.changes.whole(self.rng.choice(self.tables))

    def _alter(self) -> None:
        """DDL, alone or with changes of rows before and after it in one transaction, which may be rolled back."""
        self._settle()
        together, kept = self.rng.random() < 0.5, deepcopy(self.tables)
        if together:
            self.sql(0, "BEGIN")
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            if self.tables and self.rng.random() < 0.5:
                self.sql(0, *self._statements(self.rng.randrange(CONNECTIONS), 0))
            self.sql(0, *self.ddl.any(self.tables))
            if self.tables and self.rng.random() < 0.6:
                self.sql(0, *self._statements(self.rng.randrange(CONNECTIONS), 0))
        if together:
            back = self.rng.random() < 0.15
            self.sql(0, "ROLLBACK" if back else "COMMIT")
            if back:
                self.tables = kept
        elif self.tables and self.rng.random() < 0.1:
            self.sql(0, f"VACUUM FULL {self.rng.choice(self.tables).sql}")

    # --- the pipeline works

    def _some(self) -> tuple[str, ...]:
        """Some tables, as the command line wants them; none means all."""
        if not self.tables or self.rng.random() < 0.7:
            return ()
        return tuple(t.sql for t in self.rng.sample(self.tables, self.rng.randrange(1, len(self.tables) + 1)))

    def _command(self) -> tuple[str, ...]:
        name = self.rng.choices(("sync", "verify", "resync", "expire"), (10, 2, 2, 0.5))[0]
        if name == "expire":
            return (name,)
        tables = self._some()
        more = ("--all",) if name == "resync" and not tables else ("--deep",) if name == "verify" else ()
        return (name, *tables, *more)

    def _verb(self) -> None:
        self._quiet()
        name = self.rng.choices(("sync", "resync", "status", "expire", "expire-later"), (12, 2, 1, 1, 1))[0]
        self.steps.append(Verb(name, self._some() if name in ("sync", "resync") else ()))
        if self.rng.random() < 0.3:
            self.steps.append(Remember())
            self.moments += 1

    def _kill(self) -> None:
        self._quiet()
        for _ in range(self.rng.choice((1, 1, 2))):
            self.steps.append(Killed(self._command(), self.rng.choice(sorted(FAILPOINTS))))
            if self.rng.random() < 0.5:
                self._write()
                self._settle()

    def _compare(self) -> None:
        self._quiet()
        self.steps.append(Compare(verify=self.rng.random() < 0.5))

    def _replay(self) -> None:
        self._quiet()
        if self.moments and self.tables:
            self.steps.append(Replay(self.rng.choice(self.tables).sql, self.rng.randrange(self.moments)))

    def _restart(self, *, quiet: bool = True) -> None:
        if quiet and self.rng.random() < 0.5:
            self._quiet()
        elif self.beside:
            return
        self.open.clear()
        self.steps.append(Restart(self.rng.choice(("immediate", "immediate", "fast"))))

    def _lose(self) -> None:
        self._quiet()
        self.steps.append(LoseSlot())

    def _race(self) -> None:
        """A command beside the writers: killed after a while, or left to end; sometimes two at once."""
        if self.beside:
            self._quiet()
            return
        for _ in range(self.rng.choice((1, 1, 1, 2))):
            after = self.rng.uniform(0.5, 3.0) if self.rng.random() < 0.4 else None
            self.steps.append(Beside(self._command(), after))
        self.beside = True


def show(steps: Sequence[Step]) -> str:
    """Steps as a list to read."""
    lines = []
    for number, step in enumerate(steps):
        what = f"c{step.connection}  {step.text}" if isinstance(step, Sql) else f"--  {step}"
        lines.append(f"{number:4}  {what}")
    return "\n".join(lines)
