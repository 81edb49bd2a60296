"""A store of responses that outlives its outages: while it cannot be reached nobody waits for it.

Rule: the first fault costs one deadline; from then on until the store answers again every call fails at once, and the
store is tried beside the requests, see `apigate.stores.breaker`. Whoever uses it takes a failure for a miss.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar, final

from apigate.caching.store import Found, Invalidation, Mark, News, ResponseStore
from apigate.core.clock import Clock
from apigate.core.closing import close, close_async
from apigate.core.errors import StoreError
from apigate.stores.breaker import Breaker, StoreChange

__all__ = ["GuardedResponses"]

T = TypeVar("T")

_PROBE_KEY = b"apigate probe".ljust(32, b"\0")
_PROBE_S = 60.0
_MEANWHILE = "each process has its own responses only, and learns of what others invalidate when it answers again"


@final
class GuardedResponses:
    """A `ResponseStore` around another one.

    Args:
        store: The store within.
        clock: The clock that requests go by.
        on_event: Told of each outage and each recovery; must not raise.

    Attributes:
        store: The store within.
        breaker: Whether it is asked.
        has_news: The method of the store within, as it is asked at each hit.
    """

    def __init__(
        self, store: ResponseStore, clock: Clock, on_event: Callable[[StoreChange], None] | None = None
    ) -> None:
        """Start with a store that is believed to answer."""
        self.store: ResponseStore = store
        self.breaker: Breaker = Breaker(repr(store), self, clock, on_event, lambda: _MEANWHILE)
        self.max_lag_us: int = store.max_lag_us
        self.max_item_bytes: int = store.max_item_bytes
        self.has_news: Callable[[Mark, int], bool] = store.has_news
        self._clock = clock

    def __repr__(self) -> str:
        """The store within."""
        return repr(self.store)

    def learn(self, known: Mark, records: Sequence[Invalidation] = ()) -> News | Awaitable[News]:
        """Append some records, and tell everything beyond a mark, these included."""
        return self._asked("invalidate" if records else "learn", partial(self.store.learn, known, records))

    def get(self, key: bytes, known: Mark) -> Found | Awaitable[Found]:
        """The value of a key."""
        return self._asked("get", partial(self.store.get, key, known))

    def put(self, key: bytes, value: bytes, seconds: float) -> Awaitable[None] | None:
        """Keep a value."""
        return self._asked("put", partial(self.store.put, key, value, seconds))

    def delete(self, key: bytes) -> Awaitable[None] | None:
        """Forget the value of a key."""
        return self._asked("delete", partial(self.store.delete, key))

    def close(self) -> None:
        """Close what the store within has opened for the threads of this process."""
        close(self.store)

    async def close_async(self) -> None:
        """Close what the store within has opened for threads and for the running event loop."""
        await close_async(self.store)

    def attempt(self) -> Iterator[object]:
        """Write something, as a full store only reads, and read the log."""
        yield self.store.put(_PROBE_KEY, b"", _PROBE_S)
        yield self.store.learn(b"")

    def finish(self) -> Iterator[object]:
        """Nothing: what is pending goes with the next that is learned."""
        return iter(())

    def _asked(self, operation: str, ask: Callable[[], T | Awaitable[T]]) -> T | Awaitable[T]:
        breaker = self.breaker
        if breaker.is_open:
            breaker.probe_if_due(self._clock.now_us())
            raise StoreError(operation, f"{self.store!r} cannot be reached, and is not asked", blames_store=False)
        return breaker.call(ask)
