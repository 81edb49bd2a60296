"""The same numbers as in memory, to the last unit, up to the largest that a rate may have; and rates that change."""

import math
import struct
from math import gcd

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from apigate.core.errors import ConfigurationError
from apigate.stores.memory import MemoryStore
from apigate.stores.redis import RedisStore
from apigate.throttling.algorithms import rescaled
from apigate.throttling.limit import Limit
from apigate.throttling.rate import Rate
from tests.stores.asking import PATIENT_MS, Asked, Threads, limits
from tests.strategies import UNHURRIED

MOST = 2**51
NOW = 1_700_000_000_000_000
HOUR_US = 3_600_000_000
WEEK_US = 604_800_000_000

FAST = settings(UNHURRIED, max_examples=150)


def rate_of(n, p, burst):
    """A rate of n tokens in p microseconds."""
    return Rate(n, per=p / 1_000_000, burst=burst)


@st.composite
def large_rates(draw):
    """Rates of any period, whose buckets hold any number up to the largest, often just that."""
    period = draw(
        st.sampled_from([1_000, 999_983, 1_000_000, 60_000_000, 86_399_999_999, WEEK_US]) | st.integers(1_000, WEEK_US)
    )
    count = draw(st.sampled_from([1, 2, 999_983, 2**40]) | st.integers(1, 10**9))
    p = period // gcd(period, count)
    most = MOST // p
    return rate_of(count, period, draw(st.just(most) | st.integers(1, most) | st.integers(1, min(most, 9))))


@pytest.fixture(scope="module")
def kept(shared_redis):
    store = RedisStore(shared_redis.uri, deadline_ms=PATIENT_MS, server_time=False, denial_cache=False)
    yield store
    store.close()


def opened_in_both(kept, *rates, name="shop:a"):
    """The same limits in Redis and in memory."""
    made = [Limit(f"{name}{number}", "level", "level", rate) for number, rate in enumerate(rates)]
    kept.open(made, NOW).reset(None)
    return [Asked(Threads(), store, made, NOW) for store in (kept, MemoryStore())]


def seen(decision):
    return decision.allowed, decision.owed, decision.wait_us, decision.retry_after, decision.remaining


@FAST
@given(
    rates=st.lists(large_rates(), min_size=1, max_size=3),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["acquire", "acquire", "peek", "adjust"]),
            st.sampled_from([0, 1, 2]) | st.integers(0, MOST) | st.sampled_from([2**53 + 1, 10**30, 10**400]),
            st.sampled_from([0, 1, 999_999, 1_000_001, HOUR_US, -HOUR_US, WEEK_US]) | st.integers(0, WEEK_US),
            st.sampled_from([0, 0, 1, 1_000_000, HOUR_US]),
            st.sampled_from([1, -1]),
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_every_number_is_the_same_as_in_memory(kept, rates, steps):
    redis, memory = opened_in_both(kept, *rates)
    now = NOW
    for operation, tokens, passes, patience, sign in steps:
        now += passes
        if operation == "adjust":
            redis.adjust(tokens=sign * tokens, now=now)
            memory.adjust(tokens=sign * tokens, now=now)
            continue
        given = {"cost": tokens, "now": now, **({"patience": patience} if operation == "acquire" else {})}
        assert seen(getattr(redis, operation)(**given)) == seen(getattr(memory, operation)(**given))


