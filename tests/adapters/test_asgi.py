"""The ASGI gate alone: what it hands on untouched, what it edits once, and when it lets go of a slot."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from apigate import CachePolicy, ConfigurationError, Gateway, Method, Rate, ResponseCache, Stage, Throttled
from apigate.asgi import GatewayMiddleware
from apigate.core.context import current_context
from apigate.core.policy import Phase
from apigate.staging import Header, Host, PathPrefix
from apigate.testing import FakeClock
from tests.adapters.apps import throttled

START = {"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"yes")]}
BODY = {"type": "http.response.body", "body": b"hello"}
FIELDS = [(b"ratelimit-policy", b'"global";q=2;w=20'), (b"ratelimit", b'"global";r=1;t=10')]


def slow(**settings: Any) -> Gateway:
    return Gateway(throttle=Rate(1, per=10, burst=2), clock=FakeClock(), **settings)


def http(path="/", **changes: Any) -> dict[str, Any]:
    """A scope with what the specification demands, and nothing else."""
    return {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path} | {
        "query_string": b"",
        "headers": [],
        **changes,
    }


def websocket(path="/", **changes: Any) -> dict[str, Any]:
    scope = http(path, type="websocket", subprotocols=[], **changes)
    del scope["method"]
    return scope


def held(gateway: Gateway) -> int:
    return sum(sum(slots.held.values()) for slots in gateway._compiler._slots.values())


async def never() -> Any:
    raise AssertionError("nobody asked for this")


def play(app: Any, scope: dict[str, Any], *incoming: Any, send: Any = None) -> list[Any]:
    """Serve one connection in a loop of its own; returns what the server was sent."""
    sent: list[Any] = []
    inbox = iter(incoming)

    async def receive() -> Any:
        return next(inbox)

    async def keep(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send or keep))
    return sent


def sender(*messages: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def exhaust(gate: Any) -> None:
    for _ in range(2):
        assert play(gate, http())[0]["status"] == 200


# ---- passed through


@pytest.mark.parametrize("kind", ["lifespan", "webtransport", "x-unknown"])
def test_every_other_kind_of_scope_is_handed_on_as_it_is_whatever_the_limits(kind):
    seen: list[Any] = []

    async def app(*given: Any) -> None:
        seen[:] = given

    async def send(message: Any) -> None: ...

    gateway = slow(in_flight=1)
    given = ({"type": kind}, never, send)
    for _ in range(5):
        asyncio.run(GatewayMiddleware(app, gateway)(*given))
        assert all(mine is theirs for mine, theirs in zip(seen, given, strict=True))
    assert given[0] == {"type": kind}


def test_an_empty_gateway_hands_on_the_very_same_objects():
    seen: list[Any] = []

    async def app(*given: Any) -> None:
        seen[:] = given

    async def send(message: Any) -> None: ...

    given = (http("/a/../b"), never, send)
    asyncio.run(GatewayMiddleware(app, Gateway())(*given))
    assert all(mine is theirs for mine, theirs in zip(seen, given, strict=True))
    assert "apigate" not in given[0]


def test_the_app_reads_its_body_from_the_server_itself():
    own = {"type": "http.request", "body": b"x", "more_body": False}
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())
        await send(START)

    async def from_server() -> Any:
        return own

    async def to_server(message: Any) -> None: ...

    asyncio.run(GatewayMiddleware(app, slow(in_flight=1))(http(), from_server, to_server))
    assert seen == [own]
    assert seen[0] is own


def test_the_apps_state_and_extensions_are_the_servers_own_objects():
    state, extensions = {"db": object()}, {"http.response.pathsend": {}}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["state"] is state
        assert scope["extensions"] is extensions

    play(GatewayMiddleware(app, slow()), http(state=state, extensions=extensions))


BEFORE_THE_START = [
    {"type": "http.response.debug", "info": {"template": "pets.html"}},
    {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]},
]
AFTER_THE_START = [
    {"type": "http.response.early_hint", "links": []},
    {"type": "http.response.push", "path": "/style.css", "headers": []},
    {"type": "http.response.pathsend", "path": "/srv/file"},
    {"type": "http.response.zerocopysend", "file": 3, "offset": 0, "count": 10, "more_body": False},
    {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False},
    {"type": "http.response.body", "body": memoryview(b"not even bytes"), "more_body": True},
    {"type": "x-unknown", "anything": object()},
]


@pytest.mark.parametrize("limits", [{}, {"in_flight": 5}])
@pytest.mark.parametrize("message", BEFORE_THE_START, ids=lambda message: message["type"])
def test_a_message_before_the_start_goes_on_as_it_is_and_the_start_still_gets_its_fields(message, limits):
    sent = play(GatewayMiddleware(sender(message, START, BODY), slow(**limits)), http())
    assert sent[0] is message
    assert sent[1]["headers"] == START["headers"] + FIELDS
    assert sent[2] is BODY


@pytest.mark.parametrize("limits", [{}, {"in_flight": 5}])
@pytest.mark.parametrize("message", AFTER_THE_START, ids=lambda message: message["type"])
def test_a_message_after_the_start_goes_on_as_it_is(message, limits):
    before = dict(message)
    sent = play(GatewayMiddleware(sender(START, message, BODY), slow(**limits)), http())
    assert sent[1] is message
    assert message == before
    assert sent[2] is BODY


# ---- the start message


def test_the_apps_own_start_message_and_list_are_not_changed():
    headers = [(b"x-app", b"yes")]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    gate = GatewayMiddleware(sender(start, BODY), slow())
    sent = play(gate, http())
    assert sent[0]["headers"] == [(b"x-app", b"yes"), *FIELDS]
    assert start == {"type": "http.response.start", "status": 200, "headers": headers}
    assert start["headers"] is headers
    assert headers == [(b"x-app", b"yes")]
    play(gate, http())  # the same message again, as an app with a constant sends it
    assert headers == [(b"x-app", b"yes")]


@pytest.mark.parametrize(
    "headers", [(), ((b"x-app", b"yes"),), [[b"x-app", b"yes"]], iter([(b"x-app", b"yes")])], ids=repr
)
def test_header_fields_may_be_any_iterable_of_pairs(headers):
    sent = play(GatewayMiddleware(sender({**START, "headers": headers}), slow()), http())
    assert [tuple(pair) for pair in sent[0]["headers"]][-2:] == FIELDS
    assert len(sent[0]["headers"]) in (2, 3)


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_header_fields_that_can_be_read_only_once_reach_the_client_past_a_cache(verb):
    fields = [(b"cache-control", b"private"), (b"set-cookie", b"a=b")]
    gateway = Gateway(cache=ResponseCache(policy=CachePolicy()), clock=FakeClock())
    sent = play(GatewayMiddleware(sender({**START, "headers": iter(fields)}, BODY), gateway), http(method=verb))
    assert list(sent[0]["headers"])[:2] == fields


def test_a_start_message_without_headers_and_its_other_keys_are_kept():
    start = {"type": "http.response.start", "status": 204, "trailers": True, "x-server": object()}
    sent = play(GatewayMiddleware(sender(start), slow()), http())
    assert sent == [{**start, "headers": FIELDS}]


def test_a_start_message_that_gets_no_field_is_the_same_object():
    sent = play(GatewayMiddleware(sender(START, BODY), Gateway(in_flight=1)), http())
    assert sent[0] is START


def test_only_the_first_start_message_is_edited():
    sent = play(GatewayMiddleware(sender(START, START), slow()), http())
    assert sent[1] is START


# ---- the end of a response

PART = {"type": "http.response.body", "body": b"part", "more_body": True}
TRAILED = {**START, "trailers": True}
ZEROCOPY = {"type": "http.response.zerocopysend", "file": 3}
PATHSEND = {"type": "http.response.pathsend", "path": "/srv/file"}
TRAILERS = {"type": "http.response.trailers", "headers": []}


ENDINGS = {
    "one body": [START, BODY],
    "an empty body": [START, {"type": "http.response.body"}],
    "several bodies": [START, PART, PART, BODY],
    "pathsend": [START, PATHSEND],
    "zerocopysend": [START, ZEROCOPY],
    "zerocopysend mixed with bodies": [START, {**ZEROCOPY, "more_body": True}, PART, ZEROCOPY],
    "zerocopysend, then a body": [START, {**ZEROCOPY, "more_body": True}, BODY],
    "trailers": [TRAILED, BODY, TRAILERS],
    "several trailers": [TRAILED, PART, BODY, {**TRAILERS, "more_trailers": True}, TRAILERS],
    "pathsend with trailers": [TRAILED, PATHSEND, TRAILERS],
    "zerocopysend with trailers": [TRAILED, ZEROCOPY, TRAILERS],
}


@pytest.mark.parametrize("messages", ENDINGS.values(), ids=ENDINGS)
def test_a_slot_is_free_after_the_message_that_ends_the_response_and_no_sooner(messages):
    gateway = Gateway(in_flight=1)
    held_after = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
            held_after.append(held(gateway))

    play(GatewayMiddleware(app, gateway), http())
    assert held_after == [1] * (len(messages) - 1) + [0]


def test_work_after_the_last_body_holds_no_slot():
    gateway = Gateway(in_flight=1, client_in_flight=1)
    statuses = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)
        if scope["path"] == "/later":  # as a framework's background task does
            await gate(http("/other"), receive, other)

    async def other(message: Any) -> None:
        statuses.append(message.get("status"))

    gate = GatewayMiddleware(app, gateway)
    play(gate, http("/later"))
    assert statuses == [200, None]


class Completions:
    """A policy that notes each completion it hears of."""

    phase = Phase.THROTTLE

    def __init__(self) -> None:
        self.statuses: list[int | None] = []

    def on_complete(self, context: Any, status: int | None) -> None:
        self.statuses.append(status)


@pytest.mark.parametrize(
    "messages", [[], [START], [START, BODY], [START, PART, PART], [START, PART, BODY, BODY]], ids=len
)
@pytest.mark.parametrize("breaks", [False, True])
def test_a_request_is_completed_once_however_it_ends(messages, breaks):
    completions = Completions()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if breaks:
            raise RuntimeError("broken")

    with suppress(RuntimeError):
        play(GatewayMiddleware(app, Gateway(policies=[completions])), http())
    never_started = 500 if breaks else None
    assert completions.statuses == [200 if messages else never_started]


def test_an_app_that_never_answers_frees_its_slot_when_it_returns():
    gateway = Gateway(in_flight=1)
    gate = GatewayMiddleware(sender(), gateway)
    assert play(gate, http()) == []
    assert held(gateway) == 0


# ---- clients that leave


def test_a_disconnect_reaches_the_app_and_its_slot_is_free_when_it_gives_up():
    gateway = Gateway(in_flight=1)
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(PART)
        seen.append(await receive())
        seen.append(await receive())

    request, gone = {"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}
    play(GatewayMiddleware(app, gateway), http(), request, gone)
    assert seen[0] is request
    assert seen[1] is gone
    assert held(gateway) == 0


@pytest.mark.parametrize(("leaves_before", "left"), [("the start", 0), ("the end", 1)])
def test_a_client_that_leaves_before_the_start_has_seen_no_outcome_so_nothing_is_given_back(leaves_before, left):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if leaves_before == "the end":
            await send(START)
        await receive()
        if leaves_before == "the start":
            await send(START)
        await send(BODY)

    gateway = Gateway(methods={"GET /": Method(throttle=Rate(1, per=60), refund="2xx")}, clock=FakeClock())
    play(GatewayMiddleware(app, gateway), http(), {"type": "http.disconnect"})
    assert (play(GatewayMiddleware(sender(START, BODY), gateway), http())[0]["status"] == 200) is bool(left)


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_the_servers_oserror_reaches_the_app_and_the_slot_is_free(fails_at):
    gateway = Gateway(throttle=Rate(9), in_flight=1)
    error, caught = OSError("the client has gone"), []
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == fails_at:
            raise error

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            for message in (START, PART, BODY):
                await send(message)
        except OSError as raised:
            caught.append(raised)
            raise

    with pytest.raises(OSError, match="the client has gone"):
        play(GatewayMiddleware(app, gateway), http(), send=send)
    assert caught == [error]
    assert held(gateway) == 0


def test_an_oserror_while_a_refusal_is_sent_goes_to_the_server_and_leaves_no_slot_taken():
    gateway = slow(in_flight=1)
    gate = GatewayMiddleware(sender(START, BODY), gateway)
    exhaust(gate)

    async def send(message: Any) -> None:
        raise OSError("the client has gone")

    with pytest.raises(OSError, match="the client has gone"):
        play(gate, http(), send=send)
    assert held(gateway) == 0


class Waits:
    """A policy that waits, so that a request can be given up inside the gate."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.completed: list[int | None] = []

    async def on_request(self, context: Any) -> None:
        await asyncio.Event().wait()

    def on_complete(self, context: Any, status: int | None) -> None:
        self.completed.append(status)


