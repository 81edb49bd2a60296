"""Whoever decides on a Redis: apigate, its floor, and other limiters, each in threads and in tasks.

Rule: each has its own connections to the same server, is asked for the clients in turn, in its cheapest way and, where
its name says so, with the numbers that header fields need; and none is refused. The floor is one EVALSHA of the
smallest script that limits anything, through the client library as its documentation shows it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from typing import Any, TypeAlias

from apigate import Rate, Throttle, Window
from apigate.stores.redis import RedisStore
from apigate.throttling.decision import Decision

__all__ = [
    "APIGATE",
    "ASKERS",
    "CLIENTS",
    "FIXED",
    "FLOOR",
    "MOVING",
    "PATIENCE_MS",
    "SLOWLY",
    "Ask",
    "AskTask",
    "Asker",
    "apigate_tasks",
    "apigate_threads",
    "apigate_window",
    "limits_threads",
]

Ask: TypeAlias = Callable[[str], object]
"""Decides for one client, in the calling thread; true if it was admitted."""

AskTask: TypeAlias = Callable[[str], Awaitable[object]]
"""The same under an event loop."""

CLIENTS = tuple(f"192.0.2.{number}" for number in range(100))
SLOWLY = Rate(1_000, burst=10_000_000)
"""More than any case asks in all; and what was taken takes so long to come back that its bucket is kept."""

PATIENCE_MS = 10_000  # a machine that stalls must not end a measurement
NUMBERS = count()
FLOOR = "floor: one EVALSHA of a client's counter"
APIGATE = "apigate, three levels, with numbers"
FIXED = "FixedWindowRateLimiter"
MOVING = "MovingWindowRateLimiter"
COUNT = """
local number = redis.call('INCR', KEYS[1])
if number == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return number
"""


@dataclass(frozen=True)
class Asker:
    """One that decides.

    Attributes:
        name: What the tables call it.
        threads: Makes, for the address of a server, what decides in threads; None where it has no such way.
        tasks: The same for tasks.
        needs: Modules it imports, besides the client library; without one of them it is left out.
    """

    name: str
    threads: Callable[[str], Ask] | None = None
    tasks: Callable[[str], AskTask] | None = None
    needs: tuple[str, ...] = ()


# ---- the floor


def floor_threads(uri: str) -> Ask:
    client = import_module("redis").Redis.from_url(uri)
    sha = client.script_load(COUNT)
    return lambda key: client.evalsha(sha, 1, f"floor:{key}", 60_000)


def floor_tasks(uri: str) -> AskTask:
    sha = import_module("redis").Redis.from_url(uri).script_load(COUNT)
    client = import_module("redis.asyncio").Redis.from_url(uri)
    return lambda key: client.evalsha(sha, 1, f"floor:{key}", 60_000)


# ---- apigate


def three_levels(uri: str, client: Rate | Window = SLOWLY, *, lease: int = 1) -> Throttle:
    """A throttle as a gateway has it, whose buckets no other shares."""
    levels = {"global": SLOWLY, "stage": SLOWLY, "client": client}
    store = RedisStore(uri, deadline_ms=PATIENCE_MS, lease=lease)
    return Throttle(levels, store=store, name=f"bench{next(NUMBERS)}")


def apigate_threads(uri: str, *, lease: int = 1) -> Ask:
    acquire = three_levels(uri, lease=lease).acquire
    return lambda key: admitted(acquire({"stage": "prod", "client": key}))


def apigate_window(uri: str) -> Ask:
    acquire = three_levels(uri, Window("10000000/minute", kind="sliding")).acquire
    return lambda key: admitted(acquire({"stage": "prod", "client": key}))


def apigate_tasks(uri: str, *, lease: int = 1) -> AskTask:
    acquire = three_levels(uri, lease=lease).acquire_async

    async def ask(key: str) -> object:
        return admitted(await acquire({"stage": "prod", "client": key}))

    return ask


def admitted(decision: Decision) -> bool:
    """The verdict, once all was read that the header fields of a response need."""
    _ = decision.retry_after, decision.remaining
    return decision.allowed


# ---- limits


def limits_threads(strategy: str, *, stats: bool) -> Callable[[str], Ask]:
    def connect(uri: str) -> Ask:
        storage = import_module("limits.storage").storage_from_string(uri)
        limiter = getattr(import_module("limits.strategies"), strategy)(storage)
        item = import_module("limits").RateLimitItemPerMinute(10_000_000)
        if not stats:
            return lambda key: limiter.hit(item, key)
        return lambda key: limiter.hit(item, key) and limiter.get_window_stats(item, key)

    return connect


def limits_tasks(strategy: str, *, stats: bool) -> Callable[[str], AskTask]:
    def connect(uri: str) -> AskTask:
        storage = import_module("limits.storage").storage_from_string(f"async+{uri}", implementation="redispy")
        limiter = getattr(import_module("limits.aio.strategies"), strategy)(storage)
        item = import_module("limits").RateLimitItemPerMinute(10_000_000)

        async def ask(key: str) -> object:
            return await limiter.hit(item, key) and await limiter.get_window_stats(item, key)

        return ask if stats else lambda key: limiter.hit(item, key)

    return connect


# ---- throttled-py, pyrate-limiter, fastapi-limiter


def throttled_threads(uri: str) -> Ask:
    throttled = import_module("throttled")
    quota = throttled.per_sec(1_000, burst=10_000_000)
    limit = throttled.Throttled(using="gcra", quota=quota, store=throttled.RedisStore(server=uri)).limit
    return lambda key: not limit(key).limited


def throttled_tasks(uri: str) -> AskTask:
    throttled = import_module("throttled.asyncio")
    quota = throttled.per_sec(1_000, burst=10_000_000)
    limit = throttled.Throttled(using="gcra", quota=quota, store=throttled.RedisStore(server=uri)).limit

    async def ask(key: str) -> object:
        return not (await limit(key)).limited

    return ask


def pyrate(client: Any) -> Any:
    """A limiter with a bucket of constant size for each client, which its documentation shows how to make."""
    library = import_module("pyrate_limiter")
    rates = [library.Rate(1_000, library.Duration.SECOND, burst=10_000_000)]

    class EachClient(library.BucketFactory):
        def __init__(self) -> None:
            self.buckets: dict[str, Any] = {}

        def wrap_item(self, name: str, weight: int = 1) -> Any:
            return library.RateItem(name, library.RedisStateStore.default_clock.now(), weight=weight)

        def get(self, item: Any) -> Any:
            bucket = self.buckets.get(item.name)
            if bucket is None:
                store = library.RedisStateStore(client, f"pyrate:{item.name}")
                bucket = self.buckets[item.name] = library.StateBucket(rates, store=store)
            return bucket

    return library.Limiter(EachClient())


def pyrate_threads(uri: str) -> Ask:
    """It has one lock for all clients; asked not to block, it would refuse whoever finds that taken."""
    return pyrate(import_module("redis").Redis.from_url(uri)).try_acquire


def pyrate_tasks(uri: str) -> AskTask:
    return pyrate(import_module("redis.asyncio").Redis.from_url(uri)).try_acquire_async


def fastapi_limiter_tasks(uri: str) -> AskTask:
    """Its dependency alone, asked for requests that are there already; FastAPI's own time is not counted."""
    from fastapi import Depends, Request
    from fastapi_limiter.depends import RateLimiter

    from benchmarks.drive import SCOPE
    from benchmarks.fastapi_apps import fastapi

    limit = RateLimiter(limiter=pyrate(import_module("redis.asyncio").Redis.from_url(uri)))
    scope = SCOPE | {"path": "/pets", "app": fastapi(dependencies=[Depends(limit)])}
    requests = {key: Request(scope | {"client": (key, 50_000)}) for key in CLIENTS}

    async def ask(key: str) -> object:
        await limit(requests[key], None)  # raises where it refuses
        return True

    return ask


ASKERS = (
    Asker(FLOOR, floor_threads, floor_tasks),
    Asker(APIGATE, apigate_threads, apigate_tasks),
    Asker(f"{APIGATE}, lease=20", lambda uri: apigate_threads(uri, lease=20), lambda uri: apigate_tasks(uri, lease=20)),
    Asker("limits fixed-window, yes or no", limits_threads(FIXED, stats=False), limits_tasks(FIXED, stats=False)),
    Asker("limits fixed-window, with window stats", limits_threads(FIXED, stats=True), limits_tasks(FIXED, stats=True)),
    Asker("throttled-py GCRA, with numbers", throttled_threads, throttled_tasks, ("throttled",)),
    Asker("pyrate-limiter GCRA, yes or no", pyrate_threads, pyrate_tasks, ("pyrate_limiter",)),
    Asker("fastapi-limiter, its dependency alone", None, fastapi_limiter_tasks, ("fastapi_limiter", "pyrate_limiter")),
)
