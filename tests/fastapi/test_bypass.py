"""No way around a limit: whatever reaches a limited endpoint has been counted, by decorator and by method table."""

import re
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

from apigate import Gateway, Method
from apigate.fastapi import GatewayMiddleware
from apigate.testing import FakeClock
from tests.fastapi.asking import ask, connect

served: list[str] = []
"""The paths under which limited endpoints were reached."""


@pytest.fixture(autouse=True)
def _nothing_served():
    served.clear()


def shop(limit: Any) -> FastAPI:
    """An app in which every endpoint but `/open` is limited, each by a bucket of its own."""

    def note(request: Any = None) -> PlainTextResponse:
        served.append("endpoint")
        return PlainTextResponse("served")

    def operation() -> Any:
        async def operate() -> str:
            served.append("endpoint")
            return "served"

        return limit(operate)

    class View(HTTPEndpoint):
        @limit
        async def get(self, request: Any) -> PlainTextResponse:
            return note()

        @limit
        async def post(self, request: Any) -> PlainTextResponse:
            return note()

    def plain() -> Any:
        async def serve(request: Any) -> PlainTextResponse:
            return note()

        return limit(serve)

    app, router, sub = FastAPI(openapi_url=None), APIRouter(), FastAPI(openapi_url=None)
    router.add_api_route("/orders/{order}", operation())
    app.include_router(router, prefix="/api")
    app.add_api_route("/pets", operation(), methods=["GET", "POST", "OPTIONS"])
    app.add_api_route("/slash/", operation())
    app.add_api_route("/files/{name:path}", operation())
    sub.add_api_route("/x", operation())
    app.mount("/sub", sub)
    app.mount("/m/{tenant}", Router([Route("/items/{item}", plain())]))
    loose = Route("/Loose/{x}", plain())
    loose.path_regex = re.compile(loose.path_regex.pattern, re.IGNORECASE)
    app.router.routes += [Route("/view", View), Route("/head", plain()), loose]
    app.add_api_route("/open", lambda: "open")

    @app.websocket("/ws")
    @limit
    async def talk(websocket: WebSocket) -> None:
        served.append("websocket")
        await websocket.close()

    return app


TABLE = [
    "* /api/orders/{id}",
    "* /pets",
    "* /slash/",
    "* /files/{name+}",
    "* /sub/x",
    "* /m/{t}/items/{i}",
    "* /view",
    "* /head",
    "* /Loose/{x}",
    "* /ws",
]


def gated(by: str) -> Any:
    if by == "decorator":
        gateway = Gateway(clock=FakeClock())
        return GatewayMiddleware(shop(gateway.throttle("1/minute")), gateway)
    gateway = Gateway(methods={name: Method(throttle="1/minute") for name in TABLE}, clock=FakeClock())
    return GatewayMiddleware(shop(lambda function: function), gateway)


FIRST = {
    "/api/orders/1": ("GET", "/api/orders/1"),
    "/pets": ("GET", "/pets"),
    "/slash/": ("GET", "/slash/"),
    "/files/a": ("GET", "/files/a"),
    "/sub/x": ("GET", "/sub/x"),
    "/m/a/items/1": ("GET", "/m/a/items/1"),
    "/view": ("GET", "/view"),
    "/head": ("GET", "/head"),
    "/Loose/1": ("GET", "/Loose/1"),
}
"""Each limited endpoint, and the request that takes its only token."""


def ways(path: str) -> list[tuple[str, str]]:
    """The same path in every spelling that some router somewhere takes for it."""
    encoded = "".join(f"%{ord(character):02x}" if character != "/" else "/" for character in path)
    double = encoded.replace("%", "%25")
    half = path[:2] + f"%{ord(path[2]):02X}" + path[3:]
    targets = [
        path,
        encoded,
        encoded.upper().replace("/", "/"),
        half,
        double,
        path + "/",
        path + "//",
        path.rstrip("/"),
        "/" + path,
        "//" + path.lstrip("/"),
        path.replace("/", "//"),
        path.replace("/", "/./"),
        "/x/.." + path,
        "/%2e%2e" + path,
        path + "/.",
        path + "/..",
        path + "%00",
        path + "%0a",
        path + "%20",
        path + "?x=1",
        path + "%3Fx=1",
        path + "%23x",
        path + ";x=1",
        path.upper(),
        path.swapcase(),
        path.replace("/", "\\"),
        path.replace("/", "%2F"),
        "/" + path.lstrip("/").replace("/", "%2f"),
        "http://shop.example" + path,
        path.lstrip("/"),
        "*" + path,
        path.replace("a", "\uff41"),  # a full-width letter
        path + "\u200b",
        "/open/../" + path.lstrip("/"),
        "/open%2f.." + path,
    ]
    verbs = ["GET", "HEAD", "POST", "OPTIONS", "PUT", "QUERY", "get", "Get", "BREW", "*", ""]
    return [("GET", target) for target in targets] + [(verb, path) for verb in verbs]


