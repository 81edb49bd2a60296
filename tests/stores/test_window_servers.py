"""Windows on real servers: exact whoever asks, and a server that is gone; MongoDB by what stands in for it."""

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apigate import ConfigurationError, Gateway, Method, Rate, StoreError, StoreTimeoutError, Throttle, Window
from apigate.stores.memcached import MemcachedStore
from apigate.stores.memory import MemoryStore
from apigate.stores.mongodb import MongoDBStore
from apigate.stores.redis import RedisStore
from apigate.testing import FakeClock
from apigate.throttling.combined import open_buckets
from apigate.throttling.limit import Limit
from apigate.throttling.window import KINDS
from tests.gateway.asking import ask, ask_in_task, built
from tests.servers import Memcached, MongoStandIn, RedisServer
from tests.stores.asking import TRIES, in_time, limits, timed
from tests.window_contract import START_US, each_kind, limit

DEADLINE_MS = 10_000  # where a test is not about time, as the machine may be busy
SECOND = 1_000_000
LATE = 1.0
"""Seconds that a busy machine may add to a deadline."""


class RedisForWindows(MemoryStore):
    """Buckets in memory, windows in Redis."""

    def __init__(self, uri, deadline_ms):
        super().__init__()
        self.far = RedisStore(uri, deadline_ms=deadline_ms)

    def windows(self):
        return self.far.windows()

    def close(self):
        self.far.close()


STORES: dict[str, tuple[str, Callable[[str, int], Any]]] = {
    "redis": ("redis_server", RedisForWindows),
    "memcached": ("memcached", MemcachedStore),
    "mongodb": ("mongodb", MongoDBStore),
}
OWN = {"redis": RedisServer, "memcached": Memcached, "mongodb": MongoStandIn}

each_store = pytest.mark.parametrize("name", STORES)


@pytest.fixture
def opened(request, name):
    """Opens stores on a server of this name, and closes them."""
    fixture, make = STORES[name]
    server = request.getfixturevalue(fixture)
    stores = []

    def opens(deadline_ms=DEADLINE_MS):
        stores.append(make(server.uri, deadline_ms))
        return stores[-1]

    yield opens
    for store in stores:
        store.close()


@pytest.fixture
def own(name):
    """A server that the test may do anything to, and a store on it with a deadline of 300 ms."""
    if name == "memcached" and Memcached.PROGRAM is None:
        pytest.skip("memcached is not on the path")
    with OWN[name]() as server:
        store = STORES[name][1](server.uri, 300)
        yield server, store
        store.close()


def throttle(store, kind="fixed", text="50/hour"):
    return Throttle({"client": Window(text, kind=kind)}, store=store, clock=FakeClock(), name="shop")


# ---- the same everywhere

traces = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "acquire", "acquire", "peek", "refund", "more", "reset"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 6),
        st.sampled_from([0, 1, 999_999, 2_500_000, 7_000_001, 10_000_000, 25_000_000]),
    ),
    max_size=25,
)


@pytest.fixture
def everywhere(redis_server, mongodb, request):
    """The same windows in memory and on every server, each by the time it is handed."""
    stores = [MongoDBStore(mongodb.uri, DEADLINE_MS, host_time=False)]
    if Memcached.PROGRAM is not None:
        stores.append(MemcachedStore(request.getfixturevalue("memcached").uri, DEADLINE_MS, host_time=False))
    stores.append(RedisStore(redis_server.uri, deadline_ms=DEADLINE_MS, server_time=False))
    yield [store.windows() for store in stores]
    for store in stores:
        store.close()


