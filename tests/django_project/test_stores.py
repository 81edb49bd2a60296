"""A store that has to be awaited, or that cannot be reached, under Django's two handlers."""

import asyncio

import pytest
from asgiref.sync import markcoroutinefunction
from django.http import HttpResponse
from django.test import AsyncRequestFactory
from django.urls import path

from apigate import Method, Rate, Throttle
from apigate.django import GatewayMiddleware
from tests.django_project.asking import (
    ahello,
    ask,
    counted,
    gateway,
    hello,
    module,
    project,
    statuses,
)
from tests.outages import FailingStore, attempts_end, tasks_run

SLOW = 10**6
AWAITED = pytest.mark.parametrize("way", ["awaited", "by loop"])


def gate_on(store, **settings):
    return gateway(**{"store": store, "name": "shop", **settings})


def left(gate, store, name="shop:global"):
    """What a level with a burst of 100 has left in the store within."""
    owed = {limit.name: -(-owed // limit.p) for limit, _, owed in store.memory.owed(gate.clock.now_us())}
    return 100 - owed.get(name, 0)


def down(**settings):
    store = FailingStore("by loop")
    store.fail()
    return gate_on(store, **settings)


# ---- a store that has to be awaited


@AWAITED
@pytest.mark.parametrize("view", [hello, ahello], ids=["def", "async def"])
def test_an_awaited_store_decides(way, view):
    gate = gate_on(FailingStore(way), client_throttle=Rate(2, per=SLOW))
    with project("asgi", [path("x", view)], gate) as app:
        assert statuses(app, *["GET /x"] * 3) == [200, 200, 429]


@AWAITED
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_what_was_taken_is_given_back_where_the_view_itself_was_refused(way, kind):
    """Django calls `process_exception` in a thread, and settles there too."""
    store = FailingStore(way)
    gate = gate_on(store, throttle=Rate(1, per=SLOW, burst=100))
    limit = gate.throttle(Rate(1, per=SLOW))

    @limit
    async def asynchronous(request):
        return HttpResponse()

    async def twice_async(request):
        await asynchronous(request)
        return await asynchronous(request)

    @limit
    def plain(request):
        return HttpResponse()

    def twice(request):
        plain(request)
        return plain(request)

    if kind == "def" and way == "awaited":
        pytest.skip("a plain view cannot await")
    twice_async.__wrapped__, twice.__wrapped__ = asynchronous, plain
    with project("asgi", [path("x", twice if kind == "def" else twice_async)], gate) as app:
        answer = ask(app, "GET /x")
    assert (answer.status, answer.json["violated-policies"]) == (429, ["method"])
    assert left(gate, store) == 100
    assert (counted(gate), counted(gate, "THROTTLED")) == (0, 1)


@AWAITED
def test_a_throttle_of_the_views_own_is_answered(way):
    gate = gate_on(FailingStore(way), throttle=Rate(1, per=SLOW, burst=100))
    own = Throttle({"global": Rate(1, per=SLOW)}, clock=gate.clock)

    async def view(request):
        with own.reserve():
            return HttpResponse()

    with project("asgi", [path("x", view)], gate) as app:
        assert statuses(app, "GET /x", "GET /x") == [200, 429]


@AWAITED
@pytest.mark.parametrize("view", [hello, ahello], ids=["def", "async def"])
def test_is_settled_when_the_response_is_closed(way, view):
    store = FailingStore(way)
    gate = gate_on(store, methods={"GET /x": Method(throttle=Rate(1, per=SLOW, burst=100), refund="2xx")})
    with project("asgi", [path("x", view)], gate) as app:
        assert statuses(app, *["GET /x"] * 3) == [200] * 3
    assert left(gate, store, name="shop:method:default:GET /x") == 100


@AWAITED
def test_is_settled_where_nobody_closes_the_response(way):
    """As Django does not, where it broke or the client had left."""
    store = FailingStore(way)
    gate = gate_on(store, methods={"GET /x": Method(throttle=Rate(1, per=SLOW, burst=100), refund="2xx")})

    async def program():
        request = AsyncRequestFactory().get("/x")
        await asyncio.create_task(GatewayMiddleware(ahello)(request))
        await tasks_run()

    with project("asgi", [path("x", ahello)], gate):
        asyncio.run(program())
    assert store.calls.count("adjust") == 1
    assert left(gate, store, name="shop:method:default:GET /x") == 100


@AWAITED
def test_a_request_that_turns_out_to_be_for_another_view_is_counted_there(way):
    store = FailingStore(way)
    methods = {"GET /y": Method(throttle=Rate(1, per=SLOW))}
    gate = gate_on(store, throttle=Rate(1, per=SLOW, burst=100), methods=methods)

    def moves(get_response):
        async def move(request):
            request.path_info = "/y"
            return await get_response(request)

        return markcoroutinefunction(move)

    moves.async_capable, moves.sync_capable = True, False
    with (
        module("moving", moves=moves) as name,
        project("asgi", [path("x", ahello), path("y", ahello)], gate, after=[f"{name}.moves"]) as app,
    ):
        assert statuses(app, "GET /x", "GET /x") == [200, 429]
    assert left(gate, store) == 99


def test_a_failure_to_settle_is_logged(caplog):
    store = FailingStore("awaited")
    gate = gate_on(store, methods={"GET /x": Method(throttle=Rate(9), refund="2xx")})
    check = store.check

    def mistaken(operation):
        check(operation)
        if operation == "adjust":
            raise KeyError("typo")

    store.check = mistaken
    with project("asgi", [path("x", ahello)], gate) as app:
        assert ask(app, "GET /x").status == 200
    assert [record.getMessage() for record in caplog.records] == ["a request could not be settled"]


# ---- a store that cannot be reached


@pytest.mark.parametrize("view", [hello, ahello], ids=["def", "async def"])
def test_each_process_admits_its_share(via, view):
    gate = down(client_throttle=Rate(1, per=SLOW, burst=8), workers=4)
    with project(via, [path("x", view)], gate) as app:
        assert statuses(app, *["GET /x"] * 3) == [200, 200, 429]


@pytest.mark.parametrize("view", [hello, ahello], ids=["def", "async def"])
def test_a_closed_level_is_503(via, view):
    gate = down(client_throttle=Rate(9), outage="closed")
    with project(via, [path("x", view)], gate) as app:
        answer = ask(app, "GET /x")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "ratelimit" not in answer.headers
    assert counted(gate, "STORE_UNAVAILABLE") == 1


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_function_further_in_is_503_too(via, kind):
    gate = down(throttle=Rate(1, per=SLOW, burst=100), outage={"client-method": "closed"})
    limit = gate.throttle(Rate(9), per="client")

    @limit
    def send_mail():
        pass

    @limit
    async def send_mail_async():
        pass

    def view(request):
        send_mail()

    async def view_async(request):
        await send_mail_async()

    with project(via, [path("x", view if kind == "def" else view_async)], gate) as app:
        answer = ask(app, "GET /x")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json["detail"] == "The client-method limit cannot be checked at the moment."
    assert (counted(gate), counted(gate, "STORE_UNAVAILABLE")) == (0, 1)


def test_the_project_may_have_its_own_words_for_it(via):
    from apigate import Throttled

    gate = down(throttle=Rate(1, per=SLOW, burst=100), outage={"method": "closed"})

    @gate.throttle(Rate(9))
    def send_mail():
        pass

    def view(request):
        try:
            send_mail()
        except Throttled as error:
            return HttpResponse("later", status=error.status)

    with project(via, [path("x", view)], gate) as app:
        answer = ask(app, "GET /x")
    assert (answer.status, answer.body) == (503, b"later")
    assert counted(gate, "STORE_UNAVAILABLE") == 1


def test_a_decorated_view_without_a_gate_is_503(via):
    gate = down(outage="closed")

    @gate.throttle(Rate(9))
    def view(request):
        return HttpResponse()

    with project(via, [path("x", view)], None) as app:
        answer = ask(app, "GET /x")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_comes_back_by_itself(via):
    store = FailingStore("by loop")
    gate = gate_on(store, throttle=Rate(1, per=SLOW, burst=100), workers=2)
    with project(via, [path("x", ahello)], gate) as app:
        store.fail()
        assert statuses(app, *["GET /x"] * 3) == [200] * 3
        store.work()
        for _ in range(3):
            gate.clock.advance(1)
            ask(app, "GET /x")
            attempts_end()
    assert not gate.store.breaker.is_open
    assert left(gate, store) == 94
