"""The three kinds of window in exact whole numbers: no store, no lock, no clock.

A tally is what is kept for one key: some numbers of microseconds and requests. Its rules are those of the strategies of
`limits`; the same steps run in Lua (`stores/redis_windows.lua`). Who asks brings the tally up to date first
(`settle`), so what has left a window is gone from the numbers.

The clock rule is that of the token bucket: a time up to `SKEW_US` ahead is a clock of another host, and no time has
passed; further ahead, the clock was set back, and the tally goes on from `now` with all that it has counted.

Source: apigate, see docs/explanation/windows.md.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, final

from apigate.throttling.algorithms import SKEW_US
from apigate.throttling.window import Window, WindowKind

__all__ = ["FixedTally", "MovingTally", "SlidingTally", "Standing", "Tally", "amend", "ask", "begin", "lifetime_ms"]

_MS = 1_000


class Standing(NamedTuple):
    """How a window stood when it was asked.

    Attributes:
        allowed: Whether it had room for the cost.
        used: What it had counted before, in requests' costs.
        wait_us: Microseconds until it has room for the same cost, if nobody else comes; None for never.
        next_us: Microseconds until it has more room than now, with the cost counted if it was; 0 where it is empty.
        at: The store's time in microseconds, under which the cost was counted; to give it back by.
        round_trips: How often a server was asked.
    """

    allowed: bool
    used: int
    wait_us: int | None
    next_us: int
    at: int
    round_trips: int = 0


class Tally(Protocol):
    """What a window has counted for one key."""

    period: int
    """The window in microseconds; may be changed at any time."""

    def settle(self, now: int) -> bool:
        """Drop what has left the window; tells whether the clock was set back, so that the tally must be written."""
        ...

    def used(self, now: int) -> int:
        """What counts at `now`."""
        ...

    def until(self, most: int, now: int) -> int:
        """Microseconds until no more than `most` (at least 0) counts, if nobody else comes."""
        ...

    def add(self, cost: int, now: int) -> int:
        """Count a cost; tells the time that it is counted under."""
        ...

    def remove(self, cost: int, at: int) -> None:
        """Give back what was counted under `at`, as far as it still counts."""
        ...

    def numbers(self) -> list[int]:
        """The tally as numbers, as it is begun again from; none if it equals a fresh one."""
        ...

    def ends(self) -> int:
        """The microsecond from which on it equals a fresh one."""
        ...


@final
class FixedTally:
    """When the window began, and what has come since; it begins with the first that comes after the last one ended."""

    __slots__ = ("count", "period", "start")

    def __init__(self, period: int, numbers: Sequence[int] = ()) -> None:
        """Begin from `numbers`."""
        self.period: int = period
        self.start: int
        self.count: int
        self.start, self.count = numbers or (0, 0)

    def settle(self, now: int) -> bool:
        """End the window if it is over."""
        healed = self.count > 0 and self.start > now + SKEW_US
        if now >= self.start + self.period:
            self.count = 0
        if healed or not self.count:
            self.start = now
        return healed

    def used(self, now: int) -> int:  # noqa: ARG002 - it does not change within a window
        """What has come in this window."""
        return self.count

    def until(self, most: int, now: int) -> int:
        """Until the window ends."""
        return 0 if self.count <= most else self.start + self.period - now

    def add(self, cost: int, now: int) -> int:
        """Count a cost."""
        self.count += cost
        return max(now, self.start)

    def remove(self, cost: int, at: int) -> None:
        """Give back what was counted in this window; what was counted in another one is gone with it."""
        if at >= self.start:
            self.count -= min(cost, self.count)

    def numbers(self) -> list[int]:
        """Start and count."""
        return [self.start, self.count] if self.count else []

    def ends(self) -> int:
        """The end of the window."""
        return self.start + self.period


@final
class MovingTally:
    """The moment and cost of all that came within the last period by turns, oldest first."""

    __slots__ = ("log", "period", "total")

    def __init__(self, period: int, numbers: Sequence[int] = ()) -> None:
        """Begin from `numbers`."""
        self.period: int = period
        self.log: list[int] = list(numbers)  # one flat list, as a pair for each would take twice the memory
        self.total: int = sum(numbers[1::2])

    def settle(self, now: int) -> bool:
        """Drop what is a period old."""
        log = self.log
        healed = bool(log) and log[-2] > now + SKEW_US
        if healed:
            log[:] = _merged(log, now)
        if log and log[0] + self.period <= now:
            gone = 2
            while gone < len(log) and log[gone] + self.period <= now:
                gone += 2
            self.total -= sum(log[1:gone:2])
            del log[:gone]
        return healed

    def used(self, now: int) -> int:  # noqa: ARG002 - what is too old is gone
        """The sum of the costs."""
        return self.total

    def until(self, most: int, now: int) -> int:
        """Until enough of the oldest have left."""
        surplus = self.total - most
        if surplus > 0:
            for place in range(0, len(self.log), 2):
                surplus -= self.log[place + 1]
                if surplus <= 0:
                    return self.log[place] + self.period - now
        return 0

    def add(self, cost: int, now: int) -> int:
        """Note moment and cost; no moment lies before the last one."""
        log = self.log
        self.total += cost
        if log and log[-2] >= now:
            log[-1] += cost
            return log[-2]
        log += (now, cost)
        return now

    def remove(self, cost: int, at: int) -> None:
        """Give back what was counted at that moment; what has left the window is gone."""
        log = self.log
        for place in range(len(log) - 2, -1, -2):
            if log[place] == at:
                back = min(cost, log[place + 1])
                self.total -= back
                log[place + 1] -= back
                if not log[place + 1]:
                    del log[place : place + 2]
                return
            if log[place] < at:
                return

    def numbers(self) -> list[int]:
        """Moment and cost by turns."""
        return self.log

    def ends(self) -> int:
        """When the last has left."""
        return self.log[-2] + self.period if self.log else 0


@final
class SlidingTally:
    """When this window began, what came in it, and what came in the one before, which weighs less and less."""

    __slots__ = ("count", "period", "previous", "start")

    def __init__(self, period: int, numbers: Sequence[int] = ()) -> None:
        """Begin from `numbers`."""
        self.period: int = period
        self.start: int
        self.previous: int
        self.count: int
        self.start, self.previous, self.count = numbers or (0, 0, 0)

    def settle(self, now: int) -> bool:
        """Let the next window begin if this one is over; after a window in which nothing came, none is left."""
        healed = self.start > now + SKEW_US and self.previous + self.count > 0
        ended = (now - self.start) // self.period
        if ended == 1:
            self.start, self.previous, self.count = self.start + self.period, self.count, 0
        elif ended > 1:
            self.previous = self.count = 0
        if healed or not (self.previous or self.count):
            self.start = now
        return healed

    def _weight(self, now: int) -> int:
        """Milliseconds of the window before that still lie within a period, rounded up."""
        return -(-(self.start + self.period - max(now, self.start)) // _MS)

    def used(self, now: int) -> int:
        """This window's count, and the whole part of the weighed count of the one before."""
        return self.previous * self._weight(now) * _MS // self.period + self.count

    def until(self, most: int, now: int) -> int:
        """Until the last count weighs little enough: in this window or, if its own count is too high, in the next."""
        if self.used(now) <= most:
            return 0
        start, previous, count = self.start, self.previous, self.count
        if count > most:
            start, previous, count = start + self.period, count, 0
        weight = ((most - count + 1) * (self.period // _MS) - 1) // previous
        return start + self.period - weight * _MS - now

    def add(self, cost: int, now: int) -> int:
        """Count a cost in this window."""
        self.count += cost
        return max(now, self.start)

    def remove(self, cost: int, at: int) -> None:
        """Give back what was counted in this window or the one before."""
        if at >= self.start:
            self.count -= min(cost, self.count)
        elif at >= self.start - self.period:
            self.previous -= min(cost, self.previous)

    def numbers(self) -> list[int]:
        """Start, the count before, this count."""
        return [self.start, self.previous, self.count] if self.previous or self.count else []

    def ends(self) -> int:
        """The end of the next window, in which this one's count still weighs."""
        return self.start + 2 * self.period


_TALLIES: Mapping[WindowKind, type[FixedTally] | type[MovingTally] | type[SlidingTally]] = MappingProxyType(
    {"fixed": FixedTally, "moving": MovingTally, "sliding": SlidingTally}
)


def begin(window: Window, numbers: Sequence[int] = ()) -> Tally:
    """A tally of the window's kind, fresh or as it was kept."""
    return _TALLIES[window.kind](window.period_us, numbers)


def ask(tally: Tally, window: Window, cost: int, now: int, *, take: bool) -> Standing:
    """Whether a settled tally has room for a cost, which is then counted if it is to be taken.

    >>> window = Window("2/minute", kind="fixed")
    >>> tally = begin(window)
    >>> ask(tally, window, 2, 0, take=True).allowed, ask(tally, window, 1, 15_000_000, take=True).wait_us
    (True, 45000000)
    """
    used = tally.used(now)
    allowed = used + cost <= window.count
    wait: int | None = 0
    if not allowed:
        wait = None if cost > window.count else tally.until(window.count - cost, now)
    at = tally.add(cost, now) if allowed and take and cost else now
    after = tally.used(now)
    return Standing(allowed, used, wait, tally.until(after - 1, now) if after else 0, at)


def amend(tally: Tally, window: Window, units: int, at: int | None, now: int) -> None:
    """Count more in a settled tally without asking (above 0), or give back (below 0) what was counted under `at`.

    What nobody knows the time of is not given back: it might have left the window already. As with a bucket, a debt is
    at most the count.
    """
    if units > 0:
        units = min(units, max(0, 2 * window.count - tally.used(now)))
        if units:
            tally.add(units, now)
    elif units < 0 and at is not None:
        tally.remove(-units, at)


def lifetime_ms(tally: Tally, now: int) -> int:
    """Whole milliseconds until the tally equals a fresh one, rounded up; at least 1."""
    return max(1, -(-(tally.ends() - now) // _MS))


def _merged(log: Sequence[int], now: int) -> list[int]:
    """A log whose moments lie no later than `now`, each of them once."""
    merged: list[int] = []
    for moment, cost in zip(log[::2], log[1::2], strict=True):
        if merged and merged[-2] == min(moment, now):
            merged[-1] += cost
        else:
            merged += (min(moment, now), cost)
    return merged
