"""One random trace gives the same decisions, waits and remaining tokens in memory and in every other store.

A store that changes a bucket at its next use (see `ThrottleStore.open`) has all of them used when a rate has changed;
and one that may forget a full bucket at any time, before the clock is set back.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apigate import Decision, Rate
from apigate.stores.file import FileStore
from apigate.stores.memory import MemoryStore
from apigate.stores.redis import RedisStore
from apigate.throttling.limit import limits_of
from apigate.throttling.store import Buckets, ThrottleStore
from tests.servers import RedisServer
from tests.strategies import UNHURRIED, small_rates, waits_us

HOUR = 3_600_000_000
KEYS = ("", "a", "b", b"\x00" * 16)
LEVELS = 3

NUMBERS = count()


@cache
def redis_server() -> RedisServer:
    return RedisServer()


def redis_store() -> RedisStore:
    """A store on an empty server, which goes by the time it is handed and is asked for every refusal."""
    redis_server().flush()
    return RedisStore(redis_server().uri, server_time=False, denial_cache=False, deadline_ms=10_000)


class InALoop:
    """A store that is asked where an event loop runs."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.runner = asyncio.Runner()

    def open(self, limits, now):
        return BucketsInALoop(self.runner, self.store.open(limits, now))

    def close(self):
        self.runner.close()


class BucketsInALoop:
    def __init__(self, runner: asyncio.Runner, buckets: Buckets) -> None:
        self.runner, self.buckets = runner, buckets

    def __getattr__(self, operation: str) -> Callable[..., object]:
        async def answer(*asked: object) -> object:
            given = getattr(self.buckets, operation)(*asked)
            return await given if isinstance(given, Awaitable) else given

        return lambda *asked: self.runner.run(answer(*asked))


STORES: dict[str, Callable[[Path], ThrottleStore]] = {
    # a row for each store; it is given a new folder for each test
    "file": lambda folder: FileStore(folder / f"{next(NUMBERS)}.state", max_keys=50),
    "redis, threads": lambda _: redis_store(),
    "redis, event loop": lambda _: InALoop(redis_store()),
}

keys = st.tuples(*[st.sampled_from(KEYS)] * LEVELS)
costs = st.tuples(*[st.integers(0, 6)] * LEVELS)
steps = st.one_of(
    st.tuples(st.just("acquire"), keys, costs, st.sampled_from([0, 0, 0, 2_000_000])),
    st.tuples(st.just("acquire"), keys, st.just((1,) * LEVELS), st.just(0)),
    st.tuples(st.just("peek"), keys, costs),
    st.tuples(st.just("adjust"), keys, st.tuples(*[st.integers(-3, 9)] * LEVELS)),
    st.tuples(st.just("reset"), st.tuples(*[st.sampled_from([*KEYS, None])] * LEVELS)),
    st.tuples(st.just("reset"), st.none()),
    st.tuples(st.just("advance"), waits_us),
    st.tuples(st.just("advance"), st.just(-HOUR)),
    st.tuples(st.just("change"), st.integers(0, LEVELS - 1), small_rates),
)


@dataclass
class Side:
    """One store, asked as the other is."""

    store: ThrottleStore
    rates: list[Rate]
    modes: tuple[str, ...]
    buckets: Buckets | None = None

    def open(self, now: int) -> None:
        limits = [
            limit
            for place, rate in enumerate(self.rates)
            for limit in limits_of(f"level {place}", f"level-{place}", [rate], self.modes[place])
        ]
        self.buckets = self.store.open(limits, now)

    def take(self, step: tuple, now: int) -> object:
        match step:
            case ("acquire", keys, costs, patience):
                return seen(self.buckets.acquire(keys, costs, now, patience))
            case ("peek", keys, costs):
                return seen(self.buckets.peek(keys, costs, now))
            case ("adjust", keys, tokens):
                return self.buckets.adjust(keys, tokens, now)
            case ("reset", keys):
                return self.buckets.reset(keys)
            case ("change", place, rate):
                self.rates[place] = rate
                self.open(now)
                return self.use_all(now)

    def use_all(self, now: int) -> list[tuple]:
        return [seen(self.buckets.acquire([key] * LEVELS, [0] * LEVELS, now)) for key in KEYS]


def seen(decision: Decision) -> tuple:
    """All that a user can learn from a decision."""
    return (
        decision.allowed,
        decision.wait_us,
        decision.violated,
        [limit.level for limit in decision.shadowed],
        decision.charged,
        [(state.level, str(state.rate), state.remaining, state.retry_after) for state in decision.buckets],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.mark.parametrize("store", STORES)
@given(
    rates=st.lists(small_rates, min_size=LEVELS, max_size=LEVELS),
    modes=st.tuples(*[st.sampled_from(["enforce", "enforce", "shadow"])] * LEVELS),
    trace=st.lists(steps, max_size=40),
)
@settings(UNHURRIED)
def test_a_trace_gives_the_same_in_memory_and_elsewhere(folder, store, rates, modes, trace):
    memory = Side(MemoryStore(), list(rates), modes)
    other = Side(STORES[store](folder), list(rates), modes)
    now = 2 * HOUR
    memory.open(now)
    with closing(other.store):
        other.open(now)
        for step in trace:
            if step[0] == "advance":
                if step[1] < 0:  # a bucket that is full by now owes again then, unless its store has forgotten it
                    assert other.use_all(now) == memory.use_all(now)
                now += step[1]
            else:
                assert other.take(step, now) == memory.take(step, now), step