@each_kind
def test_one_trace_gives_the_same_answers_in_memory_and_on_every_server(everywhere, kind):
    run = [0]

    @settings(deadline=None, max_examples=40)
    @given(trace=traces)
    def answers_alike(trace):
        run[0] += 1
        asked = limit("6/10 seconds", kind, f"run{run[0]}")
        with asyncio.Runner() as runner:

            async def awaited(call):
                return await call()

            def in_loop(call):
                return runner.run(awaited(call))

            memory = _trace(MemoryStore().windows(), asked, trace, at_once)
            for windows in everywhere:
                for number, answer in enumerate((at_once, in_loop)):
                    found = _trace(windows, limit("6/10 seconds", kind, f"run{run[0]}:{number}"), trace, answer)
                    assert found == memory, windows

    answers_alike()


def at_once(call):
    return call()


def _trace(windows, asked, trace, answer):
    now, told, taken = START_US, [], {}
    for action, key, cost, pause in trace:
        now += pause

        def act(action=action, key=key, cost=cost, now=now):
            match action:
                case "acquire":
                    return windows.acquire(asked, key, cost, now)
                case "peek":
                    return windows.peek(asked, key, cost, now)
                case "refund":
                    return windows.adjust(asked, key, -cost, taken.get(key), now)
                case "more":
                    return windows.adjust(asked, key, cost, None, now)
                case _:
                    return windows.reset(asked, key)

        standing = answer(act)
        if standing is not None:
            told.append(standing._replace(round_trips=0))
            if action == "acquire" and standing.allowed and cost:
                taken[key] = standing.at
    return told


# ---- exact whoever asks


@pytest.mark.usefixtures("restless_interpreter")
@each_store
@each_kind
def test_threads_are_admitted_exactly(opened, name, kind):
    asked = throttle(opened(), kind, "23/hour")
    with ThreadPoolExecutor(8) as pool:
        admitted = sum(pool.map(lambda _: asked.acquire({"client": "a"}).allowed, range(60)))
    assert admitted == 23
    assert asked.peek({"client": "a"}, 0).remaining == 0


@each_store
@each_kind
def test_tasks_are_admitted_exactly(opened, name, kind):
    asked = throttle(opened(), kind, "23/hour")

    async def tasks():
        return await asyncio.gather(*(asked.acquire_async({"client": "a"}) for _ in range(60)))

    assert sum(decision.allowed for decision in asyncio.run(tasks())) == 23


@pytest.mark.parametrize("name", ["memcached", "mongodb"])
def test_those_of_one_process_do_not_undo_each_others_work(opened, name):
    asked = throttle(opened(), text="1000/hour")

    async def tasks():
        return await asyncio.gather(*(asked.acquire_async({"client": "a"}) for _ in range(80)))

    assert [decision.round_trips for decision in asyncio.run(tasks())] == [2] * 80
    with ThreadPoolExecutor(8) as pool:
        assert {each.round_trips for each in pool.map(lambda _: asked.acquire({"client": "a"}), range(80))} == {2}


@each_store
def test_processes_that_were_forked_off_share_one_window_with_their_parent(opened, name):
    """The parent has connected before, as with `gunicorn --preload`; a child connects anew."""
    asked = throttle(opened())
    assert asked.acquire({"client": "a"}).allowed
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if all(asked.acquire({"client": "a"}).allowed for _ in range(10)) else 2
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    assert asked.acquire({"client": "a"}).remaining == 50 - 1 - 30 - 1


@each_store
def test_threads_tasks_and_loops_that_come_and_go_share_one_window(opened, name):
    asked = throttle(opened())

    async def task():
        return (await asked.acquire_async({"client": "a"})).remaining

    assert [asyncio.run(task()) for _ in range(3)] == [49, 48, 47]
    assert asked.acquire({"client": "a"}).remaining == 46
    assert asyncio.run(task()) == 45


def test_a_loop_that_has_ended_leaves_no_connection_behind(redis_server):
    store = RedisForWindows(redis_server.uri, DEADLINE_MS)
    asked = throttle(store)

    async def task():
        await asked.acquire_async({"client": "a"})

    before = len(redis_server.command("CLIENT", "LIST").splitlines())
    for _ in range(5):
        asyncio.run(task())
    assert len(redis_server.command("CLIENT", "LIST").splitlines()) == before


