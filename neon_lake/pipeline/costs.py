"""What a run asks of paid services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What was asked of paid services: SQL statements, seconds that the warehouse worked or started, bytes uploaded."""

    statements: int = 0
    warehouse_seconds: float = 0.0
    starting_seconds: float = 0.0
    bytes_uploaded: int = 0

    def __bool__(self) -> bool:
        return self != Costs()

    def __sub__(self, other: Costs) -> Costs:
        return Costs(**{name: value - getattr(other, name) for name, value in vars(self).items()})

    def __add__(self, other: Costs) -> Costs:
        return Costs(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def __str__(self) -> str:
        started = f", {self.starting_seconds:.0f} s to start it" if self.starting_seconds else ""
        return (
            f"{self.statements} statements, {self.bytes_uploaded:,} bytes uploaded, "
            f"{self.warehouse_seconds:.1f} s on the warehouse{started}"
        )

    def to_json(self) -> dict[str, float]:
        """For `--json`."""
        return {name: round(value, 3) for name, value in vars(self).items()}


NO_COSTS: Final = Costs()
