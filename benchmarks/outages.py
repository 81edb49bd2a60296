"""What a request waits while the store does not answer: a stopped server keeps its connections and says nothing.

Rule: the gate as a user has it, with the outage policy it has by default. The first request finds out, within the
deadline; what a later one takes is counted over the bare app.
"""

import logging
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks import raw_apps
from benchmarks.drive import Driver, asgi_batch, wsgi_batch
from benchmarks.measure import Batch, Figure, Plan
from benchmarks.redis_server import lacking

__all__ = ["figures"]

DEADLINE_MS = 50
HEADING = "Redis: a request while the server is stopped"
GATES: dict[str, tuple[Driver, Any, Callable[..., Any]]] = {
    "WSGI": (wsgi_batch, raw_apps.raw_wsgi, raw_apps.wsgi_apigate),
    "ASGI": (asgi_batch, raw_apps.raw_asgi, raw_apps.asgi_apigate),
}


def figures(plan: Plan) -> Iterator[Figure]:
    """How much longer than the deadline the first takes, and what all later ones take more than without a gate."""
    for name in GATES:
        first, later = (None, None) if lacking() else _waits(name, plan.rounds)
        yield Figure(f"server stopped, {name}: first request over the deadline", first, "ms", HEADING, lacking())
        yield Figure(f"server stopped, {name}: added to a later request", later, "us", HEADING, lacking())


def _waits(name: str, rounds: int) -> tuple[float, float]:
    """Medians: of every outage's first request, and of those that follow within the same."""
    from tests.servers import RedisServer

    drive, bare_app, gate = GATES[name]
    bare, first, later = drive(bare_app), [], []
    logging.disable(logging.ERROR)  # the outage, once for each
    try:
        for number in range(max(1, rounds // 10)):
            with RedisServer() as server:
                uri = f"{server.uri}?deadline_ms={DEADLINE_MS}"
                gated = drive(gate(store=uri, name=f"outage{number}", workers=1), field="ratelimit")
                gated(100)
                server.pause()
                first.append(_took(gated) * 1e3 - DEADLINE_MS)
                later += [(_took(gated) - _took(bare)) * 1e6 for _ in range(1_000)]
                server.resume()
    finally:
        logging.disable(logging.NOTSET)
    return median(first), median(later)


def _took(batch: Batch) -> float:
    start = perf_counter()
    batch(1)
    return perf_counter() - start
