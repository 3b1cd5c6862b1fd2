"""What of the log may go: a decision, without doing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from neon_lake.change import Lsn
from neon_lake.staging.manifest import Manifest, SnapshotManifest
from neon_lake.staging.storage import Entry

ORPHAN_AGE: Final = timedelta(days=1)
"""A segment that no manifest names may belong to a capture that is at work; after a day it does not."""


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """What goes, in the order that keeps the log readable at every moment: manifests first, then their segments."""

    manifests: tuple[Manifest, ...]
    segments: tuple[str, ...]
    orphans: tuple[str, ...]


def expired(
    chain: Sequence[Manifest],
    snapshots: Mapping[str, SnapshotManifest],
    stored: Iterable[Entry],
    *,
    applied: Lsn,
    cutoff: datetime,
    now: datetime,
) -> Expiry:
    """Choose what is older than `cutoff` *and* applied everywhere (it ends at or before `applied`).

    The chain is cut from its start only, and its last manifest stays: it is the checkpoint. `snapshots` are the
    published ones by path; one is applied when its LSN is. `stored` are all segment files.
    """
    old: list[Manifest] = []
    for manifest in chain[:-1]:
        if manifest.end > applied or manifest.published_at >= cutoff:
            break
        old.append(manifest)
    gone = {s.path for m in old for s in m.segments}
    kept = {s.path for m in chain[len(old) :] for s in m.segments}
    for path, snapshot in snapshots.items():
        paths = {s.path for s in snapshot.segments}
        if snapshot.lsn <= applied and snapshot.taken_at < cutoff:
            gone |= paths | {path}
        else:
            kept |= paths | {path}
    orphans = [e.path for e in stored if e.path not in kept | gone and now - e.modified > ORPHAN_AGE]
    return Expiry(manifests=tuple(old), segments=tuple(sorted(gone - kept)), orphans=tuple(orphans))
