"""What a Redis counts itself: the round trips of a decision, and the memory of a client.

Rule: round trips are what the server has read from its clients while one of them asked, which `INFO stats` says;
`INFO commandstats` counts the commands within scripts with those that were sent.
"""

from collections.abc import Callable, Iterator
from functools import partial

from apigate import Throttle
from apigate.stores.redis import RedisStore
from benchmarks import fastapi_apps, flask_apps, raw_apps
from benchmarks.drive import asgi_batch, wsgi_batch
from benchmarks.measure import Batch, Figure, Plan
from benchmarks.redis_askers import (
    APIGATE,
    ASKERS,
    CLIENTS,
    FIXED,
    MOVING,
    PATIENCE_MS,
    Ask,
    apigate_tasks,
    apigate_window,
    limits_threads,
)
from benchmarks.redis_server import server, why_not
from benchmarks.redis_store import MANY, asked, awaited, each, each_task
from benchmarks.throttling import HELD

__all__ = ["figures"]

REMEMBERED = "apigate, gateway of three levels, refused and remembered"
TRIPS = "Redis: round trips per decision, counted at the server"
MEMORY = "Redis: memory of one client at the server"
THREE_LIMITS = ("1000000 per second", "10000000 per minute", "100000000 per hour")


def figures(_plan: Plan) -> Iterator[Figure]:
    """Round trips of everybody, and what a client's state takes."""
    for name, needs, asking in _asking():
        why = why_not(*needs)
        yield Figure(f"round trips: {name}", None if why else _trips(asking()), "", TRIPS, why)
    for name, ask in _keeping():
        why = why_not()
        yield Figure(name, None if why else _memory(ask()), "bytes", MEMORY, why)


def _asking() -> Iterator[tuple[str, tuple[str, ...], Callable[[], Batch]]]:
    """Everybody whose round trips are counted."""
    yield REMEMBERED, (), _gate_refusing
    for asker in ASKERS:
        yield asker.name, asker.needs, partial(asked if asker.threads else awaited, asker)
    yield f"{APIGATE}, {MANY} tasks at once", (), lambda: each_task(apigate_tasks(server().uri), MANY)
    yield "apigate, two levels and a sliding window, with numbers", (), lambda: each(apigate_window(server().uri))
    yield "limits moving-window, with window stats", (), lambda: each(limits_threads(MOVING, stats=True)(server().uri))
    yield (
        "slowapi ASGI middleware, one limit, with fields",
        ("fastapi", "slowapi"),
        lambda: asgi_batch(fastapi_apps.slowapi_asgi(fields=True, storage=server().uri), field="x-ratelimit-limit"),
    )
    for number, limits in (("one limit", THREE_LIMITS[:1]), ("three limits", THREE_LIMITS)):
        yield (
            f"Flask-Limiter, {number}, with fields",
            ("flask", "flask_limiter"),
            lambda limits=limits: wsgi_batch(
                flask_apps.flask_limiter(fields=True, storage=server().uri, limits=limits), field="x-ratelimit-limit"
            ),
        )


def _gate_refusing() -> Batch:
    gate = raw_apps.wsgi_apigate(refuse=True, store=RedisStore(server().uri, deadline_ms=PATIENCE_MS), name="refusing")
    return wsgi_batch(gate, after=1, status=429, field="retry-after")


def _trips(batch: Batch, times: int = 40 * len(CLIENTS)) -> float:
    """How often the server has to read for one decision."""
    server().flush()  # two strategies of limits give one name to keys of different kinds
    batch(times)  # connects, and makes all keys
    with server().admin() as admin:
        before = admin.info("stats")["total_reads_processed"]
        batch(times)
        after = admin.info("stats")["total_reads_processed"]
    return (after - before - 1) / times


def _keeping() -> Iterator[tuple[str, Callable[[], Ask]]]:
    """Those whose memory is counted: a client that has asked a hundred times."""
    yield "memory at the server: apigate, one level", lambda: _one_level(server().uri)
    yield "memory at the server: limits fixed-window", lambda: limits_threads(FIXED, stats=False)(server().uri)
    yield "memory at the server: limits moving-window", lambda: limits_threads(MOVING, stats=False)(server().uri)


def _one_level(uri: str) -> Ask:
    acquire = Throttle({"client": HELD}, store=RedisStore(uri, deadline_ms=PATIENCE_MS), name="bench").acquire
    return lambda key: acquire({"client": key})


def _memory(ask: Ask, times: int = 100) -> int:
    """The bytes of all keys of one client."""
    server().flush()
    for _ in range(times):
        ask(CLIENTS[0])
    with server().admin() as admin:
        return sum(admin.memory_usage(key, samples=0) for key in admin.keys("*"))
