"""What a pipeline's things are called in Dagster."""

from dataclasses import dataclass
from typing import Final

PIPELINE_TAG: Final = "neon_lake/pipeline"
"""Run tag of every job of a pipeline."""

STARTED_BY_TAG: Final = "neon_lake/started_by"
"""Run tag of what the sensor or a schedule started: such a run takes what is new, and never replays."""

COSTS_TAG: Final = "neon_lake/databricks"
"""Run tag that says what a run asked of Databricks."""

ROW_COUNT: Final = "row_count_parity"
CONTENT: Final = "content_parity"


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names of one pipeline. `qualified` puts the pipeline's name before those that a code location shares.

    `on_databricks`: its lake is there, so that every step needs the workspace.
    """

    pipeline: str
    qualified: bool = False
    on_databricks: bool = False

    def _of(self, name: str) -> str:
        return f"{self.pipeline}_{name}" if self.qualified else name

    @property
    def sync(self) -> str:
        """The job that runs a micro-batch of all tables."""
        return self._of("sync")

    @property
    def resync(self) -> str:
        """The job that snapshots tables anew."""
        return self._of("resync")

    @property
    def verify(self) -> str:
        """The job that runs the parity checks of all tables."""
        return self._of("verify")

    @property
    def expire(self) -> str:
        """The job that applies retention."""
        return self._of("expire")

    @property
    def sensor(self) -> str:
        """The sensor that looks at the slot."""
        return self._of("lag")

    @property
    def replication(self) -> str:
        """The resource that opens the pipeline."""
        return self._of("replication")

    @property
    def postgres(self) -> str:
        """The resource that says where the source is."""
        return self._of("postgres")

    @property
    def databricks(self) -> str:
        """The resource that connects to the workspace."""
        return self._of("databricks")

    @property
    def resources(self) -> set[str]:
        """The resources that every step needs."""
        return {self.postgres, self.replication, *([self.databricks] if self.on_databricks else [])}

    @property
    def op(self) -> str:
        """The step that runs a micro-batch."""
        return f"{self.pipeline}_micro_batch"

    @property
    def content_op(self) -> str:
        """The step that compares contents."""
        return f"{self.pipeline}_content_parity"

    @property
    def pool(self) -> str:
        """The pool of one that keeps runs on the same slot apart."""
        return f"neon_lake_{self.pipeline}"

    @property
    def tags(self) -> dict[str, str]:
        """Tags of every run."""
        return {PIPELINE_TAG: self.pipeline}
