"""Whose bucket a request takes from: by the order of the routes, in apps within apps, and where nothing serves it."""

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from apigate import Method
from apigate.core.native import asgi_request
from apigate.fastapi import GatewayMiddleware
from apigate.routing import routing_of
from tests.fastapi.asking import answer_to, gated, gateway, scope_of, statuses_of

PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}


async def told(request):
    """What an endpoint answers: the method that the gate saw. Here that is the one which is served."""
    return PlainTextResponse(f"{request.scope['apigate'].method}")


class Told(HTTPEndpoint):
    async def get(self, request):
        return await told(request)

    async def post(self, request):
        return await told(request)


async def talk(websocket):
    await websocket.accept()
    await websocket.close()


async def raw(scope, receive, send):
    await PlainTextResponse(f"{scope['apigate'].method}")(scope, receive, send)


def starlette(*routes, **settings):
    return Starlette(routes=list(routes), **settings)


def convertors():
    return starlette(
        Route("/n/{n:int}", told),
        Route("/n/{f:float}", told),
        Route("/n/{u:uuid}", told),
        Route("/files/{name:path}/edit", told),
        Route("/files/{name:path}", told),
        Route("/{a}-{b}", told),
        Route("/x{a}/y", told),
    )


def ordered():
    return starlette(
        Route("/pets/new", told, methods=["POST"]),
        Route("/pets/{pet}", told),
        Route("/pets/new", told),
        Route("/{all:path}", told, methods=["PUT"]),
        Mount("/", routes=[Route("/cats", told)]),
        Route("/never", told),
    )


def classes():
    return starlette(Route("/told", Told), Route("/few", Told, methods=["GET"]), Mount("/raw", raw))


@pytest.mark.parametrize("where", ["last", "wrapped"])
@pytest.mark.parametrize(
    ("build", "asked_for", "method"),
    [
        (convertors, "GET /n/7", "GET /n/{n}"),
        (convertors, "GET /n/7.5", "GET /n/{f}"),
        (convertors, "GET /n/a8098c1a-f86e-11da-bd1a-00112444be1e", "GET /n/{u}"),
        (convertors, "GET /files/a/b/edit", "GET /files/{name+}/edit"),
        (convertors, "GET /files/a/b", "GET /files/{name+}"),
        (convertors, "GET /1-2", "GET /{a}-{b}"),
        (convertors, "GET /x1/y", "GET /x{a}/y"),
        (ordered, "POST /pets/new", "POST /pets/new"),
        (ordered, "GET /pets/new", "GET /pets/{pet}"),
        (ordered, "PUT /pets/new", "PUT /{all+}"),
        (ordered, "GET /cats", "GET /cats"),
        (classes, "POST /told", "POST /told"),
        (classes, "GET /few", "GET /few"),
        (classes, "BREW /raw/a", "* /raw/{path+}"),
    ],
)
def test_the_first_route_that_matches_counts(build, asked_for, method, where):
    app = gated(build(), gateway(throttle="1000/second"), where)
    answers = [answer_to(app, asked_for) for _ in range(2)]  # the second time from memory
    assert [(answer.status, answer.body.decode()) for answer in answers] == [(200, method)] * 2


def test_hosts_do_not_share_what_is_remembered():
    app = starlette(
        Host("api.shop.example", starlette(Route("/pets/{pet}", told))),
        Host("{who}.shop.example", Router([Route("/pets/{name}", told)])),
        Route("/pets/{other}", told),
    )
    gated(app, gateway(throttle="1000/second"))
    hosts = ["api.shop.example", "me.shop.example", "other.example", "api.shop.example"]
    found = [answer_to(app, "GET /pets/1", headers={"Host": host}).body.decode() for host in hosts]
    assert found == ["GET /pets/{pet}", "GET /pets/{name}", "GET /pets/{other}", "GET /pets/{pet}"]


