"""The smallest apps that answer, bare and behind gates: what a gate costs where nothing hides it."""

from typing import Any

from apigate import Gateway, Method, Rate, asgi, wsgi
from apigate.asgi import ASGIApp, Message, Receive, Scope, Send
from apigate.wsgi import Environ, StartResponse, WSGIApp
from benchmarks import floors
from benchmarks.throttling import FAST, SLOW

__all__ = [
    "asgi_apigate",
    "asgi_base_http",
    "asgi_floor",
    "asgi_limits",
    "bare_asgi",
    "gateway",
    "raw_asgi",
    "raw_wsgi",
    "wsgi_apigate",
    "wsgi_floor",
]

BODY = b'{"pets": []}'


def gateway(client: Rate = FAST, **settings: Any) -> Gateway:
    """Three levels: the gateway, the method, the client."""
    methods = {"*": Method(throttle=FAST), "GET /pets": Method(), "GET /pets/{id}": Method()}
    return Gateway(throttle=FAST, client_throttle=client, methods=methods, **settings)


async def raw_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """The smallest ASGI app that answers."""
    fields = [(b"content-type", b"application/json"), (b"content-length", b"12")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": BODY})


def raw_wsgi(environ: Environ, start_response: StartResponse) -> tuple[bytes, ...]:
    """The smallest WSGI app that answers."""
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", "12")])
    return (BODY,)


def bare_asgi() -> ASGIApp:
    """No gate at all."""
    return raw_asgi


def asgi_floor(*, refuse: bool = False) -> ASGIApp:
    """The floor's gate: one bucket a client."""
    return floors.asgi_gate(raw_asgi, SLOW if refuse else FAST)


def asgi_apigate(*, refuse: bool = False, **settings: Any) -> ASGIApp:
    """Three levels and header fields."""
    return asgi.GatewayMiddleware(raw_asgi, gateway(SLOW if refuse else FAST, **settings))


def wsgi_floor(*, refuse: bool = False) -> WSGIApp:
    """The floor's gate: one bucket a client."""
    return floors.wsgi_gate(raw_wsgi, SLOW if refuse else FAST)


def wsgi_apigate(*, refuse: bool = False, **settings: Any) -> WSGIApp:
    """Three levels and header fields."""
    return wsgi.GatewayMiddleware(raw_wsgi, gateway(SLOW if refuse else FAST, **settings))


def asgi_limits(*, refuse: bool = False) -> ASGIApp:
    """As thin a gate as can be written on `limits`: one hit, and the numbers for its fields."""
    import limits

    limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    item = limits.RateLimitItemPerDay(1) if refuse else limits.RateLimitItemPerSecond(1_000_000)
    limit_field = (b"ratelimit-limit", b"%d" % item.amount)

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        address = scope["client"][0]
        allowed = limiter.hit(item, address)
        reset, left = limiter.get_window_stats(item, address)
        fields = (limit_field, (b"ratelimit-remaining", b"%d" % left), (b"ratelimit-reset", b"%d" % reset))
        if not allowed:
            plain = [(b"content-type", b"text/plain"), (b"content-length", b"17")]
            await send({"type": "http.response.start", "status": 429, "headers": [*plain, *fields]})
            await send({"type": "http.response.body", "body": b"Too Many Requests"})
            return

        async def with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += fields
            await send(message)

        await raw_asgi(scope, receive, with_fields)

    return gate


def asgi_base_http() -> ASGIApp:
    """Starlette's base class of middleware, doing nothing: what all built on it pay."""
    from starlette.middleware.base import BaseHTTPMiddleware

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    return BaseHTTPMiddleware(raw_asgi, pass_on)
