"""Which differences of two imprints call for a new snapshot, and which do not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from neon_lake.imprint import Imprint

PLAIN = Imprint(
    identity="10/1",
    columns={"id": (1, "5"), "v": (2, "5")},
    files={"10": (10, True)},
    labels={"90": "sad", "91": "ok"},
    shapes={"80": "1:23 2:25"},
)
ROOT = replace(PLAIN, files={"10": (None, True), "11/3": (11, True), "12/3": (12, True)})


def test_it_is_stored_whole() -> None:
    for imprint in (PLAIN, ROOT):
        assert Imprint.from_json(json.loads(json.dumps(imprint.to_json()))) == imprint


@pytest.mark.parametrize(
    ("old", "now"),
    [
        (PLAIN, PLAIN),
        (PLAIN, replace(PLAIN, files={"10": (99, True)})),
        (PLAIN, replace(PLAIN, columns={"id": (1, "5"), "v": (2, "8")})),
        (PLAIN, replace(PLAIN, columns={**PLAIN.columns, "w": (3, "8")})),
        (PLAIN, replace(PLAIN, columns={"id": (1, "5")}, labels={}, shapes={})),
        (PLAIN, replace(PLAIN, labels={**PLAIN.labels, "92": "fine"}, shapes={**PLAIN.shapes, "81": "1:23"})),
        (ROOT, replace(ROOT, files={**ROOT.files, "13/8": (13, True), "14/8": (None, True)})),
    ],
)
def test_what_the_stream_tells_is_no_reason(old: Imprint, now: Imprint) -> None:
    assert now.unseen(old) is None


@pytest.mark.parametrize(
    ("old", "now", "reason"),
    [
        (PLAIN, replace(PLAIN, identity="10/2"), "renamed"),
        (PLAIN, replace(PLAIN, columns={"id": (1, "5"), "v": (3, "8")}), "v was dropped and added again"),
        (PLAIN, replace(PLAIN, files={"10": (99, True)}, columns={"id": (1, "5"), "v": (2, "8")}), "for column v"),
        (PLAIN, replace(PLAIN, files={"10": (99, True)}, columns={**PLAIN.columns, "w": (3, "8")}), "for column w"),
        (PLAIN, replace(PLAIN, labels={"90": "blue", "91": "ok"}), "enum"),
        (PLAIN, replace(PLAIN, shapes={"80": "1:23 2:25 3:23"}), "composite"),
        (ROOT, replace(ROOT, files={"10": (None, True), "11/3": (11, True)}), "detached or dropped"),
        (ROOT, replace(ROOT, files={"10": (None, True)}), "detached or dropped"),
        (ROOT, replace(ROOT, files={"10": (None, True), "11/3": (11, True), "12/8": (12, True)}), "detached"),
        (ROOT, replace(ROOT, files={**ROOT.files, "12/3": (99, True)}), "truncated or rewritten"),
        (ROOT, replace(ROOT, files={**ROOT.files, "13/8": (13, False)}), "attached"),
        (ROOT, replace(ROOT, files={**ROOT.files, "13/8": (99, True)}), "attached"),
        (ROOT, replace(ROOT, files={**ROOT.files, "13/8": (None, False)}), "attached"),
    ],
)
def test_what_it_does_not_tell_is_one(old: Imprint, now: Imprint, reason: str) -> None:
    assert reason in str(now.unseen(old))
