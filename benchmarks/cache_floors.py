"""The least that Python can do to keep answers: a key, a lock, an LRU in which each entry has its time, Age.

Rule: as `floors`. It looks at the method, the path and the query only: it would hand one user's answer to
another, keep what must not be kept, and never asks the app whether an entry is still good.
"""

from collections.abc import Awaitable, Callable, Iterable
from threading import Lock
from time import monotonic
from typing import TypeAlias

from cachetools import LRUCache

from apigate import Rate
from apigate.asgi import ASGIApp, Message, Receive, Scope, Send
from apigate.wsgi import Environ, ExcInfo, StartResponse, Write, WSGIApp
from benchmarks import floors

__all__ = ["asgi_cache", "asgi_full_gate", "wsgi_cache", "wsgi_full_gate"]

ENTRIES = 100_000
BytesKey: TypeAlias = tuple[bytes, bytes]
TextKey: TypeAlias = tuple[str, str]
Messages: TypeAlias = "LRUCache[BytesKey, tuple[float, list[tuple[bytes, bytes]], Message]]"
"""By path and query: when it was stored, the fields, the message with the body."""
Bodies: TypeAlias = "LRUCache[TextKey, tuple[float, list[tuple[str, str]], tuple[bytes]]]"
"""The same for WSGI."""
Fill: TypeAlias = Callable[[BytesKey, float, Scope, Receive, Send], Awaitable[None]]


def asgi_cache(app: ASGIApp, ttl: float, entries: int = ENTRIES) -> ASGIApp:
    """Answers to GET, kept so long in front of an app."""
    kept: Messages = LRUCache(entries)
    lock = Lock()
    fill = _asgi_fill(app, kept, lock)

    async def cached(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await app(scope, receive, send)
            return
        key = scope["raw_path"], scope["query_string"]
        now = monotonic()
        with lock:
            entry = kept.get(key)
        if entry is None or now - entry[0] > ttl:
            await fill(key, now, scope, receive, send)
            return
        fields = [*entry[1], (b"age", b"%d" % (now - entry[0]))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send(entry[2])

    return cached


def asgi_full_gate(app: ASGIApp, rate: Rate, ttl: float) -> ASGIApp:
    """Three levels with the fields of the client's own, and answers that are kept behind them."""
    acquire = floors.three_levels(rate)
    limit_field = (b"ratelimit-limit", b"%d" % rate.count)
    kept: Messages = LRUCache(ENTRIES)
    lock = Lock()
    fill = _asgi_fill(app, kept, lock)

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        allowed, _, _, left, wait = acquire("prod", scope["client"][0])
        if not allowed or scope["method"] != "GET":
            raise NotImplementedError
        limits = limit_field, (b"ratelimit-remaining", b"%d" % left), (b"ratelimit-reset", b"%d" % wait)
        key = scope["raw_path"], scope["query_string"]
        now = monotonic()
        with lock:
            entry = kept.get(key)
        if entry is not None and now - entry[0] < ttl:
            fields = [*entry[1], (b"age", b"%d" % (now - entry[0])), *limits]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send(entry[2])
            return

        async def with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += limits
            await send(message)

        await fill(key, now, scope, receive, with_fields)

    return gate


def _asgi_fill(app: ASGIApp, kept: Messages, lock: Lock) -> Fill:
    """Send an answer of the app while it is put together, then keep it."""

    async def fill(key: BytesKey, now: float, scope: Scope, receive: Receive, send: Send) -> None:
        fields: list[tuple[bytes, bytes]] = []
        chunks: list[bytes] = []

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 200:
                    fields.extend(message["headers"])
            else:
                chunks.append(message.get("body", b""))
                if fields and not message.get("more_body"):
                    with lock:
                        kept[key] = now, fields, {"type": "http.response.body", "body": b"".join(chunks)}
            await send(message)

        await app(scope, receive, keep)

    return fill


def wsgi_cache(app: WSGIApp, ttl: float, entries: int = ENTRIES) -> WSGIApp:
    """The same for WSGI; a body is joined before it is sent."""
    kept: Bodies = LRUCache(entries)
    lock = Lock()

    def cached(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            return app(environ, start_response)
        key = environ["PATH_INFO"], environ["QUERY_STRING"]
        now = monotonic()
        with lock:
            entry = kept.get(key)
        if entry is None or now - entry[0] > ttl:
            return _wsgi_fill(app, kept, lock, key, now, environ, start_response)
        start_response("200 OK", [*entry[1], ("Age", str(int(now - entry[0])))])
        return entry[2]

    return cached


def wsgi_full_gate(app: WSGIApp, rate: Rate, ttl: float) -> WSGIApp:
    """The same for WSGI."""
    acquire = floors.three_levels(rate)
    limit_field = ("RateLimit-Limit", str(rate.count))
    kept: Bodies = LRUCache(ENTRIES)
    lock = Lock()

    def gate(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        allowed, _, _, left, wait = acquire("prod", environ["REMOTE_ADDR"])
        if not allowed or environ["REQUEST_METHOD"] != "GET":
            raise NotImplementedError
        limits = limit_field, ("RateLimit-Remaining", str(left)), ("RateLimit-Reset", str(int(wait)))
        key = environ["PATH_INFO"], environ["QUERY_STRING"]
        now = monotonic()
        with lock:
            entry = kept.get(key)
        if entry is not None and now - entry[0] < ttl:
            start_response("200 OK", [*entry[1], ("Age", str(int(now - entry[0]))), *limits])
            return entry[2]

        def with_fields(status: str, fields: list[tuple[str, str]], exc_info: ExcInfo | None = None, /) -> Write:
            return start_response(status, [*fields, *limits], exc_info)

        return _wsgi_fill(app, kept, lock, key, now, environ, with_fields)

    return gate


def _wsgi_fill(
    app: WSGIApp, kept: Bodies, lock: Lock, key: TextKey, now: float, environ: Environ, start_response: StartResponse
) -> tuple[bytes]:
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def keep(status: str, fields: list[tuple[str, str]], exc_info: ExcInfo | None = None, /) -> Write:
        started.append((status, fields))
        return start_response(status, fields, exc_info)

    chunks = app(environ, keep)
    body = (b"".join(chunks),)
    if hasattr(chunks, "close"):
        chunks.close()
    status, fields = started[-1]
    if status == "200 OK":
        with lock:
            kept[key] = now, fields, body
    return body
