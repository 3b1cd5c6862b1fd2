"""When silence on a connection is a stall, and when it is a server at work.

A query may take hours, and a new slot waits for every transaction that is writing: nothing is sent then, and nothing
is wrong. But a peer behind a firewall, a proxy or a tunnel may also keep a connection open and pass on nothing. So a
silence is looked into over another connection: what does the server say of this session?
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from neon_lake.errors import SourceUnavailable


@dataclass(frozen=True, kw_only=True)
class Session:
    """What the server says of a session: whether it waits for us, and how many bytes it has copied out (COPY)."""

    waits_for_client: bool
    copied: int | None


class Silence:
    """The silence on one connection. `heard` begins it anew; `check` ends it, by an error, when it is a stall.

    `look` asks the server, over another connection, for the session; it may raise `SourceUnavailable`. A stall is
    what two looks, `patience` seconds apart, both find: the server waits for us, and has not moved in between. Without
    `look`, silence for `patience` seconds is a stall.
    """

    def __init__(self, place: str, *, patience: float, look: Callable[[], Session | None] | None) -> None:
        self._place, self._patience, self._look = place, patience, look
        self._began = self._since = time.monotonic()
        self._seen: Session | None = None
        self._looked = False

    def heard(self) -> None:
        """Something came, or nothing is awaited."""
        self._began = self._since = time.monotonic()
        self._looked = False

    def check(self) -> None:
        """Look into a silence that lasts. Raises `SourceUnavailable` when the connection is stalled."""
        now = time.monotonic()
        if now - self._since < self._patience:
            return
        self._since = now
        if self._look is None:
            self._stalled("no answer")
        try:
            seen = self._look()
        except SourceUnavailable as exc:
            self._stalled(str(exc).rstrip("."))
        if seen is not None and not seen.waits_for_client:
            self._looked = False
        elif self._looked and seen == self._seen:
            self._stalled("the session is gone" if seen is None else "the server waits for us")
        else:
            self._looked, self._seen = True, seen

    def _stalled(self, found: str) -> NoReturn:
        silent = time.monotonic() - self._began
        raise SourceUnavailable(
            f"The connection to {self._place} is stalled: nothing came for {silent:.0f} s ({found}); look at the "
            "network between, or raise source.stall_timeout."
        )
