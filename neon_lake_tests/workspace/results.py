"""Results of statements: their description, and their rows in chunks, as text or as Arrow.

Source: https://docs.databricks.com/api/workspace/statementexecution
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neon_lake_tests.workspace.data_types import arrow_type, name_of, text_of

INLINE_BYTES = 26_214_400
"""What a result may have in the answer itself."""
_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Result:
    """The rows that a statement gave; a statement that gives none has no columns.

    `arrow`: as a stream of Arrow batches, otherwise as JSON. `truncated`: a row limit cut it. `chunk_rows`: how many
    rows a chunk may have.
    """

    table: pa.Table
    arrow: bool
    links: bool
    truncated: bool
    chunk_rows: int

    @cached_property
    def chunks(self) -> Sequence[pa.Table]:
        """The rows, cut; a result without rows has no chunk."""
        rows = self.table.num_rows
        if rows == 0:
            return []
        size = max(1, min(self.chunk_rows, rows * _CHUNK_BYTES // max(self.table.nbytes, 1)))
        return [self.table.slice(start, size) for start in range(0, rows, size)]

    def offset(self, index: int) -> int:
        """How many rows are before a chunk."""
        return sum(chunk.num_rows for chunk in self.chunks[:index])

    @cached_property
    def bodies(self) -> Sequence[bytes]:
        """What is sent for each chunk."""
        return [_stream(chunk) if self.arrow else json.dumps(_texts(chunk)).encode() for chunk in self.chunks]

    def inline(self, index: int) -> list[list[str | None]]:
        """The rows of a chunk, every value as text."""
        return _texts(self.chunks[index])

    @property
    def too_large(self) -> bool:
        """Whether it does not fit into an answer."""
        return not self.links and self.table.nbytes > INLINE_BYTES and sum(map(len, self.bodies)) > INLINE_BYTES

    def manifest(self) -> dict[str, Any]:
        """The description."""
        columns = [_column(place, field) for place, field in enumerate(self.table.schema)]
        found: dict[str, Any] = {"format": "ARROW_STREAM" if self.arrow else "JSON_ARRAY"}
        found["schema"] = {"column_count": len(columns)} | ({"columns": columns} if columns else {})
        found["total_chunk_count"] = len(self.chunks)
        if self.chunks:
            found["chunks"] = [self._chunk(index) for index in range(len(self.chunks))]
        found["total_row_count"] = self.table.num_rows
        if self.links:
            found["total_byte_count"] = sum(map(len, self.bodies))
        found["truncated"] = self.truncated
        return found

    def _chunk(self, index: int) -> dict[str, int]:
        found = {
            "chunk_index": index,
            "row_offset": self.offset(index),
            "row_count": self.chunks[index].num_rows,
        }
        return found | ({"byte_count": len(self.bodies[index])} if self.links else {})

    def part(self, statement: str, index: int, *, link: str = "", expiration: str = "") -> dict[str, Any]:
        """What is answered for one chunk. `link`: where its body can be fetched until `expiration`."""
        if not self.chunks:
            return {}
        found: dict[str, Any] = self._chunk(index)
        if index + 1 < len(self.chunks):
            found["next_chunk_index"] = index + 1
            found["next_chunk_internal_link"] = f"/api/2.0/sql/statements/{statement}/result/chunks/{index + 1}"
        if not self.links:
            return found | {"data_array": self.inline(index)}
        return {"external_links": [found | {"external_link": link, "expiration": expiration}]}


def _column(place: int, field: pa.Field) -> dict[str, Any]:
    kind = arrow_type(field.type)
    found = {"name": field.name, "type_text": text_of(kind), "type_name": name_of(kind), "position": place}
    if pa.types.is_decimal(field.type):
        found |= {"type_precision": field.type.precision, "type_scale": field.type.scale}
    return found


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _texts(table: pa.Table) -> list[list[str | None]]:
    if not table.num_rows:
        return []
    columns = [_as_text(column).to_pylist() for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as Databricks writes them into JSON: of a timestamp, no more than milliseconds are left."""
    kind, types = column.type, pa.types
    if types.is_timestamp(kind):
        form = "%Y-%m-%dT%H:%M:%S" + ("Z" if kind.tz is not None else "")
        return pc.strftime(pc.floor_temporal(column, unit="millisecond").cast(pa.timestamp("ms", kind.tz)), form)
    written = _written(kind)
    if written is str or types.is_boolean(kind):
        return column.cast(pa.string())
    if types.is_nested(kind):
        values = [
            None if each is None else json.dumps(written(each), ensure_ascii=False) for each in column.to_pylist()
        ]
    else:
        values = [None if each is None else written(each) for each in column.to_pylist()]
    return pa.chunked_array([pa.array(values, pa.string())])


def _written(kind: pa.DataType) -> Callable[[Any], Any]:
    """What makes JSON of a value of this type that is not null: of all but structs, maps and lists it is a text."""
    types = pa.types
    if types.is_struct(kind):
        fields = [(each.name, _or_null(_written(each.type))) for each in kind]
        return lambda value: {name: written(value[name]) for name, written in fields}
    if types.is_map(kind):
        item = _or_null(_written(kind.item_type))
        return lambda value: {str(key): item(each) for key, each in value}
    if types.is_nested(kind):
        element = _or_null(_written(kind.value_type))
        return lambda value: [element(each) for each in value]
    for test, written in _SCALARS:
        if test(kind):
            return written
    return str


def _or_null(written: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else written(value)


def _number(value: float) -> str:
    """As Java writes a double."""
    written = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return written.get(repr(value)) or repr(value).replace("e+", "E").replace("e", "E")


def _moment(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_SCALARS: Sequence[tuple[Callable[[pa.DataType], bool], Callable[[Any], str]]] = (
    (pa.types.is_boolean, lambda value: str(value).lower()),
    (pa.types.is_duration, str),
    (pa.types.is_timestamp, _moment),
    (pa.types.is_binary, lambda value: base64.b64encode(value).decode()),
    (pa.types.is_large_binary, lambda value: base64.b64encode(value).decode()),
    (pa.types.is_floating, _number),
)
