"""A process and the log that it shares: what is invalid, when it is known, and what a fault costs."""

import asyncio

import pytest

from apigate.caching.encryption import Encryption
from apigate.caching.shared import SharedGenerations, SharedResponses
from apigate.caching.store import EVERYTHING, Invalidation
from tests.response_stores import ListedGenerations, LoggedStore, a_response, awaited, nothing_varies

SECOND = 1_000_000
KEY = ("GET", "https", "shop.example", "/pets/1")
PETS = Invalidation("scope", "tag:pets")
FLUSH = ("all", "")


class Process:
    """One process that shares a store."""

    def __init__(self, store, **settings):
        self.generations = ListedGenerations()
        self.wire = SharedGenerations(store, self.generations)
        self.responses = SharedResponses(store, self.wire, **settings)

    @property
    def told(self):
        return self.generations.told

    def synchronise(self, now_us=0):
        return awaited(self.wire.synchronise(now_us))

    def invalidate(self, record, now_us=0):
        return awaited(self.wire.invalidate(record, now_us))

    def put(self, response=None, now_us=0, key=KEY):
        self.synchronise(now_us)
        response = response or a_response(self.generations.epoch)
        return awaited(self.responses.put(key, response, 0.0, now_us))

    def get(self, now_us=0, key=KEY, select=nothing_varies):
        """What a request is answered with from the store."""
        response = awaited(self.responses.get(key, select, 0.0, now_us))
        return response if response is not None and self.generations.is_valid(response) else None


@pytest.fixture(params=["at once", "awaited"])
def store(request):
    return LoggedStore(is_awaited=request.param == "awaited")


@pytest.fixture
def slow():
    return LoggedStore(max_lag_us=SECOND)


# ---- what others invalidate


def test_at_first_all_that_is_there_counts_as_invalid(store):
    process = Process(store)
    process.synchronise()
    assert process.told == [FLUSH]


def test_what_one_process_invalidates_every_other_learns_once_and_in_order(store):
    one, other = Process(store), Process(store)
    one.synchronise()
    other.synchronise()
    records = [PETS, Invalidation("prefix", "/pets/"), EVERYTHING]
    for record in records:
        one.invalidate(record)
    for _ in range(3):
        other.synchronise()
        one.synchronise()
    assert one.told == other.told == [FLUSH, *map(tuple, records)]


def test_where_nothing_is_new_the_store_is_not_asked(store):
    process = Process(store)
    process.synchronise()
    calls = len(store.calls)
    for _ in range(10):
        assert process.wire.synchronise(0) is None
    assert len(store.calls) == calls


def test_a_process_too_far_behind_takes_all_for_invalid_and_goes_on_from_there(store):
    one, other = Process(store), Process(store)
    other.synchronise()
    for number in range(store.most + 1):
        one.invalidate(Invalidation("scope", f"tag:{number}"))
    other.synchronise()
    assert other.told[:2] == [FLUSH, FLUSH]
    assert len(other.told) == 2 + store.most


def test_a_log_that_began_anew_makes_all_invalid_even_where_it_has_grown_as_long(store):
    process = Process(store)
    process.invalidate(PETS)
    store.forget()
    store.records.append(Invalidation("scope", "tag:toys"))
    process.synchronise()
    assert process.told[-2:] == [FLUSH, ("scope", "tag:toys")]


def test_a_long_prefix_is_told_as_a_shorter_one_that_holds_it(store):
    process = Process(store)
    process.synchronise()
    process.invalidate(Invalidation("prefix", "/" + "a" * 900))
    assert process.told[-1] == ("prefix", "/" + "a" * 479)


# ---- a store that has to be asked over a network


