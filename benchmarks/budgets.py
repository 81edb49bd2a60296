"""What must hold, as data: every budget of the design, by the group of cases that measures it.

Rule: only bounds stand here, never a result. A budget names the two figures whose ratio it bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks import fastapi_apps
from benchmarks.cache_keys import HELD_OF_ACCOUNTED
from benchmarks.caching import BYPASSES
from benchmarks.measure import Cost
from benchmarks.redis_askers import APIGATE, FLOOR

__all__ = ["BOUNDS", "BUDGETS", "LOADS", "Budget", "Throughput"]

QUIET_FLOOR_US = 0.35
"""One floor decision on the quiet machine on which the budgets in microseconds were written down.

Such a budget is kept as a multiple of the floor decision in the same round, so that it means the
same on any machine under any load."""


@dataclass(frozen=True)
class Budget:
    """`cost` is to be at most `at_most` times `floor`; `note` is for the reader of the report.

    Of several floors the least counts, by their medians; the report names it.
    """

    what: str
    cost: Cost
    floor: Cost | tuple[Cost, ...]
    at_most: float
    note: str = ""


@dataclass(frozen=True)
class Throughput:
    """`case` is to get at least `at_least` times as much done a second as `base`."""

    what: str
    case: str
    base: str
    at_least: float


FASTAPI_PEERS = tuple(Cost(peer.name, over="FastAPI") for peer in fastapi_apps.PEERS)
ADDED_ASGI = Cost("apigate, three levels", over="bare app")
ADDED_WSGI = Cost("apigate, three levels", over="bare app")

BUDGETS: Mapping[str, tuple[Budget, ...]] = {
    "One bucket": (Budget("decision with full result", Cost("apigate"), Cost("floor"), 2.0),),
    "Three levels in one decision": (
        Budget(
            "decision, every level read",
            Cost("apigate, every level read"),
            Cost("floor"),
            1.7,
            "the full result, as the floor gives it",
        ),
        Budget(
            "decision, tightest level read",
            Cost("apigate"),
            Cost("floor"),
            1.7,
            "what header fields need; the floor gives all three",
        ),
        Budget(
            "every level read, against limits asked three times",
            Cost("apigate, every level read"),
            Cost("limits fixed-window, three hits"),
            1 / 4,
            "which answers yes or no",
        ),
    ),
    "Refused": (Budget("decision with full result", Cost("apigate"), Cost("floor"), 2.0),),
    "Many keys": (
        Budget(
            "growth from 1 key to 100,000",
            Cost("apigate, 100,000 keys", over="apigate, 1 key"),
            Cost("floor, 100,000 keys", over="floor, 1 key"),
            1.25,
            "the same growth; less than a quarter cannot be told apart",
        ),
    ),
    "Threads": tuple(
        Budget(
            f"slower by {number} threads",
            Cost(f"apigate, {number} threads", per="apigate, 1 thread"),
            Cost(f"floor, {number} threads", per="floor, 1 thread"),
            1.1,
            "the same loss; less than a tenth cannot be told apart",
        )
        for number in (2, 4)
    ),
    "ASGI": (
        Budget("added per request", ADDED_ASGI, Cost("floor gate", over="bare app"), 3.0),
        Budget(
            "added, against the leanest peer",
            ADDED_ASGI,
            (*FASTAPI_PEERS, Cost("Starlette + slowapi decorator", over="Starlette")),
            1 / 8,
        ),
        Budget(
            "added to FastAPI, against the leanest peer on it",
            Cost("FastAPI + apigate", over="FastAPI"),
            FASTAPI_PEERS,
            1 / 8,
        ),
        Budget(
            "added to Starlette, against the leanest peer on it",
            Cost("Starlette + apigate", over="Starlette"),
            Cost("Starlette + slowapi decorator", over="Starlette"),
            1 / 8,
        ),
        Budget(
            "refusal, against FastAPI's own request",
            Cost("apigate, refusing"),
            Cost("FastAPI"),
            0.12,
        ),
        Budget(
            "empty gateway, against a no-op middleware",
            Cost("apigate, empty"),
            Cost("no-op middleware"),
            1.3,
        ),
    ),
    "WSGI": (
        Budget("added per request", ADDED_WSGI, Cost("floor gate", over="bare app"), 3.0),
        Budget(
            "added, against Flask-Limiter",
            ADDED_WSGI,
            Cost("Flask + Flask-Limiter", over="Flask"),
            1 / 15,
        ),
        Budget(
            "added to Flask, against Flask-Limiter on it",
            Cost("Flask + apigate", over="Flask"),
            Cost("Flask + Flask-Limiter", over="Flask"),
            1 / 15,
        ),
        Budget("refusal, against Flask's own request", Cost("apigate, refusing"), Cost("Flask"), 0.10),
        Budget(
            "empty gateway, against a no-op middleware",
            Cost("apigate, empty"),
            Cost("no-op middleware"),
            1.3,
        ),
    ),
    "Decorator on a function": (
        Budget(
            "added per call",
            Cost("apigate", over="bare function"),
            Cost("floor", over="bare function"),
            3.0,
        ),
    ),
    **{
        f"Decorator on a {endpoint}": (
            Budget(
                "added per request, against the floor decision",
                Cost("apigate", over=framework),
                Cost("floor decision"),
                round(4.0 / QUIET_FLOOR_US, 1),
                "4 us on the quiet machine",
            ),
        )
        for endpoint, framework in {
            "FastAPI endpoint": "FastAPI",
            "Flask endpoint": "Flask",
            "Django view": "Django",
        }.items()
    },
    "Method table": (
        Budget(
            "static path, 100 methods against 10",
            Cost("request, static path of 100"),
            Cost("request, static path of 10"),
            1.1,
        ),
        Budget(
            "static path, 1,000 methods against 10",
            Cost("request, static path of 1000"),
            Cost("request, static path of 10"),
            1.1,
        ),
        *(
            Budget(
                f"lookup of a template among {number}, against the floor decision",
                Cost(f"lookup, template of {number}"),
                Cost("floor decision"),
                round(2.0 / QUIET_FLOOR_US, 1),
                "2 us on the quiet machine",
            )
            for number in (10, 100, 1000)
        ),
    ),
    "Cache hit, ASGI": (
        Budget("hit, against FastAPI's own trivial request", Cost("apigate"), Cost("FastAPI, trivial"), 0.17),
        Budget("hit", Cost("apigate"), Cost("floor"), 3.5),
        Budget("three levels and hit", Cost("apigate, three levels"), Cost("floor, three levels"), 3.0),
    ),
    "Cache hit, WSGI": (
        Budget("hit, against Flask's own trivial request", Cost("apigate"), Cost("Flask, trivial"), 0.15),
    ),
    **{
        f"Cache miss, {interface}": (
            Budget(
                "added per request, against the floor decision",
                Cost("apigate", over="bare app"),
                Cost("floor decision"),
                round(10.0 / QUIET_FLOOR_US, 1),
                "10 us on the quiet machine",
            ),
        )
        for interface in ("ASGI", "WSGI")
    },
    **{
        f"Cache passed by, {interface}": tuple(
            Budget(
                f"added per request, {case}, against the floor decision",
                Cost(f"apigate, {case}", over="bare app"),
                Cost("floor decision"),
                round(4.0 / QUIET_FLOOR_US, 1),
                "4 us on the quiet machine",
            )
            for case in (*BYPASSES, "answers that must not be kept", "method without a cache")
        )
        for interface in ("ASGI", "WSGI")
    },
}

LOADS: Mapping[str, tuple[Throughput, ...]] = {
    "uvicorn, cache hits": (Throughput("hits/s, against the bare app's requests", "apigate", "bare app", 0.85),),
    "uvicorn, raw ASGI app": (
        Throughput("requests/s, against the bare app", "apigate, three levels", "bare app", 0.80),
        Throughput(
            "requests/s, against nginx limit_req in front of the bare app",
            "apigate, three levels",
            "nginx limit_req in front",
            1.0,
        ),
    ),
    "uvicorn, FastAPI": (
        Throughput("requests/s, against FastAPI's own", "FastAPI + apigate", "FastAPI", 0.95),
        Throughput("refusals/s, against FastAPI's own requests", "FastAPI + apigate, refusing", "FastAPI", 3.0),
        Throughput(
            "refusals/s in front of FastAPI, against FastAPI's own requests",
            "FastAPI behind apigate, refusing",
            "FastAPI",
            3.0,
        ),
    ),
    "gunicorn sync, Flask": (Throughput("requests/s, against Flask's own", "Flask + apigate", "Flask", 0.96),),
    **{
        f"Redis, {callers}": (
            Throughput(
                "decisions/s of three levels, with numbers, against one EVALSHA a call", APIGATE, FLOOR, at_least
            ),
        )
        for callers, at_least in {
            "threads, 1 caller": 0.85,
            "asyncio, 1 caller": 0.75,
            "asyncio, 32 callers": 1.7,
        }.items()
    },
}
"""What must hold of what is done a second."""

BOUNDS: Mapping[str, float] = {
    "memory of a key of 16 characters": 260,
    "memory of a key of 64 characters": 260,
    "memory of a place when random keys have taken all": 260,
    HELD_OF_ACCOUNTED: 1,
    "import apigate": 30,
    f"round trips: {APIGATE}": 1,
    "round trips: apigate, two levels and a sliding window, with numbers": 2,
    **{f"server stopped, {name}: first request over the deadline": 5 for name in ("WSGI", "ASGI")},
    **{f"server stopped, {name}: added to a later request": 20 for name in ("WSGI", "ASGI")},
    f"round trips: {APIGATE}, lease=20": 0.1,
    "round trips: apigate, gateway of three levels, refused and remembered": 0,
    "file store, 4 processes, 2,000/s each: p50": 15,
    "file store, 4 processes, 2,000/s each: p99": 500,
}
"""What a figure of this name may be at most, in its own unit."""
