"""Who should go when the cache is full: the memory tier's second chance beside LRU, W-TinyLFU and S3-FIFO.

Rule: all see the same requests and have room for as many entries; a key that is not there is stored. The tier is the
one that gateways have, LRU is cachetools'; the other two are models after their papers, at their best (TinyLFU counts
exactly, where it would estimate). An entry with a lifetime must be stored anew when that is over; only the tier drops
such entries by itself. Traces are made from a seed: none of a real service was to be had.
"""

import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate, cycle, islice
from threading import Lock
from typing import NamedTuple, Protocol

from cachetools import LRUCache

from apigate.caching.entry import StoredResponse
from apigate.caching.memory import MemoryTier
from benchmarks.measure import Batch, Case, Figure, Group, Plan

__all__ = ["figures", "groups"]

KEYS = 100_000
REQUESTS = 400_000
ROOMS = (0.01, 0.1)
"""Of the keys."""

LIFETIME = 0.05
"""Of the requests: an entry lives until so many more have come."""

SECOND = 1_000_000


class Policy(Protocol):
    """A cache for a number of entries, in which each key stands with the moment until which it may be used."""

    def get(self, key: int) -> int:
        """The moment; 0 where the key is not there. It counts as a use."""

    def put(self, key: int, until: int, now: int) -> None:
        """Store a key, or another moment for one that is there."""


class Tier:
    """The memory tier, bounded by its entries alone."""

    def __init__(self, room: int) -> None:
        self.tier = MemoryTier(1 << 40, room, 1 << 20)

    def get(self, key: int) -> int:
        found = self.tier.get((str(key),))
        return found[0].fresh_until_us // SECOND if found else 0

    def put(self, key: int, until: int, now: int) -> None:
        now_us = now * SECOND
        response = StoredResponse(
            status=200, fields=(), body=b"", initial_age=0, received_us=now_us, lifetime=until - now, grace=0
        )
        self.tier.put((str(key),), response, now_us)


class LRU:
    """Strictly whoever was not used for longest."""

    def __init__(self, room: int) -> None:
        self.kept: LRUCache[int, int] = LRUCache(room)

    def get(self, key: int) -> int:
        return self.kept.get(key, 0)

    def put(self, key: int, until: int, now: int) -> None:
        self.kept[key] = until


