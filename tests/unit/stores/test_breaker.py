"""The breaker: when it opens, who tries the store, and when it closes. No limits here: it knows of none."""

import asyncio
import logging
import os
import subprocess
import sys
import threading

import pytest

from apigate import StoreError, StoreTimeoutError
from apigate.core.events import StoreOutage, StoreRecovered
from apigate.stores.breaker import Breaker
from apigate.testing import FakeClock
from tests.outages import attempts_end, tasks_run

DOWN = StoreError("acquire", "nobody is there")


class Steps:
    """A store's user that notes its steps; `answer` is what each of them is, or raises."""

    def __init__(self, answer=lambda: None):
        self.answer = answer
        self.taken = []
        self.where = []

    def attempt(self):
        yield from self._step("attempt")

    def finish(self):
        yield from self._step("finish")

    def _step(self, name):
        self.taken.append(name)
        self.where.append(threading.current_thread())
        yield self.answer()


def raising(error):
    def answer():
        raise error

    return answer


def awaited(answer):
    async def later():
        await asyncio.sleep(0)
        return answer()

    return later


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def events():
    return []


@pytest.fixture
def made(clock, events):
    def make(steps):
        return Breaker("the store", steps, clock, events.append, lambda: "nothing is limited")

    return make


def opened(breaker, *, awaited=False):
    breaker.fail(DOWN, breaker.turn, awaited=awaited)
    assert breaker.is_open
    return breaker


def test_is_closed_until_something_fails(made, events):
    breaker = made(Steps())
    assert not breaker.is_open
    assert events == []


def test_the_first_failure_opens_and_is_told_once(made, events, caplog):
    breaker = made(Steps())
    turn = breaker.turn
    for error in (StoreTimeoutError("peek", "no answer in 50 ms"), DOWN, DOWN):
        breaker.fail(error, turn)
    assert breaker.is_open
    assert events == [StoreOutage("the store", "peek", "peek: no answer in 50 ms")]
    assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            "apigate",
            logging.WARNING,
            "the store cannot be reached (peek: no answer in 50 ms); until it answers again, nothing is limited",
        )
    ]


def test_is_not_tried_before_a_tenth_of_a_second_has_passed(made, clock):
    steps = Steps()
    breaker = opened(made(steps))
    clock.advance(0.099999)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    assert steps.taken == []
    clock.advance(0.000001)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    assert steps.taken == ["attempt", "finish"]


def test_is_tried_at_intervals_that_double_up_to_five_seconds(made, clock):
    steps = Steps(raising(DOWN))
    breaker = opened(made(steps))
    began = clock.now_us()
    tried = []
    for _ in range(300):
        clock.advance(0.1)
        before = len(steps.taken)
        breaker.probe_if_due(clock.now_us())
        attempts_end()
        if len(steps.taken) > before:
            tried.append((clock.now_us() - began) / 1_000_000)
    assert tried == [0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 11.3, 16.3, 21.3, 26.3]


def test_says_how_long_it_is_until_the_next_attempt(made, clock):
    breaker = opened(made(Steps(raising(DOWN))))
    clock.advance(0.04)
    assert breaker.wait_us(clock.now_us()) == 60_000
    clock.advance(1)
    assert breaker.wait_us(clock.now_us()) == 0


def test_closes_when_an_attempt_succeeds_and_tells_how_long_it_was(made, clock, events, caplog):
    breaker = opened(made(Steps()))
    clock.advance(2.5)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    assert not breaker.is_open
    assert events[1:] == [StoreRecovered("the store", 2.5)]
    assert [record.getMessage() for record in caplog.records][1:] == ["the store answers again, after 2.5 s"]


def test_a_failed_attempt_is_told_to_nobody(made, clock, events, caplog):
    breaker = opened(made(Steps(raising(DOWN))))
    for _ in range(10):
        clock.advance(5)
        breaker.probe_if_due(clock.now_us())
        attempts_end()
    assert breaker.is_open
    assert len(events) == len(caplog.records) == 1


def test_each_outage_is_told_and_begins_with_short_intervals_again(made, clock, events):
    breaker = made(Steps())
    for _ in range(3):
        opened(breaker)
        clock.advance(0.1)
        breaker.probe_if_due(clock.now_us())
        attempts_end()
        assert not breaker.is_open
        clock.advance(10)
    assert [type(event) for event in events] == [StoreOutage, StoreRecovered] * 3


def test_a_store_that_comes_and_goes_is_tried_at_intervals_that_grow_on(made, clock):
    breaker = made(Steps())
    waits = []
    for _ in range(8):
        opened(breaker)
        waits.append(breaker.wait_us(clock.now_us()) / 1_000_000)
        clock.advance(waits[-1])
        breaker.probe_if_due(clock.now_us())
        attempts_end()
        assert not breaker.is_open
        clock.advance(9.9)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_clock_set_back_after_an_outage_lets_the_next_begin_with_a_short_interval(made, clock):
    breaker = opened(made(Steps()))
    clock.advance(0.1)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    clock.step(-3_600)
    assert opened(breaker).wait_us(clock.now_us()) == 100_000


