"""Named places between two durable effects where a test can kill the process.

Set `NEON_LAKE_FAILPOINT` to a name in `FAILPOINTS`: the process then ends there as if the machine had lost power.
`name:3` lets it pass twice, and ends it the third time.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Final

FAILPOINTS: Final = frozenset(
    {
        # at the source
        "publication.made",
        "slot.created",
        "slot.confirming",
        "slot.confirmed",
        "drop.slot-dropped",
        "resync.slot-dropped",
        "resync.gap-recorded",
        # files in staging: written under a temporary name, then under their own
        "file.unnamed",
        "manifest.unnamed",
        "manifest.named",
        "mark.put",
        "mark.removed",
        # the log
        "capture.segments-written",
        "capture.manifest-published",
        "snapshot.segments-written",
        "snapshot.published",
        # the lake
        "apply.before-commit",
        "apply.table-unnamed",
        "apply.after-commit",
        "apply.columns-added",
        "apply.watermark-alone",
        "apply.before-unmark",
        "apply.before-annotation",
        # the ledger of a lake that a warehouse writes
        "ledger.begun",
        "ledger.finished",
        "ledger.swept",
        "load.side-made",
        "load.group-loaded",
        "load.made",
        "upkeep.before-joining",
        "upkeep.joined",
        # retention
        "expire.manifest-removed",
        "expire.segment-removed",
        "expire.orphan-removed",
        "expire.log-removed",
        "expire.files-removed",
    }
)

_passed: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL when `name` is the armed failpoint; else do nothing."""
    if name not in FAILPOINTS:
        raise ValueError(f"{name!r} is not a failpoint")
    armed, _, times = os.environ.get("NEON_LAKE_FAILPOINT", "").partition(":")
    if armed == name:
        _passed[name] += 1
        if _passed[name] >= int(times or 1):
            os.kill(os.getpid(), signal.SIGKILL)
