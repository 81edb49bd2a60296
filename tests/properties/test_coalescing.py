"""Flights against an independent model, cancelled at every point, and under threads and loops that run at once.

Tasks run on loops whose time stands still until a test moves it, so nothing here sleeps, and each limit is met exactly.
"""

import asyncio
import contextvars
import gc
import os
import threading
from collections import Counter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from apigate.caching.coalescing import Alone, Flights, Lead, Wait
from tests.flights import under_way
from tests.strategies import UNHURRIED

KEYS = [("a",), ("b",)]
LONG = 60


@pytest.fixture(autouse=True, scope="module")
def few_to_look_through():
    """Hundreds of collections look through what these tests make, and not through what all before have left."""
    gc.collect()
    gc.freeze()


class StandingLoop(asyncio.SelectorEventLoop):
    """A loop that runs only when it is told to, by a clock that does too."""

    now = 0.0

    def time(self):
        return self.now

    def run(self, rounds=12):
        """As many rounds as any chain of wake-ups here takes."""
        for _ in range(rounds):
            self.call_soon(self.stop)
            self.run_forever()


async def ask(flights, key, seconds=LONG, now_us=0):
    place = flights.join(key, now_us)
    return await place.wait_async(seconds) if isinstance(place, Wait) else place


# A model


class Request:
    """A task, and what the model knows of it: what it will be told, or else until when it waits, and for whom."""

    def __init__(self, key, loop, task):
        self.key = key
        self.loop = loop  # None once that is closed
        self.task = task
        self.told = None
        self.expected = None
        self.deadline = 0.0
        self.leader = None


class Flying:
    """A flight in the model: who leads it, who has led it before and may land still, and who waits, as they came."""

    def __init__(self, leader):
        self.leader = leader
        self.overtaken = []
        self.waiting = []


class FlightsMachine(RuleBasedStateMachine):
    """Requests in tasks of two loops, each with a limit of its own."""

    CROWD = 4
    REFUSAL = 5

    def __init__(self):
        super().__init__()
        self.flights = Flights(max_waiters=self.CROWD, refusal_seconds=self.REFUSAL)
        self.loops = [StandingLoop(), StandingLoop()]
        self.requests = []
        self.flying = {}
        self.refused = {}
        self.now = 0

    # What happens

    @rule(key=st.sampled_from(KEYS), loop=st.integers(0, 1))
    def come(self, key, loop):
        limit = 10 + len(self.requests) / 1024
        task = self.loops[loop].create_task(
            ask(self.flights, key, limit, self.now * 1_000_000), context=contextvars.Context()
        )
        request = Request(key, self.loops[loop], task)
        self.requests.append(request)
        if self.now < self.refused.get(key, 0):
            request.expected = Alone.REFUSED
        elif key not in self.flying:
            self.flying[key] = Flying(request)
            request.expected = Lead
        elif len(self.flying[key].waiting) >= self.CROWD:
            request.expected = Alone.CROWDED
        else:
            self.flying[key].waiting.append(request)
            request.leader = self.flying[key].leader
            request.deadline = request.loop.now + limit
        self.run()

    @precondition(lambda self: self.leaders())
    @rule(data=st.data(), response=st.integers())
    def land(self, data, response):
        request, lead = self.pick_leader(data)
        lead.land(response)
        self.end(request, response)
        self.run()

    @precondition(lambda self: self.leaders())
    @rule(data=st.data())
    def refuse(self, data):
        request, lead = self.pick_leader(data)
        lead.refuse(self.now * 1_000_000)
        self.refused[request.key] = self.now + self.REFUSAL
        self.end(request, Alone.REFUSED)
        self.run()

    @precondition(lambda self: self.leaders())
    @rule(data=st.data(), is_lost=st.booleans(), gone=st.integers(0, 2))
    def fail(self, data, is_lost, gone):
        """Fail or be lost; who is promoted then may be cancelled before it knows, and the next one too."""
        request, lead = self.pick_leader(data)
        if not is_lost:
            lead.fail()
        del lead
        flight = self.flying.get(request.key)
        if flight is not None and flight.leader is request:
            self.promote(flight)
            for _ in range(gone):
                if request.key in self.flying:
                    self.cancel_request(flight.leader)
                    flight.leader.loop.run(1)  # not so far that the next one knows
                    self.promote(flight)
        self.run()

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def cancel(self, data):
        request = self.alive()[data.draw(st.integers(0, len(self.alive()) - 1))]
        self.flying[request.key].waiting.remove(request)
        self.cancel_request(request)
        self.run()

    @precondition(lambda self: self.alive())
    @rule()
    def let_a_limit_pass(self):
        request = min(self.alive(), key=lambda request: request.deadline)
        for loop in self.loops:
            loop.now = request.deadline
        flight = self.flying[request.key]
        flight.waiting.remove(request)
        if request.leader is flight.leader:
            flight.overtaken.append(flight.leader)
            flight.leader = request
            request.expected = Lead
        else:
            request.expected = Alone.LATE
        self.run()

    @rule(seconds=st.integers(1, 4))
    def let_refusals_age(self, seconds):
        self.now += seconds

    @rule(number=st.integers(0, 1))
    def close_a_loop(self, number):
        old, new = self.loops[number], StandingLoop()
        self.loops[number], new.now = new, old.now
        for request in self.requests:
            if request.loop is old:
                request.loop = None
                if request.task is not None:
                    request.task._log_destroy_pending = False
        old.close()

    # What the model says of it

    def leaders(self):
        return [request for request in self.requests if isinstance(request.told, Lead)]

    def pick_leader(self, data):
        """A leader, and its lead, which it holds no longer."""
        request = self.leaders()[data.draw(st.integers(0, len(self.leaders()) - 1))]
        lead, request.told = request.told, Lead
        return request, lead

    def alive(self):
        """Those who wait in a loop that is there."""
        waiting = [request for flight in self.flying.values() for request in flight.waiting]
        return [request for request in waiting if request.loop is not None]

    def end(self, leader, landing):
        flight = self.flying.get(leader.key)
        if flight is not None and leader in (flight.leader, *flight.overtaken):
            del self.flying[leader.key]
            for request in flight.waiting:
                request.expected = landing

    def promote(self, flight):
        """The last to come leads; those of closed loops are passed over."""
        while flight.waiting:
            request = flight.waiting.pop()
            if request.loop is not None:
                flight.leader = request
                request.expected = Lead
                return
        del self.flying[flight.leader.key]

    def cancel_request(self, request):
        request.task.cancel()
        request.expected = asyncio.CancelledError

    def run(self):
        for loop in self.loops * 2:  # as the lead may go from one to the other
            loop.run()
        for request in self.requests:
            if request.loop is not None and request.task is not None and request.task.done():
                request.told = asyncio.CancelledError if request.task.cancelled() else request.task.result()
                request.task = None  # or it would hold the lead

    # What holds

    @invariant()
    def everybody_was_told_what_the_model_says(self):
        for request in self.requests:
            if request.loop is not None:
                told = Lead if isinstance(request.told, Lead) else request.told
                assert told == request.expected

    @invariant()
    def only_what_is_under_way_is_remembered(self):
        flights = self.flights._board.flights
        assert {key: len(flight.waiting) for key, flight in flights.items()} == {
            key: len(flight.waiting) for key, flight in self.flying.items()
        }

    def teardown(self):
        for number in range(len(self.loops)):
            self.close_a_loop(number)
        for loop in self.loops:
            loop.close()
        self.requests.clear()
        self.flying.clear()
        gc.collect()
        assert under_way(self.flights) == 0


