"""Tokens that processes take ahead: the bounds that `apigate.stores.redis_leases` states, on a real server."""

import asyncio
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apigate.stores.redis import RedisStore
from apigate.stores.redis_leases import HELD_US, Leases
from apigate.throttling.decision import Decision
from apigate.throttling.limit import limits_of
from apigate.throttling.rate import Rate, parse_rates
from tests.strategies import UNHURRIED

START_US = 1_000_000_000_000
PROCESSES = 3
LEASE = 8


class Processes:
    """Stores of several processes that take ahead, and one that looks."""

    def __init__(self, server, *rates, lease=LEASE, mode="enforce"):
        server.flush()
        self.server = server
        self.limits = [
            limit
            for number, rate in enumerate(rates)
            for limit in limits_of(f"shop:level-{number}", f"level-{number}", parse_rates(rate), mode)
        ]
        self.stores = [
            RedisStore(server.uri, server_time=False, lease=lease, deadline_ms=10_000) for _ in range(PROCESSES)
        ]
        self.buckets = [store.open(self.limits, START_US) for store in self.stores]
        self.plain = RedisStore(server.uri, server_time=False, deadline_ms=10_000)
        self.honest = self.plain.open(self.limits, START_US)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for store in (*self.stores, self.plain):
            store.close()


def test_most_requests_ask_nobody(redis_server):
    with Processes(redis_server, "1000000/second", "1000000/second", lease=20) as ours:
        before = redis_server.scripts()
        for number in range(1_000):
            decision = ours.buckets[0].acquire(("", "a"), (1, 1), START_US + number)
            assert decision.allowed
            assert decision.tolerance == 19
        assert redis_server.scripts() - before <= 50


def test_a_bucket_that_runs_low_is_taken_from_one_by_one(redis_server):
    """At most half of what is left goes ahead, so that no process starves the others."""
    with Processes(redis_server, "1/hour; burst=4", lease=100) as ours:
        first, second, _ = ours.buckets
        assert first.acquire(("a",), (1,), START_US).allowed  # and one more in hand
        assert second.acquire(("a",), (1,), START_US).allowed
        assert second.acquire(("a",), (1,), START_US).allowed
        assert not second.acquire(("a",), (1,), START_US).allowed
        assert first.acquire(("a",), (1,), START_US).allowed
        assert not first.acquire(("a",), (1,), START_US).allowed


def test_what_is_held_too_long_goes_back(redis_server):
    with Processes(redis_server, "1/hour; burst=20") as ours:
        first = ours.buckets[0]
        first.acquire(("a",), (1,), START_US)
        assert ours.honest.peek(("a",), (0,), START_US).remaining == 20 - LEASE
        later = START_US + HELD_US
        decision = first.acquire(("a",), (0,), later)
        assert decision.allowed
        assert ours.honest.peek(("a",), (12,), later).allowed


def test_a_refusal_at_one_level_puts_back_what_was_in_hand_at_another(redis_server):
    with Processes(redis_server, "1/hour; burst=100", "1/hour; burst=1") as ours:
        first = ours.buckets[0]
        assert first.acquire(("a", "a"), (1, 1), START_US).allowed
        for _ in range(20):
            assert not first.acquire(("a", "a"), (1, 1), START_US).allowed
        for _ in range(LEASE - 1):
            assert first.acquire(("a", "b"), (1, 0), START_US).allowed
        assert ours.honest.peek(("a", "b"), (0, 0), START_US).levels["level-0"].remaining == 100 - LEASE


def test_a_reset_lets_go_of_what_is_held(redis_server):
    with Processes(redis_server, "1/hour; burst=20") as ours:
        first = ours.buckets[0]
        first.acquire(("a",), (1,), START_US)
        first.reset(("a",))
        assert [first.acquire(("a",), (1,), START_US).allowed for _ in range(21)].count(True) == 20


def test_levels_in_shadow_mode_are_always_asked(redis_server):
    with Processes(redis_server, "5/hour", mode="shadow") as ours:
        decisions = [ours.buckets[0].acquire(("a",), (1,), START_US) for _ in range(7)]
        assert [decision.round_trips for decision in decisions] == [1] * 7
        assert [bool(decision.shadowed) for decision in decisions] == [False] * 5 + [True] * 2


@pytest.fixture
def pair():
    """Two limits of a client and of all, and what is in hand of the client's bucket."""
    limits = [limit for name in ("client", "global") for limit in limits_of(f"s:{name}", name, [Rate(1, burst=100)])]
    return [(limits[0], "alice"), (limits[1], "")]


