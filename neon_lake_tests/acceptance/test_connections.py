"""The connection to the server is cut or stalls; the sync ends with one sentence, and the next one makes it good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from neon_lake.change import Lsn
from neon_lake.errors import NeonLakeError, retry_policy
from neon_lake.pipeline import Replication
from neon_lake.sources.postgres import ConnectionSettings, reader
from neon_lake_tests.fixtures.pipelines import Lab
from neon_lake_tests.fixtures.proxy import Act, Proxy, proxied, says

PATIENCE = 0.3
MANY = 30_000
"""Rows that all buffers on the way together do not hold."""


@pytest.fixture
def proxy(lab: Lab) -> Iterator[Proxy]:
    """A network before the server of `lab`."""
    lab.database.execute(
        """
        CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT g, 'v' FROM generate_series(1, 1000) g;
        CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b SELECT g FROM generate_series(1, 10) g
        """
    )
    with proxied(lab.database) as started:
        yield started


def fill(lab: Lab) -> None:
    lab.database.execute(f"INSERT INTO a SELECT g, repeat('x', 400) || g FROM generate_series(1001, {MANY}) g")


def distant(lab: Lab, proxy: Proxy) -> Replication:
    """The pipeline, with the network between."""
    source = replace(lab.config.source, url=proxy.url(lab.database), connect_timeout=2, stall_timeout=PATIENCE)
    return Replication.open(replace(lab.config, source=source))


def assert_made_good(lab: Lab, proxy: Proxy) -> None:
    """With the network back, source and lake become equal, and stay so."""
    proxy.mend()
    synced = distant(lab, proxy).sync()
    assert synced.ok, synced
    lab.assert_equal("public.a", "public.b")
    again = distant(lab, proxy).sync()
    assert again.ok
    assert not again.captured.changes
    lab.assert_equal("public.a", "public.b")


def change(lab: Lab) -> None:
    lab.database.execute("UPDATE a SET v = v || 'y' WHERE id <= 800; DELETE FROM a WHERE id = 900; DELETE FROM b")


BOTH: tuple[Act, ...] = ("cut", "freeze")


def status_of(data: bytes) -> list[int]:
    """The positions in the standby statuses among what a client sent."""
    found, at = [], data.find(b"d\x00\x00\x00&r")
    while at >= 0:
        found.append(int.from_bytes(data[at + 6 : at + 14], "big"))
        at = data.find(b"d\x00\x00\x00&r", at + 1)
    return found


def confirms(lab: Lab) -> Callable[[bytes], bool]:
    """True of a status that confirms more than the log held before."""
    head = lab.replication.parts.log.head()
    before = head.end if head else Lsn(0)
    return lambda data: any(position > before for position in status_of(data))


FIRST = {
    "catalogue": says(b"pg_catalog.pg_class AS c"),
    "slot": says(b"CREATE_REPLICATION_SLOT"),
    "copy": says(b"COPY ("),
}
LATER = {
    "start": says(b"START_REPLICATION"),
    "stream": says(b"START_REPLICATION"),
    "keepalive": says(b"START_REPLICATION"),
}
ELSEWHERE = "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.t (id int); INSERT INTO elsewhere.t VALUES (1)"
IN_THE_MIDDLE = {"copy": 3_000_000, "stream": 1_000_000}
AFTER = {**IN_THE_MIDDLE, "keepalive": 9}
"""Bytes that come back before it happens; the answer to START_REPLICATION has eight, and a keepalive follows."""

ALL: list[tuple[str, Act]] = [
    *((moment, act) for moment in ("catalogue", "slot", "copy", "start", "stream", "keepalive") for act in BOTH),
    ("copy", "stall"),
    ("stream", "stall"),
]


@pytest.mark.parametrize(("moment", "act"), ALL)
def test_a_sync_ends_with_a_sentence_and_the_next_one_makes_it_good(
    lab: Lab, proxy: Proxy, moment: str, act: Act
) -> None:
    if moment in LATER:
        assert lab.replication.sync().ok
        # only a keepalive tells that WAL without a change for us is behind
        lab.database.execute(ELSEWHERE) if moment == "keepalive" else change(lab)
    if moment in IN_THE_MIDDLE:
        fill(lab)
    fault = proxy.expect({**FIRST, **LATER}[moment], act, after=AFTER.get(moment, 0))
    told = outcome(lab, proxy)
    assert fault.happened.is_set(), told
    assert told
    for sentence, transient in told:
        assert transient, sentence
        assert sentence.endswith("."), sentence
        assert "\n" not in sentence
    words = {"cut": "lost", "stall": "cannot be reached", "freeze": "is stalled"}[act]
    assert any(words in sentence for sentence, _ in told), told
    assert_made_good(lab, proxy)


@pytest.mark.parametrize("act", BOTH)
def test_a_confirmation_that_is_lost_costs_nothing(
    lab: Lab, proxy: Proxy, act: Act, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_FAREWELL", PATIENCE)
    assert lab.replication.sync().ok
    change(lab)
    before = slot_position(lab)
    fault = proxy.expect(confirms(lab), act)
    # what is confirmed is published, so this is no failure
    assert outcome(lab, proxy) == []
    assert fault.happened.is_set()
    assert slot_position(lab) == before
    lab.assert_equal("public.a", "public.b")
    assert_made_good(lab, proxy)


def slot_position(lab: Lab) -> str:
    ((position,),) = lab.database.query(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'neon_lake_lab'"
    )
    return str(position)


def outcome(lab: Lab, proxy: Proxy) -> list[tuple[str, bool]]:
    """What goes wrong in a sync: each sentence, and whether it is worth a retry."""
    try:
        synced = distant(lab, proxy).sync()
    except NeonLakeError as exc:
        return [(str(exc), retry_policy(exc) is not None)]
    return [(str(table.error), table.transient) for table in synced.tables.values() if table.error]


def test_a_server_that_cannot_be_reached_for_a_while(lab: Lab, proxy: Proxy) -> None:
    proxy.expect(says(b"COPY ("), "cut", stays=True)
    ((sentence, transient),) = outcome(lab, proxy)
    assert "cannot be reached" in sentence
    assert transient
    assert_made_good(lab, proxy)


def test_a_slot_that_waits_for_a_transaction_is_not_stalled(lab: Lab, proxy: Proxy) -> None:
    writer = lab.database.connect(autocommit=False)
    writer.execute("INSERT INTO a VALUES (-1, 'late')")
    with ThreadPoolExecutor(1) as pool:
        syncing = pool.submit(distant(lab, proxy).sync)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while lab.database.query(waiting) != [(1,)]:
            assert not syncing.done(), syncing.result()
        # more looks than a stall would get
        proxy.await_connections(4)
        writer.commit()
        assert syncing.result().ok
    lab.assert_equal("public.a")


def test_a_long_query_is_not_stalled(lab: Lab, proxy: Proxy) -> None:
    settings = ConnectionSettings(url=proxy.url(lab.database), stall_timeout=PATIENCE)
    locked = lab.database.connect(autocommit=False)
    locked.execute("LOCK TABLE b")
    with ThreadPoolExecutor(1) as pool, settings.connect() as connection:
        counting = pool.submit(lambda: connection.execute("SELECT count(*) FROM public.b").fetchone())
        proxy.await_connections(4)
        locked.commit()
        assert counting.result() == (10,)
