"""200 clients on one cold key, through ASGI, WSGI and both at once: the app runs once, whatever becomes of the first.

The interpreter switches threads as often as it can and the clock stands still, so every count has to come out exactly.
"""

import asyncio
import gc
import threading
from collections import Counter
from itertools import cycle, islice

import pytest

from apigate import CachePolicy, ResponseCache
from apigate.caching.coalescing import Flights
from apigate.core.policy import Phase
from tests.caching.crowds import DEADLINE, WORLDS, Act, AppError, Ask, House, until, until_async
from tests.flights import under_way

CROWD = 200
SOME = 20

pytestmark = pytest.mark.usefixtures("restless_interpreter")
both_protocols = pytest.mark.parametrize("world", ["asgi", "wsgi"])
everywhere = pytest.mark.parametrize("world", WORLDS)


def all_others_wait(house: House, crowd: int = CROWD):
    """Whether everybody but the first waits for it."""
    return lambda: house.waiting == crowd - 1


# ---- it goes well


@everywhere
def test_the_app_runs_once_and_all_get_its_answer(world):
    house = House()
    house.act = lambda number, ask: Act(before=all_others_wait(house))
    seen = house.crowd(world, [Ask()] * CROWD)
    assert house.runs == 1
    assert {(each.status, each.body, each.whole) for each in seen} == {(200, b"one two", True)}
    assert Counter(each.is_hit for each in seen) == {True: CROWD - 1, False: 1}


@everywhere
def test_nobody_asks_again_however_the_crowd_arrives(world):
    house = House()
    for number in range(10):
        seen = house.crowd(world, [Ask(f"/{number}")] * SOME)
        assert {each.body for each in seen} == {b"one two"}
    assert house.runs == 10


@everywhere
def test_while_the_app_streams_slowly_all_wait_for_the_end(world):
    house = House()
    house.act = lambda number, ask: Act(chunks=[b"a", b"b", b"c"], between=all_others_wait(house))
    seen = house.crowd(world, [Ask()] * CROWD)
    assert house.runs == 1
    assert {(each.body, each.whole) for each in seen} == {(b"abc", True)}


# ---- the first fails


@everywhere
@pytest.mark.parametrize("ends", ["raises before", "raises after", "short"])
def test_one_of_those_who_wait_takes_over_when_the_first_fails(world, ends):
    house = House()
    house.act = lambda number, ask: Act(
        fields=[("Cache-Control", "max-age=60"), ("Content-Length", "7")],
        chunks=[b"one ", b"two"] if number else [b"one "],
        before=None if number else all_others_wait(house),
        ends="well" if number else ends,
    )
    seen = house.crowd(world, [Ask()] * CROWD)
    assert house.runs == 2
    failed = [each for each in seen if each.error is not None or not each.whole]
    assert len(failed) == 1
    assert failed[0].body == (b"" if ends == "raises before" else b"one ")
    assert {each.body for each in seen if each is not failed[0]} == {b"one two"}


@everywhere
def test_five_failures_in_a_row_cost_five_runs_and_no_more(world):
    house = House()
    house.act = lambda number, ask: Act(
        before=None if number else all_others_wait(house), ends="raises before" if number < 5 else "well"
    )
    seen = house.crowd(world, [Ask()] * CROWD)
    assert house.runs == 6
    assert Counter(each.body for each in seen) == {b"": 5, b"one two": CROWD - 5}


