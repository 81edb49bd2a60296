"""What readers in the role of an attacker or an engineer once got past; each must stay shut."""

import asyncio
from typing import Any

import pytest

from apigate import ConfigurationError, Gateway, Method, Rate, Stage, Throttle
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