class TinyLFU:
    """W-TinyLFU: an LRU of 1 %; who falls out of it stays if asked for more often than the next to go from the rest.

    The rest is a segmented LRU, four fifths for what was used twice. Counts end at 15, and are halved every ten times
    as many requests as there is room. Source: Einziger, Friedman, Manes, 2017; the sizes are Caffeine's.
    """

    def __init__(self, room: int) -> None:
        self.window_room = max(1, room // 100)
        self.main_room = room - self.window_room
        self.window, self.once, self.often = (OrderedDict[int, int]() for _ in range(3))
        self.counts = Counter[int]()
        self.counted = 0

    def get(self, key: int) -> int:
        self.count(key)
        for part in (self.window, self.often):
            if key in part:
                part.move_to_end(key)
                return part[key]
        if key not in self.once:
            return 0
        until = self.often[key] = self.once.pop(key)
        if len(self.often) > self.main_room * 4 // 5:
            self.once.update([self.often.popitem(last=False)])
        return until

    def put(self, key: int, until: int, now: int) -> None:
        for part in (self.window, self.once, self.often):
            if key in part:
                part[key] = until
                return
        self.window[key] = until
        if len(self.window) > self.window_room:
            candidate, until = self.window.popitem(last=False)
            if len(self.once) + len(self.often) >= self.main_room:
                rest = self.once or self.often
                victim = next(iter(rest))
                if self.counts[candidate] <= self.counts[victim]:
                    return
                del rest[victim]
            self.once[candidate] = until

    def count(self, key: int) -> None:
        self.counts[key] = min(15, self.counts[key] + 1)
        self.counted += 1
        if self.counted >= 10 * (self.window_room + self.main_room):
            self.counts = Counter({key: count // 2 for key, count in self.counts.items() if count > 1})
            self.counted //= 2


class S3FIFO:
    """A queue of 10 % for all that is new, one for what was asked for again, and the keys of those that went early.

    Source: Yang, Zhang, Qiu, Yue, Rashmi, 2023, algorithm 1.
    """

    def __init__(self, room: int) -> None:
        self.small_room = max(1, room // 10)
        self.room = room
        self.small, self.main, self.ghosts = (OrderedDict[int, None]() for _ in range(3))
        self.until: dict[int, int] = {}
        self.uses: dict[int, int] = {}

    def get(self, key: int) -> int:
        if key not in self.until:
            return 0
        self.uses[key] = min(3, self.uses[key] + 1)
        return self.until[key]

    def put(self, key: int, until: int, now: int) -> None:
        if key not in self.until:
            while len(self.until) >= self.room:
                if len(self.small) >= self.small_room or not self.main:
                    self.evict_new()
                else:
                    self.evict_old()
            known = key in self.ghosts
            self.ghosts.pop(key, None)
            (self.main if known else self.small)[key] = None
            self.uses[key] = 0
        self.until[key] = until

    def evict_new(self) -> None:
        key, _ = self.small.popitem(last=False)
        if self.uses[key] > 1:
            self.main[key] = None
            self.uses[key] = 0
            return
        del self.until[key], self.uses[key]
        self.ghosts[key] = None
        if len(self.ghosts) > self.room - self.small_room:
            self.ghosts.popitem(last=False)

    def evict_old(self) -> None:
        while True:
            key, _ = self.main.popitem(last=False)
            if not self.uses[key]:
                del self.until[key], self.uses[key]
                return
            self.uses[key] -= 1
            self.main[key] = None


POLICIES: dict[str, Callable[[int], Policy]] = {
    "apigate": Tier,
    "LRU": LRU,
    "W-TinyLFU": TinyLFU,
    "S3-FIFO": S3FIFO,
}


class Trace(NamedTuple):
    """Which keys are asked for, one after the other, of so many; and whether entries have a lifetime."""

    asked: Callable[[Plan], Sequence[int]]
    expires: bool = False


@cache
def ranks(plan: Plan) -> list[int]:
    """Drawn by Zipf's law: the second is asked for half as often as the first, the third a third as often."""
    keys = plan.keys(KEYS)
    weights = list(accumulate(1 / place for place in range(1, keys + 1)))
    return random.Random(1).choices(range(keys), cum_weights=weights, k=plan.keys(REQUESTS))


def scans(plan: Plan) -> list[int]:
    """Ever again a twentieth of all keys is asked for, once each, as by a crawler; a third of all requests are such."""
    keys, draws = plan.keys(KEYS), iter(ranks(plan))
    crawled = cycle(range(keys))
    share = max(1, keys // 20)
    asked: list[int] = []
    while chunk := [*islice(draws, 2 * share)]:
        asked += chunk
        asked += islice(crawled, share)
    return asked[: plan.keys(REQUESTS)]


def slow_drift(plan: Plan) -> list[int]:
    """Every hundredth request, one of the hundred most popular changes places with any other key."""
    return changing(plan, 100)


def fast_drift(plan: Plan) -> list[int]:
    """The same every fifth."""
    return changing(plan, 5)


def changing(plan: Plan, every: int) -> list[int]:
    keys, source = plan.keys(KEYS), random.Random(2)
    order = list(range(keys))
    asked = []
    for moment, rank in enumerate(ranks(plan)):
        if not moment % every:
            one, other = source.randrange(min(100, keys)), source.randrange(keys)
            order[one], order[other] = order[other], order[one]
        asked.append(order[rank])
    return asked


def news(plan: Plan) -> list[int]:
    """Every tenth request there is a new key, asked for more often than all before it, which lose a rank each."""
    return [plan.keys(KEYS) + moment // 10 - rank for moment, rank in enumerate(ranks(plan))]


def loop(plan: Plan) -> list[int]:
    """An eighth of all keys, in turn: a little more than there is ever room for."""
    return [*islice(cycle(range(plan.keys(KEYS) // 8 or 1)), plan.keys(REQUESTS))]


TRACES = {
    "Zipf": Trace(ranks),
    "Zipf and scans": Trace(scans),
    "slow drift": Trace(slow_drift),
    "fast drift": Trace(fast_drift),
    "news": Trace(news),
    "loop": Trace(loop),
    "Zipf, lifetimes": Trace(ranks, expires=True),
    "slow drift, lifetimes": Trace(slow_drift, expires=True),
    "fast drift, lifetimes": Trace(fast_drift, expires=True),
    "news, lifetimes": Trace(news, expires=True),
}


def figures(plan: Plan) -> Iterator[Figure]:
    """Hits of a hundred requests: each policy on each trace, with room for a hundredth and a tenth of the keys."""
    for share in ROOMS:
        room = max(10, int(plan.keys(KEYS) * share))
        heading = f"Eviction: hit ratio, room for {room:,} of {plan.keys(KEYS):,} keys"
        for name, trace in TRACES.items():
            asked = trace.asked(plan)
            lifetime = int(len(asked) * LIFETIME) if trace.expires else 2 * len(asked)
            for policy, make in POLICIES.items():
                hits = count_hits(make(room), asked, lifetime)
                yield Figure(f"{name}: {policy}", 100 * hits / len(asked), "%", heading)


def count_hits(policy: Policy, asked: Sequence[int], lifetime: int) -> int:
    """How often what was asked for was there, and not too old."""
    hits = 0
    for now, key in enumerate(asked):
        if policy.get(key) > now:
            hits += 1
        else:
            policy.put(key, now + lifetime, now)
    return hits


def groups(plan: Plan) -> tuple[Group, ...]:
    """What a hit costs: one that sets a mark, and one that moves what it found under a lock."""
    return (Group("Eviction: a hit", (Case("LRU of cachetools, under a lock", _lru), Case("apigate", _tier))),)


def _lru() -> Batch:
    kept, lock, key = LRUCache[tuple[str, ...], int](10), Lock(), ("1",)
    kept[key] = 1

    def batch(times: int) -> None:
        for _ in range(times):
            with lock:
                kept.get(key)

    return batch


def _tier() -> Batch:
    policy, key = Tier(10), ("1",)
    policy.put(1, 2, 1)
    get = policy.tier.get
    assert get(key)

    def batch(times: int) -> None:
        for _ in range(times):
            get(key)

    return batch
