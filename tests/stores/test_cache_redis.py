"""Responses and invalidations in Redis: few round trips, a bounded lag, and faults that cost no request anything."""

import asyncio
from functools import partial

import pytest

from apigate import ConfigurationError, StoreError, StoreTimeoutError
from apigate.caching.shared import SharedGenerations, SharedResponses
from apigate.caching.store import EVERYTHING, Invalidation, log_of, position_of
from apigate.stores.cache_guarded import GuardedResponses
from apigate.stores.cache_redis import RECORDS, RedisResponses
from apigate.stores.redis import RedisStore
from apigate.testing import FakeClock
from tests.response_stores import ListedGenerations, a_response, nothing_varies
from tests.servers import until
from tests.stores.asking import PATIENT_MS, hasty, in_time, timed
from tests.stores.test_redis_forks import in_child

PETS = Invalidation("scope", "tag:pets")
FLUSH = ("all", "")
SECOND = 1_000_000
KEY = ("GET", "/pets/1")
DIGEST, OTHER = b"k" * 32, b"o" * 32
DEADLINE_MS = 400


class Caller:
    """Asks by threads or by tasks of one loop."""

    def __init__(self, kind):
        self.runner = asyncio.Runner() if kind == "tasks" else None

    def __call__(self, function, *arguments):
        if self.runner is None:
            return function(*arguments)

        async def asked():
            answer = function(*arguments)
            return answer if answer is None or not hasattr(answer, "__await__") else await answer

        return self.runner.run(asked())

    def close(self):
        if self.runner is not None:
            self.runner.close()


@pytest.fixture(params=["threads", "tasks"])
def ask(request):
    caller = Caller(request.param)
    yield caller
    caller.close()


@pytest.fixture
def responses(ask):
    """Opens stores, and closes them in the end."""
    stores = []

    def open_one(uri, name="shop:prod", **settings):
        stores.append(RedisResponses(uri, name=name, **{"deadline_ms": PATIENT_MS, **settings}))
        return stores[-1]

    yield open_one
    ask.close()
    for store in stores:
        store.close()


class Process:
    """One process that shares a store."""

    def __init__(self, store, ask):
        self.store, self.ask, self.generations = store, ask, ListedGenerations()
        self.wire = SharedGenerations(store, self.generations)
        self.shared = SharedResponses(store, self.wire)

    def told(self, now_us):
        self.ask(self.wire.synchronise, now_us)
        return self.generations.told

    def invalidate(self, record, now_us=0):
        self.ask(self.wire.invalidate, record, now_us)

    def put(self, now_us=0, **settings):
        self.ask(self.wire.synchronise, now_us)
        self.ask(self.shared.put, KEY, a_response(self.generations.epoch, **settings), 0.0, now_us)

    def get(self, now_us=0, select=nothing_varies):
        found = self.ask(self.shared.get, KEY, select, 0.0, now_us)
        return found if found is not None and self.generations.is_valid(found) else None


@pytest.fixture
def process(redis_server, ask, responses):
    return lambda: Process(responses(redis_server.uri), ask)


# ---- values


@pytest.mark.parametrize("size", [0, 1, 1_000, 65_536, 1 << 20])
def test_a_value_of_any_size_comes_back(redis_server, ask, responses, size):
    one, other = responses(redis_server.uri), responses(redis_server.uri)
    value = (b"\r\n$5\r\n\0\xff" * size)[:size]
    ask(one.put, DIGEST, value, 60)
    assert ask(other.get, DIGEST, b"").value == value
    assert ask(other.get, OTHER, b"").value is None
    ask(other.delete, DIGEST)
    assert ask(one.get, DIGEST, b"").value is None


def test_every_key_has_a_time_to_live(redis_server, ask, responses):
    store = responses(redis_server.uri)
    ask(store.put, DIGEST, b"hello", 60.5)
    ask(store.learn, b"", [PETS])
    ask(store.put, OTHER, b"hello", 1e12)
    times = {key: redis_server.command("PTTL", key) for key in redis_server.command("KEYS", "*")}
    assert len(times) == 3
    assert min(times.values()) > 0
    assert 59_000 < times[f"apigate:cache:{{shop%3Aprod}}:{DIGEST.hex()}"] <= 60_500


