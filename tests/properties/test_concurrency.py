"""Threads and tasks on overlapping levels, with the interpreter switching between threads as often as it can.

The clock stands still unless a test says otherwise, so every count has to come out exactly.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count, product
from random import Random

import pytest

from apigate import Rate, Throttle, Throttled
from apigate.stores.memory import MemoryBuckets, MemoryStore
from apigate.testing import FakeClock
from tests.properties.linearizability import Operation, has_legal_order
from tests.properties.model import Model

pytestmark = pytest.mark.usefixtures("restless_interpreter")

THREADS = 8
HOUR = 3_600.0


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool


def together(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], object]]) -> list[object]:
    """The results of as many jobs as there are threads, all begun at once."""
    barrier = threading.Barrier(THREADS)

    def run(job: Callable[[], object]) -> object:
        barrier.wait()
        return job()

    return list(pool.map(run, jobs))


def test_1500_rounds_on_one_key_admit_exactly_the_burst(pool):
    """The set-up in which a peer's store in memory was found wrong in 72 of 1,500 rounds."""

    def hits() -> int:
        return sum(throttle.acquire({"client": "a"}).allowed for _ in range(3))

    wrong = Counter()
    for _ in range(1_500):
        throttle = Throttle({"global": Rate(7, per=HOUR), "client": Rate(5, per=HOUR)}, clock=FakeClock())
        admitted = sum(together(pool, [hits] * THREADS))
        if admitted != 5:
            wrong[admitted] += 1
        assert throttle.peek({"client": "b"}, cost=0).levels["global"].remaining == 2
    assert not wrong


LEVELS = {"global": Rate(30, per=HOUR), "method": Rate(13, per=HOUR), "client": Rate(9, per=HOUR)}
ASKED = [{"method": method, "client": client} for method, client in product("xyz", "abc")]
Seen = tuple[int, int, bool]
"""What a thread asked for (the number of its keys, the cost), and whether it got it."""


def assert_conserved(throttle: Throttle, seen: list[Seen]) -> None:
    """Each bucket paid what was admitted, and who was refused lacks a token still."""
    paid: Counter[tuple[str, str]] = Counter()
    for keys, cost, allowed in seen:
        for level, key in {"global": "", **ASKED[keys]}.items():
            paid[level, key] += cost if allowed else 0
    for keys in ASKED:
        left = throttle.peek(keys, cost=0).levels
        for level, key in {"global": "", **keys}.items():
            assert left[level].remaining == LEVELS[level].size - paid[level, key]
    for keys, cost, allowed in seen:
        assert allowed or not throttle.peek(ASKED[keys], cost).allowed


def shuffled_costs(random: Random) -> list[tuple[int, int]]:
    return [(random.randrange(len(ASKED)), random.randint(1, 3)) for _ in range(8)]


def test_every_level_is_charged_what_was_admitted(pool):
    random = Random(1)

    def hits(trace: list[tuple[int, int]]) -> list[Seen]:
        return [(keys, cost, throttle.acquire(ASKED[keys], cost).allowed) for keys, cost in trace]

    for _ in range(200):
        throttle = Throttle(LEVELS, clock=FakeClock())
        traces = [shuffled_costs(random) for _ in range(THREADS)]
        found = together(pool, [lambda trace=trace: hits(trace) for trace in traces])
        assert_conserved(throttle, [seen for part in found for seen in part])


class Distant:
    """A store that lets other tasks run before and after each decision, as one over a network does."""

    def __init__(self):
        self.store = MemoryStore()

    def open(self, limits, now):
        return DistantBuckets(self.store.open(limits, now))


class DistantBuckets:
    def __init__(self, buckets: MemoryBuckets):
        self.buckets = buckets

    def __getattr__(self, name):
        async def distant(*args):
            await asyncio.sleep(0)
            answer = getattr(self.buckets, name)(*args)
            await asyncio.sleep(0)
            return answer

        return distant


