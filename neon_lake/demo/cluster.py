"""A PostgreSQL cluster on disk, and the user that its server runs as.

PostgreSQL refuses to be run by root: then the cluster belongs to the user nobody, and nothing else on the
system is changed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neon_lake.demo.binaries import (
    EmbeddedPostgresError,
    bundled_bindir,
    copy_bundled,
    open_to_all,
    server_major,
)

# Root's TMPDIR may lie where the user nobody cannot go; this folder is everybody's.
_SHARED_TMP = "/tmp"  # noqa: S108 (mkdtemp makes a folder with an unguessable name and mode 0700 in it)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Cluster:
    """A data directory, the programs that serve it, and a temporary folder for what goes with them.

    Attributes:
        root: temporary folder, removed by `remove`: the server's log, and the data unless given a place.
        data_dir: the data directory.
        bindir: folder of the programs.
        major: major version of both.
    """

    def __init__(self, *, root: Path, data_dir: Path, bindir: Path, major: int) -> None:
        self.root = root
        self.data_dir = data_dir
        self.bindir = bindir
        self.major = major

    @classmethod
    def prepare(cls, *, data_dir: Path | None, major: int, bindir: Path | None) -> Cluster:
        """Finds the programs and makes the cluster where there is none yet; see `EmbeddedPostgres.start`.

        Raises:
            EmbeddedPostgresError: the programs do not run, or the data directory cannot be made or used.
        """
        programs = bindir if bindir is not None else bundled_bindir(major)
        version = server_major(programs)
        root = Path(tempfile.mkdtemp(prefix="neon-lake-pg-", dir=_SHARED_TMP if _is_root() else None))
        try:
            if _is_root():
                os.chown(root, *_nobody())
                if bindir is not None:
                    _refuse_unreachable(bindir)
                elif not open_to_all(programs):
                    programs = copy_bundled(major, root)
                    _chown_tree(root)
            cluster = cls(root=root, data_dir=data_dir or root / "data", bindir=programs, major=version)
            cluster._initialize()
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise
        return cluster

    def remove(self) -> None:
        """Removes the temporary folder; a data directory that was given a place stays."""
        shutil.rmtree(self.root, ignore_errors=True)

    def identity(self) -> dict[str, Any]:
        """Popen's arguments for a child with the cluster's user, a clean environment, its parent's fate."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        arguments: dict[str, Any] = {
            "cwd": self.root,
            # English because sentences of the log are read, UTC because initdb would search for a zone.
            "env": {**kept, "LC_ALL": "C", "TZ": "UTC"},
            "stdin": subprocess.DEVNULL,
            "start_new_session": True,
            "preexec_fn": die_with(os.getpid()),
        }
        if _is_root():
            user, group = _nobody()
            arguments |= {"user": user, "group": group, "extra_groups": [], "umask": 0o077}
        return arguments

    def _initialize(self) -> None:
        version_file = self.data_dir / "PG_VERSION"
        if version_file.exists():
            made_by = version_file.read_text("utf-8").strip()
            if made_by != str(self.major):
                raise EmbeddedPostgresError(
                    f"{self.data_dir} was made by Postgres {made_by} and this is Postgres {self.major}: "
                    "name another data directory."
                )
            return
        self._make_data_dir()
        command = [
            str(self.bindir / "initdb"),
            "-D",
            str(self.data_dir),
            "-N",
            "-A",
            "trust",
            "-U",
            "postgres",
        ]
        done = subprocess.run(
            [*command, "--locale=C", "-E", "UTF8"], capture_output=True, check=False, **self.identity()
        )
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise EmbeddedPostgresError(
                f"No Postgres cluster could be made in {self.data_dir}: {(said or ['initdb failed'])[0]}"
            )

    def _make_data_dir(self) -> None:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_root():
                _refuse_unreachable(self.data_dir.parent)
                os.chown(self.data_dir, *_nobody())
        except OSError as exc:
            raise EmbeddedPostgresError(
                f"No data directory could be made at {self.data_dir} ({exc.strerror}): name another one."
            ) from exc


def _is_root() -> bool:
    return os.geteuid() == 0


def _nobody() -> tuple[int, int]:
    import pwd  # noqa: PLC0415 (absent on Windows, where the sentence of bundled_bindir has to come first)

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as exc:
        raise EmbeddedPostgresError(
            "Postgres refuses to be run by root and there is no user nobody here: run as another user."
        ) from exc
    return entry.pw_uid, entry.pw_gid


def _refuse_unreachable(folder: Path) -> None:
    if folder.stat().st_uid != _nobody()[0] and not open_to_all(folder):
        raise EmbeddedPostgresError(
            f"The user nobody, which runs the embedded Postgres for root, cannot reach {folder}: "
            "name a folder below /tmp, or run as another user."
        )


def _chown_tree(root: Path) -> None:
    user, group = _nobody()
    for path in (root, *root.rglob("*")):
        os.chown(path, user, group, follow_symlinks=False)


def die_with(parent: int) -> Callable[[], None] | None:
    """What a child runs before its program: asks Linux for SIGINT when the thread that started it ends.

    The thread, not the process (prctl(2), PR_SET_PDEATHSIG): start a server from a thread that lives as
    long as the server is needed. Python runs this after the change of user, which would clear it.
    """
    libc = _LIBC
    if libc is None:
        return None

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:
            os._exit(1)

    return ask
