"""The strategies of `limits` themselves, on our windows in memory and by our clock; and both give the same verdicts."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import limits.strategies
import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from apigate import Throttle, Window
from apigate.stores.limits_storage import LimitsStorage
from apigate.stores.memory import MemoryStore
from apigate.testing import FakeClock
from tests.strategies import UNHURRIED

STRATEGIES = {
    "fixed": FixedWindowRateLimiter,
    "moving": MovingWindowRateLimiter,
    "sliding": SlidingWindowCounterRateLimiter,
}
each_kind = pytest.mark.parametrize("kind", STRATEGIES)
LIMIT = parse("5/minute")
steps = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 40_000)), max_size=40)
"""Costs, and the milliseconds before each."""


def limiter(kind, clock, **settings):
    return STRATEGIES[kind](LimitsStorage(clock=clock, **settings))


@each_kind
@UNHURRIED
@given(trace=steps)
def test_a_strategy_of_limits_admits_what_our_window_of_its_kind_admits(kind, trace):
    """With costs of 1: what its fixed window refuses it counts all the same."""
    clock = FakeClock()
    theirs = limiter(kind, clock)
    ours = Throttle({"client": Window("5/minute", kind=kind)}, clock=clock)
    for cost, pause in trace:
        clock.advance(pause / 1_000)
        asked = 1 if kind == "fixed" else cost
        assert theirs.hit(LIMIT, "a", cost=asked) == ours.acquire({"client": "a"}, asked).allowed


@each_kind
def test_a_strategy_tells_what_is_left_and_until_when(kind, monkeypatch):
    clock = FakeClock()
    # the one place where a strategy reads the clock by itself
    monkeypatch.setattr(limits.strategies, "time", SimpleNamespace(time=clock.wall))
    asked = limiter(kind, clock)
    assert asked.get_window_stats(LIMIT, "a").remaining == 5
    for _ in range(2):
        asked.hit(LIMIT, "a")
        clock.advance(10)
    reset, remaining = asked.get_window_stats(LIMIT, "a")
    assert remaining == 3
    assert reset == pytest.approx(clock.wall() + 40, abs=1e-6)
    assert asked.test(LIMIT, "a", cost=3)
    assert not asked.test(LIMIT, "a", cost=4)
    asked.clear(LIMIT, "a")
    assert asked.get_window_stats(LIMIT, "a").remaining == 5


def test_a_fixed_window_has_an_end():
    clock = FakeClock()
    storage = LimitsStorage(clock=clock)
    assert storage.get_expiry("a") == pytest.approx(clock.wall(), abs=1e-6)
    assert [storage.incr("a", 60), storage.incr("a", 60, 4)] == [1, 5]
    clock.advance(59)
    assert storage.get("a") == 5
    assert storage.get_expiry("a") == pytest.approx(clock.wall() + 1, abs=1e-6)
    clock.advance(1)
    assert storage.get("a") == 0
    assert storage.incr("a", 60) == 1


def test_a_sliding_window_tells_both_counts():
    clock = FakeClock()
    storage = LimitsStorage(clock=clock)
    assert storage.get_sliding_window("a", 60) == (0, 0.0, 0, 0.0)
    assert storage.acquire_sliding_window_entry("a", 5, 60, 4)
    clock.advance(75)
    assert storage.acquire_sliding_window_entry("a", 5, 60)
    assert storage.get_sliding_window("a", 60) == (4, 45.0, 1, 105.0)


@each_kind
def test_a_storage_can_be_emptied(kind):
    asked = limiter(kind, FakeClock())
    for client in "abc":
        asked.hit(LIMIT, client)
    assert asked.storage.check()
    assert asked.storage.reset() == 3
    assert asked.storage.reset() == 0


@pytest.mark.usefixtures("restless_interpreter")
@each_kind
def test_threads_are_admitted_exactly(kind):
    """The storage in memory that `limits` has admits up to eleven of a limit of five here, or only three."""
    with ThreadPoolExecutor(16) as pool:
        for _ in range(30):
            asked = limiter(kind, FakeClock())
            admitted = sum(pool.map(lambda _, asked=asked: asked.hit(LIMIT, "a"), range(32)))
            assert admitted == 5


def test_keys_are_bounded():
    clock = FakeClock()
    store = MemoryStore(max_keys=10)
    asked = limiter("moving", clock, store=store)
    for number in range(1_000):
        asked.hit(LIMIT, f"client-{number}")
    assert len(store.windows()) == 10
