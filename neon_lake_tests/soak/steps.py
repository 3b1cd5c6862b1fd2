"""The steps of a plan: plain values, so that a plan can be printed, repeated, and cut down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Sql:
    """A statement on one of the connections. It may fail: its transaction is then rolled back."""

    connection: int
    text: str


@dataclass(frozen=True)
class Restart:
    """The server crashes (`immediate`) or is stopped (`fast`) and starts again; open transactions are lost."""

    mode: str


@dataclass(frozen=True)
class Verb:
    """A verb in this process, on some tables or all: sync, resync, status, expire, expire-later."""

    name: str
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Killed:
    """A command in a process of its own that dies at a failpoint, if it comes by."""

    arguments: tuple[str, ...]
    failpoint: str


@dataclass(frozen=True)
class Beside:
    """A command in a process of its own, while the next steps go on; killed after `seconds` if given."""

    arguments: tuple[str, ...]
    seconds: float | None = None


@dataclass(frozen=True)
class Join:
    """Wait for what runs beside."""


@dataclass(frozen=True)
class Remember:
    """Note the moment, for a replay to go back to."""


@dataclass(frozen=True)
class Replay:
    """Replay a table from a remembered moment on (0: the first)."""

    table: str
    moment: int


@dataclass(frozen=True)
class LoseSlot:
    """The slot is dropped by somebody else."""


@dataclass(frozen=True)
class Compare:
    """Sync, and compare every table row by row; with `verify`, the project's own comparison has to agree."""

    verify: bool


Step: TypeAlias = Sql | Restart | Verb | Killed | Beside | Join | Remember | Replay | LoseSlot | Compare


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A case: the seed that it comes from, the lines of its pipeline file, and what happens.

    `racing`: some commands run beside the writers, so that a repetition has the same steps and may fall otherwise.
    """

    seed: int
    tables: tuple[str, ...]
    limits: str
    racing: bool
    steps: tuple[Step, ...]
