"""ASGI apps that answer with 1 KB of JSON, bare and behind caches, each set up as its documentation shows it.

Rule: all in memory, all for the same hour. What keeps a function's result (fastapi-cache2, aiocache, cashews)
stands where its users have it: on FastAPI's endpoint. What keeps a response stands in front of the app.
"""

from collections.abc import Callable
from typing import Any

from apigate import CachePolicy, Gateway, Method, Rate, ResponseCache, asgi
from apigate.asgi import ASGIApp
from benchmarks import cache_floors
from benchmarks.cache_origin import TTL, counted, raw_asgi, raw_asgi_no_store
from benchmarks.drive import LOOP
from benchmarks.subjects import Subject
from benchmarks.throttling import FAST

__all__ = [
    "APIGATE",
    "BARE",
    "ENDPOINTS",
    "FASTAPI",
    "FLOOR",
    "FULL_FLOOR",
    "FULL_GATE",
    "HISHEL",
    "KNOW_METHODS",
    "NO_STORE",
    "NO_STORE_ENDPOINTS",
    "OFF",
    "caching_gateway",
    "endpoint",
    "uncaching_gateway",
]


def caching_gateway(rate: Rate | None = None, **settings: Any) -> Gateway:
    """Keeps answers of every method; with a rate it has three levels: the gateway, the method, the client."""
    cache = ResponseCache(**{"max_bytes": "64MB"} | settings)
    methods = {"*": Method(cache=CachePolicy(ttl=TTL), throttle=rate), "GET /pets": Method()}
    return Gateway(cache=cache, throttle=rate, client_throttle=rate, methods=methods)


def uncaching_gateway() -> Gateway:
    """A cache that no method uses."""
    return Gateway(cache=ResponseCache(max_bytes="64MB"), methods={"*": Method(cache=None), "GET /pets": Method()})


def raw() -> ASGIApp:
    """No cache at all."""
    return raw_asgi


def floor(app: ASGIApp = raw_asgi, **settings: Any) -> ASGIApp:
    """The floor's cache."""
    return cache_floors.asgi_cache(app, TTL, **settings)


def full_floor() -> ASGIApp:
    """The floor's, behind three levels."""
    return cache_floors.asgi_full_gate(raw_asgi, FAST, TTL)


def apigate(app: ASGIApp = raw_asgi, **settings: Any) -> asgi.GatewayMiddleware:
    """A gateway that does nothing but keep answers."""
    return asgi.GatewayMiddleware(app, caching_gateway(**settings))


def apigate_no_store() -> ASGIApp:
    """The same in front of an app that forbids to keep what it answers."""
    return asgi.GatewayMiddleware(raw_asgi_no_store, caching_gateway())


def apigate_off() -> ASGIApp:
    """A cache that no method uses."""
    return asgi.GatewayMiddleware(raw_asgi, uncaching_gateway())


def full_gate() -> ASGIApp:
    """Three levels, their fields, and the cache behind them."""
    return asgi.GatewayMiddleware(raw_asgi, caching_gateway(FAST))


def hishel(*, rfc: bool = True) -> ASGIApp:
    """Its middleware, on a database in memory in place of its file."""
    import anysqlite
    from hishel import AsyncSqliteStorage
    from hishel.asgi import ASGICacheMiddleware

    connection = LOOP.run_until_complete(anysqlite.connect(":memory:", isolation_level=None))
    storage = AsyncSqliteStorage(connection=connection, default_ttl=None if rfc else TTL)
    app: ASGIApp = ASGICacheMiddleware(raw_asgi, storage=storage, rfc=rfc)
    return app


def hishel_fixed() -> ASGIApp:
    """The same told to go by the clock and not by the standard."""
    return hishel(rfc=False)


def endpoint() -> Callable[..., Any]:
    """What FastAPI calls."""

    async def pets(key: str = "") -> Any:
        return counted()

    return pets


