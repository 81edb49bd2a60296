"""Random programs against a `Throttle`, step by step against an independent model of it.

Three machines: one compares everything while the clock is also set back and forth; one compares everything while
buckets that nobody needs are swept away; one has a store far too small, where only the safe side can be promised.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from apigate import Decision, Throttle, Throttled
from apigate.stores import memory
from apigate.stores.memory import MemoryStore
from apigate.testing import FakeClock
from tests.properties.model import Model, Outcome
from tests.strategies import UNHURRIED, levels, small_rates, waits_us

T = TypeVar("T")

KEYS = st.fixed_dictionaries({level: st.sampled_from("ab") for level in ("stage", "method", "client")})
COSTS = st.integers(0, 6)
MODES = st.dictionaries(st.sampled_from(["stage", "client"]), st.just("shadow"))
ALL_LEVELS = ("global", "stage", "method", "client")


def finished(task: Coroutine[Any, Any, T]) -> T:
    """The result of a task that never has to wait for anything."""
    try:
        task.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def assert_same(decision: Decision, outcome: Outcome) -> None:
    """What a user notices of a decision is what the model says."""
    assert decision.allowed is outcome.allowed
    assert decision.wait_us == outcome.wait_us
    assert decision.violated == outcome.violated
    assert tuple(dict.fromkeys(limit.level for limit in decision.shadowed)) == outcome.shadowed
    assert [state.remaining for state in decision.buckets] == outcome.remaining


class ThrottleMachine(RuleBasedStateMachine):
    """What all machines have in common: a throttle, its model, and a clock that goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.store = self.make_store()

    def make_store(self) -> MemoryStore:
        return MemoryStore()

    @initialize(rates=levels, modes=MODES)
    def build(self, rates, modes):
        self.levels = rates
        modes = {level: mode for level, mode in modes.items() if level in rates}
        self.throttle = Throttle(rates, clock=self.clock, store=self.store, modes=modes)
        self.model = Model(modes)
        self.model.change(rates, self.now)

    @property
    def now(self) -> int:
        return self.clock.now_us()

    def asked(self, keys: dict[str, str]) -> dict[str, str]:
        return {level: key for level, key in keys.items() if level in self.levels}

    def acquire(self, keys: dict[str, str], cost: int, wait: float = 0.0, *, in_task: bool = False) -> Decision:
        if in_task:
            return finished(self.throttle.acquire_async(keys, cost, wait=wait))
        return self.throttle.acquire(keys, cost, wait=wait)

    @rule(us=waits_us)
    def time_passes(self, us):
        self.clock.advance(us / 1_000_000)

    @rule(changed=st.dictionaries(st.sampled_from(ALL_LEVELS), st.lists(small_rates, min_size=1, max_size=2)))
    def change_limits(self, changed):
        changed = {level: rates for level, rates in changed.items() if level in self.levels}
        self.levels = {**self.levels, **changed}
        self.throttle.update(changed)
        self.model.change(self.levels, self.now)


class ExactMachine(ThrottleMachine):
    """Decisions, waits and what is left are the model's, to the microsecond and the token."""

    reservations = Bundle("reservations")

    @rule(keys=KEYS, cost=COSTS, in_task=st.booleans())
    def hit(self, keys, cost, in_task):
        keys = self.asked(keys)
        outcome = self.model.hit(keys, cost, self.now)
        assert_same(self.acquire(keys, cost, in_task=in_task), outcome)

    @rule(keys=KEYS, cost=COSTS, patience_us=waits_us, in_task=st.booleans())
    def wait_for_ones_turn(self, keys, cost, patience_us, in_task):
        keys, start = self.asked(keys), self.now
        outcome = self.model.hit(keys, cost, start, patience_us)
        assert_same(self.acquire(keys, cost, patience_us / 1_000_000, in_task=in_task), outcome)
        assert self.now - start == (outcome.wait_us if outcome.allowed and patience_us else 0)

    @rule(keys=KEYS, cost=COSTS)
    def peek(self, keys, cost):
        keys = self.asked(keys)
        assert_same(self.throttle.peek(keys, cost), self.model.hit(keys, cost, self.now, keep=False))

    @rule(target=reservations, keys=KEYS, cost=COSTS)
    def reserve(self, keys, cost):
        keys = self.asked(keys)
        outcome = self.model.hit(keys, cost, self.now)
        if outcome.allowed:
            return self.throttle.reserve(keys, cost), keys, cost, outcome.charged
        with pytest.raises(Throttled) as refused:
            self.throttle.reserve(keys, cost)
        assert_same(refused.value.decision, outcome)
        return None

    @rule(reservation=consumes(reservations), final=COSTS | st.just(50), in_task=st.booleans())
    def settle(self, reservation, final, in_task):
        if reservation is None:
            return
        held, keys, cost, charged = reservation
        self.model.settle(keys, final - cost, self.now, charged)
        if in_task:
            finished(held.commit_async(final))
        else:
            held.commit(final)

    @rule(keys=KEYS, seen=st.sets(st.sampled_from(ALL_LEVELS)))
    def reset(self, keys, seen):
        keys = {level: keys.get(level, "") for level in self.levels if level in seen}
        self.throttle.reset(keys)
        self.model.reset(keys)