def test_what_comes_back_late_makes_no_more_than_was_promised(pair):
    leases = Leases(LEASE)
    first = leases.take(pair, (1, 1), 0)
    leases.settle(pair, (1, 1), first, 0, [(1, LEASE - 1), (1, 0)])
    held = leases.take(pair, (LEASE - 1, 1), HELD_US - 1)
    assert held.wanted[0] is not None
    assert held.wanted[1] is None
    anew = leases.take(pair, (1, 1), HELD_US)
    leases.settle(pair, (1, 1), anew, HELD_US, [(1, LEASE - 1), (1, 0)])
    leases.settle(pair, (LEASE - 1, 1), held, HELD_US - 1, None)
    assert leases.take(pair[:1], (LEASE - 1,), HELD_US).wanted[0] is not None
    assert leases.take(pair[:1], (1,), HELD_US).wanted[0] is None


def test_a_reset_under_way_leaves_no_promise_of_more(pair):
    leases = Leases(LEASE)
    under_way = leases.take(pair, (1, 1), 0)
    leases.drop(pair)
    other = leases.take(pair, (0, 0), 1)
    leases.settle(pair, (0, 0), other, 1, None)
    leases.settle(pair, (1, 1), under_way, 0, None)
    assert leases.take(pair, (1, 1), 2).ahead == [LEASE - 1] * 2


def test_what_a_caller_took_who_gave_up_is_in_hand(redis_server):
    async def ask():
        with Processes(redis_server, "1/hour; burst=1000") as ours:
            buckets = ours.buckets[0]
            await buckets.peek(("a",), (0,), START_US)
            task = asyncio.ensure_future(buckets.acquire(("a",), (1,), START_US))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await ours.honest.peek(("b",), (0,), START_US)  # by then the answer has come
            left = (await ours.honest.peek(("a",), (0,), START_US)).remaining
            answers = [buckets.acquire(("a",), (1,), START_US) for _ in range(LEASE - 1)]
            for store in (*ours.stores, ours.plain):
                await store.close_async()
        return left, answers

    left, answers = asyncio.run(ask())
    assert left == 1_000 - LEASE
    assert all(type(answer) is Decision and answer.allowed for answer in answers)


STEPS = st.lists(
    st.tuples(
        st.integers(0, PROCESSES - 1),
        st.integers(1, 3),
        st.sampled_from((0, 0, 0, 1, 50_000, 300_000, 999_999, 1_000_000, 3_000_000)),
    ),
    max_size=60,
)
RATES = st.builds(Rate, st.integers(1, 20), per=st.sampled_from((1, 3, 7)), burst=st.integers(3, 40))


@settings(UNHURRIED, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=RATES, steps=STEPS)
def test_the_bounds_hold_whoever_asks_when(redis_server, rate, steps):
    with Processes(redis_server, rate) as ours:
        now, admitted = START_US, []
        speed = Fraction(rate.count, rate.period_us)
        owed = Fraction(0)  # by what was admitted alone, as if nobody took ahead
        for who, cost, advance in steps:
            now += advance
            owed = max(Fraction(0), owed - advance * speed)
            decision = ours.buckets[who].acquire(("a",), (cost,), now)
            if decision.allowed:
                admitted.append((now, cost))
                owed += cost
            elif decision.round_trips:
                assert rate.size - owed < cost + PROCESSES * (LEASE - 1)
        ahead = PROCESSES * (LEASE - 1)
        sums = [0, *accumulate(cost for _, cost in admitted)]
        for first, (start, _) in enumerate(admitted):
            for last, (end, _) in enumerate(admitted[first:], start=first):
                held = 0 if first == 0 else ahead  # nothing was taken before the first
                assert sums[last + 1] - sums[first] <= rate.size + (end - start) * speed + held


@pytest.mark.parametrize("lease", [2, 50])
def test_in_all_never_more_is_admitted_than_without_leases(redis_server, lease):
    with Processes(redis_server, "10/second; burst=30", lease=lease) as ours:
        admitted = 0
        for number in range(3_000):
            at = START_US + number * 3_000
            admitted += ours.buckets[number % PROCESSES].acquire(("a",), (1,), at).allowed
        assert 30 + 10 * 9 - PROCESSES * lease <= admitted <= 30 + 10 * 9
