"""The byte budget of a cache, counted again over all that is stored, after any trace through the gateway."""

from contextlib import closing
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apigate import CachePolicy, ResponseCache
from apigate.caching.entry import StoredResponse
from apigate.caching.memory import key_bytes
from tests.properties.cache_model import Visit
from tests.properties.cache_traces import AsgiWorld, Script, World, WsgiWorld
from tests.properties.test_cache_model import numbered, scripts, visits, waits
from tests.strategies import UNHURRIED
from tests.threads import in_threads

POLICY = CachePolicy(stale_while_revalidate=20, stale_if_error=40)

texts = st.text(st.sampled_from("abé%/&="), max_size=40)
random_visits = st.builds(Visit, st.just("GET"), texts.map("/{}".format), texts, st.just(()))
ascii_only = random_visits.filter(lambda visit: (visit.path + visit.query).isascii())
steps = st.one_of(
    st.tuples(st.just("visit"), visits | ascii_only, scripts),
    st.tuples(st.just("visit"), visits | ascii_only, scripts),
    st.tuples(st.just("again"), waits, st.none()),
    st.tuples(st.just("wait"), waits),
    st.tuples(st.just("flush")),
    st.tuples(st.just("invalidate"), st.sampled_from(["/a", "/b"])),
)


def counted_again(cache: ResponseCache) -> tuple[int, int]:
    """Bytes and number of all that is stored, each response measured anew from its parts."""
    total = number = 0
    for key, kept in cache._tier._order.items():
        total += key_bytes(key)
        for stored in kept.responses:
            number += 1
            total += StoredResponse(
                status=stored.status,
                fields=stored.fields,
                body=stored.body,
                initial_age=stored.initial_age,
                received_us=stored.received_us,
                lifetime=stored.lifetime,
                grace=stored.grace,
                vary=stored.vary,
                scopes=stored.scopes,
            ).size
    return total, number


def assert_exact(cache: ResponseCache) -> None:
    """What the cache says of itself is so, and within its budget."""
    stats = cache.stats()
    assert (stats["bytes"], stats["entries"]) == counted_again(cache)
    assert stats["bytes"] <= cache.max_bytes


@pytest.mark.parametrize("world", [AsgiWorld, WsgiWorld])
@given(trace=st.lists(steps, max_size=40), max_bytes=st.sampled_from([2_400, 6_000, 15_000, 40_000]))
@settings(UNHURRIED, max_examples=150)
def test_bytes_are_exact_and_within_the_budget_after_each_step(world, trace, max_bytes):
    cache = ResponseCache(max_bytes, max_item_bytes=8)
    with closing(world(POLICY, cache)) as running:
        for step in numbered(trace):
            take(running, step)
            assert_exact(cache)
        cache.flush()
        assert cache.stats()["bytes"] == cache.stats()["entries"] == 0


def take(world: World, step: tuple) -> None:
    match step:
        case ("visit", visit, script):
            world.visit(visit, script)
        case ("wait", seconds):
            world.clock.advance(seconds)
        case ("flush",):
            world.cache.flush()
        case ("invalidate", path):
            world.cache.invalidate(path=path)


@pytest.mark.parametrize("world", [AsgiWorld, WsgiWorld])
def test_random_keys_never_take_more_than_the_budget(world):
    """Nobody fills the memory by asking for what is not there."""
    random = Random(1)
    cache = ResponseCache("1MB")
    script = Script(status=404, cache_control="max-age=60", etag='"a"', vary="X-Side")
    with closing(world(POLICY, cache)) as running:
        for _ in range(3_000):
            fields = (("x-side", "x" * random.randrange(2_000)),)
            running.visit(Visit("GET", f"/{random.randbytes(8).hex()}", "q" * random.randrange(500), fields), script)
            assert cache.stats()["bytes"] <= 1_000_000
        assert_exact(cache)
        assert cache.stats()["evictions"] > 0


@pytest.mark.usefixtures("restless_interpreter")
def test_bytes_are_exact_after_threads_have_stored_removed_and_flushed_at_once():
    cache = ResponseCache(60_000)
    world = WsgiWorld(POLICY, cache)
    world.script = Script(cache_control="max-age=60")
    over: list[int] = []

    def visits(seed: int) -> None:
        random = Random(seed)
        for _ in range(150):
            world._send(Visit("GET", f"/{random.randrange(40)}", "", ()))
            if random.random() < 0.1:
                cache.invalidate(path=f"/{random.randrange(40)}")
            if random.random() < 0.01:
                cache.flush()
            if cache.stats()["bytes"] > 60_000:
                over.append(cache.stats()["bytes"])

    in_threads(partial(visits, seed) for seed in range(8))
    assert not over
    assert_exact(cache)
