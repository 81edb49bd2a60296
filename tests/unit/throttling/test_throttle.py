"""The throttle that needs no gateway."""

import asyncio
import threading

import pytest

from apigate import ConfigurationError, ProtocolError, Rate, Throttle, Throttled
from apigate.stores.memory import MemoryStore
from apigate.testing import FakeClock

ALICE = {"client": "alice"}
BOB = {"client": "bob"}


def throttle(levels, **settings):
    return Throttle(levels, clock=FakeClock(), **settings)


def left(limits, keys=None, level="client"):
    return limits.peek(keys, cost=0).levels[level].remaining


# ---- building


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"levels": {}}, "none given"),
        ({"levels": "10/second"}, "not a mapping"),
        ({"levels": {"client": "10/fortnight"}}, "Throttle level 'client'.*no unit"),
        ({"levels": {"": Rate(1)}}, "no name for a level"),
        ({"levels": {5: Rate(1)}}, "no name for a level"),
        ({"levels": {"client#2": Rate(1)}}, "no name for a level"),
        ({"levels": {"a:b": Rate(1)}}, "no name for a level"),
        ({"levels": {"client": Rate(1)}, "modes": {"clinet": "shadow"}}, "'clinet' is no level; levels are client"),
        ({"levels": {"client": Rate(1)}, "modes": {"client": "dry-run"}}, "allowed are enforce, shadow, off"),
        ({"levels": {"client": Rate(1)}, "store": "nowhere://"}, "store: 'nowhere://'.* unknown"),
        ({"levels": {"client": Rate(1)}, "store": 5}, "store: 5 is neither an address nor a store"),
        ({"levels": {"client": Rate(1)}, "store": "redis://localhost"}, "Throttle name: .* is shared"),
    ],
)
def test_what_cannot_be_used_is_refused_when_built(settings, why):
    with pytest.raises(ConfigurationError, match=why):
        Throttle(**settings)


def test_works_with_the_machines_clock_and_a_store_of_its_own():
    limits = Throttle({"client": "1/week"})
    assert [limits.acquire(ALICE).allowed for _ in range(2)] == [True, False]


def test_a_level_that_is_off_is_not_asked():
    limits = throttle({"global": Rate(5), "client": Rate(1)}, modes={"client": "off"})
    assert [limits.acquire().allowed for _ in range(6)] == [True] * 5 + [False]
    assert limits.acquire(ALICE).levels.keys() == {"global"}


def test_two_throttles_on_one_store_are_told_apart_by_name():
    store = MemoryStore()
    one, other, same = (throttle({"client": Rate(1)}, store=store, name=name) for name in ("one", "other", "one"))
    assert one.acquire(ALICE).allowed
    assert other.acquire(ALICE).allowed
    assert not same.acquire(ALICE).allowed


def test_shows_its_levels():
    assert repr(throttle({"global": Rate(9), "client": [Rate(1), Rate(5, per=60)]})) == (
        "<Throttle global 9/second, client 1/second, client-2 5/minute>"
    )


def test_a_store_is_given_by_its_address_as_to_a_gateway(tmp_path):
    assert throttle({"client": Rate(1)}, store="memory://?max_keys=5").store.max_keys == 5
    address = f"file://{tmp_path}/apigate.state"
    one, other = (throttle({"client": "2/hour"}, store=address, name="shop") for _ in range(2))
    assert [limits.acquire(ALICE).allowed for limits in (one, other, one)] == [True, True, False]
    for limits in (one, other):
        limits.store.close()


# ---- asking


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (None, r"the level 'client' needs a key, as in \{'client': 'alice'\}"),
        ({}, "the level 'client' needs a key"),
        ({"clinet": "alice"}, "'clinet' is no level; levels are client, global"),
        ({"client": "alice", "user": "bob"}, "'user' is no level"),
        ({"client": ""}, "neither a text nor a whole number"),
        ({"client": None}, "neither a text nor a whole number"),
        ({"client": 1.5}, "neither a text nor a whole number"),
        ({"client": b"alice"}, "neither a text nor a whole number"),
        ({"client": ["alice"]}, "neither a text nor a whole number"),
        ("alice", "not a mapping"),
    ],
)
def test_keys_are_checked(keys, why):
    limits = throttle({"global": Rate(9), "client": Rate(9)})
    for ask in (limits.acquire, limits.peek, limits.reserve):
        with pytest.raises(ValueError, match=why):
            ask(keys)
    assert left(limits, ALICE, "global") == 9


