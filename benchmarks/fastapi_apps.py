"""FastAPI and Starlette with one trivial endpoint: bare, behind apigate, behind the limiters made for them.

Rule: the endpoint makes its own response, for that is the cheapest way.
"""

from typing import Any

from apigate import Gateway, asgi
from benchmarks import floors
from benchmarks.raw_apps import gateway
from benchmarks.subjects import NEVER, ONCE, Subject
from benchmarks.throttling import FAST, SLOW

__all__ = ["ENDPOINTS", "GATES", "OWN", "PEERS"]


def fastapi(endpoint: Any = None, **options: Any) -> Any:
    """FastAPI with one endpoint, this or the trivial one."""
    from fastapi import FastAPI

    app = FastAPI()
    app.get("/pets", **options)(endpoint or trivial())
    return app


def trivial() -> Any:
    """The endpoint."""
    from fastapi.responses import PlainTextResponse

    async def pets() -> PlainTextResponse:
        return PlainTextResponse("[]")

    return pets


def with_request() -> Any:
    """The endpoint for limiters that look for the request among its arguments."""
    from fastapi import Request
    from fastapi.responses import PlainTextResponse

    async def pets(request: Request) -> PlainTextResponse:
        return PlainTextResponse("[]")

    return pets


def starlette(endpoint: Any = None) -> Any:
    """Starlette with one endpoint."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def pets(request: Any) -> PlainTextResponse:
        return PlainTextResponse("[]")

    return Starlette(routes=[Route("/pets", endpoint(pets) if endpoint else pets)])


def fastapi_floor(*, refuse: bool = False) -> Any:
    """The floor's gate, inside FastAPI's own stack."""
    app = fastapi()
    app.add_middleware(floors.asgi_gate, rate=SLOW if refuse else FAST)
    return app


def fastapi_apigate(*, refuse: bool = False) -> Any:
    """As the README has it."""
    app = fastapi()
    app.add_middleware(asgi.GatewayMiddleware, gateway=gateway(SLOW if refuse else FAST))
    return app


def fastapi_behind_apigate(*, refuse: bool = False) -> Any:
    """In front of all that FastAPI does."""
    return asgi.GatewayMiddleware(fastapi(), gateway(SLOW if refuse else FAST))


def fastapi_behind_floor(*, refuse: bool = False) -> Any:
    """The floor's gate in front of all that FastAPI does."""
    return floors.asgi_gate(fastapi(), SLOW if refuse else FAST)


def starlette_apigate(*, refuse: bool = False) -> Any:
    """As the README has it."""
    app = starlette()
    app.add_middleware(asgi.GatewayMiddleware, gateway=gateway(SLOW if refuse else FAST))
    return app


def _slowapi(app: Any, limiter: Any) -> Any:
    from slowapi import _rate_limit_exceeded_handler  # its documentation imports it so
    from slowapi.errors import RateLimitExceeded

    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
    return app


def _slowapi_limiter(*, refuse: bool, default: bool, fields: bool = False, storage: str = "memory://") -> Any:
    from slowapi import Limiter
    from slowapi.util import get_remote_address

    limits = [ONCE if refuse else NEVER] if default else []
    return Limiter(key_func=get_remote_address, default_limits=limits, headers_enabled=fields, storage_uri=storage)


def slowapi_decorator(*, refuse: bool = False) -> Any:
    """Slowapi's leanest way, without header fields."""
    limiter = _slowapi_limiter(refuse=refuse, default=False)
    return _slowapi(fastapi(limiter.limit(ONCE if refuse else NEVER)(with_request())), limiter)


def starlette_slowapi_decorator(*, refuse: bool = False) -> Any:
    """The same on Starlette."""
    limiter = _slowapi_limiter(refuse=refuse, default=False)

    def limited(pets: Any) -> Any:
        from starlette.requests import Request

        pets.__annotations__["request"] = Request
        return limiter.limit(ONCE if refuse else NEVER)(pets)

    return _slowapi(starlette(limited), limiter)


def slowapi_asgi(*, refuse: bool = False, fields: bool = False, storage: str = "memory://") -> Any:
    """Slowapi's pure ASGI middleware."""
    from slowapi.middleware import SlowAPIASGIMiddleware

    app = _slowapi(fastapi(), _slowapi_limiter(refuse=refuse, default=True, fields=fields, storage=storage))
    app.add_middleware(SlowAPIASGIMiddleware)
    return app


def slowapi_asgi_fields(*, refuse: bool = False) -> Any:
    """The same with header fields."""
    return slowapi_asgi(refuse=refuse, fields=True)


