"""One decision over buckets and a window of a server: what is taken, given back, and said to have been asked."""

import asyncio

import pytest

from apigate import ConfigurationError, Rate, StoreError, Throttle, Throttled, Window
from apigate.stores.memory import MemoryStore
from apigate.testing import FakeClock
from apigate.throttling.limit import Limit
from apigate.throttling.windowed import open_buckets

KEYS = {"client": "a"}


class FarWindows:
    """Windows in memory that answer as those of a server do: in a round trip, each a step of its own."""

    def __init__(self, inner, asked, answer):
        self.inner, self.asked, self.answer = inner, asked, answer

    def check(self, window):
        pass

    def acquire(self, *arguments):
        return self._told("acquire", arguments)

    def peek(self, *arguments):
        return self._told("peek", arguments)

    def adjust(self, *arguments):
        self.asked.append("adjust")
        self.inner.adjust(*arguments)

    def _told(self, operation, arguments):
        self.asked.append(operation)
        return self.answer(lambda: getattr(self.inner, operation)(*arguments)._replace(round_trips=1))


def at_once(answer):
    return answer()


async def later(answer):
    await asyncio.sleep(0)
    return answer()


def fails(answer):
    raise StoreError("acquire", "it is gone")


async def fails_later(answer):
    await asyncio.sleep(0)
    raise StoreError("acquire", "it is gone")


async def never(answer):
    await asyncio.Event().wait()


class FarStore(MemoryStore):
    """Buckets here, windows there."""

    def __init__(self, answer=at_once):
        super().__init__()
        self.asked = []
        self.answer = answer

    def windows(self):
        return FarWindows(super().windows(), self.asked, self.answer)


def throttle(store, **levels):
    levels = levels or {"global": "10/hour", "client": Window("2/hour", kind="fixed"), "device": "5/hour"}
    return Throttle(levels, store=store, clock=FakeClock(), name="shop")


BOTH = {**KEYS, "device": "d"}


def left(asked):
    return {level: state.remaining for level, state in asked.peek(BOTH, 0).levels.items()}


def test_the_window_is_asked_after_the_buckets_and_is_one_more_round_trip():
    store = FarStore()
    decision = throttle(store).acquire(BOTH)
    assert decision.allowed
    assert [(state.level, state.remaining) for state in decision.buckets] == [
        ("global", 9),
        ("client", 1),
        ("device", 4),
    ]
    assert (store.asked, decision.round_trips) == (["acquire"], 1)


def test_what_the_window_refuses_is_given_back_to_the_buckets():
    asked = throttle(FarStore())
    for _ in range(2):
        assert asked.acquire(BOTH).allowed
    refused = asked.acquire(BOTH)
    assert (refused.allowed, refused.violated, refused.retry_after) == (False, ("client",), 3_600.0)
    assert [state.remaining for state in refused.buckets] == [8, 0, 3]
    assert left(asked) == {"global": 8, "client": 0, "device": 3}


def test_where_a_bucket_refuses_the_window_is_looked_at_and_the_longest_wait_is_told():
    store = FarStore()
    asked = throttle(store, **{"global": Rate(2, per=60), "client": Window("2/hour", kind="fixed")})
    for _ in range(2):
        asked.acquire(KEYS)
    store.asked.clear()
    refused = asked.acquire(KEYS)
    assert refused.violated == ("global", "client")
    assert refused.retry_after == 3_600.0
    assert store.asked == ["acquire"]  # which counts no refusal
    assert refused.round_trips == 1


def test_where_a_bucket_refuses_the_window_gets_back_what_it_counted():
    store = FarStore()
    asked = throttle(store, **{"global": Rate(1, per=60), "client": Window("5/hour", kind="moving")})
    asked.acquire(KEYS)
    store.asked.clear()
    refused = asked.acquire(KEYS)
    assert (refused.violated, store.asked, refused.round_trips) == (("global",), ["acquire", "adjust"], 2)
    assert asked.peek(KEYS, 0).levels["client"].remaining == 4
    stranger = asked.acquire({"client": "b"})
    assert [state.remaining for state in stranger.buckets] == [0, 5]
    assert stranger.window_notes[1] == {1: 0}  # there is nothing that could leave it


class Noting(FarStore):
    """One that notes what its buckets are asked, too."""

    def open(self, limits, now):
        return NotingBuckets(super().open(limits, now), self.asked)


class NotingBuckets:
    def __init__(self, inner, asked):
        self.inner, self.asked = inner, asked

    def __getattr__(self, operation):
        self.asked.append(f"tokens {operation}")
        return getattr(self.inner, operation)


