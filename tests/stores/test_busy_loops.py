"""An event loop that something holds over the deadline says nothing of the server."""

import asyncio
import select

import pytest

from apigate import Gateway, Rate, StoreTimeoutError
from apigate.core.native import asgi_request
from apigate.stores import redis_line
from apigate.stores.redis import RedisStore
from apigate.throttling.limit import limits_of
from tests.servers import DEADLINE

DEADLINE_MS = 10_000  # long enough for a busy machine to connect
HELD_S = 20.0


def hold():
    """Have the running loop find that it was held, as by an app that works in it."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + HELD_S


async def is_sent(store):
    """See a question on its way, by the one connection that there is; tell its socket."""
    line = store.connections.line(asyncio.get_running_loop())
    (connection,) = line._idle
    for _ in range(2):  # the caller's turn, and then the trip's
        await asyncio.sleep(0)
    assert not line._idle
    return connection._writer.get_extra_info("socket")


def opened(store):
    return store.open(limits_of("shop:client", "client", [Rate(5, per=3_600)]), 0)


def test_an_answer_that_came_meanwhile_is_heard(redis_server):
    async def ask():
        store = RedisStore(redis_server.uri, deadline_ms=DEADLINE_MS)
        buckets = opened(store)
        await buckets.acquire(("a",), (1,), 0)
        task = asyncio.ensure_future(buckets.acquire(("a",), (1,), 0))
        answering = await is_sent(store)
        assert select.select([answering], [], [], DEADLINE)[0]
        hold()
        return (await task).remaining

    assert asyncio.run(ask()) == 3


def test_a_call_that_could_not_be_sent_in_time_blames_this_process(redis_server):
    async def ask():
        store = RedisStore(redis_server.uri, deadline_ms=DEADLINE_MS)
        task = asyncio.ensure_future(opened(store).acquire(("a",), (1,), 0))
        await asyncio.sleep(0)
        hold()
        with pytest.raises(StoreTimeoutError, match="this process was too busy") as caught:
            await task
        assert not caught.value.blames_store
        return (await opened(store).peek(("a",), (0,), 0)).remaining

    assert asyncio.run(ask()) == 5


def test_a_server_that_does_not_answer_is_blamed(own_redis, monkeypatch):
    monkeypatch.setattr(redis_line, "_LATE_S", 60)  # so that the time is the server's, and not the loop's

    async def ask():
        store = RedisStore(own_redis.uri, deadline_ms=DEADLINE_MS)
        buckets = opened(store)
        await buckets.acquire(("a",), (1,), 0)
        own_redis.pause()
        task = asyncio.ensure_future(buckets.acquire(("a",), (1,), 0))
        await is_sent(store)
        hold()
        with pytest.raises(StoreTimeoutError) as caught:
            await task
        own_redis.resume()
        return caught.value.blames_store

    assert asyncio.run(ask())


def test_a_busy_process_is_no_outage(redis_server):
    events = []

    async def serve():
        store = f"{redis_server.uri}?deadline_ms={DEADLINE_MS}"
        gateway = Gateway(
            client_throttle=Rate(5, per=3_600), store=store, name="shop", outage="closed", on_event=events.append
        )
        request = asgi_request({"type": "http", "path": "/", "headers": [], "client": ("192.0.2.1", 1)})
        await gateway.enter_async(request)
        late = asyncio.ensure_future(gateway.enter_async(request))
        await asyncio.sleep(0)
        hold()
        await late
        after = await gateway.enter_async(request)
        await gateway.store.close_async()
        return gateway.store.breaker.is_open, after.refusal

    assert asyncio.run(serve()) == (False, None)
    assert [type(event).__name__ for event in events if "Store" in type(event).__name__] == []
