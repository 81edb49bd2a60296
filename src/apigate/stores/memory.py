"""Token buckets in this process's memory: one lock, no thread, a hard bound.

Buckets live in two generations for each limit. A new key first looks at a few buckets of the old generation: those
that equal a fresh one are dropped, the others move over, and when the old one is empty the generations change places.
So idle buckets go without a thread and without a pause, and a bucket that still owes anything is never dropped. When
every place is taken by such buckets, new keys share overflow buckets, 4,096 for each limit and on top of the bound,
chosen by a salted digest: whoever was refused is not let in by a flood of random keys, and strangers are refused by it
only as far as it drains the overflow bucket they fall into.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import final

from apigate.core.errors import ConfigurationError
from apigate.core.forks import renew_after_fork
from apigate.stores.memory_windows import MemoryWindows
from apigate.throttling.algorithms import FRESH, State, decide, owed_at, rescaled, settled, written
from apigate.throttling.decision import Decision
from apigate.throttling.keys import Key, crowd_of
from apigate.throttling.limit import Limit

__all__ = ["DEFAULT_MAX_KEYS", "MemoryBuckets", "MemoryStore"]

DEFAULT_MAX_KEYS = 100_000
"""At 280 bytes each, 28 MB at the most."""

OVERFLOW_BUCKETS = 4_096
"""Shared buckets of each limit once the store is full."""

_SWEPT = 4
"""Old buckets looked at for each new key: more than one, so that sweeping outruns filling."""

_SMALL = 64
"""Below this many buckets a limit's generations need not change places, which makes everybody bind anew."""


@final
class _Table:
    """The buckets of one limit."""

    __slots__ = ("keyed", "limit", "old", "overflow", "overflow_slot", "young")

    def __init__(self, store: "MemoryStore", limit: Limit) -> None:
        self.limit: Limit = limit
        self.overflow_slot: Callable[[Key], int] = store.overflow_slot
        self.keyed: bool = False  # whether it ever held a bucket of somebody's own, so that sweeping may pay
        self.young: dict[Key, State] = {}
        self.old: dict[Key, State] = {}
        self.overflow: dict[int, State] = {}

    def find(self, key: Key) -> State:
        """The bucket of a key: a young or an old one, else the overflow bucket that stands for it, else a fresh one.

        An old one moves over, so that whoever writes it next finds it in its place.
        """
        state = self.young.get(key)
        if state is None:
            state = self.old.pop(key, None)
            if state is None:
                return self.overflow.get(self.overflow_slot(key), FRESH) if self.overflow and key else FRESH
            self.young[key] = state
        return state


