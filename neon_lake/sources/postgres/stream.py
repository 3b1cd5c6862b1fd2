"""The change stream: one thread reads frames off the socket, another decodes them, the caller gets pieces."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from neon_lake.change import Lsn, Piece
from neon_lake.errors import SlotGap, SlotInUse, SlotLost, SourceRewound
from neon_lake.sources.postgres import slot, walsender
from neon_lake.sources.postgres.channel import Channel
from neon_lake.sources.postgres.connection import Connection, ConnectionSettings
from neon_lake.sources.postgres.pgoutput import Decoder, Describe
from neon_lake.sources.postgres.publication import names
from neon_lake.sources.postgres.queries import query
from neon_lake.sources.postgres.reader import WAITING, Reader

_PATIENCE: Final = 10.0
"""Seconds that a slot may stay in use by a connection that is just ending."""


class PostgresStream:
    """The change stream of a slot. Made by `opened`."""

    def __init__(self, reader: Reader, decoder: Decoder, start: Lsn, until: Lsn | None) -> None:
        self._reader, self._decoder = reader, decoder
        self._reached, self._until = start, until
        self._pieces: Channel[Piece] = Channel(WAITING)
        self._thread = threading.Thread(target=self._decode, name="neon_lake decoder", daemon=True)

    def __iter__(self) -> Iterator[Piece]:
        """Yield pieces until `until` is passed, or the server has nothing whole left before it."""
        return iter(self._pieces)

    def confirm(self, position: Lsn) -> None:
        """Tell the server that everything before `position` is durable here; it is sent at once, by another thread."""
        self._reader.confirm(position)

    def begin(self) -> None:
        """Start reading and decoding."""
        self._reader.start()
        self._thread.start()

    def end(self) -> None:
        """Stop both threads and end the stream in good order."""
        self._reader.stop()
        self._pieces.close(discard=True)
        self._thread.join()
        self._reader.join()
        self._reader.close()

    def _decode(self) -> None:
        try:
            if self._until is None or self._reached < self._until:
                for chunk in self._reader.chunks:
                    for piece in self._decoder.decode(chunk.frames, chunk.position):
                        if not self._passed_on(piece):
                            return
                    if chunk.at_end:
                        break
        except BaseException as exc:  # noqa: BLE001 - a thread's failure is raised where its work is taken
            self._pieces.close(exc)
        finally:
            self._reader.chunks.close(discard=True)
            self._pieces.close()

    def _passed_on(self, piece: Piece) -> bool:
        """Hand a piece to the caller; False when it was the last."""
        moved = piece.committed is not None and piece.committed > self._reached
        if (moved or piece.changes) and not self._pieces.put(piece):
            return False
        if piece.committed is not None and moved:
            self._reached = piece.committed
        return self._until is None or self._reached < self._until


@contextmanager
def opened(
    settings: ConnectionSettings,
    *,
    slot_name: str,
    publication: str,
    describe: Describe,
    start: Lsn,
    until: Lsn | None,
) -> Iterator[PostgresStream]:
    """Stream from `start`. Raises `SlotInUse`, `SlotLost`, `SlotGap` and `SourceRewound`."""
    publications = _wait_until_ready(settings, slot_name, publication, start)
    with settings.replicate() as connection:
        _start(connection, slot_name, publications, start)
        reader = Reader(connection, slot_name, drains=until is not None, idle=lambda: _is_idle(settings, slot_name))
        stream = PostgresStream(reader, Decoder(describe), start, until)
        stream.begin()
        try:
            yield stream
        finally:
            stream.end()


def _wait_until_ready(settings: ConnectionSettings, name: str, publication: str, start: Lsn) -> list[str]:
    """Refuse a slot that cannot give what commits from `start` on; wait a little for one that is in use.

    Gives the publications that there are.
    """
    deadline = time.monotonic() + _PATIENCE
    with settings.connect() as connection:
        while True:
            row = connection.execute(query("position")).fetchone()
            state = slot.inspect(connection, name)
            if state is None:
                raise SlotLost(
                    f"The replication slot {name} is gone, and with it the changes since {start}; "
                    "run neon-lake resync --all."
                )
            if state.lost is not None:
                raise SlotLost(f"The replication slot {name} is lost ({state.lost}); run neon-lake resync --all.")
            if state.confirmed > start:
                raise SlotGap(
                    f"The replication slot {name} was advanced to {state.confirmed}, past the staged log's end at "
                    f"{start}; the changes between are lost, so run neon-lake resync --all."
                )
            if row is None or Lsn.parse(row[0]) < start:
                raise SourceRewound(
                    f"The source's log ends at {row and row[0]}, before the staged log's end at {start}: it was "
                    "restored or is another server; use a new staging.path and run neon-lake resync --all."
                )
            if state.active_pid is None:
                break
            if time.monotonic() > deadline:
                raise SlotInUse(
                    f"The replication slot {name} is in use by process {state.active_pid} of the server; "
                    "stop the other sync, or wait for it."
                )
            time.sleep(0.1)
        return names(connection, publication)


def _start(connection: Connection, slot_name: str, publications: Sequence[str], position: Lsn) -> None:
    """Start streaming; another connection may still have taken the slot since it was seen free."""
    deadline = time.monotonic() + 1.0
    while True:
        try:
            walsender.start(connection, slot_name, publications, position)
        except SlotInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _is_idle(settings: ConnectionSettings, slot_name: str) -> bool:
    """Whether the slot's walsender has read all of the WAL that is whole.

    The flushed WAL may end within a record; then no keepalive ever reaches the position that was asked for.
    """
    with settings.connect() as connection:
        row = connection.execute(query("walsender_waits"), {"slot": slot_name}).fetchone()
    return row is not None and bool(row[0])
