"""One app in both protocols, without a framework; `flask_app`, `fastapi_app` and `django_app` do the same at home.

`x-do` says what it does, so that the path is left to the gateway's method table.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from io import FileIO
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

from apigate import Rate, Throttle, Throttled

OWN_FIELDS = [("x-app", "yes"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]
CHUNKS = [b"one", b"two", b"three"]
PIECE = b"x" * 65_536
DEADLINE = 60.0

Mark: TypeAlias = Callable[[Any], Any]
"""A decorator of an endpoint."""


def unmarked(endpoint: Any) -> Any:
    """The endpoint as it is."""
    return endpoint


class Ledger:
    """How often the app was called, and how often its body was closed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts = {"calls": 0, "closed": 0}

    def add(self, kind: str) -> None:
        with self._lock:
            self._counts[kind] += 1

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)


def throttled() -> Throttled:
    """What the app's own throttle raises, when something further in is over its limit."""
    throttle = Throttle({"global": Rate(1, per=30)})
    throttle.acquire()
    return Throttled(throttle.acquire())


def described(context: Any, native: dict[str, Any]) -> bytes:
    """What the app sees of the gateway."""
    seen: dict[str, Any] = {"native": native, "context": None}
    if context is not None:
        levels = context.decision.levels if context.decision else {}
        seen["context"] = {
            "stage": context.stage,
            "method": context.method,
            "client": context.client,
            "principal": context.principal,
            "variables": dict(context.variables),
            "request_id": context.request_id,
            "remaining": {level: state.remaining for level, state in levels.items()},
        }
    return json.dumps(seen).encode()


# ---- ASGI


async def half_async(error: Exception) -> AsyncIterator[bytes]:
    yield b"half"
    raise error