def test_a_cancelled_leader_hands_over():
    house = House()

    async def scenario():
        house.act = lambda number, ask: Act(between=None if number else lambda: False)
        first = asyncio.create_task(house.ask_async(Ask()))
        await until_async(lambda: house.runs)
        others = [asyncio.create_task(house.ask_async(Ask())) for _ in range(CROWD - 1)]
        await until_async(lambda: house.waiting == CROWD - 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        async with asyncio.timeout(20):
            return await asyncio.gather(*others)

    seen = asyncio.run(scenario())
    assert house.runs == 2
    assert {(each.body, each.whole) for each in seen} == {(b"one two", True)}


def test_cancelled_waiters_take_nobody_with_them():
    house = House()

    async def scenario():
        is_free = False
        house.act = lambda number, ask: Act(before=lambda: is_free)
        tasks = [asyncio.create_task(house.ask_async(Ask())) for _ in range(CROWD)]
        await until_async(lambda: house.waiting == CROWD - 1)
        for task in tasks[1::2]:
            task.cancel()
        is_free = True
        async with asyncio.timeout(20):
            return await asyncio.gather(*tasks, return_exceptions=True)

    seen = asyncio.run(scenario())
    assert house.runs == 1
    assert Counter(isinstance(each, asyncio.CancelledError) for each in seen) == {True: CROWD // 2, False: CROWD // 2}
    assert {each.body for each in seen[::2]} == {b"one two"}


# ---- the client of the first leaves


def test_by_asgi_the_answer_is_stored_though_its_client_has_left():
    house = House()

    async def scenario():
        house.act = lambda number, ask: Act(between=all_others_wait(house, SOME))
        messages = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        first = asyncio.create_task(house.ask_async(Ask(), receive))
        await until_async(lambda: house.runs)
        others = [house.ask_async(Ask()) for _ in range(SOME - 1)]
        async with asyncio.timeout(20):
            return await asyncio.gather(first, *others)

    seen = asyncio.run(scenario())
    assert house.runs == 1
    assert {each.body for each in seen[1:]} == {b"one two"}


def test_by_wsgi_one_of_those_who_wait_takes_over_when_the_client_leaves():
    house = House()
    house.act = lambda number, ask: Act()
    body = house.wsgi(house.environ(Ask()), lambda *_: None)
    assert next(iter(body)) == b"one "
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(house.ask(Ask()))) for _ in range(SOME)]
    for thread in threads:
        thread.start()
    until(lambda: house.waiting == SOME)
    body.close()
    for thread in threads:
        thread.join(20)
    assert house.runs == 2
    assert [each.body for each in seen] == [b"one two"] * SOME


def test_by_wsgi_a_body_that_is_never_read_or_closed_holds_nobody_back_once_it_is_garbage():
    house = House()
    body = house.wsgi(house.environ(Ask()), lambda *_: None)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(house.ask(Ask())))
    thread.start()
    until(lambda: house.waiting == 1)
    del body
    gc.collect()
    thread.join(20)
    assert house.runs == 2
    assert seen[0].body == b"one two"


# ---- storage refuses


REFUSED = {
    "a cookie": [("Cache-Control", "max-age=60")],
    "private": [("Cache-Control", "private, max-age=60")],
    "no-store": [("Cache-Control", "no-store")],
    "no lifetime": [],
    "Vary: *": [("Cache-Control", "max-age=60"), ("Vary", "*")],
    "too long": [("Cache-Control", "max-age=60")],
    "said to be too long": [("Cache-Control", "max-age=60"), ("Content-Length", "2000")],
    "no-cache": [("Cache-Control", "no-cache, max-age=60")],
    "max-age=0": [("Cache-Control", "max-age=0")],
}


@everywhere
@pytest.mark.parametrize("why", REFUSED)
def test_what_may_not_be_shared_is_shared_with_nobody(world, why):
    house = House(cache=ResponseCache(max_item_bytes=1_000))

    def act(number, ask):
        cookie = [("Set-Cookie", f"a={number}")] if why == "a cookie" else []
        long = [b"x" * 500] * 3 + [b"x" * 500] if "long" in why else []
        own = b"%4d" % number
        chunks = [*long[1:], long[0][4:] + own] if long else [own]
        return Act([*REFUSED[why], *cookie], chunks, before=None if number else all_others_wait(house))

    house.act = act
    seen = house.crowd(world, [Ask()] * CROWD)
    assert house.runs == CROWD
    assert len({each.body for each in seen}) == CROWD
    assert not any(each.is_hit for each in seen)
    for each in seen:
        assert each.whole
        assert each.get("set-cookie") == (f"a={int(each.body)}" if why == "a cookie" else None)


@everywhere
@pytest.mark.parametrize("why", sorted({*REFUSED} - {"no-cache", "max-age=0", "too long"}))
def test_those_who_wait_go_on_at_the_head_of_what_may_not_be_stored(world, why):
    """The first answer ends only when all others have been asked for."""
    house = House(cache=ResponseCache(max_item_bytes=1_000))
    cookie = [("Set-Cookie", "a=1")] if why == "a cookie" else []

    def act(number, ask):
        if number:
            return Act([*REFUSED[why], *cookie], [b"x" * 2_000])
        others = all_others_wait(house, SOME)
        return Act([*REFUSED[why], *cookie], [b"x" * 2_000], before=others, between=lambda: house.runs == SOME)

    house.act = act
    seen = house.crowd(world, [Ask()] * SOME)
    assert house.runs == SOME
    assert all(each.whole for each in seen)