def test_a_store_whose_way_back_fails_is_not_tried_ever_so_often(made, clock, events):
    class Fails(Steps):
        def finish(self):
            raise DOWN
            yield

    breaker = opened(made(Fails()))
    for _ in range(100):
        clock.advance(0.1)
        breaker.probe_if_due(clock.now_us())
        attempts_end()
    assert len([event for event in events if isinstance(event, StoreOutage)]) == 1 + 6


def test_a_failure_of_a_request_from_before_the_recovery_opens_nothing(made, clock, events):
    breaker = made(Steps())
    before = breaker.turn
    opened(breaker)
    during = breaker.turn
    clock.advance(0.1)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    for turn in (before, during):
        breaker.fail(DOWN, turn)
        assert not breaker.is_open
    assert len(events) == 2


def test_a_step_after_closing_that_fails_is_the_next_outage(made, clock, events):
    class Fails(Steps):
        def finish(self):
            raise DOWN
            yield

    breaker = opened(made(Fails()))
    clock.advance(0.1)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    assert breaker.is_open
    assert [type(event) for event in events] == [StoreOutage, StoreRecovered, StoreOutage]


def test_an_attempt_with_a_mistake_in_it_is_logged_and_tried_again(made, clock, caplog):
    steps = Steps(raising(KeyError("typo")))
    breaker = opened(made(steps))
    clock.advance(0.1)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    assert breaker.is_open
    assert caplog.records[-1].exc_info[0] is KeyError
    steps.answer = lambda: None
    clock.advance(0.2)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    assert not breaker.is_open


def test_events_come_in_their_order_though_a_listener_asks_the_store_itself(clock):
    events = []

    def listen(event):
        if isinstance(event, StoreRecovered) and len(events) == 1:
            breaker.fail(DOWN, breaker.turn)  # while it is told
        events.append(event)

    breaker = opened(Breaker("the store", Steps(), clock, listen))
    clock.advance(0.1)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    assert [type(event) for event in events] == [StoreOutage, StoreRecovered, StoreOutage]


def test_a_clock_set_back_does_not_put_the_next_attempt_off(made, clock):
    breaker = opened(made(Steps()))
    clock.step(-3_600)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    assert not breaker.is_open


# ---- threads


def test_is_tried_in_a_thread_while_requests_go_on(made, clock):
    tries, goes_on = threading.Event(), threading.Event()
    steps = Steps(lambda: (tries.set(), goes_on.wait(60)))
    breaker = opened(made(steps))
    for _ in range(20):
        clock.advance(1)
        breaker.probe_if_due(clock.now_us())  # comes back at once, or this would never end
    assert tries.wait(60)
    assert [thread.name for thread in steps.where] == ["apigate-probe"]
    assert steps.where[0].daemon
    assert breaker.is_open
    goes_on.set()
    attempts_end()
    assert not breaker.is_open


