"""The thread that reads a replication connection: frames into chunks, answers to the server, confirmations."""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Final

import psycopg

from neon_lake.change import Lsn
from neon_lake.errors import NeonLakeError, SourceUnavailable
from neon_lake.failpoints import failpoint
from neon_lake.sources.postgres import walsender
from neon_lake.sources.postgres.channel import Channel
from neon_lake.sources.postgres.connection import Connection

CHUNK_BYTES: Final = 2 << 20
CHUNK_FRAMES: Final = 20_000
"""A chunk is decoded at once; from this size on, a larger one is no faster and only takes more memory."""

WAITING: Final = 2
"""Chunks, and pieces, that may wait between the threads."""

_QUIET: Final = 0.01
"""Seconds without data after which what is there is decoded, and the server is asked for its position."""

_BREATH: Final = 0.001
_GULPS: Final = 8
"""Seconds to let data gather once it comes, and how often its buffer is then filled.

The server sends every row by itself: taking each as it comes would cost both sides a wake-up per row. libpq takes what
its buffer has room for, and makes the buffer larger when it is filled again before it was emptied.
"""

_AGE: Final = 0.1
"""Seconds after which a chunk is decoded although data goes on coming."""

_HEARTBEAT: Final = 1.0
"""Seconds between statuses: far below any sensible wal_sender_timeout."""

_STALL: Final = 0.5
"""Seconds without progress after which we ask whether the server has anything left to read."""

_PROOFS: Final = 2
"""How often in a row the server must be seen to wait for WAL before that counts as the end."""

_FAREWELL: Final = 5.0
"""Seconds that the server gets to end the stream in good order."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Frames, the server's position after them, and whether it is known to have nothing more to send."""

    frames: list[bytes]
    position: Lsn | None
    at_end: bool = False