def test_names_keep_owners_apart_whatever_they_are(redis_server, ask, responses):
    names = ["shop:prod", "shop", "shop}:{prod", "shop:log", "{shop}", "shop:prod}", "é"]
    stores = [responses(redis_server.uri, name) for name in names]
    for number, store in enumerate(stores):
        ask(store.put, DIGEST, b"%d" % number, 60)
        ask(store.learn, b"", [Invalidation("scope", f"tag:{number}")])
    for number, store in enumerate(stores):
        found = ask(store.get, DIGEST, b"")
        assert found.value == b"%d" % number
        assert [each.record.text for each in found.news.records] == [f"tag:{number}"]


def test_a_value_that_is_too_long_is_not_sent(redis_server, ask, responses):
    store = responses(redis_server.uri, max_item_bytes=1_024)
    ask(store.put, DIGEST, bytes(1_025), 60)
    assert redis_server.command("DBSIZE") == 0


def test_what_somebody_else_wrote_under_our_keys_is_a_miss(redis_server, ask, responses):
    store = responses(redis_server.uri)
    redis_server.command("SADD", f"apigate:cache:{{shop%3Aprod}}:{DIGEST.hex()}", "x")
    redis_server.command("SET", "apigate:cache:{shop%3Aprod}:log", "x")
    found = ask(store.get, DIGEST, b"")
    assert (found.value, found.news.records) == (None, [])
    ask(store.put, DIGEST, b"hello", 60)
    assert ask(store.get, DIGEST, b"").value == b"hello"


# ---- the log


def test_records_come_through_in_order_and_once(redis_server, ask, responses):
    one, other = responses(redis_server.uri), responses(redis_server.uri)
    records = [PETS, Invalidation("prefix", "/é\udc80\r\n"), EVERYTHING, Invalidation("scope", "x" * 480)]
    told = ask(one.learn, b"", records)
    assert [each.record for each in told.records] == records
    assert [each.position for each in told.records] == [1, 2, 3, 4]
    assert [each.record for each in ask(other.learn, b"").records] == records
    again = ask(other.learn, told.mark, [PETS])
    assert (again.since, [each.record for each in again.records]) == (4, [PETS])


