"""Named places between two durable effects where a test can kill the process.

Set `NEON_LAKE_FAILPOINT` to a name in `FAILPOINTS`: the process then ends there as if the machine had lost power.
"""

from __future__ import annotations

import os
import signal
from typing import Final

FAILPOINTS: Final = frozenset(
    {
        "slot.created",
        "snapshot.segments-written",
        "snapshot.published",
        "capture.segments-written",
        "capture.manifest-published",
        "apply.before-commit",
        "apply.after-commit",
    }
)


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL when `name` is the armed failpoint; else do nothing."""
    if name not in FAILPOINTS:
        raise ValueError(f"{name!r} is not a failpoint")
    if os.environ.get("NEON_LAKE_FAILPOINT") == name:
        os.kill(os.getpid(), signal.SIGKILL)