@final
class MemoryStore:
    """Buckets in memory, for one process; exact under threads and tasks.

    Args:
        max_keys: How many buckets are kept over all limits, at least 1; each takes at most 280 bytes. Beyond that the
            keys that have no bucket yet share 4,096 overflow buckets of each limit.
        on_fill: Called with the number of buckets when every place is taken, once until a tenth is free again; in the
            thread of the request that found it so, with no lock held.

    Raises:
        ConfigurationError: `max_keys` is not a whole number of at least 1.

    >>> from apigate import Rate, Throttle
    >>> throttle = Throttle({"client": Rate(1)}, store=MemoryStore(max_keys=10_000))
    >>> throttle.acquire({"client": "alice"}).allowed, throttle.acquire({"client": "alice"}).allowed
    (True, False)
    """

    def __init__(self, max_keys: int = DEFAULT_MAX_KEYS, on_fill: Callable[[int], None] | None = None) -> None:
        """Start empty."""
        if not isinstance(max_keys, int) or max_keys < 1:
            raise ConfigurationError(f"MemoryStore max_keys: {max_keys!r} is not a whole number of at least 1")
        self.max_keys: int = max_keys
        self.on_fill: Callable[[int], None] | None = on_fill
        self.lock: Lock = Lock()
        self.generation: int = 0  # counts changes of tables: buckets opened before are then bound anew
        self._salt = os.urandom(16)
        self._tables: dict[str, _Table] = {}
        self._keyed: list[_Table] = []
        self._turn = 0
        self._kept = 0
        self._full = False
        self._unreported = False
        self._windows = MemoryWindows(max_keys, self.overflow_slot, self._report_windows)
        renew_after_fork(self)

    def __len__(self) -> int:
        """How many buckets are kept, overflow buckets not counted."""
        return self._kept

    def open(self, limits: Sequence[Limit], now: int) -> "MemoryBuckets":
        """The buckets of these limits; those that had another rate keep what they are owed."""
        with self.lock:
            for limit in limits:
                table = self._tables.setdefault(limit.name, _Table(self, limit))
                if table.limit is not limit:
                    self._change(table, limit, now)
        return MemoryBuckets(self, [limit.name for limit in limits])

    def windows(self) -> MemoryWindows:
        """The windows that are kept beside the buckets; at most `max_keys` of them too."""
        return self._windows

    def renew(self) -> None:
        """Take a new lock in a forked child, and count what a thread of the parent was about to place."""
        self.lock = Lock()
        self._kept = sum(len(table.young) + len(table.old) for table in self._tables.values())

    def _report_windows(self, kept: int) -> None:
        if self.on_fill is not None:
            self.on_fill(kept)

    def table(self, name: str) -> _Table:
        """The table of an opened limit."""
        return self._tables[name]

    def owed(self, now: int) -> Iterator[tuple[Limit, Key, int]]:
        """Every bucket that is owed anything at `now`: its limit, its key, and what it is owed in tokens times `p`.

        As all of them stand when the first is asked for. Overflow buckets are left out: nobody can tell whose they are.
        """
        with self.lock:
            held = [(table.limit, [*table.young.items(), *table.old.items()]) for table in self._tables.values()]
        for limit, states in held:
            for key, state in states:
                owed = owed_at(state, limit.n, now)
                if owed:
                    yield limit, key, owed

    def place(self, table: _Table, key: Key, state: State, now: int) -> None:
        """Write a bucket that may be new. A key that leaves an overflow bucket takes along what that was owed."""
        if key not in table.young and table.old.pop(key, None) is None:  # a sweep may just have made the young old
            if key:
                if not table.keyed:
                    table.keyed = True
                    self._keyed.append(table)
                self._sweep(now)
                if self._kept >= self.max_keys:
                    table.overflow[self.overflow_slot(key)] = state
                    self._unreported = self._unreported or not self._full
                    self._full = True
                    return
                self._full = self._full and self._kept > self.max_keys * 0.9
            self._kept += 1
        table.young[key] = state

    def forget(self, table: _Table, key: Key) -> None:
        """Drop a bucket, or the overflow bucket that stands for it."""
        if table.young.pop(key, None) is not None or table.old.pop(key, None) is not None:
            self._kept -= 1
        else:
            table.overflow.pop(self.overflow_slot(key), None)

    def clear(self, table: _Table) -> None:
        """Drop every bucket of a limit."""
        self._kept -= len(table.young) + len(table.old)
        table.young.clear()
        table.old.clear()
        table.overflow.clear()

    def report(self) -> None:
        """Tell once that the store is full; called with no lock held."""
        if self._unreported:
            with self.lock:
                unreported, self._unreported = self._unreported, False
            if unreported and self.on_fill is not None:
                self.on_fill(self._kept)

    def overflow_slot(self, key: Key) -> int:
        """The number of the overflow bucket that stands for the key."""
        from hashlib import blake2b

        crowd = crowd_of(key)
        raw = crowd if isinstance(crowd, bytes) else crowd.encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(raw, digest_size=8, key=self._salt).digest()) % OVERFLOW_BUCKETS

    def _sweep(self, now: int) -> None:
        """Look at a few old buckets; where a limit has none left, its generations change places."""
        table = self._keyed[self._turn % len(self._keyed)]
        for _ in range(_SWEPT):
            if table.old:
                break
            if len(table.young) >= _SMALL or self._full:
                table.old, table.young = table.young, {}
                self.generation += 1
            if table.overflow:
                table.overflow = {k: state for k, state in table.overflow.items() if owed_at(state, table.limit.n, now)}
            self._turn += 1
            table = self._keyed[self._turn % len(self._keyed)]
        old, young, n = table.old, table.young, table.limit.n
        for _ in range(min(_SWEPT, len(old))):
            key, state = old.popitem()
            if owed_at(state, n, now):
                young[key] = state
            else:
                self._kept -= 1

    def _change(self, table: _Table, limit: Limit, now: int) -> None:
        """Carry every bucket of a limit over to its new rate."""
        before, table.limit = table.limit, limit
        self.generation += 1
        if (before.n, before.p, before.capacity) != (limit.n, limit.p, limit.capacity):
            for states in (table.young, table.old):
                for key, state in states.items():
                    states[key] = rescaled(state, before, limit, now)
            table.overflow = {slot: rescaled(state, before, limit, now) for slot, state in table.overflow.items()}


