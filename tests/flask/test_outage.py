"""A store that cannot be reached, behind Flask; and views that run on loops of their own, which end with them."""

import pytest
from flask import Flask

from apigate import Rate, Throttled
from tests.flask.asking import ask, gated, gateway, statuses
from tests.outages import FailingStore, attempts_end

SLOW = 10**6
KIND = pytest.mark.parametrize("kind", ["def", "async def"])


def down():
    store = FailingStore("by loop")
    store.fail()
    return store


def app_of(view, kind="def"):
    """An app with one view, plain or a coroutine function."""
    app = Flask("shop")
    app.add_url_rule("/", view_func=view)
    return app


def view_of(kind, limit=lambda view: view):
    @limit
    def plain():
        return "hello"

    @limit
    async def asynchronous():
        return "hello"

    return plain if kind == "def" else asynchronous


@KIND
def test_each_process_admits_its_share_and_a_closed_level_is_503(kind):
    shares = gateway(store=down(), name="shop", client_throttle=Rate(1, per=SLOW, burst=8), workers=4)
    assert statuses(gated(app_of(view_of(kind)), shares), *["GET /"] * 3) == [200, 200, 429]
    closed = gateway(store=down(), name="shop", client_throttle=Rate(9), outage="closed")
    answer = ask(gated(app_of(view_of(kind)), closed), "GET /")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


@KIND
def test_a_mark_is_503_with_a_gate_and_without(kind):
    for around in (True, False):
        gate = gateway(store=down(), name="shop", outage="closed")
        app = app_of(view_of(kind, gate.throttle(Rate(9))))
        answer = ask(gated(app, gate) if around else app, "GET /")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json["detail"] == "The method limit cannot be checked at the moment."


@KIND
def test_a_function_that_a_view_calls_is_503(kind):
    gate = gateway(store=down(), name="shop", throttle=Rate(9), outage={"client-method": "closed"})
    mail = view_of(kind, gate.throttle(Rate(9), per="client"))

    def view():
        return mail()

    async def view_async():
        return await mail()

    answer = ask(gated(app_of(view if kind == "def" else view_async), gate), "GET /")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert gate.stats()["default"]["GET /"] == {"STORE_UNAVAILABLE": 1}


def test_an_app_may_have_its_own_words_for_it():
    gate = gateway(store=down(), name="shop", throttle=Rate(9), outage={"method": "closed"})
    mail = view_of("def", gate.throttle(Rate(9)))

    def view():
        return mail()

    app = app_of(view)
    app.register_error_handler(Throttled, lambda error: ("later", error.status))
    answer = ask(gated(app, gate), "GET /")
    assert (answer.status_code, answer.text) == (503, "later")
    assert gate.stats()["default"]["GET /"] == {"STORE_UNAVAILABLE": 1}


@pytest.mark.parametrize("around", [True, False], ids=["a gate", "no gate"])
@pytest.mark.parametrize("way", ["by loop", "awaited"])
def test_coroutine_views_come_back_though_each_request_has_a_loop_of_its_own(around, way):
    if around and way == "awaited":
        pytest.skip("a gate around a WSGI app cannot await")
    store = FailingStore(way)
    gate = gateway(store=store, name="shop")
    app = app_of(view_of("async def", gate.throttle(Rate(1, per=SLOW, burst=20))))
    app = gated(app, gate) if around else app
    assert statuses(app, "GET /") == [200]
    store.fail()
    assert statuses(app, "GET /", "GET /") == [200, 200]
    store.work()
    for _ in range(3):
        gate.clock.advance(0.5)
        assert statuses(app, "GET /") == [200]
        attempts_end()
    assert not gate.store.breaker.is_open
    (owed,) = [owed // limit.p for limit, _, owed in store.memory.owed(gate.clock.now_us()) if limit.level == "method"]
    assert owed + 1 == 6
