"""A gateway with a cache around an app that answers as it is told to: one and the same through ASGI and WSGI."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from apigate import CachePolicy, Gateway, Method, ResponseCache, asgi, asgi_exchange, wsgi
from apigate.core.policy import Phase
from apigate.testing import FakeClock

Lines = Sequence[tuple[str, str]]
KINDS = ("asgi", "wsgi")


class Seen(NamedTuple):
    """A request as the app got it."""

    method: str
    path: str
    query: str
    fields: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """What the app answers; `fails` is raised after that many chunks."""

    status: int = 200
    fields: Lines = ()
    chunks: Iterable[bytes] = (b"body",)
    fails: BaseException | None = None
    ends: bool = True


class Got(NamedTuple):
    """What the client gets."""

    status: int
    lines: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key.lower() == name.lower()]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def hit(self) -> bool:
        return any("; hit" in value for value in self.all("cache-status"))

    @property
    def stored(self) -> bool:
        return any("; stored" in value for value in self.all("cache-status"))


class Broken(Exception):
    """What an app raises."""


class Principal:
    """An authorizer: `authorization: Bearer <name>` is believed; claims as `x-claims: name=value` says."""

    phase = Phase.AUTHORIZE

    def on_request(self, context: Any) -> None:
        sent = context.request.headers.get("authorization") or ""
        if sent.startswith("Bearer "):
            context.principal = sent.removeprefix("Bearer ")
        claims = context.request.headers.get("x-claims")
        if claims:
            name, _, value = claims.partition("=")
            context.claims = {name: value}


App = Callable[[Seen], Reply]


class World:
    """One app behind one gateway, and its clients."""

    def __init__(
        self,
        kind: str,
        app: App | None = None,
        policy: CachePolicy | None = None,
        *,
        methods: Any = None,
        policies: Any = (),
        clock: Any = None,
        cache: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.kind = kind
        self.clock = clock or FakeClock()
        self.cache = ResponseCache(**(cache or {}))
        self.respond: App = app or (lambda _: Reply())
        self.seen: list[Seen] = []
        if methods is None:
            methods = {"*": Method(cache=policy or CachePolicy())}
        settings = {"name": "shop", **settings}
        self.gateway = Gateway(cache=self.cache, methods=methods, clock=self.clock, policies=policies, **settings)
        self.wrapped = self.around(self.gateway)
        self.loop = asyncio.new_event_loop() if kind == "asgi" else None

    def around(self, gateway: Gateway) -> Any:
        if self.kind == "asgi":
            return asgi.GatewayMiddleware(self._asgi_app, gateway)
        return wsgi.GatewayMiddleware(self._wsgi_app, gateway)

    def close(self) -> None:
        if self.loop is not None:
            self.loop.run_until_complete(asgi_exchange.stop_refreshing())
            self.loop.close()

    # ---- the app

    @property
    def calls(self) -> int:
        return len(self.seen)

    async def _asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        fields: dict[str, str] = {}
        for name, value in scope["headers"]:
            fields[name.decode("latin-1")] = value.decode("latin-1")
        seen = Seen(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), fields, body)
        self.seen.append(seen)
        reply = self.respond(seen)
        if reply.fails is not None and not reply.chunks:
            raise reply.fails
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.fields]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        for chunk in reply.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if reply.fails is not None:
            raise reply.fails
        if reply.ends:
            await send({"type": "http.response.body", "body": b""})

    def _wsgi_app(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        fields = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key[:5] == "HTTP_"}
        for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if environ.get(key):
                fields[key.replace("_", "-").lower()] = environ[key]
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        seen = Seen(environ["REQUEST_METHOD"], path, environ["QUERY_STRING"], fields, body)
        self.seen.append(seen)
        reply = self.respond(seen)
        if reply.fails is not None and not reply.chunks:
            raise reply.fails
        start_response(f"{reply.status} Whatever", list(reply.fields))
        return _Chunks(reply)

    # ---- clients

    def ask(self, target: str = "/", method: str = "GET", body: bytes = b"", fields: Lines = (), **more: str) -> Got:
        """Send a request and read the response to its end.

        Args:
            target: Path and query as they are sent.
            method: The verb.
            body: The content.
            fields: Field lines.
            more: Field lines too; an underscore stands for a hyphen.
        """
        lines = [*fields, *[(name.replace("_", "-"), value) for name, value in more.items()]]
        if all(name.lower() != "host" for name, _ in lines):
            lines.insert(0, ("host", "shop.example"))
        if body:
            lines.append(("content-length", str(len(body))))
        if self.loop is not None:
            return self.loop.run_until_complete(self.ask_in_task(target, method, body, lines))
        return self._ask_wsgi(target, method, body, lines)

    def scope(self, target: str, method: str, lines: Lines) -> dict[str, Any]:
        raw, _, query = target.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw, errors="replace"),
            "raw_path": raw.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in lines],
            "client": ("192.0.2.1", 50_000),
            "server": ("shop.example", 80),
        }

    async def ask_in_task(self, target: str, method: str, body: bytes, lines: Lines) -> Got:
        sent: list[Any] = []
        inbox = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if inbox:
                return inbox.pop()
            return await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            sent.append(message)

        await self.wrapped(self.scope(target, method, lines), receive, send)
        for _ in range(20):
            if not asgi_exchange._refreshes.running:
                break
            await asyncio.sleep(0)
        starts = [message for message in sent if message["type"] == "http.response.start"]
        assert len(starts) == 1, sent
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in starts[0]["headers"]]
        content = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
        return Got(starts[0]["status"], headers, b"" if method == "HEAD" else content)

    def environ(self, target: str, method: str, body: bytes, lines: Lines) -> dict[str, Any]:
        raw, _, query = target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(raw.encode("latin-1")).decode("latin-1"),
            "RAW_URI": target,
            "QUERY_STRING": query,
            "REMOTE_ADDR": "192.0.2.1",
            "SERVER_NAME": "shop.example",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body),
            "wsgi.errors": BytesIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in lines:
            key = name.upper().replace("-", "_")
            key = key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ

    def _ask_wsgi(self, target: str, method: str, body: bytes, lines: Lines) -> Got:
        begun: list[Any] = []
        written: list[bytes] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            if exc_info is not None:
                begun.clear()
            assert not begun
            begun.append((int(status[:3]), list(headers)))
            return written.append

        chunks = self.wrapped(self.environ(target, method, body, lines), start_response)
        try:
            content = b"".join([*chunks])
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        for thread in threading.enumerate():
            if thread.name == "apigate refresh":
                thread.join(10)
        content = b"".join(written) + content
        return Got(begun[0][0], begun[0][1], b"" if method == "HEAD" else content)


class _Chunks:
    """An iterable of an app, which ends or fails as the reply says."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def __iter__(self) -> Any:
        yield from self._reply.chunks
        if self._reply.fails is not None:
            raise self._reply.fails
        if not self._reply.ends:
            raise GeneratorExit  # the server stopped asking


def numbered(*fields: tuple[str, str], status: int = 200) -> App:
    """An app whose n-th answer is `n`."""
    count = iter(range(1, 1_000_000))
    return lambda _: Reply(status, fields, (str(next(count)).encode(),))


def cached(*more: tuple[str, str], seconds: int = 60) -> list[tuple[str, str]]:
    """Fields of a response that may be shared."""
    return [("Cache-Control", f"max-age={seconds}"), *more]
