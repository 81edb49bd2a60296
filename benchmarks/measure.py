"""Time cases that are to be compared side by side, so that what disturbs one disturbs all.

Rule: processor time of the whole process (a peer's threads are paid for), short batches, every case
once a round in a fresh order, state built anew for every batch. What is compared is compared within
a round; medians over the rounds.
"""

import gc
import importlib.util
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TypeAlias

__all__ = [
    "Batch",
    "Case",
    "Cost",
    "Figure",
    "Group",
    "Load",
    "Plan",
    "Samples",
    "measure",
    "missing",
    "pinned",
    "quartiles",
    "quiet",
]

Batch: TypeAlias = Callable[[int], object]
"""Does the timed thing so many times. The loop is inside, so only the case's own calls count."""

WARM_UP = 300  # PEP 659: a call site is specialised again for each new closure that it meets


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        name: What the table calls it.
        build: Makes the batch with fresh state; not timed. It fails where the case would not do
            what it is named for.
        needs: Modules it imports. Without one of them the case is left out.
    """

    name: str
    build: Callable[[], Batch]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Cases that are timed together.

    Attributes:
        title: The heading in the report, and where `budgets` finds what must hold.
        cases: The first is the reference of the table.
        rebuilt: Whether state is fresh for every batch, or (where filling it takes long) for the
            whole group.
        waits: Whether waiting is what is measured: then by wall time, on all processors, in batches
            many times longer than the 5 ms after which threads take turns.
    """

    title: str
    cases: tuple[Case, ...]
    rebuilt: bool = True
    waits: bool = False


@dataclass(frozen=True)
class Figure:
    """One thing that is measured as it is: bytes held, milliseconds added.

    Attributes:
        what: What the table calls it, and where `budgets` finds what must hold.
        value: The figure; None where it could not be measured.
        unit: Its unit.
        heading: The table that it stands in.
        left_out: Why it could not be measured, in plain words.
    """

    what: str
    value: float | None
    unit: str
    heading: str = "Memory and import"
    left_out: str = ""


@dataclass(frozen=True)
class Plan:
    """How much to measure: rounds, seconds of a batch, and the share of the full number of keys."""

    rounds: int
    batch: float
    scale: float

    def keys(self, full: int) -> int:
        """How many keys to use where a full run uses so many."""
        return max(1, int(full * self.scale))


@dataclass(frozen=True)
class Cost:
    """A figure of each round: a case's time, what it adds over another, or a multiple of another.

    >>> list(Cost("gate", over="bare").of({"gate": [5.0, 7.0], "bare": [1.0, 2.0]}))
    [4.0, 5.0]
    """

    case: str
    over: str | None = None
    per: str | None = None

    def of(self, times: Mapping[str, Sequence[float]]) -> Iterator[float]:
        """The figure of every round; KeyError where a case was left out."""
        base = [0.0] * len(times[self.case]) if self.over is None else times[self.over]
        unit = [1.0] * len(times[self.case]) if self.per is None else times[self.per]
        return ((time_ - less) / by for time_, less, by in zip(times[self.case], base, unit, strict=True))


@dataclass(frozen=True)
class Samples:
    """What was timed.

    Attributes:
        times: Seconds of one operation of each case, round by round.
        left_out: The cases that could not run, and the module that each of them lacks.
    """

    times: Mapping[str, Sequence[float]]
    left_out: Mapping[str, str]

    def seconds(self, cost: Cost) -> float:
        """The median over the rounds."""
        return median(cost.of(self.times))

    def ratio(self, cost: Cost, floor: Cost) -> tuple[float, float, float]:
        """One figure over another: lower quartile, median and upper quartile of the rounds."""
        return _ratios(cost.of(self.times), floor.of(self.times))


@dataclass(frozen=True)
class Load:
    """What was done under load.

    Attributes:
        title: The heading in the report, and where `budgets` finds what must hold.
        rates: So much a second of each row, round by round; none where the row could not be measured.
        left_out: The rows that could not be, and why, in plain words.
        of_what: What was counted.
        slowest: Where every single one was timed: the seconds that 99 of 100 did not exceed, row by row as the rates.
    """

    title: str
    rates: Mapping[str, Sequence[float]]
    left_out: Mapping[str, str]
    of_what: str = "requests"
    slowest: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def ratio(self, row: str, base: str) -> tuple[float, float, float]:
        """One row over another: lower quartile, median and upper quartile of the rounds."""
        return _ratios(self.rates[row], self.rates[base])


def _ratios(dividends: Iterable[float], divisors: Iterable[float]) -> tuple[float, float, float]:
    """A round in which nothing is left to divide by, as of two times that are the same, tells nothing."""
    return quartiles([a / b for a, b in zip(dividends, divisors, strict=True) if b] or [math.nan])


def quartiles(figures: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    low, middle, high = quantiles(figures, n=4) if len(figures) > 1 else (figures[0],) * 3
    return low, middle, high


def missing(needs: Iterable[str]) -> str | None:
    """The first of these modules that this Python has not."""
    return next((name for name in needs if importlib.util.find_spec(name) is None), None)


def measure(group: Group, plan: Plan) -> Samples:
    """Time every case of the group that can run, round by round."""
    left_out = {case.name: name for case in group.cases if (name := missing(case.needs)) is not None}
    cases = [case for case in group.cases if case.name not in left_out]
    batches = {case.name: case.build() for case in cases}
    clock, seconds = (time.perf_counter, 10 * plan.batch) if group.waits else (time.process_time, plan.batch)
    sizes = {name: _size(batch, seconds, clock) for name, batch in batches.items()}
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    order = random.Random(plan.rounds)
    with quiet():
        for _ in range(plan.rounds):
            gc.collect()
            for case in order.sample(cases, len(cases)):
                batch = case.build() if group.rebuilt else batches[case.name]
                batch(min(WARM_UP, sizes[case.name]))
                times[case.name].append(_time(batch, sizes[case.name], clock) / sizes[case.name])
    return Samples(times, left_out)


def _time(batch: Batch, times: int, clock: Callable[[], float]) -> float:
    start = clock()
    batch(times)
    return clock() - start


def _size(batch: Batch, seconds: float, clock: Callable[[], float]) -> int:
    """How many operations make a batch of so many seconds; a run that was interrupted tells nothing."""
    size = 1
    while (taken := min(_time(batch, size, clock) for _ in range(3))) < seconds / 4:
        size *= 2
    return max(1, int(size * seconds / taken))


@contextmanager
def quiet() -> Iterator[None]:
    """Without garbage collection inside a batch, and with little to collect between two."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def pinned() -> Iterator[None]:
    """On one processor, where the system lets a process choose: its caches stay warm."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
