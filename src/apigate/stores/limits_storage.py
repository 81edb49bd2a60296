"""The windows in memory as a storage of the package `limits`, for whoever runs its strategies: they go by our clock.

It keeps the contract of `limits.storage.Storage`, `MovingWindowSupport` and `SlidingWindowCounterSupport`. Unlike the
storage in memory that `limits` has, it is exact under threads, starts none, and keeps a bounded number of keys without
forgetting who still counts. A gateway does not go this way round: it asks for a wait in the same step, which the
contract has no word for.
"""

from typing import final

from apigate.core.clock import Clock, SystemClock
from apigate.stores.memory import MemoryStore
from apigate.throttling.limit import Limit
from apigate.throttling.tallies import Tally
from apigate.throttling.window import KINDS, Window, WindowKind

__all__ = ["LimitsStorage"]

_SECOND = 1_000_000
_UNCOUNTED = 2**31
"""The count of a window that only counts: `limits` compares by itself."""


@final
class LimitsStorage:
    """A storage for the strategies of `limits`, in this process's memory.

    Args:
        store: Where the windows are kept; default a new `MemoryStore`.
        clock: The clock to go by; default the machine's.

    >>> from limits import parse
    >>> from limits.strategies import MovingWindowRateLimiter
    >>> limiter = MovingWindowRateLimiter(LimitsStorage())
    >>> [limiter.hit(parse("2/minute"), "alice") for _ in range(3)]
    [True, True, False]
    """

    base_exceptions: tuple[type[Exception], ...] = ()
    """What the storage raises that a caller may want to handle: nothing."""

    def __init__(self, store: MemoryStore | None = None, clock: Clock | None = None) -> None:
        """Make `limits` take it for one of its storages."""
        from limits.storage import Storage

        Storage.register(LimitsStorage)
        self._windows = (MemoryStore() if store is None else store).windows()
        self._clock = clock or SystemClock()

    # ---- Storage

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, whatever the limit is; tells the new count."""
        limit = _limit("fixed", min(_UNCOUNTED, 2**52 // (expiry * 1_000)), expiry)
        with self._windows:
            now = self._clock.now_us()
            self._windows.adjust(limit, key, amount, None, now)
            return self._windows.peek(limit, key, 0, now).used

    def get(self, key: str) -> int:
        """The count of a fixed window."""
        with self._windows:
            tally = self._settled("fixed", key)
            return 0 if tally is None else tally.used(self._clock.now_us())

    def get_expiry(self, key: str) -> float:
        """When the fixed window ends, in seconds since 1970."""
        with self._windows:
            tally = self._settled("fixed", key)
            return self._wall(self._clock.now_us() if tally is None or not tally.numbers() else tally.ends())

    def check(self) -> bool:
        """Memory is always there."""
        return True

    def reset(self) -> int:
        """Forget everything; tells how many keys that were."""
        kept = len(self._windows)
        for kind in KINDS:
            self._windows.reset(_limit(kind), None)
        return kept

    def clear(self, key: str) -> None:
        """Forget a key, in windows of every kind."""
        for kind in KINDS:
            self._windows.reset(_limit(kind), key)

    # ---- MovingWindowSupport

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count in a moving window if there is room."""
        return self._windows.acquire(_limit("moving", limit, expiry), key, amount, self._clock.now_us()).allowed

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest that counts came, in seconds since 1970, and how much counts."""
        now = self._clock.now_us()
        standing = self._windows.peek(_limit("moving", limit, expiry), key, 0, now)
        return self._wall(now + standing.next_us - expiry * _SECOND if standing.used else now), standing.used

    # ---- SlidingWindowCounterSupport

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count in a sliding window if there is room."""
        return self._windows.acquire(_limit("sliding", limit, expiry), key, amount, self._clock.now_us()).allowed

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:  # noqa: ARG002 - it is known
        """Count and seconds of the window before, and of this one."""
        with self._windows:
            now = self._clock.now_us()
            tally = self._settled("sliding", key)
            numbers = [] if tally is None else tally.numbers()
        if not numbers or tally is None:
            return 0, 0.0, 0, 0.0
        _, previous, current = numbers
        left = (tally.ends() - now) / _SECOND
        return previous, left - tally.period / _SECOND if previous else 0.0, current, left

    def clear_sliding_window(self, key: str, expiry: int) -> None:  # noqa: ARG002 - the key is the same for each
        """Forget a key's sliding window."""
        self._windows.reset(_limit("sliding"), key)

    # ---- within

    def _settled(self, kind: WindowKind, key: str) -> Tally | None:
        tally = self._windows.tally(_limit(kind), key)
        if tally is not None:
            tally.settle(self._clock.now_us())
        return tally

    def _wall(self, moment_us: int) -> float:
        return self._clock.wall() + (moment_us - self._clock.now_us()) / _SECOND


def _limit(kind: WindowKind, count: int = 1, seconds: int = 1) -> Limit:
    return Limit("limits", "limits", "limits", Window(f"{count}/{seconds} seconds", kind=kind))
