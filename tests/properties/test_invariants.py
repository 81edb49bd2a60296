"""What holds for every decision, whatever the limits and the trace."""

from fractions import Fraction
from itertools import accumulate, permutations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from apigate import Rate, Throttle
from apigate.stores.memory import MemoryStore
from apigate.testing import FakeClock
from apigate.throttling.decision import LevelState
from apigate.throttling.fields import retry_after_field, seconds_up
from tests.properties.model import Model
from tests.strategies import UNHURRIED, rates, small_rates, waits_us

FEW = settings(UNHURRIED, max_examples=100)

TRACES = st.lists(st.tuples(waits_us, st.sampled_from("ab"), st.integers(0, 4)), max_size=30)
"""Steps of a trace: microseconds that pass, who comes, and at what cost."""


def throttles(limits: dict[str, list[Rate]]) -> tuple[Throttle, FakeClock, MemoryStore]:
    clock, store = FakeClock(), MemoryStore()
    return Throttle(limits, clock=clock, store=store), clock, store


def stored(store: MemoryStore) -> dict[str, dict[object, object]]:
    """Every bucket in a store."""
    return {
        name: {**table.old, **table.young, **{("shared", slot): state for slot, state in table.overflow.items()}}
        for name, table in store._tables.items()
    }


def standing(state: LevelState) -> tuple[int, float | None, bool]:
    """How a level stands, as far as anybody can tell."""
    return state.remaining, state.retry_after, state.violated


@FEW
@given(rate=small_rates, trace=TRACES)
def test_between_two_instants_no_more_is_admitted_than_the_burst_and_what_flowed_back(rate, trace):
    throttle, clock, _ = throttles({"client": [rate]})
    admitted: list[tuple[int, int]] = []
    for us, _, cost in trace:
        clock.advance(us / 1_000_000)
        if throttle.acquire({"client": "a"}, cost).allowed:
            admitted.append((clock.now_us(), cost))
    speed = Fraction(rate.count, rate.period_us)
    sums = [0, *accumulate(cost for _, cost in admitted)]
    for first, (start, _) in enumerate(admitted):
        for last, (end, _) in enumerate(admitted[first:], start=first):
            assert sums[last + 1] - sums[first] <= rate.size + (end - start) * speed


@FEW
@given(limits=st.lists(small_rates, min_size=1, max_size=3), trace=TRACES)
def test_a_request_is_admitted_if_and_only_if_every_level_has_enough(limits, trace):
    throttle, clock, _ = throttles({"client": limits})
    model = Model()
    model.change({"client": limits}, clock.now_us())
    for us, key, cost in trace:
        clock.advance(us / 1_000_000)
        keys = {"client": key}
        assert throttle.acquire(keys, cost).allowed is model.hit(keys, cost, clock.now_us()).allowed


@FEW
@given(limits=st.lists(small_rates, min_size=1, max_size=3), trace=TRACES, cost=st.integers(1, 20))
def test_a_refusal_leaves_what_is_stored_as_it_was(limits, trace, cost):
    throttle, clock, store = throttles({"global": limits[:1], "client": limits})
    for us, key, own_cost in trace:
        clock.advance(us / 1_000_000)
        throttle.acquire({"client": key}, own_cost)
    before = stored(store)
    assume(not throttle.acquire({"client": "a"}, cost).allowed)
    assert stored(store) == before


@FEW
@given(limits=st.lists(small_rates, min_size=2, max_size=3), trace=TRACES)
def test_the_order_of_levels_changes_nothing(limits, trace):
    levels = {f"level-{number}": rate for number, rate in enumerate(limits)}
    for order in permutations(levels):
        forth, clock, _ = throttles({level: [levels[level]] for level in levels})
        back = Throttle({level: levels[level] for level in order}, clock=clock)
        for us, key, cost in trace:
            clock.advance(us / 1_000_000)
            keys = dict.fromkeys(levels, key)
            one, other = forth.acquire(keys, cost), back.acquire(keys, cost)
            assert one.allowed == other.allowed
            assert one.wait_us == other.wait_us
            assert {name: standing(state) for name, state in one.levels.items()} == {
                name: standing(state) for name, state in other.levels.items()
            }
            assert set(one.violated) == set(other.violated)


@FEW
@given(limits=st.lists(small_rates, min_size=1, max_size=3), trace=TRACES, cost=st.integers(1, 5))
def test_asked_a_microsecond_before_the_wait_is_over_it_refuses_and_then_it_admits(limits, trace, cost):
    throttle, clock, _ = throttles({"client": limits})
    for us, _, own_cost in trace:
        clock.advance(us / 1_000_000)
        throttle.acquire({"client": "a"}, own_cost)
    decision = throttle.acquire({"client": "a"}, cost)
    assume(not decision.allowed)
    if decision.retry_after is None:
        assert cost > min(rate.size for rate in limits)
        return
    clock.advance(decision.retry_after - 0.000001)
    assert not throttle.acquire({"client": "a"}, cost).allowed
    clock.advance(0.000001)
    assert throttle.acquire({"client": "a"}, cost).allowed


@FEW
@given(rate=rates, taken=st.integers(1, 1_000), cost=st.integers(1, 1_000))
def test_the_same_for_rates_of_every_size(rate, taken, cost):
    throttle, clock, _ = throttles({"client": [rate]})
    throttle.acquire({"client": "a"}, min(taken, rate.size))
    decision = throttle.acquire({"client": "a"}, min(cost, rate.size))
    assume(not decision.allowed)
    clock.advance(decision.retry_after - 0.000001)
    assert not throttle.acquire({"client": "a"}, min(cost, rate.size)).allowed
    clock.advance(0.000001)
    assert throttle.acquire({"client": "a"}, min(cost, rate.size)).allowed


@FEW
@given(rate=small_rates, trace=TRACES, cost=st.integers(1, 5))
def test_whoever_waits_for_what_they_were_told_is_admitted(rate, trace, cost):
    """`acquire(wait=decision.retry_after)` after a refusal, whatever the float of it."""
    throttle, clock, _ = throttles({"client": [rate]})
    for us, _, own_cost in trace:
        clock.advance(us / 1_000_000)
        throttle.acquire({"client": "a"}, own_cost)
    refused = throttle.peek({"client": "a"}, cost)
    assume(not refused.allowed and refused.retry_after is not None)
    start = clock.now_us()
    assert throttle.acquire({"client": "a"}, cost, wait=refused.retry_after).allowed
    assert clock.now_us() - start == refused.wait_us


@given(wait_us=st.integers(1, 10**15))
def test_retry_after_is_never_early_and_less_than_a_second_late(wait_us):
    name, value = retry_after_field(seconds_up(wait_us)).text
    assert name == "Retry-After"
    assert wait_us <= int(value) * 1_000_000 < wait_us + 1_000_000


@pytest.mark.parametrize("seconds", [365 * 86_400, 100 * 365 * 86_400])
@FEW
@given(rate=rates)
def test_a_bucket_that_was_idle_for_ages_holds_its_burst(rate, seconds):
    throttle, clock, _ = throttles({"client": [rate]})
    assert throttle.acquire({"client": "a"}, rate.size).allowed
    clock.advance(rate.window + seconds)
    assert throttle.acquire({"client": "a"}, rate.size).allowed
    assert not throttle.acquire({"client": "a"}, rate.size).allowed
