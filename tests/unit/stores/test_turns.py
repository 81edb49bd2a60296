"""Turns: one after the other for each name, in threads and in loops; who waits too long blames no store."""

import asyncio
import threading

import pytest

from apigate import StoreTimeoutError
from apigate.stores.turns import Turns

SHORT, LONG = 0.01, 10


def test_threads_of_one_name_follow_one_another_and_those_of_others_go_on():
    turns, order = Turns(LONG), []
    first = turns.turn("a")
    assert first.begin() is None
    assert not first.waited
    other = turns.turn("b")
    assert other.begin() is None
    waits = threading.Event()

    def second():
        turn = turns.turn("a")
        waits.set()
        turn.begin()
        order.append("second")
        assert turn.waited
        turn.end()

    thread = threading.Thread(target=second)
    thread.start()
    assert waits.wait(10)
    while turns._queues._known["a"].users < 2 and thread.is_alive():
        pass
    order.append("first")
    first.end()
    thread.join(10)
    other.end()
    assert order == ["first", "second"]
    assert turns._queues._known == {}


def test_who_was_first_has_waited_for_nobody_though_another_comes_before_it_goes_on():
    turns = Turns(LONG)
    queues = turns._queues
    join = queues.join

    def joined(name):
        mine = join(name)
        join(name)  # by another thread
        return mine

    queues.join = joined
    first = turns.turn("a")
    first.begin()
    assert not first.waited


def test_tasks_of_one_name_follow_one_another_in_the_order_in_which_they_came():
    turns, order = Turns(LONG), []

    async def ask(number):
        turn = turns.turn("a")
        waiting = turn.begin()
        if waiting is not None:
            await waiting
        order.append(number)
        await asyncio.sleep(0)
        order.append(number)
        turn.end()

    async def program():
        await asyncio.gather(*(ask(number) for number in range(5)))
        assert list(turns._of_loops.values()) == [{}]

    asyncio.run(program())
    assert order == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_thread_that_waits_too_long_blames_no_store():
    turns = Turns(SHORT)
    turns.turn("a").begin()
    with pytest.raises(StoreTimeoutError, match="others of this process wrote 'a' for 10 ms") as raised:
        turns.turn("a").begin()
    assert not raised.value.blames_store
    assert turns._queues._known["a"].users == 1


def test_a_task_that_waits_too_long_blames_no_store_and_holds_nobody_up():
    turns = Turns(SHORT)

    async def program():
        first = turns.turn("a")
        first.begin()
        with pytest.raises(StoreTimeoutError, match="others of this process wrote 'a' for 10 ms") as raised:
            await turns.turn("a").begin()
        assert not raised.value.blames_store
        first.end()
        assert turns.turn("a").begin() is None

    asyncio.run(program())


@pytest.mark.parametrize("when", ["before its turn", "as its turn comes", "as the one before ends"])
def test_a_task_that_is_cancelled_passes_its_turn_on(when):
    turns = Turns(LONG)

    async def wait():
        turn = turns.turn("a")
        await turn.begin()
        turn.end()

    async def program():
        first = turns.turn("a")
        first.begin()
        given_up, last = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)
        if when == "before its turn":
            given_up.cancel()
            await asyncio.sleep(0)
            first.end()
        elif when == "as its turn comes":
            first.end()
            given_up.cancel()
        else:
            given_up.cancel()
            first.end()
        await asyncio.wait_for(last, 10)
        assert given_up.cancelled()
        assert list(turns._of_loops.values()) == [{}]

    asyncio.run(program())


def test_a_forked_process_waits_for_nobody_of_its_parent():
    turns = Turns(SHORT)
    turns.turn("a").begin()
    turns.renew()
    assert turns.turn("a").begin() is None
