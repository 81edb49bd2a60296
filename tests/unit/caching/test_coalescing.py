"""Flights: one leads, the others wait; whatever ends a leader or a waiter, nobody waits for nobody."""

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading

import pytest

from apigate import ConfigurationError
from apigate.caching import coalescing
from apigate.caching.coalescing import Alone, Flights, Lead, Wait
from tests.flights import under_way

KEY, OTHER = ("GET", "/pets"), ("GET", "/shops")
LONG = 20
SECOND = 1_000_000


def waiting(flights, key=KEY):
    return len(flights._board.flights[key].waiting)


async def until_waiting(flights, number, key=KEY):
    while waiting(flights, key) < number:  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(0)


def apart(function, *arguments):
    """Run it in a context that knows nothing of this one, as another request."""
    return contextvars.Context().run(function, *arguments)


def join(flights, key=KEY, now_us=0):
    return apart(flights.join, key, now_us)


async def ask(flights, key=KEY, seconds=LONG):
    """What another request is told in the end."""
    place = flights.join(key, 0)
    return await place.wait_async(seconds) if isinstance(place, Wait) else place


def asking(flights, number):
    """Requests that wait for the flight of KEY, in tasks of the running loop."""
    return [asyncio.create_task(ask(flights), context=contextvars.Context()) for _ in range(number)]


def in_thread(function, *arguments):
    """Begin it in a thread; gives the thread, and what the function will have told."""
    told = []
    thread = threading.Thread(target=lambda: told.append(function(*arguments)), daemon=True)
    thread.start()
    return thread, told


# Joining


def test_the_first_leads_and_the_next_waits():
    flights = Flights()
    lead = join(flights)
    assert isinstance(lead, Lead)
    assert isinstance(join(flights), Wait)
    other = join(flights, OTHER)
    assert isinstance(other, Lead)
    assert under_way(flights) == 2


def test_an_empty_key_has_nothing_in_common_with_another_one():
    flights = Flights()
    assert [join(flights, ()), join(flights, ())] == [Alone.KEYLESS] * 2
    assert under_way(flights) == 0


def test_who_joins_after_a_landing_leads_the_next_flight():
    flights = Flights()
    join(flights).land("pets")
    assert isinstance(join(flights), Lead)


@pytest.mark.parametrize("setting", [{"max_waiters": -1}, {"max_waiters": 1.5}, {"refusal_seconds": -1}])
def test_a_wrong_setting_is_refused(setting):
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        Flights(**setting)


# Landing


def test_a_wait_that_begins_after_the_landing_is_told_at_once():
    flights = Flights()
    lead, late, later = join(flights), join(flights), join(flights)
    lead.land("pets")
    assert late.wait(LONG) == "pets"
    assert asyncio.run(later.wait_async(LONG)) == "pets"


def test_threads_and_tasks_of_several_loops_get_what_a_thread_lands():
    flights, landed = Flights(), object()
    lead = join(flights)
    told = [in_thread(lambda: flights.join(KEY, 0).wait(LONG)) for _ in range(3)]
    told += [in_thread(lambda: asyncio.run(ask(flights))) for _ in range(2)]
    while waiting(flights) < 5:
        pass
    lead.land(landed)
    for thread, _ in told:
        thread.join(LONG)
    assert [answer for _, answer in told] == [[landed]] * 5
    assert under_way(flights) == 0


def test_threads_and_tasks_get_what_a_task_lands():
    flights = Flights()

    async def program():
        lead = join(flights)
        thread, told = in_thread(lambda: flights.join(KEY, 0).wait(LONG))
        tasks = asking(flights, 3)
        await until_waiting(flights, 4)
        lead.land("pets")
        thread.join(LONG)
        return told + await asyncio.gather(*tasks)

    assert asyncio.run(program()) == ["pets"] * 4


def test_a_second_word_of_a_leader_does_not_count():
    flights = Flights()
    lead = join(flights)
    lead.land("pets")
    following = join(flights)
    lead.fail()
    lead.refuse(0)
    lead.land("other pets")
    place = join(flights)
    following.land("pets of today")
    assert place.wait(LONG) == "pets of today"


