"""Windows in this process's memory: one lock, no thread, a bounded number of keys.

For each new key a few of those that were looked at longest ago are looked at: whoever has left every window is dropped,
the others go to the end of the line, so nobody who still counts is ever forgotten. When every place is taken by such
keys, new ones share overflow tallies, as new buckets do in `MemoryStore`.
"""

from collections import OrderedDict
from collections.abc import Callable
from threading import RLock
from types import TracebackType
from typing import Self, final

from apigate.core.forks import renew_after_fork
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit, window_of
from apigate.throttling.tallies import Standing, Tally, amend, ask, begin
from apigate.throttling.window import Window

__all__ = ["MemoryWindows"]

_SWEPT = 4
"""Keys looked at for each new one: more than one, so that sweeping outruns filling."""


@final
class _Table:
    """The tallies of one limit."""

    __slots__ = ("overflow", "tallies")

    def __init__(self) -> None:
        self.tallies: OrderedDict[Key, Tally] = OrderedDict()
        self.overflow: dict[int, Tally] = {}


@final
class MemoryWindows:
    """Windows in memory, for one process; exact under threads and tasks.

    As a context manager it is one step: while a thread is inside, no other one counts.

    Args:
        max_keys: How many keys are kept over all limits. A moving window keeps up to its count of moments for each.
        overflow_slot: The number of the overflow tally that stands for a key.
        on_full: Told the number of keys when every place is taken, once until a tenth is free again; with no lock held.
    """

    def __init__(self, max_keys: int, overflow_slot: Callable[[Key], int], on_full: Callable[[int], None]) -> None:
        """Start empty."""
        self._max_keys = max_keys
        self._overflow_slot = overflow_slot
        self._on_full = on_full
        self._lock = RLock()
        self._inside = 0
        self._tables: dict[tuple[str, str], _Table] = {}
        self._line: list[_Table] = []
        self._turn = 0
        self._kept = 0
        self._full = False
        self._unreported = False
        renew_after_fork(self)

    def renew(self) -> None:
        """Take a new lock in a forked child, where no other thread is inside."""
        self._lock = RLock()
        self._inside = 0
        self._kept = sum(len(table.tallies) for table in self._line)

    def __len__(self) -> int:
        """How many keys are kept, overflow tallies not counted."""
        return self._kept

    def __enter__(self) -> Self:
        """Keep every other thread out."""
        self._lock.acquire()
        self._inside += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others in."""
        self._inside -= 1
        self._lock.release()
        if self._unreported:
            self._report()

    def _report(self) -> None:
        """Tell once that every place is taken; after the step in which that was found."""
        with self._lock:
            if self._inside or not self._unreported:
                return
            self._unreported = False
        self._on_full(self._kept)

    def check(self, window: Window) -> None:
        """Every window can be kept."""

    def has_room(self, limit: Limit, key: Key, cost: int, now: int) -> bool:
        """Whether `acquire` would admit; all that has to be known before buckets are asked in the same step."""
        window = window_of(limit)
        with self._lock:
            tally = self._find(self._table(limit, window), key, window, now)
            return (0 if tally is None else tally.used(now)) + cost <= window.count

    def acquire(self, limit: Limit, key: Key, cost: int, now: int) -> Standing:
        """Count the cost if there is room for it."""
        window = window_of(limit)
        with self._lock:
            table = self._table(limit, window)
            tally = self._find(table, key, window, now)
            if tally is None and 0 < cost <= window.count:
                tally = self._place(table, key, window, now)
            standing = ask(tally or begin(window), window, cost, now, take=tally is not None)
        if self._unreported:
            self._report()
        return standing

    def peek(self, limit: Limit, key: Key, cost: int, now: int) -> Standing:
        """What `acquire` would answer, counting nothing."""
        window = window_of(limit)
        with self._lock:
            tally = self._find(self._table(limit, window), key, window, now)
            return ask(tally or begin(window), window, cost, now, take=False)

    def adjust(self, limit: Limit, key: Key, units: int, at: int | None, now: int) -> None:
        """Count more without asking, or give back what was counted under `at`."""
        window = window_of(limit)
        with self._lock:
            table = self._table(limit, window)
            tally = self._find(table, key, window, now)
            if tally is None and units > 0:
                tally = self._place(table, key, window, now)
            if tally is not None:
                amend(tally, window, units, at, now)
        if self._unreported:
            self._report()

    def reset(self, limit: Limit, key: Key | None) -> None:
        """Forget a key, or the overflow tally that stands for it; without one, every key of the limit."""
        with self._lock:
            table = self._table(limit, window_of(limit))
            if key is None:
                self._kept -= len(table.tallies)
                table.tallies.clear()
                table.overflow.clear()
            elif table.tallies.pop(key, None) is not None:
                self._kept -= 1
            else:
                table.overflow.pop(self._overflow_slot(key), None)

    def tally(self, limit: Limit, key: Key) -> Tally | None:
        """The tally that counts for a key, as it was left; to be read as one step with what is made of it."""
        table = self._table(limit, window_of(limit))
        return table.tallies.get(key) or (table.overflow.get(self._overflow_slot(key)) if table.overflow else None)

    def keys(self) -> list[tuple[str, Key]]:
        """Limit's name and key of all that is kept, but for what shares an overflow tally."""
        with self._lock:
            return [(name, key) for (name, _), table in self._tables.items() for key in table.tallies]

    # ---- where tallies are

    def _table(self, limit: Limit, window: Window) -> _Table:
        name = (limit.name, window.kind)
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = _Table()
            self._line.append(table)
        return table

    def _find(self, table: _Table, key: Key, window: Window, now: int) -> Tally | None:
        """The tally of a key, brought up to date; the overflow tally that counts for it; None if nothing counts."""
        tally = table.tallies.get(key)
        if tally is None and table.overflow and key:
            slot = self._overflow_slot(key)
            tally = table.overflow.get(slot)
            if tally is not None:
                _renew(tally, window, now)
                if not tally.numbers():
                    del table.overflow[slot]
                    return None
                return tally
        if tally is not None:
            _renew(tally, window, now)
        return tally

    def _place(self, table: _Table, key: Key, window: Window, now: int) -> Tally:
        """A tally for a key that has none: its own, or the one it shares where every place is taken."""
        self._sweep(now)
        tally = begin(window)
        tally.settle(now)
        if key and self._kept >= self._max_keys:
            self._unreported = self._unreported or not self._full
            self._full = True
            return table.overflow.setdefault(self._overflow_slot(key), tally)
        self._full = self._full and self._kept > self._max_keys * 0.9
        self._kept += 1
        table.tallies[key] = tally
        return tally

    def _sweep(self, now: int) -> None:
        """Look at a few keys, by turns of the tables; drop those of whom nothing counts any more."""
        self._turn += 1
        table = self._line[self._turn % len(self._line)]
        for _ in range(min(_SWEPT, len(table.tallies))):
            key, tally = table.tallies.popitem(last=False)
            tally.settle(now)
            if tally.numbers():
                table.tallies[key] = tally
            else:
                self._kept -= 1


def _renew(tally: Tally, window: Window, now: int) -> None:
    """Go on by the window's period, which may have been changed."""
    tally.period = window.period_us
    tally.settle(now)
