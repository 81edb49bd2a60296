"""A store that cannot be reached, or has to be awaited, behind FastAPI: endpoints on the loop and in threads."""

import json

import pytest
from fastapi import FastAPI

from apigate import Gateway, ProtocolError, Rate
from apigate.fastapi import GatewayMiddleware
from apigate.testing import FakeClock
from tests.fastapi.asking import ask, connect, statuses
from tests.outages import FailingStore, attempts_end

SLOW = 10**6
KIND = pytest.mark.parametrize("kind", ["def", "async def"])


def gate_on(store, **settings):
    return Gateway(clock=FakeClock(), store=store, name="shop", **settings)


def down(way="by loop"):
    store = FailingStore(way)
    store.fail()
    return store


def app_of(endpoint, gate=None):
    app = FastAPI()
    app.add_api_route("/", endpoint)
    if gate is not None:
        app.add_middleware(GatewayMiddleware, gateway=gate)
    return app


def endpoint_of(kind, limit=lambda endpoint: endpoint):
    @limit
    def plain() -> str:
        return "hello"

    @limit
    async def asynchronous() -> str:
        return "hello"

    return plain if kind == "def" else asynchronous


@KIND
def test_each_process_admits_its_share_and_a_closed_level_is_503(kind):
    shares = gate_on(down(), client_throttle=Rate(1, per=SLOW, burst=8), workers=4)
    assert statuses(app_of(endpoint_of(kind), shares), 3) == [200, 200, 429]
    closed = gate_on(down(), client_throttle=Rate(9), outage="closed")
    answer = ask(app_of(endpoint_of(kind), closed))
    assert (answer.status, answer.headers["retry-after"], answer.error) == (503, "1", None)
    assert closed.stats()["default"]["GET /"] == {"STORE_UNAVAILABLE": 1}


@KIND
@pytest.mark.parametrize("around", [True, False], ids=["a gate", "no gate"])
def test_a_mark_is_503_with_a_gate_and_without(kind, around):
    gate = gate_on(down(), outage="closed")
    answer = ask(app_of(endpoint_of(kind, gate.throttle(Rate(9))), gate if around else None))
    assert (answer.status, answer.headers["retry-after"], answer.error) == (503, "1", None)


@KIND
def test_a_function_that_an_endpoint_calls_is_503(kind):
    gate = gate_on(down(), throttle=Rate(9), outage={"client-method": "closed"})
    mail = endpoint_of(kind, gate.throttle(Rate(9), per="client"))

    def plain() -> str:
        return mail()

    async def asynchronous() -> str:
        return await mail()

    answer = ask(app_of(plain if kind == "def" else asynchronous, gate))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert json.loads(answer.body)["detail"] == "The client-method limit cannot be checked at the moment."
    assert gate.stats()["default"]["GET /"] == {"STORE_UNAVAILABLE": 1}


def test_a_dependency_that_is_refused_without_a_gate_is_503_in_the_frameworks_words():
    from fastapi import Depends

    gate = gate_on(down(), outage="closed")

    @gate.throttle(Rate(9))
    def limited() -> None: ...

    app = FastAPI()
    app.get("/", dependencies=[Depends(limited)])(endpoint_of("def"))
    answer = ask(app)
    assert (answer.status, answer.headers["retry-after"], answer.error) == (503, "1", None)


def test_a_handshake_is_refused_with_503_where_the_server_can_say_so():
    app = app_of(endpoint_of("def"), gate_on(down(), throttle=Rate(9), outage="closed"))
    answer = connect(app, "/", extensions={"websocket.http.response": {}})
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


# ---- endpoints that run in threads, where such a store answers at once


@KIND
@pytest.mark.parametrize("around", [True, False], ids=["a gate", "no gate"])
def test_a_store_that_is_awaited_on_the_loop_only_decides_for_both_kinds_of_endpoint(kind, around):
    gate = gate_on(FailingStore("by loop"))
    app = app_of(endpoint_of(kind, gate.throttle(Rate(2, per=SLOW))), gate if around else None)
    assert statuses(app, 3) == [200, 200, 429]


@KIND
def test_both_kinds_of_endpoint_come_back(kind):
    store = FailingStore("by loop")
    gate = gate_on(store)
    app = app_of(endpoint_of(kind, gate.throttle(Rate(1, per=SLOW, burst=20))))
    store.fail()
    assert statuses(app, 2) == [200, 200]
    store.work()
    for _ in range(3):
        gate.clock.advance(0.5)
        assert statuses(app, 1) == [200]
        attempts_end()
    assert not gate.store.breaker.is_open


def test_a_plain_function_called_on_the_loop_says_what_to_do():
    gate = gate_on(FailingStore("by loop"), throttle=Rate(9))
    mail = endpoint_of("def", gate.throttle(Rate(9), per="client"))

    async def endpoint() -> str:
        return mail()

    answer = ask(app_of(endpoint, gate))
    assert isinstance(answer.error, ProtocolError)
    assert "is a plain function, and the store has to be awaited here; make it `async def`" in str(answer.error)