def slowapi_middleware(*, refuse: bool = False) -> Any:
    """Slowapi's middleware as its documentation shows it first: Starlette's BaseHTTPMiddleware."""
    from slowapi.middleware import SlowAPIMiddleware

    app = _slowapi(fastapi(), _slowapi_limiter(refuse=refuse, default=True))
    app.add_middleware(SlowAPIMiddleware)
    return app


def fastapi_limiter(*, refuse: bool = False) -> Any:
    """A dependency on pyrate-limiter's leanest bucket; one for all clients, as it has no other in memory."""
    from fastapi import Depends
    from fastapi_limiter.depends import RateLimiter
    from pyrate_limiter import Duration, Limiter, Rate, SingleBucketFactory, StateBucket

    rate = Rate(1, Duration.DAY) if refuse else Rate(1_000_000, Duration.SECOND)
    limiter = Limiter(SingleBucketFactory(StateBucket([rate]), schedule_leak=False))
    return fastapi(dependencies=[Depends(RateLimiter(limiter=limiter))])


def throttled_py(*, refuse: bool = False) -> Any:
    """Its decorator, on its leanest algorithm, without header fields: those need a middleware more."""
    from throttled import per_day, per_sec
    from throttled.asyncio.contrib.fastapi import (
        Limiter,
        RateLimitExceededError,
        get_remote_address,
        rate_limit_exceeded_handler,
    )

    quota = per_day(1, burst=1) if refuse else per_sec(1_000_000, burst=1_000_000)
    limiter = Limiter(quota, using="gcra", key_func=get_remote_address)
    app = fastapi(limiter.limit()(with_request()))
    app.add_exception_handler(RateLimitExceededError, rate_limit_exceeded_handler)
    return app


def endpoint_floor(*, refuse: bool = False) -> Any:
    """One bucket a client; the address comes from a variable of the context, set by a thin middleware."""
    from fastapi.responses import PlainTextResponse

    limit = floors.throttle_async(
        SLOW if refuse else FAST,
        key=floors.address.get,
        refuse=lambda: PlainTextResponse("Too Many Requests", 429),
    )
    app = fastapi(limit(trivial()))
    app.add_middleware(floors.asgi_address)
    return app


def endpoint_apigate(*, refuse: bool = False) -> Any:
    """A decorator on the endpoint, and the gateway it belongs to around the app."""
    gateway = Gateway()
    app = fastapi(gateway.throttle(SLOW if refuse else FAST, per="client")(trivial()))
    app.add_middleware(asgi.GatewayMiddleware, gateway=gateway)
    return app


BARE = Subject("FastAPI", fastapi, ("fastapi",), limits=False)
FLOOR = Subject("FastAPI + floor gate", fastapi_floor, ("fastapi",), field="ratelimit-limit")
APIGATE = Subject("FastAPI + apigate", fastapi_apigate, ("fastapi",), field="ratelimit")
BEHIND_FLOOR = Subject("FastAPI behind floor gate", fastapi_behind_floor, ("fastapi",), field="ratelimit-limit")
BEHIND_APIGATE = Subject("FastAPI behind apigate", fastapi_behind_apigate, ("fastapi",), field="ratelimit")
OWN = (BARE, FLOOR, APIGATE, BEHIND_FLOOR, BEHIND_APIGATE)
PEERS = (
    Subject("FastAPI + slowapi decorator", slowapi_decorator, ("fastapi", "slowapi")),
    Subject("FastAPI + slowapi ASGI middleware", slowapi_asgi, ("fastapi", "slowapi")),
    Subject("FastAPI + slowapi default middleware", slowapi_middleware, ("fastapi", "slowapi")),
    Subject("FastAPI + fastapi-limiter", fastapi_limiter, ("fastapi", "fastapi_limiter", "pyrate_limiter")),
    Subject("FastAPI + throttled-py decorator", throttled_py, ("fastapi", "throttled")),
)
GATES = (
    *OWN,
    *PEERS,
    Subject(
        "FastAPI + slowapi ASGI middleware, with fields",
        slowapi_asgi_fields,
        ("fastapi", "slowapi"),
        field="x-ratelimit-limit",
    ),
    Subject("Starlette", starlette, ("starlette",), limits=False),
    Subject("Starlette + apigate", starlette_apigate, ("starlette",), field="ratelimit"),
    Subject("Starlette + slowapi decorator", starlette_slowapi_decorator, ("starlette", "slowapi")),
)
"""Around the app, beside peers in all of their ways."""

ENDPOINTS = (
    BARE,
    Subject("floor", endpoint_floor, ("fastapi",)),
    Subject("apigate", endpoint_apigate, ("fastapi",), field="ratelimit"),
    *(peer for peer in PEERS if "middleware" not in peer.name),
)
"""On one endpoint."""
