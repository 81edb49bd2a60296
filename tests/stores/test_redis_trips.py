"""How often the server is asked, as it counts itself: once for all levels of a request, less where that is known."""

from functools import partial

import pytest
from fastapi import FastAPI
from flask import Flask

from apigate import Gateway, Method, Rate
from apigate.asgi import GatewayMiddleware as ASGIGate
from apigate.flask import Apigate
from apigate.testing import FakeClock
from tests.gateway.test_refused_within import over_asgi, over_wsgi
from tests.stores.asking import Asked, limits

FIVE = ("1000/hour", "1000/hour", "1000/hour; burst=900", "1000/hour", "1000/minute")


def test_one_trip_decides_every_level(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri, server_time=False), limits(*FIVE))
    asked.acquire()
    before = redis_server.commands()
    decision = asked.acquire()
    sent = redis_server.commands() - before
    assert (decision.round_trips, sent["evalsha"], sent["set"]) == (1, 1, 5)
    assert [state.remaining for state in decision.buckets] == [998, 998, 898, 998, 998]


def test_a_refusal_that_is_known_needs_none(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri, denial_cache=True), limits("2/hour", "9/hour"))
    assert [asked.acquire().allowed for _ in range(3)] == [True, True, False]
    before = redis_server.scripts()
    again = [asked.acquire() for _ in range(20)]
    assert redis_server.scripts() == before
    assert {(decision.allowed, decision.violated, decision.round_trips) for decision in again} == {
        (False, ("level-0",), 0)
    }


def test_tokens_taken_ahead_make_trips_rare(redis_server, caller, stores):
    store = stores(redis_server.uri, lease=20)
    asked = Asked(caller, store, limits("100000/hour", "100000/hour"))
    before = redis_server.scripts()
    trips = sum(asked.acquire().round_trips for _ in range(600))
    assert trips == redis_server.scripts() - before
    assert trips < 60


def test_giving_back_is_one_more(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri, server_time=False), limits(*FIVE))
    asked.acquire(cost=5)
    before = redis_server.scripts()
    asked.adjust(tokens=-3)
    assert redis_server.scripts() - before == 1
    assert asked.left() == [998, 998, 898, 998, 998]


# ---- a whole gateway around an app


class App:
    """An app with a decorated endpoint that answers with a status; and how a request reaches it through the gate."""

    def __init__(self, kind, gateway, status=200):
        mark = gateway.throttle("500/hour", per="client")
        if kind == "asgi":
            app = FastAPI()

            @app.get("/pets", status_code=status)
            @mark
            def pets():
                return {}

            self.get = partial(over_asgi, ASGIGate(app, gateway), "/pets")
        else:
            app = Flask("shop")

            @app.get("/pets")
            @mark
            def pets():
                return {}, status

            Apigate(app, gateway)
            self.get = partial(over_wsgi, app, "/pets")


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request):
    return request.param


def gateway_on(uri, **settings):
    return Gateway(
        throttle=Rate(900, per=3_600),
        client_throttle="800/hour",
        methods={"*": Method(throttle="700/hour", client_throttle="600/hour")},
        name="shop",
        store=uri,
        clock=FakeClock(),
        **settings,
    )


def test_a_request_through_five_levels_and_a_decorator_costs_one(redis_server, kind):
    app = App(kind, gateway_on(f"{redis_server.uri}?deadline_ms=10000"))
    app.get()
    before = redis_server.scripts()
    answers = [app.get() for _ in range(3)]
    assert redis_server.scripts() - before == 3
    assert [answer.status for answer in answers] == [200] * 3
    assert "r=496" in answers[-1].fields["ratelimit"]
    assert answers[-1].fields["ratelimit-policy"].count(";q=") == 5


def test_its_refund_is_one_more_after_the_last_byte(redis_server, kind):
    app = App(kind, gateway_on(f"{redis_server.uri}?deadline_ms=10000", refund="4xx"), status=404)
    app.get()
    before = redis_server.scripts()
    answer = app.get()
    assert redis_server.scripts() - before == 2
    assert answer.status == 404
    assert "r=499" in answer.fields["ratelimit"]


def test_a_flood_over_the_limit_does_not_reach_the_server(redis_server, kind):
    gateway = Gateway(
        client_throttle="1/hour", name="shop", store=f"{redis_server.uri}?deadline_ms=10000", clock=FakeClock()
    )
    app = App(kind, gateway)
    app.get()
    app.get()
    before = redis_server.scripts()
    assert [app.get().status for _ in range(10)] == [429] * 10
    assert redis_server.scripts() == before