def fastapi(pets: Callable[..., Any] | None = None) -> Any:
    """FastAPI with that endpoint, at both paths. It is told what comes, which spares it four fifths of the work."""
    from fastapi import FastAPI

    app = FastAPI()
    pets = pets or endpoint()
    for path in ("/pets", "/pets/{key}"):
        app.api_route(path, methods=["GET", "POST"], response_model=list[dict[str, Any]])(pets)
    return app


def fastapi_apigate() -> Any:
    """As the README has it: inside FastAPI's own stack."""
    app = fastapi()
    app.add_middleware(asgi.GatewayMiddleware, gateway=caching_gateway())
    return app


def fastapi_behind_apigate() -> ASGIApp:
    """In front of all that FastAPI does."""
    return asgi.GatewayMiddleware(fastapi(), caching_gateway())


def endpoint_apigate() -> Any:
    """A mark on the endpoint, and the gateway it belongs to around the app."""
    gateway = Gateway(cache=ResponseCache(max_bytes="64MB"))
    app = fastapi(gateway.cache(ttl=TTL)(endpoint()))
    app.add_middleware(asgi.GatewayMiddleware, gateway=gateway)
    return app


def fastapi_cache2() -> Any:
    """Its decorator; its store is one for all instances, so it is emptied."""
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.decorator import cache

    backend = InMemoryBackend()
    LOOP.run_until_complete(backend.clear(namespace=":"))
    FastAPICache.reset()
    FastAPICache.init(backend)
    return fastapi(cache(expire=TTL)(endpoint()))


def aiocache(**settings: Any) -> Any:
    """Its decorator on its cache in memory, which has no bound."""
    from aiocache import cached

    return fastapi(cached(ttl=TTL, **settings)(endpoint()))


def aiocache_no_store() -> Any:
    """The same told to keep no result; it looks for one all the same."""
    return aiocache(skip_cache_func=lambda _result: True)


def cashews(**settings: Any) -> Any:
    """Its decorator on its cache in memory, without the task that looks for what has expired."""
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://", size=100_000, check_interval=0)
    return fastapi(cache(ttl=TTL, **settings)(endpoint()))


def cashews_no_store() -> Any:
    """The same told to keep no result; it looks for one all the same."""
    return cashews(condition=lambda *_args, **_kwargs: False)


BARE = Subject("bare app", raw)
FLOOR = Subject("floor", floor, field="age")
FULL_FLOOR = Subject("floor, three levels", full_floor, field="age")
APIGATE = Subject("apigate", apigate, field="age")
NO_STORE = Subject("apigate, answers that must not be kept", apigate_no_store)
OFF = Subject("apigate, method without a cache", apigate_off)
FULL_GATE = Subject("apigate, three levels", full_gate, field="age")
NEEDS_HISHEL = ("hishel", "anysqlite")
HISHEL = (
    Subject("hishel", hishel, NEEDS_HISHEL, field="age"),
    Subject("hishel, rfc=False", hishel_fixed, NEEDS_HISHEL),
)
FASTAPI = Subject("FastAPI", fastapi, ("fastapi",))
ENDPOINTS = (
    Subject("FastAPI behind apigate", fastapi_behind_apigate, ("fastapi",), field="age"),
    Subject("FastAPI + apigate", fastapi_apigate, ("fastapi",), field="age"),
    Subject("FastAPI + apigate decorator", endpoint_apigate, ("fastapi",), field="age"),
    Subject("FastAPI + fastapi-cache2", fastapi_cache2, ("fastapi", "fastapi_cache"), field="x-fastapi-cache"),
    Subject("FastAPI + aiocache", aiocache, ("fastapi", "aiocache")),
    Subject("FastAPI + cashews", cashews, ("fastapi", "cashews")),
)
"""On FastAPI, whose own request is FASTAPI."""
KNOW_METHODS = ENDPOINTS[:-2]
"""Of these, what caches no POST; aiocache and cashews see a function, and keep what it returns to any method."""

NO_STORE_ENDPOINTS = (
    Subject("FastAPI + aiocache, answers that must not be kept", aiocache_no_store, ("fastapi", "aiocache")),
    Subject("FastAPI + cashews, answers that must not be kept", cashews_no_store, ("fastapi", "cashews")),
)