def connections_at(server):
    return len(server.command("CLIENT", "LIST").splitlines())


def test_in_redis_buckets_and_windows_are_asked_over_the_same_connection(redis_server, caller, stores):
    store = stores(redis_server.uri)
    buckets, windows = store.open(limits("5/hour"), 0), store.windows()
    before = connections_at(redis_server)
    for _ in range(3):
        assert caller.ask(lambda: buckets.acquire(["a"], [1], 0)).allowed
        assert caller.ask(lambda: windows.acquire(limit(), "a", 1, 0)).allowed
    assert connections_at(redis_server) == before + 1


def test_in_redis_a_crowd_of_tasks_is_admitted_exactly_over_a_few_connections(redis_server):
    store = RedisStore(redis_server.uri, deadline_ms=DEADLINE_MS)

    async def crowd():
        told = await asyncio.gather(*(store.windows().acquire(limit("70/hour"), "a", 1, 0) for _ in range(300)))
        return sum(standing.allowed for standing in told), connections_at(redis_server)

    before = connections_at(redis_server)
    admitted, connections = asyncio.run(crowd())
    assert admitted == 70
    assert connections <= before + 32
    assert connections_at(redis_server) == before


def test_in_redis_a_window_and_a_bucket_of_one_name_never_meet(redis_server, caller, stores):
    store = stores(redis_server.uri)
    buckets = store.open([Limit("shop:client", "client", "client", Rate(5, per=3_600))], 0)
    for kind in KINDS:
        assert caller.ask(store.windows().acquire, limit(kind=kind), "a", 5, 0).allowed
    assert caller.ask(lambda: buckets.acquire(["a"], [5], 0)).allowed
    caller.ask(buckets.reset)
    left = sorted(redis_server.command("KEYS", "*"))
    assert left == [f"apigate:{{shop}}:client@{kind}=a" for kind in sorted(KINDS)]
    caller.ask(store.windows().reset, limit(kind="fixed"), None)
    assert sorted(redis_server.command("KEYS", "*")) == left[1:]


# ---- what it costs


@pytest.mark.parametrize(("name", "admitted", "refused"), [("redis", 1, 1), ("memcached", 2, 1), ("mongodb", 2, 1)])
@each_kind
def test_a_decision_says_how_often_the_server_was_asked(opened, name, kind, admitted, refused):
    asked = throttle(opened(), kind, "2/hour")
    trips = [asked.acquire({"client": "a"}).round_trips for _ in range(4)]
    assert trips == [admitted, admitted, refused, refused]


def test_in_redis_it_is_one_script(redis_server):
    asked = throttle(RedisForWindows(redis_server.uri, DEADLINE_MS))
    asked.acquire({"client": "a"})
    before = redis_server.commands()
    for _ in range(10):
        asked.acquire({"client": "a"})
    ran = redis_server.commands() - before
    assert ran["evalsha"] == 10
    assert not {"eval", "script", "ping"} & ran.keys()
    asked.store.close()


@pytest.mark.parametrize(("kind", "hours"), [("fixed", 1), ("moving", 1), ("sliding", 2)])
def test_in_redis_a_window_is_kept_until_nothing_of_it_counts(redis_server, kind, hours):
    store = RedisForWindows(redis_server.uri, DEADLINE_MS)
    throttle(store, kind).acquire({"client": "a"})
    (name,) = redis_server.command("KEYS", "*")
    assert name == f"apigate:{{shop}}:client@{kind}=a"
    left = redis_server.command("PTTL", name)
    assert hours * 3_600_000 - DEADLINE_MS < left <= hours * 3_600_000
    store.close()


def test_in_redis_a_script_that_was_flushed_is_sent_again(redis_server):
    store = RedisForWindows(redis_server.uri, DEADLINE_MS)
    asked = throttle(store)
    asked.acquire({"client": "a"})
    redis_server.command("SCRIPT", "FLUSH")
    assert asked.acquire({"client": "a"}).remaining == 48

    async def task():
        await asked.acquire_async({"client": "a"})
        redis_server.command("SCRIPT", "FLUSH")
        return (await asked.acquire_async({"client": "a"})).remaining

    assert asyncio.run(task()) == 46
    store.close()


