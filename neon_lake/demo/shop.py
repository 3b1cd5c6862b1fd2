"""The demonstration's database: a small web shop, made in a second or two, with the same rows each time."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

import psycopg

TABLES: Final = ("customers", "products", "inventory", "orders", "order_items", "payments", "events", "documents")
"""The tables, in schema public. `events` is partitioned by month; values of `documents` are large and stored apart."""


def steps() -> tuple[tuple[str, str], ...]:
    """The steps of `shop.sql`, each a title and its statements."""
    text = files("neon_lake.demo").joinpath("shop.sql").read_text("utf-8")
    parts = re.split(r"^-- \* (.+)$", text, flags=re.MULTILINE)[1:]
    return tuple(zip(parts[::2], parts[1::2], strict=True))


def load(
    connection: psycopg.Connection[Any], *, scale: float = 1, progress: Callable[[str], None] = lambda _: None
) -> int:
    """Make the shop's tables in an empty database, in one transaction; gives the number of rows.

    `scale` multiplies the rows, which are about 240,000 at 1; `progress` is told each step's title before it.
    """
    with connection.transaction():
        connection.execute("SELECT set_config('shop.scale', %s, true)", [str(scale)])
        for title, statements in steps():
            progress(title)
            connection.execute(statements.encode())
    return sum(counts(connection).values())


def counts(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """The rows of each table, as one statement sees them."""
    query = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in TABLES)  # noqa: S608 (constants)
    found = dict(connection.execute(query.encode()).fetchall())
    return {table: found[table] for table in TABLES}
