"""Single flight: of the requests that miss one cache key at once, one asks the app, and the others wait for its answer.

Rule: whoever leads never waits. So nobody waits, not even in a circle, for an answer that it has to give itself.

Threads and tasks of any event loop meet at one flight. What one of them is told is settled by one atomic step of a
dict, and the lock is reentrant: the garbage collector may throw away a waiting coroutine, or a lost lead, in the middle
of anything here, and in the same thread. Nothing is woken under the lock.

Source: RFC 9111 section 4, "collapse requests"; the rules are apigate's, see docs/explanation/coalescing.md.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from enum import Enum
from functools import partial
from threading import Lock, RLock
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar, final

from apigate.core.errors import ConfigurationError
from apigate.core.forks import renew_after_fork
from apigate.core.loops import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["Alone", "Flights", "Lead", "Wait"]

T = TypeVar("T")

_Key: TypeAlias = tuple[str, ...]

_MOST_REFUSALS = 4_096
"""How many refused keys are remembered; their hashes, as a key may be as long as a URL: 0.5 MB at most."""


class Alone(Enum):
    """Why a request asks the app by itself, and neither leads nor waits; the values are tokens for a log."""

    KEYLESS = "keyless"
    """Its key is empty, so it has nothing in common with any other request."""

    REFUSED = "refused"
    """Storage refuses the answer, or has refused one of this key lately: it may be meant for one client only."""

    LEADING = "leading"
    """The running context leads a flight already, whose waiters, or itself, it would wait for."""

    CROWDED = "crowded"
    """As many wait for this flight as may."""

    LOOP = "loop"
    """A thread was to wait that runs an event loop, which would stand still, and the leader perhaps with it."""

    LATE = "late"
    """It has waited as long as it may."""


class _State(Enum):
    """What is known of a flight that has not landed."""

    FLYING = "flying"
    FAILED = "failed"  # and nobody was there to lead it on


_FLYING: Final = _State.FLYING  # looking them up in the class costs 0.07 us each time
_FAILED: Final = _State.FAILED


@final
class _Term:
    """One leader's time at the head of a flight; all that contexts keep of it."""

    over = False
    outer: "_Term | None" = None  # what the same context led before, and perhaps still does


_last_term: ContextVar[_Term | None] = ContextVar("apigate.caching.term", default=None)
"""What the running context has begun to lead last; tasks begun in it know it too."""


def _leading() -> _Term | None:
    """The innermost term of the running context that is not over."""
    term = _last_term.get()
    while term is not None and term.over:
        term = term.outer
    return term


@final
class _Place(Generic[T]):
    """Where one request waits. Its lot is cast once: who comes second finds what came first."""

    __slots__ = ("_lot", "term", "wake")

    term: _Term  # who led when the wait began

    def __init__(self, wake: Callable[[], bool]) -> None:
        self.wake: Callable[[], bool] = wake
        self._lot: dict[None, T | _Term | Alone] = {}

    def settle(self, lot: T | _Term | Alone) -> T | _Term | Alone:
        """What stands from now on."""
        return self._lot.setdefault(None, lot)

    def offer(self, lot: T | _Term | Alone) -> bool:
        """Give it to who waits here; False where nobody does any more."""
        return self.settle(lot) is lot and self.wake()


@final
class _Flight(Generic[T]):
    """One flight, as leaders and waiters share it. It is on the board from its first term until it is over."""

    __slots__ = ("board", "key", "landing", "term", "waiting")

    def __init__(self, board: "_Board[T]", key: _Key) -> None:
        self.board: _Board[T] = board
        self.key: _Key = key
        self.term: _Term = _Term()
        self.landing: T | Alone | _State = _FLYING
        self.waiting: dict[_Place[T], None] = {}

    def enter(self, place: _Place[T]) -> T | Alone | _State:
        """Wait here; tells what has been known before."""
        with self.board.lock:
            if len(self.waiting) >= self.board.max_waiters and self.landing is _FLYING:
                return Alone.CROWDED
            place.term = self.term
            self.waiting[place] = None  # before the look: what happens after it finds this place
            if self.landing is not _FLYING:
                self.waiting.clear()
            return self.landing

    def leave(self, place: _Place[T]) -> T | _Term | Alone:
        """Wait no longer; tells what came just before, or LATE."""
        with self.board.lock:
            self.waiting.pop(place, None)
        return place.settle(Alone.LATE)

    def overtake(self, term: _Term) -> _Term | Alone:
        """Lead in place of who has not landed in all the time that somebody waited; of many, the first does."""
        with self.board.lock:
            if self.landing is not _FLYING or self.term is not term:
                return Alone.LATE
            self.term = _Term()
            return self.term

    def hand_on(self, term: _Term) -> None:
        """End the present term: somebody who is still there leads; without anybody, the flight is over."""
        while True:
            with self.board.lock:
                if self.landing is not _FLYING or self.term is not term:
                    return
                try:
                    place, _ = self.waiting.popitem()  # the last to come: most likely there, and with time left
                except KeyError:
                    self._end(_FAILED)
                    return
                self.term = term = _Term()
            if place.offer(term):
                return

    def land(self, landing: T | Alone) -> None:
        """Tell all who wait."""
        with self.board.lock:
            if self.landing is not _FLYING:
                return
            waiting = self._end(landing)
        for place in waiting:
            place.offer(landing)

    def _end(self, landing: T | Alone | _State) -> dict[_Place[T], None]:
        self.landing = landing
        self.board.flights.pop(self.key, None)
        waiting, self.waiting = self.waiting, {}
        return waiting


