"""A framework between a decorated function and the gate, and between a path and its route."""

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults

import pytest

from apigate import Gateway, Method, Rate, Throttle, Throttled
from apigate.asgi import GatewayMiddleware as ASGIGate
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware as WSGIGate

HOUR = Rate(1, per=3_600)


class Answer(NamedTuple):
    """What a server was given to send."""

    status: int
    body: bytes
    fields: dict[str, str]


def over_asgi(app: Any, path: str = "/", root: str = "", verb: str = "GET") -> Answer:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": verb, "path": path, "root_path": root, "query_string": b"", "headers": []}
    scope["client"] = ("192.0.2.1", 1)
    asyncio.run(app(scope, receive, send))
    head, *body = sent
    assert [message["type"] for message in body] == ["http.response.body"] * len(body)
    assert [message.get("more_body", False) for message in body] == [True] * (len(body) - 1) + [False]
    fields = {name.decode(): value.decode() for name, value in head["headers"]}
    return Answer(head["status"], b"".join(message["body"] for message in body), fields)


def over_wsgi(app: Any, path: str = "/", root: str = "", verb: str = "GET") -> Answer:
    heads: list[Any] = []
    written: list[bytes] = []

    def start_response(*head: Any) -> Callable[[bytes], None]:
        heads.append(head)
        return written.append

    environ = {"REQUEST_METHOD": verb, "PATH_INFO": path, "SCRIPT_NAME": root, "REMOTE_ADDR": "192.0.2.1"}
    setup_testing_defaults(environ)
    body = app(environ, start_response)
    chunks = list(body)
    if hasattr(body, "close"):
        body.close()
    ((line, fields),) = heads
    return Answer(int(line[:3]), b"".join(written + chunks), {name.lower(): value for name, value in fields})


