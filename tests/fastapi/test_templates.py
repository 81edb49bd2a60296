"""Route templates before the handler: each kind of route that Starlette and FastAPI have."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from apigate import Gateway
from apigate.asgi import GatewayMiddleware
from apigate.core.native import asgi_request
from apigate.routing import routing_of
from tests.fastapi.asking import ask, connect, scope_of


async def plain(request: Any) -> PlainTextResponse:
    return PlainTextResponse("plain")


class Watch:
    """Notes where the gate said that a request would go."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.seen: str | None = None

    async def __call__(self, scope, receive, send):
        endpoint = scope["apigate"].endpoint
        self.seen = None if endpoint is None else endpoint.method
        await self.app(scope, receive, send)


def template(app: Any, target: str, method: str = "GET", **more: Any) -> tuple[int, str | None]:
    """The status, and where the gate around the app said that the request would go."""
    watch = Watch(app)
    gate = GatewayMiddleware(watch, Gateway(client_throttle="1000/second"))
    answer = connect(gate, target, **more) if method == "WS" else ask(gate, target, method, **more)
    assert answer.error is None
    return answer.status, watch.seen


class Loud(Convertor[str]):
    regex = "[^/]+"

    def convert(self, value: str) -> str:
        if value == "bang":
            raise RuntimeError(value)
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("loud", Loud())


