"""Windows that are read and written: whom an error blames. What they count is in `tests/stores`."""

import asyncio
import threading
from itertools import count

import pytest
from memcachio.errors import ConnectionNotAvailable

from apigate import StoreError, StoreTimeoutError, Window
from apigate.stores import storage_connections
from apigate.stores.guarded import GuardedStore
from apigate.stores.storage_connections import store_error
from apigate.stores.written_windows import WindowsOnly, WrittenWindows
from apigate.testing import FakeClock
from apigate.throttling.combined import open_buckets
from apigate.throttling.limit import Limit

LIMIT = Limit("shop:client", "client", "client", Window("5/hour", kind="fixed"))
DEADLINE_MS = 40


class Slots:
    """Where nothing is kept; `read` and `write` are as a test has them."""

    def __init__(self, read, write=None):
        self.read = read
        self._write = write

    def check(self, window):
        pass

    def write(self, *arguments):
        return self._write()


async def never(*_):
    await asyncio.Event().wait()


def asked(slots, keys, **settings):
    """What each of these, asked at the same moment, is told."""
    windows = WrittenWindows(slots, DEADLINE_MS, **settings)

    async def program():
        return await asyncio.gather(
            *(windows.acquire(LIMIT, key, 1, 0) for key in keys),
            return_exceptions=True,
        )

    return asyncio.run(program())


def test_a_server_that_does_not_answer_is_blamed_by_whoever_did_not_queue(monkeypatch):
    monkeypatch.setattr(storage_connections, "_LATE_S", 60)  # on a busy machine this loop too may seem to stand still
    first, queued, other = asked(Slots(never), ["a", "a", "b"])
    assert [error.blames_store for error in (first, queued, other)] == [True, False, True]
    assert all(isinstance(error, StoreTimeoutError) for error in (first, queued, other))


def test_a_loop_that_stood_still_blames_nobody():
    async def read(*_):
        threading.Event().wait(3 * DEADLINE_MS / 1_000)  # as a program might that computes something
        await never()

    (error,) = asked(Slots(read), ["a"])
    assert isinstance(error, StoreTimeoutError)
    assert not error.blames_store


def test_processes_that_undo_each_others_work_blame_no_server():
    tries = count()

    async def lost():
        if next(tries):  # the first is made at once: later, its time might be up already on a busy machine
            await asyncio.sleep(0)
        return False

    async def read(*_):
        return [], None

    (error,) = asked(Slots(read, lost), ["a"])
    assert isinstance(error, StoreTimeoutError)
    assert not error.blames_store
    threads = WrittenWindows(Slots(lambda name: ([], None), lambda: False), DEADLINE_MS)
    with pytest.raises(StoreTimeoutError, match="others wrote 'shop:client@fixed:a' at each try for 40 ms") as raised:
        threads.acquire(LIMIT, "a", 1, 0)
    assert not raised.value.blames_store


def test_whoever_came_too_late_once_blames_no_server_whenever_its_time_is_up(monkeypatch):
    """As a rule that is while it waits for an answer, for the next or the one after it."""
    monkeypatch.setattr(storage_connections, "_LATE_S", 60)
    reads = []

    async def read(*_):
        reads.append(1)
        return ([], None) if len(reads) == 1 else await never()

    async def lost():
        return False

    (error,) = asked(Slots(read, lost), ["a"], clock=FakeClock())  # so its time is up in the wait for `never` alone
    assert isinstance(error, StoreTimeoutError)
    assert not error.blames_store
    assert len(reads) == 2


def test_a_pool_without_a_free_connection_blames_no_server():
    error = ConnectionNotAvailable(("127.0.0.1", 11211), 0.05)
    assert not store_error("acquire", error).blames_store
    assert store_error("acquire", ConnectionError("refused")).blames_store


def test_many_requests_of_one_client_open_no_breaker():
    class Store(WindowsOnly):
        def __init__(self):
            super().__init__("test://", Slots(lambda name: ([], None), lambda: False), DEADLINE_MS)

    clock = FakeClock()
    guarded = GuardedStore(Store(), name="shop", clock=clock, outage="closed")
    buckets = open_buckets(guarded, [LIMIT], clock.now_us())
    decision = buckets.acquire(("a",), (1,), clock.now_us())
    assert (decision.allowed, [limit.level for limit in decision.unavailable]) == (False, ["client"])
    assert not guarded.breaker.is_open


def test_what_a_server_says_is_its_fault():
    def fails(name):
        raise ConnectionResetError("gone")

    with pytest.raises(StoreError, match="gone") as raised:
        WrittenWindows(Slots(fails), DEADLINE_MS).acquire(LIMIT, "a", 1, 0)
    assert raised.value.blames_store