def test_the_global_level_needs_no_key_and_ignores_one():
    limits = throttle({"global": Rate(2)})
    assert limits.acquire().allowed
    assert limits.acquire({"global": "whatever"}).allowed
    assert not limits.acquire().allowed


def test_a_number_is_a_key_as_its_text_is():
    limits = throttle({"client": Rate(1)})
    assert limits.acquire({"client": 7}).allowed
    assert not limits.acquire({"client": "7"}).allowed


@pytest.mark.parametrize("pair", [("x" * 33, "x" * 34), ("é", "e"), ("\ud800", "\ud801"), ("a" * 10_000, "b" * 10_000)])
def test_long_and_foreign_keys_are_kept_apart(pair):
    limits = throttle({"client": Rate(1)})
    assert all(limits.acquire({"client": key}).allowed for key in pair)
    assert not any(limits.acquire({"client": key}).allowed for key in pair)


@pytest.mark.parametrize("cost", [-1, 1.5, "1", None])
def test_a_cost_is_a_whole_number_of_at_least_0(cost):
    limits = throttle({"client": Rate(9)})
    for ask in (limits.acquire, limits.peek, limits.reserve):
        with pytest.raises(ValueError, match="whole number of at least 0"):
            ask(ALICE, cost)


@pytest.mark.parametrize("wait", [-1, -0.001, 3_600.1, float("inf"), float("nan")])
def test_nobody_waits_for_longer_than_an_hour_or_less_than_nothing(wait):
    limits = throttle({"client": Rate(9)})
    with pytest.raises(ValueError, match="wait"):
        limits.acquire(ALICE, wait=wait)


# ---- waiting


def test_waits_for_its_turn_and_not_longer():
    limits = throttle({"client": Rate(1, per=10)})
    start = limits.clock.now_us()
    assert [limits.acquire(ALICE, wait=30).allowed for _ in range(3)] == [True] * 3
    assert limits.clock.now_us() - start == 20_000_000


@pytest.mark.parametrize("per", [1.000001, 0.001001, 0.000007, 59.999999])
def test_waits_for_exactly_as_long_as_it_was_told(per):
    """Some of these seconds are a little less than their microseconds once multiplied."""
    limits = throttle({"client": Rate(1, per=per)})
    limits.acquire(ALICE)
    assert limits.acquire(ALICE, wait=limits.peek(ALICE).retry_after).allowed


def test_does_not_wait_in_vain():
    limits = throttle({"client": Rate(1, per=10)})
    limits.acquire(ALICE)
    start = limits.clock.now_us()
    decision = limits.acquire(ALICE, wait=9.999999)
    assert not decision.allowed
    assert decision.retry_after == 10.0
    assert limits.clock.now_us() == start


class Interrupted:
    """A clock whose sleepers are woken before their time."""

    def __init__(self, error):
        self.clock = FakeClock()
        self.error = error

    def __getattr__(self, name):
        return getattr(self.clock, name)

    def sleep(self, seconds):
        raise self.error

    async def sleep_async(self, seconds):
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), OSError()], ids=repr)
def test_whoever_stops_waiting_gives_the_place_back(error):
    limits = Throttle({"global": Rate(9), "client": Rate(1, per=60)}, clock=Interrupted(error))
    limits.acquire(ALICE)
    with pytest.raises(type(error)):
        limits.acquire(ALICE, wait=60)
    with pytest.raises(type(error)):
        asyncio.run(limits.acquire_async(ALICE, wait=60))
    assert limits.acquire(ALICE).retry_after == 60.0
    assert left(limits, ALICE, "global") == 8


