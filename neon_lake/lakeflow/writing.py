"""Texts into a folder: all of them or none, and nothing of anybody else's is overwritten."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from neon_lake.errors import ConfigError, listed


def write(folder: Path, files: Mapping[str, str], *, force: bool) -> list[str]:
    """Write texts by their path in `folder`; gives the paths of those that were not there like this.

    Raises `ConfigError`, and changes nothing, when a file is there that differs, unless `force`, or when the folder
    cannot be written.
    """
    changed = []
    try:
        for name, text in files.items():
            there = _read(folder / name)
            if there != text:
                changed.append(name)
        different = [name for name in changed if (folder / name).exists()]
        if different and not force:
            raise ConfigError(
                f"{listed([str(folder / name) for name in different])} would be overwritten, and "
                f"{'differ' if len(different) > 1 else 'differs'} from what would be written; give another folder with "
                "--to, or --force to overwrite."
            )
        _replace(folder, {name: files[name] for name in changed})
    except OSError as exc:
        raise ConfigError(
            f"The folder {folder} cannot be written ({exc.strerror or exc}); give another one with --to."
        ) from exc
    return changed


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _replace(folder: Path, files: Mapping[str, str]) -> None:
    """First all of them beside their place, and then each into it."""
    beside: dict[Path, Path] = {}
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            beside[unfinished] = path
            unfinished.write_text(text, encoding="utf-8", newline="\n")
        for unfinished, path in beside.items():
            unfinished.replace(path)
    finally:
        for unfinished in beside:
            unfinished.unlink(missing_ok=True)
