"""The statements of `queries.sql`, by name."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString


@cache
def _all() -> dict[str, str]:
    text = files(__package__).joinpath("queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def query(name: str) -> LiteralString:
    """The statement under `-- name: <name>`."""
    return _all()[name]
