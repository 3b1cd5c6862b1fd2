"""New tables in an object store, which appear whole or not at all.

Two writers that create one table with delta-rs both succeed, as on a disk, and there is no rename. So a new table is
written where nobody looks; its data files are copied to their place inside of the store; and what makes a table of
them, the first entry of its log, is put last and only if there is none: of two puts, the store refuses the second.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Final

import obstore
import pyarrow as pa
from deltalake import CommitProperties, write_deltalake

from neon_lake import objects
from neon_lake.errors import DestinationConflict
from neon_lake.failpoints import failpoint

_UNFINISHED: Final = ".unfinished-"
_LOG: Final = "_delta_log/"
_FIRST: Final = f"{_LOG}{0:020}.json"

_COPIES: Final = 8
"""Files that are copied at a time."""


def create(
    lake: objects.Options, path: str, rows: pa.RecordBatchReader, properties: CommitProperties, delta: Mapping[str, str]
) -> None:
    """Make the table at `path` of the lake. Raises `DestinationConflict` when another run has made it first.

    `delta` are the store's options for delta-rs.
    """
    folder, _, name = path.rpartition("/")
    aside = f"{folder}/{_UNFINISHED}{secrets.token_hex(8)}/{name}"
    copies: list[str] = []
    try:
        write_deltalake(
            f"{lake.url}/{aside}", rows, mode="error", commit_properties=properties, storage_options=dict(delta)
        )
        # when the answer to its first commit is lost, delta-rs adds the same as a second one
        files = [file for file in _below(lake.store, aside) if not file.startswith(_LOG)]
        first = _read(lake.store, f"{aside}/{_FIRST}")
        assert all(file.encode() in first for file in files), "a new table is one commit"
        copies = [f"{path}/{file}" for file in files]
        _copy(lake.store, aside, path, files)
    except BaseException:
        _discard(lake.store, [*copies, *_paths(lake.store, aside)])
        raise
    failpoint("apply.table-unnamed")
    # When this fails, the table may be there or not: `sweep` finds out.
    if not objects.put_if_absent(lake.store, f"{path}/{_FIRST}", first):
        _discard(lake.store, [*copies, *_paths(lake.store, aside)])
        raise DestinationConflict(
            f"Another run has made the Delta table {lake.url}/{path} at the same time; nothing was written; "
            "run this again."
        )
    _discard(lake.store, _paths(lake.store, aside))


def sweep(store: objects.Store, folder: str, before: datetime) -> int:
    """Remove the unfinished tables in a folder that were begun before a moment, and what was copied from them.

    Gives how many files that were.
    """
    removed = 0
    for prefix in obstore.list_with_delimiter(store, folder)["common_prefixes"]:
        if prefix.rpartition("/")[2].startswith(_UNFINISHED):
            found = [each for page in obstore.list(store, prefix) for each in page]
            if found and max(each["last_modified"] for each in found) < before:
                removed += _remove(store, folder, prefix, [each["path"] for each in found])
    return removed


def _remove(store: objects.Store, folder: str, prefix: str, paths: list[str]) -> int:
    """Remove an unfinished table; its copies too, unless they became the table. The first log entry goes last."""
    relative = [path.removeprefix(f"{prefix}/") for path in paths]
    first = next((path for path in relative if path.endswith(f"/{_FIRST}")), None)
    copies: list[str] = []
    if first is not None:
        name = first.removesuffix(f"/{_FIRST}")
        log = _below(store, f"{folder}/{name}/{_LOG.rstrip('/')}")
        made = _FIRST.removeprefix(_LOG)
        unlike = made in log and _read(store, f"{folder}/{first}") != _read(store, f"{prefix}/{first}")
        # of a table whose first entry has been cleaned up, nobody can tell any more
        if unlike or not log:
            copies = [f"{folder}/{path}" for path in relative if not path.startswith(f"{name}/{_LOG}")]
            there = {f"{folder}/{name}/{file}" for file in _below(store, f"{folder}/{name}")}
            copies = [path for path in copies if path in there]
    last = f"{prefix}/{first}"
    objects.delete(store, [*copies, *sorted(paths, key=lambda path: path == last)])
    return len(copies) + len(paths)


def _copy(store: objects.Store, source: str, target: str, files: Iterable[str]) -> None:
    with ThreadPoolExecutor(_COPIES, thread_name_prefix="copies") as pool:
        for done in [pool.submit(obstore.copy, store, f"{source}/{file}", f"{target}/{file}") for file in files]:
            done.result()


def _discard(store: objects.Store, paths: Iterable[str]) -> None:
    """Remove what nobody needs; what stays because the store cannot be used, `sweep` removes."""
    with suppress(*objects.FAILURES):
        objects.delete(store, paths)


def _paths(store: objects.Store, folder: str) -> list[str]:
    with suppress(*objects.FAILURES):
        return [f"{folder}/{file}" for file in _below(store, folder)]
    return []


def _below(store: objects.Store, folder: str) -> list[str]:
    """The paths of what lies below a folder, relative to it."""
    return [each["path"].removeprefix(f"{folder}/") for page in obstore.list(store, folder) for each in page]


def _read(store: objects.Store, path: str) -> bytes:
    return bytes(obstore.get(store, path).bytes())
