"""Event loops that come and go, several at once, and cancelled callers: nothing leaks, and no answer goes astray."""

import asyncio
import gc
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from apigate import ProtocolError, Throttle
from apigate.core.errors import StoreError
from apigate.stores.redis import RedisStore
from tests.servers import until
from tests.stores.asking import PATIENT_MS, Asked, Tasks, Threads, limits

TWO = ("100000/hour", "100000/hour")
LEASE = 20


@pytest.fixture
def store(redis_server):
    store = RedisStore(redis_server.uri, deadline_ms=PATIENT_MS, denial_cache=False, server_time=False)
    yield store
    store.close()


def connections_at(server):
    """How many clients the server has, but for the test's own."""
    return sum(str(server.socket) not in line for line in server.command("CLIENT", "LIST").splitlines())


def open_files():
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(params=["redis", "valkey", "sentinel", "cluster"])
def address(request):
    """Addresses whose async clients differ."""
    if request.param == "cluster":
        return request.getfixturevalue("redis_cluster").uri
    if request.param == "sentinel":
        return request.getfixturevalue("redis_sentinel").uri
    return request.getfixturevalue("redis_server").uri.replace("redis:", f"{request.param}:")


def test_an_event_loop_for_each_request_leaves_nothing_open(address):
    store = RedisStore(address, deadline_ms=PATIENT_MS)
    asked = Asked(Threads(), store, limits(*TWO))

    async def request():
        return await asked.call()

    asyncio.run(request())
    before = open_files()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [asyncio.run(request()).allowed for _ in range(100)] == [True] * 100
    assert open_files() <= before  # what another test has left may be closed meanwhile
    store.close()


def test_so_the_server_sees_each_of_them_leave(redis_server, store):
    asked = Asked(Threads(), store, limits(*TWO))
    before = connections_at(redis_server)

    async def request():
        await asyncio.gather(*[asked.call() for _ in range(300)])

    for _ in range(20):
        asyncio.run(request())
    until(lambda: connections_at(redis_server) == before, "all connections are closed")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_loops_that_are_closed_without_ceremony_leave_nothing_behind_once_there_is_another(redis_server, store):
    """As some servers and test suites do; whoever does is warned by Python."""
    asked = Asked(Threads(), store, limits(*TWO))

    async def request():
        return await asked.call()

    before = connections_at(redis_server)
    for _ in range(20):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(request()).allowed
        loop.close()
    assert asyncio.run(request()).allowed
    del loop
    gc.collect()
    until(lambda: connections_at(redis_server) == before, "all connections are closed")
    assert len(store.connections._lines) == 1
    asyncio.run(store.close_async())


def test_a_loop_may_close_its_connections_itself_and_go_on(redis_server, store):
    asked = Asked(Threads(), store, limits(*TWO))

    async def serve():
        for _ in range(3):
            assert (await asked.call()).allowed
            await store.close_async()

    before = connections_at(redis_server)
    asyncio.run(serve())
    until(lambda: connections_at(redis_server) == before, "all connections are closed")


def test_two_loops_in_two_threads_do_not_meet(redis_server, store):
    asked = Asked(Threads(), store, limits(*TWO))
    found = []

    async def hits(key):
        for cost in range(1, 20):
            decisions = await asyncio.gather(*[asked.call((key, f"{key}{number}"), cost) for number in range(10)])
            found.extend(decision.allowed and list(decision.costs) == [cost] * 2 for decision in decisions)

    threads = [threading.Thread(target=lambda key=key: asyncio.run(hits(key))) for key in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), all(found)) == (380, True)
    assert asked.left("a", "b0")[0] == asked.left("b", "a0")[0] == 100_000 - 1_900


def test_many_loops_that_come_and_go_in_many_threads_never_raise(redis_server, store):
    asked = Asked(Threads(), store, limits(*TWO))

    async def request():
        return await asked.call()

    answers = Threads().at_once([lambda: [asyncio.run(request()).allowed for _ in range(25)]] * 8)
    assert answers == [[True] * 25] * 8