async def turnstile_async(port: int) -> AsyncIterator[bytes]:
    """Three chunks; the second and the third only after the test has seen the one before and said so."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield CHUNKS[0]
        for chunk in CHUNKS[1:]:
            await reader.readexactly(1)
            yield chunk
    finally:
        writer.close()


async def pieces_async(ledger: Ledger) -> AsyncIterator[bytes]:
    """Goes on until it is closed."""
    try:
        while True:
            yield PIECE
            await asyncio.sleep(0)
    finally:
        ledger.add("closed")


def encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in fields]


async def answer(send: Any, status: int, body: bytes) -> None:
    content = [] if status in (204, 304) else [("content-type", "text/plain"), ("content-length", str(len(body)))]
    headers = encoded(content)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    asked = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    scope["test.ledger"].add("calls")
    acts = ASGI_ACTS if scope["type"] == "http" else WEBSOCKET_ACTS
    await acts[asked.get("x-do", "hello")](scope, receive, send, asked)


async def asgi_lifespan(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})


async def _hello(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    fields = [*OWN_FIELDS, ("content-type", "text/plain"), ("content-length", "5")]
    await send({"type": "http.response.start", "status": 200, "headers": encoded(fields)})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"hello"})


async def _echo(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            break
    await answer(send, 200, body)


async def _status(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    await answer(send, int(asked["x-status"]), b"")


async def _missing(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    await answer(send, 404, b"")


async def _context(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    native = {"path": scope["path"], "mount": scope.get("root_path", ""), "query": scope["query_string"].decode()}
    await answer(send, 200, described(scope.get("apigate"), native))


async def _raise(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    raise RuntimeError("the app is broken")


async def _raise_late(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError("the app broke down half-way")


async def _throttled(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    raise throttled()


async def _throttled_late(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise throttled()


async def _stream(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    kind = asked.get("x-type", "text/plain").encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    async for chunk in turnstile_async(int(asked["x-turnstile"])):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


async def _endless(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    """Sends until the client has gone."""
    while (await receive())["more_body"]:
        pass
    gone = asyncio.ensure_future(receive())
    try:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with suppress(OSError):
            while not gone.done():
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
                await asyncio.sleep(0)
    finally:
        scope["test.ledger"].add("closed")
        gone.cancel()


ASGI_ACTS: dict[str, Any] = {
    "hello": _hello,
    "echo": _echo,
    "status": _status,
    "missing": _missing,
    "context": _context,
    "raise": _raise,
    "raise-late": _raise_late,
    "throttled": _throttled,
    "throttled-late": _throttled_late,
    "stream": _stream,
    "endless": _endless,
}


# ---- websockets


async def _chat(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    """Says who is there, then gives every message back, until the client says goodbye."""
    assert (await receive())["type"] == "websocket.connect"
    subprotocol = scope["subprotocols"][-1] if scope.get("subprotocols") else None
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": [(b"x-app", b"yes")]})
    native = {"path": scope["path"], "mount": scope.get("root_path", ""), "query": scope["query_string"].decode()}
    await send({"type": "websocket.send", "text": described(scope.get("apigate"), native).decode()})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "raise":
            raise RuntimeError("the app is broken")
        if message.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4000, "reason": "bye"})
            return
        await send({**message, "type": "websocket.send"})


async def _throttled_once_connected(scope: Any, receive: Any, send: Any, asked: dict[str, str]) -> None:
    assert (await receive())["type"] == "websocket.connect"
    raise throttled()


WEBSOCKET_ACTS: dict[str, Any] = {
    "hello": _chat,
    "throttled": _throttled,
    "throttled-connected": _throttled_once_connected,
}


# ---- WSGI


class Body:
    """An iterable that knows how often it was closed."""

    def __init__(self, chunks: Iterable[bytes], on_close: Callable[[], None]) -> None:
        self._chunks = iter(chunks)
        self._on_close = on_close

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._on_close()


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    """`x-shape` says how the body is handed over: all that PEP 3333 allows."""
    environ["test.ledger"].add("calls")
    act = WSGI_ACTS[environ.get("HTTP_X_DO", "hello")]
    shape = environ.get("HTTP_X_SHAPE", "list")
    if shape == "late":  # a generator: nothing of the app has run when it is returned
        return Body(_late(act, environ, start_response), lambda: environ["test.ledger"].add("closed"))
    head, chunks = act(environ)
    write = start_response(*head)
    if shape == "as it is":
        return chunks
    if shape == "write":
        for chunk in chunks:
            write(chunk)
        chunks = ()
    return Body(chunks, lambda: environ["test.ledger"].add("closed"))


def _late(act: Any, environ: Any, start_response: Any) -> Iterator[bytes]:
    head, chunks = act(environ)
    start_response(*head)
    yield from chunks


def _full(status: str, body: bytes) -> tuple[Any, Iterable[bytes]]:
    content = [("content-type", "text/plain"), ("content-length", str(len(body)))]
    headers = [] if status[:3] in ("204", "304") else content
    return (status, headers), [body] if body else []


def _wsgi_hello(environ: Any) -> Any:
    fields = [*OWN_FIELDS, ("content-type", "text/plain"), ("content-length", "5")]
    return ("200 OK", fields), [] if environ["REQUEST_METHOD"] == "HEAD" else [b"hello"]


def _wsgi_echo(environ: Any) -> Any:
    return _full("200 OK", environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def _wsgi_status(environ: Any) -> Any:
    return _full(f"{environ['HTTP_X_STATUS']} Whatever", b"")


def _wsgi_context(environ: Any) -> Any:
    native = {
        "path": environ["PATH_INFO"].encode("latin-1").decode(),
        "mount": environ["SCRIPT_NAME"],
        "query": environ["QUERY_STRING"],
    }
    return _full("200 OK", described(environ.get("apigate.context"), native))


def _wsgi_raise(environ: Any) -> Any:
    raise RuntimeError("the app is broken")


def half(error: Exception) -> Iterator[bytes]:
    yield b"half"
    raise error


def _wsgi_raise_late(environ: Any) -> Any:
    return ("200 OK", [("content-length", "100")]), half(RuntimeError("the app broke down half-way"))


def _wsgi_throttled(environ: Any) -> Any:
    raise throttled()


def _wsgi_throttled_late(environ: Any) -> Any:
    return ("200 OK", [("content-length", "100")]), half(throttled())


def turnstile(environ: Any) -> Iterator[bytes]:
    """As `turnstile_async`."""
    with socket.create_connection(("127.0.0.1", int(environ["HTTP_X_TURNSTILE"])), timeout=DEADLINE) as turnstile:
        yield CHUNKS[0]
        for chunk in CHUNKS[1:]:
            assert turnstile.recv(1)
            yield chunk


def _wsgi_stream(environ: Any) -> Any:
    return ("200 OK", [("content-type", environ.get("HTTP_X_TYPE", "text/plain"))]), turnstile(environ)


def pieces(ledger: Ledger) -> Iterator[bytes]:
    """As `pieces_async`."""
    try:
        while True:
            yield PIECE
    finally:
        ledger.add("closed")


class OnlySendfile(FileIO):
    """A file that the kernel may send and nobody may read."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("the file was read instead of sent")


def _wsgi_file(environ: Any, kind: type[FileIO] = OnlySendfile) -> Any:
    path = environ["HTTP_X_FILE"]
    length = str(Path(path).stat().st_size)
    return ("200 OK", [("content-length", length)]), environ["wsgi.file_wrapper"](kind(path))


def _wsgi_endless(environ: Any) -> Any:
    return ("200 OK", []), chain.from_iterable(iter(lambda: [PIECE], None))


WSGI_ACTS: dict[str, Any] = {
    "hello": _wsgi_hello,
    "echo": _wsgi_echo,
    "status": _wsgi_status,
    "missing": lambda environ: _full("404 Not Found", b""),
    "context": _wsgi_context,
    "raise": _wsgi_raise,
    "raise-late": _wsgi_raise_late,
    "throttled": _wsgi_throttled,
    "throttled-late": _wsgi_throttled_late,
    "stream": _wsgi_stream,
    "endless": _wsgi_endless,
    "file": _wsgi_file,
    "file-read": lambda environ: _wsgi_file(environ, FileIO),
}