@everywhere
@pytest.mark.parametrize("why", REFUSED)
def test_after_a_refusal_clients_do_not_queue(world, why):
    """Each answer of the second crowd ends only when all of it have been asked for."""
    house = House(cache=ResponseCache(max_item_bytes=1_000))
    cookie = [("Set-Cookie", "a=1")] if why == "a cookie" else []
    chunks = [b"x" * 500] * 4
    house.act = lambda number, ask: Act([*REFUSED[why], *cookie], chunks)
    house.visit("wsgi", Ask())
    house.act = lambda number, ask: Act([*REFUSED[why], *cookie], chunks, before=lambda: house.runs == SOME + 1)
    seen = house.crowd(world, [Ask()] * SOME)
    assert house.runs == SOME + 1
    assert all(each.whole for each in seen)


@everywhere
def test_ten_seconds_after_a_refusal_one_asks_for_all_again(world):
    house = House()
    house.act = lambda number, ask: Act([("Cache-Control", "no-store")])
    house.visit("wsgi", Ask())
    house.clock.advance(10)
    house.act = lambda number, ask: Act(before=all_others_wait(house, SOME))
    house.crowd(world, [Ask()] * SOME)
    assert house.runs == 2


# ---- not the same request


@everywhere
def test_each_variant_is_asked_for_once_and_nobody_gets_another(world):
    house = House()

    def act(number, ask):
        side = dict(ask.fields).get("x-side", "none")
        fields = [("Cache-Control", "max-age=60"), ("Vary", "X-Side")]
        return Act(fields, [side.encode()], before=None if number else all_others_wait(house))

    house.act = act
    sides = ["l", "r", "up", "down", "none"]
    asks = [Ask(fields=(("x-side", side),)) for side in islice(cycle(sides), CROWD)]
    seen = house.crowd(world, asks)
    assert [each.body.decode() for each in seen] == [dict(ask.fields)["x-side"] for ask in asks]
    assert house.runs == len(sides)