def test_a_cancelled_task_gives_its_place_back():
    class Patient:
        now_us = wall = staticmethod(lambda: 0)

        async def sleep_async(self, seconds):
            await asyncio.Event().wait()

    async def cancelled():
        limits = Throttle({"client": Rate(1, per=60)}, clock=Patient())
        await limits.acquire_async(ALICE)
        task = asyncio.create_task(limits.acquire_async(ALICE, wait=60))
        await asyncio.sleep(0)
        assert (await limits.peek_async(ALICE)).retry_after == 120.0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return (await limits.peek_async(ALICE)).retry_after

    assert asyncio.run(cancelled()) == 60.0


# ---- looking and forgetting


def test_reset_forgets_one_key_at_the_levels_named():
    limits = throttle({"global": Rate(9), "client": Rate(1, per=60)})
    for keys in (ALICE, BOB):
        limits.acquire(keys)
    limits.reset(ALICE)
    assert (left(limits, ALICE), left(limits, BOB), left(limits, BOB, "global")) == (1, 0, 7)
    limits.reset({"global": ""})
    assert (left(limits, BOB), left(limits, BOB, "global")) == (0, 9)


def test_reset_without_keys_forgets_all_of_this_throttle():
    store = MemoryStore()
    mine, theirs = (throttle({"client": Rate(1, per=60)}, store=store, name=name) for name in ("mine", "theirs"))
    for limits in (mine, theirs):
        limits.acquire(ALICE)
    mine.reset()
    assert (left(mine, ALICE), left(theirs, ALICE)) == (1, 0)


def test_reset_knows_its_levels():
    with pytest.raises(ValueError, match="'clinet' is no level"):
        throttle({"client": Rate(1)}).reset({"clinet": "alice"})


def test_tasks_have_the_same_of_everything():
    limits = throttle({"client": Rate(2, per=60)})

    async def program():
        assert (await limits.acquire_async(ALICE)).allowed
        assert (await limits.peek_async(ALICE)).allowed
        async with await limits.reserve_async(ALICE) as reservation:
            await reservation.refund_async()
        async with await limits.reserve_async(ALICE) as reservation:
            await reservation.commit_async(1)
        with pytest.raises(Throttled):
            await limits.reserve_async(ALICE)
        await limits.reset_async(ALICE)
        return left(limits, ALICE)

    assert asyncio.run(program()) == 2


# ---- reservations


def test_a_reservation_costs_what_was_reserved_unless_it_is_settled():
    limits = throttle({"client": Rate(10, per=60)})
    with limits.reserve(ALICE, 3):
        pass
    with pytest.raises(OSError, match="broken"), limits.reserve(ALICE, 3):
        raise OSError("broken")
    assert left(limits, ALICE) == 4


@pytest.mark.parametrize(("final", "remaining"), [(0, 10), (1, 9), (3, 7), (None, 7), (5, 5), (10, 0), (50, 0)])
def test_a_reservation_is_settled_at_its_real_cost(final, remaining):
    limits = throttle({"client": Rate(10, per=60)})
    with limits.reserve(ALICE, 3) as reservation:
        reservation.commit(final)
    assert left(limits, ALICE) == remaining


def test_a_debt_is_at_most_one_burst():
    limits = throttle({"client": Rate(10, per=60)})
    limits.reserve(ALICE).commit(10**9)
    assert limits.peek(ALICE).retry_after == 66.0  # 10 of the debt and 1 for this, at one in 6 s


def test_a_reservation_is_settled_once():
    limits = throttle({"client": Rate(10, per=60)})
    reservation = limits.reserve(ALICE, 3)
    reservation.refund()
    for settle in (reservation.refund, reservation.commit):
        with pytest.raises(ProtocolError, match="settled before"):
            settle()
    with limits.reserve(ALICE) as left_open:
        pass
    with pytest.raises(ProtocolError, match="settled before"):
        left_open.refund()
    assert left(limits, ALICE) == 9


@pytest.mark.parametrize("cost", [-1, 2.5, "1"])
def test_a_cost_that_is_no_whole_number_settles_nothing(cost):
    limits = throttle({"client": Rate(10, per=60)})
    reservation = limits.reserve(ALICE, 3)
    with pytest.raises(ValueError, match="whole number of at least 0"):
        reservation.commit(cost)
    reservation.refund()
    assert left(limits, ALICE) == 10