def test_a_client_whose_window_is_full_borrows_nothing_that_others_could_miss():
    store = Noting()
    asked = throttle(store)
    for _ in range(2):
        assert asked.acquire(BOTH).allowed
    store.asked.clear()
    assert asked.acquire(BOTH).violated == ("client",)
    assert store.asked == ["acquire", "tokens peek"]


def test_a_window_that_clients_share_is_asked_last_so_that_none_who_is_refused_alone_fills_it():
    store = Noting()
    asked = throttle(store, **{"client": "1/hour", "global": Window("5/hour", kind="fixed")})
    assert asked.acquire(KEYS).allowed
    assert store.asked == ["tokens acquire", "acquire"]
    store.asked.clear()
    assert asked.acquire(KEYS).violated == ("client",)
    assert store.asked == ["tokens acquire", "peek"]


@pytest.mark.parametrize(
    ("levels", "remembers"),
    [
        ({"global": Rate(5), "client": Window("2/hour", kind="fixed")}, True),
        ({"global": Rate(5), "client": Window("2/hour", kind="fixed"), "client-method": Rate(5)}, True),
        ({"tenant": Rate(5), "user": Window("2/hour", kind="fixed")}, True),
        ({"global": Rate(5), "stage": Window("2/hour", kind="fixed"), "client": Rate(5)}, False),
        ({"global": Window("2/hour", kind="fixed"), "client": Rate(5)}, False),
        ({"client": Rate(5), "global": Window("2/hour", kind="fixed")}, False),
    ],
    ids=str,
)
def test_refusals_of_buckets_that_get_tokens_back_from_a_window_may_not_be_remembered(levels, remembers):
    opened = []

    class Noting(FarStore):
        def open(self, limits, now):
            opened.extend(limits)
            return super().open(limits, now)

    limits = [Limit(f"shop:{level}", level, level, rate, steady=True) for level, rate in levels.items()]
    open_buckets(Noting(), limits, 0)
    assert [limit.steady for limit in opened] == [remembers] * len(opened)


def test_tasks_await_the_window_and_threads_are_told_that_they_cannot():
    asked = throttle(FarStore(later))

    async def tasks():
        decisions = [await asked.acquire_async(BOTH) for _ in range(3)]
        return [decision.allowed for decision in decisions], await asked.peek_async(BOTH, 0)

    admitted, standing = asyncio.run(tasks())
    assert admitted == [True, True, False]
    assert [state.remaining for state in standing.buckets] == [8, 0, 3]


@pytest.mark.parametrize("answer", [fails, fails_later])
def test_where_the_window_cannot_be_reached_nothing_is_taken(answer):
    asked = throttle(FarStore(answer))

    async def task():
        await asked.acquire_async(BOTH)

    with pytest.raises(StoreError, match="it is gone"):
        asyncio.run(task())
    asked = Throttle({"global": "10/hour"}, store=asked.store, clock=asked.clock, name="shop")
    assert asked.peek(cost=0).remaining == 10


def test_a_task_that_is_given_up_while_it_waits_has_taken_nothing():
    store = FarStore(never)
    asked = throttle(store)

    async def task():
        asking = asyncio.create_task(asked.acquire_async(BOTH))
        await asyncio.sleep(0)
        assert store.asked == ["acquire"]
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    asyncio.run(task())
    assert Throttle({"global": "10/hour"}, store=store, clock=asked.clock, name="shop").peek(cost=0).remaining == 10


def test_a_task_that_is_given_up_while_the_buckets_are_asked_gives_back_what_its_window_counted():
    class Waiting(FarStore):
        def open(self, limits, now):
            return WaitingBuckets(self, super().open(limits, now))

    class WaitingBuckets:
        def __init__(self, store, inner):
            self.store, self.inner = store, inner
            self.peek = inner.peek

        def acquire(self, *arguments):
            self.store.asked.append("tokens acquire")
            return never(None)

    store = Waiting()
    asked = throttle(store)

    async def task():
        asking = asyncio.create_task(asked.acquire_async(BOTH))
        await asyncio.sleep(0)
        assert store.asked == ["acquire", "tokens acquire"]
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert asking.cancelled()

    asyncio.run(task())
    assert store.asked[2:] == ["adjust"]
    assert left(asked) == {"global": 10, "client": 2, "device": 5}


def test_a_store_that_holds_no_windows_is_told_so_when_it_is_opened():
    class Plain:
        def open(self, limits, now):
            raise AssertionError("a bucket is not what was asked for")

        def __repr__(self):
            return "<Plain>"

    with pytest.raises(ConfigurationError, match="<Plain> holds no windows, and the client limit is 2/hour in a fixed"):
        throttle(Plain())


