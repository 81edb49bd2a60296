"""The token bucket against exact fractions, over rates from 1 a second to 999,983 a week.

The long traces are drawn from a seeded generator, for they are many; the same traces must find out two well-known
ways to do it with a rounding error, or they would prove nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from random import Random

import pytest

from apigate import Rate
from apigate.stores.memory import MemoryStore
from apigate.throttling.limit import limits_of

PERIODS = (1, 60, 3_600, 86_400, 604_800)
PRIMES = (2, 3, 7, 97, 997, 65_537, 999_983)

Step = tuple[int, int]
"""Microseconds that pass, and the cost that is then asked for."""

Bucket = Callable[[int, int], tuple[bool, int, int]]
"""Asked at a microsecond for a cost: whether it is admitted, the wait in microseconds, whole tokens left."""


@dataclass
class Exact:
    """One bucket in fractions: tokens owed, and when that was so."""

    rate: Rate
    owed: Fraction = Fraction(0)
    last: int = 0

    def __call__(self, now: int, cost: int) -> tuple[bool, int, int]:
        speed = Fraction(self.rate.count, round(self.rate.per * 1_000_000))
        owed = max(Fraction(0), self.owed - (now - self.last) * speed)
        missing = owed + cost - self.rate.size
        if missing > 0:
            return False, ceil(missing / speed), floor(self.rate.size - owed)
        self.owed, self.last = owed + cost, now
        return True, 0, floor(self.rate.size - self.owed)


def ours(rate: Rate) -> Bucket:
    buckets = MemoryStore().open(limits_of("client", "client", [rate]), 0)

    def ask(now: int, cost: int) -> tuple[bool, int, int]:
        decision = buckets.acquire(["a"], [cost], now)
        return decision.allowed, decision.wait_us, decision.buckets[0].remaining

    return ask


def float_gcra(rate: Rate) -> Bucket:
    """The theoretical arrival time in floating point seconds."""
    interval = rate.per / rate.count
    arrival = 0.0

    def ask(now: int, cost: int) -> tuple[bool, int, int]:
        nonlocal arrival
        seconds = now / 1_000_000
        new = max(arrival, seconds) + cost * interval
        missing = new - seconds - rate.size * interval
        if missing > 0:
            return False, ceil(missing * 1_000_000), floor(rate.size - (max(arrival, seconds) - seconds) / interval)
        arrival = new
        return True, 0, floor(rate.size - (arrival - seconds) / interval)

    return ask


def rounded_gcra(rate: Rate) -> Bucket:
    """The theoretical arrival time in whole microseconds, the interval rounded up."""
    interval = -(-round(rate.per * 1_000_000) // rate.count)
    arrival = 0

    def ask(now: int, cost: int) -> tuple[bool, int, int]:
        nonlocal arrival
        new = max(arrival, now) + cost * interval
        missing = new - now - rate.size * interval
        if missing > 0:
            return False, missing, rate.size - -(-(max(arrival, now) - now) // interval)
        arrival = new
        return True, 0, rate.size - -(-(arrival - now) // interval)

    return ask


def traces(number: int, seed: int) -> Iterator[tuple[Rate, Random]]:
    random = Random(seed)
    for _ in range(number):
        count = random.choice([random.randint(1, 20), random.randint(1, 999_983), random.choice(PRIMES)])
        burst = random.choice([1, random.randint(1, 10), random.randint(1, 1_000)])
        yield Rate(count, per=random.choice(PERIODS), burst=burst), random


def first_mismatch(make: Callable[[Rate], Bucket], rate: Rate, random: Random, steps: int) -> str | None:
    """Where a bucket and the exact one part; both are asked at the moments that hurt: exactly when told, and around."""
    bucket, exact, now = make(rate), Exact(rate), 0
    told = 0
    fill_us = rate.window * 1_000_000
    for _ in range(steps):
        now += random.choice([0, 0, 1, max(0, told - 1), told, told + 1, random.randint(0, fill_us)])
        cost = random.choice([1, 1, random.randint(1, rate.size), rate.size])
        found, expected = bucket(now, cost), exact(now, cost)
        if found != expected:
            return f"{rate!r} at {now} us, cost {cost}: {found} instead of {expected}"
        told = expected[1]
    return None


def test_a_long_fuzz_against_exact_fractions_finds_no_mismatch():
    mismatches = [first_mismatch(ours, rate, random, steps=60) for rate, random in traces(2_000, seed=1)]
    assert [mismatch for mismatch in mismatches if mismatch] == []


@pytest.mark.parametrize("broken", [float_gcra, rounded_gcra])
def test_the_same_fuzz_finds_out_rounding_errors(broken):
    mismatches = [first_mismatch(broken, rate, random, steps=60) for rate, random in traces(150, seed=1)]
    assert any(mismatches)


@pytest.mark.parametrize(
    "rate",
    [
        Rate(54, per=60, burst=10),
        Rate(700_000, burst=3),
        Rate(3, per=7, burst=2),
        Rate(1, per=604_800, burst=2),
        Rate(999_983, burst=40),
    ],
    ids=str,
)
def test_who_keeps_asking_gets_the_whole_rate_and_not_a_token_more(rate):
    """In the long run: what was admitted is the burst and all that flowed back, rounded down."""
    bucket, interval = ours(rate), Fraction(rate.period_us, rate.count)
    step = max(Fraction(1), interval / 7)
    steps = 20_000
    admitted = sum(bucket(floor(number * step), 1)[0] for number in range(steps))
    due = min(steps, rate.size + floor(floor((steps - 1) * step) / interval))
    assert due - 1 <= admitted <= due
