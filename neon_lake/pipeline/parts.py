"""What the verbs work with: the pipeline file, and the three places that it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from neon_lake.config import Pipeline, Table
from neon_lake.destinations.base import Lake, Warehouse
from neon_lake.pipeline.costs import Costs
from neon_lake.schema import TableName
from neon_lake.sources.base import Source
from neon_lake.staging.log import ChangeLog
from neon_lake.staging.manifest import Owner


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A step on the way: which verb, on which table if one, and how many rows it has come along; or words (`said`)."""

    verb: str
    table: TableName | None = None
    rows: int = 0
    done: bool = False
    said: str = ""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Source, log and lake of one pipeline; `progress` is told what happens, `costs` tells what it has cost so far."""

    config: Pipeline
    source: Source
    log: ChangeLog
    destination: Lake | Warehouse
    progress: Callable[[Progress], None] = lambda _: None
    costs: Callable[[], Costs] = Costs

    @cached_property
    def owner(self) -> Owner:
        """Whose log this is: asks the source once."""
        identity = self.source.identity()
        return Owner(
            pipeline=self.config.name, system_identifier=identity.system_identifier, database=identity.database
        )

    def settings(self, table: TableName) -> Table:
        """What the pipeline file says of one of its tables."""
        found = self.config.table(table)
        assert found is not None, "the source gives only tables of the pipeline file"
        return found

    @property
    def memory(self) -> int:
        """The bound on Arrow data held at once, in bytes."""
        return self.config.limits.memory_mb << 20
