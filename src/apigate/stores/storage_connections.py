"""Connections to Memcached and MongoDB, by the storages of `limits`: one for all threads, one for each event loop.

Each is made at its first use, never at import or before a fork. After a fork the child makes its own, and lets those of
its parent lie, unclosed: closing them would speak on the parent's sockets. That of a loop is closed when the loop ends
its asynchronous generators, as `asyncio.run` and every server does, and is dropped with the loop in any case.

Every exception of a client becomes a `StoreError` here, and every wait has a deadline.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar, cast, final
from weakref import WeakKeyDictionary

from apigate.core.errors import ApigateError, ConfigurationError, StoreError, StoreTimeoutError
from apigate.core.forks import leave_to_parent, renew_after_fork
from apigate.core.loops import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Connections", "bounded", "store_error"]

T = TypeVar("T")

_LATE_S = 0.01  # a loop that comes so much later than it wanted stood still, and heard no answer


def store_error(operation: str, error: Exception) -> ApigateError:
    """The error of ours that stands for one of a client."""
    if isinstance(error, ApigateError):
        return error
    if type(error).__name__ == "ConfigurationError":  # of `limits`: a client's package is not there, or too old
        return ConfigurationError(f"store: {error}")
    name = type(error).__name__
    kind = StoreTimeoutError if isinstance(error, TimeoutError) or "Timeout" in name else StoreError
    # `ConnectionNotAvailable`: all of this loop's connections to Memcached were busy with others' requests.
    told = str(error).partition(", Topology Description: ")[0]  # of MongoDB, which says the same again
    return kind(operation, f"{name}: {told}", blames_store=name != "ConnectionNotAvailable")


def bounded(
    operation: str,
    deadline_ms: int,
    work: Callable[[], T | Awaitable[T]],
    had_time: Callable[[], bool] = lambda: True,
) -> T | Awaitable[T]:
    """Do some work, or hand back an awaitable that does it, which ends by the deadline.

    Args:
        operation: What it is called in errors.
        deadline_ms: How long it may take.
        work: What is done.
        had_time: Whether the store had that time, asked when it was too short: else the store is not to blame.

    Raises:
        StoreError: The work failed. A client of threads bounds each of its own waits, so that it too ends in time.
    """
    try:
        answer = work()
    except Exception as error:
        raised = store_error(operation, error)
        if raised is error:
            raise
        raise raised from error
    if isinstance(answer, Awaitable):
        return _in_time(operation, deadline_ms, cast("Awaitable[T]", answer), had_time)
    return answer


async def _in_time(operation: str, deadline_ms: int, answer: Awaitable[T], had_time: Callable[[], bool]) -> T:
    import asyncio

    loop = asyncio.get_running_loop()
    until = loop.time() + deadline_ms / 1_000
    try:
        async with asyncio.timeout_at(until):
            return await answer
    except Exception as error:
        ours = isinstance(error, TimeoutError) and not isinstance(error, StoreError)
        raised = StoreTimeoutError(operation, f"no answer within {deadline_ms} ms") if ours else None
        failure = store_error(operation, error) if raised is None else raised
        if isinstance(failure, StoreTimeoutError) and not (had_time() and loop.time() - until <= _LATE_S):
            failure.blames_store = False
        if failure is error:
            raise
        raise failure from error


@final
class Connections:
    """The storages of one address.

    Args:
        make: Makes a storage: for threads (False), or for the running loop (True).
        close: Closes one that was made for threads.
        close_async: Closes one that was made for the running loop.
    """

    def __init__(
        self,
        make: Callable[[bool], Any],  # Any: `limits` has a class for each server, and they share no useful base
        close: Callable[[Any], None],
        close_async: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Connect to nothing yet."""
        self._make = make
        self._close = close
        self._close_async = close_async
        self._begin()
        renew_after_fork(self)

    def renew(self) -> None:
        """Begin without connections in a process that was forked off; what it has inherited is the other's."""
        leave_to_parent(self._shared, self._of_loops)
        self._begin()

    def _begin(self) -> None:
        self._lock = Lock()
        self._shared: Any = None
        self._of_loops: WeakKeyDictionary[AbstractEventLoop, tuple[Any, AsyncGenerator[None, None]]]
        self._of_loops = WeakKeyDictionary()

    def storage(self) -> tuple[Any, bool]:
        """The storage for whoever calls, and whether what it answers has to be awaited."""
        loop = running_loop()
        if loop is None:
            if self._shared is None:
                with self._lock:
                    self._shared = self._shared or self._make(False)
            return self._shared, False
        known = self._of_loops.get(loop)
        if known is None:
            with self._lock:
                for other in [other for other in self._of_loops if other.is_closed()]:
                    del self._of_loops[other]
                storage = self._make(True)
                self._of_loops[loop] = known = storage, self._closed_with_the_loop(storage)
        return known[0], True

    def _closed_with_the_loop(self, storage: Any) -> AsyncGenerator[None, None]:
        """A generator that the running loop knows to be unfinished, and so ends before it is closed itself."""
        keeper = self._keep(storage)
        try:
            keeper.__anext__().send(None)
        except StopIteration:
            return keeper
        raise AssertionError("it waits for nothing before its first step")

    async def _keep(self, storage: Any) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self._close_async(storage)

    def close(self) -> None:
        """Close the connections of threads; they are made anew where there is need."""
        with self._lock:
            shared, self._shared = self._shared, None
        if shared is not None:
            self._close(shared)

    async def close_async(self) -> None:
        """Close those of the running loop."""
        loop = running_loop()
        with self._lock:
            known = None if loop is None else self._of_loops.pop(loop, None)
        if known is not None:
            await known[1].aclose()
