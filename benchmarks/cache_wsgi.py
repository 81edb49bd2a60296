"""WSGI apps that answer with 1 KB of JSON, bare and behind caches, each set up as its documentation shows it.

Rule: as `cache_asgi`.
"""

from collections.abc import Callable
from typing import Any

from apigate import Gateway, ResponseCache, wsgi
from apigate.wsgi import WSGIApp
from benchmarks import cache_floors
from benchmarks.cache_asgi import caching_gateway, uncaching_gateway
from benchmarks.cache_origin import TTL, counted, raw_wsgi, raw_wsgi_no_store
from benchmarks.django_apps import Project, project_of, set_up
from benchmarks.subjects import Subject
from benchmarks.throttling import FAST

__all__ = [
    "APIGATE",
    "BARE",
    "DJANGO",
    "DJANGO_GATES",
    "FLASK",
    "FLASK_BYPASSED",
    "FLASK_GATES",
    "FLASK_NO_STORE",
    "FLOOR",
    "FULL_FLOOR",
    "FULL_GATE",
    "NO_STORE",
    "OFF",
]


def raw() -> WSGIApp:
    """No cache at all."""
    return raw_wsgi


def floor() -> WSGIApp:
    """The floor's cache."""
    return cache_floors.wsgi_cache(raw_wsgi, TTL)


def full_floor() -> WSGIApp:
    """The floor's, behind three levels."""
    return cache_floors.wsgi_full_gate(raw_wsgi, FAST, TTL)


def apigate() -> WSGIApp:
    """A gateway that does nothing but keep answers."""
    return wsgi.GatewayMiddleware(raw_wsgi, caching_gateway())


def apigate_no_store() -> WSGIApp:
    """The same in front of an app that forbids to keep what it answers."""
    return wsgi.GatewayMiddleware(raw_wsgi_no_store, caching_gateway())


def apigate_off() -> WSGIApp:
    """A cache that no method uses."""
    return wsgi.GatewayMiddleware(raw_wsgi, uncaching_gateway())


def full_gate() -> WSGIApp:
    """Three levels, their fields, and the cache behind them."""
    return wsgi.GatewayMiddleware(raw_wsgi, caching_gateway(FAST))


def flask(decorate: Callable[..., Any] = lambda pets: pets) -> Any:
    """Flask with one endpoint at both paths, and what decorates it."""
    from flask import Flask, jsonify

    def pets(key: str = "") -> Any:
        return jsonify(counted())

    app = Flask("benchmark")
    view = decorate(pets)
    for rule in ("/pets", "/pets/<key>"):
        app.route(rule, methods=["GET", "POST"])(view)
    return app


def flask_apigate() -> Any:
    """The extension."""
    from apigate.flask import Apigate

    app = flask()
    Apigate(app, caching_gateway())
    return app


def endpoint_apigate() -> Any:
    """A mark on the endpoint, and the gateway it belongs to around the app."""
    from apigate.flask import Apigate

    gateway = Gateway(cache=ResponseCache(max_bytes="64MB"))
    app = flask(gateway.cache(ttl=TTL))
    Apigate(app, gateway)
    return app


def flask_caching(**settings: Any) -> Any:
    """Its decorator on its SimpleCache, by the path alone unless the settings say otherwise."""
    from flask_caching import Cache

    cache = Cache(config={"CACHE_TYPE": "SimpleCache", "CACHE_THRESHOLD": 100_000})
    app = flask(cache.cached(timeout=TTL, **settings))
    cache.init_app(app)
    return app


def flask_caching_query() -> Any:
    """The same by path and query, as all others here have it."""
    return flask_caching(query_string=True)


def flask_caching_get() -> Any:
    """The same for GET alone; unless it is told so, it answers a POST with what it kept of a GET."""
    from flask import request

    return flask_caching(unless=lambda: request.method == "POST")


def flask_caching_no_store() -> Any:
    """The same told to keep no answer; it looks for one all the same."""
    return flask_caching(response_filter=lambda _response: False)


def django(middleware: tuple[str, ...] = (), gateway: Gateway | None = None) -> Project:
    """Django with one view at both paths."""
    set_up()
    from django.http import JsonResponse
    from django.urls import path

    def pets(request: Any, key: str = "") -> Any:
        return JsonResponse(counted(), safe=False)

    return project_of(pets, middleware, gateway)._replace(urls=(path("pets", pets), path("pets/<key>", pets)))


def django_apigate() -> Project:
    """The middleware made for Django."""
    return django(("apigate.django.GatewayMiddleware",), caching_gateway())


def django_behind_apigate() -> Project:
    """The middleware, as around any WSGI app."""
    bare = django()
    return bare._replace(app=wsgi.GatewayMiddleware(bare.app, caching_gateway()))


def django_cache() -> Project:
    """Its two middlewares, on its cache in memory, which is emptied: it is one for all."""
    set_up()
    from django.core.cache import cache

    cache.clear()
    prefix = "django.middleware.cache."
    return django((f"{prefix}UpdateCacheMiddleware", f"{prefix}FetchFromCacheMiddleware"))


BARE = Subject("bare app", raw)
FLOOR = Subject("floor", floor, field="age")
FULL_FLOOR = Subject("floor, three levels", full_floor, field="age")
APIGATE = Subject("apigate", apigate, field="age")
NO_STORE = Subject("apigate, answers that must not be kept", apigate_no_store)
OFF = Subject("apigate, method without a cache", apigate_off)
FULL_GATE = Subject("apigate, three levels", full_gate, field="age")
FLASK = Subject("Flask", flask, ("flask",))
FLASK_GATES = (
    Subject("Flask + apigate", flask_apigate, ("flask",), field="age"),
    Subject("Flask + apigate decorator", endpoint_apigate, ("flask",), field="age"),
    Subject("Flask + Flask-Caching", flask_caching, ("flask", "flask_caching")),
    Subject("Flask + Flask-Caching, by query", flask_caching_query, ("flask", "flask_caching")),
)
FLASK_BYPASSED = Subject("Flask + Flask-Caching", flask_caching_get, ("flask", "flask_caching"))
FLASK_NO_STORE = Subject(
    "Flask + Flask-Caching, answers that must not be kept", flask_caching_no_store, ("flask", "flask_caching")
)
DJANGO = Subject("Django", django, ("django",))
DJANGO_GATES = (
    Subject("Django behind apigate", django_behind_apigate, ("django",), field="age"),
    Subject("Django + apigate", django_apigate, ("django",), field="age"),
    Subject("Django + its cache middleware", django_cache, ("django",), field="expires"),
)