def test_a_landed_response_is_not_kept():
    class Response:
        pass

    flights, response = Flights(), Response()
    flights.join(KEY, 0).land(response)  # in this very context, which remembers its terms
    assert not [held for held in gc.get_referrers(response) if not isinstance(held, type(sys._getframe()))]


# Refusals


def test_those_who_wait_go_on_alone_as_soon_as_storage_refuses():
    flights = Flights()

    async def program():
        lead = join(flights)
        tasks = asking(flights, 3)
        await until_waiting(flights, 3)
        lead.refuse(0)
        return await asyncio.gather(*tasks)

    assert asyncio.run(program()) == [Alone.REFUSED] * 3
    assert under_way(flights) == 0


def test_a_refused_key_is_not_coalesced_for_a_while():
    flights = Flights(refusal_seconds=10)
    join(flights).refuse(5 * SECOND)
    assert join(flights, now_us=15 * SECOND - 1) is Alone.REFUSED
    assert isinstance(join(flights, OTHER, 15 * SECOND - 1), Lead)
    again = join(flights, now_us=15 * SECOND)
    assert isinstance(again, Lead)


def test_remembered_refusals_are_bounded():
    flights = Flights()
    for number in range(10_000):
        join(flights, (str(number),)).refuse(0)
        assert len(flights._board.refused) <= coalescing._MOST_REFUSALS
    assert join(flights, ("9999",)) is Alone.REFUSED


# Leaders that fail


def test_one_who_waits_leads_on_for_the_others():
    flights = Flights()

    async def program():
        lead = join(flights)
        tasks = asking(flights, 4)
        await until_waiting(flights, 4)
        lead.fail()
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(pending), waiting(flights)) == (1, 3, 3)
        done.pop().result().land("pets")
        return await asyncio.gather(*pending)

    assert asyncio.run(program()) == ["pets"] * 3


def test_without_anybody_waiting_a_failed_flight_is_over():
    flights = Flights()
    join(flights).fail()
    assert under_way(flights) == 0


def test_of_waits_that_begin_after_the_failure_one_leads_and_the_others_wait_for_that_one():
    flights = Flights()
    lead, first, second = join(flights), join(flights), join(flights)
    lead.fail()
    leading = apart(first.wait, LONG)
    assert isinstance(leading, Lead)
    thread, told = in_thread(second.wait, LONG)
    while not waiting(flights):
        pass
    leading.land("pets")
    thread.join(LONG)
    assert told == ["pets"]


def test_a_lead_that_is_lost_without_a_word_has_failed():
    flights = Flights()
    lead = join(flights)
    thread, told = in_thread(lambda: apart(flights.join(KEY, 0).wait, LONG))
    while not waiting(flights):
        pass
    del lead
    gc.collect()
    thread.join(LONG)
    assert isinstance(told[0], Lead)
    told.clear()
    gc.collect()
    assert under_way(flights) == 0


# Limits


def test_of_those_who_waited_as_long_as_they_may_one_leads_and_the_others_go_on_alone(monkeypatch):
    flights = Flights()
    slow = join(flights)
    both_wait = threading.Barrier(2)

    class Late:
        """Its time is up once both wait; a short one may be up for the first before the second has come."""

        def acquire(self, timeout=None):
            if timeout is not None:
                both_wait.wait(LONG)
            return timeout is None

    with monkeypatch.context() as patched:
        patched.setattr(coalescing, "Lock", Late)
        told = [in_thread(lambda: apart(flights.join(KEY, 0).wait, LONG)) for _ in range(2)]
        for thread, _ in told:
            thread.join(LONG)
    (leading,) = [answer for _, (answer,) in told if answer is not Alone.LATE]
    assert isinstance(leading, Lead)
    place = join(flights)
    slow.fail()  # no longer its business
    leading.land("pets")
    slow.land("pets of yesterday")
    assert place.wait(LONG) == "pets"


def test_tasks_have_the_same_limit():
    flights = Flights()

    async def program():
        slow = join(flights)
        answers = await asyncio.gather(*(ask(flights, seconds=0) for _ in range(3)))
        slow.land("pets")
        return answers

    answers = apart(asyncio.run, program())
    assert sorted(isinstance(answer, Lead) for answer in answers) == [False, False, True]
    assert answers.count(Alone.LATE) == 2


