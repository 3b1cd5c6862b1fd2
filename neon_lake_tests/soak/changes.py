"""Random statements that change rows. Each can run in any state of the tables: it may find nothing to change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from neon_lake_tests.soak.tables import SLOTS, Maker, Table, name
from neon_lake_tests.soak.values import KINDS


class Changes:
    """Draws statements on a table: its keys are `numbers` (an open transaction has its own), for a moment `aside`."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        self.rng: Random = maker.rng

    def any(self, table: Table, numbers: Sequence[int], aside: int) -> list[str]:
        """A few statements that belong together."""
        kinds: dict[Callable[[Table, Sequence[int]], list[str]], float] = {
            self._new: 8,
            self._upserted: 4,
            self._updated: 8,
            self._kept: 5,
            self._same: 1,
            self._many: 2,
            self._moved: 4,
            self._deleted: 4,
            self._again: 3,
            self._flickered: 1,
        }
        if self.rng.random() < 0.05:
            first, second = self.rng.choices(numbers, k=2)
            return [self.move(table, first, aside), self.move(table, second, first), self.move(table, aside, second)]
        return self.rng.choices(list(kinds), list(kinds.values()))[0](table, numbers)

    def _new(self, table: Table, numbers: Sequence[int]) -> list[str]:
        return [self.insert(table, self.rng.sample(numbers, self.rng.randrange(1, 4)))]

    def _upserted(self, table: Table, numbers: Sequence[int]) -> list[str]:
        chosen = self.assignments(table, self.rng.randrange(1, 4))
        insert = self._insert(table, [self.rng.choice(numbers)])
        if table.bag:
            return [insert, insert]
        return [f"{insert} ON CONFLICT ({table.key_list}) DO UPDATE SET {chosen}"]

    def _updated(self, table: Table, numbers: Sequence[int]) -> list[str]:
        chosen = self.assignments(table, self.rng.randrange(1, 4))
        return [f"UPDATE {table.sql} SET {chosen} WHERE {table.where(self.rng.choice(numbers))}"]

    def _kept(self, table: Table, numbers: Sequence[int]) -> list[str]:
        """Large values are left alone."""
        chosen = self.assignments(table, 2, external=False)
        return [f"UPDATE {table.sql} SET {chosen} WHERE {table.where(self.rng.choice(numbers))}"]

    def _same(self, table: Table, numbers: Sequence[int]) -> list[str]:
        column = name(self.rng.choice(list(table.columns) or table.key_names))
        return [f"UPDATE {table.sql} SET {column} = {column} WHERE {table.where(self.rng.choice(numbers))}"]

    def _many(self, table: Table, numbers: Sequence[int]) -> list[str]:
        chosen = self.assignments(table, 1)
        return [f"UPDATE {table.sql} SET {chosen} WHERE {table.where(*self.rng.sample(numbers, 5))}"]

    def _moved(self, table: Table, numbers: Sequence[int]) -> list[str]:
        old, new = self.rng.choices(numbers, k=2)
        return [self.move(table, old, new, also=self.rng.random() < 0.5)]

    def _deleted(self, table: Table, numbers: Sequence[int]) -> list[str]:
        return [f"DELETE FROM {table.sql} WHERE {table.where(*self.rng.sample(numbers, self.rng.randrange(1, 3)))}"]

    def _again(self, table: Table, numbers: Sequence[int]) -> list[str]:
        """The same key goes and comes."""
        number = self.rng.choice(numbers)
        return [f"DELETE FROM {table.sql} WHERE {table.where(number)}", self.insert(table, [number])]

    def _flickered(self, table: Table, numbers: Sequence[int]) -> list[str]:
        number = self.rng.choice(numbers)
        gone = f"DELETE FROM {table.sql} WHERE {table.where(number)}"
        return [gone, self.insert(table, [number]), gone, self.insert(table, [number]), gone]

    def insert(self, table: Table, numbers: Sequence[int]) -> str:
        """New rows, where the keys are free."""
        if table.bag:
            return self._insert(table, numbers)
        return f"{self._insert(table, numbers)} ON CONFLICT DO NOTHING"

    def _insert(self, table: Table, numbers: Sequence[int]) -> str:
        columns = {c: k for c, k in table.columns.items() if self.rng.random() < 0.85}
        names = [*table.key_names, *(["alt"] if table.alt else []), *columns]
        rows = []
        for number in numbers:
            alt = [str(next(self.maker.serial))] if table.alt else []
            values = [*table.kind.literals(number), *alt, *(self.value(kind) for kind in columns.values())]
            rows.append(f"({', '.join(values)})")
        return f"INSERT INTO {table.sql} ({', '.join(map(name, names))}) VALUES {', '.join(rows)}"

    def move(self, table: Table, old: int, new: int, *, also: bool = False) -> str:
        """A change of key, where the new one is free; `also` changes another column with it."""
        pairs = zip(table.key_names, table.kind.literals(new), strict=True)
        sets = [f"{name(column)} = {literal}" for column, literal in pairs]
        if table.alt and self.rng.random() < 0.5:
            sets.append(f"alt = {next(self.maker.serial)}")
        if also and table.columns:
            sets.append(self.assignments(table, 1))
        free = f"NOT EXISTS (SELECT FROM {table.sql} WHERE {table.where(new)})"
        return f"UPDATE {table.sql} SET {', '.join(sets)} WHERE {table.where(old)} AND {free}"

    def whole(self, table: Table) -> list[str]:
        """Statements that need the table for themselves."""
        rng = self.rng
        kind = rng.choices(("truncate", "all", "delete all", "fill", "bulk"), (4, 4, 2, 2, 0.5))[0]
        if kind == "truncate":
            return [f"TRUNCATE {table.sql}"]
        if kind == "all":
            return [f"UPDATE {table.sql} SET {self.assignments(table, 1, external=rng.random() < 0.5)}"]
        if kind == "delete all":
            return [f"DELETE FROM {table.sql}"]
        if kind == "bulk" and table.key == "int" and not table.alt:
            return [self._bulk(table)]
        return [self.insert(table, range(SLOTS))]

    def _bulk(self, table: Table) -> str:
        """More than the pipeline may hold in memory at once, in one statement."""
        large = [column for column, kind in table.columns.items() if kind == "large"][:1]
        value = [f"repeat(md5(g::text), {self.rng.choice((20, 100))})"] * len(large)
        names = ", ".join(map(name, [*table.key_names, *large]))
        rows = f"SELECT {', '.join(['g', *value])} FROM generate_series(2000, 8000) AS g"
        return f"INSERT INTO {table.sql} ({names}) {rows}" + ("" if table.bag else " ON CONFLICT DO NOTHING")

    def assignments(self, table: Table, most: int, *, external: bool = True) -> str:
        """`column = value, …`."""
        names = [c for c, kind in table.columns.items() if external or not KINDS[kind].external]
        chosen = self.rng.sample(names, min(most, len(names)))
        if not chosen:
            # a table without such columns: the row is written anew as it is
            column = name(table.key_names[0])
            return f"{column} = {column}"
        return ", ".join(f"{name(c)} = {self.value(table.columns[c])}" for c in chosen)

    def value(self, kind: str) -> str:
        """A value of a kind, now and then NULL."""
        return "NULL" if self.rng.random() < 0.12 else KINDS[kind].draw(self.rng)