@each_kind
def test_a_full_redis_counts_nothing_and_says_so(own_redis, kind):
    store = RedisForWindows(own_redis.uri, DEADLINE_MS)
    asked = throttle(store, kind)
    own_redis.fill()
    with pytest.raises(StoreError, match="maxmemory"):
        asked.acquire({"client": "a"})
    own_redis.drain()
    assert asked.acquire({"client": "a"}).remaining == 49
    store.close()


def test_in_redis_what_was_borrowed_while_a_shared_window_was_asked_is_remembered_by_nobody(redis_server):
    """Whoever opens the same bucket without the window remembers nothing, either."""
    rate = Limit("shop:global", "global", "global", Rate(1, per=3_600), steady=True)
    stage = Limit("shop:stage", "stage", "stage", Window("5/hour", kind="fixed"))
    client = Limit("shop:client", "client", "client", Rate(9, per=3_600), steady=True)
    ours, theirs = (RedisStore(redis_server.uri, deadline_ms=DEADLINE_MS) for _ in range(2))
    borrower = ours.open([rate], 0)
    asked = open_buckets(theirs, [rate, stage, client], 0)
    alone = open_buckets(theirs, [rate], 0)
    for buckets, keys in ((asked, ("", "", "a")), (alone, ("",))):
        borrower.acquire(("",), (1,), 0)
        assert not buckets.acquire(keys, (1,) * len(keys), 0).allowed
        borrower.adjust(("",), (-1,), 0)
        assert buckets.acquire(keys, (1,) * len(keys), 0).allowed
        borrower.reset(("",))
    for store in (ours, theirs):
        store.close()


# ---- what stands there in Redis


def log(redis_server, entries, total):
    """Write a moving window as the script does."""
    for first in range(0, len(entries), 1_000):
        redis_server.command("RPUSH", LOG, *(f"{moment} {cost}" for moment, cost in entries[first : first + 1_000]))
    redis_server.command("RPUSH", LOG, total)


LOG = "apigate:{shop}:client@moving=a"


@pytest.fixture
def in_redis(redis_server):
    """Windows in Redis that go by the time that they are handed."""
    store = RedisStore(redis_server.uri, deadline_ms=DEADLINE_MS, server_time=False)
    yield store.windows()
    store.close()


def test_in_redis_one_request_drops_a_thousand_moments_at_most_and_the_others_still_count(redis_server, in_redis):
    asked, old = limit("10000/minute", "moving"), [(START_US + number, 1) for number in range(9_000)]
    log(redis_server, [*old, (START_US + 60 * SECOND, 500)], 9_500)
    now = START_US + 100 * SECOND
    before = redis_server.commands()
    standing = in_redis.acquire(asked, "a", 1, now)
    ran = redis_server.commands() - before
    assert (ran["lrange"], ran["ltrim"], ran["lpop"], ran["lindex"] <= 4) == (10 + 1, 1, 0, True)
    assert (standing.allowed, standing.used) == (True, 8_500)
    assert redis_server.command("LLEN", LOG) == 8_000 + 1 + 1 + 1
    assert in_redis.peek(asked, "a", 9_000, now).wait_us == 1  # there might be room at the next request
    used = [in_redis.peek(asked, "a", 1, now).used for _ in range(8)]
    assert used == [6_501, 5_501, 4_501, 3_501, 2_501, 1_501, 501, 501]


