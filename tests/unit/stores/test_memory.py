"""The store in memory: bounded whatever comes, and never in favour of whoever was refused."""

import threading
import tracemalloc
from itertools import count

import pytest

from apigate import ConfigurationError, Rate, Throttle
from apigate.stores.memory import OVERFLOW_BUCKETS, MemoryStore
from apigate.testing import FakeClock

HOUR = 3_600
DAY = 86_400
MILLION = 1_000_000
NUMBERS = count()


def throttle(levels, max_keys=100, **settings):
    store = MemoryStore(max_keys=max_keys, **settings)
    return Throttle(levels, clock=FakeClock(), store=store), store


def strangers(limits, number, cost=1):
    """So many clients that nobody saw before; how many of them were admitted."""
    return sum(limits.acquire({"client": f"stranger {next(NUMBERS)}"}, cost).allowed for _ in range(number))


@pytest.mark.parametrize("max_keys", [0, -1, 1.5, "100", None])
def test_the_bound_is_a_whole_number_of_at_least_1(max_keys):
    with pytest.raises(ConfigurationError, match="max_keys"):
        MemoryStore(max_keys)


# ---- idle buckets


def test_buckets_that_equal_a_fresh_one_make_room():
    limits, store = throttle({"client": Rate(1, per=10)})
    for _ in range(100):
        assert strangers(limits, 50) == 50
        limits.clock.advance(10)
    assert len(store) <= 100


def test_memory_goes_back_when_the_crowd_has_gone():
    limits, store = throttle({"client": Rate(1, per=10)}, max_keys=10_000)
    strangers(limits, 5_000)
    assert len(store) == 5_000
    for _ in range(40):
        limits.clock.advance(10)
        strangers(limits, 50)
    assert len(store) < 500


def test_a_bucket_that_owes_anything_stays():
    limits, store = throttle({"client": Rate(1, per=HOUR)}, max_keys=10_000)
    limits.acquire({"client": "alice"})
    limits.clock.advance(HOUR - 0.000001)
    for _ in range(50):
        strangers(limits, 200, cost=0)
    assert not limits.acquire({"client": "alice"}).allowed
    limits.clock.advance(0.000001)
    assert limits.acquire({"client": "alice"}).allowed
    assert len(store) < 1_000


def test_one_crowded_level_does_not_keep_another_from_being_swept():
    limits, store = throttle({"client": Rate(1, per=DAY), "user": Rate(1, per=1)}, max_keys=2_000)
    for number in range(5_000):
        limits.acquire({"client": f"{number % 100}", "user": f"{number}"}, cost=1 if number < 100 else 0)
        limits.clock.advance(1)
    assert len(store) < 500
    assert not limits.acquire({"client": "5", "user": "new"}).allowed


def test_sweeping_for_one_level_loses_no_charge_of_another():
    """A new key at one level makes the other's generations change places in the middle of a decision."""
    limits, store = throttle({"user": Rate(1, per=HOUR), "client": Rate(1_000, per=DAY)}, max_keys=10_000)
    for number in range(100):
        limits.acquire({"user": f"other user {number}", "client": f"other {number}"})
    for number in range(500):
        assert limits.acquire({"user": f"user {number}", "client": "alice"}).allowed
    assert limits.peek({"user": "x", "client": "alice"}, cost=0).levels["client"].remaining == 500
    assert len(store) == 100 + 100 + 500 + 1


# ---- when every place is taken


