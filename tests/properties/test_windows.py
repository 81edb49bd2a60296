"""Windows against what they promise, said a second time: every request that was admitted, and sums over all of them."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigate import Rate, Throttle, Window
from apigate.stores.memory import MemoryStore
from apigate.testing import FakeClock
from apigate.throttling.limit import Limit
from apigate.throttling.window import KINDS
from tests.strategies import UNHURRIED

SECOND = 1_000_000
PERIOD = 10 * SECOND
COUNT = 5
each_kind = pytest.mark.parametrize("kind", KINDS)

steps = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from([0, 1, 999, 500_000, SECOND, 3 * SECOND, 9_999_999, 15 * SECOND])),
    max_size=40,
)
"""Costs, and the microseconds that pass before each."""


class Fixed:
    """Windows begin with whoever comes first after the last one."""

    def __init__(self):
        self.windows = []  # (start, costs)

    def used(self, now):
        return sum(self.windows[-1][1]) if self.windows and now < self.windows[-1][0] + PERIOD else 0

    def admit(self, cost, now):
        if not self.windows or now >= self.windows[-1][0] + PERIOD:
            self.windows.append((now, []))
        self.windows[-1][1].append(cost)


class Moving:
    """All that was ever admitted."""

    def __init__(self):
        self.admitted = []

    def used(self, now):
        return sum(cost for at, cost in self.admitted if now - at < PERIOD)

    def admit(self, cost, now):
        self.admitted.append((now, cost))


class Sliding:
    """The formula of `limits`: the whole part of the last count times what is left of its window, in milliseconds."""

    def __init__(self):
        self.start = None
        self.admitted = []  # (number of the window, cost)

    def _window(self, now):
        return (now - self.start) // PERIOD

    def used(self, now):
        if self.start is None:
            return 0
        here = self._window(now)
        counts = [sum(cost for number, cost in self.admitted if number == each) for each in (here - 1, here)]
        left = ceil(Fraction(self.start + (here + 1) * PERIOD - now, 1000))
        return floor(counts[0] * Fraction(left * 1000, PERIOD)) + counts[1]

    def admit(self, cost, now):
        if self.start is None or not any(number >= self._window(now) - 1 for number, _ in self.admitted):
            self.start, self.admitted = now, []
        self.admitted.append((self._window(now), cost))


MODELS = {"fixed": Fixed, "moving": Moving, "sliding": Sliding}


def window(kind, count=COUNT):
    return Window(f"{count}/10 seconds", kind=kind)


@each_kind
@UNHURRIED
@given(trace=steps)
def test_admits_what_the_definition_admits_and_tells_what_is_left(kind, trace):
    model, clock = MODELS[kind](), FakeClock()
    throttle = Throttle({"client": window(kind)}, clock=clock)
    for cost, pause in trace:
        clock.step(pause / SECOND)
        now = clock.now_us()
        used = model.used(now)
        decision = throttle.acquire({"client": "a"}, cost)
        assert decision.allowed == (used + cost <= COUNT)
        if decision.allowed and cost:
            model.admit(cost, now)
        assert decision.levels["client"].remaining == COUNT - model.used(now)


@each_kind
@UNHURRIED
@given(trace=steps, cost=st.integers(1, COUNT))
def test_the_wait_is_exact(kind, trace, cost):
    """A microsecond before it the same cost is refused, at it it is admitted; and until the reset nothing more is."""
    clock = FakeClock()
    throttle = Throttle({"client": window(kind)}, clock=clock)
    for before, pause in trace:
        clock.step(pause / SECOND)
        throttle.acquire({"client": "a"}, before)
    decision = throttle.peek({"client": "a"}, cost)
    if not decision.allowed:
        clock.step((decision.wait_us - 1) / SECOND)
        assert not throttle.peek({"client": "a"}, cost).allowed
        clock.step(1 / SECOND)
        assert throttle.peek({"client": "a"}, cost).allowed
        return
    standing = throttle.peek({"client": "a"}, 0)
    limit, remaining, owed = standing.tightest()
    reset = owed // limit.n
    assert bool(reset) == (remaining < COUNT)
    if reset:
        clock.step((reset - 1) / SECOND)
        assert throttle.peek({"client": "a"}, 0).remaining == remaining
        clock.step(1 / SECOND)
        assert throttle.peek({"client": "a"}, 0).remaining > remaining


@pytest.mark.parametrize(("kind", "most"), [("fixed", 2 * COUNT), ("moving", COUNT), ("sliding", 2 * COUNT)])
@UNHURRIED
@given(trace=steps)
def test_no_period_sees_more_than_the_kind_allows(kind, most, trace):
    clock = FakeClock()
    throttle = Throttle({"client": window(kind)}, clock=clock)
    admitted = []
    for cost, pause in trace:
        clock.step(pause / SECOND)
        if throttle.acquire({"client": "a"}, cost).allowed:
            admitted.append((clock.now_us(), cost))
    for end, _ in admitted:
        assert sum(cost for at, cost in admitted if end - PERIOD < at <= end) <= most


@each_kind
@UNHURRIED
@given(trace=steps, rate=st.sampled_from([Rate(1), Rate(1, burst=3), Rate(2, per=7, burst=4)]))
def test_buckets_and_window_take_together_or_not_at_all(kind, trace, rate):
    """Whichever refuses, the other one stands as before; and if both have enough, it is admitted."""
    clock = FakeClock()
    throttle = Throttle({"global": rate, "client": window(kind), "device": Rate(3, per=5, burst=6)}, clock=clock)
    keys = {"client": "a", "device": "d"}
    for cost, pause in trace:
        clock.step(pause / SECOND)
        before = [state.remaining for state in throttle.peek(keys, 0).buckets]
        look = throttle.peek(keys, cost)
        decision = throttle.acquire(keys, cost)
        after = [state.remaining for state in throttle.peek(keys, 0).buckets]
        assert decision.allowed == look.allowed == all(left >= cost for left in before)
        assert after == [left - cost for left in before] if decision.allowed else after == before
        assert decision.wait_us == look.wait_us
        assert [state.remaining for state in decision.buckets] == after
        if (wait := decision.wait_us) is not None and not decision.allowed:
            clock.step((wait - 1) / SECOND)
            assert not throttle.peek(keys, cost).allowed
            clock.step(1 / SECOND)
            assert throttle.peek(keys, cost).allowed


@each_kind
@UNHURRIED
@given(
    trace=st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0, SECOND, 4 * SECOND, 25 * SECOND])), max_size=150)
)
def test_where_every_place_is_taken_nobody_is_forgotten(kind, trace):
    """A store with four places for thirty clients admits nothing that one with room for all of them refuses."""
    small, large = MemoryStore(max_keys=4).windows(), MemoryStore().windows()
    limit = Limit("client", "client", "client", window(kind, 2))
    now = SECOND
    for client, pause in trace:
        now += pause
        crowded = small.acquire(limit, f"c{client}", 1, now).allowed
        if crowded:  # only what was admitted counts
            assert large.acquire(limit, f"c{client}", 1, now).allowed
        assert len(small) <= 4


def test_places_of_those_who_have_left_are_free_again():
    windows = MemoryStore(max_keys=100).windows()
    limit = Limit("client", "client", "client", window("moving"))
    for number in range(10_000):
        assert windows.acquire(limit, f"c{number}", 1, number * SECOND).allowed
    assert len(windows) <= 40  # ten seconds' worth, and a few that were not looked at yet


def test_a_full_store_says_so_once_and_with_no_lock_held():
    told = []
    store = MemoryStore(max_keys=10, on_fill=lambda kept: told.append((kept, store.windows().peek(limit, "x", 1, 0))))
    limit = Limit("client", "client", "client", window("fixed"))
    for number in range(50):
        store.windows().acquire(limit, f"c{number}", 1, 0)
    assert [kept for kept, _ in told] == [10]
    assert len(store.windows()) == 10


@each_kind
@pytest.mark.usefixtures("restless_interpreter")
def test_threads_are_admitted_exactly(kind):
    """Two clients under one bucket: the bucket gives 90, a client's window 50, and nobody is refused without need."""
    for _ in range(5):
        throttle = Throttle({"global": "90/hour", "client": Window("50/hour", kind=kind)}, clock=FakeClock())
        barrier = threading.Barrier(8)

        def hammer(number, throttle=throttle, barrier=barrier):
            barrier.wait()
            client = {"client": f"c{number % 2}"}
            return number % 2, sum(throttle.acquire(client).allowed for _ in range(60))

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(hammer, range(8)))
        admitted = [sum(count for client, count in results if client == each) for each in (0, 1)]
        assert sum(admitted) == 90
        assert max(admitted) <= 50
        assert throttle.peek({"client": "c0"}, 0).levels["global"].remaining == 0
        for each in (0, 1):
            assert throttle.peek({"client": f"c{each}"}, 0).levels["client"].remaining == 50 - admitted[each]


@pytest.mark.usefixtures("restless_interpreter")
def test_a_window_that_refuses_takes_nothing_from_others_meanwhile():
    """Tokens are not even borrowed: whoever has room in their own window finds the bucket as it should be."""
    throttle = Throttle({"global": "3/hour", "client": Window("1/hour", kind="fixed")}, clock=FakeClock())
    assert throttle.acquire({"client": "greedy"}).allowed
    assert throttle.acquire({"client": "other"}).allowed
    done = threading.Event()

    def greedy():
        while not done.is_set():
            assert not throttle.acquire({"client": "greedy"}).allowed

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(greedy) for _ in range(3)]
        admitted = throttle.acquire({"client": "third"}).allowed
        done.set()
        for each in running:
            each.result()
    assert admitted


@each_kind
def test_tasks_share_the_windows_of_threads(kind):
    throttle = Throttle({"client": Window("3/hour", kind=kind)}, clock=FakeClock())
    assert throttle.acquire({"client": "a"}).allowed

    async def tasks():
        return [(await throttle.acquire_async({"client": "a"})).allowed for _ in range(3)]

    assert asyncio.run(tasks()) == [True, True, False]
