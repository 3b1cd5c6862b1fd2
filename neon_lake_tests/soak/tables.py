"""What the generator knows of the source's tables, and the SQL that makes and alters them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Final

from neon_lake_tests.soak.values import KEYS, KINDS, KeyKind

SLOTS: Final = 48
"""Keys of a table are made of the numbers below this, so that they meet again and again."""

NAMES: Final = ("a", "b", "c", "d", "soft_1", "soft_2", "x_1", "Order", "we ird.", 'q"t', "ünï", "select")
"""`soft_*` keep deleted rows, and of `x_*` the column `hidden` stays at the source."""

COLUMNS: Final = ("v", "w", "Name", "select", "a.b", 'c"d', "é", "_x", "t", "s", "place", "hidden")


def name(text: str) -> str:
    """A quoted identifier."""
    return '"' + text.replace('"', '""') + '"'


@dataclass(kw_only=True)
class Table:
    """A table as the plan left it: `columns` are name → kind, without the key and without `alt`.

    With `alt` it has an integer column of that name, and the unique index `index` over it can be its replica identity
    in place of the primary key. A `bag` has no key: its key's columns are like others, and rows may stand there twice.
    """

    called: str
    key: str
    columns: dict[str, str]
    schema: str = "public"
    alt: bool = False
    index: str = ""
    full: bool = False
    bag: bool = False
    parts: int = 0
    leaves: list[tuple[str, str]] = field(default_factory=list)
    """Of each partition its name in SQL and its bounds."""
    key_names: list[str] = field(default_factory=list)

    @property
    def sql(self) -> str:
        """The name in SQL."""
        return f"{name(self.schema)}.{name(self.called)}"

    @property
    def kind(self) -> KeyKind:
        """What its keys are."""
        return KEYS[self.key]

    @property
    def key_list(self) -> str:
        """The key's columns in SQL."""
        return ", ".join(map(name, self.key_names))

    def literals(self, number: int) -> str:
        """A key in SQL."""
        return ", ".join(self.kind.literals(number))

    def where(self, *numbers: int) -> str:
        """The condition that a row has one of these keys."""
        return f"({self.key_list}) IN ({', '.join(f'({self.literals(n)})' for n in numbers)})"


class Maker:
    """Draws tables and columns; every name and number that has to be new is."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.serial = count(1)

    def table(self, called: str, schema: str = "public") -> Table:
        """A random table."""
        rng = self.rng
        key = rng.choice(list(KEYS))
        kinds = [rng.choice(list(KINDS)) for _ in range(rng.randrange(5))] + ["large", "text"]
        columns = dict(zip(rng.sample(COLUMNS, len(kinds)), kinds, strict=True))
        shape = rng.random()
        bag = rng.random() < 0.2 and not called.startswith("soft")
        return Table(
            called=called,
            schema=schema,
            key=key,
            columns=columns,
            alt=shape < 0.15 and not bag,
            full=0.15 <= shape < 0.3 or bag,
            bag=bag,
            parts=rng.randrange(1, 4) if shape >= 0.8 else 0,
            key_names=[column for column, _ in KEYS[key].columns],
        )

    def create(self, table: Table) -> list[str]:
        """The statements that make it."""
        lines = [f"{name(column)} {sql}{'' if table.bag else ' NOT NULL'}" for column, sql in zip_names(table)]
        lines += [f"{name(column)} {KINDS[kind].sql}" for column, kind in table.columns.items()]
        if table.alt:
            lines.insert(1, "alt bigint NOT NULL")
        by = f" PARTITION BY HASH ({name(table.key_names[-1])})" if table.parts else ""
        if not table.bag:
            lines.append(f"PRIMARY KEY ({table.key_list})")
        made = [f"CREATE TABLE {table.sql} ({', '.join(lines)}){by}"]
        table.leaves = []
        for part in range(table.parts):
            leaf = f"{name(table.schema)}.{name(f'p{next(self.serial)} of {table.called}')}"
            bounds = f"FOR VALUES WITH (MODULUS {table.parts}, REMAINDER {part})"
            table.leaves.append((leaf, bounds))
            made.append(f"CREATE TABLE {leaf} PARTITION OF {table.sql} {bounds}")
            if table.bag:
                made.append(f"ALTER TABLE {leaf} REPLICA IDENTITY FULL")
        for column, kind in table.columns.items():
            made += storage(table, column, kind)
        if table.alt:
            table.index = f"i{next(self.serial)}"
            made.append(f"CREATE UNIQUE INDEX {table.index} ON {table.sql} (alt)")
            made.append(f"ALTER TABLE {table.sql} REPLICA IDENTITY USING INDEX {table.index}")
        if table.full:
            made.append(f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL")
        return made


def zip_names(table: Table) -> list[tuple[str, str]]:
    """The key's columns as they are called now, with their SQL types."""
    return [(column, sql) for column, (_, sql) in zip(table.key_names, table.kind.columns, strict=True)]


def storage(table: Table, column: str, kind: str) -> list[str]:
    """Make large values lie out of line."""
    return [f"ALTER TABLE {table.sql} ALTER {name(column)} SET STORAGE EXTERNAL"] if KINDS[kind].external else []
