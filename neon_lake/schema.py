"""Tables and their columns, as the source declares them and as the log records them."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cached_property
from typing import Any, Final, Self

import pyarrow as pa

from neon_lake.imprint import Imprint

RESCUED: Final = "_rescued_data"
"""The column for what a typed column cannot hold: a JSON object of column → Postgres' text."""

SOURCE_TYPE: Final = b"neon_lake.source_type"
"""Field metadata that carries the source's type, so that a column that changed it is noticed."""

KEY: Final = b"neon_lake.key"
"""Field metadata of the columns that the lake merges by."""

EXCLUDED: Final = b"neon_lake.excluded"
"""Field metadata of a target's `_lsn`: a JSON list of the columns that were left at the source."""


IMPRINT: Final = b"neon_lake.imprint"
"""Field metadata of a target's `_lsn`: the `Imprint` that the source had of its table, as JSON."""


@dataclass(frozen=True, order=True)
class TableName:
    """A schema-qualified table name. `str` gives `schema.table`, quoted as Postgres would where it has to be."""

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `schema.table` or `table` (schema public); parts may be double-quoted. Raises ValueError."""
        parts = re.findall(r'"(?:[^"]|"")+"|[^".]+|\.', text)
        dots = [part == "." for part in parts]
        if "".join(parts) != text or dots not in ([False], [False, True, False]):
            raise ValueError(f'{text!r} is not a table name; it looks like public.orders or "My Schema"."a.b"')
        names = [p[1:-1].replace('""', '"') if p.startswith('"') else p for p in parts[::2]]
        return cls(*names) if len(names) == 2 else cls("public", names[0])

    @property
    def sql(self) -> str:
        """The name as SQL, always quoted."""
        return ".".join('"' + part.replace('"', '""') + '"' for part in (self.schema, self.name))

    @property
    def path(self) -> str:
        """`schema/table` as a path; bytes that are not of A–Z a–z 0–9 _ - are written `~xx`.

        Not percent-encoded: Delta readers take a path with % for a URL and decode it.
        """
        return "/".join(re.sub(rb"[^\w-]", _tilde, part.encode()).decode() for part in (self.schema, self.name))

    def __str__(self) -> str:
        return ".".join(
            part if re.fullmatch(r'[^".*?\[\]]+', part) else '"' + part.replace('"', '""') + '"'
            for part in (self.schema, self.name)
        )


def _tilde(match: re.Match[bytes]) -> bytes:
    return b"~%02x" % match[0][0]


class ReplicaIdentity(enum.StrEnum):
    """What the WAL holds of a row's old version (https://www.postgresql.org/docs/current/catalog-pg-class.html)."""

    DEFAULT = "d"
    NOTHING = "n"
    FULL = "f"
    INDEX = "i"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its source type as SQL writes it, and the Arrow type of its values in log and lake.

    `has_default` says that rows older than the column may hold a value that no change ever carried. The `comment` is
    there when the catalogue described the column, and not when the stream did.
    """

    name: str
    type: str
    arrow: pa.DataType
    key: bool = False
    nullable: bool = True
    has_default: bool = False
    comment: str | None = dataclass_field(default=None, compare=False)

    @property
    def field(self) -> pa.Field:
        """The Arrow field: always nullable, because a delete carries only the key."""
        metadata = {SOURCE_TYPE: self.type.encode()} | ({KEY: b"true"} if self.key else {})
        return pa.field(self.name, self.arrow, metadata=metadata)

    @property
    def unkeyed(self) -> pa.Field:
        """The Arrow field in a table that is merged by no key."""
        return pa.field(self.name, self.arrow, metadata={SOURCE_TYPE: self.type.encode()})

    def to_json(self) -> dict[str, Any]:
        """The column as a manifest holds it."""
        flags = {"key": self.key, "nullable": self.nullable, "has_default": self.has_default}
        comment = {} if self.comment is None else {"comment": self.comment}
        return {"name": self.name, "type": self.type, "arrow": str(self.arrow)} | flags | comment

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{**data, "arrow": arrow_type(data["arrow"])})


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A table as it was at some point of the log. Its key is what the lake merges by.

    `comment` and `imprint` are there when the catalogue described the table, and not when the stream did.
    """

    table: TableName
    columns: tuple[Column, ...]
    identity: ReplicaIdentity = ReplicaIdentity.DEFAULT
    comment: str | None = dataclass_field(default=None, compare=False)
    imprint: Imprint | None = dataclass_field(default=None, compare=False)

    @cached_property
    def key(self) -> tuple[Column, ...]:
        """The key columns, in the table's column order."""
        return tuple(column for column in self.columns if column.key)

    @property
    def keyless(self) -> bool:
        """Whether rows are told apart by their whole content alone: there is no key, and the WAL holds old rows whole.

        Then a table may hold the same row more than once.
        """
        return self.identity is ReplicaIdentity.FULL and not self.key

    @property
    def inserts_only(self) -> bool:
        """Whether the server sends no updates and deletes, because the WAL holds nothing to tell rows apart by."""
        return not self.key and self.identity is not ReplicaIdentity.FULL

    @cached_property
    def row_schema(self) -> pa.Schema:
        """Arrow schema of the source's own columns."""
        return pa.schema([column.field for column in self.columns])

    def to_json(self) -> dict[str, Any]:
        """The relation as a manifest holds it."""
        found: dict[str, Any] = {
            "schema": self.table.schema,
            "name": self.table.name,
            "identity": self.identity.value,
            "columns": [column.to_json() for column in self.columns],
        }
        if self.comment is not None:
            found["comment"] = self.comment
        if self.imprint:
            found["imprint"] = self.imprint.to_json()
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            table=TableName(data["schema"], data["name"]),
            identity=ReplicaIdentity(data["identity"]),
            columns=tuple(Column.from_json(column) for column in data["columns"]),
            comment=data.get("comment"),
            imprint=Imprint.from_json(data["imprint"]) if "imprint" in data else None,
        )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What a relation has become, seen from a target that still has its old columns."""

    added: tuple[Column, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def none(self) -> bool:
        """Whether the two are the same."""
        return not (self.added or self.removed or self.changed)

    @property
    def obstacle(self) -> str | None:
        """Why the target cannot follow by adding columns alone, or None when it can."""
        if self.removed:
            return f"column {self.removed[0]} was dropped or renamed"
        if self.changed:
            return f"column {self.changed[0]} changed its type or its part in the key"
        filled = [column.name for column in self.added if column.has_default or not column.nullable]
        if filled:
            return f"column {filled[0]} was added with a value for the rows that were there"
        return None


def difference(old: pa.Schema, new: Relation) -> Difference:
    """Compare the columns that a target took from the source (fields with `SOURCE_TYPE`) with a relation.

    The same source type may land as another type now: the pipeline file can ask for one. A target that is merged by no
    key holds every change, and keeps columns that are gone; only with a new column may that be a renamed one.
    """
    was = {f.name: (f.metadata, f.type) for f in old if f.metadata and SOURCE_TYPE in f.metadata}
    merged = any(KEY in (f.metadata or {}) for f in old)
    fields = {column.name: column.field if merged else column.unkeyed for column in new.columns}
    now = {name: (field.metadata, field.type) for name, field in fields.items()}
    added = tuple(column for column in new.columns if column.name not in was)
    return Difference(
        added=added,
        removed=tuple(name for name in was if name not in now) if merged or added else (),
        changed=tuple(name for name in now if name in was and was[name] != now[name]),
    )


_ALIASES: Final = {
    "double": pa.float64(),
    "float": pa.float32(),
    "date32[day]": pa.date32(),
    "map<string, string>": pa.map_(pa.string(), pa.string()),
}


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type that `str` wrote, for the types a column can have. Raises ValueError on others."""
    if match := re.fullmatch(r"decimal128\((\d+), (\d+)\)", text):
        return pa.decimal128(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"timestamp\[us(?:, tz=(.+))?\]", text):
        return pa.timestamp("us", tz=match[1])
    if match := re.fullmatch(r"list<\w+: (.+)>", text):
        return pa.list_(arrow_type(match[1]))
    if text in _ALIASES:
        return _ALIASES[text]
    return pa.type_for_alias(text)
