"""Requests to a gateway around an app that answers with what it is told to: by a thread (WSGI) or a task (ASGI)."""

import asyncio
from typing import Any, NamedTuple

from apigate import Gateway, asgi, wsgi
from apigate.core.context import RequestContext
from apigate.testing import FakeClock


class Answer(NamedTuple):
    """What the client gets; and the context that the app found, if it was called."""

    status: int
    fields: dict[str, str]
    body: bytes
    context: RequestContext | None


def built(**settings: Any) -> Gateway:
    """A gateway whose clock stands still, and whose clients say who they are in `x-client`."""
    client = {"client": lambda asked: asked.headers.get("x-client")}
    return Gateway(**{"clock": FakeClock(), **client, **settings})


class Open:
    """A request that was sent by a thread; its response has begun, and ends with `close`."""

    def __init__(
        self,
        gateway: Gateway,
        asked: str = "GET /",
        status: int = 200,
        *,
        stage: str | None = None,
        peer: str | None = "192.0.2.1",
        **fields: str,
    ) -> None:
        verb, _, target = asked.partition(" ")
        path, _, query = target.partition("?")
        self.environ: dict[str, Any] = {
            "REQUEST_METHOD": verb,
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": query,
            "REMOTE_ADDR": peer,
            **{f"HTTP_{name.upper()}": value for name, value in fields.items()},
        }
        self._app_status = status
        self.body = wsgi.GatewayMiddleware(self._app, gateway, stage=stage)(self.environ, self._start)

    def _app(self, environ: Any, start_response: Any) -> Any:
        start_response(f"{self._app_status} Whatever", [])
        return [b"app"]

    def _start(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        self.status = int(status[:3])
        self.fields = {name.lower(): value for name, value in headers}
        assert len(self.fields) == len(headers)

    def close(self) -> Answer:
        body = b"".join(self.body)
        if hasattr(self.body, "close"):
            self.body.close()
        return Answer(self.status, self.fields, body, self.environ.get("apigate.context"))


def ask(gateway: Gateway, asked: str = "GET /", status: int = 200, **given: Any) -> Answer:
    """Send a request, whose app answers with this status, and read the response to its end."""
    return Open(gateway, asked, status, **given).close()


def ask_in_task(gateway: Gateway, asked: str = "GET /", status: int = 200, **given: Any) -> Answer:
    """The same from a task."""
    return asyncio.run(task_asks(gateway, asked, status, **given))


async def task_asks(
    gateway: Gateway,
    asked: str = "GET /",
    status: int = 200,
    *,
    stage: str | None = None,
    peer: str | None = "192.0.2.1",
    **fields: str,
) -> Answer:
    """The same for tasks."""
    verb, _, target = asked.partition(" ")
    path, _, query = target.partition("?")
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": verb,
        "path": path,
        "query_string": query.encode(),
        "client": (peer, 50_000) if peer else None,
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in fields.items()],
    }

    found = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(scope.get("apigate"))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"app"})

    async def receive() -> Any:
        raise AssertionError("nobody asked for this")

    async def send(message: Any) -> None:
        sent.append(message)

    await asgi.GatewayMiddleware(app, gateway, stage=stage)(scope, receive, send)
    start, body = sent
    headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    assert len(headers) == len(start["headers"])
    return Answer(start["status"], headers, body["body"], found[0] if found else None)


def statuses(gateway: Gateway, *asked: str, **given: Any) -> list[int]:
    return [ask(gateway, each, **given).status for each in asked]


def admitted(gateway: Gateway, asked: str = "GET /", most: int = 50, **given: Any) -> int:
    """How many such requests are admitted in a row."""
    for number in range(most):
        if ask(gateway, asked, **given).status != 200:
            return number
    return most


def held(gateway: Gateway) -> int:
    return sum(sum(slots.held.values()) for slots in gateway._compiler._slots.values())
