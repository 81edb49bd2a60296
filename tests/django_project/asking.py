"""How tests ask a Django project: in words, through the handlers that a server is given."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from types import ModuleType
from typing import Any
from urllib.parse import unquote, unquote_to_bytes
from wsgiref.util import setup_testing_defaults

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings

from apigate import Gateway
from apigate.testing import FakeClock

GATE = "apigate.django.GatewayMiddleware"
HANDLERS = {"wsgi": WSGIHandler, "asgi": ASGIHandler}


def gateway(**settings: Any) -> Gateway:
    """A gateway whose time stands still."""
    return Gateway(**{"clock": FakeClock(), **settings})


def hello(request: Any, **_: Any) -> HttpResponse:
    """A view."""
    return HttpResponse("hello")


async def ahello(request: Any, **_: Any) -> HttpResponse:
    """A view for tasks."""
    return HttpResponse("hello")


class Answer:
    """A response, whole."""

    def __init__(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def left(self) -> dict[str, int]:
        """What the RateLimit field says is left, by limit."""
        items = [item.split(";") for item in self.headers.get("ratelimit", "").split(", ") if item]
        return {name.strip('"'): int(rest.removeprefix("r=")) for name, rest, *_ in items}


def ask(app: Any, request: str, headers: Mapping[str, str] | None = None, address: str = "192.0.2.1") -> Answer:
    """One request such as `GET /pets?kind=dog`; the target goes out as it is written."""
    verb, target = request.split(" ", 1)
    send = ask_wsgi if getattr(app, "is_wsgi", isinstance(app, WSGIHandler)) else ask_asgi
    return send(app, verb, target, headers or {}, address)


def ask_wsgi(app: Any, verb: str, target: str, headers: Mapping[str, str], address: str) -> Answer:
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": verb,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "REMOTE_ADDR": address,
        "wsgi.input": BytesIO(),
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
    }
    setup_testing_defaults(environ)
    begun: list[Any] = []
    body = app(environ, lambda *head: begun.append(head))
    try:
        content = b"".join(body)
    finally:
        getattr(body, "close", lambda: None)()
    status, fields = begun[-1][:2]
    return Answer(int(status[:3]), fields, content)


def ask_asgi(app: Any, verb: str, target: str, headers: Mapping[str, str], address: str) -> Answer:
    return asyncio.run(exchanged(app, verb, target, headers, address))


async def exchanged(
    app: Any,
    verb: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    address: str = "192.0.2.1",
    leaves: asyncio.Event | None = None,
) -> Answer:
    """One request; the client leaves when it has the response, or before, when it is told to."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": verb,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": (address, 40000),
        "server": ("shop.example", 80),
    }
    left = leaves or asyncio.Event()
    sent: list[Any] = []
    waiting = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if waiting:
            return waiting.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            left.set()

    await app(scope, receive, send)
    if not sent:
        return Answer(0, [], b"")
    fields = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
    return Answer(sent[0]["status"], fields, b"".join(message.get("body", b"") for message in sent[1:]))


def statuses(app: Any, *requests: str, headers: Mapping[str, str] | None = None) -> list[int]:
    """The statuses of several requests, one after the other."""
    return [ask(app, request, headers).status for request in requests]


def urlconf(patterns: Sequence[Any], **handlers: Any) -> ModuleType:
    """A URL configuration."""
    module = ModuleType("made_urls")
    vars(module).update(urlpatterns=list(patterns), **handlers)
    return module


@contextmanager
def project(
    via: str,
    patterns: Sequence[Any] | ModuleType,
    gate: Gateway | Mapping[str, Any] | None,
    *,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    **settings: Any,
) -> Iterator[Any]:
    """The handler of a project, with the gate among its middleware; None for one without."""
    urls = patterns if isinstance(patterns, ModuleType) else urlconf(patterns)
    table = {"GATEWAY": gate} if isinstance(gate, Gateway) else gate
    middleware = [*before, *([] if gate is None else [GATE]), *after]
    with override_settings(ROOT_URLCONF=urls, APIGATE=table, MIDDLEWARE=middleware, **settings):
        yield HANDLERS[via]()


@contextmanager
def module(name: str, **content: Any) -> Iterator[str]:
    """A module that can be imported under a name."""
    made = ModuleType(name)
    vars(made).update(content)
    sys.modules[name] = made
    try:
        yield name
    finally:
        del sys.modules[name]


def counted(gate: Gateway, kind: str = "admitted") -> int:
    """How many requests of a kind there were."""
    return sum(kinds.get(kind, 0) for methods in gate.stats().values() for kinds in methods.values())


def changing(change: Callable[[Any], object]) -> Callable[[Any], Any]:
    """A sync-only middleware that does something to each request."""

    def middleware(get_response: Any) -> Any:
        def serve(request: Any) -> Any:
            change(request)
            return get_response(request)

        return serve

    return middleware