def shop(directory: Any) -> FastAPI:  # noqa: C901 - one of each kind
    app = FastAPI()
    outer, middle, inner = APIRouter(prefix="/outer"), APIRouter(), APIRouter(prefix="/inner")

    @app.get("/pets/{pet}")
    async def pet(pet: str) -> str:
        return pet

    @app.get("/pets/me")  # never reached: the one before it takes it
    async def me() -> str:
        return "me"

    @app.get("/numbers/{number:int}")
    async def number(number: int) -> int:
        return number

    @app.get("/files/{name:path}")
    async def file(name: str) -> str:
        return name

    @app.get("/raw/{name:path}/end")
    async def raw(name: str) -> str:
        return name

    @app.get("/v{version}/x")
    async def versioned(version: str) -> str:
        return version

    @app.get("/loud/{word:loud}")
    async def loud(word: str) -> str:
        return word

    @app.post("/pets/", status_code=201)
    def create() -> str:
        return "made"

    @inner.get("/x/{y}")
    def deep(y: str) -> str:
        return y

    @inner.websocket("/ws/{room}")
    async def talk(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        await websocket.close()

    middle.include_router(inner, prefix="/middle")
    outer.include_router(middle)
    app.include_router(outer, prefix="/api")
    app.include_router(inner, prefix="/again")
    app.include_router(inner, prefix="/once-more")

    sub = FastAPI()

    @sub.get("/deep/{z}")
    def below(z: str) -> str:
        return z

    app.mount("/sub", sub)
    app.mount("/star", Starlette(routes=[Route("/r/{z}", plain), Mount("/more", routes=[Route("/{a}", plain)])]))
    app.mount("/static", StaticFiles(directory=directory))
    app.mount("/m/{tenant}", Starlette(routes=[Route("/items/{item}", plain)]))
    app.mount("/zipped", GZipMiddleware(Router([Route("/r", plain)])))
    app.mount("/opaque", PlainTextResponse("opaque"))

    class View(HTTPEndpoint):
        async def get(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse("view")

    class Talk(WebSocketEndpoint):
        pass

    app.router.routes += [Route("/view/{v}", View), WebSocketRoute("/talk/{t}", Talk)]
    return app


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    directory = tmp_path_factory.mktemp("static")
    (directory / "a.txt").write_text("text")
    return shop(directory)


@pytest.mark.parametrize(
    ("target", "method", "status", "expected"),
    [
        ("/pets/7", "GET", 200, "GET /pets/{pet}"),
        ("/pets/7", "HEAD", 405, None),  # FastAPI's own routes answer GET alone
        ("/pets/me", "GET", 200, "GET /pets/{pet}"),
        ("/pets/7", "PUT", 405, None),
        ("/pets", "POST", 307, None),
        ("/pets/", "POST", 201, "POST /pets/"),
        ("/nowhere", "GET", 404, None),
        ("/pets/7/", "GET", 307, None),
        ("/numbers/7", "GET", 200, "GET /numbers/{number}"),
        ("/numbers/x", "GET", 404, None),
        ("/files/a/b/c", "GET", 200, "GET /files/{name+}"),
        ("/files/", "GET", 200, "GET /files/{name+}"),
        ("/raw/a/b/end", "GET", 200, "GET /raw/{name+}/end"),
        ("/v1/x", "GET", 200, "GET /v{version}/x"),
        ("/loud/word", "GET", 200, "GET /loud/{word}"),
        ("/api/outer/middle/inner/x/5", "GET", 200, "GET /api/outer/middle/inner/x/{y}"),
        ("/again/inner/x/5", "GET", 200, "GET /again/inner/x/{y}"),
        ("/once-more/inner/x/5", "GET", 200, "GET /once-more/inner/x/{y}"),
        ("/api/outer/middle/inner/ws/1", "WS", 101, "GET /api/outer/middle/inner/ws/{room}"),
        ("/api/outer/middle/inner/ws/1", "GET", 404, None),
        ("/api/outer/middle/inner/x/5", "WS", 1000, None),
        ("/sub/deep/1", "GET", 200, "GET /sub/deep/{z}"),
        ("/sub/nowhere", "GET", 404, None),
        ("/sub", "GET", 307, None),
        ("/star/r/1", "GET", 200, "GET /star/r/{z}"),
        ("/star/r/1", "HEAD", 200, "GET /star/r/{z}"),
        ("/star/more/1", "GET", 200, "GET /star/more/{a}"),
        ("/static/a.txt", "GET", 200, "GET /static/{path+}"),
        ("/static/missing", "GET", 404, "GET /static/{path+}"),  # what a mounted app answers is its own affair
        ("/m/acme/items/9", "GET", 200, "GET /m/{tenant}/items/{item}"),
        ("/zipped/r", "GET", 200, "GET /zipped/r"),
        ("/opaque/a/b", "DELETE", 200, "DELETE /opaque/{path+}"),
        ("/opaque/a/b", "OPTIONS", 200, "* /opaque/{path+}"),
        ("/opaque/a/b", "BREW", 200, "* /opaque/{path+}"),
        ("/view/1", "GET", 200, "GET /view/{v}"),
        ("/view/1", "HEAD", 200, "GET /view/{v}"),
        ("/view/1", "POST", 405, None),
        ("/talk/1", "WS", 101, "GET /talk/{t}"),
        ("/docs", "GET", 200, "GET /docs"),
        ("/openapi.json", "GET", 200, "GET /openapi.json"),
    ],
)
def test_template_of(app, target, method, status, expected):
    assert template(app, target, method) == (status, expected)


def test_a_convertor_that_raises_is_the_apps_affair(app):
    gateway = Gateway(client_throttle="1/second")
    answer = ask(GatewayMiddleware(app, gateway), "/loud/bang")
    assert isinstance(answer.error, RuntimeError)
    assert ask(GatewayMiddleware(app, gateway), "/loud/bang").status == 429


def test_hosts_have_their_own_routes():
    app = Starlette(
        routes=[
            Host("api.{domain}", Router([Route("/x/{a}", plain)])),
            Host("raw.example", PlainTextResponse("raw")),
            Route("/{page}/{b}", plain),
        ]
    )
    assert template(app, "/x/1", headers={"host": "api.example"}) == (200, "GET /x/{a}")
    assert template(app, "/x/1", headers={"host": "www.example"}) == (200, "GET /{page}/{b}")
    assert template(app, "/x/1", headers={"host": "raw.example"}) == (200, "GET /{path+}")
    routing = routing_of(app)
    assert routing is not None
    found = [  # one table, so that nothing is remembered by the path alone
        routing.find(asgi_request(scope_of("http", "/x/1", headers={"host": host})))
        for host in ("api.example", "www.example")
    ]
    assert [endpoint.method for endpoint in found if endpoint] == ["GET /x/{a}", "GET /{page}/{b}"]


def test_routes_of_a_users_own_class_are_asked_each_time():
    """A route may look at more than the path: a header here, as for versions of one URL."""

    class Versioned(Route):
        def matches(self, scope):
            asked = dict(scope["headers"]).get(b"version", b"").decode()
            return super().matches(scope) if asked == self.name else (Match.NONE, {})

    app = Starlette(routes=[Versioned("/x/{a}", plain, name="1"), Versioned("/x/{b}", plain, name="2")])
    watch = Watch(app)
    gate = GatewayMiddleware(watch, Gateway(client_throttle="1000/second"))
    for version, expected in [("1", "GET /x/{a}"), ("2", "GET /x/{b}"), ("1", "GET /x/{a}"), ("3", None)]:
        ask(gate, "/x/1", headers={"version": version})
        assert watch.seen == expected


def test_included_routes_of_a_users_own_class_are_asked_too():
    from fastapi.routing import APIRoute

    class Versioned(APIRoute):
        def matches(self, scope):
            asked = dict(scope["headers"]).get(b"version", b"").decode()
            return super().matches(scope) if asked == self.name else (Match.NONE, {})

    router = APIRouter(route_class=Versioned)
    router.add_api_route("/x/{a}", lambda a: a, name="1")
    router.add_api_route("/x/{b}", lambda b: b, name="2")
    app = FastAPI()
    app.include_router(router, prefix="/api")
    assert template(app, "/api/x/1", headers={"version": "1"}) == (200, "GET /api/x/{a}")
    assert template(app, "/api/x/1", headers={"version": "2"}) == (200, "GET /api/x/{b}")
    assert template(app, "/api/x/1", headers={"version": "3"}) == (404, None)


def test_routes_that_ignore_letter_case():
    import re

    app = Starlette(routes=[Route("/Pets/{pet}", plain)])
    for route in app.routes:
        route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)
    assert template(app, "/PETS/7") == (200, "GET /Pets/{pet}")


def test_the_table_follows_the_routes():
    app, router = FastAPI(), APIRouter()
    app.include_router(router, prefix="/api")
    watch = Watch(app)
    gate = GatewayMiddleware(watch, Gateway(client_throttle="1000/second"))
    ask(gate, "/a/1")
    assert watch.seen is None
    app.add_api_route("/a/{a}", lambda a: a)
    ask(gate, "/a/1")
    assert watch.seen == "GET /a/{a}"
    app.router.routes.insert(0, Route("/a/{first}", plain))
    ask(gate, "/a/1")
    assert watch.seen == "GET /a/{first}"
    app.router.routes[0] = Route("/a/{second}", plain)  # as many as before
    ask(gate, "/a/1")
    assert watch.seen == "GET /a/{second}"
    app.router.routes = [Route("/{only}/{left}", plain)]
    ask(gate, "/a/1")
    assert watch.seen == "GET /{only}/{left}"


def test_the_table_follows_an_included_router():
    app, outer, inner = FastAPI(), APIRouter(), APIRouter()
    outer.include_router(inner, prefix="/inner")
    app.include_router(outer, prefix="/outer")
    watch = Watch(app)
    gate = GatewayMiddleware(watch, Gateway(client_throttle="1000/second"))
    ask(gate, "/outer/inner/1")
    assert watch.seen is None
    inner.add_api_route("/{x}", lambda x: x)
    status = ask(gate, "/outer/inner/1").status  # 404 before FastAPI 0.137, which copied routes when included
    assert (status, watch.seen) in [(200, "GET /outer/inner/{x}"), (404, None)]


def test_a_mounted_router_is_followed_too():
    inner = Router()
    app = Starlette(routes=[Mount("/m", app=inner)])
    watch = Watch(app)
    gate = GatewayMiddleware(watch, Gateway(client_throttle="1000/second"))
    ask(gate, "/m/1")
    inner.routes.append(Route("/{x}", plain))
    assert ask(gate, "/m/1").status == 200
    assert watch.seen == "GET /m/{x}"


def test_middleware_of_a_mount_is_looked_through():
    mount = Mount("/m", routes=[Route("/{x}", plain)], middleware=[Middleware(GZipMiddleware)])
    assert template(Starlette(routes=[mount]), "/m/1") == (200, "GET /m/{x}")


def test_an_app_behind_a_prefix_of_the_server():
    app = FastAPI()
    app.add_api_route("/pets/{pet}", lambda pet: pet)
    watch = Watch(app)
    gate = GatewayMiddleware(watch, Gateway(client_throttle="1000/second"))
    answer = ask(gate, "/pets/7", root_path="/shop")
    assert (answer.status, watch.seen) in [(200, "GET /pets/{pet}"), (404, None)]  # 404 before Starlette 0.33


def test_an_app_that_names_its_prefix_itself():
    """`FastAPI(root_path=...)` takes the place of what the server says, once the request is in the app."""
    app = FastAPI()
    app.root_path = "/shop"  # as the argument sets it, which newer releases warn of
    app.add_api_route("/pets/{pet}", lambda pet: pet)
    watch = Watch(app)
    gate = GatewayMiddleware(watch, Gateway(client_throttle="1000/second"))
    for target in ("/shop/pets/7", "/pets/7", "/shop/shop/pets/7"):
        answer = ask(gate, target)
        assert watch.seen == ("GET /pets/{pet}" if answer.status == 200 else None)


def test_a_mounted_app_that_names_a_prefix_itself():
    app, sub = FastAPI(), FastAPI()
    sub.root_path = "/elsewhere"
    sub.add_api_route("/deep/{z}", lambda z: "GET /sub/deep/{z}")
    sub.add_api_route("/sub/deep/{z}", lambda z: "GET /sub/sub/deep/{z}")  # called from Starlette 0.33 on
    app.mount("/sub", sub)
    watch = Watch(app)
    answer = ask(GatewayMiddleware(watch, Gateway(client_throttle="1000/second")), "/sub/deep/1")
    assert answer.body == f'"{watch.seen}"'.encode()


def test_every_endpoint_is_listed(app):
    routing = routing_of(app)
    assert routing is not None
    listed = [endpoint.method for endpoint in routing.endpoints()]
    assert {
        "GET /pets/{pet}",
        "POST /pets/",
        "GET /api/outer/middle/inner/x/{y}",
        "GET /api/outer/middle/inner/ws/{room}",
        "GET /again/inner/x/{y}",
        "GET /m/{tenant}/items/{item}",
        "GET /view/{v}",
        "* /static/{path+}",
    } <= set(listed)


@pytest.mark.parametrize("app", [None, object(), lambda scope, receive, send: None])
def test_other_apps_have_no_routes(app):
    assert routing_of(app) is None
