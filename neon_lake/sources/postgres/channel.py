"""A bounded queue between two threads that either end can close."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """At most `bound` items wait in it. Iterating ends when it is closed and empty, with the error of the closing."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken in."""
        return self._closed

    def put(self, item: T, timeout: float | None = None) -> bool:
        """Wait for room (seconds, None: for ever); False when there was none, or the channel is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._bound, timeout)
            if self._closed or len(self._items) >= self._bound:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def close(self, error: BaseException | None = None, *, discard: bool = False) -> None:
        """Take nothing more in; what waits is still handed out unless `discard`. Only the first error counts."""
        with self._changed:
            if not self._closed:
                self._closed, self._error = True, error
            if discard:
                self._items.clear()
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> T | None:
        """Wait for the next item (seconds, None: for ever); None when the channel is closed and empty.

        Raises TimeoutError when nothing came, and the error of the closing.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or bool(self._items), timeout):
                raise TimeoutError
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    def __iter__(self) -> Iterator[T]:
        """Hand out items as they come."""
        while (item := self.take()) is not None:
            yield item
