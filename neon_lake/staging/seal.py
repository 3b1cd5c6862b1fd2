"""The sealed envelope of the log's documents: what was stored is what is read, or it is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from neon_lake.errors import ChainDamaged, LogDamaged

FORMAT: Final = 1


def sealed(body: Mapping[str, Any]) -> bytes:
    """The document that holds `body`, with its SHA-256."""
    text = json.dumps(body, ensure_ascii=False, indent=1)
    seal = hashlib.sha256(text.encode()).hexdigest()
    return f'{{"format": {FORMAT}, "sha256": "{seal}", "body":\n{text}\n}}\n'.encode()


def opened(data: bytes, *, what: str, remedy: str, of_chain: bool = False) -> dict[str, Any]:
    """The body of a sealed document. The seal is over the body's text as it is stored.

    Raises `LogDamaged`, or `ChainDamaged` for what is `of_chain`, when the seal does not fit: the sentence names `what`
    it is, and ends with the `remedy`.
    """
    head, _, rest = data.partition(b"\n")
    text, _, _ = rest.rpartition(b"\n}\n")
    seal = hashlib.sha256(text).hexdigest()
    if (
        not data.endswith(b"\n}\n")
        or head.decode(errors="replace") != f'{{"format": {FORMAT}, "sha256": "{seal}", "body":'
    ):
        error = ChainDamaged if of_chain else LogDamaged
        raise error(f"The {what} is damaged (its checksum does not fit); {remedy}.")
    body: dict[str, Any] = json.loads(text)
    return body
