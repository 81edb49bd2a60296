"""The gate around an app and around a function: what a request costs with it and without.

Rule: three levels (gateway, method, client), header fields and request context are on, as a user
gets them. The peers stand around their own framework, so what they add is counted over that
framework's own request.
"""

from collections.abc import Callable
from itertools import repeat

from apigate import Gateway, Throttled, asgi, wsgi
from benchmarks import floors, frameworks, raw_apps
from benchmarks.drive import asgi_batch, wsgi_batch
from benchmarks.measure import Batch, Case, Group, Plan
from benchmarks.raw_apps import raw_asgi, raw_wsgi
from benchmarks.throttling import FAST, SLOW

__all__ = ["groups"]


def groups(_plan: Plan) -> tuple[Group, ...]:
    """Around an ASGI app, around a WSGI app, around a function."""
    return (
        Group("ASGI", (*_asgi(), *frameworks.asgi_cases())),
        Group("WSGI", (*_wsgi(), *frameworks.wsgi_cases())),
        Group(
            "Decorator on a function",
            (
                Case("bare function", lambda: called(same)),
                Case("floor", floor_decorator),
                Case("apigate", apigate_decorator),
            ),
        ),
    )


def _asgi() -> tuple[Case, ...]:
    return (
        Case("bare app", lambda: asgi_batch(raw_asgi)),
        Case("no-op middleware", lambda: asgi_batch(floors.NoOp(raw_asgi))),
        Case("no-op middleware around send", lambda: asgi_batch(floors.NoOpSend(raw_asgi))),
        Case(
            "floor gate",
            lambda: asgi_batch(raw_apps.asgi_floor(), field="ratelimit-limit"),
        ),
        Case(
            "floor gate, refusing",
            lambda: asgi_batch(raw_apps.asgi_floor(refuse=True), after=1, status=429, field="retry-after"),
        ),
        Case("apigate, empty", lambda: asgi_batch(asgi.GatewayMiddleware(raw_asgi, Gateway()))),
        Case(
            "apigate, three levels",
            lambda: asgi_batch(raw_apps.asgi_apigate(), field="ratelimit"),
        ),
        Case(
            "apigate, refusing",
            lambda: asgi_batch(raw_apps.asgi_apigate(refuse=True), after=1, status=429, field="retry-after"),
        ),
    )


def _wsgi() -> tuple[Case, ...]:
    return (
        Case("bare app", lambda: wsgi_batch(raw_wsgi)),
        Case("no-op middleware", lambda: wsgi_batch(floors.NoOpWSGI(raw_wsgi))),
        Case("no-op middleware around start", lambda: wsgi_batch(floors.NoOpStart(raw_wsgi))),
        Case(
            "floor gate",
            lambda: wsgi_batch(raw_apps.wsgi_floor(), field="ratelimit-limit"),
        ),
        Case(
            "floor gate, refusing",
            lambda: wsgi_batch(raw_apps.wsgi_floor(refuse=True), after=1, status=429, field="retry-after"),
        ),
        Case("apigate, empty", lambda: wsgi_batch(wsgi.GatewayMiddleware(raw_wsgi, Gateway()))),
        Case(
            "apigate, three levels",
            lambda: wsgi_batch(raw_apps.wsgi_apigate(), field="ratelimit"),
        ),
        Case(
            "apigate, refusing",
            lambda: wsgi_batch(raw_apps.wsgi_apigate(refuse=True), after=1, status=429, field="retry-after"),
        ),
    )


def same(name: str) -> str:
    return name


def called(function: Callable[[str], str]) -> Batch:
    def batch(times: int) -> None:
        for _ in repeat(None, times):
            function("alice")

    return batch


def floor_decorator() -> Batch:
    return called(floors.throttle(FAST, key=same)(same))


def apigate_decorator() -> Batch:
    once = Gateway().throttle(SLOW, key=same)(same)
    once("alice")
    try:
        once("alice")
    except Throttled:
        return called(Gateway().throttle(FAST, key=same)(same))
    raise AssertionError("the decorator refuses nothing")
