"""What the caller may do: everything, but for what a test takes away.

A privilege is held on an object when it is granted there, or on what holds the object.
Source: https://docs.databricks.com/data-governance/unity-catalog/manage-privileges/privileges
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Final

from neon_lake_tests.workspace.identity import USER
from neon_lake_tests.workspace.refusals import Refused
from neon_lake_tests.workspace.sql_errors import SqlFailed

ALL: Final = (
    "APPLY_TAG",
    "CREATE_SCHEMA",
    "CREATE_TABLE",
    "CREATE_VOLUME",
    "MODIFY",
    "READ_VOLUME",
    "SELECT",
    "USE_CATALOG",
    "USE_SCHEMA",
    "WRITE_VOLUME",
)
"""What a catalog's owner has."""


class Grants:
    """The privileges that are taken away, by the full name of what they are missing on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._missing: set[tuple[str, str]] = set()

    def take(self, name: str, privilege: str) -> None:
        """From now on the caller has not this privilege on the object, nor on what is in it."""
        with self._lock:
            self._missing.add((name.lower(), privilege.upper().replace(" ", "_")))

    def give_back(self) -> None:
        """The caller may do everything again."""
        with self._lock:
            self._missing.clear()

    def has(self, name: str, privilege: str) -> bool:
        """Whether the caller has a privilege on an object."""
        return all((above, privilege) not in self._missing for above in _above(name.lower()))

    def ensure(self, name: str, *privileges: str) -> None:
        """Refuse what the caller may not do."""
        for privilege in privileges:
            if not self.has(name, privilege):
                said = f"User does not have {privilege.replace('_', ' ')} on '{name}'."
                raise Refused(403, "PERMISSION_DENIED", said)

    def ensure_sql(self, kind: str, name: str, *privileges: str) -> None:
        """Refuse what a statement may not do. `kind`: the word for what it is done to. Raises `SqlFailed`."""
        for privilege in ("USE_CATALOG", *(("USE_SCHEMA",) if name.count(".") else ()), *privileges):
            if not self.has(name, privilege):
                said = f"Insufficient privileges: User does not have {privilege.replace('_', ' ')} on {kind} '{name}'."
                raise SqlFailed("INSUFFICIENT_PERMISSIONS", said, "42501")

    def effective(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Privileges as the interface lists them. `kind`: catalog, schema, volume or table."""
        catalog = name.split(".", maxsplit=1)[0]
        source = {} if kind == "catalog" else {"inherited_from_type": "CATALOG", "inherited_from_name": catalog}
        held = [{"privilege": privilege, **source} for privilege in ALL if self.has(name, privilege)]
        return [{"principal": USER, "privileges": held}] if held else []


def _above(name: str) -> Iterator[str]:
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])
