"""The least that Python can do for each job: no checks, no options. Every budget is set against it.

Rule: correct for the one configuration it is written for, and nothing more. Whoever finds a faster
one puts it here, and every ratio gets harder. Rates are kept as the theoretical arrival time
(GCRA): one float a key.
"""

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import wraps
from threading import Lock
from time import monotonic
from typing import Any, TypeAlias

from apigate import Rate
from apigate.asgi import ASGIApp, Message, Receive, Scope, Send
from apigate.wsgi import Environ, ExcInfo, StartResponse, Write, WSGIApp

__all__ = [
    "NoOp",
    "NoOpSend",
    "NoOpStart",
    "NoOpWSGI",
    "address",
    "asgi_address",
    "asgi_gate",
    "one_bucket",
    "three_levels",
    "throttle",
    "throttle_async",
    "wsgi_gate",
]

Result: TypeAlias = tuple[bool, int, float]
"""Allowed, whole tokens left, seconds until the same would be allowed."""


def _spacing(rate: Rate) -> tuple[float, float]:
    """Seconds between two tokens, and seconds in which an empty bucket is full again."""
    interval = 1 / rate.per_second
    return interval, interval * rate.capacity / rate.p


def one_bucket(rate: Rate) -> Callable[[str], Result]:
    """One token bucket a key, with the full result."""
    interval, capacity = _spacing(rate)
    arrivals: dict[str, float] = {}
    lock = Lock()

    def acquire(key: str) -> Result:
        now = monotonic()
        with lock:
            arrival = arrivals.get(key, now)
            if arrival < now:
                arrival = now
            spare = capacity - interval - (arrival - now)
            if spare < 0:
                return False, 0, -spare
            arrivals[key] = arrival + interval
        return True, int(spare / interval), 0.0

    return acquire


def three_levels(rate: Rate) -> Callable[[str, str], tuple[bool, int, int, int, float]]:
    """A bucket for all, one a stage, one a client, all or nothing, with the full result of each."""
    interval, capacity = _spacing(rate)
    everyone = monotonic()
    stages: dict[str, float] = {}
    clients: dict[str, float] = {}
    lock = Lock()

    def acquire(stage: str, client: str) -> tuple[bool, int, int, int, float]:
        nonlocal everyone
        now = monotonic()
        with lock:
            first = everyone
            if first < now:
                first = now
            second = stages.get(stage, now)
            if second < now:
                second = now
            third = clients.get(client, now)
            if third < now:
                third = now
            left_1 = capacity - interval - (first - now)
            left_2 = capacity - interval - (second - now)
            left_3 = capacity - interval - (third - now)
            if left_1 < 0 or left_2 < 0 or left_3 < 0:
                return False, 0, 0, 0, -min(left_1, left_2, left_3)
            everyone = first + interval
            stages[stage] = second + interval
            clients[client] = third + interval
        return True, int(left_1 / interval), int(left_2 / interval), int(left_3 / interval), 0.0

    return acquire


class NoOp:
    """A middleware that does nothing, for ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class NoOpSend(NoOp):
    """A middleware that does nothing to every message of the response."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped(message: Message) -> None:
            await send(message)

        await self.app(scope, receive, wrapped)


class NoOpWSGI:
    """A middleware that does nothing, for WSGI."""

    def __init__(self, app: WSGIApp) -> None:
        self.app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return self.app(environ, start_response)


class NoOpStart(NoOpWSGI):
    """A middleware that does nothing to the start of the response."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def wrapped(status: str, fields: list[tuple[str, str]], exc_info: ExcInfo | None = None, /) -> Write:
            return start_response(status, fields, exc_info)

        return self.app(environ, wrapped)


def asgi_gate(app: ASGIApp, rate: Rate) -> ASGIApp:
    """One bucket a client address around an app, its three fields in the response; else 429."""
    acquire = one_bucket(rate)
    limit_field = (b"ratelimit-limit", b"%d" % rate.count)
    refused = {"type": "http.response.body", "body": b"Too Many Requests"}

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        allowed, left, wait = acquire(scope["client"][0])
        if not allowed:
            fields = [
                (b"content-type", b"text/plain"),
                (b"content-length", b"17"),
                (b"retry-after", b"%d" % (wait + 1)),
            ]
            await send({"type": "http.response.start", "status": 429, "headers": fields})
            await send(refused)
            return

        async def with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += (
                    limit_field,
                    (b"ratelimit-remaining", b"%d" % left),
                    (b"ratelimit-reset", b"%d" % wait),
                )
            await send(message)

        await app(scope, receive, with_fields)

    return gate


def wsgi_gate(app: WSGIApp, rate: Rate) -> WSGIApp:
    """The same for WSGI."""
    acquire = one_bucket(rate)
    limit_field = ("RateLimit-Limit", str(rate.count))
    refused = (b"Too Many Requests",)

    def gate(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        allowed, left, wait = acquire(environ["REMOTE_ADDR"])
        if not allowed:
            fields = [
                ("Content-Type", "text/plain"),
                ("Content-Length", "17"),
                ("Retry-After", str(int(wait) + 1)),
            ]
            start_response("429 Too Many Requests", fields)
            return refused

        def with_fields(status: str, fields: list[tuple[str, str]], exc_info: ExcInfo | None = None, /) -> Write:
            fields += (
                limit_field,
                ("RateLimit-Remaining", str(left)),
                ("RateLimit-Reset", str(int(wait))),
            )
            return start_response(status, fields, exc_info)

        return app(environ, with_fields)

    return gate


address: ContextVar[str] = ContextVar("address")
"""The client's address, for functions that are not given the request."""


def asgi_address(app: ASGIApp) -> ASGIApp:
    """Make the client's address known to the endpoints within."""

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        if "client" in scope:
            address.set(scope["client"][0])
        await app(scope, receive, send)

    return known


def _raise() -> None:
    raise RuntimeError("throttled")


def throttle(
    rate: Rate, key: Callable[..., str], refuse: Callable[[], Any] = _raise
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Take from a bucket before each call of any function; when it is empty, answer in its place."""
    acquire = one_bucket(rate)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not acquire(key(*args, **kwargs))[0]:
                return refuse()
            return function(*args, **kwargs)

        return wrapper

    return decorate


def throttle_async(
    rate: Rate, key: Callable[..., str], refuse: Callable[[], Any] = _raise
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The same for coroutine functions."""
    acquire = one_bucket(rate)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not acquire(key(*args, **kwargs))[0]:
                return refuse()
            return await function(*args, **kwargs)

        return wrapper

    return decorate
