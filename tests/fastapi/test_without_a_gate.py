"""Decorated endpoints of an app that no gate stands around, or where an opaque app hides the routes from it."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from apigate import ConfigurationError, Gateway, Method, Throttled
from apigate.fastapi import GatewayMiddleware
from apigate.testing import FakeClock
from tests.fastapi.asking import ask, connect, statuses


def gate_with(**more: Any) -> Gateway:
    return Gateway(clock=FakeClock(), **more)


def counted(gateway: Gateway) -> dict[str, dict[str, int]]:
    """Requests by method and kind, of the methods that had any."""
    return {method: counts for method, counts in gateway.stats()["default"].items() if counts}


# ---- no gate, no request among the arguments


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_decorated_endpoint_answers_429_with_one_warning(kind, caplog):
    gateway = gate_with()
    app = FastAPI()

    @gateway.throttle("1/minute")
    def plain() -> str:
        return "plain"

    @gateway.throttle("1/minute")
    async def asynchronous() -> str:
        return "async"

    app.add_api_route("/", {"def": plain, "async def": asynchronous}[kind])
    with caplog.at_level(logging.WARNING, "apigate"):
        answers = [ask(app) for _ in range(3)]
    assert [(a.status, a.error) for a in answers] == [(200, None), (429, None), (429, None)]
    assert answers[1].headers["retry-after"] == "60"
    assert len(caplog.records) == 1
    assert "no gate of its gateway stands around the app" in caplog.text


@pytest.mark.parametrize("kind", ["def", "async def", "yield", "async yield"])
def test_a_refused_dependency_answers_429_too(kind):
    gateway = gate_with()
    limit = gateway.throttle("1/minute")

    @limit
    def plain() -> None: ...

    @limit
    async def asynchronous() -> None: ...

    @limit
    def yields() -> Iterator[int]:
        yield 1

    @limit
    async def yields_later() -> AsyncIterator[int]:
        yield 1

    kinds = {"def": plain, "async def": asynchronous, "yield": yields, "async yield": yields_later}
    app = FastAPI(dependencies=[Depends(kinds[kind])])
    app.add_api_route("/", lambda: "root")
    assert statuses(app, 2) == [200, 429]


def test_a_stream_is_refused_before_it_begins():
    gateway = gate_with()
    app = FastAPI()

    @gateway.throttle("1/minute")
    async def numbers() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"

    @app.get("/")
    async def root() -> StreamingResponse:
        return StreamingResponse(numbers())

    answers = [ask(app) for _ in range(2)]
    assert [(a.status, a.starts, a.body[:2]) for a in answers] == [(200, 1, b"12"), (429, 1, answers[1].body[:2])]


def test_the_refusal_is_both_errors():
    gateway = gate_with()

    @gateway.throttle("1/minute")
    def limited() -> None: ...

    limited()
    with pytest.raises(Throttled) as raised:
        limited()
    error: Any = raised.value
    assert isinstance(error, HTTPException.__mro__[1])  # Starlette's
    assert (error.status_code, error.headers) == (429, {"Retry-After": "60"})
    assert error.retry_after == 60
    assert error.decision.violated == ("method",)
    assert str(error) == error.detail == "refused by method; retry after 60.000 s"
    assert repr(error) == "Throttled('refused by method; retry after 60.000 s')"


def test_what_never_fits_has_no_retry_after():
    gateway = gate_with()

    @gateway.throttle("1/minute", cost=2)
    def limited() -> None: ...

    with pytest.raises(Throttled) as raised:
        limited()
    error: Any = raised.value
    assert (error.status_code, error.headers, error.retry_after) == (429, {}, None)


def test_the_status_is_the_gateways_own():
    from apigate import GatewayResponse

    gateway = gate_with(responses={"THROTTLED": GatewayResponse(status=420)})
    app = FastAPI()
    app.add_api_route("/", gateway.throttle("1/minute")(lambda: "root"))
    assert statuses(app, 2) == [200, 420]


def test_handlers_of_the_users_come_first():
    gateway = gate_with()
    app = FastAPI()
    app.add_api_route("/", gateway.throttle("1/minute")(lambda: "root"))

    @app.exception_handler(Throttled)
    async def mine(request: Request, error: Throttled) -> JSONResponse:
        return JSONResponse({"wait": error.retry_after}, 503)

    assert statuses(app, 2) == [200, 503]


def test_pages_of_other_origins_can_read_it():
    gateway = gate_with()
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["https://page.example"])
    app.add_api_route("/", gateway.throttle("1/minute")(lambda: "root"))
    origin = {"origin": "https://page.example"}
    answers = [ask(app, headers=origin) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert answers[1].headers["access-control-allow-origin"] == "https://page.example"


def test_a_limit_per_client_names_the_missing_line():
    gateway = gate_with()
    app = FastAPI()
    app.add_api_route("/", gateway.throttle("1/minute", per="client")(lambda: "root"))
    error = ask(app).error
    assert isinstance(error, ConfigurationError)
    assert "app.add_middleware(GatewayMiddleware, gateway=gateway)" in str(error)


def test_a_limit_per_client_of_a_stream_names_it_before_the_stream_begins():
    gateway = gate_with()
    app = FastAPI()

    @gateway.throttle("1/minute", per="client")
    async def numbers() -> AsyncIterator[bytes]:
        yield b"1"

    @app.get("/")
    async def root() -> StreamingResponse:
        return StreamingResponse(numbers())

    answer = ask(app)
    assert isinstance(answer.error, ConfigurationError)
    assert answer.status == 500


# ---- no gate, but a request among the arguments: all levels


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_with_a_request_every_level_is_asked(kind):
    gateway = gate_with(
        throttle="100/minute",
        client_throttle="3/minute",
        methods={"GET /api/pets/{id}": Method(throttle="50/minute")},
    )
    limit = gateway.throttle("2/minute", per="client")

    @limit
    def plain(request: Request, pet: str) -> str:
        return pet

    @limit
    async def asynchronous(request: Request, pet: str) -> str:
        return pet

    router = APIRouter(prefix="/pets")
    router.add_api_route("/{pet}", {"def": plain, "async def": asynchronous}[kind])
    app = FastAPI()
    app.include_router(router, prefix="/api")
    answers = [ask(app, f"/api/pets/{number}") for number in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert b'"client-method"' in answers[2].body
    assert answers[2].headers["content-type"] == "application/problem+json"
    assert answers[2].headers["retry-after"] == "30"
    assert ask(app, "/api/pets/1", address="192.0.2.2").status == 200
    assert counted(gateway) == {"GET /api/pets/{id}": {"admitted": 3, "THROTTLED": 1}}


def test_with_a_request_templates_come_from_mounts_too():
    gateway = gate_with()

    @gateway.throttle("1/minute", per="client")
    async def item(request: Request) -> PlainTextResponse:
        return PlainTextResponse("item")

    inner = Starlette(routes=[Route("/items/{item}", item)])
    app = Starlette(routes=[Mount("/m/{tenant}", app=inner)])
    assert [ask(app, f"/m/{tenant}/items/1").status for tenant in "ab"] == [200, 429]
    assert counted(gateway) == {"GET /m/{tenant}/items/{item}": {"admitted": 1, "THROTTLED": 1}}
    app = FastAPI()
    app.mount("/outer", inner)
    assert ask(app, "/outer/items/1", address="192.0.2.2").status == 200
    assert counted(gateway)["GET /outer/items/{item}"] == {"admitted": 1}


def test_a_class_based_endpoint_has_its_request():
    gateway = gate_with()

    class Pets(HTTPEndpoint):
        @gateway.throttle("1/minute", per="client")
        async def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("get")

    app = Starlette(routes=[Route("/pets", Pets)])
    assert statuses(app, 2, "/pets") == [200, 429]


def test_a_websocket_is_closed():
    gateway = gate_with()
    app = FastAPI()

    @app.websocket("/ws/{room}")
    @gateway.throttle("1/minute", per="client")
    async def talk(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        await websocket.close()

    assert [connect(app, "/ws/1").status for _ in range(2)] == [101, 1008]
    assert connect(app, "/ws/1", address="192.0.2.2").status == 101


def test_a_dependency_is_not_the_endpoint():
    """It has the request, but what the framework called is another function: the mark's own bucket is asked."""
    gateway = gate_with()

    @gateway.throttle("1/minute")
    async def limited(request: Request) -> None: ...

    app = FastAPI()

    @app.get("/")
    async def root(_: Annotated[None, Depends(limited)]) -> str:
        return "root"

    assert statuses(app, 2) == [200, 429]