@final
class _Board(Generic[T]):
    """What is in flight, and until when, in microseconds, a refused key is not coalesced."""

    def __init__(self, max_waiters: int, refusal_us: int) -> None:
        self.max_waiters = max_waiters
        self.refusal_us = refusal_us
        self.refused: dict[int, int] = {}
        self.flights: dict[_Key, _Flight[T]] = {}
        self.lock: AbstractContextManager[object] = RLock()
        renew_after_fork(self)

    def renew(self) -> None:
        """Begin anew: the others who led or waited are the parent's, and it answers them."""
        self.lock = RLock()  # first, as the garbage collector may come here too
        for flight in self.flights.values():
            flight.landing = _FAILED
            flight.term.over = True
            flight.waiting = {}
        self.refused, self.flights = {}, {}

    def board(self, key: _Key) -> tuple[_Flight[T], _Term | None]:
        """The flight of a key, and its first term if it begins with this call."""
        new = _Flight(self, key)
        flight = self.flights.setdefault(key, new)  # one atomic step
        return flight, new.term if flight is new else None

    def refuse(self, key: _Key, now_us: int) -> None:
        with self.lock:
            if len(self.refused) >= _MOST_REFUSALS:
                self.refused.clear()  # rather coalesce in vain once than search for the oldest
            self.refused[hash(key)] = now_us + self.refusal_us

    def has_refused(self, key: _Key, now_us: int) -> bool:
        until = self.refused.get(hash(key))
        return until is not None and now_us < until


@final
class Lead(Generic[T]):
    """The lead of a flight: whoever holds it asks the app, and says how that ended.

    The first of `land`, `refuse` and `fail` counts, so a `finally` may always `fail`. A lead that is lost without a
    word counts as failed.
    """

    __slots__ = ("_flight", "_term")

    def __init__(self, flight: _Flight[T], term: _Term) -> None:
        """Lead it, and let the running context know."""
        self._flight = flight
        self._term = term
        if _last_term.get() is not None:
            term.outer = _leading()
        _last_term.set(term)

    def land(self, response: T) -> None:
        """All who wait get this response, which storage has accepted and holds in full.

        Args:
            response: The stored response. Whether it matches a request that waited is for that one to judge.
        """
        if not self._term.over:
            self._term.over = True
            self._flight.land(response)

    def refuse(self, now_us: int) -> None:
        """All who wait go on alone, as storage refuses the response; known from its head already.

        Requests of this key are not coalesced then for a while.

        Args:
            now_us: The gateway's clock in microseconds.
        """
        if not self._term.over:
            self._term.over = True
            self._flight.board.refuse(self._flight.key, now_us)
            self._flight.land(Alone.REFUSED)

    def fail(self) -> None:
        """One who waits leads from now on, the others wait for that one: this response was cut off, or never came."""
        if not self._term.over:
            self._term.over = True
            self._flight.hand_on(self._term)

    def __del__(self) -> None:
        if not self._term.over:
            self.fail()