@pytest.mark.parametrize(
    "levels",
    [
        {"global": Window("5/hour", kind="fixed"), "client": Window("2/hour", kind="moving")},
        {"global": "5/hour", "client": [Window("2/hour", kind="fixed"), Window("1/minute", kind="fixed")]},
    ],
)
def test_two_windows_are_refused_by_the_names_of_their_levels(levels):
    first, second = ("global", "client") if "kind='moving'" in repr(levels) else ("client", "client-2")
    with pytest.raises(ConfigurationError, match=rf"two windows, at the levels {first} \(.*\) and {second} \("):
        Throttle(levels)


def test_a_window_that_is_off_is_none():
    levels = {"global": Window("5/hour", kind="fixed"), "client": Window("2/hour", kind="moving")}
    assert Throttle(levels, modes={"global": "off"}).acquire(KEYS).allowed


def test_a_window_in_shadow_mode_refuses_nothing_and_counts_what_it_would_admit():
    levels = {"global": "10/hour", "client": Window("2/hour", kind="fixed")}
    for store in (MemoryStore(), FarStore()):
        asked = Throttle(levels, modes={"client": "shadow"}, store=store, clock=FakeClock(), name="shop")
        decisions = [asked.acquire(KEYS) for _ in range(4)]
        assert [decision.allowed for decision in decisions] == [True] * 4
        assert [len(decision.shadowed) for decision in decisions] == [0, 0, 1, 1]
        assert asked.peek(KEYS, 0).levels["global"].remaining == 6
        assert asked.peek(KEYS, 0).levels["client"].remaining == 0


def test_a_reservation_gives_back_what_the_window_counted():
    for store in (MemoryStore(), FarStore()):
        asked = throttle(store)
        with asked.reserve(BOTH, 2) as reservation:
            reservation.commit(1)
        assert left(asked) == {"global": 9, "client": 1, "device": 4}
        asked.reserve(BOTH).refund()
        assert left(asked) == {"global": 9, "client": 1, "device": 4}
        asked.reserve(BOTH).commit(3)
        assert left(asked) == {"global": 6, "client": 0, "device": 1}
        with pytest.raises(Throttled):
            asked.reserve(BOTH)


def test_a_reservation_of_a_window_that_has_ended_gives_nothing_back():
    asked = throttle(MemoryStore())
    reservation = asked.reserve(BOTH)
    asked.clock.advance(3_601)
    asked.acquire(BOTH)
    reservation.refund()
    assert asked.peek(BOTH, 0).levels["client"].remaining == 1


def test_whoever_waits_asks_again_when_the_wait_is_over():
    asked = throttle(MemoryStore(), client=Window("2/minute", kind="moving"))
    start = asked.clock.now_us()
    decisions = [asked.acquire(KEYS, wait=200) for _ in range(6)]
    assert all(decisions)
    assert asked.clock.now_us() - start == 120_000_000
    assert not asked.acquire(KEYS, wait=59.999999)
    assert asked.acquire(KEYS, 3, wait=200).retry_after is None
    assert asked.clock.now_us() - start == 120_000_000

    async def task():
        return (await asked.acquire_async(KEYS, wait=60)).allowed

    assert asyncio.run(task())
    assert asked.clock.now_us() - start == 180_000_000


def test_a_changed_window_goes_on_with_what_it_has_counted():
    asked = throttle(MemoryStore())
    asked.acquire(BOTH, 2)
    asked.update({"client": Window("5/hour", kind="fixed")})
    assert asked.peek(BOTH, 0).levels["client"].remaining == 3
    asked.update({"client": Window("5/day", kind="fixed")})
    assert asked.peek(BOTH, 0).levels["client"].remaining == 3
    asked.update({"client": Window("5/day", kind="moving")})
    assert asked.peek(BOTH, 0).levels["client"].remaining == 5
    asked.update({"client": "5/day"})
    assert asked.peek(BOTH, 0).levels["client"].remaining == 5


def test_a_changed_rate_beside_a_window_is_seen_by_who_opened_it_before():
    store = MemoryStore()
    before = throttle(store, **{"global": "10/hour", "client": Window("9/hour", kind="fixed")})
    before.acquire(KEYS, 4)
    Throttle({"global": Rate(10, burst=5)}, store=store, clock=before.clock, name="shop")
    assert before.peek(KEYS, 0).levels["global"].remaining == 1
    assert before.acquire(KEYS, 2).violated == ("global",)


def test_reset_forgets_bucket_and_window_of_a_key():
    asked = throttle(MemoryStore())
    for _ in range(2):
        asked.acquire(BOTH)
    asked.reset({"client": "a"})
    assert left(asked) == {"global": 8, "client": 2, "device": 3}
    asked.acquire(BOTH)
    asked.reset()
    assert left(asked) == {"global": 10, "client": 2, "device": 5}