def test_who_was_overtaken_may_land_for_all_as_well():
    flights = Flights()
    slow = join(flights)
    overtaking = apart(join(flights).wait, 0)
    place = join(flights)
    slow.land("pets")
    overtaking.land("other pets")
    assert place.wait(LONG) == "pets"
    assert under_way(flights) == 0


def test_a_negative_limit_is_none_left():
    flights = Flights()
    slow = join(flights)
    overtaking = apart(join(flights).wait, -1)
    assert isinstance(overtaking, Lead)
    slow.fail()
    overtaking.fail()


def test_who_comes_to_a_crowd_goes_on_alone():
    flights = Flights(max_waiters=2)

    async def program():
        lead = join(flights)
        tasks = asking(flights, 2)
        await until_waiting(flights, 2)
        assert await asyncio.gather(*asking(flights, 3)) == [Alone.CROWDED] * 3
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        place = asking(flights, 1)
        await until_waiting(flights, 2)
        lead.land("pets")
        return await asyncio.gather(*place, tasks[1])

    assert asyncio.run(program()) == ["pets"] * 2


# Requests within requests


def test_who_leads_does_not_wait_for_itself_nor_for_others():
    flights = Flights()

    def request():
        own = flights.join(KEY, 0)
        assert flights.join(KEY, 0) is Alone.LEADING
        assert flights.join(OTHER, 0) is Alone.LEADING
        own.land("pets")
        return flights.join(OTHER, 0)

    lead = join(flights, OTHER)
    assert isinstance(apart(request), Wait)
    lead.fail()


def test_who_leads_may_lead_another_flight_and_is_known_to_lead_the_first_after_it():
    flights = Flights()

    def request():
        outer = flights.join(KEY, 0)
        flights.join(OTHER, 0).land("shops")
        assert flights.join(KEY, 0) is Alone.LEADING
        inner = flights.join(OTHER, 0)
        outer.land("pets")
        third = flights.join(KEY, 0)
        assert isinstance(third, Lead)
        assert flights.join(OTHER, 0) is Alone.LEADING
        inner.fail()
        third.fail()
        assert isinstance(flights.join(("another",), 0), Lead)

    apart(request)
    assert under_way(flights) == 0


def test_a_task_that_a_leading_request_has_begun_is_known_to_belong_to_it():
    flights = Flights()

    async def request():
        lead = flights.join(KEY, 0)
        within = await asyncio.create_task(ask(flights))
        lead.land("pets")
        return within

    assert apart(asyncio.run, request()) is Alone.LEADING


def test_who_was_promoted_is_known_to_lead():
    flights = Flights()

    def request():
        leading = place.wait(LONG)
        within = flights.join(KEY, 0)
        leading.fail()
        return within

    lead, place = join(flights), join(flights)
    lead.fail()
    assert apart(request) is Alone.LEADING


def test_a_thread_whose_loop_runs_does_not_block():
    flights = Flights()

    async def program():
        lead = join(flights)
        assert join(flights).wait(LONG) is Alone.LOOP
        lead.fail()

    asyncio.run(program())


# Waiters that go


def test_a_waiter_that_is_cancelled_is_forgotten_and_the_others_wait_on():
    flights = Flights()

    async def program():
        lead = join(flights)
        tasks = asking(flights, 3)
        await until_waiting(flights, 3)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        assert waiting(flights) == 2
        lead.land("pets")
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, cancelled, last = asyncio.run(program())
    assert (first, last) == ("pets", "pets")
    assert isinstance(cancelled, asyncio.CancelledError)


def test_who_is_cancelled_after_the_promotion_and_before_it_runs_hands_the_lead_on():
    flights = Flights()

    async def program():
        lead = join(flights)
        tasks = asking(flights, 3)
        await until_waiting(flights, 3)
        lead.fail()
        tasks[2].cancel()  # the last to come has the lead, and does not know yet
        done, pending = await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        done.pop().result().land("pets")
        return await asyncio.gather(*pending)

    assert asyncio.run(program()) == ["pets"]
    assert under_way(flights) == 0


