"""Frameworks, whose own request is a yardstick, and the limiters made for them. All are optional.

Rule: one trivial endpoint that makes its own response, for that is the cheapest way; the limiter as
its documentation shows it, with one rate for the client's address.
"""

from importlib import import_module
from typing import Any

from benchmarks.drive import asgi_batch, wsgi_batch
from benchmarks.measure import Batch

__all__ = [
    "fastapi",
    "fastapi_app",
    "flask",
    "flask_app",
    "flask_limiter",
    "slowapi_decorator",
    "slowapi_middleware",
]

NEVER = "1000000 per second"
ONCE = "1 per day"


def fastapi_app() -> Any:
    """FastAPI with one endpoint."""
    app = import_module("fastapi").FastAPI()
    response = import_module("fastapi.responses").PlainTextResponse

    async def pets() -> Any:
        return response("[]")

    app.get("/pets")(pets)
    return app


def fastapi() -> Batch:
    """FastAPI's own request."""
    return asgi_batch(fastapi_app())


def slowapi_decorator(*, refuse: bool = False) -> Batch:
    """Slowapi's decorator: its leanest way, without header fields."""
    app = import_module("fastapi").FastAPI()
    response = import_module("fastapi.responses").PlainTextResponse
    slowapi = import_module("slowapi")
    app.state.limiter = slowapi.Limiter(key_func=import_module("slowapi.util").get_remote_address)
    handler = slowapi._rate_limit_exceeded_handler  # noqa: SLF001 - its documentation imports it so
    app.add_exception_handler(import_module("slowapi.errors").RateLimitExceeded, handler)

    async def pets(request: Any) -> Any:
        return response("[]")

    pets.__annotations__["request"] = import_module("starlette.requests").Request
    app.get("/pets")(app.state.limiter.limit(ONCE if refuse else NEVER)(pets))
    return asgi_batch(app, after=1, status=429 if refuse else 200)


def slowapi_middleware(*, refuse: bool = False) -> Batch:
    """Slowapi's pure ASGI middleware with header fields."""
    app = fastapi_app()
    slowapi = import_module("slowapi")
    app.state.limiter = slowapi.Limiter(
        key_func=import_module("slowapi.util").get_remote_address,
        default_limits=[ONCE if refuse else NEVER],
        headers_enabled=True,
    )
    app.add_middleware(import_module("slowapi.middleware").SlowAPIASGIMiddleware)
    return asgi_batch(app, after=1, status=429 if refuse else 200, field="x-ratelimit-limit")


def flask_app() -> Any:
    """Flask with one endpoint."""
    app = import_module("flask").Flask("benchmark")

    def pets() -> Any:
        return "[]"

    app.get("/pets")(pets)
    return app


def flask() -> Batch:
    """Flask's own request."""
    return wsgi_batch(flask_app())


def flask_limiter(*, refuse: bool = False, fields: bool = True) -> Batch:
    """Flask-Limiter with one default limit."""
    app = flask_app()
    import_module("flask_limiter").Limiter(
        import_module("flask_limiter.util").get_remote_address,
        app=app,
        default_limits=[ONCE if refuse else NEVER],
        headers_enabled=fields,
        storage_uri="memory://",
    )
    return wsgi_batch(app, after=1, status=429 if refuse else 200, field="x-ratelimit-limit" if fields else "")
