"""The ledger: how far each table is, in small files beside the change log.

A table's entries are numbered. Entry n+1 is stored only where none of that number exists, so each has one successor. A
statement that brings a table from entry n on reads that entry's file, and the file is removed when n+1 stands: then a
late copy of the statement finds nothing to build on. What is begun is stored too, before the statement is sent, so that
who comes after a crash finishes it exactly as it was begun.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import pyarrow as pa

from neon_lake.change import Lsn
from neon_lake.errors import DestinationConflict, DestinationError
from neon_lake.failpoints import failpoint
from neon_lake.schema import TableName, arrow_type

FOLDER: Final = "ledger"
FRESH_SECONDS: Final = 1.0
"""For how long a listing of the ledger is taken for what there is, so that looking at many tables lists it once."""

LOAD: Final = "load"
MERGE: Final = "merge"
NOTE: Final = "note"
REPAIR: Final = "repair"


class Shelf(Protocol):
    """What the ledger asks of the place where it lies: that of the change log. See `staging.storage.Storage`."""

    def create(self, path: str, data: bytes) -> bool:
        """Store data unless the path exists."""
        ...

    def read(self, path: str) -> bytes:
        """The bytes at a path; KeyError when there are none."""
        ...

    def names(self, folder: str) -> Sequence[str]:
        """Names in a folder."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove these, as far as they exist."""
        ...


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What was begun from an entry.

    A merge of changes up to `until`, the load of a snapshot taken there, or, at the watermark or where it moves to
    without a change of rows, a note or a repair of rows.
    """

    kind: str
    until: Lsn


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a table stands: all changes that commit before `watermark` are in it; None when it is yet to be made.

    `version` is the Delta version that had them. `schema` is the target's, with field metadata.
    """

    number: int
    watermark: Lsn | None = None
    version: int = 0
    schema: pa.Schema | None = None


