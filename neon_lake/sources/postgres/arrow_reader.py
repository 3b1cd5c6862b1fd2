"""Results of queries as Arrow, read by a thread of their own: the driver's waiting cannot be ended from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from neon_lake.sources.postgres.channel import Channel
from neon_lake.sources.postgres.connection import ConnectionSettings, load_adbc

if TYPE_CHECKING:
    import adbc_driver_manager.dbapi

BATCH_BYTES: Final = 16 << 20
"""About how many bytes of rows one batch holds."""

_TICK: Final = 1.0
"""Seconds between looks at a silence, at most."""


def read(settings: ConnectionSettings, begin: Sequence[str], statements: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches of each statement in turn, in one transaction that starts with `begin`.

    Raises `SourceUnavailable` when the connection is cut or stalled. One that is stalled is left behind, with its
    thread, until the kernel ends it.
    """
    load_adbc()
    reader = _Reader(settings, begin, statements)
    reader.start()
    # until then the driver may be busy with opening the connection, which has a limit of its own
    open_by = time.monotonic() + settings.connect_timeout
    silence = settings.silence(lambda: reader.session)
    tick = min(_TICK, settings.stall_timeout)
    try:
        while True:
            try:
                batch = reader.batches.take(tick)
            except TimeoutError:
                if reader.session is None and time.monotonic() < open_by:
                    silence.heard()
                else:
                    silence.check()
                continue
            if batch is None:
                break
            yield batch
            silence.heard()
    finally:
        reader.batches.close(discard=True)
        reader.join(tick)


class _Reader(threading.Thread):
    def __init__(self, settings: ConnectionSettings, begin: Sequence[str], statements: Sequence[str]) -> None:
        super().__init__(name="neon_lake arrow", daemon=True)
        self._settings, self._begin, self._statements = settings, begin, statements
        self.batches: Channel[pa.RecordBatch] = Channel(1)
        self.session: int | None = None

    def run(self) -> None:
        try:
            self._read()
        except BaseException as exc:  # noqa: BLE001 - a thread's failure is raised where its work is taken
            self.batches.close(exc)
        finally:
            self.batches.close()

    def _opened(self, session: int) -> None:
        self.session = session

    def _read(self) -> None:
        with self._settings.adbc(self._opened) as connection:
            connection.adbc_connection.set_autocommit(False)
            with connection.cursor() as cursor:
                cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)})
                with self._settings.importing():
                    for statement in self._begin:
                        cursor.execute(statement)
                for statement in self._statements:
                    cursor.execute(statement)
                    if not self._passed_on(cursor):
                        return

    def _passed_on(self, cursor: adbc_driver_manager.dbapi.Cursor) -> bool:
        """Hand out the batches of a result; False when nobody takes them any more."""
        try:
            return all(self.batches.put(batch) for batch in cursor.fetch_record_batch() if batch.num_rows)
        except (OSError, pa.ArrowException) as exc:
            raise self._settings.failure(exc, cursor) from exc
