"""One after the other for each name: in the threads of this process, and in each of its event loops.

Where many requests of one key come at once, whoever reads and writes it by compare-and-set undoes the others' work. So
within a process they queue, each for a bounded time; only those of other processes are left to meet at the server. A
name is known here only while somebody holds or waits for its turn.
"""

from collections import deque
from collections.abc import Awaitable
from threading import Lock
from typing import TYPE_CHECKING, Protocol, TypeAlias, final
from weakref import WeakKeyDictionary

from apigate.core.errors import StoreTimeoutError
from apigate.core.forks import renew_after_fork
from apigate.core.loops import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["Turn", "Turns"]

_Waiting: TypeAlias = "dict[str, deque[Future[None]]]"


class Turn(Protocol):
    """The turn of one caller.

    Attributes:
        waited: Whether others were before; also to be set by whoever finds that they are, at the server.
    """

    waited: bool

    def begin(self) -> Awaitable[None] | None:
        """Wait for it.

        Raises:
            StoreTimeoutError: Too many others were before; that is no fault of the store.
        """
        ...

    def end(self) -> None:
        """Let the next one begin."""
        ...


@final
class Turns:
    """Hands out turns.

    Args:
        seconds: How long somebody waits for one at most.
    """

    def __init__(self, seconds: float) -> None:
        """Know nobody."""
        self.seconds: float = seconds
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Begin anew: nobody else is left of those who held or waited before a fork."""
        self._queues = _Queues()
        self._of_loops: WeakKeyDictionary[AbstractEventLoop, _Waiting] = WeakKeyDictionary()

    def turn(self, name: str) -> Turn:
        """A turn for whoever calls, not begun yet."""
        loop = running_loop()
        if loop is None:
            return _ThreadTurn(name, self.seconds, self._queues)
        return _LoopTurn(name, self.seconds, loop, self._of_loops.setdefault(loop, {}))


class _Queue:
    """The threads of one name: a lock, and how many hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.users = 0


class _Queues:
    """The queues of threads."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._known: dict[str, _Queue] = {}

    def join(self, name: str) -> tuple[_Queue, bool]:
        """The queue of a name, and whether others are before in it."""
        with self._guard:
            queue = self._known.setdefault(name, _Queue())
            queue.users += 1
            return queue, queue.users > 1

    def leave(self, name: str, queue: _Queue) -> None:
        with self._guard:
            queue.users -= 1
            if not queue.users:
                del self._known[name]


@final
class _ThreadTurn:
    def __init__(self, name: str, seconds: float, queues: _Queues) -> None:
        self._name = name
        self._seconds = seconds
        self._queues = queues
        self.waited = False

    def begin(self) -> None:
        self._queue, self.waited = self._queues.join(self._name)
        if not self._queue.lock.acquire(timeout=self._seconds):
            self._queues.leave(self._name, self._queue)
            raise _too_late(self._name, self._seconds)

    def end(self) -> None:
        self._queue.lock.release()
        self._queues.leave(self._name, self._queue)


@final
class _LoopTurn:
    def __init__(self, name: str, seconds: float, loop: "AbstractEventLoop", waiting: _Waiting) -> None:
        self._name = name
        self._seconds = seconds
        self._loop = loop
        self._waiting = waiting
        self.waited = False

    def begin(self) -> Awaitable[None] | None:
        if self._name not in self._waiting:
            self._waiting[self._name] = deque()
            return None
        self.waited = True
        return self._wait()

    async def _wait(self) -> None:
        import asyncio

        if self._name not in self._waiting:  # the one before has ended since
            self._waiting[self._name] = deque()
            return
        place = self._loop.create_future()
        self._waiting[self._name].append(place)
        try:
            async with asyncio.timeout(self._seconds):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self.end()  # the turn came just as it was given up
            else:
                self._leave(place)
            if isinstance(error, TimeoutError):
                raise _too_late(self._name, self._seconds) from error
            raise

    def _leave(self, place: "Future[None]") -> None:
        """Wait no longer; whoever ended meanwhile may have passed over it already."""
        queue = self._waiting.get(self._name)
        if queue is not None and place in queue:
            queue.remove(place)

    def end(self) -> None:
        queue = self._waiting[self._name]
        while queue:
            place = queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        del self._waiting[self._name]


def _too_late(name: str, seconds: float) -> StoreTimeoutError:
    return StoreTimeoutError(
        "write", f"others of this process wrote {name!r} for {seconds * 1_000:.0f} ms", blames_store=False
    )
