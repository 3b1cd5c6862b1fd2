"""Rows that change without a change being sent, and what the source's catalogue shows of it.

`ALTER TABLE … TYPE … USING`, a partition that is attached, detached or truncated, a value of an enum that is renamed:
none of these reaches the stream. So the catalogue's facts go with each snapshot of a table, and are compared later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Imprint:
    """The facts of one table, as the catalogue had them at one moment.

    identity: changes when the table gets another name, or another table gets its name.
    columns: name → the column's number, and the transaction that last altered it.
    files: oid of the table, and of each partition of it with the transaction that made it one (`oid/xid`) → number of
    its file (None where it has none of its own), and whether every row ever in it came through the table itself: it was
    made as a partition of it, or is empty.
    labels: oid → label, of the values of the enums in it.
    shapes: oid → numbers and types of the attributes, of the composite types in it.
    """

    identity: str
    columns: Mapping[str, tuple[int, str]]
    files: Mapping[str, tuple[int | None, bool]]
    labels: Mapping[str, str]
    shapes: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The facts as a snapshot's manifest and a Delta table hold them."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        pairs = {name: {key: tuple(pair) for key, pair in data[name].items()} for name in ("columns", "files")}
        return cls(**{**data, **pairs})

    def unseen(self, old: Imprint) -> str | None:
        """Which change of rows no stream has told since `old`, or None. In doubt there was one."""
        if self.identity != old.identity:
            return "the table was renamed, or another one has its name"
        for name, (number, _) in self.columns.items():
            if name in old.columns and old.columns[name][0] != number:
                return f"column {name} was dropped and added again"
        if any(self.labels.get(oid, label) != label for oid, label in old.labels.items()):
            return "a value of an enum was renamed"
        if any(self.shapes.get(oid, shape) != shape for oid, shape in old.shapes.items()):
            return "a composite type was altered"
        return self._moved(old) if len(self.files) > 1 or len(old.files) > 1 else self._rewritten(old)

    def _moved(self, old: Imprint) -> str | None:
        """A TRUNCATE of a partition is not sent, and one of the root is; the new files look the same."""
        for oid, (file, _) in old.files.items():
            if oid not in self.files:
                return "a partition was detached or dropped"
            if self.files[oid][0] != file:
                return "a partition was truncated or rewritten"
        for oid, (file, own) in self.files.items():
            # a file has its table's oid for a number until it is replaced
            if oid not in old.files and not (own and file in (None, int(oid.partition("/")[0]))):
                return "a partition was attached"
        return None

    def _rewritten(self, old: Imprint) -> str | None:
        """A new file alone may be a TRUNCATE, which is sent, or a VACUUM FULL, which changes nothing."""
        files = {oid: file for oid, (file, _) in self.files.items()}
        if files == {oid: file for oid, (file, _) in old.files.items()}:
            return None
        altered = [name for name, column in self.columns.items() if old.columns.get(name) != column]
        return f"the rows were rewritten for column {altered[0]}" if altered else None