class Ledger:
    """The entries of one pipeline's tables. Raises what the shelf raises, and `DestinationConflict`."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._listed: tuple[float, frozenset[str]] = (0.0, frozenset())
        self._entries: dict[str, Entry] = {}

    def newest(self, table: TableName, *, fresh: bool = False) -> tuple[Entry | None, Intent | None]:
        """The last entry of a table, and what was begun from it; (None, None) for a table without any.

        What another run has stored within `FRESH_SECONDS` may be missing, unless it is to be `fresh`.
        """
        prefix = _name(table)
        if fresh:
            self._listed = (0.0, frozenset())
        for _ in range(10):
            names = self._names()
            numbers = [n for n in (_number(name, prefix, ".json") for name in names) if n is not None]
            if not numbers:
                return None, None
            newest = max(numbers)
            try:
                entry = self._read(table, newest)
                begun = f"{prefix}.{newest + 1:08d}.begun"
                intent = _intent(self._shelf.read(f"{FOLDER}/{begun}")) if begun in names else None
            except KeyError:
                # another run has moved it on
                self._listed = (0.0, frozenset())
            else:
                return entry, intent
        raise DestinationConflict(f"Other runs move {table} on all the time; stop them, then run this again.")

    def originate(self, table: TableName) -> Entry:
        """The first entry of a table, which is to be made."""
        self._store(f"{_name(table)}.{0:08d}.json", _document(Entry(number=0)))
        entry, _ = self.newest(table)
        assert entry is not None, "it was stored, by this run or another"
        return entry

    def begin(self, table: TableName, entry: Entry, intent: Intent) -> None:
        """Say what is about to be done from an entry. Raises `DestinationConflict` when another run has begun there."""
        self._sweep(table, entry)
        failpoint("ledger.swept")
        data = json.dumps({"kind": intent.kind, "until": str(intent.until)}).encode()
        if not self._store(f"{_name(table)}.{entry.number + 1:08d}.begun", data):
            raise DestinationConflict(
                f"Another run has begun to bring {table} on from {entry.watermark or 'nothing'}; let it finish, or run "
                "this again to finish it."
            )
        failpoint("ledger.begun")

    def finish(self, table: TableName, before: Entry, after: Entry) -> Entry:
        """Store the successor of an entry, and remove what leads to the old one. Raises `DestinationConflict`."""
        entry = replace(after, number=before.number + 1)
        name = _name(table)
        if not self._store(f"{name}.{entry.number:08d}.json", _document(entry)):
            raise DestinationConflict(
                f"Another run has brought {table} on while this one was at {before.watermark or 'its beginning'}; "
                "run this again."
            )
        failpoint("ledger.finished")
        self._remove(*_what_led_to(table, entry))
        return entry

    def sweep(self, table: TableName) -> None:
        """Remove what a run has left that died once an entry was stored. `begin` does so too."""
        entry, _ = self.newest(table)
        if entry is not None:
            self._sweep(table, entry)

    def path(self, table: TableName, entry: Entry) -> str:
        """The file of an entry, relative to the shelf."""
        return f"{FOLDER}/{_name(table)}.{entry.number:08d}.json"

    # --- files

    def _names(self) -> frozenset[str]:
        at, names = self._listed
        if time.monotonic() - at > FRESH_SECONDS:
            names = frozenset(self._shelf.names(FOLDER))
            self._listed = (time.monotonic(), names)
        return names

    def _store(self, name: str, data: bytes) -> bool:
        stored = self._shelf.create(f"{FOLDER}/{name}", data)
        self._listed = (self._listed[0], self._listed[1] | {name}) if stored else (0.0, frozenset())
        return stored

    def _sweep(self, table: TableName, entry: Entry) -> None:
        # a listing that has the entry has these too, as long as they are there
        if there := self._names().intersection(_what_led_to(table, entry)):
            self._remove(*there)

    def _remove(self, *names: str) -> None:
        self._shelf.delete([f"{FOLDER}/{name}" for name in names])
        self._listed = (self._listed[0], self._listed[1] - set(names))

    def _read(self, table: TableName, number: int) -> Entry:
        path = f"{FOLDER}/{_name(table)}.{number:08d}.json"
        if path not in self._entries:
            self._entries[path] = _entry(self._shelf.read(path), path)
        return self._entries[path]


def _what_led_to(table: TableName, entry: Entry) -> tuple[str, str]:
    """The entry before, and the file that says what was begun there."""
    return f"{_name(table)}.{entry.number - 1:08d}.json", f"{_name(table)}.{entry.number:08d}.begun"


def _name(table: TableName) -> str:
    return table.path.replace("/", ".")


def _number(name: str, prefix: str, suffix: str) -> int | None:
    digits = name.removeprefix(f"{prefix}.").removesuffix(suffix)
    return int(digits) if name == f"{prefix}.{digits}{suffix}" and len(digits) == 8 and digits.isdecimal() else None


def _document(entry: Entry) -> bytes:
    """One line, so that a statement can read it as a row."""
    fields = [
        {
            "name": f.name,
            "type": str(f.type),
            "metadata": {k.decode(): v.decode() for k, v in (f.metadata or {}).items()},
        }
        for f in entry.schema or ()
    ]
    data = {
        "entry": entry.number,
        "watermark": str(entry.watermark) if entry.watermark is not None else None,
        "version": entry.version,
        # as text: statements read the file, and have no use for its columns
        "fields": json.dumps(fields, ensure_ascii=False),
    }
    return json.dumps(data, ensure_ascii=False).encode()


def _entry(data: bytes, path: str) -> Entry:
    try:
        body: dict[str, Any] = json.loads(data)
        fields: list[Mapping[str, Any]] = json.loads(body["fields"])
        return Entry(
            number=body["entry"],
            watermark=Lsn.parse(body["watermark"]) if body["watermark"] is not None else None,
            version=body["version"],
            schema=pa.schema(
                [pa.field(f["name"], arrow_type(f["type"]), metadata=f["metadata"] or None) for f in fields]
            ),
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise DestinationError(
            f"The file {path} in staging is damaged; remove it, so that its table is snapshotted anew."
        ) from exc


def _intent(data: bytes) -> Intent:
    body = json.loads(data)
    return Intent(kind=body["kind"], until=Lsn.parse(body["until"]))
