"""A hundred thousand malformed requests: none makes the gateway raise, none is a 5xx, none gets past a limit.

Everything is drawn from one seed, which a failure prints; run it again with `APIGATE_FUZZ_SEED=<seed>`. The clock
stands still, so that no more than a burst may ever be admitted, whatever the requests look like.
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from apigate import Gateway, Method, Rate, Stage, asgi, wsgi
from apigate.staging import Header, Host, PathPrefix
from apigate.testing import FakeClock

SEED = int(os.environ.get("APIGATE_FUZZ_SEED", "20261122"))
REQUESTS = 100_000
BURST = 50
LIMITED = "/pets/{id}"

# ---- what requests are made of

ODD = [
    "\x00",
    "\x7f",
    "\xff",
    "\x80",
    "é",
    "日",
    "\u202e",
    "\ufffd",
    "\U0001f600",
    "%",
    "%2f",
    "%2e",
    "%00",
    "%25",
    "\\",
    ";",
    " ",
]
WORDS = [
    "pets",
    "PETS",
    "p%65ts",
    "1",
    "..",
    ".",
    "...",
    "",
    "",
    "{id}",
    "*",
    "café",
    "cafe\u0301",
    "prod",
    "a" * 300,
    "None",
]
VERBS = [
    "GET",
    "HEAD",
    "POST",
    "get",
    "OPTIONS",
    "PROPFIND",
    "",
    "G\x00T",
    "ĞET",
    "GET ",
    "\u0131",
    "ß",
    "A" * 5_000,
    "*",
]
HOSTS = [
    "api.example",
    "API.EXAMPLE:443",
    "",
    "[::1]",
    "[",
    "]:80",
    "a]b[",
    "\xff",
    "api.example.",
    "x" * 10_000,
    ":",
    "a:b:c",
]
ADDRESSES = [
    "192.0.2.1",
    "2001:db8::1",
    "::ffff:192.0.2.1",
    "fe80::1%eth0",
    "",
    "unknown",
    "/run/socket",
    "1.2.3",
    "9" * 400,
]
FORWARDED = [
    "for=192.0.2.1",
    'for="[2001:db8::1]:80"',
    "for=unknown;by=_x",
    "for==;;=,=",
    'for="',
    "192.0.2.1, 192.0.2.2",
    ",,,,",
    "\xff\xfe",
    "1" * 20_000,
    "::",
    "[",
    "[]",
    "]",
    "%",
    "1.2.3.4:5:6",
    "0x7f.1",
    "a" * 300 + ",192.0.2.1",
]
NAMES = [
    "x-forwarded-for",
    "forwarded",
    "host",
    "x-stage",
    "origin",
    "cookie",
    "content-length",
    "x-http-method-override",
    "x-real-ip",
]


class Draw:
    """Values for one run, from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.of = self._random.choice
        self.below = self._random.randrange

    def one_in(self, number: int) -> bool:
        return not self.below(number)

    def noise(self, longest: int = 12) -> str:
        return "".join(chr(self.below(0x250)) for _ in range(self.below(longest)))

    def segment(self) -> str:
        kind = self.below(4)
        if kind == 0:
            return self.of(WORDS) + self.of(ODD)
        return self.noise() if kind == 1 else self.of(WORDS)

    def path(self) -> str:
        if self.one_in(2_000):
            return "/" * self.below(50_000) if self.one_in(2) else "/a" * self.below(20_000)
        path = "".join("/" + self.segment() for _ in range(self.below(6)))
        return path if not self.one_in(20) else self.of(["", "*", path[1:], "http://api.example" + path, " " + path])

    def way_to_the_pets(self) -> str:
        """A path by which somebody may hope to reach /pets/{id} around its limit."""
        slashes = [self.of(["/", "/", "/", "//", "///"]) for _ in range(3)]
        tail = self.of(["", "", "/", "//", "/.", "/..", "/../1", "/./"])
        return f"{slashes[0]}pets{slashes[1]}{self.of(['1', 'x', 'é', '%2e', '...', ' ', self.noise() or '1'])}{tail}"

    def fields(self) -> Iterator[tuple[str, str]]:
        for _ in range(self.below(5)):
            name = self.of(NAMES) if not self.one_in(8) else (self.noise() or "x")
            values = {"host": HOSTS, "x-stage": ["prod", "beta", "", "\xff"]}.get(name, FORWARDED)
            yield name, self.of(values) if not self.one_in(5) else self.noise(60)
        if self.one_in(6):
            yield "origin", self.of(["https://app.example", "null", "", "\x00"])
            yield "access-control-request-method", self.of(VERBS[:5])


