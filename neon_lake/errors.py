"""The error tree, and the one place that decides what is worth trying again.

Every error's text is one plain sentence that names the thing and says what to do; it never holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class NeonLakeError(Exception):
    """Base of every error that this project raises on purpose.

    `exit_code` is the command line's: 1 when a table failed or parity broke, 2 for what a person has to correct before
    anything is done: the configuration, the arguments, or a source, slot, log or lake that cannot be used as it is.
    `transient` says that the same call may succeed later.
    """

    exit_code: ClassVar[int] = 1
    transient: ClassVar[bool] = False


class ConfigError(NeonLakeError):
    """The pipeline file, an environment variable or an argument is wrong."""

    exit_code = 2


class SourceError(NeonLakeError):
    """Something about the Postgres source."""


class SourceUnavailable(SourceError):
    """The connection to the server was cut."""

    transient = True


class SourceUnreachable(SourceUnavailable):
    """No connection comes about: the server is away, or the URL is wrong."""

    exit_code = 2


class SourceRefused(SourceError):
    """The server answers and refuses: wrong password, database, role, or a setting it lacks."""

    exit_code = 2


class TableRefused(SourceError):
    """A table of the pipeline file does not exist, has no key, or cannot be replicated as it is."""

    exit_code = 2


class SourceRewound(SourceError):
    """The source's WAL ends before the staged log does: it was restored from a backup, or is another server."""

    exit_code = 2


class SlotInUse(SourceError):
    """Another connection is streaming from the slot."""

    exit_code = 2
    transient = True


class SourceBusy(SourceRefused):
    """Another run made the same change at the source at the same moment."""

    transient = True


class SlotsExhausted(SourceRefused):
    """The server has no free replication slot for a snapshot."""

    transient = True


class SlotLost(SourceError):
    """The slot is gone, or the server has discarded WAL that it needed."""

    exit_code = 2


class SlotGap(SourceError):
    """The slot was advanced past the staged log, so changes between the two are lost."""

    exit_code = 2


class ProtocolError(SourceError):
    """Bytes of the replication stream that do not follow the protocol."""


class StagingError(NeonLakeError):
    """Something about the change log in staging."""


class StagingUnavailable(StagingError):
    """Staging cannot be read or written."""

    exit_code = 2


class StagingForeign(StagingError):
    """The staging directory belongs to another pipeline or source."""

    exit_code = 2


class LogDamaged(StagingError):
    """A manifest or segment is missing, cut or altered."""

    exit_code = 2


class ChainDamaged(LogDamaged):
    """A manifest of the chain is missing, cut or altered: it is no one table's, and stops all."""


class LogConflict(StagingError):
    """Another capture published the same stretch of the log first."""

    transient = True


class DestinationError(NeonLakeError):
    """Something about the lake."""


class DestinationUnavailable(DestinationError):
    """The lake cannot be read or written."""

    exit_code = 2


class DestinationConflict(DestinationError):
    """Another writer committed to the table at the same time."""

    transient = True


class ResyncNeeded(NeonLakeError):
    """A table cannot be carried on from the log: only a new snapshot makes it right."""


class ParityBroken(NeonLakeError):
    """Source and lake differ."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often, and how long after a failure (seconds, doubled each time), to try again."""

    attempts: int
    delay: float


def retry_policy(error: BaseException) -> Retry | None:
    """The retry that `error` deserves, or None when trying again as it is cannot help."""
    if not isinstance(error, NeonLakeError) or not error.transient:
        return None
    if isinstance(error, SlotInUse):
        # the source has waited for the slot already
        return Retry(attempts=2, delay=1.0)
    return Retry(attempts=4, delay=0.5)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that `check` looked at: `problem` is None when all is well, else a sentence that says what to do."""

    subject: str
    detail: str
    problem: str | None = None


def listed(names: Sequence[object], *, most: int = 5) -> str:
    """`a, b and 3 more`: names as they stand in a sentence."""
    shown = [str(name) for name in names[:most]]
    rest = len(names) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
