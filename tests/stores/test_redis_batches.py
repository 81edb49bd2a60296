"""What waits in an event loop at the same moment goes to the server together, and nobody waits for others to come."""

import asyncio

import pytest

from apigate.core.errors import StoreError
from apigate.stores.redis import RedisStore
from tests.outages import tasks_run
from tests.stores.asking import PATIENT_MS, Asked, Threads, limits

MOST = 128


@pytest.fixture
def asked(redis_server):
    store = RedisStore(redis_server.uri, deadline_ms=PATIENT_MS, denial_cache=False, server_time=False)
    yield Asked(Threads(), store, limits("100000/hour", "1000/hour"))
    store.close()


def test_200_tasks_at_once_share_a_few_trips(redis_server, asked):
    async def serve():
        await asked.call(("warm", "warm"))
        before = redis_server.scripts()
        decisions = await asyncio.gather(*[asked.call((f"key-{number}", "all")) for number in range(200)])
        return redis_server.scripts() - before, decisions

    trips, decisions = asyncio.run(serve())
    assert trips == 2  # 128 and 72
    assert [decision.buckets[1].remaining for decision in decisions] == list(range(999, 799, -1))  # as they came


def test_one_more_than_a_batch_holds_is_two(redis_server, asked):
    async def serve(count):
        before = redis_server.scripts()
        await asyncio.gather(*[asked.call() for _ in range(count)])
        return redis_server.scripts() - before

    asyncio.run(serve(1))
    assert [asyncio.run(serve(count)) for count in (1, MOST, MOST + 1, 3 * MOST)] == [1, 1, 2, 3]


def test_each_task_gets_the_answer_to_what_it_asked(redis_server, asked):
    async def one(number):
        cost, key = number % 7 + 1, f"key-{number}"
        if number % 5 == 4:
            await asked.buckets.adjust([key, key], [cost, 0], 0)
            decision = await asked.buckets.peek([key, key], [0, 0], 0)
        else:
            decision = await asked.call((key, key), cost)
        return decision.buckets[0].remaining == 100_000 - cost

    async def serve():
        return await asyncio.gather(*[one(number) for number in range(500)])

    assert all(asyncio.run(serve()))


def test_in_one_batch_too_a_bucket_is_taken_from_once_for_each(redis_server, asked):
    async def serve():
        decisions = await asyncio.gather(*[asked.call(("one", "one"), 10) for _ in range(120)])
        return sum(decision.allowed for decision in decisions)

    assert asyncio.run(serve()) == 100
    assert asked.left("one", "one") == [99_000, 0]


def test_a_batch_of_limits_by_the_dozen_fits_what_a_script_may_hold(redis_server):
    """64 keys a call are 8,192 in a batch of 128, which is more than Lua unpacks."""
    store = RedisStore(redis_server.uri, deadline_ms=PATIENT_MS, server_time=False)
    asked = Asked(Threads(), store, limits(*["1000/hour"] * 64))

    async def serve():
        return await asyncio.gather(*[asked.call() for _ in range(200)])

    assert sorted([decision.remaining for decision in asyncio.run(serve())], reverse=True) == list(range(999, 799, -1))
    store.close()


def test_an_idle_line_sends_at_the_end_of_the_turn_and_sets_no_timer_to_wait_for_others(redis_server, asked):
    """Between the question and the first wait of the loop stands nothing but turns that are due at once."""

    async def serve():
        await asked.call()
        loop = asyncio.get_running_loop()
        line = asked.buckets._store.connections.line(loop)
        task = asyncio.ensure_future(asked.call())
        turns = 0
        while line._idle:  # then no connection is in use, so the question is not on its way
            await asyncio.sleep(0)
            turns += 1
        assert not task.done()
        await task
        return turns

    assert asyncio.run(serve()) == 2  # the caller's, and then the trip's


def test_what_comes_while_trips_are_under_way_gathers_and_goes_with_the_next(own_redis, relay):
    store = RedisStore(f"redis://127.0.0.1:{relay.port}/0", deadline_ms=PATIENT_MS, denial_cache=False)
    asked = Asked(Threads(), store, limits("100000/hour"))

    async def serve():
        await asyncio.gather(*[asked.call() for _ in range(200)])
        before = own_redis.scripts()
        relay.hold()
        tasks = []
        for _ in range(30):
            tasks.append(asyncio.ensure_future(asked.call()))
            await tasks_run()
        relay.release()
        await asyncio.gather(*tasks)
        return own_redis.scripts() - before

    assert asyncio.run(serve()) == 3
    store.close()


def test_a_fault_hits_all_of_its_batch_and_nobody_else(own_redis, relay):
    store = RedisStore(f"redis://127.0.0.1:{relay.port}/0", deadline_ms=PATIENT_MS, server_time=False)
    asked = Asked(Threads(), store, limits("100000/hour"))

    async def serve():
        await asked.call()
        relay.lose_next_answer()
        lost = await asyncio.gather(*[asked.call() for _ in range(50)], return_exceptions=True)
        others = await asyncio.gather(*[asked.call() for _ in range(50)], return_exceptions=True)
        return lost, others

    lost, others = asyncio.run(serve())
    assert {type(answer) for answer in lost} == {StoreError}
    assert all(isinstance(answer.__cause__, Exception) for answer in lost)
    assert len(set(map(id, lost))) == 50  # each has an exception of its own, with a traceback of its own
    assert [answer.remaining for answer in others] == list(range(100_000 - 52, 100_000 - 102, -1))
    store.close()


def test_whoever_gave_up_before_the_question_left_takes_nothing(own_redis, relay):
    store = RedisStore(f"redis://127.0.0.1:{relay.port}/0", deadline_ms=PATIENT_MS, server_time=False)
    asked = Asked(Threads(), store, limits("100000/hour"))

    async def serve():
        await asyncio.gather(*[asked.call() for _ in range(200)])
        relay.hold()
        under_way = [asyncio.ensure_future(asked.call()) for _ in range(2)]
        await tasks_run()
        under_way.append(asyncio.ensure_future(asked.call()))
        await tasks_run()
        waiting = [asyncio.ensure_future(asked.call()) for _ in range(10)]
        await tasks_run()
        for task in waiting[::2]:
            task.cancel()
        relay.release()
        await asyncio.wait(under_way + waiting)

    asyncio.run(serve())
    assert asked.left() == [100_000 - 200 - 3 - 5]
    store.close()
