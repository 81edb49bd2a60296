"""What decorated functions find of their request, and what becomes of what it took."""

import asyncio
import sys
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from flask import Flask
from flask.views import MethodView
from starlette.responses import JSONResponse

from apigate import ConfigurationError, Gateway, Method, Rate, Throttled
from apigate.asgi import GatewayMiddleware as ASGIGate
from apigate.core.cors import CORS
from apigate.core.endpoints import Endpoint
from apigate.core.message import Response
from apigate.core.native import wsgi_request
from apigate.flask import Apigate
from apigate.testing import FakeClock
from apigate.throttling.keys import forwarded_for
from apigate.wsgi import GatewayMiddleware as WSGIGate
from tests.gateway.test_refused_within import over_asgi, over_wsgi
from tests.threads import in_threads

HOUR = Rate(1, per=3_600)


def frozen(**settings: Any) -> Gateway:
    return Gateway(clock=FakeClock(), **settings)


def left_to_the_client(gateway: Gateway) -> int:
    states = gateway.explain("GET", "/nowhere", address="192.0.2.1").levels
    return next(state.remaining for state in states if state.level == "client") + 1


@pytest.mark.parametrize("refund", ["4xx", "429"])
def test_what_a_request_took_is_given_back_once_whoever_says_429(refund):
    gateway = frozen(client_throttle="10/hour", refund=refund)
    app = FastAPI()

    @app.exception_handler(Throttled)
    async def ours(request: Request, error: Throttled) -> JSONResponse:
        return JSONResponse({}, 429)

    @gateway.throttle(HOUR)
    async def mail() -> None: ...

    @app.get("/")
    async def root() -> None:
        await mail()

    app.add_middleware(ASGIGate, gateway=gateway)
    assert [over_asgi(app).status for _ in range(8)] == [200] + [429] * 7
    assert left_to_the_client(gateway) == 9