@final
class MemoryBuckets:
    """The buckets of some limits in a `MemoryStore`, bound to their tables."""

    __slots__ = ("_generation", "_ledgers", "_limits", "_names", "_shadow", "_store", "_tables")

    def __init__(self, store: MemoryStore, names: Sequence[str]) -> None:
        """Bind the names to their tables."""
        self._store = store
        self._names = names
        self._bind()

    def _bind(self) -> None:
        """Look the tables up, and put each limit's numbers beside its buckets."""
        self._generation = self._store.generation
        self._tables = tuple(self._store.table(name) for name in self._names)
        self._limits = tuple(table.limit for table in self._tables)
        self._shadow = not all(limit.enforced for limit in self._limits)
        self._ledgers = tuple(
            (place, table.young, table.limit.n, table.limit.p, table.limit.capacity)
            for place, table in enumerate(self._tables)
        )

    def acquire(self, keys: Sequence[Key], costs: Sequence[int], now: int, patience: int = 0) -> Decision:
        """Take the costs from every bucket or from none.

        Written out for speed (`decide` and its calls take twice the time), and for the plain cases only: no shadow, no
        booking ahead, no clock set back. Nothing is written before every level has been asked.
        """
        store = self._store
        with store.lock:
            if self._generation != store.generation:
                self._bind()
            plain = placed = True
            short = False
            wanted: list[int] = []
            for place, states, n, p, capacity in self._ledgers:
                state = states.get(keys[place])
                if state is None:
                    state = self._tables[place].find(keys[place])
                    placed = False
                owed, last = state
                if now > last:
                    owed -= (now - last) * n
                    if owed < 0:
                        owed = 0
                elif now < last:
                    plain = False
                owed += costs[place] * p
                if owed > capacity:
                    short = True
                wanted.append(owed)
            if plain and placed and not short:
                for place, states, _, _, _ in self._ledgers:
                    states[keys[place]] = (wanted[place], now)
                return Decision(True, self._limits, costs, wanted)
            if plain and short and not (patience or self._shadow):
                return Decision(False, self._limits, costs, wanted)
            before = self._read(keys)
            if plain and not short:
                decision, after = Decision(True, self._limits, costs, wanted), [(owed, now) for owed in wanted]
            else:
                decision = decide(self._limits, before, costs, now, patience)
                after = written(decision, before, now)
            self._write(keys, before, after, now)
        store.report()
        return decision

    def peek(self, keys: Sequence[Key], costs: Sequence[int], now: int) -> Decision:
        """What `acquire` would answer, taking nothing."""
        with self._store.lock:
            states = self._read(keys)  # first, as it may bind the limits anew
            return decide(self._limits, states, costs, now)

    def adjust(self, keys: Sequence[Key], tokens: Sequence[int], now: int) -> None:
        """Take more tokens or give some back without asking."""
        with self._store.lock:
            states = self._read(keys)
            changed: list[State] = []
            for limit, state, number in zip(self._limits, states, tokens, strict=True):
                owed = owed_at(state, limit.n, now)
                wanted = max(0, min(owed + number * limit.p, max(owed, 2 * limit.capacity)))
                changed.append(state if wanted == owed else settled(state, wanted, now))
            self._write(keys, states, changed, now)
        self._store.report()

    def reset(self, keys: Sequence[Key | None] | None = None) -> None:
        """Forget these buckets, or every bucket of the limits."""
        with self._store.lock:
            for place, name in enumerate(self._names):
                key = None if keys is None else keys[place]
                if keys is None:
                    self._store.clear(self._store.table(name))
                elif key is not None:
                    self._store.forget(self._store.table(name), key)

    def _read(self, keys: Sequence[Key]) -> list[State]:
        """The buckets as they stand."""
        if self._generation != self._store.generation:
            self._bind()
        return [table.find(key) for table, key in zip(self._tables, keys, strict=True)]

    def _write(self, keys: Sequence[Key], before: Sequence[State], after: Sequence[State], now: int) -> None:
        """Write the buckets that have changed; some may be new or shared."""
        for table, key, old, new in zip(self._tables, keys, before, after, strict=True):
            if new is not old:
                self._store.place(table, key, new, now)