class ClockMachine(ExactMachine):
    """The clock is set back and forth, by less and by more than clocks may differ."""

    @rule(us=st.integers(-3_000_000, 3_000_000) | st.sampled_from([-(10**6), -(10**6) - 1, 10**6, -(10**10), 10**10]))
    def clock_is_set(self, us):
        self.clock.step(us / 1_000_000)


class SweepingMachine(ExactMachine):
    """Strangers come and go, so that buckets are swept; a bucket is dropped only if nobody can tell.

    A request may be a stranger's at one level and of somebody known at another: sweeping for the one must not lose
    what the other is charged at that moment.
    """

    strangers = 0

    def __init__(self) -> None:
        super().__init__()
        self.small, memory._SMALL = memory._SMALL, 2  # so that a handful of strangers makes generations change places

    def teardown(self) -> None:
        memory._SMALL = self.small

    @rule(
        many=st.sampled_from([1, 3, 20]),
        known=st.lists(st.sampled_from(ALL_LEVELS[1:]), max_size=2),
        key=st.sampled_from("ab"),
        cost=st.integers(0, 1),
    )
    def strangers_come(self, many, known, key, cost):
        for _ in range(many):
            self.strangers += 1
            stranger = f"stranger {self.strangers}"
            keys = self.asked({level: key if level in known else stranger for level in ALL_LEVELS[1:]})
            outcome = self.model.hit(keys, cost, self.now)
            assert_same(self.throttle.acquire(keys, cost), outcome)


class CrowdedMachine(ThrottleMachine):
    """A store with two places: strangers share buckets, so some are refused early; nobody is ever let in early.

    The model takes only what was in fact admitted, and must have had it.
    """

    crowd = 0

    def make_store(self):
        return MemoryStore(max_keys=2)

    @initialize(rates=levels)
    def build(self, rates):
        super().build(rates, {})

    def asked(self, keys):
        return {level: key + key * self.crowd for level, key in super().asked(keys).items()}

    @rule(crowd=st.integers(0, 5))
    def others_come(self, crowd):
        self.crowd = crowd

    @rule(keys=KEYS, cost=COSTS, patience_us=waits_us | st.just(0), in_task=st.booleans())
    def hit(self, keys, cost, patience_us, in_task):
        keys, start = self.asked(keys), self.now
        if self.acquire(keys, cost, patience_us / 1_000_000, in_task=in_task).allowed:
            assert self.model.hit(keys, cost, start, patience_us).allowed

    @rule(keys=KEYS, cost=COSTS, final=COSTS | st.just(50))
    def reserve_and_settle(self, keys, cost, final):
        keys = self.asked(keys)
        if self.throttle.peek(keys, cost).allowed:
            self.throttle.reserve(keys, cost).commit(final)
            outcome = self.model.hit(keys, cost, self.now)
            assert outcome.allowed
            self.model.settle(keys, final - cost, self.now, outcome.charged)

    @rule(keys=KEYS, cost=COSTS)
    def come_back_when_told(self, keys, cost):
        keys = self.asked(keys)
        decision = self.acquire(keys, cost)
        if not decision.allowed and decision.retry_after is not None:
            self.clock.advance(decision.retry_after)
            decision = self.acquire(keys, cost)
            assert decision.allowed
        if decision.allowed:
            assert self.model.hit(keys, cost, self.now).allowed

    @invariant()
    def holds_no_more_than_it_may(self):
        assert len(self.store) <= self.store.max_keys + 2  # the buckets of the global level are nobody's keys


TestClockSteps = ClockMachine.TestCase
TestClockSteps.settings = settings(UNHURRIED, max_examples=150, stateful_step_count=40)
TestSweeping = SweepingMachine.TestCase
TestSweeping.settings = settings(UNHURRIED, max_examples=150, stateful_step_count=40)
TestCrowded = CrowdedMachine.TestCase
TestCrowded.settings = settings(UNHURRIED, max_examples=100, stateful_step_count=40)
