"""Answers that pass where the cache does not see them, as files and trailers: not kept, and nobody waits for them."""

import asyncio
import threading
from wsgiref.util import FileWrapper

import pytest

from apigate import CachePolicy, Gateway, Method, ResponseCache, asgi, asgi_exchange, wsgi
from apigate.testing import FakeClock
from tests.caching.crowds import DEADLINE, Ask, House, until, until_async
from tests.flights import under_way

POLICY = CachePolicy(wait=2 * DEADLINE, stale_if_error=100)
KEPT = [(b"cache-control", b"max-age=10")]


def asgi_gate(app, clock):
    gateway = Gateway(cache=ResponseCache(), methods={"*": Method(cache=POLICY)}, clock=clock)
    return gateway, asgi.GatewayMiddleware(app, gateway)


async def asked(gate, method="GET"):
    """The messages that a client is sent."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "scheme": "http", "path": "/a", "query_string": b"", "headers": []}
    await gate(scope, receive, send)
    return sent


@pytest.mark.parametrize("kind", ["http.response.pathsend", "http.response.zerocopysend"])
def test_clients_do_not_queue_for_files_by_asgi(kind):
    runs = 0

    async def app(scope, receive, send):
        nonlocal runs
        runs += 1
        await send({"type": "http.response.start", "status": 200, "headers": KEPT})
        await send({"type": kind, "path": "/tmp/a", "more_body": False})
        await until_async(lambda: runs >= 20)

    async def scenario():
        _, gate = asgi_gate(app, FakeClock())
        async with asyncio.timeout(DEADLINE):
            return await asyncio.gather(*[asked(gate) for _ in range(20)])

    assert [[message["type"] for message in sent] for sent in asyncio.run(scenario())] == [
        ["http.response.start", kind]
    ] * 20
    assert runs == 20


def test_an_answer_with_trailers_goes_through_though_a_stale_one_is_stored():
    clock = FakeClock()
    with_trailers = False

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": KEPT, "trailers": with_trailers})
        await send({"type": "http.response.body", "body": b"new" if with_trailers else b"old"})
        if with_trailers:
            await send({"type": "http.response.trailers", "headers": [(b"a", b"b")]})

    _, gate = asgi_gate(app, clock)
    asyncio.run(asked(gate))
    clock.advance(20)
    with_trailers = True
    sent = asyncio.run(asked(gate))
    assert [message["type"] for message in sent] == [
        "http.response.start",
        "http.response.body",
        "http.response.trailers",
    ]
    assert sent[1]["body"] == b"new"


def test_an_unsafe_request_whose_answer_has_trailers_invalidates():
    runs = []

    async def app(scope, receive, send):
        runs.append(scope["method"])
        trailers = scope["method"] == "POST"
        await send({"type": "http.response.start", "status": 200, "headers": KEPT, "trailers": trailers})
        await send({"type": "http.response.body", "body": b"a"})
        if trailers:
            await send({"type": "http.response.trailers", "headers": []})

    _, gate = asgi_gate(app, FakeClock())
    for method in ("GET", "POST", "GET"):
        asyncio.run(asked(gate, method))
    assert runs == ["GET", "POST", "GET"]


# ---- WSGI


class SentFile(FileWrapper):
    """What a server sends by itself."""


def file_house(tmp_path, clock, status, runs):
    path = tmp_path / "a"
    path.write_bytes(b"file")

    def app(environ, start_response):
        runs.append(environ["PATH_INFO"])
        if len(runs) == 1 and status != "200 OK":
            start_response("200 OK", [("Cache-Control", "max-age=10")])
            return [b"old"]
        start_response(status, [("Cache-Control", "max-age=10")])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    gateway = Gateway(cache=ResponseCache(), methods={"*": Method(cache=POLICY)}, clock=clock)
    return gateway, wsgi.GatewayMiddleware(app, gateway)


def environ_of(ask):
    return House().environ(ask, **{"wsgi.file_wrapper": SentFile})


def test_who_waits_for_a_file_goes_on_when_it_begins_by_wsgi(tmp_path):
    runs = []
    gateway, gate = file_house(tmp_path, FakeClock(), "200 OK", runs)
    began, is_free = threading.Event(), threading.Event()
    app = gate.app

    def slow(environ, start_response):
        if not runs:
            began.set()
            is_free.wait(DEADLINE)
        return app(environ, start_response)

    gate.app = slow
    bodies = []

    def visit():
        bodies.append(gate(environ_of(Ask()), lambda *_: None))

    threads = [threading.Thread(target=visit) for _ in range(5)]
    for thread in threads:
        thread.start()
    cache = gateway.stage().cache
    began.wait(DEADLINE)
    until(lambda: sum(len(flight.waiting) for flight in list(cache.flights._board.flights.values())) == 4)
    is_free.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(runs) == 5
    assert all(isinstance(body, SentFile) for body in bodies)
    assert under_way(cache.flights) == 0
    for body in bodies:
        body.filelike.close()


def test_an_error_page_from_a_file_is_replaced_by_the_stale_answer(tmp_path):
    runs, clock = [], FakeClock()
    _, gate = file_house(tmp_path, clock, "503 Service Unavailable", runs)
    heads = []

    def begin(status, headers, exc_info=None):
        heads.append(status)

    def visit():
        body = gate(environ_of(Ask()), begin)
        content = b"".join(body)
        getattr(body, "close", lambda: None)()
        return content

    assert visit() == b"old"
    clock.advance(20)
    assert visit() == b"old"
    assert heads == ["200 OK", "200 OK"]
    assert len(runs) == 2


def test_an_app_is_told_at_once_that_its_client_has_left_where_many_have(monkeypatch):
    """It goes on for others, but clients that leave may not have any number of calls live on."""
    monkeypatch.setattr(asgi_exchange, "_MOST_DESERTED", 0)
    monkeypatch.setattr(asgi_exchange, "_PATIENCE", 10 * DEADLINE)
    heard = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": KEPT})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        heard.append((await receive())["type"])

    async def scenario():
        gateway, gate = asgi_gate(app, FakeClock())

        async def receive():
            return {"type": "http.disconnect"}

        async def send(_):
            """Nobody hears it."""

        scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/a", "query_string": b"", "headers": []}
        async with asyncio.timeout(DEADLINE):
            await gate(scope, receive, send)
        return gateway.stage().cache.stats()["entries"]

    assert asyncio.run(scenario()) == 0
    assert heard == ["http.disconnect"]