# ---- an opaque app between


def hidden(app: Any) -> Any:
    async def opaque(scope, receive, send):
        await app(scope, receive, send)

    return opaque


def test_behind_an_opaque_app_the_endpoint_acts_with_one_warning(caplog):
    gateway = gate_with(client_throttle="10/minute")
    app = FastAPI()

    @app.get("/a")
    @gateway.throttle("1/minute", per="client")
    async def a() -> str:
        return "a"

    @app.get("/b")
    @gateway.throttle("1/minute")
    def b() -> str:
        return "b"

    gate = GatewayMiddleware(hidden(app), gateway)
    with caplog.at_level(logging.WARNING, "apigate"):
        assert statuses(gate, 3, "/a") == [200, 429, 429]
    assert len(caplog.records) == 1
    assert "the gate cannot see the app's routes" in caplog.text
    assert statuses(gate, 2, "/b") == [200, 429]
    assert statuses(gate, 1, "/a", address="192.0.2.2") == [200]
    left = gateway.explain("GET", "/", address="192.0.2.1").levels[0].remaining + 1
    assert left == 8  # refusals gave it back


def test_behind_an_opaque_mount_too():
    gateway = gate_with()
    inner = FastAPI()
    inner.add_api_route("/x", gateway.throttle("1/minute", per="client")(lambda: "x"))
    app = Starlette(routes=[Mount("/m", app=hidden(inner))])
    assert statuses(GatewayMiddleware(app, gateway), 2, "/m/x") == [200, 429]


def test_two_gateways_each_carry_out_their_own():
    first, second = gate_with(), gate_with()
    app = FastAPI()

    @app.get("/")
    @first.throttle("2/minute")
    @second.throttle("1/minute")
    async def root() -> str:
        return "root"

    gate = GatewayMiddleware(GatewayMiddleware(app, first), second)
    assert statuses(gate, 2) == [200, 429]
    assert counted(first) == {"GET /": {"admitted": 1}}  # what the outer one refuses does not reach it


def test_a_mark_of_a_gateway_that_is_not_there_acts_at_the_endpoint():
    here, elsewhere = gate_with(client_throttle="10/minute"), gate_with()
    app = FastAPI()
    app.add_api_route("/", elsewhere.throttle("1/minute")(lambda: "root"))
    assert statuses(GatewayMiddleware(app, here), 2) == [200, 429]