def asgi_framework(work: Callable[[], bytes], status: int, *, raises: bool = False) -> Any:
    """It catches everything and answers with `status` in its own words; some raise what they caught afterwards."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        code, chunks, error = 200, [b""], None
        try:
            chunks = [work()]
        except (Throttled, LookupError) as caught:
            code, chunks, error = status, [b"my ", b"words"], caught
        await send({"type": "http.response.start", "status": code, "headers": [(b"x-app", b"yes")]})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if raises and error is not None:
            raise error

    return app


def wsgi_framework(work: Callable[[], bytes], status: int, *, late: bool = False, write: bool = False) -> Any:
    """It catches everything and answers with `status` in its own words; as a generator, or by `write`, as old apps."""

    def app(environ: Any, start_response: Any) -> Any:
        code, chunks = 200, [b""]
        try:
            chunks = [work()]
        except (Throttled, LookupError):
            code, chunks = status, [b"my ", b"words"]
        send = start_response(f"{code} Whatever", [("X-App", "yes")])
        if write:
            for chunk in chunks:
                send(chunk)
        return [] if write else chunks

    def generator(environ: Any, start_response: Any) -> Any:
        yield from app(environ, start_response)

    return generator if late else app


FRAMEWORKS = {
    "ASGI": (over_asgi, ASGIGate, asgi_framework),
    "ASGI, raised again": (over_asgi, ASGIGate, partial(asgi_framework, raises=True)),
    "WSGI": (over_wsgi, WSGIGate, wsgi_framework),
    "WSGI, a generator": (over_wsgi, WSGIGate, partial(wsgi_framework, late=True)),
    "WSGI, write": (over_wsgi, WSGIGate, partial(wsgi_framework, write=True)),
}
EITHER_GATE = pytest.mark.parametrize("gate", [ASGIGate, WSGIGate], ids=["ASGI", "WSGI"])
EVERY_FRAMEWORK = pytest.mark.parametrize(("serve", "gate", "framework"), FRAMEWORKS.values(), ids=FRAMEWORKS)


def throttled_within(**settings: Any) -> tuple[Gateway, Callable[[], bytes]]:
    gateway = Gateway(throttle=Rate(10, per=3_600), clock=FakeClock(), **settings)
    return gateway, gateway.throttle(HOUR, key=lambda: "all")(lambda: b"done")


def left(gateway: Gateway) -> int:
    """What requests have left, in the bucket of ten that all share."""
    return gateway.explain("GET", "/").levels[0].remaining + 1  # it tells what would be left after one more


@EVERY_FRAMEWORK
@pytest.mark.parametrize("refund", [None, "5xx"])
def test_a_refusal_of_which_a_framework_makes_a_500_is_the_gates_429_and_given_back_once(
    serve, gate, framework, refund
):
    gateway, work = throttled_within(refund=refund)
    app = gate(framework(work, 500), gateway)
    assert serve(app).status == 200
    for _ in range(3):
        refused = serve(app)
        assert (refused.status, refused.fields["retry-after"]) == (429, "3600")
        assert refused.fields["ratelimit"] == '"client-method";r=0;t=3600'
        assert "x-app" not in refused.fields
        assert b"my words" not in refused.body
        assert int(refused.fields["content-length"]) == len(refused.body)
    assert left(gateway) == 9
    assert gateway.stats()["default"]["*"] == {"admitted": 1, "THROTTLED": 3}


@EVERY_FRAMEWORK
def test_such_a_refusal_has_no_body_where_only_the_head_was_asked_for(serve, gate, framework):
    gateway, work = throttled_within()
    app = gate(framework(work, 500), gateway)
    assert serve(app).status == 200
    refused = serve(app, verb="HEAD")
    assert (refused.status, refused.body) == (429, b"")


@pytest.mark.parametrize("name", ["ASGI", "WSGI", "WSGI, a generator", "WSGI, write"])
def test_an_app_that_answers_429_itself_keeps_its_words_and_the_take_is_given_back(name):
    serve, gate, framework = FRAMEWORKS[name]
    gateway, work = throttled_within()
    app = gate(framework(work, 429), gateway)
    assert serve(app).status == 200
    for _ in range(3):
        assert serve(app) == (429, b"my words", {"x-app": "yes"})
    assert left(gateway) == 9
    assert gateway.stats()["default"]["*"] == {"admitted": 1, "THROTTLED": 3}


@pytest.mark.parametrize("code", [200, 503])
@pytest.mark.parametrize("name", ["ASGI", "WSGI", "WSGI, a generator", "WSGI, write"])
def test_an_app_that_makes_something_else_of_a_refusal_is_served_and_pays(name, code):
    serve, gate, framework = FRAMEWORKS[name]
    gateway, work = throttled_within()
    app = gate(framework(work, code), gateway)
    assert serve(app).status == 200
    answered = serve(app)
    assert (answered.status, answered.body, answered.fields["ratelimit"]) == (code, b"my words", '"global";r=8;t=360')
    assert left(gateway) == 8


@pytest.mark.parametrize("name", ["ASGI", "WSGI", "WSGI, a generator", "WSGI, write"])
def test_a_500_that_is_about_something_else_stays_the_apps_own(name):
    def broken() -> bytes:
        raise LookupError

    serve, gate, framework = FRAMEWORKS[name]
    gateway, work = throttled_within()
    refusing, app = gate(framework(work, 500), gateway), gate(framework(broken, 500), gateway)
    assert [serve(refusing).status for _ in range(2)] == [200, 429]  # which leaves nothing behind for the next request
    answered = serve(app)
    assert (answered.status, answered.body, answered.fields["x-app"]) == (500, b"my words", "yes")
    assert left(gateway) == 8


def group_of(*errors: Callable[[], Exception]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ExceptionGroup("a task group's", [ExceptionGroup("another's", [make() for make in errors])])

    return app


def refusal() -> Throttled:
    throttle = Throttle({"global": HOUR}, clock=FakeClock())
    throttle.acquire()
    return Throttled(throttle.acquire())


def test_a_refusal_out_of_task_groups_is_unwrapped():
    assert over_asgi(ASGIGate(group_of(refusal), Gateway(throttle=HOUR, clock=FakeClock()))).status == 429


@pytest.mark.parametrize("errors", [(refusal, LookupError), (LookupError,)])
def test_a_group_with_any_other_error_is_not_hidden(errors):
    with pytest.raises(ExceptionGroup, match="a task group's"):
        over_asgi(ASGIGate(group_of(*errors), Gateway(throttle=HOUR, clock=FakeClock())))


def method_of(gate: Any, gateway: Gateway, path: str, root: str = "") -> Answer:
    """Which method a request that is sent just so counts as; in the body."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        body = str(scope["apigate"].method).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def wsgi(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [str(environ["apigate.context"].method).encode()]

    if gate is ASGIGate:
        return over_asgi(ASGIGate(asgi, gateway), path, root, "POST")
    return over_wsgi(WSGIGate(wsgi, gateway), path, root, "POST")


def one_order() -> Gateway:
    methods = {"POST /orders": Method(throttle=HOUR), "POST /pets/{id}": Method(throttle=HOUR)}
    return Gateway(methods=methods, clock=FakeClock())


@pytest.mark.parametrize("path", ["orders", "http://shop.example/orders", "x/../orders", "*orders"])
def test_an_asgi_path_without_its_first_slash_is_refused_whatever_the_framework_makes_of_it(path):
    assert method_of(ASGIGate, one_order(), path).status == 400


def test_a_wsgi_path_without_its_first_slash_is_read_as_with_it():
    gateway = one_order()
    assert method_of(WSGIGate, gateway, "orders")[:2] == (200, b"POST /orders")
    assert method_of(WSGIGate, gateway, "/orders").status == 429


@EITHER_GATE
@pytest.mark.parametrize(
    "sent",
    [
        b"/orders\xff",
        b"/\xfforders",
        b"/ord\xffers",
        b"/orders\xe2\x82",
        b"/orders\xc0\x80",
        b"/orders/\xff",
        b"/\xff/orders",
    ],
)
def test_bytes_that_are_no_utf_8_which_a_framework_may_leave_out_make_no_other_method(gate, sent):
    path = sent.decode("latin-1") if gate is WSGIGate else sent.decode(errors="replace")
    gateway = one_order()
    assert method_of(gate, gateway, path)[:2] == (200, b"POST /orders")
    assert method_of(gate, gateway, "/orders").status == 429