def test_threads_and_tasks_of_one_process_share_the_state(redis_server, store):
    throttle = Throttle({"client": "200/hour"}, store=store, name="shop")

    async def tasks():
        told = await asyncio.gather(*[throttle.acquire_async({"client": "a"}) for _ in range(100)])
        return [decision.allowed for decision in told]

    def thread():
        return [throttle.acquire({"client": "a"}).allowed for _ in range(60)]

    admitted = Threads().at_once([thread, thread, lambda: asyncio.run(tasks())])
    assert sum(map(sum, admitted)) == 200


def test_a_thread_beside_a_running_loop_asks_without_it(redis_server, store):
    """As FastAPI runs endpoints that are no coroutines."""
    throttle = Throttle({"client": "2/hour"}, store=store, name="shop")

    async def serve():
        first = await asyncio.to_thread(throttle.acquire, {"client": "a"})
        second = await throttle.acquire_async({"client": "a"})
        third = await asyncio.to_thread(throttle.acquire, {"client": "a"})
        return first.allowed, second.allowed, third.allowed

    assert asyncio.run(serve()) == (True, True, False)


@pytest.mark.parametrize("lease", [1, LEASE])
@pytest.mark.parametrize("method", ["acquire", "peek", "reset"])
def test_a_call_for_threads_within_a_running_loop_says_what_to_do(redis_server, method, lease):
    store = RedisStore(redis_server.uri, deadline_ms=PATIENT_MS, lease=lease)
    throttle = Throttle({"client": "20/hour"}, store=store, name="shop")

    async def wrong():
        with pytest.raises(ProtocolError, match=f"use {method}_async"):
            getattr(throttle, method)({"client": "a"})
        return await throttle.peek_async({"client": "a"}, cost=0)

    assert asyncio.run(wrong()).remaining == 20
    store.close()


def test_calls_that_nobody_awaits_do_not_stop_a_process_from_taking_ahead(redis_server):
    store = RedisStore(redis_server.uri, deadline_ms=PATIENT_MS, lease=LEASE)
    asked = Asked(Threads(), store, limits("100000/hour"))

    async def serve():
        asked.call().close()
        first = await asked.call()
        return [first.round_trips, *[asked.call().round_trips for _ in range(LEASE - 1)]]

    assert asyncio.run(serve()) == [1] + [0] * (LEASE - 1)
    store.close()


# ---- cancelled callers


def test_a_cancelled_caller_leaves_the_answers_of_others_theirs(redis_server, store):
    asked = Asked(Threads(), store, limits("100000/hour"))

    async def one(number):
        decision = await asked.call((f"key-{number}",), number + 1)
        return decision.remaining == 100_000 - number - 1

    async def serve():
        right = []
        for round_number in range(20):
            tasks = [asyncio.ensure_future(one(round_number * 40 + number)) for number in range(40)]
            for _ in range(round_number % 5):
                await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    right.append(await task)
        return right

    right = asyncio.run(serve())
    assert len(right) >= 20 * 26
    assert all(right)


def test_callers_who_give_up_while_answers_are_late_get_nobody_elses(own_redis, relay):
    store = RedisStore(f"redis://127.0.0.1:{relay.port}/0", deadline_ms=PATIENT_MS, server_time=False)
    asked = Asked(Threads(), store, limits("100000/hour"))

    async def serve():
        await asked.call()
        relay.hold()
        for cost in (3, 5, 7):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asked.call((f"gone-{cost}",), cost)
        relay.release()
        return [(await asked.call((f"key-{cost}",), cost)).remaining for cost in (11, 13, 17)]

    assert asyncio.run(serve()) == [100_000 - 11, 100_000 - 13, 100_000 - 17]
    store.close()


def test_a_loop_that_ends_while_calls_are_under_way_ends_them_with_a_fault_or_a_cancellation(own_redis):
    store = RedisStore(own_redis.uri, deadline_ms=PATIENT_MS)
    asked = Asked(Threads(), store, limits(*TWO))

    async def serve():
        await asked.call()
        own_redis.pause()
        waiting = [asyncio.ensure_future(asked.call()) for _ in range(5)]
        await asyncio.sleep(0.02)
        return waiting

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        waiting = asyncio.run(serve())
    assert all(task.cancelled() or isinstance(task.exception(), StoreError) for task in waiting)
    own_redis.resume()
    tasks = Tasks()
    assert Asked(tasks, store, limits(*TWO)).acquire().allowed
    tasks.close()
    store.close()