async def cancelled(gate: Any) -> None:
    async def send(message: Any) -> None: ...

    task = asyncio.create_task(gate(http(), never, send))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("before", [[], [START], [START, PART]], ids=["nothing sent", "started", "half-way"])
def test_a_request_cancelled_in_the_app_frees_its_slots(before):
    gateway = Gateway(in_flight=1, client_in_flight=1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in before:
            await send(message)
        assert held(gateway) == 2
        await asyncio.Event().wait()

    asyncio.run(cancelled(GatewayMiddleware(app, gateway)))
    assert held(gateway) == 0


def test_a_request_cancelled_inside_the_gate_frees_its_slots_and_every_policy_hears_of_it():
    waits = Waits(Phase.CACHE)
    gateway = Gateway(in_flight=1, policies=[waits])
    asyncio.run(cancelled(GatewayMiddleware(sender(START, BODY), gateway)))
    assert held(gateway) == 0
    assert waits.completed == [None]


# ---- errors


@pytest.mark.parametrize("before", [[], [START, PART]], ids=["nothing sent", "half-way"])
@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), asyncio.CancelledError(), ExceptionGroup("both", [OSError()])]
)
def test_the_apps_exception_reaches_the_server_as_it_is(error, before):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in before:
            await send(message)
        raise error

    gateway = Gateway(in_flight=1)
    sent: list[Any] = []

    async def serve() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        with pytest.raises(type(error)) as caught:
            await GatewayMiddleware(app, gateway)(http(), never, send)
        assert caught.value is error

    asyncio.run(serve())
    assert sent == before
    assert held(gateway) == 0


