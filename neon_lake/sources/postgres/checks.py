"""What would go wrong later, found before it does."""

from __future__ import annotations

from collections.abc import Sequence

from neon_lake.config import Table
from neon_lake.errors import Finding
from neon_lake.sources.postgres.connection import ConnectionSettings


def findings(settings: ConnectionSettings, name: str, tables: Sequence[Table]) -> Sequence[Finding]:
    """Look at everything once. Raises only when the server cannot be reached or refuses the connection."""
    raise NotImplementedError
