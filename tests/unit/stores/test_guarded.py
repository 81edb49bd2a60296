"""The store around a store: what each policy does, what is carried back, and what is never touched."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from apigate import ConfigurationError, ProtocolError, Rate, StoreError, StoreTimeoutError, Throttle, Throttled, Window
from apigate.core.events import StoreOutage, StoreRecovered
from apigate.stores.guarded import GuardedStore
from apigate.testing import FakeClock
from apigate.throttling.limit import LEVELS
from apigate.throttling.window import KINDS
from tests.outages import WAYS, FailingStore, WindowsToo, attempts_end, tasks_run

ALICE = {"client": "alice"}
BOB = {"client": "bob"}
SLOW = 10**6  # seconds: no token comes back while a test runs
WAY = pytest.mark.parametrize("way", WAYS)


class Guarded:
    """A throttle on a guarded store, and all that a test moves."""

    def __init__(self, levels, way="at once", *, clock=None, store=None, modes=None, **settings):
        self.inner = store or FailingStore(way)
        self.clock = clock or FakeClock()
        self.events = []
        self.store = GuardedStore(self.inner, name="shop", clock=self.clock, on_event=self.events.append, **settings)
        self.throttle = Throttle(levels, store=self.store, clock=self.clock, name="shop", modes=modes)

    def acquire(self, keys=ALICE, cost=1):
        if self.inner.way == "awaited":
            return asyncio.run(self.throttle.acquire_async(keys, cost))
        return self.throttle.acquire(keys, cost)

    def admitted(self, keys=ALICE, most=100):
        """How many are admitted in a row."""
        for number in range(most):
            if not self.acquire(keys).allowed:
                return number
        return most

    def break_down(self):
        self.inner.fail()
        self.acquire(cost=0)
        assert self.store.breaker.is_open

    def come_back(self, after=0.1):
        self.inner.work()
        self.clock.advance(max(after, self.store.breaker.wait_us(self.clock.now_us()) / 1_000_000))
        if self.inner.way == "awaited":
            asyncio.run(self._request_and_rest())
        else:
            self.acquire(cost=0)
            attempts_end()
        assert not self.store.breaker.is_open

    async def _request_and_rest(self):
        await self.throttle.acquire_async(ALICE, 0)
        await tasks_run()


# ---- while all is well


@WAY
def test_is_the_store_within_while_that_answers(way):
    guarded = Guarded({"client": Rate(2, per=60)}, way)
    assert [guarded.acquire().allowed for _ in range(3)] == [True, True, False]
    assert guarded.inner.calls == ["open", "acquire", "acquire", "acquire"]
    assert not guarded.acquire(BOB).local
    assert guarded.events == []


def test_is_shared_if_the_store_within_is():
    inner = FailingStore()
    assert GuardedStore(inner, name="shop", clock=FakeClock()).shared
    inner.shared = False
    assert not GuardedStore(inner, name="shop", clock=FakeClock()).shared


# ---- local


@WAY
@pytest.mark.parametrize("kind", [StoreError, StoreTimeoutError])
def test_a_process_admits_its_share_of_the_burst(way, kind):
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=21)}, way, workers=4)
    guarded.inner.fail(kind)
    assert guarded.admitted() == 5
    assert guarded.admitted(BOB) == 5


def test_a_share_of_the_burst_is_at_least_one():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=3)}, workers=4)
    guarded.inner.fail()
    assert guarded.admitted() == 1


def test_a_share_of_the_rate_is_exact():
    """Three in seven seconds over four processes: one in 9.333 333 s, whatever the burst."""
    guarded = Guarded({"client": Rate(3, per=7, burst=2)}, workers=4)
    guarded.inner.fail()
    guarded.acquire()
    assert guarded.acquire().wait_us == 9_333_334
    guarded.clock.advance(9.333333)
    assert not guarded.acquire().allowed
    guarded.clock.advance(0.000001)
    assert guarded.acquire().allowed


def test_nothing_is_divided_where_nobody_said_how_many_there_are():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=21)})
    guarded.inner.fail()
    assert guarded.admitted() == 21


def test_levels_are_decided_together_without_the_store_too():
    guarded = Guarded({"global": Rate(1, per=SLOW, burst=8), "client": Rate(1, per=SLOW, burst=4)}, workers=2)
    guarded.inner.fail()
    assert [guarded.admitted(), guarded.admitted(BOB), guarded.admitted({"client": "carol"})] == [2, 2, 0]
    decision = guarded.acquire(ALICE)
    assert decision.violated == ("global", "client")
    assert decision.levels["global"].remaining == 0
    assert decision.local


def test_the_request_that_meets_the_outage_is_decided_as_those_after_it():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=4)}, workers=2)
    guarded.inner.fail()
    assert [guarded.acquire().local, guarded.acquire().allowed, guarded.acquire().allowed] == [True, True, False]


def test_those_whom_a_store_fails_late_take_from_the_share_as_it_is_by_then():
    inner = FailingStore("awaited")
    guarded = Guarded({"client": Rate(1, burst=4)}, store=inner)

    async def program():
        late = []
        for _ in range(3):
            inner.hold_async = held = asyncio.Event()
            late.append((held, asyncio.ensure_future(guarded.throttle.acquire_async(ALICE))))
            await tasks_run()
        guarded.clock.advance(3)  # a long deadline, and longer than clocks may disagree
        inner.fail()
        inner.hold_async = None
        answers = []
        for held, failing in late:
            answers.append(await guarded.throttle.acquire_async(ALICE))
            held.set()
            answers.append(await failing)
        return [answer.allowed for answer in answers]

    assert asyncio.run(program()) == [True] * 4 + [False] * 2


@WAY
def test_nothing_touches_the_store_within_until_it_is_tried(way):
    guarded = Guarded({"global": Rate(9), "client": Rate(9)}, way)
    guarded.break_down()
    guarded.inner.calls.clear()
    for _ in range(20):
        guarded.acquire()
    guarded.throttle.update({"client": Rate(5)})
    Throttle({"x": Rate(1)}, store=guarded.store, clock=guarded.clock, name="shop")
    asyncio.run(guarded.throttle.peek_async(ALICE))
    asyncio.run(guarded.throttle.reset_async())
    assert guarded.inner.calls == []
    guarded.clock.advance(0.1)
    guarded.acquire()
    attempts_end()
    assert guarded.inner.calls == ["open"]


def test_a_cost_above_the_share_waits_for_the_store_and_one_above_the_burst_for_nothing():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=20)}, workers=4)
    guarded.inner.fail()
    above_share, above_burst = guarded.acquire(cost=6), guarded.acquire(cost=21)
    assert [limit.level for limit in above_share.unavailable] == ["client"]
    assert above_share.retry_after == 1.0
    assert above_burst.unavailable == ()
    assert above_burst.retry_after is None
    assert guarded.admitted() == 5


def test_those_who_wait_are_served_in_their_turn_without_the_store_too():
    guarded = Guarded({"client": Rate(1, per=1, burst=2)}, workers=2)
    guarded.inner.fail()
    guarded.acquire()
    decision = guarded.throttle.acquire(ALICE, wait=5)
    assert decision.allowed
    assert decision.retry_after == 2.0


def test_a_changed_rate_holds_for_the_shares_too():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=20)}, workers=4)
    guarded.break_down()
    assert guarded.admitted(most=2) == 2
    guarded.throttle.update({"client": Rate(1, per=SLOW, burst=12)})
    assert guarded.admitted() == 1


def test_a_rate_that_was_changed_in_an_outage_stays_changed_after_it():
    """Also for requests under way that began with the old one, and are the last to reach the store."""
    inner = FailingStore()
    inner.fail()
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=9)}, store=inner)
    before = guarded.throttle._opened.buckets
    guarded.throttle.update({"client": Rate(1, per=SLOW, burst=5)})
    guarded.come_back()
    before.acquire(["alice"], [1], guarded.clock.now_us())
    assert guarded.admitted() == 4


# ---- closed and open


def test_a_closed_level_refuses_until_the_store_is_tried_again():
    guarded = Guarded({"client": Rate(9)}, outage="closed")
    guarded.inner.fail()
    decision = guarded.acquire()
    assert not decision.allowed
    assert decision.violated == ("client",)
    assert decision.retry_after == 1.0
    assert [limit.level for limit in decision.unavailable] == ["client"]
    assert decision.local
    assert decision.tightest() is None
    assert "client 0 left" in repr(decision)


def test_a_closed_level_refuses_what_costs_nothing_too():
    guarded = Guarded({"client": Rate(9)}, outage="closed")
    guarded.inner.fail()
    decision = guarded.acquire(cost=0)
    assert (decision.allowed, decision.violated, decision.retry_after) == (False, ("client",), 1.0)


def test_the_wait_is_that_until_the_next_attempt_where_that_is_longer():
    guarded = Guarded({"client": Rate(9)}, outage="closed")
    guarded.inner.fail()
    waits = []
    for _ in range(8):
        waits.append(guarded.acquire().retry_after)
        guarded.clock.advance(5)
        guarded.acquire()
        attempts_end()
    assert waits == [1.0, 1.0, 1.0, 1.0, 1.6, 3.2, 5.0, 5.0]


def test_a_closed_level_refuses_before_anything_is_taken_from_the_others():
    guarded = Guarded({"global": Rate(1, per=SLOW, burst=5), "client": Rate(9)}, outage={"client": "closed"}, workers=1)
    guarded.inner.fail()
    for _ in range(3):
        decision = guarded.acquire()
        assert decision.violated == ("client",)
        assert decision.levels["global"].remaining == 5


def test_an_open_level_is_not_asked():
    guarded = Guarded({"client": Rate(1, per=SLOW)}, outage="open")
    guarded.inner.fail()
    decisions = [guarded.acquire() for _ in range(5)]
    assert all(decision.allowed and decision.local for decision in decisions)
    assert [limit.level for limit in decisions[0].unasked] == ["client"]
    assert decisions[0].tightest() is None
    assert decisions[0].taken == [False]
    assert guarded.acquire(cost=10).allowed  # nobody asks how much a bucket holds


def test_each_level_has_its_own_policy_and_those_not_named_are_local():
    levels = {"global": Rate(1, per=SLOW, burst=6), "stage": Rate(1, per=SLOW), "client": Rate(1, per=SLOW, burst=4)}
    keys = {"stage": "prod", "client": "alice"}
    guarded = Guarded(levels, outage={"stage": "open"}, workers=2)
    guarded.inner.fail()
    decisions = [guarded.acquire(keys) for _ in range(3)]
    assert [decision.allowed for decision in decisions] == [True, True, False]
    assert [limit.level for limit in decisions[0].limits] == ["global", "stage", "client"]
    assert decisions[0].taken == [True, False, True]
    assert list(decisions[0].costs) == [1, 0, 1]
    assert decisions[0].remaining == 1
    assert decisions[2].violated == ("client",)
    assert decisions[2].unavailable == ()
    assert decisions[2].levels["stage"].violated is False


def test_all_three_policies_together():
    levels = {"global": Rate(1, per=SLOW, burst=6), "stage": Rate(1, per=SLOW), "client": Rate(1, per=SLOW)}
    guarded = Guarded(levels, outage={"stage": "open", "client": "closed"})
    guarded.inner.fail()
    decision = guarded.acquire({"stage": "prod", "client": "alice"})
    assert decision.violated == ("client",)
    assert [limit.level for limit in decision.unasked] == ["stage"]
    assert decision.taken == [False, False, False]
    assert decision.settling(0) == [0, 0, 0]


@pytest.mark.parametrize("outage", ["closed", "open", "local"])
def test_a_shadow_level_never_refuses(outage):
    guarded = Guarded(
        {"global": Rate(9, per=SLOW), "client": Rate(1, per=SLOW)},
        modes={"client": "shadow"},
        outage={"client": outage},
        workers=1,
    )
    guarded.inner.fail()
    decisions = [guarded.acquire() for _ in range(3)]
    assert all(decision.allowed for decision in decisions)
    assert [bool(decision.shadowed) for decision in decisions] == [False, outage == "local", outage == "local"]


def test_a_refusal_says_so_where_it_is_raised():
    guarded = Guarded({"client": Rate(9)}, outage="closed")
    guarded.inner.fail()
    with pytest.raises(
        Throttled, match=r"refused by client, as the store cannot be reached; retry after 1\.000 s"
    ) as e:
        guarded.throttle.reserve(ALICE)
    assert e.value.status == 503
    guarded = Guarded({"client": Rate(1, per=SLOW)})
    guarded.inner.fail()
    guarded.acquire()
    with pytest.raises(Throttled, match="refused by client; retry after") as e:
        guarded.throttle.reserve(ALICE)
    assert e.value.status == 429


# ---- looking, settling, forgetting


@WAY
def test_a_look_is_never_an_error_either(way):
    guarded = Guarded({"client": Rate(4, per=SLOW)}, way, workers=2)
    guarded.inner.fail()
    look = asyncio.run(guarded.throttle.peek_async(ALICE))
    assert (look.allowed, look.remaining, look.local) == (True, 1, True)
    assert isinstance(guarded.events[0], StoreOutage)


@WAY
def test_a_refund_of_what_was_taken_without_the_store_is_made_without_it(way):
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=2)}, way, workers=2)
    guarded.inner.fail()

    async def program():
        for _ in range(5):
            reservation = await guarded.throttle.reserve_async(ALICE)
            await reservation.refund_async()

    asyncio.run(program())
    assert guarded.admitted() == 1


@WAY
def test_settling_that_meets_the_outage_is_no_error(way):
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=9)}, way, workers=3)

    async def program():
        reservation = await guarded.throttle.reserve_async(ALICE)
        guarded.inner.fail()
        await reservation.commit_async(3)

    asyncio.run(program())
    assert len(guarded.events) == 1
    assert guarded.admitted() == 1  # two of its share of three were settled here


def test_an_open_level_is_given_nothing_back_that_it_never_took():
    levels = {"global": Rate(1, per=SLOW, burst=9), "client": Rate(1, per=SLOW, burst=9)}
    guarded = Guarded(levels, outage={"client": "open"})
    for _ in range(4):
        guarded.acquire()
    guarded.break_down()
    reservation = guarded.throttle.reserve(ALICE)
    guarded.come_back()
    reservation.refund()
    look = guarded.throttle.peek(ALICE, cost=0)
    assert {level: state.remaining for level, state in look.levels.items()} == {"global": 5, "client": 5}


@WAY
def test_a_reset_in_an_outage_forgets_the_shares(way):
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=4)}, way, workers=2)
    guarded.inner.fail()
    assert guarded.admitted() == 2
    asyncio.run(guarded.throttle.reset_async(ALICE))
    assert guarded.admitted() == 2
    asyncio.run(guarded.throttle.reset_async())
    assert guarded.admitted() == 2


@WAY
def test_a_reset_that_meets_the_outage_is_no_error(way):
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=4)}, way)
    guarded.inner.fail()
    asyncio.run(guarded.throttle.reset_async(ALICE))
    assert guarded.store.breaker.is_open


# ---- building


def test_a_store_that_is_out_when_the_app_starts_is_an_outage():
    inner = FailingStore()
    inner.fail()
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=4)}, store=inner, workers=2)
    assert len(guarded.events) == 1
    assert guarded.admitted() == 2
    guarded.come_back()
    assert guarded.admitted() == 2
    assert not guarded.acquire().local


def test_a_store_that_cannot_be_configured_is_an_error():
    inner = FailingStore()
    inner.error = lambda operation: ConfigurationError("store: no such file")
    with pytest.raises(ConfigurationError, match="no such file"):
        Guarded({"client": Rate(1)}, store=inner)


def test_a_mistake_in_a_store_is_no_outage():
    guarded = Guarded({"client": Rate(1)})
    guarded.inner.error = KeyError
    with pytest.raises(KeyError):
        guarded.acquire()
    assert not guarded.store.breaker.is_open


# ---- callers that cannot wait, or do not


def test_a_caller_that_cannot_wait_leaves_nothing_behind():
    guarded = Guarded({"client": Rate(2, per=SLOW)}, "awaited")
    for ask in (guarded.throttle.acquire, guarded.throttle.peek, guarded.throttle.reset):
        with pytest.raises(ProtocolError, match="has to be awaited"):
            ask(ALICE)
    assert [guarded.acquire().allowed for _ in range(3)] == [True, True, False]


def test_a_caller_that_is_cancelled_is_no_failure():
    guarded = Guarded({"client": Rate(2, per=SLOW)}, "awaited")

    async def program():
        guarded.inner.hold_async = asyncio.Event()
        task = asyncio.create_task(guarded.throttle.acquire_async(ALICE))
        await tasks_run()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(program())
    assert not guarded.store.breaker.is_open
    assert guarded.events == []


# ---- the way back


@WAY
def test_comes_back_by_itself(way):
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=9)}, way)
    guarded.break_down()
    guarded.come_back(after=4)
    assert not guarded.acquire().local
    assert guarded.events == [
        StoreOutage("<the store>", "acquire", "acquire: nobody is there"),
        StoreRecovered("<the store>", 4.0),
    ]


def test_is_tried_by_writing():
    """A full store answers a PING, and so does a replica that nobody may write to."""
    guarded = Guarded({"client": Rate(9)}, outage="open")
    guarded.break_down()
    guarded.inner.calls.clear()
    guarded.come_back()
    assert guarded.inner.calls[:2] == ["open", "adjust"]
    taken = [(limit.name, key) for limit, key, owed in guarded.inner.memory.owed(guarded.clock.now_us())]
    assert taken == [("shop:probe", "")]


def left(guarded, keys=ALICE):
    """What each level has left in the store within."""
    throttle = Throttle(guarded.throttle._levels, store=guarded.inner.memory, clock=guarded.clock, name="shop")
    return {level: state.remaining for level, state in throttle.peek(keys, cost=0).levels.items()}


@WAY
def test_what_was_admitted_meanwhile_is_taken_from_the_store(way):
    guarded = Guarded({"global": Rate(1, per=SLOW, burst=40), "client": Rate(1, per=SLOW, burst=20)}, way, workers=2)
    guarded.acquire(cost=3)
    guarded.break_down()
    guarded.acquire(cost=4)
    guarded.acquire(BOB, cost=5)
    guarded.come_back()
    assert left(guarded, ALICE) == {"global": 40 - 12, "client": 20 - 7}
    assert left(guarded, BOB) == {"global": 40 - 12, "client": 20 - 5}


def test_what_is_carried_is_what_is_still_owed_rounded_up():
    guarded = Guarded({"client": Rate(1, per=1, burst=8)}, workers=2)
    guarded.break_down()
    guarded.acquire(cost=4)
    guarded.come_back(after=2.5)  # a share of half a token a second has paid off 1.25 of these 4
    assert left(guarded) == {"client": 5}


def test_more_is_carried_than_fits_into_one_step():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=9)})
    guarded.break_down()
    names = [f"client {number}" for number in range(200)]
    for number, name in enumerate(names):
        guarded.acquire({"client": name}, cost=1 + number % 9)
    guarded.inner.calls.clear()
    guarded.come_back()
    assert [left(guarded, {"client": name})["client"] for name in names] == [8 - number % 9 for number in range(200)]
    assert guarded.inner.calls.count("adjust") == 1 + 4  # the first is how the store is tried


def test_what_is_admitted_while_it_is_carried_is_carried_right_after():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=9)})
    guarded.break_down()
    guarded.acquire(cost=2)
    inner = guarded.inner
    inner.work()
    inner.held_at = "adjust"
    guarded.clock.advance(0.1)
    guarded.acquire(cost=0)
    assert inner.is_held.wait(10)
    assert guarded.acquire(cost=3).local
    inner.goes_on.set()
    attempts_end()
    assert left(guarded) == {"client": 4}


def test_nothing_is_carried_twice_in_two_attempts():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=9)})
    guarded.break_down()
    for number in range(100):
        guarded.acquire({"client": f"client {number}"}, cost=3)
    done = []

    def second_step_fails(operation):
        done.append(operation)
        return StoreError(operation, "full")

    inner = guarded.inner
    inner.work()
    check = inner.check

    def checked(operation):
        if operation == "adjust" and inner.calls.count("adjust") == 1 and not done:
            inner.calls.append(operation)
            raise second_step_fails(operation)
        check(operation)

    inner.check = checked
    guarded.clock.advance(0.1)
    guarded.acquire(cost=0)
    attempts_end()
    assert guarded.store.breaker.is_open
    guarded.come_back(after=0.2)
    assert {left(guarded, {"client": f"client {number}"})["client"] for number in range(100)} == {6}


def test_a_second_outage_does_not_carry_again_what_the_first_one_did():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=20)}, workers=2)
    for _ in range(2):
        guarded.break_down()
        guarded.acquire(cost=3)
        guarded.come_back()
    assert left(guarded) == {"client": 14}


def test_what_was_carried_is_paid_off_in_time_like_the_share_itself():
    """Of 4 carried, a share of a token in 2 s has paid off 3 in 6 s; so of the 3 owed then, 2 were not carried."""
    guarded = Guarded({"client": Rate(1, per=1, burst=8)}, workers=2)
    guarded.break_down()
    guarded.acquire(cost=4)
    guarded.come_back(after=0.1)
    guarded.clock.advance(5.9)
    guarded.break_down()
    guarded.acquire(cost=2)
    assert left(guarded) == {"client": 8}
    guarded.inner.work()
    guarded.store.breaker.probe_if_due(guarded.clock.now_us() + 200_000)  # of an outage soon after the last
    attempts_end()
    assert left(guarded) == {"client": 6}


def test_nothing_is_remembered_of_those_who_owe_nothing_any_more():
    guarded = Guarded({"client": Rate(1, per=1, burst=8)})
    guarded.break_down()
    for number in range(50):
        guarded.acquire({"client": f"client {number}"})
    guarded.come_back()
    assert len(guarded.store._carried) == 50
    guarded.clock.advance(60)
    guarded.break_down()
    guarded.acquire()
    guarded.come_back()
    assert len(guarded.store._carried) == 1


def test_outages_that_follow_one_another_do_not_fill_the_share_again():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=20)}, workers=4)
    admitted = 0
    for _ in range(5):
        guarded.break_down()
        admitted += guarded.admitted(most=2)
        guarded.come_back()
    assert admitted == 5


def test_after_a_reset_what_is_admitted_is_carried_in_full():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=20)}, workers=2)
    guarded.break_down()
    guarded.acquire(cost=5)
    guarded.come_back()
    guarded.throttle.reset(ALICE)
    guarded.break_down()
    guarded.acquire(cost=5)
    guarded.come_back()
    assert left(guarded) == {"client": 15}


def test_after_all_was_reset_too():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=20)}, workers=2)
    guarded.break_down()
    guarded.acquire(cost=5)
    guarded.come_back()
    guarded.throttle.reset()
    guarded.break_down()
    guarded.acquire(cost=5)
    guarded.come_back()
    assert left(guarded) == {"client": 15}


def test_a_debt_is_carried_as_one():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=6)}, workers=2)
    guarded.break_down()
    reservation = guarded.throttle.reserve(ALICE, 3)
    reservation.commit(6)
    guarded.come_back()
    assert left(guarded) == {"client": 0}


def test_is_carried_where_the_rate_was_changed_meanwhile():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=20)}, workers=2)
    guarded.break_down()
    guarded.acquire(cost=5)
    guarded.throttle.update({"client": Rate(1, per=2 * SLOW, burst=30)})
    guarded.acquire(cost=2)
    guarded.come_back()
    assert left(guarded) == {"client": 23}


def test_a_loop_serves_others_while_much_is_carried():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=2)}, "awaited")

    async def program():
        guarded.inner.fail()
        for number in range(3_000):
            await guarded.throttle.acquire_async({"client": f"client {number}"})
        guarded.inner.work()
        guarded.clock.advance(0.1)
        await guarded.throttle.acquire_async(ALICE)
        turns = 0
        while guarded.store.breaker.is_open:
            assert (await guarded.throttle.acquire_async(BOB, 0)).local
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(program()) > 3_000 / 64


def test_many_threads_see_no_error_and_admit_no_more_than_the_bound_while_it_comes_and_goes():
    guarded = Guarded({"client": Rate(1, per=SLOW, burst=200)}, workers=2)
    admitted = []
    ends = threading.Event()

    def hammer():
        while not ends.is_set():
            if guarded.throttle.acquire(ALICE).allowed:
                admitted.append(1)

    with ThreadPoolExecutor(8) as pool:
        hammering = [pool.submit(hammer) for _ in range(8)]
        try:
            for _ in range(20):
                guarded.inner.fail()
                while not guarded.store.breaker.is_open:
                    guarded.acquire(BOB, 0)
                guarded.inner.work()
                while guarded.store.breaker.is_open:
                    guarded.clock.advance(0.1)
                    guarded.acquire(BOB, 0)
                    attempts_end()
        finally:
            ends.set()
    for each in hammering:
        each.result()
    attempts_end()  # also that which one of the threads just started; it may have yet to tell
    left = guarded.admitted(most=300)  # where the threads were too slow to take it all
    assert 200 <= len(admitted) + left <= 200 + 100
    assert [type(event) for event in guarded.events] == [StoreOutage, StoreRecovered] * 20


# ---- what the log says

ALL_OF_IT = "each process admits up to the whole of each limit"
UNKNOWN = "nobody said how many processes share it, so set workers= or WEB_CONCURRENCY"
REFUSED = "whoever a limit would count is refused with 503"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": 4}, "each process admits 1/4 of each limit"),
        ({"workers": 1}, ALL_OF_IT),
        ({}, f"{ALL_OF_IT}; {UNKNOWN}"),
        ({"outage": "open"}, "nothing is limited"),
        ({"outage": "closed"}, REFUSED),
        (
            {"outage": {"client": "closed", "client-method": "closed", "global": "open"}, "workers": 2},
            f"at global nothing is limited; at client {REFUSED}; at stage each process admits 1/2 of each limit",
        ),
        ({"outage": {"client": "closed"}}, f"at client {REFUSED}; at global, stage {ALL_OF_IT}; {UNKNOWN}"),
        ({"outage": dict.fromkeys(LEVELS, "open")}, "at global, stage, client nothing is limited"),
    ],
    ids=str,
)
def test_the_log_says_what_is_done_meanwhile_at_the_levels_that_have_limits(settings, said, caplog):
    guarded = Guarded(dict.fromkeys(("client", "stage", "global"), Rate(9)), **settings)
    guarded.inner.fail()
    guarded.throttle.acquire(dict.fromkeys(("client", "stage", "global"), "any"), 0)
    (record,) = caplog.records
    found = record.getMessage()
    assert found == f"<the store> cannot be reached (acquire: nobody is there); until it answers again, {said}"


def test_its_description_says_what_is_within_and_whether_it_is_out():
    guarded = Guarded({"client": Rate(9)})
    assert repr(guarded.store) == "<GuardedStore <the store>>"
    guarded.break_down()
    assert repr(guarded.store) == "<GuardedStore <the store>, in an outage>"


# ---- windows


class NothingButWindows(WindowsToo):
    windows_only = True

    def open(self, limits, now):
        raise ConfigurationError("windows only")


def guarded_window(way="at once", count=8, kind="moving", store=WindowsToo, **settings):
    levels = {"client": Window(f"{count}/hour", kind=kind)}
    if store is WindowsToo:
        levels["global"] = Rate(1, per=SLOW, burst=100)
    return Guarded(levels, way, store=store(way), **settings)


@WAY
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", [WindowsToo, NothingButWindows])
def test_a_process_admits_its_share_of_a_window_and_it_is_counted_when_the_store_is_back(way, kind, store):
    guarded = guarded_window(way, kind=kind, workers=4, store=store)
    assert [guarded.acquire().allowed for _ in range(3)] == [True] * 3
    guarded.break_down()
    decision = guarded.acquire()
    assert (decision.allowed, decision.local) == (True, True)
    assert guarded.admitted() == 1
    refused = guarded.acquire()
    assert refused.violated == ("client",)
    assert refused.levels["client"].rate == Window("8/hour", kind=kind)
    assert refused.retry_after == pytest.approx(3_600.0, abs=0.002)
    guarded.come_back()
    assert guarded.admitted() == 8 - 3 - 2
    assert not guarded.acquire().local


@WAY
@pytest.mark.parametrize("kind", KINDS)
def test_outages_that_follow_one_another_do_not_empty_the_share_of_a_window(way, kind):
    guarded = guarded_window(way, kind=kind, workers=2)
    assert guarded.admitted() == 8
    for share in (4, 0, 0):
        guarded.break_down()
        assert guarded.admitted() == share
        guarded.come_back()
        assert guarded.admitted() == 0
    (window,) = [limit for limit in guarded.throttle._opened.limits if limit.window]
    assert guarded.inner.memory.windows().peek(window, "alice", 0, guarded.clock.now_us()).used == 12


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_share_counts_in_its_next_window_is_carried_too(kind):
    guarded = guarded_window(kind=kind, workers=2)
    for _ in range(3):
        guarded.break_down()
        assert guarded.admitted() == 4
        guarded.come_back()
        assert guarded.admitted() == 4
        guarded.clock.advance(7_201)


def test_after_a_reset_what_a_share_of_a_window_counts_is_carried_in_full():
    for keys in (ALICE, None):
        guarded = guarded_window(workers=2)
        guarded.break_down()
        assert guarded.admitted() == 4
        guarded.come_back()
        guarded.throttle.reset(keys)
        guarded.break_down()
        assert guarded.admitted() == 4
        guarded.come_back()
        assert guarded.admitted() == 4


def test_nothing_is_remembered_of_windows_that_have_ended():
    guarded = guarded_window(workers=2)
    guarded.break_down()
    guarded.acquire()
    guarded.come_back()
    assert len(guarded.store._windows._told) == 1
    guarded.clock.advance(3_600)
    guarded.break_down()
    guarded.come_back()
    assert guarded.store._windows._told == {}


def test_the_windows_are_carried_before_requests_ask_the_store_again():
    guarded = guarded_window(count=4)
    guarded.break_down()
    assert guarded.admitted() == 4
    told = guarded.inner.calls.count("window adjust")
    guarded.inner.held_at = "window adjust"
    guarded.inner.work()
    guarded.clock.advance(0.1)
    guarded.acquire(cost=0)
    assert guarded.inner.is_held.wait(10)
    assert guarded.store.breaker.is_open
    guarded.inner.goes_on.set()
    attempts_end()
    assert not guarded.store.breaker.is_open
    assert guarded.inner.calls.count("window adjust") == told + 1  # and not a second time right after
    assert guarded.admitted() == 0


@WAY
def test_a_window_that_is_closed_in_an_outage_says_when_the_store_is_tried_again(way):
    guarded = guarded_window(way, outage={"client": "closed"})
    guarded.inner.fail()
    refused = guarded.acquire()
    assert (refused.allowed, [limit.level for limit in refused.unavailable]) == (False, ["client"])
    assert 1 <= refused.retry_after < 60
    assert guarded.throttle.peek(ALICE, 0).levels["global"].remaining == 100 if way == "at once" else True


def test_a_window_that_is_open_in_an_outage_is_not_asked():
    guarded = guarded_window(count=1, outage={"client": "open"})
    guarded.inner.fail()
    assert guarded.admitted(most=20) == 20


def test_what_is_given_back_is_given_back_where_it_was_counted():
    guarded = guarded_window(count=4, workers=2)
    within = guarded.throttle.reserve(ALICE)
    guarded.break_down()
    alone = guarded.throttle.reserve(ALICE, 2)
    within.refund()  # of the store, which cannot be asked; the share has not counted it
    assert guarded.admitted() == 0
    alone.refund()
    assert guarded.admitted() == 2


def test_a_store_without_windows_is_found_out_when_it_is_opened():
    with pytest.raises(ConfigurationError, match="<the store> holds no windows"):
        Guarded({"client": Window("5/hour", kind="fixed")})


def test_a_process_that_was_too_busy_to_ask_lets_nobody_past_an_open_level():
    """It is no outage, and whoever makes the process busy must gain nothing by it."""
    guarded = Guarded({"client": Rate(9), "global": Rate(9)}, outage={"client": "open", "global": "local"})
    guarded.inner.error = lambda operation: StoreError(operation, "too busy", blames_store=False)
    decision = guarded.acquire({"client": "alice"})
    assert not decision.allowed
    assert decision.violated == ("client",)
    assert decision.retry_after == 1.0
    assert not guarded.store.breaker.is_open
    assert guarded.events == []