def test_an_app_throttled_after_its_start_is_not_answered_twice():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        raise throttled()

    with pytest.raises(Throttled):
        play(GatewayMiddleware(app, slow()), http())


def test_an_app_throttled_after_an_early_hint_still_becomes_a_429():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(BEFORE_THE_START[1])
        raise throttled()

    sent = play(GatewayMiddleware(app, slow()), http())
    assert [message.get("status") for message in sent] == [None, 429, None]


def test_an_app_throttled_within_two_gateways_is_answered_by_the_inner_one_and_the_outer_one_adds_its_fields():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise throttled()

    outer = slow()
    sent = play(GatewayMiddleware(GatewayMiddleware(app, slow()), outer), http())
    assert sent[0]["status"] == 429
    assert sent[0]["headers"][-2:] == FIELDS


@pytest.mark.parametrize("in_thread", [False, True], ids=["in the task", "in a thread"])
def test_a_decorated_function_finds_the_request_that_is_being_served(in_thread):
    gateway = Gateway(clock=FakeClock(), in_flight=9)

    @gateway.throttle(Rate(1, per=10), per="client")
    def work() -> None: ...

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(work) if in_thread else work()
        await send(START)
        await send(BODY)

    gate = GatewayMiddleware(app, gateway)
    peers = [("192.0.2.1", 1), ("192.0.2.2", 1), ("192.0.2.1", 1)]
    assert [play(gate, http(client=peer))[0]["status"] for peer in peers] == [200, 200, 429]
    assert current_context() is None
    assert held(gateway) == 0


