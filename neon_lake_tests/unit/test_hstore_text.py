from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neon_lake.errors import ProtocolError
from neon_lake.sources.postgres.hstore_text import MAP, parse

tricky = st.text(st.sampled_from("aN,= >\"\\'ü🦆\n"), max_size=6) | st.sampled_from(["", "NULL", "=>", '"=>"', ", "])
maps = st.none() | st.dictionaries(tricky, st.none() | tricky, max_size=4)


def hstore_out(pairs: Mapping[str, str | None]) -> str:
    """A map as the server writes it (contrib/hstore/hstore_io.c)."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return ", ".join(f"{quoted(k)}=>{'NULL' if v is None else quoted(v)}" for k, v in pairs.items())


@given(st.lists(maps), st.integers(0, 2))
def test_maps_are_what_was_stored(rows: list[Mapping[str, str | None] | None], skip: int) -> None:
    text = pa.array([None if row is None else hstore_out(row).encode() for row in rows], pa.binary())
    maps = parse(text[skip:])
    maps.validate(full=True)
    assert maps.type == MAP
    assert [None if row is None else dict(row) for row in maps.to_pylist()] == rows[skip:]


@pytest.mark.parametrize(
    "text",
    ['"a"', '"a"=>', '=>"b"', '"a"=>"b",', '"a"=>"b","c"=>"d"', '"a"=>nil!', '"a"=>"b', 'a=>"b"', '"a"=>b', '"a">="b"'],
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="hstore"):
        parse(pa.array([b'"x"=>"y"', text.encode()]))


@given(st.lists(st.none() | st.text(st.sampled_from('aNUL,= >"\\'), max_size=14)))
def test_no_text_is_read_as_another_map_or_fails_otherwise(rows: list[str | None]) -> None:
    text = pa.array([None if row is None else row.encode() for row in rows], pa.binary())
    try:
        maps = parse(text)
    except ProtocolError:
        return
    maps.validate(full=True)
    written = [None if row is None else hstore_out(dict(row)) for row in maps.to_pylist()]
    twice = [None if row is None else len(row) != len(dict(row)) for row in maps.to_pylist()]
    assert [w for w, t in zip(written, twice, strict=True) if not t] == [
        r for r, t in zip(rows, twice, strict=True) if not t
    ]