FlightsMachine.TestCase.settings = settings(UNHURRIED, max_examples=50, stateful_step_count=40)
TestFlightsMachine = FlightsMachine.TestCase


# Cancellation at every point

STEPS = 4
REQUESTS = 5


def trace(victims):
    """Requests of one key, some of them cancelled, each after so many rounds; tells what was done, and by whom."""
    loop, flights = StandingLoop(), Flights()
    asked = []

    async def serve(number):
        while True:
            place = flights.join(KEYS[0], 0)
            got = await place.wait_async(LONG) if isinstance(place, Wait) else place
            if not isinstance(got, Lead):
                return got
            asked.append(number)
            try:
                for _ in range(STEPS):
                    await asyncio.sleep(0)
                got.land("landed")
            finally:
                got.fail()
            return "led"

    tasks = [loop.create_task(serve(number), context=contextvars.Context()) for number in range(REQUESTS)]
    for round_ in range(60):
        for number, when in victims:
            if when == round_:
                tasks[number].cancel()
        loop.run(1)
    assert all(task.done() for task in tasks), victims
    told = ["cancelled" if task.cancelled() else task.result() for task in tasks]
    loop.close()
    assert under_way(flights) == 0
    return asked, told


POINTS = STEPS + 6


@pytest.mark.parametrize("first", range(REQUESTS))
def test_no_cancellation_at_any_point_loses_anybody(first):
    """One victim at every point, and a second one at every point after it."""
    for when in range(POINTS):
        for second in range(REQUESTS):
            for later in range(when, when + POINTS):
                asked, told = trace([(first, when), (second, later)])
                hit = {number for number, answer in enumerate(told) if answer == "cancelled"}
                assert set(told) <= {"led", "landed", "cancelled"}
                assert len(asked) <= 1 + len(hit & set(asked))
                assert told.count("led") == len(set(asked) - hit)
                assert hit <= {first, second}