def latin(text: str) -> str:
    """As a WSGI server hands bytes over."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def environ(draw: Draw, verb: str, path: str, peer: str | None) -> dict[str, Any]:
    native: dict[str, Any] = {"REQUEST_METHOD": latin(verb), "PATH_INFO": latin(path), "REMOTE_ADDR": peer}
    if draw.one_in(3):
        native |= {"SCRIPT_NAME": draw.of(["", "/api", "/\xff"]), "QUERY_STRING": latin(draw.noise(40))}
    for name, value in draw.fields():
        native[f"HTTP_{latin(name).upper().replace('-', '_')}"] = latin(value)
    for key, chance in (("PATH_INFO", 200), ("REMOTE_ADDR", 30)):
        if draw.one_in(chance):
            del native[key]
    return native


def scope(draw: Draw, verb: str, path: str, peer: str | None) -> dict[str, Any]:
    native: dict[str, Any] = {"type": "http", "method": verb, "path": path, "headers": [], "client": peer and (peer, 1)}
    if draw.one_in(3):
        native |= {
            "root_path": draw.of(["", "/api", "/", "//", "/p", "/pets"]),
            "query_string": draw.noise(40).encode(),
        }
    for name, value in draw.fields():
        native["headers"].append((name.encode(), value.encode("utf-8", "surrogatepass")))
    for key, chance in (("client", 30), ("headers", 200)):
        if draw.one_in(chance):
            del native[key]
    if draw.one_in(50):
        native["headers"] = iter(native.get("headers", ()))
    return native


# ---- the two ways in; each gives the status, after looking at what came with it

FORBIDDEN = set("\r\n\x00")


def checked(status: int, headers: list[tuple[str, str]], body: bytes, head: bool) -> int:
    for name, value in headers:
        assert not FORBIDDEN & set(name + value), (name, value)
    if status != 200:
        length = {name.lower(): value for name, value in headers}["content-length"]
        assert body == b"" if head else len(body) == int(length)
    return status


class Wsgi:
    """Sends requests to a WSGI app."""

    def __init__(self, gateway: Gateway, stage: str | None = None) -> None:
        self.gate = wsgi.GatewayMiddleware(self._app, gateway, stage=stage)
        self.native = environ

    def _app(self, environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [b"app"]

    def __call__(self, native: dict[str, Any]) -> int:
        started: list[Any] = []
        body = self.gate(native, lambda *given: started.append(given))  # type: ignore[arg-type]
        whole = b"".join(body)
        if hasattr(body, "close"):
            body.close()
        ((status, headers),) = started
        return checked(int(status[:3]), headers, whole, native["REQUEST_METHOD"] == "HEAD")


class Asgi:
    """Sends requests to an ASGI app. Nothing here waits, so a coroutine is run by one step."""

    def __init__(self, gateway: Gateway, stage: str | None = None) -> None:
        self.gate = asgi.GatewayMiddleware(self._app, gateway, stage=stage)
        self.native = scope

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"app"})

    def __call__(self, native: dict[str, Any]) -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        with suppress(StopIteration):
            self.gate(native, send, send).send(None)  # type: ignore[attr-defined]
        start, body = sent
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
        return checked(start["status"], headers, body["body"], native["method"] == "HEAD")


@pytest.fixture(autouse=True)
def seed_told_on_failure() -> None:
    print(f"APIGATE_FUZZ_SEED={SEED}")  # noqa: T201 - pytest shows it where a test fails


ADAPTERS = pytest.mark.parametrize("adapter", [Wsgi, Asgi])


def frozen(**settings: Any) -> Gateway:
    return Gateway(clock=FakeClock(), **settings)


def storm(send: Any, requests: int, made: Callable[[Draw], tuple[str, str, str | None]]) -> Counter[int]:
    """Send so many requests; whatever goes wrong is told with the seed and the request."""
    draw = Draw(SEED)
    found: Counter[int] = Counter()
    for number in range(requests):
        native = send.native(draw, *made(draw))
        said = repr(native)
        try:
            status = send(native)
        except Exception as error:
            raise AssertionError(f"seed {SEED}, request {number}: {said[:2_000]}") from error
        assert status < 500, f"seed {SEED}, request {number}: {status} for {said[:2_000]}"
        found[status] += 1
    return found


def anything(draw: Draw) -> tuple[str, str, str | None]:
    verb = draw.of(VERBS) if not draw.one_in(10) else draw.noise()
    return verb, draw.path(), draw.of([*ADDRESSES, None])


def a_way_to_the_pets(draw: Draw) -> tuple[str, str, str | None]:
    return draw.of(["GET", "GET", "HEAD", "get", "head"]), draw.way_to_the_pets(), draw.of([*ADDRESSES, None])


# ---- no exception, no 5xx

GATEWAYS: dict[str, dict[str, Any]] = {
    "every level": {
        "throttle": Rate(40_000),
        "stages": [
            Stage(
                "prod",
                throttle=Rate(30_000),
                client_throttle=Rate(2_000),
                methods={
                    "*": Method(throttle=Rate(9_000), client_throttle=Rate(900)),
                    f"GET {LIMITED}": Method(cost=2),
                },
            )
        ],
        "x_rate_limit": True,
        "on_event": repr,
    },
    "stage by path": {"stages": [Stage("prod", throttle=Rate(99)), Stage("beta")], "stage_by": PathPrefix()},
    "stage by host": {"stages": [Stage("prod", client_throttle=Rate(99))], "stage_by": Host({"api.example": "prod"})},
    "stage by header": {"stages": [Stage("prod", throttle=Rate(99))], "stage_by": Header("x-stage", default="prod")},
    "behind a proxy": {"client_throttle": Rate(9), "trusted_hops": 1, "store": "memory://?max_keys=500"},
    "behind two proxies": {
        "client_throttle": Rate(9),
        "client_in_flight": 5,
        "trusted_hops": 2,
        "forwarding_header": "forwarded",
        "rate_limit": "draft-06",
    },
}
SHARE = REQUESTS // 2 // (2 * len(GATEWAYS))


@ADAPTERS
@pytest.mark.parametrize("settings", GATEWAYS.values(), ids=GATEWAYS)
def test_no_request_makes_the_gateway_raise_or_answer_with_a_5xx(adapter, settings):
    gateway = frozen(**settings)
    found = storm(adapter(gateway), SHARE, anything)
    assert set(found) <= {200, 400, 404, 429}
    assert found[200]
    counted: Counter[str] = Counter()
    for methods in gateway.stats().values():
        for kinds in methods.values():
            counted += Counter(kinds)
    assert counted["admitted"] == found[200]
    assert counted["THROTTLED"] == found[429]
    assert counted["BAD_REQUEST_PARAMETERS"] == found[400]
    held = [slots.held for slots in gateway._compiler._slots.values()]
    assert not any(held)


# ---- no way around a limit


@ADAPTERS
def test_no_path_verb_or_field_gets_more_than_the_burst_out_of_a_method(adapter):
    gateway = frozen(methods={f"GET {LIMITED}": Method(throttle=Rate(BURST))})
    reached = 0
    send = adapter(gateway)

    def count(path: str) -> None:
        nonlocal reached
        segments = [part for part in path.split("/") if part]
        reached += len(segments) == 2 and segments[0] == "pets"

    counting(send, count)
    found = storm(send, REQUESTS // 8, a_way_to_the_pets)
    assert reached == BURST  # what an app that cleans paths would take for the endpoint
    assert found[429]
    assert found[400]


def counting(send: Any, count: Callable[[str], None]) -> None:
    """Have the app tell the path of every request that reaches it, as a framework would route it."""
    app = send.gate.app

    if isinstance(send, Wsgi):

        def wsgi_app(environ: Any, start_response: Any) -> Any:
            count(environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace"))
            return app(environ, start_response)

        send.gate.app = wsgi_app
    else:

        async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
            root, path = scope.get("root_path", ""), scope["path"]
            inside = path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/")
            count(path[len(root) :] if inside else path)
            await app(scope, receive, send)

        send.gate.app = asgi_app


@ADAPTERS
def test_a_client_whose_bucket_is_empty_stays_refused_whatever_it_sends(adapter):
    gateway = frozen(client_throttle=Rate(BURST))
    peer = "198.51.100.7"

    def from_one_peer(draw: Draw) -> tuple[str, str, str | None]:
        verb, path, _ = anything(draw)
        return verb, path, peer

    send = adapter(gateway)
    send.native = keeping_the_peer(send.native, peer)
    found = storm(send, REQUESTS // 8, from_one_peer)
    preflights = PREFLIGHTS[send.native]
    assert found[200] == BURST + preflights  # these take from the global level only, and there is none
    assert found[429]


PREFLIGHTS: Counter[Any] = Counter()


def keeping_the_peer(native: Any, peer: str) -> Any:
    """The same requests, and none without its address; counts the preflights that are not refused for their path."""

    def made(draw: Draw, *given: Any) -> dict[str, Any]:
        found: dict[str, Any] = native(draw, *given)
        if native is environ:
            found["REMOTE_ADDR"] = peer
            names = {key[5:].replace("_", "-").lower() for key in found if key.startswith("HTTP_")}
            path = found.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        else:
            found["client"] = (peer, 1)
            found["headers"] = list(found.get("headers", ()))
            names = {name.decode("latin-1").lower() for name, _ in found["headers"]}
            root = found.get("root_path", "")
            path = found["path"]
            path = path[len(root) :] if path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/") else path
        is_preflight = given[0] == "OPTIONS" and {"origin", "access-control-request-method"} <= names
        dotted = {".", ".."} & set(path.split("/"))
        control = any(character < " " or character == "\x7f" for character in path)
        slashless = not path.startswith("/") and path not in ("", "*")
        PREFLIGHTS[made] += is_preflight and not (dotted or control or (slashless and native is not environ))
        return found

    return made


@ADAPTERS
def test_requests_that_match_nothing_share_one_burst(adapter):
    gateway = frozen(methods={"*": Method(throttle=Rate(BURST)), "GET /known": Method(throttle=None)})

    def unmatched(draw: Draw) -> tuple[str, str, str | None]:
        verb, path, peer = anything(draw)
        return verb, "/x" + path, peer

    send = adapter(gateway)
    send.native = keeping_the_peer(send.native, "192.0.2.1")
    found = storm(send, REQUESTS // 16, unmatched)
    assert found[200] == BURST + PREFLIGHTS[send.native]
    assert len(gateway.store) == 1  # paths make no buckets


@ADAPTERS
def test_forwarded_fields_in_front_of_the_trusted_one_change_nothing(adapter):
    gateway = frozen(client_throttle=Rate(BURST), trusted_hops=1)
    send = adapter(gateway)
    draw = Draw(SEED)
    statuses: Counter[int] = Counter()
    for number in range(REQUESTS // 16):
        claimed = draw.of(FORWARDED) if not draw.one_in(4) else draw.noise(60)
        chain = f"{claimed}, 203.0.113.9"  # the last is what the proxy of one's own wrote
        if isinstance(send, Wsgi):
            native = {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": "/",
                "REMOTE_ADDR": "10.0.0.1",
                "HTTP_X_FORWARDED_FOR": latin(chain),
            }
        else:
            pairs = [(b"x-forwarded-for", part.encode()) for part in (claimed, "203.0.113.9")]
            native = {"type": "http", "method": "GET", "path": "/", "headers": pairs, "client": ("10.0.0.1", 1)}
        status = send(native)
        assert status in (200, 429), f"seed {SEED}, request {number}: {claimed!r}"
        statuses[status] += 1
    assert statuses[200] == BURST


def test_a_flood_of_strangers_lets_nobody_in_who_was_refused():
    gateway = frozen(client_throttle=Rate(1), store="memory://?max_keys=200")
    send = Wsgi(gateway)

    def ask(peer: str) -> int:
        return send({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": peer})

    refused = [f"198.51.100.{number}" for number in range(100)]
    assert [ask(peer) for peer in refused] == [200] * 100
    for number in range(5_000):
        ask(f"203.0.{number >> 8}.{number & 255}")
    assert {ask(peer) for peer in refused} == {429}


def test_both_ways_in_give_the_same_answers():
    """The same well-formed requests, by thread and by task: status by status."""
    draw = Draw(SEED)
    settings = {
        "client_throttle": Rate(20),
        "methods": {f"GET {LIMITED}": Method(throttle=Rate(BURST)), "* /café": Method(cost=2), "/{proxy+}": Method()},
    }
    by_thread, by_task = Wsgi(frozen(**settings)), Asgi(frozen(**settings))
    for number in range(5_000):
        verb, path, peer = draw.of(VERBS[:5]), draw.path(), draw.of(ADDRESSES)
        if not path.startswith("/"):
            continue  # the app behind WSGI may route it as if it did, and so it is matched
        one = by_thread({"REQUEST_METHOD": verb, "PATH_INFO": latin(path), "REMOTE_ADDR": peer})
        other = by_task({"type": "http", "method": verb, "path": path, "headers": [], "client": (peer, 1)})
        assert one == other, f"seed {SEED}, request {number}: {verb} {path!r} from {peer!r}"


def test_a_hundred_thousand_requests_are_sent():
    by_adapter = len(GATEWAYS) * SHARE + 2 * (REQUESTS // 8) + 2 * (REQUESTS // 16)
    alone = 2 * 5_000 + 5_200
    assert 2 * by_adapter + alone >= REQUESTS