@final
class Wait(Generic[T]):
    """A place among those who wait for a flight; taken only when the wait begins, so it may be thrown away."""

    __slots__ = ("_flight",)

    def __init__(self, flight: _Flight[T]) -> None:
        """Wait for nothing yet."""
        self._flight = flight

    def wait(self, seconds: float) -> T | Lead[T] | Alone:
        """Block this thread until the flight has ended for this request.

        Args:
            seconds: How long at most, from 0 to `threading.TIMEOUT_MAX`.

        Returns:
            The response that has landed; or the lead, as the leader failed, or has not landed in all this time and
            nobody else took over; or why to go on alone.
        """
        if running_loop() is not None:
            return Alone.LOOP
        woken = Lock()
        woken.acquire()
        place: _Place[T] = _Place(partial(_wake_thread, woken))
        known = self._enter(place)
        if known is not None:
            return self._told(known)
        try:
            in_time = woken.acquire(timeout=max(seconds, 0))  # below 0 it would block for ever
        except BaseException:
            self._forsake(place)
            raise
        return self._told(self._lot(place, in_time=in_time))

    async def wait_async(self, seconds: float) -> T | Lead[T] | Alone:
        """Suspend this task until the flight has ended for this request; as `wait`.

        To be awaited in the task that serves the request: another one would not tell it that it leads.
        """
        import asyncio

        loop = asyncio.get_running_loop()
        woken: Future[None] = loop.create_future()
        place: _Place[T] = _Place(partial(_wake_task, loop, woken))
        known = self._enter(place)
        if known is not None:
            return self._told(known)
        in_time = True
        try:
            async with asyncio.timeout(seconds):
                await woken
        except TimeoutError:
            in_time = False
        except BaseException:
            self._forsake(place)
            raise
        return self._told(self._lot(place, in_time=in_time))

    def _enter(self, place: _Place[T]) -> T | _Term | Alone | None:
        """Wait, unless it is known already how that ends; where a flight has failed, for the next one of its key."""
        while True:
            known = self._flight.enter(place)
            if known is _FLYING:
                return None
            if known is not _FAILED:
                return known
            self._flight, term = self._flight.board.board(self._flight.key)
            if term is not None:
                return term

    def _lot(self, place: _Place[T], *, in_time: bool) -> T | _Term | Alone:
        lot = place.settle(Alone.LATE) if in_time else self._flight.leave(place)
        return self._flight.overtake(place.term) if lot is Alone.LATE else lot

    def _forsake(self, place: _Place[T]) -> None:
        lot = self._flight.leave(place)
        if isinstance(lot, _Term):
            self._flight.hand_on(lot)

    def _told(self, lot: T | _Term | Alone) -> T | Lead[T] | Alone:
        return Lead(self._flight, lot) if isinstance(lot, _Term) else lot


@final
class Flights(Generic[T]):
    """The flights of one cache in this process.

    Who asks for a key looks in the cache, joins, and if it leads looks once more: the flight before may have landed in
    between. A child process inherits no flight.

    Args:
        max_waiters: How many may wait for one flight; more go on alone. 1,000 are more than a server's threads, and
            bound what tasks hold.
        refusal_seconds: How long a key is not coalesced after storage has refused its response; 10 s let one request
            in 10 s find out that it may be stored now.

    Raises:
        ConfigurationError: One of them is below 0, or `max_waiters` is no whole number.

    >>> flights: Flights[str] = Flights()
    >>> lead = flights.join(("GET", "/pets"), now_us=0)
    >>> flights.join(("GET", "/pets"), now_us=0)  # by the same request, within
    <Alone.LEADING: 'leading'>
    >>> lead.land("three pets")
    """

    def __init__(self, max_waiters: int = 1_000, refusal_seconds: float = 10) -> None:
        """Begin with none."""
        if not isinstance(max_waiters, int) or max_waiters < 0:
            raise ConfigurationError(f"Flights max_waiters: {max_waiters!r} is not a whole number of at least 0")
        if not refusal_seconds >= 0:
            raise ConfigurationError(f"Flights refusal_seconds: {refusal_seconds!r} is not a number of at least 0")
        self._board: _Board[T] = _Board(max_waiters, round(refusal_seconds * 1_000_000))

    def join(self, key: tuple[str, ...], now_us: int) -> Lead[T] | Wait[T] | Alone:
        """Lead the flight of a key if none is under way, else wait for it, or go on alone.

        Args:
            key: The cache key.
            now_us: The gateway's clock in microseconds.

        Returns:
            The lead; or a place to wait at; or why to go on alone.
        """
        board = self._board
        if not key:
            return Alone.KEYLESS
        if board.refused and board.has_refused(key, now_us):
            return Alone.REFUSED
        new = _Flight(board, key)
        flight = board.flights.setdefault(key, new)  # as `_Board.board`, without its call
        if flight is new:
            return Lead(flight, flight.term)
        return Wait(flight) if _leading() is None else Alone.LEADING


def _wake_thread(woken: Lock) -> bool:
    woken.release()
    return True


def _wake_task(loop: "AbstractEventLoop", woken: "Future[None]") -> bool:
    if running_loop() is loop:
        _wake(woken)
        return True
    try:
        loop.call_soon_threadsafe(_wake, woken)
    except RuntimeError:  # it is closed, so nobody waits there any more
        return False
    return True


def _wake(woken: "Future[None]") -> None:
    if not woken.done():  # by a cancellation
        woken.set_result(None)
