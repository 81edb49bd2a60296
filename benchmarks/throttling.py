"""Throttling in memory: one decision, beside the floors and the peers."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, cycle, islice, repeat

from apigate import Rate, Throttle
from apigate.stores.memory import MemoryStore
from benchmarks import floors, peers
from benchmarks.measure import Batch, Case, Group, Plan

__all__ = ["FAST", "SLOW", "groups"]

KEY = "192.0.2.1"
FAST = Rate(10_000_000)  # faster than any case asks, so that none is refused
SLOW = Rate(1, per=86_400)
HELD = Rate(1, per=600, burst=1_000_000)  # none is refused, and none is idle so soon that it is dropped
KEYS = 100_000
FIXED = "FixedWindowRateLimiter"
MOVING = "MovingWindowRateLimiter"


def groups(plan: Plan) -> tuple[Group, ...]:
    """Everything about one decision."""
    return (
        Group(
            "One bucket",
            (
                Case("floor", lambda: floor_once(FAST)),
                Case("apigate", lambda: apigate_once(FAST)),
                Case("apigate, verdict only", apigate_verdict),
                *_peers(refuse=False),
                Case(
                    "limits fixed-window, with window stats",
                    lambda: peers.limits_once(FIXED, stats=True),
                    ("limits",),
                ),
            ),
        ),
        Group(
            "Three levels in one decision",
            (
                Case("floor", floor_levels),
                Case("apigate", apigate_levels),
                Case("apigate, every level read", apigate_every_level),
                Case("apigate, verdict only", apigate_levels_verdict),
                Case(
                    "limits fixed-window, three hits",
                    lambda: peers.limits_levels(FIXED),
                    ("limits",),
                ),
            ),
        ),
        Group(
            "Refused",
            (
                Case("floor", lambda: floor_once(SLOW)),
                Case("apigate", lambda: apigate_once(SLOW)),
                *_peers(refuse=True),
            ),
        ),
        Group("Many keys", _many_keys(plan), rebuilt=False),
        Group("Threads", _threads(), waits=True),
    )


def _peers(*, refuse: bool) -> tuple[Case, ...]:
    return (
        Case(
            "limits fixed-window, yes or no",
            lambda: peers.limits_once(FIXED, refuse=refuse),
            ("limits",),
        ),
        Case(
            "limits moving-window, yes or no",
            lambda: peers.limits_once(MOVING, refuse=refuse),
            ("limits",),
        ),
        Case("throttled-py GCRA", lambda: peers.throttled_once("gcra", refuse=refuse), ("throttled",)),
        Case(
            "throttled-py token bucket",
            lambda: peers.throttled_once("token_bucket", refuse=refuse),
            ("throttled",),
        ),
        Case(
            "pyrate-limiter GCRA, yes or no",
            lambda: peers.pyrate_once(log=False, refuse=refuse),
            ("pyrate_limiter",),
        ),
        Case(
            "pyrate-limiter log, yes or no",
            lambda: peers.pyrate_once(log=True, refuse=refuse),
            ("pyrate_limiter",),
        ),
    )


def _many_keys(plan: Plan) -> tuple[Case, ...]:
    """State is kept: each batch goes on through the shuffled keys where the last one ended."""
    many = plan.keys(KEYS)
    return (
        Case("floor, 1 key", lambda: floor_keys(1)),
        Case("floor, 100,000 keys", lambda: floor_keys(many)),
        Case("apigate, 1 key", lambda: apigate_keys(1)),
        Case("apigate, 100,000 keys", lambda: apigate_keys(many)),
    )


def _threads() -> tuple[Case, ...]:
    return (
        Case("floor, 1 thread", lambda: threaded(lambda: floor_once(FAST), 1)),
        Case("floor, 2 threads", lambda: threaded(lambda: floor_once(FAST), 2)),
        Case("floor, 4 threads", lambda: threaded(lambda: floor_once(FAST), 4)),
        Case("apigate, 1 thread", lambda: threaded(lambda: apigate_once(FAST), 1)),
        Case("apigate, 2 threads", lambda: threaded(lambda: apigate_once(FAST), 2)),
        Case("apigate, 4 threads", lambda: threaded(lambda: apigate_once(FAST), 4)),
    )


def floor_once(rate: Rate) -> Batch:
    acquire = floors.one_bucket(rate)
    acquire(KEY)

    def batch(times: int) -> None:
        for _ in repeat(None, times):
            _allowed, _left, _wait = acquire(KEY)

    return batch


def apigate_once(rate: Rate) -> Batch:
    acquire = Throttle({"client": rate}).acquire
    acquire({"client": KEY})

    def batch(times: int) -> None:
        for _ in repeat(None, times):
            decision = acquire({"client": KEY})
            _ = decision.allowed, decision.remaining, decision.retry_after

    return batch


def apigate_verdict() -> Batch:
    acquire = Throttle({"client": FAST}).acquire

    def batch(times: int) -> None:
        for _ in repeat(None, times):
            _ = acquire({"client": KEY}).allowed

    return batch


def floor_levels() -> Batch:
    acquire = floors.three_levels(FAST)

    def batch(times: int) -> None:
        for _ in repeat(None, times):
            _allowed, _all, _stage, _client, _wait = acquire("prod", KEY)

    return batch


def _three_levels() -> Throttle:
    return Throttle({"global": FAST, "stage": FAST, "client": FAST})


def apigate_levels() -> Batch:
    """Reads what the header fields need: the wait, and what is left at the tightest level."""
    acquire = _three_levels().acquire

    def batch(times: int) -> None:
        for _ in repeat(None, times):
            decision = acquire({"stage": "prod", "client": KEY})
            _ = decision.allowed, decision.retry_after
            _ = decision.remaining

    return batch


def apigate_every_level() -> Batch:
    """Reads as much as the floor gives: the wait, and what is left at each of the three levels."""
    acquire = _three_levels().acquire

    def batch(times: int) -> None:
        for _ in repeat(None, times):
            decision = acquire({"stage": "prod", "client": KEY})
            levels = decision.levels
            _ = decision.allowed, decision.retry_after
            _ = levels["global"].remaining, levels["stage"].remaining, levels["client"].remaining

    return batch


def apigate_levels_verdict() -> Batch:
    acquire = _three_levels().acquire

    def batch(times: int) -> None:
        for _ in repeat(None, times):
            _ = acquire({"stage": "prod", "client": KEY}).allowed

    return batch


def _shuffled(count: int) -> list[str]:
    keys = [f"192.0.2.{number}" for number in range(count)]
    random.Random(count).shuffle(keys)
    return keys


def floor_keys(count: int) -> Batch:
    acquire = floors.one_bucket(HELD)
    keys = _shuffled(count)
    for key in chain(keys, keys):
        acquire(key)
    asked = cycle(keys)

    def batch(times: int) -> None:
        for key in islice(asked, times):
            acquire(key)

    return batch


def apigate_keys(count: int) -> Batch:
    acquire = Throttle({"client": HELD}, store=MemoryStore(max_keys=2 * KEYS)).acquire
    keys = _shuffled(count)
    for key in chain(keys, keys):  # the second time none is new
        acquire({"client": key})
    asked = cycle(keys)

    def batch(times: int) -> None:
        for key in islice(asked, times):
            acquire({"client": key})

    return batch


def threaded(build: Callable[[], Batch], count: int) -> Batch:
    """The batch of one shared state, shared out over so many threads; what one raises is raised."""
    share = build()

    def batch(times: int) -> None:
        with ThreadPoolExecutor(count) as pool:
            for done in [pool.submit(share, times // count) for _ in range(count)]:
                done.result()

    return batch