class Reader(threading.Thread):
    """Reads frames into chunks, answers the server, and sends what was confirmed. Owns the connection while it runs."""

    def __init__(
        self,
        connection: Connection,
        slot_name: str,
        *,
        drains: bool,
        idle: Callable[[], bool],
    ) -> None:
        super().__init__(name="neon_lake reader", daemon=True)
        self.chunks: Channel[Chunk] = Channel(WAITING)
        self._connection, self._pgconn, self._slot = connection, connection.pgconn, slot_name
        self._drains, self._idle = drains, idle
        # Position 0 in a status tells the server nothing.
        self._confirmed = self._sent = Lsn(0)
        assert connection.silence is not None, "every connection is watched"
        self._silence = connection.silence
        self._stopping = False
        self._asked = False
        self._proofs = 0
        self._next_status = 0.0
        self._progress_at = time.monotonic()
        self._wake_out, self._wake_in = os.pipe()

    def confirm(self, position: Lsn) -> None:
        """Have the server told, soon, that everything before `position` is durable."""
        if position > self._confirmed:
            self._confirmed = position
            self._wake()

    def stop(self) -> None:
        """End the stream: tell what was confirmed last, and let the server finish."""
        self._stopping = True
        self.chunks.close(discard=True)
        self._wake()

    def close(self) -> None:
        """Release the wake-up pipe, after the thread has ended."""
        os.close(self._wake_in)
        os.close(self._wake_out)

    def _wake(self) -> None:
        os.write(self._wake_in, b"!")

    def run(self) -> None:
        """Read until stopped, or until the connection fails; the failure reaches whoever takes the chunks."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_out, selectors.EVENT_READ)
                selector.register(self._pgconn.socket, selectors.EVENT_READ)
                self._read(selector)
                selector.unregister(self._pgconn.socket)
                while not self._stopping:
                    self._wait(selector, _HEARTBEAT)
                selector.register(self._pgconn.socket, selectors.EVENT_READ)
                self._end(selector)
        except NeonLakeError as exc:
            self.chunks.close(exc)
        except psycopg.Error as exc:
            said = str(exc).strip().split("\n")[0]
            self.chunks.close(SourceUnavailable(f"The replication connection was lost: {said}."))
        except BaseException as exc:  # noqa: BLE001 - a thread's failure is raised where its work is taken
            self.chunks.close(exc)

    def _read(self, selector: selectors.BaseSelector) -> None:
        """Collect frames until nobody takes chunks any more."""
        get = self._pgconn.get_copy_data
        frames: list[bytes] = []
        position: Lsn | None = None
        size, born = 0, 0.0
        while not self.chunks.closed:
            count, had = 0, len(frames)
            # The one loop over single frames. It takes no more than libpq has in its buffer, so bytes are summed after.
            for count, data in map(get, repeat(1, CHUNK_FRAMES - had)):
                if count <= walsender.KEEPALIVE_SIZE:
                    break
                # Not the memoryview: many of them alive keep the garbage collector busy, for half of the reader's time.
                frames.append(bytes(data))
            size += sum(map(len, islice(frames, had, None)))
            if count < 0:
                raise walsender.ended(self._connection, self._slot)
            now = time.monotonic()
            at_end = False
            if count == walsender.KEEPALIVE_SIZE:
                reached, wanted = walsender.keepalive(data)
                at_end = self._proofs >= _PROOFS and not frames
                self._asked = False
                position = max(reached, position or reached)
                if wanted:
                    self._status(reply=False)
                if frames and size < CHUNK_BYTES:
                    continue
            elif count == 0 and size < CHUNK_BYTES:
                born = (born or now) if frames else 0.0
                quiet = not self._wait(selector, _QUIET if frames or self._drains else _HEARTBEAT)
                if quiet:
                    self._ask(now)
                if not frames or (not quiet and now - born < _AGE):
                    continue
            if frames:
                self._progress_at, self._proofs = now, 0
            self._ship(Chunk(frames=frames, position=position, at_end=at_end))
            frames, position, size, born = [], None, 0, 0.0

    def _ask(self, now: float) -> None:
        """After a silence, ask for the server's position; long without progress, look whether there can be any."""
        if self._asked:
            self._silence.check()
            return
        if self._drains and now - self._progress_at > _STALL:
            self._progress_at = now
            self._proofs = self._proofs + 1 if self._idle() else 0
        self._asked = True
        self._status(reply=True)

    def _ship(self, chunk: Chunk) -> None:
        """Hand a chunk over; while there is no room, keep the connection alive."""
        while not self.chunks.put(chunk, timeout=_HEARTBEAT) and not self.chunks.closed:
            self._status(reply=False)
        self._silence.heard()

    def _wait(self, selector: selectors.BaseSelector, timeout: float) -> bool:
        """Wait for the socket or a wake-up, after sending what is due; True when data came."""
        if self._confirmed > self._sent or time.monotonic() >= self._next_status:
            self._status(reply=False)
        return self._select(selector, timeout)

    def _select(self, selector: selectors.BaseSelector, timeout: float) -> bool:
        came = False
        for key, _ in selector.select(timeout):
            if key.fd == self._wake_out:
                os.read(self._wake_out, 4096)
            else:
                time.sleep(_BREATH)
                for _ in range(_GULPS):
                    self._pgconn.consume_input()
                came = True
                self._silence.heard()
        return came

    def _status(self, *, reply: bool) -> None:
        position = self._confirmed
        # the first one only repeats what the log holds already
        news = position > self._sent > 0
        if news:
            failpoint("slot.confirming")
        self._pgconn.put_copy_data(walsender.status(position, reply=reply))
        self._pgconn.flush()
        if news:
            failpoint("slot.confirmed")
        self._sent = position
        self._next_status = time.monotonic() + _HEARTBEAT

    def _end(self, selector: selectors.BaseSelector) -> None:
        """Send CopyDone and read up to the server's: the slot is free when its command has ended."""
        self._status(reply=False)
        self._pgconn.put_copy_end()
        self._pgconn.flush()
        deadline = time.monotonic() + _FAREWELL
        while (count := self._pgconn.get_copy_data(1)[0]) >= 0:
            if count == 0:
                self._select(selector, _HEARTBEAT)
            if time.monotonic() > deadline:
                return
        while True:
            while self._pgconn.is_busy():
                if time.monotonic() > deadline:
                    return
                self._select(selector, _HEARTBEAT)
            if self._pgconn.get_result() is None:
                return
