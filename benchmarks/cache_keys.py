"""Many keys: how many requests of a day like any other are hits, what they cost, and the memory of an entry.

Rule: paths are drawn by Zipf's law (the second is asked for half as often as the first, the third a third as
often), and caches have room for as many entries each. Memory is what tracemalloc counts (and the pages of a database in
memory), keys and fields included, after answers of 1 KB to paths never asked for before.
"""

import gc
import math
import random
import tracemalloc
from collections.abc import Iterator
from functools import cache
from itertools import accumulate, cycle
from typing import Any

from benchmarks import cache_asgi, cache_wsgi
from benchmarks.cache_origin import BODY, Served, new_paths, raw_asgi_fresh
from benchmarks.django_apps import django_batch
from benchmarks.drive import LOOP, Driver, asgi_batch, wsgi_batch
from benchmarks.measure import Batch, Case, Figure, Group, Plan, missing
from benchmarks.subjects import Subject

__all__ = ["HELD_OF_ACCOUNTED", "figures", "groups"]

SIZES = (10, 10_000, 1_000_000)
ROOM = 10_000
DRAWN = 200_000
KEPT = 10_000
"""Entries whose memory is counted."""

MEMORY = "Cache: memory of an entry"
RATIO = "Cache: hit ratio"
HELD_OF_ACCOUNTED = "apigate, held of what it accounts"
CACHES = {
    "floor": lambda room: cache_asgi.floor(entries=room),
    "apigate": lambda room: cache_asgi.apigate(max_entries=room),
}


def groups(plan: Plan) -> tuple[Group, ...]:
    """A request of such a day, through caches that are full."""
    cases = [
        Case(f"{name}, {_said(plan.keys(size))} keys", lambda name=name, size=size: _requests(plan, name, size))
        for size in SIZES
        for name in CACHES
    ]
    return (Group(f"Cache, keys by Zipf, room for {_said(plan.keys(ROOM))}", tuple(cases), rebuilt=False),)


def figures(plan: Plan) -> Iterator[Figure]:
    """Hits of a hundred requests, and bytes of an entry."""
    for size in SIZES:
        for name in CACHES:
            asked = _trace(plan, size, 2)
            batch = _requests(plan, name, size)
            before = Served.calls
            batch(len(asked))
            hits = 100 * (1 - (Served.calls - before) / len(asked))
            yield Figure(f"{name}, {_said(plan.keys(size))} keys", hits, "%", RATIO)
    for driver, subject in MEASURED:
        yield _memory(driver, subject, plan.keys(KEPT))
    yield _database(plan.keys(KEPT))
    yield from _accounted(plan.keys(KEPT))


def _said(number: int) -> str:
    return f"{number:,}"


@cache
def _weights(size: int) -> list[float]:
    return list(accumulate(1 / place for place in range(1, size + 1)))


@cache
def _trace(plan: Plan, size: int, seed: int) -> list[str]:
    """The paths of a day; another day with another seed."""
    keys = plan.keys(size)
    source = random.Random(seed)
    return [f"/pets/{key:07d}" for key in source.choices(range(keys), cum_weights=_weights(keys), k=plan.keys(DRAWN))]


def _requests(plan: Plan, name: str, size: int) -> Batch:
    """The second day, after the first has filled the cache."""
    app = CACHES[name](plan.keys(ROOM))
    first = _trace(plan, size, 1)
    asgi_batch(app, paths=iter(first))(len(first))
    return asgi_batch(app, paths=cycle(_trace(plan, size, 2)))


MEASURED: tuple[tuple[Driver, Subject], ...] = (
    (asgi_batch, Subject("floor", lambda: cache_asgi.floor(raw_asgi_fresh))),
    (asgi_batch, Subject("apigate", lambda: cache_asgi.apigate(raw_asgi_fresh))),
    *((asgi_batch, subject) for subject in cache_asgi.ENDPOINTS if "apigate" not in subject.name),
    *((wsgi_batch, subject) for subject in cache_wsgi.FLASK_GATES if subject.name.endswith("Flask-Caching")),
    (django_batch, cache_wsgi.DJANGO_GATES[-1]),
)
"""What keeps its entries where tracemalloc sees them; hishel's are in SQLite, which tells its pages."""


def _memory(driver: Driver, subject: Subject, entries: int) -> Figure:
    what = f"{subject.name}, {len(BODY)} bytes of body"
    if (module := missing(subject.needs)) is not None:
        return Figure(what, None, "bytes", MEMORY, f"{module} is not installed")
    return Figure(what, _held(driver(subject.app(), paths=new_paths()), entries) / entries, "bytes", MEMORY)


def _database(entries: int) -> Figure:
    """What hishel keeps: the pages of its database in memory, which are nearly all, and what Python has beside them."""
    subject = cache_asgi.HISHEL[0]
    what = f"{subject.name}, {len(BODY)} bytes of body"
    if (module := missing(subject.needs)) is not None:
        return Figure(what, None, "bytes", MEMORY, f"{module} is not installed")
    app = subject.app()

    def pages() -> int:
        told = (_pragma(app.storage.connection, name) for name in ("page_count", "page_size"))
        return math.prod(map(LOOP.run_until_complete, told))

    batch = asgi_batch(app, paths=new_paths())
    before = pages()
    held = _held(batch, entries)
    return Figure(what, (held + pages() - before) / entries, "bytes", MEMORY)


async def _pragma(connection: Any, name: str) -> int:
    cursor = await connection.cursor()
    await cursor.execute(f"PRAGMA {name}")
    number: int = (await cursor.fetchone())[0]
    return number


def _accounted(entries: int) -> Iterator[Figure]:
    """What a gateway says of its own memory, and how much of that is there."""
    app = cache_asgi.apigate(raw_asgi_fresh)
    held = _held(asgi_batch(app, paths=new_paths()), entries) / entries
    told = app.gateway.stage("default").cache.stats()
    each = told["bytes"] / told["entries"]
    yield Figure("apigate, as it accounts", each, "bytes", MEMORY)
    yield Figure(HELD_OF_ACCOUNTED, held / each, "", MEMORY)


def _held(batch: Batch, entries: int) -> int:
    """The bytes that so many misses leave behind."""
    batch(100)
    gc.collect()
    Served.fresh = True
    tracemalloc.start()
    try:
        batch(entries)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        Served.fresh = False