def test_so_it_is_over_wsgi_where_the_app_had_begun_another_answer():
    gateway = frozen(client_throttle="10/hour", refund="4xx")
    mail = gateway.throttle(HOUR)(lambda: None)
    heads: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("404 Not Found", [])
        mail()
        return [b""]

    for _ in range(5):
        body = WSGIGate(app, gateway)(
            {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1"}, lambda *head: heads.append(head)
        )
        list(body)
        getattr(body, "close", lambda: None)()
    assert left_to_the_client(gateway) == 10  # 404 and 429 cost nothing, and no more than was taken came back


def test_an_endpoint_is_not_run_beyond_its_own_limit_because_what_it_calls_refuses():
    gateway = frozen()
    app, ran = Flask("shop"), []
    mail = gateway.throttle(HOUR, per="client")(lambda: "sent")

    @app.get("/report")
    @gateway.throttle("2/hour")
    def report() -> str:
        ran.append(1)
        return mail()

    Apigate(app, gateway)
    client = app.test_client()
    assert [client.get("/report").status_code for _ in range(5)] == [200, 429, 429, 429, 429]
    assert len(ran) == 2


@pytest.mark.usefixtures("restless_interpreter")
def test_a_proof_is_given_to_one_call_only_also_among_threads():
    gateway, app = frozen(), Flask("shop")
    app.add_url_rule("/", "view", gateway.throttle("1000/hour")(lambda: "served"))
    routing = WSGIGate(app, gateway).routing
    asked = wsgi_request({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1"})
    for _ in range(300):
        context = gateway.enter(asked, None, routing.find)
        (mark,) = context.compiled.marks
        proofs: list[bool] = []
        in_threads([lambda: proofs.append(context.prove(mark))] * 4)  # noqa: B023
        assert sorted(proofs) == [False, False, False, True]


def test_what_goes_on_after_a_request_has_ended_is_no_part_of_it():
    """Else the client who happened to start a worker pays for everybody's jobs."""
    gateway = frozen(exempt=True)
    job = gateway.throttle("1/hour")
    done: list[str] = []

    @job
    async def work() -> None:
        done.append("work")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        app.worker = asyncio.ensure_future(later())  # type: ignore[attr-defined]

    async def later() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            await work()

    async def main() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}

        async def nothing(*_: Any) -> Any:
            return {"type": "http.request"}

        await ASGIGate(app, gateway)(scope, nothing, nothing)
        with pytest.raises(Throttled):
            await app.worker  # type: ignore[attr-defined]

    asyncio.run(main())
    assert done == ["work"]


@pytest.mark.parametrize("kind", ["ASGI", "WSGI"])
def test_a_request_that_the_app_makes_of_a_copy_is_one_of_its_own(kind):
    """A batch endpoint does so; the limit of what it asks for holds."""
    gateway = frozen(methods={"GET /orders": Method(throttle=HOUR)})
    served: list[str] = []

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])
        if scope["path"] == "/batch":
            await asgi_gate({**scope, "path": "/orders"}, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def wsgi(environ: Any, start_response: Any) -> Any:
        served.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == "/batch":
            return wsgi_gate({**environ, "PATH_INFO": "/orders"}, start_response)
        start_response("200 OK", [])
        return [b""]

    asgi_gate, wsgi_gate = ASGIGate(asgi, gateway), WSGIGate(wsgi, gateway)
    ask = (lambda: over_asgi(asgi_gate, "/batch")) if kind == "ASGI" else (lambda: over_wsgi(wsgi_gate, "/batch"))
    assert [ask().status for _ in range(3)] == [200, 429, 429]
    assert served.count("/orders") == 1


def test_a_function_that_names_no_key_means_the_client():
    gateway = frozen()
    app = FastAPI()
    app.get("/")(gateway.throttle(HOUR, per=lambda request: request.headers.get("x-key"))(lambda: "served"))
    app.add_middleware(ASGIGate, gateway=gateway)
    assert [over_asgi(app).status for _ in range(2)] == [200, 429]


def test_a_long_origin_is_not_sent_back_nor_any_remembered():
    cors = CORS(allow_origin_regex="https://.*")
    refusal = Response("THROTTLED", 429, (), b"")
    fields = [name for name, _ in cors.added(refusal, "https://" + "x" * 300).raw]
    assert fields == [b"vary"]


def test_a_forwarded_field_full_of_quotes_is_read_in_one_go():
    """Each step looks at one character: a megabyte would take a quarter of a minute otherwise."""
    assert forwarded_for([',for="192.0.2.1"' + '"' * 200_000], 1) == ["192.0.2.1"]
    assert forwarded_for([r'for="a\"b"'], 1) == [r"a\"b"]


def test_what_a_client_wrote_into_a_forwarded_field_costs_no_time():
    def steps(forged):
        taken = 0

        def trace(*_):
            nonlocal taken
            taken += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            assert forwarded_for([forged, "for=192.0.2.1, for=192.0.2.2"], 2) == ["192.0.2.1", "192.0.2.2"]
        finally:
            sys.settrace(before)
        return taken

    assert steps("," * 100_000) == steps("for=192.0.2.3")


@pytest.mark.parametrize("mode", ["shadow", "off"])
@pytest.mark.parametrize("where", ["gateway", "method"])
@pytest.mark.parametrize("gated", [True, False])
def test_a_mode_holds_for_decorated_endpoints_too(mode, where, gated):
    modes = {"modes": {"client-method": mode}}
    if where == "method":
        modes = {"methods": {"GET /": Method(**modes)}} if gated else modes
    gateway, app = frozen(**modes), Flask("shop")
    app.get("/")(gateway.throttle(HOUR, per="client")(lambda: "served"))
    if gated:
        Apigate(app, gateway)
    client = app.test_client()
    assert [client.get("/").status_code for _ in range(3)] == [200] * 3
    if gated:
        assert gateway.stats()["default"]["GET /"].get("shadow:client-method") == (2 if mode == "shadow" else None)


def test_a_head_and_a_get_of_one_view_have_the_marks_of_their_own_methods():
    gateway, app, ran = frozen(), Flask("shop"), []

    class Page(MethodView):
        @gateway.throttle(HOUR)
        def get(self) -> str:
            return "page"

        def head(self) -> str:
            return ""

    app.add_url_rule("/", view_func=Page.as_view("page"))
    app.before_request(lambda: ran.append(1))
    Apigate(app, gateway)
    client = app.test_client()
    assert [client.open("/", method=verb).status_code for verb in ("HEAD", "GET", "GET", "HEAD")] == [
        200,
        200,
        429,
        200,
    ]
    assert len(ran) == 3  # the refused one never reached Flask


def test_what_has_routes_is_not_decorated():
    with pytest.raises(ConfigurationError, match="has routes; decorate its endpoints"):
        frozen().throttle(HOUR)(APIRouter())


@pytest.mark.parametrize("given", [5, ("a",), b"x"])
def test_a_key_that_is_no_text_is_named(given):
    gateway, app = frozen(), Flask("shop")
    app.get("/")(gateway.throttle(HOUR, per=lambda request: given)(lambda: "served"))
    Apigate(app, gateway)
    with pytest.raises(ValueError, match="is neither a text nor None"):
        app.test_client().get("/")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("POST /ordrs", True),
        ("POST /orders/{id}/x", True),
        ("POST /orders", False),
        ("* /orders/", False),
        ("GET /orders/{number}", False),
        ("GET /orders/new", False),
        ("GET /api/{rest+}", False),
        ("GET /static/app.js", False),
        ("GET /{rest+}", False),
    ],
)
def test_lint_finds_a_method_that_no_route_matches(name, found):
    gateway, app = frozen(methods={name: Method(throttle=HOUR)}, cors=None), Flask("shop")
    for rule in ("/orders", "/orders/<int:id>", "/api/a/<b>"):
        app.add_url_rule(rule, rule, lambda **_: "served", methods=["GET", "POST"])
    Apigate(app, gateway)
    assert [finding.check for finding in gateway.lint()] == (["unserved-method"] if found else [])


def test_endpoints_beyond_what_is_kept_are_kept_all_the_same():
    """An app whose routes change makes new endpoints without end; none may be compiled at each request."""
    gateway = frozen(throttle=HOUR)
    stage = gateway.stage()
    asked = wsgi_request({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1"})
    for number in range(4_097):
        endpoint = Endpoint(f"GET /{number % 10}")
        stage.find(asked, endpoint)
    assert stage.find(asked, endpoint) is stage.find(asked, endpoint)
