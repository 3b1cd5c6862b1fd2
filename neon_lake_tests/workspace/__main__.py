"""Starts a workspace; its address and credentials are one line of JSON on standard output.

It ends with the process that started it, or on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from neon_lake_tests.workspace.application import Workspace
from neon_lake_tests.workspace.engines import Engine
from neon_lake_tests.workspace.jars import FOLDER, NoJars, jars, resolve
from neon_lake_tests.workspace.sail import Sail
from neon_lake_tests.workspace.spark import Spark

_PR_SET_PDEATHSIG = 1


class _Connection(HttpToolsProtocol):
    """A connection that the application can cut."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


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
    parser.add_argument("--jars", type=Path, default=FOLDER, help="the folder with Spark's jars (default: .spark)")
    parser.add_argument("--chunk-rows", type=int, default=100_000, help="rows of a result that come at a time")
    arguments = parser.parse_args()
    _share_fate()
    listener = socket.create_server(("127.0.0.1", arguments.port), backlog=256)
    root: Path = arguments.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    engine = _engine(arguments.engine, arguments.jars.resolve())
    workspace = Workspace(root, engine, chunk_rows=arguments.chunk_rows)
    ready = {
        "host": f"http://127.0.0.1:{listener.getsockname()[1]}",
        "token": workspace.identity.token,
        "client_id": workspace.identity.client_id,
        "client_secret": workspace.identity.client_secret,
        "warehouse": workspace.warehouse.id,
        "engine": engine.title,
    }
    config = uvicorn.Config(
        workspace.application,
        http=_Connection,
        log_level="warning",
        lifespan="off",
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    try:
        _Server(config, ready).run([listener])
    finally:
        workspace.statements.close()
        engine.close()


def _engine(name: str, folder: Path) -> Engine:
    if name == "sail":
        return Sail()
    try:
        resolve(folder)
    except NoJars as exc:
        raise SystemExit(str(exc)) from exc
    return Spark(jars(folder))


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