def test_a_gateway_that_stands_around_another_one_and_within_it_counts_once():
    one, other = slow(), slow()
    gate = GatewayMiddleware(sender(START, BODY), one)
    play(GatewayMiddleware(GatewayMiddleware(gate, other), one), http())
    assert one.stats() == other.stats() == {"default": {"*": {"admitted": 1}}}


@pytest.mark.parametrize("given", ["app(environ, start_response)", "no app", "no gateway"])
def test_what_cannot_be_gated_is_refused_when_bound(given):
    def wsgi_app(environ: Any, start_response: Any) -> Any: ...

    app: Any = {"app(environ, start_response)": wsgi_app, "no app": "app"}.get(given, sender())
    gateway: Any = {"no gateway": sender()}.get(given, slow())
    with pytest.raises(ConfigurationError, match="gateway: " if given == "no gateway" else "app: "):
        GatewayMiddleware(app, gateway)


# ---- scopes


def test_a_scope_with_nothing_that_may_be_left_out_is_served():
    scope = http()
    scope.pop("query_string")  # not optional, but cheap to do without
    assert play(GatewayMiddleware(sender(START, BODY), slow(client_throttle="1/s")), scope)[0]["status"] == 200


@pytest.mark.parametrize("client", [None, ["192.0.2.1", 80], ("192.0.2.1", None), ("", 0), ("/run/socket", None)])
def test_a_peer_may_have_any_form_that_servers_give_it(client):
    gate = GatewayMiddleware(sender(START, BODY), Gateway(client_throttle=Rate(1, per=10), clock=FakeClock()))
    assert [play(gate, http(client=client))[0]["status"] for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("root", "path", "method"),
    [
        ("", "/pets/1", "GET /pets/{id}"),
        ("/api", "/api/pets/1", "GET /pets/{id}"),
        ("/api", "/pets/1", "GET /pets/{id}"),  # a server that leaves the mount out of the path
        ("/api", "/apix/pets/1", None),
        ("/api", "/api", "GET /"),
        ("/api", "/api/", "GET /"),
        ("/api/v1", "/api/v1/pets/1", "GET /pets/{id}"),
    ],
)
def test_methods_are_matched_below_the_mount(root, path, method):
    found = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(scope["apigate"].method)

    gateway = Gateway(throttle="9/s", methods={"GET /pets/{id}": Method(), "GET /": Method()})
    play(GatewayMiddleware(app, gateway), http(path, root_path=root))
    assert found == [method]


