"""A store of responses that outlives its outages: while it cannot be reached nobody waits for it.

Rule: the first fault costs one deadline; from then on until the store answers again every call fails at once, and the
store is tried beside the requests, see `apigate.stores.breaker`. Whoever uses it takes a failure for a miss.
"""

from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar, cast, final

from apigate.caching.store import Found, Invalidation, Mark, News, ResponseStore
from apigate.core.clock import Clock
from apigate.core.errors import StoreError
from apigate.core.steps import let_go
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
        self.breaker: Breaker = Breaker(repr(store), self, clock, on_event, _MEANWHILE)
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
        close = getattr(self.store, "close", None)
        if close is not None:
            close()

    async def close_async(self) -> None:
        """Close what the store within has opened for threads and for the running event loop."""
        close_async = getattr(self.store, "close_async", None)
        if close_async is None:
            self.close()
        else:
            await close_async()

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
        turn = breaker.turn
        try:
            answer = ask()
        except StoreError as error:
            breaker.fail(error, turn)
            raise
        return _Watched(breaker, turn, cast("Awaitable[T]", answer)) if isinstance(answer, Awaitable) else answer


@final
class _Watched(Generic[T]):
    """An answer that has to be awaited; no coroutine until somebody does await it."""

    __slots__ = ("_answer", "_breaker", "_turn")

    def __init__(self, breaker: Breaker, turn: int, answer: Awaitable[T]) -> None:
        self._breaker = breaker
        self._turn = turn
        self._answer = answer

    def __await__(self) -> Generator[Any, Any, T]:
        return self._told().__await__()

    async def _told(self) -> T:
        try:
            return await self._answer
        except StoreError as error:
            self._breaker.fail(error, self._turn, awaited=True)
            raise

    def close(self) -> None:
        """Let the answer go, as whoever asked cannot await it."""
        let_go(self._answer)