@pytest.mark.parametrize("count", [5, 250, 251, 10_000])
def test_in_redis_the_wait_is_exact_however_long_the_log_is(in_redis, count):
    windows, asked = MemoryStore().windows(), limit(f"{count}/hour", "moving")
    for kept in (windows, in_redis):
        for number in range(min(count, 600)):
            kept.acquire(asked, "a", 1 + number % 3, START_US + number * SECOND)
        kept.adjust(asked, "a", count // 2, None, START_US + 600 * SECOND)
    now = START_US + 601 * SECOND
    for cost in {1, 2, count // 3 + 1, count // 2, count - 1, count}:
        here, there = (kept.peek(asked, "a", cost, now) for kept in (windows, in_redis))
        assert there == here._replace(round_trips=1)


def test_in_redis_what_was_counted_long_ago_is_given_back_without_looking_through_the_log(redis_server, in_redis):
    asked = limit("10000/hour", "moving")
    log(redis_server, [(START_US + number, 2) for number in range(4_000)], 8_000)
    before = redis_server.commands()
    for number in (0, 1, 1_234, 3_998, 3_999):
        in_redis.adjust(asked, "a", -1, START_US + number, START_US + SECOND)
        in_redis.adjust(asked, "a", -1, START_US + number, START_US + SECOND)
    assert (redis_server.commands() - before)["lindex"] <= 10 * (12 + 3)
    in_redis.adjust(asked, "a", -1, START_US + 4_000, START_US + SECOND)  # nothing was counted then
    assert in_redis.peek(asked, "a", 1, START_US + SECOND).used == 8_000 - 10
    assert redis_server.command("LLEN", LOG) == 4_000 - 5 + 1


@pytest.mark.parametrize(
    "damaged",
    [
        ("SET", "nonsense"),
        ("SET", "1 2"),
        ("SET", f"{'9' * 400} 1 1"),
        ("SET", "-1 2 3"),
        ("HSET", "a", "b"),
        ("RPUSH", "nonsense"),
        ("RPUSH", "nonsense", "5"),
        ("RPUSH", "1 2", "nonsense"),
        ("RPUSH", "nonsense", f"{START_US} 2", "nonsense", "9"),
        ("RPUSH", f"{START_US} 1", "9" * 400),
        ("RPUSH", f"{'9' * 400} 1", "5"),
        ("RPUSH", f"{START_US} 1", "9999"),
        ("RPUSH", f"{START_US} 7", "1"),
    ],
    ids=str,
)
@each_kind
def test_in_redis_what_somebody_else_wrote_is_no_error_and_gone_with_the_window(redis_server, in_redis, kind, damaged):
    asked, name = limit("5/minute", kind), f"apigate:{{shop}}:client@{kind}=a"
    asks: list[Callable[[int], Any]] = [
        lambda now: in_redis.peek(asked, "a", 3, now),
        lambda now: in_redis.acquire(asked, "a", 1, now),
        lambda now: in_redis.adjust(asked, "a", 1, None, now),
        lambda now: in_redis.adjust(asked, "a", -1, START_US, now),
    ]
    for first in asks:
        redis_server.command("DEL", name)
        command, *values = damaged
        redis_server.command(command, name, *values)
        for ask_redis in (first, *asks):
            ask_redis(START_US + 1)
        later = START_US + 121 * SECOND
        assert [in_redis.acquire(asked, "a", 1, later).allowed for _ in range(6)] == [True] * 5 + [False]


@each_kind
def test_in_redis_what_does_not_parse_counts_nothing(redis_server, in_redis, kind):
    redis_server.command("RPUSH" if kind == "moving" else "SET", f"apigate:{{shop}}:client@{kind}=a", "nonsense")
    assert in_redis.acquire(limit("5/minute", kind), "a", 1, START_US)[:2] == (True, 0)
    assert in_redis.peek(limit("5/minute", kind), "a", 1, START_US).used == 1


def test_redis_refuses_moving_windows_of_more_moments_than_it_looks_through_in_no_time():
    with pytest.raises(ConfigurationError, match="at most 10000 moments of a window"):
        Gateway(store="redis://127.0.0.1:1", name="shop", client_throttle=Window("10001/day", kind="moving"))
    Gateway(store="redis://127.0.0.1:1", name="shop", client_throttle=Window("10000/day", kind="moving"))


def test_behind_sentinel_the_primary_is_asked(redis_sentinel):
    store = RedisForWindows(redis_sentinel.uri, DEADLINE_MS)
    asked = throttle(store)
    assert asked.acquire({"client": "a"}).remaining == 49

    async def task():
        return (await asked.acquire_async({"client": "a"})).remaining

    assert asyncio.run(task()) == 48
    store.close()


def test_by_a_unix_socket(redis_server):
    store = RedisForWindows(redis_server.unix_uri, DEADLINE_MS)
    asked = throttle(store)
    assert asked.acquire({"client": "a"}).remaining == 49

    async def task():
        return (await asked.acquire_async({"client": "a"})).remaining

    assert asyncio.run(task()) == 48
    store.close()


# ---- a server that is gone


@each_store
def test_a_server_that_is_gone_is_a_store_error_and_takes_no_token(own, name):
    server, store = own
    levels = {"client": Window("50/hour", kind="sliding")}
    if name == "redis":
        levels["global"] = Rate(10, per=3_600)
    asked = Throttle(levels, store=store, clock=FakeClock(), name="shop")
    assert recovers(lambda: asked.acquire({"client": "a"}))
    server.kill()
    for _ in range(3):
        with pytest.raises(StoreError) as raised:
            asked.acquire({"client": "a"})
        assert isinstance(raised.value.__cause__, Exception)

    async def task():
        for _ in range(3):
            with pytest.raises(StoreError) as raised:
                await asked.acquire_async({"client": "a"})
            assert isinstance(raised.value.__cause__, Exception)

    asyncio.run(task())
    if name == "redis":
        assert (
            Throttle({"global": levels["global"]}, store=store, clock=asked.clock, name="shop").peek(cost=0).remaining
            == 9
        )
    server.start()
    assert recovers(lambda: asked.acquire({"client": "a"}))
    assert recovers(lambda: asyncio.run(asked.acquire_async({"client": "a"})))


def recovers(acquire):
    """Whether it admits, once the connections that died with the server are used up and the machine is not too busy."""
    for _ in range(TRIES):
        try:
            return acquire().allowed
        except StoreError:
            pass
    return False


@each_store
def test_a_server_that_does_not_answer_is_given_up_by_the_deadline(own, name):
    server, store = own
    asked = throttle(store)
    assert recovers(lambda: asked.acquire({"client": "a"}))
    server.pause()
    try:
        answers = in_time(lambda: [timed(lambda: asked.acquire({"client": "a"}))], 300, LATE)
        assert all(isinstance(answer, StoreTimeoutError) for answer in answers)

        async def task():
            return await asked.acquire_async({"client": "a"})

        answers = in_time(lambda: [timed(lambda: asyncio.run(task()))], 300, LATE)
        assert all(isinstance(answer, StoreTimeoutError) for answer in answers)
    finally:
        server.resume()


@pytest.fixture
def mute():
    """The hosts and ports of three servers that take every connection and never answer."""
    with ExitStack() as open_sockets:
        listening = [open_sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        yield ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in listening)


def each_operation(windows):
    return [
        lambda: windows.acquire(limit(), "a", 1, 0),
        lambda: windows.peek(limit(), "a", 1, 0),
        lambda: windows.adjust(limit(), "a", 1, None, 0),
        lambda: windows.reset(limit(), "a"),
        lambda: windows.reset(limit(), None),
    ]


@pytest.mark.parametrize("library", ["redis", "valkey"])
@pytest.mark.parametrize("kind", ["server", "sentinel", "cluster"])
def test_redis_that_accepts_and_never_answers_keeps_nobody_beyond_the_deadline(mute, caller, library, kind):
    address = {
        "server": f"{library}://{mute.partition(',')[0]}",
        "sentinel": f"{library}+sentinel://{mute}/mymaster",
        "cluster": f"{library}+cluster://{mute}",
    }[kind]
    store = RedisStore(address, deadline_ms=100)
    for call in each_operation(store.windows()):
        for answer in in_time(lambda call=call: [timed(lambda: caller.ask(call))], 100, LATE):
            assert isinstance(answer, StoreError)
            assert isinstance(answer.__cause__, Exception)
    caller.close()
    store.close()


# ---- in a gateway


@pytest.mark.parametrize("name", ["memcached", "mongodb"])
@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_a_gateway_keeps_its_windows_by_an_address(request, name, asking):
    uri = request.getfixturevalue(name).uri
    gateway = built(
        client_throttle=Window("3/hour", kind="fixed"),
        store=f"{uri}?deadline_ms={DEADLINE_MS}",
        name="shop",
        refund="404",
    )
    assert [asking(gateway, status=404).status for _ in range(4)] == [404] * 4
    answers = [asking(gateway) for _ in range(5)]
    assert [answer.status for answer in answers] == [200] * 3 + [429] * 2
    assert [answer.fields["ratelimit"][:12] for answer in answers[:3]] == [
        f'"client";r={left}'[:12] for left in (2, 1, 0)
    ]
    gateway.store.store.close()


@pytest.mark.parametrize("address", ["memcached://127.0.0.1:1", "mongodb://127.0.0.1:1/shop"])
def test_a_store_for_windows_refuses_rates_when_the_gateway_is_built(address):
    for levels in (
        {"throttle": Rate(5)},
        {"throttle": Rate(5), "client_throttle": Window("5/minute", kind="fixed")},
        {"methods": {"GET /": Method(client_throttle="5/second")}},
    ):
        with pytest.raises(ConfigurationError, match=r"holds windows only, and the .* limit is the rate 5/second"):
            Gateway(store=address, name="shop", **levels)
    gateway = Gateway(store=address, name="shop", client_throttle=Window("5/minute", kind="fixed"))
    with pytest.raises(ConfigurationError, match="holds windows only"):
        gateway.stage().update(throttle="5/second")
    with pytest.raises(ConfigurationError, match="holds windows only"):
        gateway.throttle("5/second")(lambda: None)


def test_a_store_for_windows_needs_a_name_as_others_use_it_too():
    with pytest.raises(ConfigurationError, match="is shared with other processes, so a name is needed"):
        Gateway(store="memcached://127.0.0.1:11211", client_throttle=Window("5/minute", kind="fixed"))


@pytest.mark.parametrize(
    ("window", "why"),
    [
        (Window("5/16 days", kind="sliding"), "keeps nothing for more than 30 days"),
        (Window("5/30 days", kind="fixed"), "keeps nothing for more than 30 days"),
        (Window("20001/day", kind="moving"), "at most 20000 moments"),
    ],
)
def test_memcached_refuses_windows_that_it_cannot_keep(window, why):
    with pytest.raises(ConfigurationError, match=why):
        Gateway(store="memcached://127.0.0.1:11211", name="shop", client_throttle=window)


def test_memcached_keeps_the_largest_moving_window(memcached):
    store = MemcachedStore(memcached.uri, DEADLINE_MS, host_time=False)
    windows, asked = store.windows(), limit("20000/day", "moving")
    numbers = [number for moment in range(40_000) for number in (START_US + moment, 1)]
    assert windows._slots.write(asked, "shop:client@moving:a", numbers, None, 1_000)
    standing = windows.peek(asked, "a", 1, START_US + 40_000)
    assert (standing.allowed, standing.used) == (False, 40_000)
    store.close()


def test_the_names_on_a_server_tell_whose_windows_they_are(redis_server, mongodb):
    store = RedisStore(redis_server.uri, deadline_ms=DEADLINE_MS)
    store.windows().acquire(limit(), "a b:*", 1, 0)
    store.windows().acquire(limit(), b"\x00", 1, 0)
    names = ["apigate:{shop}:client@fixed#00", "apigate:{shop}:client@fixed=a b:*"]
    assert sorted(redis_server.command("KEYS", "*")) == names
    store.close()
