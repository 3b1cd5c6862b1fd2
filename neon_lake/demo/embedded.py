"""A real PostgreSQL server as a child of this process: for the demonstration, tests and benchmarks.

It listens on 127.0.0.1 alone, on a free port, trusts whoever connects from this machine, and ends with its
parent.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from neon_lake.demo.binaries import EmbeddedPostgresError
from neon_lake.demo.cluster import Cluster

StopMode = Literal["fast", "immediate"]

DEFAULT_SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "max_replication_slots": "64",
    "max_wal_senders": "64",
}

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.01
_PORT_ATTEMPTS = 5


class EmbeddedPostgres(AbstractContextManager["EmbeddedPostgres"]):
    """A running server; `start` makes one. A context manager that stops it at the end.

    Attributes:
        port: TCP port on 127.0.0.1; the same again after `restart`.
        bindir: folder of the programs that belong to the server (psql, pgbench, pg_recvlogical, …).
        data_dir: the cluster's data directory.
        major: major version of the server.
        log_path: file with everything that the server logs.
    """

    def __init__(self, cluster: Cluster, settings: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._settings = {**DEFAULT_SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self.bindir: Path = cluster.bindir
        self.data_dir: Path = cluster.data_dir
        self.major: int = cluster.major
        self.log_path: Path = cluster.root / "server.log"
        self.port: int = 0

    @classmethod
    def start(
        cls,
        *,
        settings: Mapping[str, str] | None = None,
        data_dir: Path | None = None,
        major: int = 18,
        bindir: Path | None = None,
    ) -> Self:
        """Makes a cluster if there is none yet, starts its server, and returns once it accepts connections.

        Args:
            settings: server settings by name, over `DEFAULT_SETTINGS`.
            data_dir: where the cluster lies and stays; without it, a temporary folder that `stop` removes.
            major: version of the embedded server, 18 or 16; with `bindir` it is that of its programs.
            bindir: folder of another PostgreSQL's programs.

        Raises:
            EmbeddedPostgresError: no server for this platform or version, a data directory that cannot be
                used, a setting that the server refuses, or no free port.
        """
        server = cls(Cluster.prepare(data_dir=data_dir, major=major, bindir=bindir), settings or {})
        try:
            server._launch_on_free_port()
        except BaseException:
            server.stop("immediate")
            raise
        return server

    @property
    def pid(self) -> int:
        """Process id of the server. Raises EmbeddedPostgresError when it is stopped."""
        if self._process is None:
            raise EmbeddedPostgresError("The embedded Postgres is stopped: start another one.")
        return self._process.pid

    def url(self, dbname: str = "postgres", user: str = "postgres") -> str:
        """The connection URL of a database of this server."""
        return f"postgresql://{quote(user, safe='')}@127.0.0.1:{self.port}/{quote(dbname, safe='')}"

    def restart(self, mode: StopMode = "fast") -> None:
        """Stops the server as `stop` does and starts it again with the same data on the same port."""
        self._halt(mode)
        self._launch(self.port)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stops the server and removes its temporary files; does nothing when it is stopped already.

        Args:
            mode: `fast` rolls open transactions back and closes cleanly; `immediate` is a crash, from which
                the next start on the same data recovers.
        """
        self._halt(mode)
        self._cluster.remove()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _halt(self, mode: StopMode) -> None:
        if self._process is None:
            return
        _end(self._process, signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        self._process = None

    def _launch_on_free_port(self) -> None:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                self._launch(_free_port())
            except _PortTaken:
                if attempt == _PORT_ATTEMPTS:
                    raise
            else:
                return

    def _launch(self, port: int) -> None:
        fixed = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": ""}
        command = [str(self.bindir / "postgres"), "-D", str(self.data_dir)]
        for name, value in {**self._settings, **fixed}.items():
            command += ["-c", f"{name}={value}"]
        self.port = port
        with self.log_path.open("ab") as log:
            logged = log.tell()
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._cluster.identity())
        weakref.finalize(self, _abandon, self._process, self._cluster, os.getpid())
        self._await_ready(self._process, logged)

    def _await_ready(self, process: subprocess.Popen[bytes], logged: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready(process.pid):
            if process.poll() is not None:
                self._process = None
                raise self._startup_error(logged)
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"The embedded Postgres was not ready after {_START_SECONDS:.0f} s: this machine is "
                    "too busy, or recovery takes long."
                )
            time.sleep(_POLL_SECONDS)

    def _is_ready(self, pid: int) -> bool:
        """Reads the server's own status file, as pg_ctl does: its eighth line is the state (miscadmin.h)."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text("utf-8").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _startup_error(self, logged: int) -> EmbeddedPostgresError:
        with self.log_path.open("rb") as log:
            log.seek(logged)
            lines = log.read().decode("utf-8", "replace").splitlines()
        if any("Address already in use" in line for line in lines):
            return _PortTaken(f"Port {self.port} of 127.0.0.1 is taken by another program: free it and retry.")
        reasons = [line.split("FATAL:", 1)[1].strip() for line in lines if "FATAL:" in line]
        reason = reasons[0] if reasons else (lines or ["it said nothing"])[-1]
        return EmbeddedPostgresError(f"The embedded Postgres did not start: {reason}")


class _PortTaken(EmbeddedPostgresError):
    """Another program took the port between the look and the start."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes], first: signal.Signals) -> None:
    """Ends the server with `first`, then harder: a walsender whose client is stuck outlasts SIGINT."""
    for number in (first, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return


def _abandon(process: subprocess.Popen[bytes], cluster: Cluster, owner: int) -> None:
    """Ends a server that nobody stopped. A forked copy of the owner leaves it alone."""
    if os.getpid() == owner and process.poll() is None:
        _end(process, signal.SIGINT)
        cluster.remove()