def test_a_refund_gives_nothing_to_a_shadow_level_that_took_nothing():
    limits = throttle({"global": Rate(9, per=60), "client": Rate(1, per=60)}, modes={"client": "shadow"})
    limits.acquire(ALICE)
    limits.reserve(ALICE).refund()
    assert (left(limits, ALICE), left(limits, ALICE, "global")) == (0, 8)


def test_a_refund_gives_nothing_to_a_rate_that_was_added_since():
    limits = throttle({"client": Rate(9, per=60)})
    reservation = limits.reserve(ALICE, 5)
    limits.update({"client": [Rate(9, per=60), Rate(8, per=60)]})
    limits.acquire(ALICE, 5) if limits.peek(ALICE, 4).allowed else None
    limits.acquire(ALICE, 4)
    reservation.refund()
    assert [state.remaining for state in limits.peek(ALICE, cost=0).buckets] == [5, 4]


def test_a_refund_goes_to_whoever_reserved_even_if_the_caller_reuses_the_keys():
    limits = throttle({"client": Rate(1, per=60)})
    keys = dict(ALICE)
    reservation = limits.reserve(keys)
    keys["client"] = "bob"
    limits.acquire(keys)
    reservation.refund()
    assert (left(limits, ALICE), left(limits, BOB)) == (1, 0)


# ---- changing


def test_update_keeps_what_is_owed():
    limits = throttle({"global": Rate(9), "client": Rate(10, per=60)})
    limits.acquire(ALICE, 6)
    limits.update({"client": Rate(8, per=60)})
    assert (left(limits, ALICE), left(limits, ALICE, "global")) == (2, 3)


def test_update_changes_all_or_nothing():
    limits = throttle({"global": Rate(9), "client": Rate(10)})
    with pytest.raises(ConfigurationError):
        limits.update({"global": Rate(1), "client": "10/fortnight"})
    with pytest.raises(ValueError, match="'user' is no level"):
        limits.update({"global": Rate(1), "user": Rate(1)})
    assert repr(limits) == "<Throttle global 9/second, client 10/second>"
    assert left(limits, ALICE, "global") == 9


def test_two_threads_may_change_two_levels():
    limits = throttle({"stage": Rate(1), "client": Rate(1)})
    threads = [
        threading.Thread(target=lambda level=level: [limits.update({level: Rate(n)}) for n in range(1, 200)])
        for level in ("stage", "client")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert repr(limits) == "<Throttle stage 199/second, client 199/second>"


# ---- stores that have to be awaited


class AsyncStore:
    def open(self, limits, now):
        return AsyncBuckets(MemoryStore().open(limits, now))


class AsyncBuckets:
    def __init__(self, buckets):
        self.buckets = buckets

    def __getattr__(self, name):
        async def asked(*args):
            return getattr(self.buckets, name)(*args)

        return asked


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        (lambda limits: limits.acquire(ALICE), "acquire_async"),
        (lambda limits: limits.acquire(ALICE, 2), "acquire_async"),
        (lambda limits: limits.acquire(ALICE, wait=1), "acquire_async"),
        (lambda limits: limits.peek(ALICE), "peek_async"),
        (lambda limits: limits.reset(ALICE), "reset_async"),
        (lambda limits: limits.reserve(ALICE), "acquire_async"),
        (lambda limits: asyncio.run(limits.reserve_async(ALICE)).refund(), "commit_async"),
    ],
    ids=["acquire", "cost", "wait", "peek", "reset", "reserve", "refund"],
)
def test_a_store_that_has_to_be_awaited_is_refused_with_what_to_call_instead(call, instead):
    limits = throttle({"client": Rate(9)}, store=AsyncStore())
    with pytest.raises(ProtocolError, match=f"has to be awaited here; use {instead}"):
        call(limits)


def test_a_store_that_has_to_be_awaited_works_for_tasks():
    limits = throttle({"client": Rate(2, per=60)}, store=AsyncStore())

    async def program():
        async with await limits.reserve_async(ALICE, wait=1) as reservation:
            await reservation.refund_async()
        return [(await limits.acquire_async(ALICE)).allowed for _ in range(3)]

    assert asyncio.run(program()) == [True, True, False]