def test_a_million_random_keys_stay_within_the_bound_and_let_nobody_in():
    refused = [f"victim {number}" for number in range(20)]
    limits, store = throttle({"global": Rate(10**9), "client": Rate(2, per=DAY)}, max_keys=5_000)
    for victim in refused:
        while limits.acquire({"client": victim}).allowed:
            pass
    admitted = 0
    for _ in range(10):
        admitted += strangers(limits, MILLION // 10)
        assert not any(limits.acquire({"client": victim}).allowed for victim in refused)
        assert len(store) <= 5_000 + 1  # and the bucket of the global level
    places = 5_000 - len(refused)
    assert places <= admitted <= places + 2 * OVERFLOW_BUCKETS


def test_a_flood_spoils_a_small_share_of_strangers_only():
    limits, _ = throttle({"client": Rate(5, per=HOUR)})
    strangers(limits, 100, cost=5)
    strangers(limits, 200, cost=5)  # each of these fills a shared bucket
    assert strangers(limits, 1_000) > 900


def test_strangers_who_share_a_bucket_are_never_admitted_more_often_than_one_of_them():
    limits, _ = throttle({"client": Rate(1, per=HOUR)}, max_keys=1)
    assert strangers(limits, 50_000) <= OVERFLOW_BUCKETS + 1


def test_nobody_knows_with_whom_they_share():
    """The digest is salted: what collides in one process does not in another."""

    def refused():
        limits, _ = throttle({"client": Rate(1, per=HOUR)}, max_keys=1)
        keys = [{"client": f"{number}"} for number in range(4_000)]
        return frozenset(number for number, key in enumerate(keys) if not limits.acquire(key).allowed)

    one, other = refused(), refused()
    assert one
    assert one != other


def test_levels_and_keys_that_have_a_place_keep_it():
    limits, _ = throttle({"client": Rate(3, per=HOUR)}, max_keys=2)
    alice = {"client": "alice"}
    limits.acquire(alice)
    strangers(limits, 1_000)
    assert [limits.acquire(alice).allowed for _ in range(3)] == [True, True, False]


def test_a_shared_bucket_is_refilled_as_any_other():
    limits, _ = throttle({"client": Rate(1, per=10)}, max_keys=1)
    limits.acquire({"client": "alice"})
    bob = {"client": "bob"}
    assert limits.acquire(bob).allowed
    decision = limits.acquire(bob)
    assert decision.retry_after == 10
    limits.clock.advance(9.999999)
    assert not limits.acquire(bob).allowed
    limits.clock.advance(0.000001)
    assert limits.acquire(bob).allowed


def test_whoever_moves_to_a_place_of_their_own_takes_along_what_was_owed():
    limits, _ = throttle({"client": Rate(2, per=20)}, max_keys=1)
    limits.acquire({"client": "alice"})
    bob = {"client": "bob"}
    assert limits.acquire(bob).allowed
    limits.clock.advance(10)  # alice's is as good as fresh, bob's too
    assert [limits.acquire(bob).allowed for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("call", ["refund", "reset"])
def test_a_shared_bucket_can_be_given_back_and_forgotten(call):
    limits, _ = throttle({"client": Rate(1, per=HOUR)}, max_keys=1)
    limits.acquire({"client": "alice"})
    bob = {"client": "bob"}
    reservation = limits.reserve(bob)
    assert not limits.acquire(bob).allowed
    if call == "refund":
        reservation.refund()
    else:
        limits.reset(bob)
    assert limits.acquire(bob).allowed


def test_a_reset_of_everything_empties_shared_buckets_and_all_places():
    limits, store = throttle({"client": Rate(1, per=HOUR)}, max_keys=1)
    for client in ("alice", "bob"):
        limits.acquire({"client": client})
    limits.reset()
    assert len(store) == 0
    assert limits.acquire({"client": "bob"}).allowed
    assert limits.acquire({"client": "alice"}).allowed
    assert len(store) == 1


def test_a_changed_rate_holds_for_shared_buckets_too():
    limits, _ = throttle({"client": Rate(4, per=HOUR)}, max_keys=1)
    limits.acquire({"client": "alice"})
    bob = {"client": "bob"}
    limits.acquire(bob, 3)
    limits.update({"client": Rate(4, per=40)})
    assert limits.acquire(bob).allowed
    assert limits.acquire(bob).retry_after == 10


# ---- telling


def test_whoever_listens_is_told_once_when_the_store_is_full_and_again_after_a_tenth_was_free():
    told = []
    limits, store = throttle({"client": Rate(1, per=10)}, on_fill=told.append)
    strangers(limits, 100)
    assert told == []
    strangers(limits, 500)
    assert told == [100]
    limits.clock.advance(10)
    strangers(limits, 60, cost=0)
    assert len(store) < 90
    assert told == [100]
    strangers(limits, 200)
    assert told == [100, 100]


def test_the_listener_holds_up_nobody():
    """It may itself use the store: no lock is held while it runs."""
    again = []
    limits, _ = throttle(
        {"client": Rate(1, per=10)},
        on_fill=lambda kept: again.append(limits.acquire({"client": "from within"}).allowed),
    )
    strangers(limits, 101)
    assert len(again) == 1


def test_threads_that_fill_it_together_tell_once():
    told = []
    limits, _ = throttle({"client": Rate(1, per=HOUR)}, on_fill=told.append)
    barrier = threading.Barrier(8)

    def crowd():
        barrier.wait()
        strangers(limits, 500)

    threads = [threading.Thread(target=crowd) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [100]


# ---- size


@pytest.mark.parametrize("length", [9, 16])
def test_a_bucket_takes_at_most_280_bytes(length):
    """All of them owing: what `max_keys` promises. A generous bound, for it differs between versions."""
    limits, store = throttle({"client": Rate(1_000, per=DAY)}, max_keys=100_000)
    keys = [f"{number:0{length}}" for number in range(10_923)]  # just after a dict has grown, when it is emptiest
    limits.acquire({"client": "warm"})
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number, key in enumerate(keys):
            limits.clock.advance(0.000001)
            limits.acquire({"client": "".join([key[: length // 2], key[length // 2 :]])}, 1 + number % 3)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(store) < 300
