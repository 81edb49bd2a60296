"""An event loop that something holds over the deadline says nothing of the server."""

import asyncio
import select

import pytest

from apigate import Gateway, Rate, StoreTimeoutError
from apigate.core.native import asgi_request
from apigate.stores import redis_line
from apigate.stores.redis import RedisStore
from apigate.throttling.limit import limits_of

DEADLINE_MS = 500  # long enough for a busy machine to connect
HELD_S = 0.7


def held():
    """Hold the loop, as an app does that works in it."""
    select.select([], [], [], HELD_S)


def opened(store):
    return store.open(limits_of("shop:client", "client", [Rate(5, per=3_600)]), 0)


def test_an_answer_that_came_meanwhile_is_heard(redis_server):
    async def ask():
        store = RedisStore(redis_server.uri, deadline_ms=DEADLINE_MS)
        buckets = opened(store)
        await buckets.acquire(("a",), (1,), 0)
        task = asyncio.ensure_future(buckets.acquire(("a",), (1,), 0))
        for _ in range(5):
            await asyncio.sleep(0)  # until the question is sent
        held()
        return (await task).remaining

    assert asyncio.run(ask()) == 3


def test_a_call_that_could_not_be_sent_in_time_blames_this_process(redis_server):
    async def ask():
        store = RedisStore(redis_server.uri, deadline_ms=DEADLINE_MS)
        task = asyncio.ensure_future(opened(store).acquire(("a",), (1,), 0))
        await asyncio.sleep(0)
        held()
        with pytest.raises(StoreTimeoutError, match="this process was too busy") as caught:
            await task
        assert not caught.value.blames_store
        return (await opened(store).peek(("a",), (0,), 0)).remaining

    assert asyncio.run(ask()) == 5


def test_a_server_that_does_not_answer_is_blamed(own_redis, monkeypatch):
    monkeypatch.setattr(redis_line, "_LATE_S", 60)  # on a busy machine this loop too may seem to stand still

    async def ask():
        store = RedisStore(own_redis.uri, deadline_ms=DEADLINE_MS)
        buckets = opened(store)
        await buckets.acquire(("a",), (1,), 0)
        own_redis.pause()
        with pytest.raises(StoreTimeoutError) as caught:
            await buckets.acquire(("a",), (1,), 0)
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
        held()
        await late
        after = await gateway.enter_async(request)
        await gateway.store.close_async()
        return gateway.store.breaker.is_open, after.refusal

    assert asyncio.run(serve()) == (False, None)
    assert [type(event).__name__ for event in events if "Store" in type(event).__name__] == []
