"""Other limiters that decide in memory, each as its documentation shows it. All are optional.

Rule: a peer is asked in its cheapest way. All but throttled-py answer yes or no only; what the
header fields of a response need costs `limits` another call, which is timed beside.
"""

from importlib import import_module
from itertools import repeat
from typing import Any

from benchmarks.measure import Batch

__all__ = ["limits_levels", "limits_once", "pyrate_once", "throttled_once"]

PER_SECOND = 1_000_000  # pyrate-limiter counts whole microseconds, so none can be faster
KEY = "192.0.2.1"


def _limits(strategy: str, *, refuse: bool) -> tuple[Any, Any]:
    limits = import_module("limits")
    limiter = getattr(import_module("limits.strategies"), strategy)(import_module("limits.storage").MemoryStorage())
    item = limits.RateLimitItemPerHour(10) if refuse else limits.RateLimitItemPerSecond(PER_SECOND)
    for _ in range(10):
        limiter.hit(item, KEY)
    if limiter.hit(item, KEY) is refuse:
        raise AssertionError(f"limits {strategy}: refuse={refuse} was not met")
    return limiter, item


def limits_once(strategy: str, *, refuse: bool = False, stats: bool = False) -> Batch:
    """One hit; with `stats` also the numbers that header fields need."""
    limiter, item = _limits(strategy, refuse=refuse)

    def hits(times: int) -> None:
        hit = limiter.hit
        for _ in repeat(None, times):
            hit(item, KEY)

    def hits_and_stats(times: int) -> None:
        hit, read = limiter.hit, limiter.get_window_stats
        for _ in repeat(None, times):
            hit(item, KEY)
            read(item, KEY)

    return hits_and_stats if stats else hits


def limits_levels(strategy: str) -> Batch:
    """Three hits, one a level; not all or nothing: the first stays taken if the third refuses."""
    limiter, item = _limits(strategy, refuse=False)

    def hits(times: int) -> None:
        hit = limiter.hit
        for _ in repeat(None, times):
            hit(item, "global") and hit(item, "stage", "prod") and hit(item, "client", KEY)

    return hits


def throttled_once(using: str, *, refuse: bool = False) -> Batch:
    """One call of `Throttled.limit`, which gives the full result."""
    throttled = import_module("throttled")
    quota = throttled.per_hour(10, burst=10) if refuse else throttled.per_sec(PER_SECOND, burst=PER_SECOND)
    limiter = throttled.Throttled(using=using, quota=quota, store=throttled.MemoryStore())
    for _ in range(10):
        limiter.limit(KEY)
    if limiter.limit(KEY).limited is not refuse:
        raise AssertionError(f"throttled-py {using}: refuse={refuse} was not met")

    def hits(times: int) -> None:
        limit = limiter.limit
        for _ in repeat(None, times):
            result = limit(KEY)
            _ = result.limited, result.state.remaining, result.state.retry_after

    return hits


def pyrate_once(*, log: bool, refuse: bool = False) -> Batch:
    """One call of `Limiter.try_acquire`, on its default bucket (a log) or on its GCRA bucket."""
    pyrate = import_module("pyrate_limiter")
    rate = pyrate.Rate(10, pyrate.Duration.HOUR) if refuse else pyrate.Rate(PER_SECOND, pyrate.Duration.SECOND)
    bucket = pyrate.InMemoryBucket([rate]) if log else pyrate.StateBucket([rate])
    limiter = pyrate.Limiter(pyrate.SingleBucketFactory(bucket, schedule_leak=False))
    for _ in range(10):
        limiter.try_acquire(KEY, blocking=False)
    if limiter.try_acquire(KEY, blocking=False) is refuse:
        raise AssertionError(f"pyrate-limiter log={log}: refuse={refuse} was not met")

    def hits(times: int) -> None:
        acquire = limiter.try_acquire
        for _ in repeat(None, times):
            acquire(KEY, blocking=False)

    return hits
