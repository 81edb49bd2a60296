"""A store around one that blocks, which keeps it off event loops: where one runs, it is asked in a thread.

Rule: nothing is decided here. In a thread the store within is asked as if it stood alone; under a loop each question is
an awaitable, which begins when it is awaited and ends by the deadline. The threads are the store's own and bounded, so
that one which hangs takes none of those that the app works in.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, final

from apigate.core.closing import close, close_async
from apigate.core.forks import renew_after_fork
from apigate.core.loops import running_loop
from apigate.stores.deadline import DEFAULT_DEADLINE_MS, checked_deadline_ms
from apigate.stores.storage_connections import bounded
from apigate.throttling.combined import settle
from apigate.throttling.limit import Limit
from apigate.throttling.store import Buckets, ThrottleStore, WindowStore
from apigate.throttling.window import Window

__all__ = ["OffloadedStore"]

_MOST_THREADS = 32


@final
class OffloadedStore:
    """A store of which `offload` is true; what it has beside `open` and `windows` is had here too.

    Args:
        store: The store within. Its `deadline_ms`, if it has one, is how long a thread's answer is waited for under a
            loop: milliseconds, a whole number from 1 to 60,000; default 100.

    Raises:
        ConfigurationError: The deadline is no such number.
    """

    def __init__(self, store: ThrottleStore) -> None:
        """Start no thread yet."""
        self.store: ThrottleStore = store
        deadline_ms = getattr(store, "deadline_ms", DEFAULT_DEADLINE_MS)
        self._deadline_ms = checked_deadline_ms(deadline_ms, type(store).__name__)
        self._latest: dict[str, Limit] = {}  # by name, as it was opened last
        self._unopened: deque[_Buckets] = deque()
        windows: Callable[[], WindowStore] | None = getattr(store, "windows", None)
        if windows is not None:
            self.windows: Callable[[], _Windows] = lambda: _Windows(self, windows())
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Take threads and a lock of its own in a process that was forked off."""
        self._opening = Lock()
        self._working: set[object] = set()  # what threads are at
        self._latest_answer: object = None  # in time, by the thread's own time; another one each time
        self._threads = _threads()

    def open(self, limits: Sequence[Limit], now: int) -> "_Buckets":
        """The buckets of these limits; under a loop those within are opened by the next question, in its thread."""
        self._latest.update({limit.name: limit for limit in limits})
        buckets = _Buckets(self, limits, now)
        self._unopened.append(buckets)
        if running_loop() is None:
            self._open_all()
        return buckets

    def _open_all(self) -> None:
        """Open what was to be opened, in its order: a changed rate holds for whoever asks from now on."""
        with self._opening:
            while self._unopened:
                self._unopened.popleft().inner()

    def open_within(self, limits: Sequence[Limit], now: int) -> Buckets:
        """The buckets within, at the rates that their limits have by now."""
        return self.store.open([self._latest[limit.name] for limit in limits], now)

    def asked(self, operation: str, work: Callable[[], Any]) -> Any:  # Any: whatever the store answers
        """What the store answers, or under a loop an awaitable of it."""
        return self._answer(work) if running_loop() is None else self._in_thread(operation, work)

    def _answer(self, work: Callable[[], Any]) -> Any:
        if self._unopened:
            self._open_all()
        return work()

    async def _in_thread(self, operation: str, work: Callable[[], Any]) -> Any:
        import asyncio

        question, before = object(), self._latest_answer
        loop = asyncio.get_running_loop()
        deadline = self._deadline_ms / 1_000

        def outcome() -> tuple[Any, Exception | None]:
            self._working.add(question)
            begun = loop.time()
            try:
                return self._answer(work), None
            except Exception as error:  # noqa: BLE001 - raised again below, as it is
                return None, error
            finally:
                self._working.discard(question)
                if loop.time() - begun <= deadline:  # else a store too slow for everybody would look as if it worked
                    self._latest_answer = question

        def had_time() -> bool:
            """Whether it worked at something and gave no answer in time; else there was only too much to ask."""
            return bool(self._working) and self._latest_answer is before

        ask = partial(loop.run_in_executor, self._threads, outcome)
        waiting: Any = bounded(operation, self._deadline_ms, ask, had_time)
        answer, error = await waiting
        if error is not None:
            raise error
        return answer

    def close(self) -> None:
        """Close the store within, and let the threads end; whoever asks again has new ones."""
        self._end_threads()
        close(self.store)

    async def close_async(self) -> None:
        """Close the store within for the running event loop, and let the threads end."""
        self._end_threads()
        await close_async(self.store)

    def _end_threads(self) -> None:
        ended, self._threads = self._threads, _threads()
        ended.shutdown(wait=False)

    def __getattr__(self, name: str) -> Any:
        """What else the store has, such as whether it is shared."""
        if name == "store":
            raise AttributeError(name)  # of one that is being copied, and has nothing yet
        return getattr(self.store, name)

    def __repr__(self) -> str:
        """The store within."""
        return repr(self.store)


def _threads() -> ThreadPoolExecutor:
    """Threads that start when they are asked to do something."""
    return ThreadPoolExecutor(_MOST_THREADS, "apigate-store")


class _Asked:
    """What is asked of buckets and of windows alike, each with arguments of its own."""

    def __init__(self, store: OffloadedStore, inner: Callable[[], Any]) -> None:
        """Ask what `inner` gives; that is called in a thread."""
        self._store = store
        self._inner = inner

    def acquire(self, *given: Any, **named: Any) -> Any:
        return self._asked("acquire", given, named)

    def peek(self, *given: Any, **named: Any) -> Any:
        return self._asked("peek", given, named)

    def adjust(self, *given: Any, **named: Any) -> Any:
        return self._asked("adjust", given, named)

    def reset(self, *given: Any, **named: Any) -> Any:
        return self._asked("reset", given, named)

    def _asked(self, operation: str, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return self._store.asked(operation, lambda: getattr(self._inner(), operation)(*given, **named))


@final
class _Buckets(_Asked):
    def __init__(self, store: OffloadedStore, limits: Sequence[Limit], now: int) -> None:
        super().__init__(store, self.inner)
        self._limits = limits
        self._now = now
        self._opened: Buckets | None = None

    def inner(self) -> Buckets:
        """The buckets within, opened by whoever comes first."""
        if self._opened is None:
            self._opened = self._store.open_within(self._limits, self._now)
        return self._opened

    def settle(self, *given: Any) -> Any:
        return self._store.asked("adjust", lambda: settle(self.inner(), *given))


@final
class _Windows(_Asked):
    """Also windows that answer at once count as such that do not: nobody may hold them while others are awaited."""

    def __init__(self, store: OffloadedStore, windows: WindowStore) -> None:
        super().__init__(store, lambda: windows)
        self._windows = windows

    def check(self, window: Window) -> None:
        self._windows.check(window)
