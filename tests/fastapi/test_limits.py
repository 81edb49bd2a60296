"""Limits by decorator and by method table: each kind of endpoint, each place where the gate may stand."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from apigate import Gateway, Method, Throttled
from apigate.core.context import RequestContext
from apigate.fastapi import GatewayMiddleware, context
from apigate.staging import PathPrefix
from apigate.testing import FakeClock
from tests.fastapi.asking import ADDRESS, DENIAL, ask, asked, connect, scope_of, statuses

Here = Annotated[RequestContext, Depends(context)]


class Through(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)


def wrapped(app: Any, gateway: Gateway) -> Any:
    return GatewayMiddleware(app, gateway)


def added_last(app: Any, gateway: Gateway) -> Any:
    app.add_middleware(Through)
    app.add_middleware(GatewayMiddleware, gateway=gateway)
    return app


def added_first(app: Any, gateway: Gateway) -> Any:
    app.add_middleware(GatewayMiddleware, gateway=gateway)
    app.add_middleware(Through)
    return app


def around_through(app: Any, gateway: Gateway) -> Any:
    app.add_middleware(Through)
    app.add_middleware(Through)
    return GatewayMiddleware(app, gateway)


def twice(app: Any, gateway: Gateway) -> Any:
    app.add_middleware(GatewayMiddleware, gateway=gateway)
    return GatewayMiddleware(app, gateway)


PLACES = [wrapped, added_last, added_first, around_through, twice]
everywhere = pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)


def left(gateway: Gateway) -> int:
    """Tokens of the client's bucket, before a request for something else."""
    return gateway.explain("GET", "/something/else", address=ADDRESS).levels[0].remaining + 1


def gate_with(**more: Any) -> Gateway:
    return Gateway(clock=FakeClock(), **more)


# ---- the kinds of endpoint


def function_endpoints(app: Any, gateway: Gateway) -> None:
    limit = gateway.throttle("2/minute")

    @app.get("/async/{x}")
    @limit
    async def asynchronous(x: int) -> int:
        return x

    @app.get("/sync/{x}")
    @limit
    def synchronous(x: int) -> int:
        return x

    class Views:
        @gateway.throttle("2/minute")
        async def method(self, x: int) -> int:
            return x

    app.add_api_route("/method/{x}", Views().method)

    class Called:
        def __call__(self, x: int) -> int:
            return x

    app.add_api_route("/called/{x}", gateway.throttle("2/minute")(Called()), name="called")


@everywhere
@pytest.mark.parametrize("target", ["/async/1", "/sync/1", "/method/1", "/called/1"])
def test_a_decorated_endpoint_is_limited(place, target):
    gateway = gate_with()
    app = FastAPI()
    function_endpoints(app, gateway)
    app = place(app, gateway)
    assert statuses(app, 3, target) == [200, 200, 429]
    answer = ask(app, target)
    assert answer.headers["retry-after"] == "30"
    assert answer.starts == 1
    assert b'"method"' in answer.body
    assert statuses(app, 1, target.replace("1", "x")) == [429]  # refused before anything is parsed


@everywhere
def test_bodies_are_not_parsed_for_a_refused_request(place):
    gateway = gate_with()
    app = FastAPI()

    @app.post("/orders")
    @gateway.throttle("1/minute")
    async def order(body: dict[str, int]) -> int:
        return body["a"]

    app = place(app, gateway)
    assert ask(app, "/orders", "POST", b'{"a": 1}', headers={"content-type": "application/json"}).status == 200
    assert ask(app, "/orders", "POST", b"rubbish", headers={"content-type": "application/json"}).status == 429