@pytest.mark.parametrize("make_store", [MemoryStore, Distant])
def test_every_level_is_charged_what_was_admitted_to_tasks(make_store):
    random = Random(2)

    async def hit(throttle: Throttle, keys: int, cost: int) -> Seen:
        return keys, cost, (await throttle.acquire_async(ASKED[keys], cost)).allowed

    async def rounds() -> None:
        for _ in range(50):
            store = make_store()
            throttle = Throttle(LEVELS, clock=FakeClock(), store=store)
            trace = [asked for _ in range(THREADS) for asked in shuffled_costs(random)]
            seen = await asyncio.gather(*(hit(throttle, *asked) for asked in trace))
            local = Throttle(LEVELS, clock=FakeClock(), store=getattr(store, "store", store))
            assert_conserved(local, seen)

    asyncio.run(rounds())


def test_what_is_given_back_can_be_taken_again_and_nothing_is_lost(pool):
    """Half of all reservations are given back, the others cost 1: at the end each bucket owes these."""
    throttle = Throttle({"global": Rate(10_000, per=HOUR), "client": Rate(10_000, per=HOUR)}, clock=FakeClock())

    def reserve_and_settle() -> None:
        for number in range(200):
            reservation = throttle.reserve({"client": "a"}, cost=3)
            if number % 2:
                reservation.refund()
            else:
                reservation.commit(1)

    together(pool, [reserve_and_settle] * THREADS)
    left = throttle.peek({"client": "a"}, cost=0).levels
    assert [left[level].remaining for level in ("global", "client")] == [10_000 - THREADS * 100] * 2


def test_a_failed_attempt_is_never_free_however_many_come_at_once(pool):
    """Reserve, then give back on success: of 8 threads that all fail, the burst of 5 gets through."""
    for _ in range(100):
        throttle = Throttle({"client": Rate(5, per=HOUR)}, clock=FakeClock())

        def attempt(throttle: Throttle = throttle) -> bool:
            try:
                throttle.reserve({"client": "a"})
            except Throttled:
                return False
            return True

        assert sum(together(pool, [attempt] * THREADS)) == 5


def test_limits_change_while_threads_hit(pool):
    """Other speeds, one rate or two at a level: nobody sees half of a change, and what is owed stays owed."""
    burst = 50
    variants = [
        {"client": Rate(10, per=HOUR, burst=burst)},
        {"client": Rate(1, per=7_000, burst=burst)},
        {"client": [Rate(10, per=HOUR, burst=burst), Rate(1_000_000, per=86_400)]},
    ]
    for _ in range(20):
        throttle = Throttle(variants[0], clock=FakeClock())

        def hit(throttle: Throttle = throttle) -> int:
            return sum(throttle.acquire({"client": "a"}).allowed for _ in range(100))

        def change(throttle: Throttle = throttle) -> int:
            for number in range(60):
                throttle.update(variants[number % 3])
            return 0

        assert sum(together(pool, [change, *[hit] * (THREADS - 2), change])) == burst


def test_idle_buckets_are_swept_while_threads_hit(pool):
    """Strangers take nothing, so their buckets may go; those of whoever took something stay."""
    store = MemoryStore(max_keys=400)
    throttle = Throttle({"global": Rate(10**6), "client": Rate(20, per=HOUR)}, clock=FakeClock(), store=store)
    victims = [f"victim {number}" for number in range(50)]

    def hit(thread: int) -> Counter[str]:
        admitted: Counter[str] = Counter()
        for number in range(1_000):
            throttle.acquire({"client": f"stranger {thread} {number}"}, cost=0)
            victim = victims[(thread + number) % len(victims)]
            admitted[victim] += throttle.acquire({"client": victim}).allowed
        return admitted

    admitted = sum(together(pool, [lambda thread=thread: hit(thread) for thread in range(THREADS)]), Counter())
    assert admitted == dict.fromkeys(victims, 20)
    assert len(store) <= 400 + 1
    assert throttle.peek({"client": "stranger 0 0"}, cost=0).levels["global"].remaining == 10**6 - 50 * 20


# ---- linearizability


class TickingClock:
    """Goes on by some microseconds at each look, and remembers for each thread what it saw last."""

    def __init__(self, random: Random):
        self.ticks = iter([sum(random.choices([0, 1, 5, 30], k=2)) for _ in range(10_000)])
        self.time = 10**9
        self.lock = threading.Lock()
        self.last = threading.local()

    def now_us(self) -> int:
        with self.lock:
            self.time += next(self.ticks)
            self.last.seen = self.time
        return self.last.seen

    def wall(self) -> float:
        return 0.0