@pytest.mark.parametrize("given", [{}, {"root_path": ""}, {"root_path": "/api"}])
def test_a_stage_in_the_path_joins_the_mount_and_the_servers_scope_is_not_changed(given):
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    root = given.get("root_path", "")
    gateway = Gateway(stages=[Stage("prod", throttle="9/s")], stage_by=PathPrefix())
    scope = http(f"{root}/prod/pets", raw_path=f"{root}/prod/pets".encode(), **given)
    before = dict(scope)
    play(GatewayMiddleware(app, gateway), scope)
    assert scope == before
    assert (seen[0]["root_path"], seen[0]["path"]) == (f"{root}/prod", f"{root}/prod/pets")
    assert seen[0]["apigate"].request.path == "/pets"


def test_a_stage_in_the_path_is_found_by_the_app_where_the_server_leaves_the_mount_out_of_the_path():
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    gateway = Gateway(stages=[Stage("prod", throttle="9/s")], stage_by=PathPrefix())
    play(GatewayMiddleware(app, gateway), http("/prod/pets", root_path="/api"))
    (scope,) = seen
    assert scope["path"].removeprefix(scope["root_path"]) == "/pets"  # as Starlette works out what it routes on


@pytest.mark.parametrize("selector", [Host({"prod": "prod", "beta": "beta"}), Header("host", default="prod")], ids=repr)
@pytest.mark.parametrize(("sent", "status"), [([b"prod"], 200), ([b"prod", b"beta"], 404), ([b"prod", b"prod"], 404)])
def test_a_field_that_is_sent_twice_names_no_stage(selector, sent, status):
    gateway = Gateway(stages=[Stage("prod", throttle="9/s"), Stage("beta")], stage_by=selector)
    gate = GatewayMiddleware(sender(START, BODY), gateway)
    assert play(gate, http(headers=[(b"host", value) for value in sent]))[0]["status"] == status