def test_many_threads_that_find_it_due_start_one_attempt(made, clock):
    steps = Steps(raising(DOWN))
    breaker = opened(made(steps))
    clock.advance(0.1)
    line = threading.Barrier(16)

    def find():
        line.wait(10)
        breaker.probe_if_due(clock.now_us())

    threads = [threading.Thread(target=find) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    attempts_end()
    assert steps.taken == ["attempt"]


def test_a_thread_awaits_a_store_that_insists_on_it_in_a_loop_of_its_own(made, clock):
    steps = Steps(awaited(lambda: None))
    breaker = opened(made(steps))
    clock.advance(0.1)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    assert not breaker.is_open
    assert {thread.name for thread in steps.where} == {"apigate-probe"}


def test_a_process_that_may_have_no_thread_tries_again_later(made, clock, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    steps = Steps()
    breaker = opened(made(steps))
    clock.advance(0.1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        breaker.probe_if_due(clock.now_us())
    assert breaker.is_open
    clock.advance(0.2)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    assert not breaker.is_open


# ---- tasks


def test_is_tried_in_a_task_where_it_was_awaited(made, clock):
    steps = Steps(awaited(lambda: None))
    breaker = made(steps)

    async def program():
        opened(breaker, awaited=True)
        clock.advance(0.1)
        breaker.probe_if_due(clock.now_us())
        assert breaker.is_open
        assert steps.taken == []  # not inside the request that found it due
        await tasks_run()
        assert not breaker.is_open

    asyncio.run(program())
    assert set(steps.where) == {threading.main_thread()}


def test_a_store_that_answers_at_once_is_tried_in_a_thread_so_that_the_loop_goes_on(made, clock):
    steps = Steps()

    async def program():
        breaker = opened(made(steps), awaited=False)
        clock.advance(0.1)
        breaker.probe_if_due(clock.now_us())
        attempts_end()
        assert not breaker.is_open

    asyncio.run(program())
    assert {thread.name for thread in steps.where} == {"apigate-probe"}


def test_requests_go_on_while_a_task_tries(made, clock):
    async def program():
        goes_on = asyncio.Event()
        steps = Steps(goes_on.wait)
        breaker = opened(made(steps), awaited=True)
        for _ in range(20):
            clock.advance(1)
            breaker.probe_if_due(clock.now_us())
            await tasks_run()
        assert steps.taken == ["attempt"]
        goes_on.set()
        await tasks_run()
        assert not breaker.is_open

    asyncio.run(program())


def test_a_task_that_tries_has_nothing_of_the_request_that_found_it_due(made, clock):
    from contextvars import ContextVar

    variable = ContextVar("variable", default="nothing")
    seen = []
    breaker = made(Steps(awaited(lambda: seen.append(variable.get()))))

    async def program():
        opened(breaker, awaited=True)
        clock.advance(0.1)
        variable.set("the request's")
        breaker.probe_if_due(clock.now_us())
        await tasks_run()

    asyncio.run(program())
    assert seen == ["nothing", "nothing"]


def test_a_loop_that_ends_while_a_task_tries_leaves_it_to_a_thread(made, clock):
    steps = Steps(lambda: asyncio.Event().wait())  # which never comes
    breaker = made(steps)

    async def program():
        opened(breaker, awaited=True)
        clock.advance(0.1)
        breaker.probe_if_due(clock.now_us())
        await tasks_run()

    asyncio.run(program())
    assert breaker.is_open
    steps.answer = awaited(lambda: None)
    breaker.probe_if_due(clock.now_us())  # at once: it was no fault of the store
    attempts_end()
    assert not breaker.is_open


def test_loops_that_end_with_each_request_do_not_keep_it_open(made, clock):
    steps = Steps(awaited(lambda: None))
    breaker = made(steps)

    async def request():
        breaker.probe_if_due(clock.now_us())  # and the loop ends before the task has its turn

    async def first():
        opened(breaker, awaited=True)

    asyncio.run(first())
    for _ in range(3):
        clock.advance(0.1)
        asyncio.run(request())
        attempts_end()
    assert not breaker.is_open


def test_a_loop_that_stands_still_while_a_task_tries_leaves_it_to_a_thread(made, clock, events):
    """As where each request runs a loop until it is answered, and no longer."""
    loop = asyncio.new_event_loop()
    goes_on = asyncio.Event()
    steps = Steps(goes_on.wait)
    breaker = made(steps)

    async def program():
        opened(breaker, awaited=True)
        clock.advance(0.1)
        breaker.probe_if_due(clock.now_us())
        await tasks_run()

    loop.run_until_complete(program())
    steps.answer = lambda: None
    clock.advance(0.2)
    breaker.probe_if_due(clock.now_us())
    attempts_end()
    assert not breaker.is_open
    assert steps.taken == ["attempt", "attempt", "finish"]

    async def late():
        goes_on.set()
        await tasks_run()

    loop.run_until_complete(late())  # the first attempt ends after all, and changes nothing
    loop.close()
    assert steps.taken == ["attempt", "attempt", "finish"]
    assert [type(event) for event in events] == [StoreOutage, StoreRecovered]


# ---- processes


FORK = """
import os, sys, threading
sys.path[:0] = {path!r}
from apigate import StoreError
from apigate.stores.breaker import Breaker
from apigate.testing import FakeClock

class Steps:
    hold = threading.Event()
    def attempt(self):
        yield self.hold.wait(20)
    def finish(self):
        return ()

clock, steps, told = FakeClock(), Steps(), []
breaker = Breaker("the store", steps, clock, told.append)
breaker.fail(StoreError("acquire", "down"), breaker.turn)
clock.advance(0.1)
breaker.probe_if_due(clock.now_us())  # a thread of the parent tries, and waits
breaker._lock.acquire()  # as a thread of the parent may just have
breaker._telling.acquire()
child = os.fork()
if not child:
    steps.hold = threading.Event()  # the parent's may be locked: its thread may just have begun to wait
    steps.hold.set()
    clock.advance(0.2)
    breaker.probe_if_due(clock.now_us())
    for thread in threading.enumerate():
        if thread.name == "apigate-probe":
            thread.join(10)
    os._exit(7 if breaker.is_open or len(told) != 2 else 0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
os._exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_forked_while_it_is_open_tries_the_store_itself():
    program = FORK.format(path=sys.path)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=30, check=False)
    assert done.returncode == 0
