"""Keeping a Delta table fast and small while it is written every few seconds."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from neon_lake.failpoints import failpoint

EVERY: Final = 100
"""Commits between two rounds of joining small files: each append leaves one, and each costs every later commit time."""

FILE_BYTES: Final = 128 << 20
"""Files are joined up to this size."""


def join_small_files(delta: DeltaTable) -> None:
    """Join the small files of a table when it is time. Its rows, and its watermark, stay what they are."""
    if delta.version() % EVERY == 0:
        # another writer was faster; the next round is soon
        with suppress(CommitFailedError):
            failpoint("upkeep.before-joining")
            delta.optimize.compact(target_size=FILE_BYTES)
            failpoint("upkeep.joined")


def remove_old_files(delta: DeltaTable) -> int:
    """Delete the files that no version of the last week needs; gives how many.

    The week is `delta.deletedFileRetentionDuration`, which a table's owner may change.
    """
    return len(delta.vacuum(dry_run=False))