def test_leaders_that_fail_one_after_the_other_end_when_one_does_not():
    for survivor in range(REQUESTS):
        loop, flights = StandingLoop(), Flights()
        order = []

        async def serve(flights, order, survivor):
            got = await ask(flights, KEYS[0])
            if isinstance(got, Lead):
                order.append(got)
                await asyncio.sleep(0)
                if len(order) <= survivor:
                    got.fail()
                    return "failed"
                got.land("landed")
                return "led"
            return got

        tasks = [
            loop.create_task(serve(flights, order, survivor), context=contextvars.Context()) for _ in range(REQUESTS)
        ]
        loop.run(60)
        told = Counter(task.result() for task in tasks)
        assert told == +Counter(failed=survivor, led=1, landed=REQUESTS - survivor - 1)
        loop.close()


# Threads and loops at once


THREADS, LOOPS, TASKS = 100, 4, 25


def all_at_once(in_thread, in_task):
    """Run one in THREADS threads, and the other in TASKS tasks of each of LOOPS loops, begun together."""
    barrier = threading.Barrier(THREADS + LOOPS)
    faults = []

    def run(job, *arguments):
        try:
            barrier.wait(LONG)
            job(*arguments)
        except BaseException as fault:  # noqa: BLE001 - shown by the test
            faults.append(fault)

    async def tasks(first):
        runs = (asyncio.create_task(in_task(first + number), context=contextvars.Context()) for number in range(TASKS))
        await asyncio.gather(*runs)

    threads = [threading.Thread(target=run, args=(in_thread, number), daemon=True) for number in range(THREADS)]
    threads += [
        threading.Thread(target=run, args=(asyncio.run, tasks(THREADS + number * TASKS)), daemon=True)
        for number in range(LOOPS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * LONG)
    assert not faults
    assert not any(thread.is_alive() for thread in threads)


def until_all_wait(flights, number):
    while len(flights._board.flights[KEYS[0]].waiting) < number:
        os.sched_yield()


@pytest.mark.usefixtures("restless_interpreter")
@pytest.mark.parametrize("failing", [0, 1, 150, THREADS + LOOPS * TASKS - 1])
def test_of_200_mixed_requests_each_leader_that_fails_is_followed_by_one(failing):
    flights = Flights()
    everybody = THREADS + LOOPS * TASKS
    led, told, lock = [], Counter(), threading.Lock()

    def lead_on(lead):
        with lock:
            led.append(lead)
            number = len(led)
        if number <= failing:
            lead.fail()
        else:
            lead.land("landed")

    def take(got):
        if isinstance(got, Lead):
            lead_on(got)
            got = Lead
        with lock:
            told[got] += 1

    def in_thread(_):
        place = flights.join(KEYS[0], 0)
        if isinstance(place, Lead):
            until_all_wait(flights, everybody - 1)
        take(place.wait(LONG) if isinstance(place, Wait) else place)

    async def in_task(_):
        place = flights.join(KEYS[0], 0)
        if isinstance(place, Lead):
            while len(flights._board.flights[KEYS[0]].waiting) < everybody - 1:  # noqa: ASYNC110 - nothing tells it
                await asyncio.sleep(0)
        take(await place.wait_async(LONG) if isinstance(place, Wait) else place)

    all_at_once(in_thread, in_task)
    assert told == +Counter({Lead: failing + 1, "landed": everybody - failing - 1})
    assert under_way(flights) == 0


@pytest.mark.usefixtures("restless_interpreter")
def test_200_mixed_requests_never_hang_and_never_lead_twice_however_they_end():
    flights = Flights()
    leading, told, lock = Counter(), Counter(), threading.Lock()

    def take(got, key, random):
        if not isinstance(got, Lead):
            assert got is key
            with lock:
                told["landed"] += 1
            return
        with lock:
            leading[key] += 1
            told["led"] += 1
            assert leading[key] == 1
        with lock:
            leading[key] -= 1
        end = random.choice([lambda: got.land(key), got.fail, lambda: None])  # in the end: lost
        end()

    def in_thread(number):
        random = Random(number)
        for key in random.choices(KEYS, k=30):
            place = contextvars.copy_context().run(flights.join, key, 0)
            take(place.wait(LONG) if isinstance(place, Wait) else place, key, random)
            del place

    async def in_task(number):
        random = Random(number)
        for key in random.choices(KEYS, k=30):
            waits = asyncio.create_task(ask(flights, key))
            for _ in range(random.randrange(4)):
                await asyncio.sleep(0)
            if random.random() < 0.3:
                waits.cancel()
            try:
                got = await waits
            except asyncio.CancelledError:
                with lock:
                    told["cancelled"] += 1
                continue
            del waits
            take(got, key, random)
            del got

    all_at_once(in_thread, in_task)
    gc.collect()
    assert told.total() == 30 * (THREADS + LOOPS * TASKS)
    assert min(told["led"], told["landed"], told["cancelled"]) > 0
    assert under_way(flights) == 0
