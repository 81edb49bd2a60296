"""What readers in the role of an attacker or an engineer once got past; each must stay shut."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults

import pytest

from apigate import ConfigurationError, Gateway, Method, Rate, Stage, Throttle, Throttled
from apigate.asgi import GatewayMiddleware as ASGIGate
from apigate.core.message import Headers, Reader, Request
from apigate.core.policy import Phase
from apigate.stores.memory import MemoryStore
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware as WSGIGate

HOUR = Rate(1, per=3_600)


def request(verb: str, path: str, peer: str = "192.0.2.1", **headers: str) -> Request:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Request(verb, path, peer, {}, Reader(lambda _: Headers(pairs), lambda _: ""))


def status(gateway: Gateway, asked: Request) -> int:
    context = gateway.enter(asked)
    if context.refusal is not None:
        return context.refusal.status
    gateway.complete(context, 200)
    return 200


def test_two_levels_of_many_clients_stay_exact_while_old_buckets_are_swept():
    clock, store = FakeClock(), MemoryStore()
    throttle = Throttle({"fast": "1000/second", "slow": "1/day; burst=10"}, store=store, clock=clock)
    admitted = dict.fromkeys(map(str, range(200)), 0)
    for turn in range(30):
        for key in admitted:
            admitted[key] += throttle.acquire({"fast": f"{key}-{turn}", "slow": key}).allowed
        clock.advance(0.001)
    assert set(admitted.values()) == {10}
    tables = store._tables.values()
    assert len(store) == sum(len(table.young) + len(table.old) for table in tables)
    assert not any(table.young.keys() & table.old.keys() for table in tables)


@pytest.mark.parametrize(
    "path",
    ["/orders\n", "/orders\r", "/orders\x00", "/orders\x7f", "./orders", "orders", "http://shop.example/orders", "*/"],
)
def test_a_path_that_a_loose_router_takes_for_another_is_refused(path):
    gateway = Gateway(methods={"POST /orders": Method(client_throttle=HOUR)}, clock=FakeClock())
    assert status(gateway, request("POST", path)) == 400


@pytest.mark.parametrize(
    "field",
    [
        'for=198.51.100.7;host="a,for=203.0.113.6"',
        'proto=http;host="a;for=203.0.113.6";for=198.51.100.7',
        'for="203.0.113.6, for=198.51.100.7',
        'x="\\", for=198.51.100.7',
    ],
)
def test_a_quoted_text_in_forwarded_names_no_client(field):
    gateway = Gateway(client_throttle=HOUR, trusted_hops=1, forwarding_header="forwarded")
    assert gateway.explain("GET", "/", {"forwarded": field}, address="10.0.0.1").client == "ip:198.51.100.7"


def test_two_for_parameters_in_one_element_are_nobodys():
    gateway = Gateway(client_throttle=HOUR, trusted_hops=1, forwarding_header="forwarded")
    found = gateway.explain("GET", "/", {"forwarded": "for=203.0.113.6;for=198.51.100.7"}, address="10.0.0.1")
    assert found.client == "ip:10.0.0.1"


def test_a_request_that_was_overtaken_by_an_update_brings_no_old_rate_back():
    gateway = Gateway(
        methods={"GET /{x+}": Method(throttle="1000/hour"), "GET /a": Method()}, clock=FakeClock(), client_throttle=None
    )
    stage = gateway.stage()
    stale = stage.routes
    stage.update("GET /{x+}", throttle=HOUR)
    stage._stricter(request("GET", "/a/"), stale, stale.table.find("GET", "/a/"))
    assert [status(gateway, request("GET", "/zz")) for _ in range(3)] == [200, 429, 429]


def test_a_rule_that_raises_keeps_no_slot():
    def rule(asked: Request) -> str:
        if "x-bad" in asked.headers:
            raise RuntimeError
        return "somebody"

    stage = Stage("s", in_flight=1, modes={"stage": "shadow"})
    gateway = Gateway(in_flight=3, stages=[stage], client=rule, on_event=print, clock=FakeClock())
    busy = gateway.enter(request("GET", "/"))
    for _ in range(3):
        with pytest.raises(RuntimeError):
            gateway.enter(request("GET", "/", x_bad="1"))
    assert gateway.enter(request("GET", "/")).refusal is None
    gateway.complete(busy, 200)


@pytest.mark.parametrize("cost", [1.5, None, -1, True])
def test_a_final_cost_that_is_no_whole_number_leaves_the_bucket_exact(cost):
    gateway = Gateway(client_throttle=Rate(5), final_cost=lambda context, code: cost, clock=FakeClock())
    context = gateway.enter(request("GET", "/"))
    with pytest.raises(ValueError, match="final_cost"):
        gateway.complete(context, 200)
    assert gateway.explain("GET", "/", address="192.0.2.1").levels[0].remaining == 3  # 5, one taken, one asked


def test_a_policy_is_completed_once_though_another_breaks_while_completing():
    completed = []

    class Counting:
        phase = Phase.GUARD

        def on_complete(self, context: Any, code: int | None) -> None:
            completed.append(code)

    class Breaking(Counting):
        def on_request(self, context: Any) -> Any:
            return gateway.enter(request("GET", "/../x")).refusal

        def on_complete(self, context: Any, code: int | None) -> None:
            raise RuntimeError

    gateway = Gateway(policies=[Counting(), Breaking()])
    with pytest.raises(RuntimeError):
        gateway.enter(request("GET", "/"))
    assert completed == [None]


def test_a_subscribers_many_networks_share_one_overflow_bucket():
    store = MemoryStore(max_keys=100)
    gateway = Gateway(client_throttle=HOUR, store=store, clock=FakeClock())
    for number in range(20_000):
        status(gateway, request("GET", "/", f"2001:db8:7:{number:x}::1"))
    strangers = [f"198.51.{number >> 8}.{number & 255}" for number in range(500)]
    assert sum(status(gateway, request("GET", "/", peer)) == 200 for peer in strangers) > 450


def test_a_client_that_hangs_up_pays():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if (await receive())["type"] == "http.disconnect":
            raise RuntimeError("client left")

    async def leave() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    gate = ASGIGate(app, Gateway(client_throttle=HOUR, refund="5xx", clock=FakeClock()))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
    with pytest.raises(RuntimeError):
        asyncio.run(gate(dict(scope), leave, send))
    asyncio.run(gate(dict(scope), leave, send))
    assert sent[0]["status"] == 429


def test_gateways_of_different_names_share_no_bucket_of_a_shared_store():
    store, clock = MemoryStore(), FakeClock()
    one, other = (Gateway(throttle=HOUR, store=store, clock=clock, name=name) for name in ("one", "other"))
    assert status(one, request("GET", "/")) == status(other, request("GET", "/")) == 200
    assert status(one, request("GET", "/")) == status(other, request("GET", "/")) == 429


def test_settings_do_not_follow_the_callers_dict():
    methods = {"GET /pets": Method(throttle=HOUR)}
    gateway = Gateway(methods=methods, clock=FakeClock())
    methods.clear()
    gateway.stage().update(client_throttle="9/second")
    assert gateway.explain("GET", "/pets").method == "GET /pets"


def test_a_refused_decision_is_false():
    throttle = Throttle({"global": "2/second"}, clock=FakeClock())
    assert sum(1 for _ in range(20) if throttle.acquire()) == 2


def test_waiting_never_stops_an_event_loop():
    async def wait() -> None:
        throttle = Throttle({"global": "1/second"})
        throttle.acquire()
        with pytest.raises(RuntimeError, match="use the _async twin"):
            throttle.acquire(wait=2)
        assert throttle.peek().levels["global"].retry_after < 1.01  # and its place was given back

    asyncio.run(wait())


def wsgi_app(environ: Any, start_response: Any) -> Any: ...


async def asgi_app(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(
    ("gate", "app", "gateway", "said"),
    [
        (ASGIGate, wsgi_app, Gateway(), "takes 2 arguments, so it is not an ASGI app; .*apigate.wsgi"),
        (WSGIGate, asgi_app, Gateway(), "takes 3 arguments, so it is not a WSGI app; .*apigate.asgi"),
        (ASGIGate, None, Gateway(), "is not an app"),
        (WSGIGate, wsgi_app, "1/second", "'1/second' is not a Gateway"),
    ],
)
def test_an_adapter_says_what_it_was_wrongly_given(gate, app, gateway, said):
    with pytest.raises(ConfigurationError, match=said):
        gate(app, gateway)


# ---- a framework between a decorated function and the gate, and between a path and its route


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

    scope = {"type": "http", "method": verb, "path": path, "root_path": root, "headers": [], "client": ("192.0.2.1", 1)}
    asyncio.run(app(scope, receive, send))
    head, *body = sent
    assert [message["type"] for message in body] == ["http.response.body"] * len(body)
    assert [message["more_body"] for message in body] == [True] * (len(body) - 1) + [False]
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
    "sent", [b"/orders\xff", b"/\xfforders", b"/ord\xffers", b"/orders\xe2\x82", b"/orders\xc0\x80"]
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
    [("/shop", "/shop/orders"), ("/shop", "/shoporders"), ("/shop/", "/shop/orders"), ("/", "/orders")],
)
def test_a_root_that_ends_within_a_segment_which_a_framework_may_cut_off_makes_no_other_method(root, path):
    gateway = one_order()
    assert method_of(ASGIGate, gateway, path, root)[:2] == (200, b"POST /orders")
    assert method_of(ASGIGate, gateway, "/orders").status == 429


def test_where_the_path_with_such_a_root_is_a_method_too_the_limits_of_both_hold():
    methods = {"POST /{anything}": Method(throttle="9/hour"), "POST /orders": Method(throttle=HOUR)}
    gateway = Gateway(methods=methods, clock=FakeClock())
    assert [method_of(ASGIGate, gateway, "/shoporders", "/shop").status for _ in range(2)] == [200, 429]
    assert method_of(ASGIGate, gateway, "/shoporders").status == 200  # without the root, it is that method alone


def test_a_refusal_says_that_nothing_follows_it():
    """Some servers and clients read `more_body` where the specification has a default; `over_asgi` does so too."""
    gateway = one_order()
    assert [method_of(ASGIGate, gateway, path).status for path in ("/orders", "/orders", "/a/../b")] == [200, 429, 400]
