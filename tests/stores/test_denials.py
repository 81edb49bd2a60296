"""Refusals that a process remembers: never one that the server would not give, and never for longer than it holds."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apigate.stores.redis import RedisStore
from apigate.stores.redis_denials import Denials
from apigate.throttling.algorithms import judged
from apigate.throttling.limit import limits_of
from apigate.throttling.rate import parse_rates
from tests.stores.asking import PATIENT_MS

START_US = 1_000_000_000_000
SECOND = 1_000_000
KEYS = ("a", "b")


def steady(*rates, is_steady=True):
    return [
        limit
        for number, rate in enumerate(rates)
        for limit in limits_of(f"shop:level-{number}", f"level-{number}", parse_rates(rate), steady=is_steady)
    ]


class Processes:
    """Stores of several processes on one server, and one that remembers nothing."""

    def __init__(self, server, limits, count=2):
        self.server = server
        server.flush()
        self.stores = [RedisStore(server.uri, server_time=False, deadline_ms=PATIENT_MS) for _ in range(count)]
        self.plain = RedisStore(server.uri, server_time=False, denial_cache=False, deadline_ms=PATIENT_MS)
        self.buckets = [store.open(limits, 0) for store in self.stores]
        self.honest = self.plain.open(limits, 0)
        self.now = START_US

    def close(self):
        for store in (*self.stores, self.plain):
            store.close()


@pytest.fixture
def processes(redis_server):
    opened = []

    def open_processes(*rates, **options):
        opened.append(Processes(redis_server, steady(*rates, **options)))
        return opened[-1]

    yield open_processes
    for each in opened:
        each.close()


def test_a_known_refusal_is_given_without_asking(processes, redis_server):
    ours = processes("1/minute", "5/minute")
    mine = ours.buckets[0]
    assert mine.acquire(("a", "a"), (1, 1), ours.now).allowed
    first = mine.acquire(("a", "a"), (1, 1), ours.now)
    before = redis_server.scripts()
    again = mine.acquire(("a", "a"), (1, 1), ours.now + 400_000)
    assert redis_server.scripts() == before
    assert (first.round_trips, again.round_trips) == (1, 0)
    assert again.violated == first.violated == ("level-0",)
    assert (first.wait_us, again.wait_us) == (60 * SECOND, 60 * SECOND - 400_000)


def test_a_refusal_is_known_for_a_second_at_most_and_never_past_its_wait(processes):
    ours = processes("10/second; burst=1")
    mine = ours.buckets[0]
    mine.acquire(("a",), (1,), ours.now)
    assert mine.acquire(("a",), (1,), ours.now).wait_us == 100_000
    assert mine.acquire(("a",), (1,), ours.now + 99_999).round_trips == 0
    assert mine.acquire(("a",), (1,), ours.now + 100_000).allowed
    slow = processes("1/hour")
    theirs = slow.buckets[0]
    theirs.acquire(("a",), (1,), slow.now)
    asked = [theirs.acquire(("a",), (1,), slow.now + at).round_trips for at in (0, 999_999, SECOND)]
    assert asked == [1, 0, 1]


def test_less_than_was_refused_is_asked_for(processes):
    ours = processes("5/minute")
    mine = ours.buckets[0]
    mine.acquire(("a",), (3,), ours.now)
    assert not mine.acquire(("a",), (3,), ours.now).allowed
    assert mine.acquire(("a",), (4,), ours.now).round_trips == 0
    assert mine.acquire(("a",), (2,), ours.now).allowed


def test_a_cost_above_the_burst_is_never_and_stays_so(processes):
    ours = processes("5/minute")
    assert [ours.buckets[0].acquire(("a",), (6,), ours.now).retry_after for _ in range(3)] == [None] * 3


def test_whoever_resets_admits_at_once_and_others_within_a_second(processes):
    ours = processes("1/hour")
    mine, theirs = ours.buckets
    mine.acquire(("a",), (1,), ours.now)
    for each in (mine, theirs):
        assert not each.acquire(("a",), (1,), ours.now).allowed
    mine.reset(("a",))
    assert mine.acquire(("a",), (0,), ours.now).allowed
    assert not theirs.acquire(("a",), (1,), ours.now + SECOND - 1).allowed
    assert theirs.acquire(("a",), (1,), ours.now + SECOND).allowed


def test_a_changed_rate_is_seen_at_once(processes):
    ours = processes("1/hour")
    mine = ours.buckets[0]
    mine.acquire(("a",), (1,), ours.now)
    assert not mine.acquire(("a",), (1,), ours.now).allowed
    ours.stores[0].open(steady("1/second; burst=5"), ours.now)
    assert mine.acquire(("a",), (1,), ours.now).allowed


def test_what_outcomes_give_back_is_never_remembered(processes):
    ours = processes("1/hour", is_steady=False)
    mine, theirs = ours.buckets
    mine.acquire(("a",), (1,), ours.now)
    assert not theirs.acquire(("a",), (1,), ours.now).allowed
    mine.adjust(("a",), (-1,), ours.now)
    assert theirs.acquire(("a",), (1,), ours.now).allowed


def test_what_was_taken_since_is_asked_for(processes):
    ours = processes("4/second; burst=4")
    mine = ours.buckets[0]
    mine.acquire(("a",), (2,), ours.now)
    assert mine.acquire(("a",), (3,), ours.now).wait_us == 250_000
    assert mine.acquire(("a",), (1,), ours.now).allowed
    later = mine.acquire(("a",), (3,), ours.now)
    assert (later.round_trips, later.wait_us) == (1, 500_000)


def test_random_keys_do_not_fill_the_memory():
    denials, (limit,) = Denials(), steady("1/hour")
    for number in range(10_500):
        denials.note(judged([limit], [1], [2 * limit.capacity], allowed=False), [f"client-{number}"], START_US + number)
    assert len(denials._known) <= 10_000
    assert denials.find([limit], ["client-10499"], [1], START_US + 10_499) is not None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("acquire", "acquire", "acquire", "advance", "reset")),
        st.integers(0, 1),
        st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS)),
        st.integers(0, 4),
        st.integers(0, 1_500_000),
    ),
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_server_refuses_what_is_known_to_be_refused(redis_server, steps):
    """But for a reset by another process, within the second that it takes to be noticed."""
    ours = Processes(redis_server, steady("2/second; burst=3", "3/2 second; burst=4"))
    try:
        reset_at = [-2 * SECOND, -2 * SECOND]  # by each process
        for step, who, keys, cost, advance in steps:
            if step == "advance":
                ours.now += advance
            elif step == "reset":
                ours.buckets[who].reset(keys)
                reset_at[who] = ours.now
            else:
                honest = ours.honest.peek(keys, (cost, cost), ours.now)
                decision = ours.buckets[who].acquire(keys, (cost, cost), ours.now)
                if decision.round_trips or reset_at[1 - who] > ours.now - SECOND:
                    continue
                assert not decision.allowed
                assert not honest.allowed
                assert set(decision.violated) <= set(honest.violated)
                if honest.wait_us is not None:
                    assert 0 < decision.wait_us <= honest.wait_us
    finally:
        ours.close()
