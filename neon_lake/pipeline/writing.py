"""What the verbs ask of who writes the lake: this process, or the destination's own engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from neon_lake.change import Lsn
from neon_lake.config import Table
from neon_lake.destinations.base import Target
from neon_lake.staging.manifest import Manifest, SnapshotManifest
from neon_lake.staging.segment import Counts


@dataclass(frozen=True, kw_only=True)
class Step:
    """One commit: the target after it, how many changes it was by the hour of their commit, and the last of these.

    first: the position of the first change; incomplete: rows that could not be made whole, and were left out.
    """

    target: Target
    hours: Mapping[datetime, Counts]
    last_commit_at: datetime | None
    first: Lsn | None = None
    incomplete: int = 0


class Writer(Protocol):
    """Brings tables of the lake to what the log has. Raises what a destination raises, and `ResyncNeeded`."""

    def snapshot(
        self, old: Target | None, manifest: SnapshotManifest, schema: pa.Schema, settings: Table, *, keep: bool
    ) -> Target:
        """Bring a target to a snapshot by one commit.

        `keep`: with mode append, put it behind the rows that are there; with soft deletes, keep rows that it lacks.
        """
        ...

    def changes(self, target: Target, settings: Table, chain: Sequence[Manifest], end: Lsn) -> Iterator[Step]:
        """Apply what `chain` has behind the target's watermark and before `end`, commit by commit."""
        ...

    def replay(
        self,
        target: Target,
        settings: Table,
        chain: Sequence[Manifest],
        *,
        fence: Lsn,
        since: datetime,
        until: datetime | None,
    ) -> Step | None:
        """Apply again what commits from `since` on, at or behind `fence`; None when there is nothing.

        With `until`, only to keys that a change committed before then speaks of.
        """
        ...
