"""Refusals that a page of another origin can read: with the fields of the app's own CORSMiddleware."""

from inspect import signature
from typing import Any

import anyio.lowlevel
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

from apigate import CORS, Gateway
from apigate.fastapi import GatewayMiddleware
from apigate.testing import FakeClock
from tests.fastapi.asking import ask

PAGE = "https://page.example"
OTHER = "https://other.example"
LAYER: dict[str, Any] = {"allow_origins": [PAGE], "allow_credentials": True, "expose_headers": ["Retry-After"]}
PREFLIGHT = {"origin": PAGE, "access-control-request-method": "GET"}


class Through(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)


def shop() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/", lambda: "root")
    return app


def gate_outside(gateway: Gateway) -> Any:
    app = shop()
    app.add_middleware(CORSMiddleware, **LAYER)
    app.add_middleware(GatewayMiddleware, gateway=gateway)
    return app


def gate_inside(gateway: Gateway) -> Any:
    app = shop()
    app.add_middleware(GatewayMiddleware, gateway=gateway)
    app.add_middleware(CORSMiddleware, **LAYER)
    return app


def gate_around_the_app(gateway: Gateway) -> Any:
    app = shop()
    app.add_middleware(CORSMiddleware, **LAYER)
    app.add_middleware(Through)
    return GatewayMiddleware(app, gateway)


def gate_around_the_layer(gateway: Gateway) -> Any:
    return GatewayMiddleware(CORSMiddleware(shop(), **LAYER), gateway)


def layer_around_the_gate(gateway: Gateway) -> Any:
    return CORSMiddleware(GatewayMiddleware(shop(), gateway), **LAYER)


def others_between(gateway: Gateway) -> Any:
    app = shop()
    app.add_middleware(CORSMiddleware, **LAYER)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(Through)
    app.add_middleware(GatewayMiddleware, gateway=gateway)
    return app


places = pytest.mark.parametrize(
    "place",
    [gate_outside, gate_inside, gate_around_the_app, gate_around_the_layer, layer_around_the_gate, others_between],
    ids=lambda place: place.__name__,
)


def refused(app: Any, **headers: str) -> dict[str, str]:
    ask(app)
    answer = ask(app, headers=headers)
    assert (answer.status, answer.error, answer.starts) == (429, None, 1)
    assert answer.headers["retry-after"] == "60"
    assert answer.headers["content-length"] == str(len(answer.body))
    return answer.headers


@places
def test_the_page_can_read_it(place):
    headers = refused(place(Gateway(client_throttle="1/minute", clock=FakeClock())), origin=PAGE)
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-expose-headers"] == "Retry-After"
    assert headers["vary"] == "Origin"


@places
def test_other_pages_cannot(place):
    headers = refused(place(Gateway(client_throttle="1/minute", clock=FakeClock())), origin=OTHER)
    assert "access-control-allow-origin" not in headers


@places
def test_the_first_request_may_be_the_one_that_is_refused(place):
    app = place(Gateway(throttle="1/minute", cost=2, clock=FakeClock()))
    answer = ask(app, headers={"origin": PAGE})
    assert answer.status == 429
    assert answer.headers["access-control-allow-origin"] == PAGE


@places
def test_preflights_are_answered_by_the_app_and_take_nothing_from_the_client(place):
    app = place(Gateway(client_throttle="1/minute", clock=FakeClock()))
    for _ in range(3):
        answer = ask(app, "/", "OPTIONS", headers=PREFLIGHT)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
    assert ask(app).status == 200


def test_a_refused_preflight_is_not_made_a_granted_one():
    app = gate_around_the_app(Gateway(throttle="1/minute", cost=2, clock=FakeClock()))
    ask(app, "/", "OPTIONS", headers=PREFLIGHT)
    answer = ask(app, "/", "OPTIONS", headers=PREFLIGHT)
    assert answer.status == 429


def test_what_a_decorated_function_refused_further_in_can_be_read_too():
    gateway = Gateway(clock=FakeClock())
    app = FastAPI()
    helper = gateway.throttle("1/minute")(lambda: "helped")
    app.add_api_route("/", lambda: helper())  # noqa: PLW0108 - not the endpoint itself
    app.add_middleware(CORSMiddleware, **LAYER)
    assert refused(GatewayMiddleware(app, gateway), origin=PAGE)["access-control-allow-origin"] == PAGE


def test_the_layer_of_a_mounted_app_is_asked_for_what_is_below_it():
    inner = FastAPI()
    inner.add_api_route("/x", lambda: "x")
    inner.add_middleware(CORSMiddleware, **LAYER)
    app = Starlette(routes=[Mount("/m", app=inner), Route("/x", lambda request: PlainTextResponse("x"))])
    gate = GatewayMiddleware(app, Gateway(throttle="1/minute", cost=2, clock=FakeClock()))
    assert ask(gate, "/m/x", headers={"origin": PAGE}).headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-origin" not in ask(gate, "/x", headers={"origin": PAGE}).headers


@pytest.mark.skipif(
    "middleware" not in signature(Router).parameters, reason="routers of this Starlette take no middleware"
)
@pytest.mark.parametrize("target", ["/m/x", "/x"])
def test_the_layer_of_a_router_is_asked(target):
    routes = [Route("/x", lambda request: PlainTextResponse("x"))]
    router = Router(routes, middleware=[Middleware(CORSMiddleware, **LAYER)])
    app = router if target == "/x" else Starlette(routes=[Mount("/m", app=router)])
    gate = GatewayMiddleware(app, Gateway(client_throttle="1/minute", clock=FakeClock()))
    answers = [ask(gate, target, headers={"origin": PAGE}) for _ in range(2)]
    assert [(answer.status, answer.headers["access-control-allow-origin"]) for answer in answers] == [
        (200, PAGE),
        (429, PAGE),
    ]


def test_an_app_without_a_layer_leaves_it_to_the_gateway():
    gateway = Gateway(client_throttle="1/minute", cors=CORS(allow_origins=[PAGE]), clock=FakeClock())
    assert refused(GatewayMiddleware(shop(), gateway), origin=PAGE)["access-control-allow-origin"] == PAGE


def test_asking_whether_there_is_a_layer_does_not_start_the_app():
    app = shop()
    app.add_middleware(CORSMiddleware, **LAYER)
    gateway = Gateway(client_throttle="1/minute")
    GatewayMiddleware(app, gateway)
    assert "unreadable-refusals" not in {finding.check for finding in gateway.lint()}
    app.add_middleware(Through)  # raises once an app has started


def test_a_layer_of_the_users_own_that_waits_is_not_waited_for():
    class Slow(CORSMiddleware):
        async def __call__(self, scope, receive, send):

            await anyio.lowlevel.checkpoint()
            await super().__call__(scope, receive, send)

    gate = GatewayMiddleware(Slow(shop(), **LAYER), Gateway(client_throttle="1/minute", clock=FakeClock()))
    assert "access-control-allow-origin" not in refused(gate, origin=PAGE)
