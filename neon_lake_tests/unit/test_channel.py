from __future__ import annotations

import threading

import pytest

from neon_lake.sources.postgres.channel import Channel


def test_what_waits_is_handed_out_after_the_closing() -> None:
    channel: Channel[int] = Channel(2)
    assert channel.put(1)
    assert channel.put(2)
    channel.close()
    assert not channel.put(3)
    assert list(channel) == [1, 2]


def test_a_full_channel_takes_nothing_in() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.put(1)
    assert not channel.put(2, timeout=0)
    assert next(iter(channel)) == 1
    assert channel.put(2, timeout=0)


def test_an_error_comes_after_what_was_there_before_it_and_the_first_counts() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.close(ValueError("first"))
    channel.close(ValueError("second"))
    items = iter(channel)
    assert next(items) == 1
    with pytest.raises(ValueError, match="first"):
        next(items)


def test_discarding_drops_what_waits() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.close(discard=True)
    assert list(channel) == []


def test_closing_wakes_who_waits_at_either_end() -> None:
    full: Channel[int] = Channel(1)
    full.put(1)
    empty: Channel[int] = Channel(1)
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(full.put(2))),
        threading.Thread(target=lambda: results.append(list(empty))),
    ]
    for thread in threads:
        thread.start()
    full.close()
    empty.close()
    for thread in threads:
        thread.join(timeout=10)
    assert sorted(map(repr, results)) == ["False", "[]"]


def test_items_pass_in_order_between_threads() -> None:
    channel: Channel[int] = Channel(3)

    def feed() -> None:
        for number in range(1000):
            channel.put(number)
        channel.close()

    thread = threading.Thread(target=feed)
    thread.start()
    assert list(channel) == list(range(1000))
    thread.join()