@everywhere
def test_a_class_based_endpoint_is_limited_by_verb(place):
    gateway = gate_with()

    class Pets(HTTPEndpoint):
        @gateway.throttle("1/minute")
        async def get(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse("get")

        @gateway.throttle("2/minute")
        def post(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse("post")

    app = place(Starlette(routes=[Route("/pets", Pets)]), gateway)
    assert statuses(app, 2, "/pets") == [200, 429]
    assert statuses(app, 1, "/pets", "HEAD") == [429]
    assert statuses(app, 3, "/pets", "POST") == [200, 200, 429]
    assert statuses(app, 2, "/pets", "DELETE") == [405, 405]


@everywhere
def test_dispatch_and_whole_classes_can_be_limited(place):
    gateway = gate_with()

    class Dispatched(HTTPEndpoint):
        @gateway.throttle("1/minute")
        async def dispatch(self) -> None:
            await super().dispatch()

        async def get(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse("get")

    @gateway.throttle("1/minute")
    class Whole(HTTPEndpoint):
        async def get(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse("get")

    app = place(Starlette(routes=[Route("/dispatched", Dispatched), Route("/whole", Whole)]), gateway)
    assert statuses(app, 2, "/dispatched") == [200, 429]
    assert statuses(app, 2, "/whole") == [200, 429]


def test_two_methods_of_one_class_share_nothing_with_each_other():
    """HEAD is counted as GET, but a class may have a method for each."""
    gateway = gate_with()

    class Both(HTTPEndpoint):
        @gateway.throttle("1/minute")
        async def get(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse("get")

        @gateway.throttle("1/minute")
        async def head(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse("")

    app = GatewayMiddleware(Starlette(routes=[Route("/x", Both)]), gateway)
    assert statuses(app, 2, "/x", "HEAD") == [200, 429]
    assert statuses(app, 2, "/x", "GET") == [200, 429]


@everywhere
def test_streams_are_refused_before_they_begin(place):
    gateway = gate_with()
    app = FastAPI()
    started: list[str] = []

    async def numbers() -> AsyncIterator[bytes]:
        started.append("async")
        yield b"1"
        yield b"2"

    @app.get("/returned")
    @gateway.throttle("1/minute")
    async def returned() -> StreamingResponse:
        return StreamingResponse(numbers())

    app = place(app, gateway)
    answers = [ask(app, "/returned") for _ in range(2)]
    assert [(a.status, a.starts) for a in answers] == [(200, 1), (429, 1)]
    assert answers[0].body == b"12"
    assert started == ["async"]


def has_yielding_endpoints() -> bool:
    import fastapi

    return tuple(map(int, fastapi.__version__.split(".")[:2])) >= (0, 134)


@pytest.mark.skipif(not has_yielding_endpoints(), reason="endpoints that yield came with FastAPI 0.134")
@everywhere
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_endpoints_that_yield_are_limited(place, kind):
    gateway = gate_with()
    app = FastAPI()

    @app.get("/sync")
    @gateway.throttle("1/minute")
    def sync() -> Iterator[int]:
        yield 1
        yield 2

    @app.get("/async")
    @gateway.throttle("1/minute")
    async def asynchronous() -> AsyncIterator[int]:
        yield 1
        yield 2

    app = place(app, gateway)
    answers = [ask(app, f"/{kind}") for _ in range(2)]
    assert [(a.status, a.starts, a.error) for a in answers] == [(200, 1, None), (429, 1, None)]
    assert answers[0].body == b"1\n2\n"


# ---- stacking, levels, giving back


@everywhere
def test_stacked_decorators_are_one_decision(place):
    gateway = gate_with(client_throttle="10/minute")
    app = FastAPI()

    @app.get("/a")
    @gateway.throttle("2/minute", per="client")
    @gateway.throttle("3/minute")
    async def a() -> str:
        return "a"

    @app.get("/b")
    @gateway.throttle("3/minute")
    @gateway.throttle("2/minute", per="client")
    async def b() -> str:
        return "b"

    app = place(app, gateway)
    for target in ("/a", "/b"):
        first = ask(app, target)
        assert "q=10" in first.headers["ratelimit-policy"]
        assert "q=3" in first.headers["ratelimit-policy"]
        assert "q=2" in first.headers["ratelimit-policy"]
        assert statuses(app, 3, target) == [200, 429, 429]
        assert statuses(app, 2, target, address="192.0.2.2") == [200, 429]
    assert left(gateway) == 6  # what was refused took nothing anywhere


@everywhere
def test_one_request_is_counted_once(place):
    gateway = gate_with(client_throttle="10/minute")
    app = FastAPI()

    @app.get("/")
    @gateway.throttle("10/minute")
    async def root() -> str:
        return "root"

    app = place(app, gateway)
    assert ask(app, "/").status == 200
    assert left(gateway) == 9
    assert gateway.stats()["default"]["GET /"] == {"admitted": 1}


@everywhere
def test_an_endpoint_that_had_begun_its_work_has_paid_for_it(place):
    """A function that no route knows of is refused further in; else the endpoint could be made to work without end."""
    gateway = gate_with(client_throttle="10/minute")
    app = FastAPI()

    @gateway.throttle("1/minute")
    async def helper() -> str:
        return "helped"

    @app.get("/")
    async def root() -> str:
        return await helper()

    app = place(app, gateway)
    assert statuses(app, 3, "/") == [200, 429, 429]
    assert left(gateway) == 7
    assert gateway.stats()["default"]["GET /"] == {"admitted": 1, "THROTTLED": 2}


@everywhere
@pytest.mark.parametrize("kind", ["def", "async def", "yield", "async yield"])
def test_a_dependency_that_is_refused_is_429(place, kind):
    gateway = gate_with(client_throttle="10/minute")
    limit = gateway.throttle("1/minute", per="client")

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

    kinds = {
        "def": plain,
        "async def": asynchronous,
        "yield": yields,
        "async yield": yields_later,
    }
    router = APIRouter(dependencies=[Depends(kinds[kind])])
    router.add_api_route("/x", lambda: "x")
    app = FastAPI()
    app.include_router(router, prefix="/api")
    app = place(app, gateway)
    answers = [ask(app, "/api/x") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 429, 429]
    assert [answer.error for answer in answers] == [None] * 3
    assert answers[1].headers["retry-after"] == "60"
    assert ask(app, "/api/x", address="192.0.2.2").status == 200


def test_background_tasks_run_and_may_be_limited():
    gateway = gate_with()
    app = FastAPI()
    done: list[int] = []

    @gateway.throttle("1/minute")
    def work(number: int) -> None:
        done.append(number)

    @app.get("/{number}")
    @gateway.throttle("10/minute")
    async def root(number: int, tasks: BackgroundTasks) -> int:
        tasks.add_task(work, number)
        return number

    gate = GatewayMiddleware(app, gateway)
    answers = [ask(gate, f"/{number}") for number in range(2)]
    assert [(a.status, a.starts) for a in answers] == [(200, 1), (200, 1)]  # the response had gone already
    assert done == [0]
    assert isinstance(answers[1].error, Throttled)


# ---- exception handlers of the user's


@everywhere
def test_a_handler_for_throttled_answers_itself(place):
    gateway = gate_with(client_throttle="10/minute")
    app = FastAPI()

    @gateway.throttle("1/minute")
    async def helper() -> None: ...

    @app.get("/")
    async def root() -> str:
        await helper()
        return "root"

    @app.exception_handler(Throttled)
    async def mine(request: Request, error: Throttled) -> JSONResponse:
        return JSONResponse({"wait": error.retry_after}, 429)

    app = place(app, gateway)
    answers = [ask(app, "/") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert answers[1].body == b'{"wait":60.0}'
    assert left(gateway) == 8


@everywhere
def test_a_handler_for_every_exception_does_not_make_a_500_of_it(place):
    gateway = gate_with()
    app = FastAPI()

    @gateway.throttle("1/minute")
    async def helper() -> None: ...

    @app.get("/")
    async def root() -> str:
        await helper()
        return "root"

    @app.exception_handler(Exception)
    async def mine(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"oops": True}, 500)

    app = place(app, gateway)
    answers = [ask(app, "/") for _ in range(2)]
    assert [(a.status, a.starts, a.error) for a in answers] == [(200, 1, None), (429, 1, None)]


# ---- method table


@everywhere
def test_the_method_table_is_matched_whatever_its_parameters_are_called(place):
    gateway = gate_with(methods={"GET /api/pets/{some_name}": Method(throttle="2/minute")})
    router = APIRouter(prefix="/pets")
    router.add_api_route("/{pet_id}", lambda pet_id: pet_id)
    app = FastAPI()
    app.include_router(router, prefix="/api")
    app = place(app, gateway)
    assert [ask(app, f"/api/pets/{number}").status for number in range(3)] == [200, 200, 429]


@everywhere
def test_each_route_has_a_bucket_of_the_default_method(place):
    gateway = gate_with(methods={"*": Method(throttle="2/minute")})
    app = FastAPI()
    router = APIRouter()
    for path in ("/a/{x}", "/b/{x}"):
        router.add_api_route(path, lambda x: x)
    app.include_router(router, prefix="/one")
    app.include_router(router, prefix="/two")
    app.mount("/m/{tenant}", Starlette(routes=[Route("/c/{x}", lambda request: PlainTextResponse("c"))]))
    app = place(app, gateway)
    for prefix in ("/one/a", "/one/b", "/two/a", "/two/b"):
        assert [ask(app, f"{prefix}/{number}").status for number in range(3)] == [200, 200, 429]
    assert [ask(app, f"/m/{tenant}/c/1").status for tenant in ("a", "b", "c")] == [200, 200, 429]
    # 404, 405, a redirect: all that match no route share one bucket, so that paths cannot make keys
    assert ask(app, "/nowhere").status == 404
    assert ask(app, "/one/a/1", "PUT").status == 405
    assert statuses(app, 2, "/anywhere/else") == [429, 429]
    assert ask(app, "/one/b/1", "DELETE").status == 429


def test_head_counts_as_get():
    gateway = gate_with(methods={"*": Method(throttle="2/minute")})
    app = Starlette(routes=[Route("/x", lambda request: PlainTextResponse("x"))])
    gate = GatewayMiddleware(app, gateway)
    assert statuses(gate, 1, "/x") == [200]
    assert statuses(gate, 2, "/x", "HEAD") == [200, 429]
    assert ask(gate, "/x", "HEAD").body == b""


def test_options_has_a_bucket_of_its_own_where_a_route_answers_it():
    gateway = gate_with(methods={"*": Method(throttle="1/minute")})
    app = Starlette(routes=[Route("/x", lambda request: PlainTextResponse("x"), methods=["GET", "OPTIONS"])])
    gate = GatewayMiddleware(app, gateway)
    preflight = {"origin": "https://page.example", "access-control-request-method": "GET"}
    assert statuses(gate, 2, "/x") == [200, 429]
    assert statuses(gate, 2, "/x", "OPTIONS", headers=preflight) == [200, 429]


def test_stage_by_path_prefix():
    gateway = gate_with(
        stages=[stage("beta", "1/minute"), stage("prod", "2/minute")],
        stage_by=PathPrefix(),
    )
    app = FastAPI()

    @app.get("/pets/{pet}")
    @gateway.throttle("10/minute")
    async def pet(pet: str, request: Request, gate: Here) -> dict[str, Any]:
        return {"stage": gate.stage, "method": gate.method, "url": request.url.path}

    gate = GatewayMiddleware(app, gateway)
    answer = ask(gate, "/beta/pets/7")
    assert b'"stage":"beta"' in answer.body
    assert b'"method":"GET /pets/{id}"' in answer.body
    assert statuses(gate, 1, "/beta/pets/7") == [429]
    assert statuses(gate, 3, "/prod/pets/7") == [200, 200, 429]
    assert statuses(gate, 1, "/gamma/pets/7") == [404]


def stage(name: str, rate: str) -> Any:
    from apigate import Stage

    return Stage(name, methods={"GET /pets/{id}": Method(throttle=rate)})


# ---- websockets


@everywhere
def test_a_websocket_is_refused_before_it_is_accepted(place):
    gateway = gate_with(methods={"GET /table/{room}": Method(throttle="1/minute")})
    app = FastAPI()
    accepted: list[str] = []

    @app.websocket("/ws/{room}")
    @gateway.throttle("1/minute")
    async def talk(websocket: WebSocket, room: str, gate: Here) -> None:
        accepted.append(f"{gate.endpoint.method if gate.endpoint else None}")
        await websocket.accept()
        await websocket.close()

    @app.websocket("/table/{id}")
    async def table(websocket: WebSocket, id: str) -> None:  # noqa: A002 - as the template has it
        await websocket.accept()
        await websocket.close()

    app = place(app, gateway)
    assert [connect(app, "/ws/1").status for _ in range(2)] == [101, 1008]
    assert connect(app, "/ws/2", extensions=DENIAL).status == 429
    assert accepted == ["GET /ws/{room}"]
    assert [connect(app, f"/table/{room}").status for room in range(2)] == [101, 1008]
    assert statuses(app, 1, "/table/1") == [429]  # counted as a GET of its path


@everywhere
def test_a_websocket_class_is_limited(place):
    gateway = gate_with()

    class Talk(WebSocketEndpoint):
        @gateway.throttle("1/minute")
        async def on_connect(self, websocket: Any) -> None:
            await websocket.accept()

    app = place(Starlette(routes=[Mount("/m", routes=[WebSocketRoute("/ws", Talk)])]), gateway)
    assert [connect(app, "/m/ws").status for _ in range(2)] == [101, 1008]


@everywhere
def test_a_websockets_dependency_that_is_refused_closes_it(place):
    gateway = gate_with()

    @gateway.throttle("1/minute")
    async def limited() -> None: ...

    app = FastAPI()

    @app.websocket("/ws")
    async def talk(websocket: WebSocket, _: Annotated[None, Depends(limited)]) -> None:
        await websocket.accept()
        await websocket.close()

    app = place(app, gateway)
    answers = [connect(app, "/ws") for _ in range(2)]
    assert [answer.status for answer in answers] == [101, 1008]


# ---- context


@everywhere
def test_the_context_is_a_dependency(place):
    gateway = gate_with(client_throttle="10/minute")
    app = FastAPI()

    @app.get("/pets/{pet}")
    def pet(pet: str, gate: Here) -> dict[str, Any]:
        return {"client": gate.client, "stage": gate.stage, "left": gate.decision.levels["client"].remaining}

    app = place(app, gateway)
    answer = ask(app, "/pets/7")
    assert answer.body == b'{"client":"ip:192.0.2.1","stage":"default","left":9}'


def test_without_a_gate_the_context_is_empty():
    app = FastAPI()
    seen: list[RequestContext] = []

    @app.get("/")
    async def root(gate: Here) -> str:
        seen.append(gate)
        return gate.client

    @app.websocket("/ws")
    async def talk(websocket: WebSocket, gate: Here) -> None:
        seen.append(gate)
        await websocket.accept()
        await websocket.close()

    assert ask(app, "/").body == b'"ip:192.0.2.1"'
    assert connect(app, "/ws").status == 101
    assert [(gate.stage, gate.method, gate.decision) for gate in seen] == [("(none)", None, None)] * 2


def test_the_context_adds_nothing_to_the_openapi_document():
    app, bare = FastAPI(), FastAPI()

    def root(gate: Here) -> str:
        return gate.client

    def same() -> str:
        return ""

    same.__name__ = "root"
    app.add_api_route("/", root)
    bare.add_api_route("/", same)
    assert app.openapi() == bare.openapi()


# ---- concurrency


@everywhere
def test_a_burst_at_once_is_exact(place):
    gateway = gate_with()
    app = FastAPI()

    @app.get("/")
    @gateway.throttle("10/minute")
    def root() -> str:  # in threads
        return "root"

    app = place(app, gateway)

    async def burst() -> list[int]:
        answers = await asyncio.gather(*[asked(app, scope_of("http", "/")) for _ in range(40)])
        return sorted(answer.status for answer in answers)

    assert asyncio.run(burst()) == [200] * 10 + [429] * 30


def nested(depth: int, endpoint: Callable[..., Any]) -> APIRouter:
    router = APIRouter()
    if not depth:
        router.add_api_route("/end/{x}", endpoint)
        return router
    router.include_router(nested(depth - 1, endpoint), prefix=f"/d{depth}")
    return router


def test_a_deep_router_is_limited_as_a_flat_one():
    gateway = gate_with()

    @gateway.throttle("1/minute")
    async def end(x: str) -> str:
        return x

    app = FastAPI()
    app.include_router(nested(6, end))
    gate = GatewayMiddleware(app, gateway)
    assert statuses(gate, 2, "/d6/d5/d4/d3/d2/d1/end/x") == [200, 429]