# ---- websockets

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-app", b"yes")]}
DENIAL = {"extensions": {"websocket.http.response": {}}}


async def chat(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive()) is CONNECT
    await send(ACCEPT)


def test_a_websockets_messages_are_the_very_same_objects():
    text, bye = {"type": "websocket.receive", "text": "hi"}, {"type": "websocket.disconnect", "code": 1001}
    out = [ACCEPT, {"type": "websocket.send", "text": "hi"}, {"type": "websocket.close"}]
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([await receive() for _ in range(3)])
        for message in out:
            await send(message)

    sent = play(GatewayMiddleware(app, slow(in_flight=1)), websocket(), CONNECT, text, bye)
    assert all(mine is theirs for mine, theirs in zip(seen, [CONNECT, text, bye], strict=True))
    assert all(mine is theirs for mine, theirs in zip(sent, out, strict=True))
    assert ACCEPT["headers"] == [(b"x-app", b"yes")]


def test_a_handshake_takes_from_the_bucket_of_a_get():
    gateway = Gateway(methods={"GET /chat": Method(throttle=Rate(1, per=10))}, clock=FakeClock())
    gate = GatewayMiddleware(chat, gateway)
    play(gate, websocket("/chat"), CONNECT)
    assert play(gate, http("/chat"))[0]["status"] == 429


def test_a_handshake_over_the_limit_is_refused_by_a_denial_response_where_the_server_has_it():
    gate = GatewayMiddleware(chat, slow())
    for _ in range(2):
        assert play(gate, websocket(**DENIAL), CONNECT) == [ACCEPT]
    start, body = play(gate, websocket(**DENIAL), CONNECT)
    as_get = play(gate, http())
    assert start == {**as_get[0], "type": "websocket.http.response.start"}
    assert body == {**as_get[1], "type": "websocket.http.response.body"}


@pytest.mark.parametrize("extensions", [{}, {"extensions": None}, {"extensions": {"http.response.pathsend": {}}}])
def test_a_handshake_over_the_limit_is_refused_by_a_close_before_it_is_accepted_elsewhere(extensions):
    gate = GatewayMiddleware(chat, slow())
    for _ in range(2):
        play(gate, websocket(), CONNECT)
    sent = play(gate, websocket(**extensions), CONNECT)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "THROTTLED"}]


def test_nothing_is_sent_to_a_websocket_before_it_has_connected():
    gate = GatewayMiddleware(chat, slow())
    for _ in range(2):
        play(gate, websocket(), CONNECT)
    order = []

    async def receive() -> Any:
        order.append("connect")
        return CONNECT

    async def send(message: Any) -> None:
        order.append(message["type"])

    asyncio.run(gate(websocket(), receive, send))
    assert order == ["connect", "websocket.close"]


@pytest.mark.parametrize("receives", [0, 1])
def test_an_app_throttled_before_it_accepts_refuses_the_handshake(receives):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(receives):
            await receive()
        raise throttled()

    gateway = slow(in_flight=1)
    sent = play(GatewayMiddleware(app, gateway), websocket(), CONNECT)  # there is but one message to receive
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "THROTTLED"}]
    assert held(gateway) == 0


def test_an_app_throttled_after_it_accepted_is_the_servers_to_close():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await chat(scope, receive, send)
        raise throttled()

    gateway = slow(in_flight=1)
    with pytest.raises(Throttled):
        play(GatewayMiddleware(app, gateway), websocket(), CONNECT)
    assert held(gateway) == 0


def test_a_websocket_holds_its_slot_until_the_app_returns():
    gateway = Gateway(in_flight=1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await chat(scope, receive, send)
        await send({"type": "websocket.send", "text": "still there"})
        assert held(gateway) == 1

    play(GatewayMiddleware(app, gateway), websocket(), CONNECT)
    assert held(gateway) == 0