def test_a_log_is_capped_and_who_is_too_far_behind_is_told_so(redis_server, ask, responses):
    store = responses(redis_server.uri)
    first = ask(store.learn, b"", [PETS])
    for _ in range(3):
        ask(store.learn, first.mark, [PETS] * (RECORDS // 2))
    news = ask(store.learn, first.mark)
    assert (news.since, len(news.records)) == (1 + RECORDS // 2, RECORDS)
    assert redis_server.command("HLEN", "apigate:cache:{shop%3Aprod}:log") == RECORDS + 2


@pytest.mark.parametrize("lose", ["all keys", "its end", "a record", "its position"])
def test_a_log_that_has_lost_something_invalidates_what_may_concern_it(redis_server, process, lose):
    one = process()
    one.put()
    for number in range(5):
        one.invalidate(Invalidation("scope", f"tag:{number}"))
    log = "apigate:cache:{shop%3Aprod}:log"
    if lose == "all keys":
        redis_server.flush()
    elif lose == "its end":
        redis_server.command("HSET", log, "last", 3)
    elif lose == "a record":
        redis_server.command("HDEL", log, 2)
    else:
        redis_server.command("HDEL", log, "last")
    before = len(one.told(0))
    one.told(SECOND)
    if lose == "a record":  # which this process knows, and a new one cannot
        assert len(one.generations.told) == before
    else:
        assert one.generations.told[before] == FLUSH
        assert one.get() is None
    assert process().get() is None


# ---- several processes


def test_what_one_invalidates_the_others_know_within_the_bound(process):
    one, other = process(), process()
    assert other.told(0) == [FLUSH]
    one.invalidate(PETS, 1)
    assert other.told(SECOND // 2 - 1) == [FLUSH]
    assert other.told(SECOND // 2) == [FLUSH, tuple(PETS)]


def test_a_hit_costs_no_trip_and_a_process_two_a_second(redis_server, process):
    one = process()
    one.told(0)
    before = redis_server.scripts()
    for now in range(1, 10 * SECOND, 10_000):
        one.told(now)
    assert redis_server.scripts() - before == 19


def test_a_miss_in_memory_costs_one_trip_which_tells_what_was_invalidated_too(redis_server, process):
    one, other = process(), process()
    one.put()
    other.told(0)
    one.invalidate(PETS, 1)
    before = redis_server.commands()
    assert other.get(2) is None
    sent = redis_server.commands() - before
    assert (sent["evalsha"], sent["set"], other.generations.told[-1]) == (1, 0, tuple(PETS))


def test_what_is_put_is_found_and_what_was_invalidated_is_not(process):
    one, other = process(), process()
    one.put()
    assert other.get().body == b"hello"
    other.invalidate(PETS)
    assert [each.get() for each in (one, other, process())] == [None] * 3
    one.put()
    assert [each.get() is not None for each in (one, other, process())] == [True] * 3


def test_responses_that_vary_are_found_in_two_trips(redis_server, process):
    one, other = process(), process()
    one.put(vary=(("accept", "json"),))
    before = redis_server.scripts()
    assert other.get(select=lambda names: (("accept", "json"),)).body == b"hello"
    assert redis_server.scripts() - before == 2


def test_many_invalidations_at_once_are_each_told_once(redis_server):
    async def scenario():
        store = RedisResponses(redis_server.uri, name="shop:prod", deadline_ms=PATIENT_MS)
        generations = ListedGenerations()
        wire = SharedGenerations(store, generations)
        await wire.synchronise(0)
        records = [Invalidation("scope", f"tag:{number}") for number in range(200)]
        await asyncio.gather(*(_awaiting(wire.invalidate(record, 1)) for record in records))
        told = [text for kind, text in generations.told if kind == "scope"]
        assert sorted(told) == sorted(record.text for record in records)
        assert position_of(wire.known) == 200
        await store.close_async()

    asyncio.run(scenario())


async def _awaiting(answer):
    return await answer


def test_a_forked_child_asks_over_connections_of_its_own(redis_server):
    one = Process(RedisResponses(redis_server.uri, name="shop:prod", deadline_ms=PATIENT_MS), Caller("threads"))
    one.put()

    def work():
        found = all(one.get() is not None for _ in range(100))
        one.invalidate(PETS)
        return found

    told = in_child(work)
    assert told()
    assert one.get() is None
    one.store.close()


def test_a_gateways_store_and_its_responses_share_connections(redis_server):
    store = RedisStore(redis_server.uri, deadline_ms=PATIENT_MS)
    responses = RedisResponses(store.connections, name="shop:prod")
    before = redis_server.command("INFO", "stats")["total_connections_received"]
    store.open([], 0).acquire([], [], 0)
    responses.learn(b"", [PETS])
    responses.put(DIGEST, b"hello", 60)
    assert responses.get(DIGEST, b"").value == b"hello"
    assert redis_server.command("INFO", "stats")["total_connections_received"] - before <= 2  # one is this question's
    responses.close()


def test_a_cluster_keeps_all_of_a_stage_in_one_slot(redis_cluster, ask, responses):
    one, other = (Process(responses(redis_cluster.uri), ask) for _ in range(2))
    one.put()
    assert other.get().body == b"hello"
    other.invalidate(PETS)
    assert one.get() is None
    ask(one.store.delete, DIGEST)


# ---- faults


def test_a_paused_server_keeps_nobody_beyond_the_deadline(own_redis, ask, responses):
    store = responses(own_redis.uri)
    ask(store.put, DIGEST, b"hello", 60)
    own_redis.pause()
    with hasty(store, DEADLINE_MS):
        for call in (
            partial(store.get, DIGEST, b""),
            partial(store.put, DIGEST, b"x", 60),
            partial(store.learn, b"", [PETS]),
        ):
            answers = in_time(lambda call=call: [timed(partial(ask, call))], DEADLINE_MS)
            assert all(isinstance(answer, StoreTimeoutError) for answer in answers)
    own_redis.resume()
    assert ask(store.get, DIGEST, b"").value is not None


def test_a_killed_server_is_a_fault_and_the_next_one_has_a_log_of_its_own(own_redis, ask, responses):
    store = responses(own_redis.uri)
    known = ask(store.learn, b"", [PETS]).mark
    own_redis.kill()
    answer, _ = timed(lambda: ask(store.get, DIGEST, known))
    assert isinstance(answer, StoreError)
    own_redis.start()
    news = ask(store.learn, known)
    assert (news.since, news.records) == (0, [])
    assert log_of(news.mark) != log_of(known)


def test_a_full_server_loses_what_is_put_and_says_so(own_redis, ask, responses):
    store = responses(own_redis.uri)
    ask(store.put, DIGEST, b"hello", 60)
    ask(store.learn, b"", [PETS])
    own_redis.fill()
    for call in (partial(store.put, DIGEST, b"other", 60), partial(store.learn, b"", [PETS])):
        answer, _ = timed(partial(ask, call))
        assert isinstance(answer, StoreError)
    own_redis.drain()
    assert ask(store.get, DIGEST, b"").value == b"hello"


def test_an_outage_costs_one_deadline_and_not_one_a_request(own_redis, ask, responses, monkeypatch):
    clock = FakeClock()
    events, blamed = [], []
    store = responses(own_redis.uri)
    guarded = GuardedResponses(store, clock, events.append)
    one = Process(guarded, ask)
    one.put()
    assert one.get() is not None
    own_redis.pause()
    failure = store.connections.failure

    def fails(*given, **named):
        fault = failure(*given, **named)
        blamed.append(fault.blames_store)
        return fault

    with hasty(store, DEADLINE_MS), monkeypatch.context() as seen:
        seen.setattr(store.connections, "failure", fails)
        for now in range(1, 40):
            assert one.get(now) is None
            one.put(now)
            one.told(now * SECOND)
        one.invalidate(PETS, 40 * SECOND)
    assert (blamed.count(True), blamed[-1]) == (1, True)  # before, this process may have been too busy to know
    assert one.generations.told[-1] == tuple(PETS)
    own_redis.resume()

    def recovers():
        clock.advance(6)
        one.told(clock.now_us() + 40 * SECOND)
        if ask.runner is not None:
            ask(asyncio.sleep, 0.02)  # the attempt is a task of this loop
        return not guarded.breaker.is_open and len(events) > 1  # it is told of once it is over

    until(recovers, "the store is asked again")
    assert [type(event).__name__ for event in events] == ["StoreOutage", "StoreRecovered"]
    now = clock.now_us() + 100 * SECOND
    one.told(now)
    assert one.get(now) is None  # what was invalidated meanwhile
    other = Process(responses(own_redis.uri), ask)
    assert tuple(PETS) in other.told(0)
    one.put(now, lifetime=1e6)
    assert one.get(now) is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_lag": 0}, "RedisResponses max_lag: 0 is not a number of seconds from 0.05 to 3,600"),
        ({"max_lag": 4_000.0}, "max_lag"),
        ({"max_item_bytes": 10}, "RedisResponses max_item_bytes: 10 is not a whole number from 1,024 to 67,108,864"),
        ({"deadline_ms": 0}, "RedisResponses deadline_ms: 0"),
    ],
)
def test_a_setting_out_of_bounds_is_an_error(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        RedisResponses("redis://localhost:1/0", name="shop", **settings)


def test_an_answer_of_bytes_that_begin_as_an_error_does_is_none():
    connections = RedisStore("redis://localhost:1/0").connections
    assert connections.answer(b"$6\r\n-abcde\r\n", ended=False) == b"-abcde"
    with pytest.raises(Exception, match="READONLY"):
        connections.answer(b"-READONLY You cannot\r\n", ended=False)


@pytest.mark.parametrize("last", ["-5", "-1e300", "inf", "nan", "2.5", "1e30", "9007199254740993", "x", ""])
def test_a_log_that_somebody_else_has_written_into_begins_anew(redis_server, process, last):
    one = process()
    one.put()
    (log,) = redis_server.command("KEYS", "*log")
    redis_server.command("HSET", log, "last", last)
    fresh = process()
    fresh.told(0)
    one.invalidate(PETS)
    assert fresh.told(2 * SECOND)[-1] == tuple(PETS)
    assert fresh.get(2 * SECOND) is None