def test_within_half_the_bound_nothing_is_asked(slow):
    process = Process(slow)
    process.synchronise(0)
    for now in range(0, SECOND // 2, 10_000):
        assert process.wire.synchronise(now) is None
    assert slow.calls == ["learn"]


def test_one_request_in_half_the_bound_asks_for_all(slow):
    process = Process(slow)
    for now in range(0, 10 * SECOND, 1_000):
        process.synchronise(now)
    assert len(slow.calls) == 20


def test_what_others_invalidate_is_known_within_the_bound(slow):
    one, other = Process(slow), Process(slow)
    other.synchronise(0)
    one.invalidate(PETS, 1)
    other.synchronise(SECOND // 2 - 1)
    assert other.told == [FLUSH]
    other.synchronise(SECOND // 2)
    assert other.told == [FLUSH, tuple(PETS)]


def test_while_one_asks_the_others_go_on_until_the_bound_and_then_ask_too():
    async def scenario():
        store = LoggedStore(max_lag_us=SECOND, is_awaited=True)
        wire = SharedGenerations(store, ListedGenerations())
        await wire.synchronise(0)
        asked = wire.synchronise(SECOND // 2)
        assert asked is not None
        assert wire.synchronise(SECOND - 1) is None
        late = wire.synchronise(SECOND)
        assert late is not None
        await asked
        await late
        assert wire.known_us == SECOND

    asyncio.run(scenario())


def test_whoever_looks_for_a_response_learns_what_was_invalidated_in_the_same_trip(slow):
    one, other = Process(slow), Process(slow)
    one.put()
    other.synchronise(0)
    one.invalidate(PETS, 1)
    calls = len(slow.calls)
    assert other.get(2) is None
    assert slow.calls[calls:] == ["get"]
    assert other.told[-1] == tuple(PETS)


# ---- responses


def test_a_response_that_one_process_put_another_finds(store):
    one, other = Process(store), Process(store)
    one.put()
    found = other.get()
    assert (found.status, found.body, found.scopes) == (200, b"hello", ("path:/pets/1", "tag:pets"))


@pytest.mark.parametrize(
    "record",
    [EVERYTHING, PETS, Invalidation("prefix", "/pets"), Invalidation("scope", "path:/pets/1")],
    ids=["all", "tag", "prefix", "path"],
)
def test_a_response_that_was_invalidated_nobody_finds_not_even_who_comes_later(store, record):
    one, other = Process(store), Process(store)
    one.put()
    other.synchronise()
    other.invalidate(record)
    assert [each.get() for each in (one, other, Process(store))] == [None] * 3


def test_what_was_invalidated_otherwise_stays(store):
    one, other = Process(store), Process(store)
    one.put()
    other.invalidate(Invalidation("scope", "tag:toys"))
    assert [each.get() is not None for each in (one, other, Process(store))] == [True] * 3


def test_what_was_asked_for_before_an_invalidation_and_put_after_it_nobody_finds(store):
    one, other = Process(store), Process(store)
    one.synchronise()
    on_its_way = a_response(one.generations.epoch)
    other.invalidate(PETS)
    one.put(on_its_way)
    assert [each.get() for each in (one, other, Process(store))] == [None] * 3


def test_what_is_put_anew_after_an_invalidation_everybody_finds(store):
    one, other = Process(store), Process(store)
    one.put()
    other.invalidate(PETS)
    assert one.get() is None
    one.put()
    assert [each.get() is not None for each in (one, other, Process(store))] == [True] * 3


def test_a_response_from_before_what_a_new_process_can_know_is_not_used(store):
    one = Process(store)
    one.put()
    for number in range(store.most + 1):
        one.invalidate(Invalidation("scope", f"tag:{number}"))
    assert Process(store).get() is None


def test_a_response_of_a_log_that_was_lost_is_not_used(store):
    one = Process(store)
    one.put()
    store.forget()
    assert one.get() is None
    assert Process(store).get() is None


def test_responses_that_vary_are_found_by_what_selects_them(store):
    one, other = Process(store), Process(store)
    one.synchronise()
    for kind in ("json", "html"):
        vary = (("accept", kind), ("accept-language", None))
        one.put(a_response(one.generations.epoch, body=kind.encode(), vary=vary))

    def asking_for(kind):
        return lambda names: tuple(zip(names, (kind, None), strict=True))

    assert other.get(select=asking_for("json")).body == b"json"
    assert other.get(select=asking_for("html")).body == b"html"
    assert other.get(select=asking_for("xml")) is None


def test_a_response_is_kept_as_long_as_it_may_be_of_use(store):
    process = Process(store)
    process.synchronise()
    process.put(a_response(process.generations.epoch, lifetime=60.0, grace=30.0), now_us=20 * SECOND)
    assert list(store.seconds.values()) == [pytest.approx(70.0)]


@pytest.mark.parametrize(
    "settings",
    [{"body": bytes(100_000)}, {"lifetime": 0.0}, {"scopes": ("x" * 100_000,)}],
    ids=["body", "time", "scopes"],
)
def test_what_is_too_long_or_of_no_use_any_more_is_not_put(store, settings):
    process = Process(store)
    process.synchronise()
    process.put(a_response(process.generations.epoch, **settings))
    assert not store.values


def test_nothing_is_put_that_was_asked_for_before_the_log_was_known(store):
    process = Process(store)
    early = a_response(process.generations.epoch)
    process.put(early)
    assert not store.values


def test_without_bodies_only_invalidations_are_shared(store):
    one, other = Process(store, bodies=False), Process(store, bodies=False)
    one.put()
    other.synchronise()
    one.invalidate(PETS)
    other.synchronise()
    assert (store.values, one.get(), other.told[-1]) == ({}, None, tuple(PETS))
    assert {"get", "put", "delete"}.isdisjoint(store.calls)


def test_what_was_encrypted_for_one_stage_another_does_not_read(store):
    keys = Encryption([bytes(32)])
    Process(store, encryption=keys, place="stage 'beta'").put()
    assert Process(store, encryption=keys, place="stage 'beta'").get().body == b"hello"
    assert Process(store, encryption=keys, place="stage 'prod'").get() is None


def test_what_is_encrypted_only_those_find_who_have_the_key(store):
    one = Process(store, encryption=Encryption([bytes(32)]))
    one.put()
    assert b"hello" not in b"".join(store.values.values())
    assert Process(store, encryption=Encryption([bytes(32)])).get().body == b"hello"
    assert Process(store, encryption=Encryption([b"x" * 32])).get() is None
    assert Process(store).get() is None


def test_garbage_in_a_store_is_a_miss(store):
    process = Process(store)
    process.put()
    for key in store.values:
        store.values[key] = b"\x80\x04garbage"
    assert process.get() is None


def test_a_response_that_is_deleted_is_gone(store):
    process = Process(store)
    process.put()
    awaited(process.responses.delete(KEY))
    assert process.get() is None


# ---- faults


@pytest.mark.parametrize("lag", [0, SECOND])
def test_a_fault_is_a_miss_and_a_lost_put(lag):
    store = LoggedStore(max_lag_us=lag)
    process = Process(store)
    process.put()
    store.fails = True
    assert process.get() is None
    process.put()
    process.synchronise(10 * SECOND)
    awaited(process.responses.delete(KEY))
    store.fails = False
    assert process.get(20 * SECOND) is not None


def test_what_cannot_be_told_holds_here_at_once_and_everywhere_when_it_can(slow):
    one, other = Process(slow), Process(slow)
    one.put()
    other.synchronise(0)
    slow.fails = True
    one.invalidate(PETS, 1)
    assert one.told[-1] == tuple(PETS)
    slow.fails = False
    assert one.get(2) is None  # what lies there may be what was invalidated, and others would not know
    one.synchronise(SECOND)
    other.synchronise(2 * SECOND)
    assert other.told[-1] == tuple(PETS)
    assert [each.get(2 * SECOND) for each in (one, other)] == [None, None]
    one.put(now_us=3 * SECOND)
    assert one.get(3 * SECOND) is not None


def test_more_than_can_be_kept_until_a_store_answers_becomes_everything(slow):
    one, other = Process(slow), Process(slow)
    one.synchronise(0)
    other.synchronise(0)
    slow.fails = True
    for number in range(1_001):
        one.invalidate(Invalidation("scope", f"tag:{number}"), 1)
    slow.fails = False
    one.synchronise(SECOND)
    assert slow.records == [EVERYTHING]


def test_while_a_store_does_not_answer_it_is_asked_once_in_half_the_bound(slow):
    process = Process(slow)
    process.synchronise(0)
    slow.fails = True
    for now in range(0, 10 * SECOND, 1_000):
        process.synchronise(now)
    assert len(slow.calls) == 20
    assert process.wire.known_us == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "the other way round"])
def test_what_two_trips_at_once_tell_of_holds_once(order):
    async def scenario():
        store = LoggedStore(max_lag_us=SECOND, is_awaited=True)
        generations = ListedGenerations()
        wire = SharedGenerations(store, generations)
        under_way = wire.invalidate(PETS, 0), wire.invalidate(EVERYTHING, 0)
        for place in order:
            await under_way[place]
        assert generations.told == [FLUSH, tuple(PETS), FLUSH]

    asyncio.run(scenario())


def test_an_invalidation_whose_caller_gives_up_holds_all_the_same():
    async def scenario():
        store = LoggedStore(max_lag_us=SECOND, is_awaited=True)
        generations = ListedGenerations()
        wire = SharedGenerations(store, generations)
        await wire.synchronise(0)
        store.learn = lambda known, records: asyncio.sleep(3_600)
        task = asyncio.ensure_future(_awaiting(wire.invalidate(PETS, 1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert generations.told[-1] == tuple(PETS)
        assert wire.is_behind
        del store.learn
        await wire.synchronise(SECOND)
        assert store.records == [PETS]
        assert not wire.is_behind

    asyncio.run(scenario())


async def _awaiting(answer):
    return await answer