@EITHER_GATE
def test_such_bytes_in_a_parameter_stay_in_it(gate):
    path = "/pets/7\xff" if gate is WSGIGate else "/pets/7\ufffd"
    assert method_of(gate, one_order(), path)[:2] == (200, b"POST /pets/{id}")


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("/shop", "/shop/orders"),
        ("/shop", "/shoporders"),
        ("/shop/", "/shop/orders"),
        ("/", "/orders"),
        ("/shop", "/x/shop/orders"),  # some frameworks cut it off wherever it stands
        ("/shop", "//shop/orders"),
        ("shop", "/shop/orders"),
    ],
)
def test_a_root_that_ends_within_a_segment_which_a_framework_may_cut_off_makes_no_other_method(root, path):
    gateway = one_order()
    assert method_of(ASGIGate, gateway, path, root)[:2] == (200, b"POST /orders")
    assert method_of(ASGIGate, gateway, "/orders").status == 429


@pytest.mark.parametrize("name", ["POST /{anything}", "POST /shoporders"])
def test_where_the_path_with_such_a_root_is_a_method_too_the_limits_of_both_hold(name):
    methods = {name: Method(throttle="9/hour")}
    methods["POST /orders"] = Method(throttle=HOUR)
    gateway = Gateway(methods=methods, clock=FakeClock())
    assert [method_of(ASGIGate, gateway, "/shoporders", "/shop").status for _ in range(2)] == [200, 429]
    assert method_of(ASGIGate, gateway, "/shoporders").status == 200  # without the root, it is that method alone


def test_a_refusal_says_that_nothing_follows_it():
    """Some servers and clients read `more_body` where the specification has a default."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/a/../b", "headers": []}
    asyncio.run(ASGIGate(asgi_framework(lambda: b"", 500), one_order())(scope, receive, send))
    assert [message.get("more_body") for message in sent] == [None, False]


@pytest.mark.parametrize("verb", ["GET", "POST", "QUERY"])
def test_an_asterisk_is_a_path_for_options_alone(verb):
    """Falcon takes it for a segment: `/{x}`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    gate = ASGIGate(app, Gateway(throttle=Rate(9), clock=FakeClock()))
    assert over_asgi(gate, "*", verb=verb).status == 400
    assert over_asgi(gate, "*", verb="OPTIONS").status == 200


@pytest.mark.parametrize("lines", [("200 OK", "500 Oh"), ("500 Oh", "200 OK")], ids=" then ".join)
def test_a_wsgi_app_that_begins_anew_is_not_begun_twice(lines):
    """With `exc_info`, as PEP 3333 has it; the server raises what it is given where something has gone out."""
    gateway, work = throttled_within()
    heads: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        try:
            work()
            work()
        except Throttled:
            first, second = lines
            start_response(first, [("X-First", "yes")])
            start_response(second, [("X-Second", "yes")], sys.exc_info())
        return [b"words"]

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    body = WSGIGate(app, gateway)(environ, lambda *head: heads.append(head))
    chunks = list(body)
    assert [len(head) for head in heads] == ([2, 3] if lines[0] == "200 OK" else [2])
    if lines[0] == "200 OK":
        assert heads[-1][0] == "429 Too Many Requests"
        assert b"quota-exceeded" in chunks[0]
    else:
        assert (heads[-1][0], chunks) == ("200 OK", [b"words"])


def test_another_error_after_the_apps_500_is_not_swallowed():
    gateway, work = throttled_within()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            work()
            work()
        except Throttled:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            raise KeyError("what really failed") from None

    with pytest.raises(KeyError, match="what really failed"):
        over_asgi(ASGIGate(app, gateway))


@pytest.mark.parametrize("accepts_denial", [True, False])
@pytest.mark.parametrize("end", ["raised", "closed"])
def test_a_websocket_that_is_refused_within_is_refused_by_the_gate(end, accepts_denial):
    gateway, work = throttled_within()
    work()
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            work()
        except Throttled:
            if end == "raised":
                raise
            await send({"type": "websocket.close", "code": 1011})

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
    extensions = {"websocket.http.response": {}} if accepts_denial else {}
    asyncio.run(ASGIGate(app, gateway)({**scope, "extensions": extensions}, receive, send))
    if accepts_denial:
        assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 429)
    else:
        assert sent == [{"type": "websocket.close", "code": 1008, "reason": "THROTTLED"}]
    assert left(gateway) == 10


def test_an_app_that_waits_for_the_client_to_go_after_its_500_does_not_hang():
    """Quart does: only a client that has been answered goes."""
    gateway, work = throttled_within()
    work()
    answered = asyncio.Event()
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            work()
        except Throttled:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"Oh", "more_body": False})
        assert (await receive())["type"] == "http.disconnect"

    async def receive() -> Any:
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if not message.get("more_body", True):
            answered.set()

    async def main() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
        await asyncio.wait_for(ASGIGate(app, gateway)(scope, receive, send), 10)

    asyncio.run(main())
    assert [message.get("status") for message in sent] == [429, None]