@everywhere
def test_head_waits_for_nobody_and_is_answered_from_what_get_has_stored(world):
    house = House()
    asks = [Ask(method="HEAD"), Ask()] * (CROWD // 2)
    house.act = lambda number, ask: Act(
        before=None if ask.method == "HEAD" else lambda: house.waiting == CROWD // 2 - 1 and house.runs > CROWD // 2
    )
    seen = house.crowd(world, asks)
    assert Counter(ask.method for ask in house.asked) == {"GET": 1, "HEAD": CROWD // 2}
    assert [each.body for each in seen] == [b"", b"one two"] * (CROWD // 2)
    again = house.crowd(world, asks)
    assert house.runs == CROWD // 2 + 1
    assert [each.body for each in again] == [b"", b"one two"] * (CROWD // 2)
    assert {each.get("content-length") for each in again} == {"7"}


@everywhere
@pytest.mark.parametrize(
    "fields",
    [
        (("authorization", "Basic YTpi"),),
        (("range", "bytes=0-1"),),
        (("if-none-match", '"a"'),),
        (("cache-control", "no-cache"),),
        (("cache-control", "no-store"),),
    ],
    ids=lambda fields: fields[0][0] + " " + fields[0][1],
)
def test_a_request_that_is_not_like_the_others_goes_alone(world, fields):
    house = House()
    house.act = lambda number, ask: Act(before=lambda: house.runs == SOME)
    seen = house.crowd(world, [Ask(fields=fields)] * SOME)
    assert house.runs == SOME
    assert all(each.whole for each in seen)


class Tokens:
    """Verifies whoever has a token."""

    phase = Phase.AUTHORIZE

    def on_request(self, context):
        context.principal = context.request.headers.get("authorization")


@everywhere
def test_who_was_verified_waits_for_others_where_the_policy_has_one_copy_for_all(world):
    house = House(CachePolicy(per="public", wait=2 * DEADLINE), policies=[Tokens()])
    house.act = lambda number, ask: Act(before=all_others_wait(house, SOME))
    seen = house.crowd(world, [Ask(fields=(("authorization", f"Bearer {number}"),)) for number in range(SOME)])
    assert house.runs == 1
    assert {each.body for each in seen} == {b"one two"}


@everywhere
@pytest.mark.parametrize("gates", [[], [Tokens()]])
def test_each_credential_flies_by_itself(world, gates):
    key = {} if gates else {"headers": ["Authorization"]}
    house = House(CachePolicy(key=key, wait=2 * DEADLINE), policies=gates)

    all_came = threading.Event()

    def all_have_come():
        if house.waiting == SOME - 2:
            all_came.set()  # for the other leader too, who may look when the first has landed
        return all_came.is_set()

    house.act = lambda number, ask: Act(chunks=[dict(ask.fields)["authorization"].encode()], before=all_have_come)
    asks = [Ask(fields=(("authorization", f"Bearer {number % 2}"),)) for number in range(SOME)]
    seen = house.crowd(world, asks)
    assert house.runs == 2
    assert [each.body for each in seen] == [b"Bearer 0", b"Bearer 1"] * (SOME // 2)


# ---- circles


@both_protocols
def test_an_app_that_asks_itself_for_the_same_is_answered(world):
    house = House()
    inner = []

    async def ask_within():
        inner.append(await house.ask_async(Ask()))

    def act(number, ask):
        within = ask_within if world == "asgi" else lambda: inner.append(house.ask(Ask()))
        return Act(inner=within if not number else None)

    house.act = act
    assert house.visit(world, Ask()).body == b"one two"
    assert [each.body for each in inner] == [b"one two"]
    assert house.runs == 2


@everywhere
def test_two_answers_that_need_each_other_do_not_wait_in_a_circle(world):
    house = House()

    def act(number, ask):
        if number > 1:
            return Act(chunks=[b"inner"])
        other = Ask("/b" if ask.path == "/a" else "/a")

        async def ask_within():
            await until_async(lambda: house.runs >= 2)
            assert (await house.ask_async(other)).whole

        def ask_within_blocking():
            until(lambda: house.runs >= 2)
            assert house.ask(other).whole

        return Act(inner=ask_within_blocking if threading.current_thread().name.startswith("wsgi") else ask_within)

    house.act = act
    seen = []

    def by_wsgi(path):
        seen.append(house.ask(Ask(path)))

    def by_asgi(*paths):
        async def all_of_them():
            return await asyncio.gather(*[house.ask_async(Ask(path)) for path in paths])

        seen.extend(asyncio.run(all_of_them()))

    jobs = {
        "asgi": [threading.Thread(target=by_asgi, args=["/a", "/b"])],
        "wsgi": [threading.Thread(target=by_wsgi, args=[path], name=f"wsgi {path}") for path in ("/a", "/b")],
        "both": [
            threading.Thread(target=by_asgi, args=["/a"]),
            threading.Thread(target=by_wsgi, args=["/b"], name="wsgi"),
        ],
    }[world]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join(20)
    assert len(seen) == 2
    assert 3 <= house.runs <= 4  # the second may find what the first has had stored


# ---- limits


@everywhere
def test_nobody_waits_longer_than_the_policy_says(world):
    """The first answer ends only when all others have been given theirs."""
    house = House(CachePolicy(wait=0.05))
    house.act = lambda number, ask: Act(before=None if number else lambda: house.answered == SOME - 1)
    seen = house.crowd(world, [Ask()] * SOME)
    assert {(each.body, each.whole) for each in seen} == {(b"one two", True)}
    assert 2 <= house.runs <= SOME


@everywhere
def test_a_policy_may_have_nobody_wait(world):
    house = House(CachePolicy(wait=0))
    house.act = lambda number, ask: Act(before=lambda: house.runs == SOME)
    house.crowd(world, [Ask()] * SOME)
    assert house.runs == SOME


@everywhere
def test_no_more_wait_than_may(world):
    house = House()
    house.cache.flights = Flights(max_waiters=3)
    is_full = threading.Event()  # once so, always so: whoever is first here need not lead, and an end frees who waits

    def full() -> bool:
        if house.runs == SOME - 3 and house.waiting == 3:
            is_full.set()
        return is_full.is_set()

    house.act = lambda number, ask: Act(before=full)
    seen = house.crowd(world, [Ask()] * SOME)
    assert house.runs == SOME - 3
    assert {each.body for each in seen} == {b"one two"}


def test_a_server_of_one_thread_never_waits():
    """A thread that serves all requests would wait for itself (`wsgi.multithread`)."""
    house = House(CachePolicy(wait=30))
    first = house.wsgi(house.environ(Ask(), **{"wsgi.multithread": False}), lambda *_: None)
    assert next(iter(first)) == b"one "
    assert house.ask(Ask("/b"), **{"wsgi.multithread": False}).whole
    second = threading.Thread(target=house.ask, args=[Ask()], kwargs={"wsgi.multithread": False})
    second.start()
    second.join(10)
    is_waiting = second.is_alive()
    first.close()
    second.join(10)
    assert not is_waiting
    assert house.runs == 3


# ---- stale while revalidate


STALE = 50


def stale_house() -> House:
    """One whose only answer has become stale, and may be served so."""
    house = House()
    house.act = lambda number, ask: Act([("Cache-Control", "max-age=10, stale-while-revalidate=60")], [b"%d" % number])
    house.visit("wsgi", Ask())
    house.clock.advance(20)
    return house


def after_refreshing(house: House) -> None:
    """Wait for threads that refresh."""
    for thread in threading.enumerate():
        if thread.name == "apigate refresh":
            thread.join(20)
    assert under_way(house.cache.flights) == 0


@both_protocols
def test_fifty_stale_hits_at_once_have_the_app_asked_once(world):
    for _ in range(20):
        house = stale_house()
        seen = house.crowd(world, [Ask()] * STALE)
        after_refreshing(house)
        assert house.runs == 2
        assert {each.body for each in seen} <= {b"0", b"1"}
        assert house.visit(world, Ask()).body == b"1"
        assert house.runs == 2


@both_protocols
def test_stale_hits_do_not_wait_for_the_refresh(world):
    house = stale_house()
    served = threading.Event()
    house.act = lambda number, ask: Act(chunks=[b"1"], before=served.is_set)

    async def tasks():
        seen = await house._tasks([Ask()] * STALE)
        served.set()
        await until_async(lambda: not under_way(house.cache.flights))
        return seen

    if world == "asgi":
        seen = asyncio.run(tasks())
    else:
        seen = house._threads([Ask()] * STALE)
        served.set()
        after_refreshing(house)
    assert {each.body for each in seen} == {b"0"}
    assert house.runs == 2


@both_protocols
def test_a_stale_hit_of_head_has_the_whole_response_refreshed(world):
    house = stale_house()
    assert house.crowd(world, [Ask(method="HEAD")] * SOME)[0].body == b""
    after_refreshing(house)
    assert [ask.method for ask in house.asked] == ["GET", "GET"]
    assert house.visit(world, Ask()).body == b"1"
    assert house.runs == 2


@both_protocols
def test_who_served_a_stale_response_still_waits_for_other_keys(world):
    """The refresh is led by its own task or thread, not by whoever has served the stale response."""
    house = stale_house()
    gone = threading.Event()
    house.act = lambda number, ask: Act(
        before=gone.is_set if ask.path == "/a" else (lambda: house.waiting == 1) if number == 2 else None
    )

    def two_visits():
        house.ask(Ask())
        until(lambda: house.runs >= 2)
        until(lambda: house.runs >= 3)
        return house.ask(Ask("/b"))

    async def two_visits_async():
        await house.ask_async(Ask())
        await until_async(lambda: house.runs >= 2)
        other = asyncio.create_task(house.ask_async(Ask("/b")))
        await until_async(lambda: house.runs >= 3)
        seen = await house.ask_async(Ask("/b"))
        gone.set()
        await other
        await until_async(lambda: not under_way(house.cache.flights))
        return seen

    if world == "asgi":
        seen = asyncio.run(two_visits_async())
    else:
        other = threading.Thread(target=lambda: (until(lambda: house.runs >= 2), house.ask(Ask("/b"))))
        other.start()
        seen = two_visits()
        gone.set()
        other.join(20)
        after_refreshing(house)
    assert seen.is_hit
    assert house.runs == 3


@both_protocols
def test_a_refresh_that_asks_the_app_itself_waits_for_nobody(world):
    house = stale_house()
    house.cache.flush()  # so that the inner request finds nothing that it could be given
    house.act = lambda number, ask: Act([("Cache-Control", "max-age=10, stale-while-revalidate=60")])
    house.visit(world, Ask())
    house.clock.advance(20)
    inner = []

    async def ask_within():
        house.cache.flush()
        inner.append(await house.ask_async(Ask()))

    def ask_within_blocking():
        house.cache.flush()
        inner.append(house.ask(Ask()))

    within = ask_within if world == "asgi" else ask_within_blocking
    house.act = lambda number, ask: Act(inner=within if number == 2 else None)
    house.crowd(world, [Ask()])
    if world == "wsgi":
        after_refreshing(house)
        assert [each.body for each in inner] == [b"one two"]


def test_what_refreshes_ends_with_the_server():
    house = stale_house()

    async def scenario():
        house.act = lambda number, ask: Act(before=lambda: False)
        assert (await house.ask_async(Ask())).body == b"0"
        refreshing = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(refreshing) == 1
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent = []

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message["type"])

        async with asyncio.timeout(20):
            await house.asgi({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert all(task.done() for task in refreshing)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    assert under_way(house.cache.flights) == 0


@both_protocols
def test_a_refresh_that_fails_leaves_the_stale_response(world, caplog):
    house = stale_house()
    house.act = lambda number, ask: Act(ends="raises before")
    house.crowd(world, [Ask()])
    after_refreshing(house)
    assert house.visit(world, Ask()).body == b"0"
    after_refreshing(house)
    assert any(isinstance(record.exc_info[1], AppError) for record in caplog.records if record.exc_info)
