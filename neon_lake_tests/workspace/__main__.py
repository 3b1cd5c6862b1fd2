"""Starts a workspace; its address and credentials are one line of JSON on standard output.

It ends with the process that started it, or on SIGTERM.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from neon_lake_tests.workspace.application import application
from neon_lake_tests.workspace.identity import Identity

_PR_SET_PDEATHSIG = 1


class _Server(uvicorn.Server):
    """Says that it is ready."""

    def __init__(self, config: uvicorn.Config, ready: dict[str, str]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        sys.stdout.write(json.dumps(self._ready) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m neon_lake_tests.workspace", description=__doc__)
    parser.add_argument("--engine", choices=["sail", "spark"], required=True, help="what carries SQL out")
    parser.add_argument("--root", type=Path, required=True, help="the folder for tables and files of volumes")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    arguments = parser.parse_args()
    _share_fate()
    identity = Identity()
    listener = socket.create_server(("127.0.0.1", arguments.port), backlog=256)
    root: Path = arguments.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    ready = {
        "host": f"http://127.0.0.1:{listener.getsockname()[1]}",
        "token": identity.token,
        "client_id": identity.client_id,
        "client_secret": identity.client_secret,
    }
    config = uvicorn.Config(
        application(root, identity),
        log_level="warning",
        lifespan="off",
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    _Server(config, ready).run([listener])


def _share_fate() -> None:
    """End when the parent does, whatever ends it. Only Linux has that."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the parent has ended")


if __name__ == "__main__":
    main()