PER_US = 1e-6
FAST = [
    {"global": [Rate(1, per=20 * PER_US, burst=4)], "client": [Rate(1, per=30 * PER_US, burst=2)]},
    {"global": [Rate(2, per=33 * PER_US, burst=3)], "client": [Rate(1, per=30 * PER_US, burst=2)]},
]


def record(pool: ThreadPoolExecutor, seed: int, threads: int = THREADS, each: int = 3) -> tuple[Model, list[Operation]]:
    """What some threads did to a throttle at once, and the model as it was before."""
    random, order = Random(seed), count()
    clock = TickingClock(random)
    throttle = Throttle(FAST[0], clock=clock)
    model = Model()
    model.change(FAST[0], clock.last.seen)

    def one(kind: str, keys: dict[str, str], cost: int) -> Operation:
        begin = next(order)
        if kind == "change":
            throttle.update(FAST[1])
            end, now = next(order), clock.last.seen
            return Operation(begin, end, lambda model: model.change(FAST[1], now), None)
        decision = throttle.peek(keys, cost) if kind == "peek" else throttle.acquire(keys, cost)
        end, now = next(order), clock.last.seen
        seen = decision.allowed, decision.wait_us, [state.remaining for state in decision.buckets]

        def apply(model: Model) -> object:
            outcome = model.hit(keys, cost, now, keep=kind != "peek")
            return outcome.allowed, outcome.wait_us, outcome.remaining

        return Operation(begin, end, apply, seen)

    def job(kinds: list[tuple[str, dict[str, str], int]]) -> list[Operation]:
        return [one(*kind) for kind in kinds]

    kinds = [
        [
            (
                random.choice(["hit"] * 12 + ["peek", "change"]),
                {"client": random.choice("ab")},
                random.choice([1, 1, 2]),
            )
            for _ in range(each if thread < threads else 0)
        ]
        for thread in range(THREADS)
    ]
    found = together(pool, [lambda own=own: job(own) for own in kinds])
    return model, [operation for part in found for operation in part]


def test_what_threads_saw_could_have_happened_one_after_the_other(pool):
    overlapping = 0
    for seed in range(300):
        model, history = record(pool, seed)
        overlapping += sum(one.begin < other.begin < one.end for one, other in product(history, history))
        assert has_legal_order(model, history), f"seed {seed}"
    assert overlapping > 300  # else the threads ran one after the other, and nothing was shown


def sequential(*seen: tuple[int, int, bool]) -> tuple[Model, list[Operation]]:
    """Hits on one bucket of one token an hour: begin, end, whether it was admitted."""
    model = Model()
    model.change({"global": [Rate(1, per=HOUR)]}, 0)
    return model, [
        Operation(begin, end, lambda model: model.hit({}, 1, 0).allowed, allowed) for begin, end, allowed in seen
    ]


@pytest.mark.parametrize(
    ("legal", "history"),
    [
        (True, [(0, 1, True), (2, 3, False)]),
        (True, [(0, 3, False), (1, 2, True)]),
        (True, [(0, 3, True), (1, 2, False)]),
        (False, [(0, 3, True), (1, 2, True)]),
        (False, [(0, 1, False), (2, 3, True)]),
        (False, [(0, 3, False), (1, 2, False)]),
    ],
    ids=[
        "in turn",
        "the later first",
        "the earlier first",
        "both admitted",
        "refused before the first",
        "both refused",
    ],
)
def test_the_search_tells_possible_histories_from_impossible_ones(legal, history):
    model, operations = sequential(*history)
    assert has_legal_order(model, operations) is legal


def test_the_search_finds_out_a_get_and_then_a_set():
    """Two threads that both read before either writes, as in a store without a lock."""
    model, _ = sequential()
    stale = 1  # what both saw: the one token there was
    history = [
        Operation(0, 2, lambda model: model.hit({}, 1, 0).remaining, [stale - 1]),
        Operation(1, 3, lambda model: model.hit({}, 1, 0).remaining, [stale - 1]),
        Operation(4, 5, lambda model: model.hit({}, 0, 0).allowed, True),
    ]
    assert has_legal_order(model, history)  # a refusal leaves none either, so what is left tells nothing yet
    both = [
        Operation(0, 2, lambda model: model.hit({}, 1, 0).allowed, True),
        Operation(1, 3, lambda model: model.hit({}, 1, 0).allowed, True),
    ]
    assert not has_legal_order(model, both)