def test_static_files_are_one_method(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    gate = gateway(methods={"*": Method(throttle="2/minute")})
    app = gated(starlette(Mount("/static", StaticFiles(directory=tmp_path)), Route("/x", told)), gate)
    assert statuses_of(app, "GET /static/a.txt", "GET /static/b.txt", "GET /static/a.txt") == [200, 200, 429]
    assert statuses_of(app, "GET /x") == [200]


# ---- what the framework answers itself


@pytest.mark.parametrize(
    ("asked_for", "status"),
    [("GET /no", 404), ("DELETE /told", 405), ("POST /few", 405), ("OPTIONS /told", 405), ("GET /told/", 307)],
)
def test_what_no_endpoint_serves_shares_one_bucket(asked_for, status):
    app = gated(classes(), gateway(methods={"*": Method(throttle="2/minute")}))
    assert statuses_of(app, asked_for, "GET /elsewhere", asked_for) == [status, 404, 429]
    assert statuses_of(app, "GET /told") == [200]


def test_the_default_method_gives_each_verb_of_a_route_its_own_bucket():
    app = gated(classes(), gateway(methods={"*": Method(throttle="1/minute")}))
    wanted = ["GET /told", "POST /told", "GET /few", "GET /raw/a", "PUT /raw/a"]
    assert statuses_of(app, *wanted, *wanted) == [200] * 5 + [429] * 5


def test_a_handshake_that_nothing_serves_shares_the_bucket_of_404():
    app = gated(classes(), gateway(methods={"*": Method(throttle="1/minute")}))
    assert statuses_of(app, "GET /nothing") == [404]
    assert answer_to(app, "WS /nothing", extensions={"websocket.http.response": {}}).status == 429


@pytest.mark.parametrize(("headers", "expected"), [(PREFLIGHT, [405] * 4), ({}, [405, 405, 429, 429])])
def test_a_preflight_takes_from_the_global_level_only(headers, expected):
    gate = gateway(throttle="100/minute", client_throttle="2/minute")
    assert statuses_of(gated(classes(), gate), *["OPTIONS /told"] * 4, headers=headers) == expected
    assert gate.explain("GET", "/").levels[0].remaining == 99 - expected.count(405)


# ---- routes that come and go


@pytest.mark.parametrize(("kind", "path"), [("route", "/late"), ("mount", "/late/x")])
def test_a_route_added_after_the_start_has_its_own_bucket(kind, path):
    app = gated(FastAPI(), gateway(methods={"*": Method(throttle="1/minute")}))
    assert statuses_of(app, "GET /late/x", "GET /late") == [404, 429]
    if kind == "route":
        app.add_route("/late", told)
    else:
        app.mount("/late", raw)
    assert statuses_of(app, f"GET {path}", f"GET {path}") == [200, 429]


def test_a_route_taken_away_is_seen_to_be():
    app = starlette(Route("/x", told), Route("/{any}", told))
    gated(app, gateway(throttle="1000/second"))
    assert answer_to(app, "GET /x").body == b"GET /x"
    del app.router.routes[0]
    assert answer_to(app, "GET /x").body == b"GET /{any}"


# ---- gates within apps


@pytest.mark.parametrize("where", ["last", "wrapped"])
def test_a_gate_of_a_mounted_app_knows_the_paths_below_it(where):
    inner = gated(
        starlette(Route("/pets/{pet}", told)), gateway(methods={"GET /pets/{id}": Method(throttle="1/m")}), where
    )
    assert statuses_of(starlette(Mount("/api", inner)), "GET /api/pets/1", "GET /api/pets/2") == [200, 429]


def test_two_gates_of_two_gateways_both_count():
    inner = gated(starlette(Route("/x", told)), gateway(throttle="2/minute"))
    outer = GatewayMiddleware(starlette(Mount("/in", inner)), gateway(methods={"GET /in/x": Method(throttle="9/m")}))
    assert statuses_of(outer, *["GET /in/x"] * 3) == [200, 200, 429]


# ---- listing, and what is kept


def test_the_table_lists_every_endpoint_once():
    app = starlette(
        Route("/x", told, methods=["GET", "POST"]),
        Route("/told", Told),
        Mount("/in", routes=[Route("/y", told)]),
        Mount("/raw", raw),
        WebSocketRoute("/ws", talk),
    )
    listed = [endpoint.method for endpoint in routing_of(app).endpoints()]
    assert listed == ["GET /x", "POST /x", "GET /told", "POST /told", "GET /in/y", "* /raw/{path+}", "GET /ws"]


def test_random_paths_make_one_method():
    routing = routing_of(starlette(Route("/{name}", told)))
    found = {routing.find(asgi_request(scope_of("http", f"/{number}"))) for number in range(5_000)}
    assert [endpoint.method for endpoint in found] == ["GET /{name}"]
