"""However a store comes and goes, several processes together admit no more than docs/explanation/outages.md says.

One process is a guarded store of its own around one inner store. A trace is any order of requests to any process, of
time, and of the store failing, working and losing its memory. After it, every stretch of it is held to the bound.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from apigate import Rate, Throttle, Window
from apigate.stores.outage import GuardedStore
from apigate.testing import FakeClock
from apigate.throttling.window import KINDS
from tests.outages import WindowsToo, attempts_end
from tests.strategies import UNHURRIED, small_rates

BRIEF = settings(UNHURRIED, max_examples=150)

times = st.sampled_from([0.05, 0.1, 0.3, 1.0, 6.0])
requests = st.one_of(st.tuples(st.just("ask"), st.integers(0, 3), st.integers(1, 2)), st.just(("drain",)))
waits = st.tuples(st.just("pass"), times)
outages = st.lists(requests | waits, max_size=4).map(
    lambda within: [("fail",), *within, ("work",), ("pass", 6.0), *[("ask", worker, 1) for worker in range(4)]]
)

quiet = st.lists(requests | waits, max_size=20)
"""Requests and time."""

steps = st.lists(
    st.one_of(outages, st.lists(requests | waits | st.sampled_from([("fail",), ("work",)]), max_size=5))
).map(lambda parts: [step for part in parts for step in part])
"""Those, and a store that comes and goes."""


@dataclass
class Moment:
    """Something admitted, in whole tokens, or the instant at which something else happened."""

    at: int
    tokens: int
    is_down: bool


@dataclass
class World:
    """Some processes, their one store, and what they admitted."""

    rate: Rate | Window
    workers: int
    clock: FakeClock = field(default_factory=FakeClock)
    inner: WindowsToo = field(default_factory=WindowsToo)
    journal: list[Moment] = field(default_factory=list)
    losses: int = 0

    def __post_init__(self) -> None:
        self.throttles = [
            Throttle(
                {"client": self.rate},
                store=GuardedStore(self.inner, name="shop", clock=self.clock, workers=self.workers),
                clock=self.clock,
                name="shop",
            )
            for _ in range(self.workers)
        ]

    def run(self, trace: list[tuple[Any, ...]]) -> None:
        for step in trace:
            match step:
                case ("ask", worker, cost):
                    self.ask(worker, cost)
                case ("drain",):
                    for worker in range(self.workers):
                        while self.ask(worker, 1):
                            pass
                case ("pass", seconds):
                    self.clock.advance(seconds)
                case ("fail",):
                    self.inner.fail()
                    self.note(0)
                case ("work",):
                    self.inner.work()
                    self.note(0)
                case ("forget",):
                    self.inner.forget()
                    self.losses += 1

    def ask(self, worker: int, cost: int) -> bool:
        allowed = self.throttles[worker % self.workers].acquire({"client": "alice"}, cost).allowed
        attempts_end()
        self.note(cost if allowed else 0)
        return allowed

    def note(self, tokens: int) -> None:
        self.journal.append(Moment(self.clock.now_us(), tokens, self.inner.error is not None))

    def stretches(self):
        """Tokens admitted between any two moments, the microseconds between them, and whether it was down throughout.

        A request before the store failed may lie at the first moment, so this is down only if it is from there on.
        """
        for first, last in combinations_with_replacement(range(len(self.journal)), 2):
            part = self.journal[first : last + 1]
            yield (
                sum(moment.tokens for moment in part),
                part[-1].at - part[0].at,
                all(moment.is_down for moment in part),
            )

    @property
    def speed(self) -> Fraction:
        """Tokens a microsecond."""
        return Fraction(self.rate.count, self.rate.period_us)

    @property
    def shares(self) -> int:
        """What the bursts of all shares come to."""
        return self.workers * max(1, self.rate.size // self.workers)


@BRIEF
@given(small_rates, st.integers(1, 4), quiet)
def test_while_the_store_is_down_all_processes_together_admit_their_shares(rate, workers, trace):
    world = World(rate, workers)
    world.run([("fail",), *trace])
    for tokens, time, is_down in world.stretches():
        assert is_down
        assert tokens <= world.shares + world.speed * time


@BRIEF
@given(small_rates, st.integers(1, 4), steps)
def test_however_the_store_comes_and_goes_there_is_a_bound_on_all_of_it(rate, workers, trace):
    world = World(rate, workers)
    world.run(trace)
    for tokens, time, is_down in world.stretches():
        least = world.shares if is_down else rate.size + world.shares
        assert tokens <= least + (1 if is_down else 2) * world.speed * time


@BRIEF
@given(small_rates, st.integers(1, 4), steps, st.data())
def test_each_loss_of_its_memory_adds_one_burst(rate, workers, trace, data):
    world = World(rate, workers)
    places = data.draw(st.lists(st.integers(0, len(trace)), max_size=3))
    for place in sorted(places, reverse=True):
        trace.insert(place, ("forget",))
    world.run(trace)
    for tokens, time, _ in world.stretches():
        assert tokens <= (1 + world.losses) * rate.size + world.shares + 2 * world.speed * time


@BRIEF
@given(st.integers(1, 4), st.integers(1, 12), steps)
def test_a_store_that_kept_its_memory_is_owed_all_that_was_admitted(workers, burst, trace):
    """So after an outage clients have no more than if there had been none; up to the debt that a bucket can have."""
    rate = Rate(1, per=30_000_000, burst=burst)
    world = World(rate, workers)
    world.run([*trace, ("work",), ("pass", 6.0)])
    for worker in range(workers):
        world.throttles[worker].acquire({"client": "alice"}, 0)
        attempts_end()
    assert not any(throttle.store.breaker.is_open for throttle in world.throttles)
    admitted = sum(moment.tokens for moment in world.journal)
    ((owed, p),) = [
        (owed, limit.p) for limit, _, owed in world.inner.memory.owed(world.clock.now_us()) if limit.level == "client"
    ] or [(0, 1)]
    assert -(-owed // p) == min(admitted, 2 * burst)


# ---- windows

PERIOD = 10
windows = st.builds(
    lambda count, kind: Window(f"{count}/{PERIOD} seconds", kind=kind), st.integers(1, 12), st.sampled_from(KINDS)
)


def periods(window: Window, time: int) -> int:
    """In how many windows a stretch of time may lie: those of `moving` lie anywhere, the others where they began."""
    return time // window.period_us + (1 if window.kind == "moving" else 2)


@BRIEF
@given(windows, st.integers(1, 4), quiet)
def test_while_the_store_is_down_all_processes_together_admit_their_shares_of_a_window(window, workers, trace):
    world = World(window, workers)
    world.run([("fail",), *trace])
    for tokens, time, _ in world.stretches():
        assert tokens <= world.shares * periods(window, time)


@BRIEF
@given(windows, st.integers(1, 4), steps)
def test_however_the_store_comes_and_goes_there_is_a_bound_on_what_windows_admit(window, workers, trace):
    world = World(window, workers)
    world.run(trace)
    for tokens, time, is_down in world.stretches():
        each = world.shares if is_down else window.count + world.shares
        assert tokens <= each * periods(window, time)


@BRIEF
@given(st.sampled_from(KINDS), st.integers(1, 4), st.integers(1, 12), steps)
def test_a_store_that_kept_its_memory_has_counted_all_that_was_admitted(kind, workers, count, trace):
    window = Window(f"{count}/day", kind=kind)
    world = World(window, workers)
    world.run([*trace, ("work",), ("pass", 6.0)])
    for worker in range(workers):
        world.throttles[worker].acquire({"client": "alice"}, 0)
        attempts_end()
    admitted = sum(moment.tokens for moment in world.journal)
    (limit,) = world.throttles[0]._opened.limits
    used = world.inner.memory.windows().peek(limit, "alice", 0, world.clock.now_us()).used
    assert used == min(admitted, 2 * count)