@pytest.mark.parametrize(
    "rate", [Rate(1, per=604_800, burst=MOST // WEEK_US), Rate(10**6, burst=MOST), Rate(2**40, burst=2**37)]
)
def test_the_largest_bucket_can_be_emptied_and_owed_twice_over(kept, rate):
    redis, memory = opened_in_both(kept, rate)
    for asked in (redis, memory):
        assert asked.acquire(cost=rate.size, now=NOW).allowed
        assert not asked.acquire(now=NOW).allowed
        asked.adjust(tokens=10**30, now=NOW)
    assert redis.peek(now=NOW).owed == memory.peek(now=NOW).owed == [2 * rate.capacity]
    later = NOW + 12_345
    assert seen(redis.peek(cost=1, now=later)) == seen(memory.peek(cost=1, now=later))
    redis.adjust(tokens=-(10**30), now=later)
    assert redis.left(now=later) == [rate.size]


def test_nothing_larger_can_be_configured():
    with pytest.raises(ConfigurationError, match="too large for exact arithmetic"):
        Rate(10**6, burst=MOST + 1)


def test_turns_are_booked_up_to_an_hour_ahead_as_in_memory(kept):
    redis, memory = opened_in_both(kept, Rate(1), Rate(999_983, per=604_800, burst=3))
    turns = [[asked.acquire(cost=1, now=NOW, patience=HOUR_US).wait_us for _ in range(40)] for asked in (redis, memory)]
    assert turns[0] == turns[1]
    assert turns[0][-1] == 39_000_000


# ---- rates that change while others still have the old one


@FAST
@given(old=large_rates(), new=large_rates(), share=st.fractions(0, 2), passes=st.integers(0, 10**7))
@example(old=Rate(10**6, burst=MOST), new=Rate(1, per=604_800), share=2, passes=0)
@example(old=Rate(999_983, per=604_799.999983, burst=3_000), new=Rate(1, per=604_800, burst=3_000), share=1, passes=1)
def test_what_is_owed_is_brought_over_to_a_changed_rate_in_whole_numbers(kept, old, new, share, passes):
    assume((old.n, old.p, old.capacity) != (new.n, new.p, new.capacity))
    before, after = (Limit("shop:changing", "level", "level", rate) for rate in (old, new))
    first = Asked(Threads(), kept, [before], NOW)
    first.reset()
    first.adjust(tokens=int(share * old.size), now=NOW)
    (owed,) = first.peek(now=NOW).owed
    second = Asked(Threads(), kept, [after], NOW)
    later = NOW + passes
    assert second.peek(now=later).owed == [rescaled((owed, NOW), before, after, later)[0]]


def two_processes(server, caller, stores, old, new):
    """A store that has the old rate, and one in which it has changed, as in two processes during a roll-out."""
    return [Asked(caller, stores(server.uri, server_time=False), limits(rate), NOW) for rate in (old, new)]


def test_while_processes_differ_in_a_rate_nothing_is_lost(redis_server, caller, stores):
    old, new = two_processes(redis_server, caller, stores, "60/minute; burst=60", "1/second; burst=60")
    for number in range(60):
        asked = old if number % 2 else new
        assert asked.acquire(now=NOW).remaining == 59 - number
    assert [old.acquire(now=NOW).allowed, new.acquire(now=NOW).allowed] == [False, False]


def test_while_processes_differ_in_the_period_what_is_owed_stays_owed_in_tokens(redis_server, caller, stores):
    old, new = two_processes(redis_server, caller, stores, "10/hour; burst=10", "7/3 second; burst=10")
    old.acquire(cost=4, now=NOW)
    assert new.left(now=NOW) == [6]
    new.acquire(cost=1, now=NOW)
    assert old.left(now=NOW) == [5]
    old.acquire(cost=5, now=NOW)
    assert [old.left(now=NOW), new.left(now=NOW)] == [[0], [0]]


def test_a_lowered_burst_cuts_what_is_owed_where_it_is_used(redis_server, caller, stores):
    old, new = two_processes(redis_server, caller, stores, "1/minute; burst=100", "1/minute; burst=3")
    old.acquire(cost=90, now=NOW)
    assert new.acquire(now=NOW).wait_us == 60_000_000
    assert old.left(now=NOW) == [97]


@pytest.mark.parametrize("caller", ["tasks"], indirect=True)
def test_a_running_gateway_changes_its_rate_for_calls_that_are_under_way(redis_server, caller, stores):
    """Asked with the old rate, answered after the change: the numbers are those of one rate, not of both."""
    store = stores(redis_server.uri, server_time=False)
    asked = Asked(caller, store, limits("10/minute; burst=10"), NOW)
    asked.acquire(cost=3, now=NOW)

    async def change_meanwhile():
        waiting = asked.call(cost=2, now=NOW)
        store.open(limits("10/hour; burst=100"), NOW)
        asked.buckets.peek(["a"], [0], NOW).close()
        return await waiting

    decision = caller.ask(change_meanwhile)
    assert (str(decision.limits[0].rate), decision.remaining) == ("10/minute", 5)
    assert asked.left(now=NOW) == [95]


NOT_OURS = {
    "nothing": b"",
    "a text": b"x" * 40,
    "owed that is no number": struct.pack(">5d", math.nan, NOW, 1, 1, 5),
    "a time that is no number": struct.pack(">5d", 1, math.nan, 1, 1, 5),
    "endless debts": struct.pack(">5d", math.inf, NOW, 1, 1, 5),
    "debts below nothing": struct.pack(">5d", -5, NOW, 1, 1, 5),
    "a rate that never pays off": struct.pack(">5d", 1e13, NOW, 0, 1_000_000, 5e6),
    "no period": struct.pack(">5d", 1e13, NOW, 1, 0, 5e6),
    "a period that is no number": struct.pack(">5d", 1e13, NOW, 1, math.nan, 5e6),
}


@pytest.mark.parametrize("state", NOT_OURS.values(), ids=NOT_OURS)
def test_what_nobody_here_has_written_is_a_full_bucket(redis_server, caller, stores, state):
    asked = Asked(caller, stores(redis_server.uri), limits(Rate(5, per=3_600)))
    asked.acquire(now=NOW)
    (name,) = redis_server.command("KEYS", "*")
    redis_server.command("SET", name, state)
    assert [asked.acquire(now=NOW).allowed for _ in range(6)] == [True] * 5 + [False]