def test_an_interrupted_thread_hands_the_lead_on(monkeypatch):
    """As where a server ends a request that takes too long by an exception in its thread."""
    flights = Flights()
    lead, place = join(flights), join(flights)

    class Interrupted:
        def acquire(self, timeout=None):
            if timeout is not None:
                lead.fail()
                raise KeyboardInterrupt

        def release(self):
            pass

    monkeypatch.setattr(coalescing, "Lock", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        place.wait(LONG)
    assert under_way(flights) == 0


def waiters_of_a_closed_loop(flights, number):
    """Tasks that wait for ever, as their loop was closed under them."""
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(ask(flights)) for _ in range(number)]
    for task in tasks:
        task._log_destroy_pending = False
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    return tasks


def test_waiters_whose_loop_is_closed_do_not_keep_a_response_from_the_others():
    flights = Flights()
    lead = join(flights)
    gone = apart(waiters_of_a_closed_loop, flights, 2)
    thread, told = in_thread(lambda: flights.join(KEY, 0).wait(LONG))
    while waiting(flights) < 3:
        pass
    lead.land("pets")
    thread.join(LONG)
    assert told == ["pets"]
    del gone


def test_the_lead_passes_over_waiters_whose_loop_is_closed():
    flights = Flights()
    lead = join(flights)
    thread, told = in_thread(lambda: flights.join(KEY, 0).wait(LONG))
    while not waiting(flights):
        pass
    gone = apart(waiters_of_a_closed_loop, flights, 500)
    lead.fail()
    thread.join(LONG)
    assert isinstance(told[0], Lead)
    del gone
    gc.collect()  # what was offered to them is nobody's by now
    told.pop().land("pets")
    assert under_way(flights) == 0


def test_without_anybody_but_waiters_of_a_closed_loop_the_flight_is_over():
    flights = Flights()
    lead = join(flights)
    gone = apart(waiters_of_a_closed_loop, flights, 3)
    lead.fail()
    assert under_way(flights) == 0
    del gone


def test_a_waiter_whose_loop_is_closed_right_after_its_promotion_hands_the_lead_on_when_it_is_collected():
    flights = Flights()
    lead = join(flights)
    loop = asyncio.new_event_loop()
    task = loop.create_task(ask(flights), context=contextvars.Context())
    task._log_destroy_pending = False
    loop.call_soon(loop.stop)
    loop.run_forever()
    lead.fail()
    assert under_way(flights) == 1
    loop.close()
    del task
    gc.collect()
    assert under_way(flights) == 0


def test_what_the_garbage_collector_ends_in_the_middle_of_a_step_does_not_hang():
    flights = Flights()
    leads = [join(flights), join(flights, OTHER)]
    gone = apart(waiters_of_a_closed_loop, flights, 2)

    def step():
        with flights._board.lock:
            gone.clear()
            leads.clear()
            gc.collect()
        return under_way(flights)

    thread, told = in_thread(step)
    thread.join(LONG)
    assert told == [0]


# Processes

CHILD = """
import contextvars, os, signal, sys, threading
sys.path[:0] = {path!r}
from apigate.caching.coalescing import Flights, Wait

flights = Flights()
lead = flights.join(("mine",), 0)
held, over = threading.Event(), threading.Event()

def hold():
    other = flights.join(("other",), 0)
    with flights._board.lock:
        held.set()
        over.wait(20)
    other.land("of the parent")

thread = threading.Thread(target=hold)
thread.start()
held.wait(20)
child = os.fork()
if not child:
    signal.alarm(10)  # ends it where it hangs
    before = len(flights._board.flights)
    other = contextvars.Context().run(flights.join, ("other",), 0)
    place = flights.join(("other",), 0)  # this context leads nothing any more, or it could not wait
    lead.land("of the parent")
    other.land("of the child")
    os._exit(before != 0 or not isinstance(place, Wait) or place.wait(5) != "of the child")
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
over.set()
thread.join()
os._exit(status or len(flights._board.flights) != 1)  # that of this thread
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_inherits_no_flights_and_no_lead():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD.format(path=sys.path)], timeout=60, check=False)
    assert done.returncode == 0


def test_asyncio_is_imported_only_by_who_waits_in_a_task():
    script = "import apigate.caching.coalescing, sys; print('asyncio' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"