@pytest.mark.parametrize("by", ["decorator", "table"])
@pytest.mark.parametrize("endpoint", FIRST)
def test_every_spelling_is_counted(by, endpoint):
    """The endpoint's only token is gone, so that whoever still reaches it came around the limit."""
    app = gated(by)
    verb, target = FIRST[endpoint]
    assert ask(app, target, verb).status == 200
    served.clear()
    around = []
    for verb, target in ways(endpoint):
        # with the table, each verb has its name; one that is named by `*` shares one bucket
        ask(app, target, verb)
        if served:
            around.append((verb, target))
            served.clear()
    if by == "decorator" and endpoint == "/view":
        around.remove(("POST", "/view"))  # another method of the class, with a bucket of its own
    assert around == []


@pytest.mark.parametrize("by", ["decorator", "table"])
@pytest.mark.parametrize(
    "headers",
    [
        {"x-http-method-override": "DELETE"},
        {"x-original-url": "/open"},
        {"x-rewrite-url": "/open"},
        {"x-forwarded-prefix": "/api"},
        {"x-forwarded-for": "198.51.100.1"},
        {"host": "other.example"},
        {"host": ""},
        {"origin": "https://page.example"},
        {"origin": "https://page.example", "access-control-request-method": "POST"},
        {"upgrade": "websocket", "connection": "upgrade"},
        {"expect": "100-continue"},
    ],
)
def test_no_header_leads_around(by, headers):
    app = gated(by)
    assert ask(app, "/pets").status == 200
    served.clear()
    for verb in ("GET", "HEAD", "POST", "OPTIONS"):
        ask(app, "/pets", verb, headers=headers)
    assert served == []


@pytest.mark.parametrize("by", ["decorator", "table"])
def test_handshakes_are_counted(by):
    app = gated(by)
    assert connect(app, "/ws").error is None
    assert served == ["websocket"]
    for target in ("/ws", "/%77s", "/ws?x=1", "//ws", "/ws/", "/WS", "ws", "/x/../ws"):
        connect(app, target)
    connect(app, "/ws", headers={"origin": "https://page.example"})
    assert served == ["websocket"]


@pytest.mark.parametrize("root", ["/shop", "/shop/", "/pets", "/p", "/"])
@pytest.mark.parametrize("by", ["decorator", "table"])
def test_no_root_path_leads_around(by, root):
    app = gated(by)
    served.clear()
    reached = 0
    for target in ("/pets", "/pets/pets", "/ets", "//pets"):
        served.clear()
        ask(app, target, root_path=root)
        reached += bool(served)
    assert reached <= 1


def test_a_method_table_below_an_app_that_names_its_prefix_itself():
    """FastAPI routes below its own `root_path`, which the gate around it sees before the app has set it."""
    app = FastAPI()
    app.root_path = "/shop"
    app.add_api_route("/pets/{pet}", lambda pet: pet)
    gateway = Gateway(methods={"GET /pets/{id}": Method(throttle="1/minute")}, clock=FakeClock())
    gate = GatewayMiddleware(app, gateway)
    answers = [ask(gate, target).status for target in ("/shop/pets/1", "/pets/2", "/shop/pets/3")]
    assert answers.count(200) <= 1


def test_middleware_that_changes_the_path_does_not_lead_around_a_decorator():
    gateway = Gateway(clock=FakeClock())
    app = FastAPI()
    app.add_api_route("/pets", gateway.throttle("1/minute")(lambda: "pets"))

    class Rewrites:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            await self.app({**scope, "path": "/pets", "method": "GET"}, receive, send)

    gate = GatewayMiddleware(Rewrites(app), gateway)
    assert [ask(gate, target, verb).status for verb, target in (("POST", "/x"), ("GET", "/pets"), ("GET", "/y"))] == [
        200,
        429,
        429,
    ]


def test_behind_it_the_method_table_sees_the_path_that_is_served():
    """Inside of what rewrites paths or verbs, added before it: then the gate sees what the router sees."""
    gateway = Gateway(methods={"GET /pets": Method(throttle="1/minute")}, clock=FakeClock())
    app = FastAPI()
    app.add_api_route("/pets", lambda: "pets")

    class Rewrites:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            changed = {**scope, "path": "/pets", "method": "GET"} if scope["type"] == "http" else scope
            await self.app(changed, receive, send)

    app.add_middleware(GatewayMiddleware, gateway=gateway)
    app.add_middleware(Rewrites)
    assert [ask(app, target).status for target in ("/x", "/pets", "/y")] == [200, 429, 429]


def test_an_endpoint_under_two_paths_has_one_bucket_by_decorator():
    gateway = Gateway(clock=FakeClock())
    limited = gateway.throttle("1/minute")(lambda: "pets")
    app = FastAPI()
    app.add_api_route("/a", limited)
    app.mount("/m", Starlette(routes=[Mount("/n", routes=[Route("/b", lambda request: PlainTextResponse("b"))])]))
    router = APIRouter()
    router.add_api_route("/c", limited)
    app.include_router(router, prefix="/one")
    app.include_router(router, prefix="/two")
    gate = GatewayMiddleware(app, gateway)
    assert [ask(gate, target).status for target in ("/a", "/one/c", "/two/c")] == [200, 429, 429]
