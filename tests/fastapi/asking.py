"""Requests and handshakes put to an app as a server would put them, with every byte of the path in our hands."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from apigate import Gateway
from apigate.fastapi import GatewayMiddleware
from apigate.testing import FakeClock

ADDRESS = "192.0.2.1"


@dataclass
class Answer:
    """What came back.

    Attributes:
        status: The status; of a handshake 101 where it was accepted, and the close code where it was closed before.
        headers: By lower-case name; the last of several.
        body: The whole body.
        error: What the app raised into the server.
        starts: How often a response was started.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: BaseException | None = None
    starts: int = 0


def scope_of(
    kind: str,
    target: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    address: str = ADDRESS,
    root_path: str = "",
    extensions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    path, _, query = target.partition("?")
    scope: dict[str, Any] = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http",
        "path": root_path + unquote(path),
        "raw_path": (root_path + path).encode(),
        "query_string": query.encode(),
        "root_path": root_path,
        "headers": [(b"host", b"shop.example")]
        + [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": (address, 50_000),
        "server": ("shop.example", 80),
        "state": {},
        "extensions": dict(extensions or {}),
    }
    if headers and "host" in {name.lower() for name in headers}:
        del scope["headers"][0]
    if kind == "http":
        scope["method"] = method
    else:
        scope["scheme"] = "ws"
        scope["subprotocols"] = []
    return scope


async def asked(app: Any, scope: dict[str, Any], body: bytes = b"") -> Answer:
    """One request, served to its end."""
    answer = Answer()
    ended = asyncio.Event()
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.starts += 1
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in message.get("headers", ())}
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")
            if not message.get("more_body", False):
                ended.set()

    try:
        await app(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - as a server has it
        answer.error = error
    return answer


def ask(app: Any, target: str = "/", method: str = "GET", body: bytes = b"", **more: Any) -> Answer:
    """One request, in an event loop of its own."""
    return asyncio.run(asked(app, scope_of("http", target, method=method, **more), body))


def statuses(app: Any, times: int, target: str = "/", method: str = "GET", **more: Any) -> list[int]:
    """The same request several times."""
    return [ask(app, target, method, **more).status for _ in range(times)]


async def shaken(app: Any, scope: dict[str, Any]) -> Answer:
    """A websocket handshake, after which the client leaves."""
    answer = Answer()
    messages = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000, "reason": ""}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            answer.status = 101
        elif kind == "websocket.close" and not answer.status:
            answer.status = message.get("code", 1000)
        elif kind == "websocket.http.response.start":
            answer.starts += 1
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        elif kind == "websocket.http.response.body":
            answer.body += message["body"]

    try:
        await app(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - as a server has it
        answer.error = error
    return answer


def connect(app: Any, target: str = "/", **more: Any) -> Answer:
    """One websocket handshake, in an event loop of its own."""
    return asyncio.run(shaken(app, scope_of("websocket", target, **more)))


DENIAL = {"websocket.http.response": {}}
"""What a server offers that can answer a handshake with a response."""


def answer_to(app: Any, request: str, **more: Any) -> Answer:
    """One request such as `GET /pets`; `WS /chat` is a handshake."""
    verb, target = request.split(" ", 1)
    return connect(app, target, **more) if verb == "WS" else ask(app, target, verb, **more)


def statuses_of(app: Any, *requests: str, **more: Any) -> list[int]:
    """The statuses of several requests, one after the other."""
    return [answer_to(app, request, **more).status for request in requests]


def gateway(**settings: Any) -> Gateway:
    """A gateway whose time stands still."""
    return Gateway(**{"clock": FakeClock(), **settings})


def gated(app: Any, gate: Gateway, where: str = "last", **settings: Any) -> Any:
    """The app with its gate: as the middleware added last, or around the app as a whole."""
    if where == "wrapped":
        return GatewayMiddleware(app, gate, **settings)
    app.add_middleware(GatewayMiddleware, gateway=gate, **settings)
    return app


def calling(function: Any) -> Any:
    """An async function that calls it, and has nothing of its marks or routes."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return call
