"""Memory of the in-memory store: what a key takes, where it ends, and what that costs."""

import random
import tracemalloc
from collections.abc import Iterator
from itertools import islice

from apigate import Throttle
from apigate.stores.memory import MemoryStore
from benchmarks import floors
from benchmarks.measure import Batch, Case, Figure, Group, Plan
from benchmarks.throttling import SLOW

__all__ = ["figures", "groups"]

KEYS = 100_000
FLOOD = 1_000_000


def figures(plan: Plan) -> Iterator[Figure]:
    """Bytes as tracemalloc counts them, the keys' own text included: nobody else holds it."""
    kept = plan.keys(KEYS)
    for digits in (16, 64):
        (held,) = _held(kept, digits, kept)
        yield Figure(f"memory of a key of {digits} characters", held / kept, "bytes")
    before, after = _held(kept, 16, plan.keys(FLOOD), plan.keys(FLOOD))
    yield Figure("memory of a place when random keys have taken all", before / kept, "bytes")
    yield Figure("growth of it by as many random keys again", (after - before) / kept, "bytes")


def groups(plan: Plan) -> tuple[Group, ...]:
    """What a decision costs for a key never seen before, with room for it and with none."""
    return (
        Group(
            "Keys never seen before",
            (
                Case("floor, never bounded", _floor),
                Case("apigate, room for all", lambda: _strangers(100 * FLOOD, 0)),
                Case("apigate, no room left", lambda: _strangers(plan.keys(KEYS), plan.keys(KEYS))),
            ),
        ),
    )


def _random_keys(digits: int) -> Iterator[str]:
    source = random.Random(digits)
    while True:
        yield f"{source.getrandbits(4 * digits):0{digits}x}"


def _held(max_keys: int, digits: int, *asked: int) -> list[int]:
    """The bytes held after each of these numbers of decisions, every one for another key."""
    keys = _random_keys(digits)
    tracemalloc.start()
    throttle = Throttle({"client": SLOW}, store=MemoryStore(max_keys))
    held = []
    for number in asked:
        for key in islice(keys, number):
            throttle.acquire({"client": key})
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return held


def _floor() -> Batch:
    acquire = floors.one_bucket(SLOW)
    keys = _random_keys(16)

    def batch(times: int) -> None:
        for key in islice(keys, times):
            acquire(key)

    return batch


def _strangers(max_keys: int, known: int) -> Batch:
    acquire = Throttle({"client": SLOW}, store=MemoryStore(max_keys)).acquire
    keys = _random_keys(16)
    for key in islice(keys, known):
        acquire({"client": key})

    def batch(times: int) -> None:
        for key in islice(keys, times):
            acquire({"client": key})

    return batch
