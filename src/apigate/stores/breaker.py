"""The circuit breaker of a store: whether it is to be asked, and who finds out that it answers again.

Rule: it knows nothing of what a store keeps. Whoever keeps something there says in steps how to find out, each of them
an answer or an awaitable; the breaker takes these steps beside the requests, never inside one, a single attempt at a
time, and holds no lock meanwhile. Its state is that of this process.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import closing
from contextvars import Context
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar, cast, final

from apigate.core.clock import Clock
from apigate.core.errors import StoreError
from apigate.core.events import StoreOutage, StoreRecovered
from apigate.core.forks import renew_after_fork
from apigate.core.steps import let_go

if TYPE_CHECKING:
    from asyncio import Task

__all__ = [
    "FIRST_PROBE_US",
    "LONGEST_PROBE_US",
    "STEADY_US",
    "Breaker",
    "Recovery",
    "StoreChange",
    "Watched",
    "ask_once",
]

T = TypeVar("T")

FIRST_PROBE_US = 100_000
"""How long after an outage began the store is asked again; each attempt waits twice as long as the one before."""

LONGEST_PROBE_US = 5_000_000
"""At most so long."""

STEADY_US = 10_000_000
"""How long the store has to have answered, for the next outage to begin with a short interval again."""

_SKEW_US = 1_000_000  # callers read the clock before they come here; what lies further ahead is a clock set back

StoreChange: TypeAlias = StoreOutage | StoreRecovered
"""What a breaker tells of."""


class Recovery(Protocol):
    """How to find out that a store works again, in steps: each of them an answer of the store, or an awaitable of it.

    Where nothing has to be awaited, a step is None or whatever the store said. The steps are taken by a thread or a
    task of the breaker's own. A step that fails with a `StoreError` ends the attempt.
    """

    def attempt(self) -> Iterable[object]:
        """What must succeed before the store is asked by requests again; it should write, as a full store reads."""
        ...

    def finish(self) -> Iterable[object]:
        """What is done as soon as it is asked by requests again."""
        ...


def ask_once(recovery: Recovery) -> None:
    """Ask a store once, by the first step of an attempt, in this thread: to know whether it works before requests do.

    Raises:
        StoreError: It does not.
    """
    answer = next(iter(recovery.attempt()))
    if isinstance(answer, Awaitable):
        import asyncio

        async def wait() -> None:
            await cast("Awaitable[object]", answer)

        asyncio.run(wait())


@final
class Breaker:
    """Opens at the first failure, then has the store tried at growing intervals, and closes when that succeeds.

    The intervals of a store that comes and goes grow on from one outage to the next, until it has answered for 10 s.
    Several users of one store share one breaker, as an outage is one for all of them. It costs a look at `is_open`
    while all is well.

    Args:
        store: What to call the store in the log and in events.
        recovery: How to find out that it works again.
        clock: The clock that requests go by.
        on_event: Told of the outage and of the recovery, in their order, with no lock held; it must not raise.
        meanwhile: Tells what is done until then, when that is logged.

    Attributes:
        is_open: Whether the store must not be asked.
        turn: Grows each time that it opens or closes; whoever asks the store notes it before, for `fail`.
    """

    def __init__(
        self,
        store: str,
        recovery: Recovery,
        clock: Clock,
        on_event: Callable[[StoreChange], None] | None = None,
        meanwhile: Callable[[], str] = lambda: "it is not asked",
    ) -> None:
        """Start closed."""
        self.is_open: bool = False
        self.turn: int = 0
        self._store = store
        self._recovery = recovery
        self._clock = clock
        self._on_event = on_event
        self._meanwhile = meanwhile
        self._since = 0
        self._closed: int | None = None
        self._due = 0
        self._interval = FIRST_PROBE_US
        self._in_task = False
        self._probe: _Probe | None = None
        self._untold: deque[StoreChange] = deque()
        self._lock = Lock()
        self._telling = Lock()
        renew_after_fork(self)

    def renew(self) -> None:
        """Take new locks and forget the attempt under way: in a process just forked, nobody else holds or makes any."""
        self._lock = Lock()
        self._telling = Lock()
        self._probe = None

    def call(
        self, operation: Callable[[], T | Awaitable[T]], fallback: Callable[[], T] | None = None
    ) -> T | Awaitable[T]:
        """What the store answers while this is closed; a failure is noted, be it raised at once or awaited.

        Args:
            operation: Asks the store.
            fallback: What is answered in place of a failure; without one, that is raised again.

        Raises:
            StoreError: The store has failed, and there is no fallback.
        """
        turn = self.turn
        try:
            answer = operation()
        except StoreError as error:
            self.fail(error, turn)
            if fallback is None:
                raise
        else:
            if isinstance(answer, Awaitable):
                return Watched(self, turn, cast("Awaitable[T]", answer), fallback)
            return answer
        return fallback()

    def fail(self, error: StoreError, turn: int, *, awaited: bool = False) -> None:
        """Note that the store failed; the first failure opens. One that is not the store's own opens nothing.

        Args:
            error: What it raised.
            turn: The breaker's turn when it was asked: a late failure of a request from before does not count.
            awaited: Whether the answer had to be awaited: then the store is tried by tasks, where a loop is running.
        """
        if not error.blames_store:
            return
        now = self._clock.now_us()
        with self._lock:
            if self.is_open or turn != self.turn:
                return
            self._since = now
            if self._closed is None or not 0 <= now - self._closed < STEADY_US:
                self._interval = FIRST_PROBE_US
            self._due = now + self._interval
            self._in_task = awaited
            self.turn += 1
            self.is_open = True
            self._untold.append(StoreOutage(self._store, error.operation, str(error)))
        self._tell()

    def wait_us(self, now: int) -> int:
        """Microseconds until the store is tried again, if a request comes then."""
        return max(0, min(self._due - now, LONGEST_PROBE_US))

    def probe_if_due(self, now: int) -> None:
        """Have the store tried, if it is time; returns at once.

        Args:
            now: The time in microseconds, by the clock that the breaker has too.
        """
        if self._is_due(now):
            self._start(now)

    def _is_due(self, now: int) -> bool:
        """Whether it is time; it is too where a clock set back has moved the time far ahead."""
        return not 0 < self._due - now <= self._interval + _SKEW_US

    def _start(self, now: int) -> None:
        with self._lock:
            if not (self.is_open and self._is_due(now)):
                return
            if self._probe is not None and self._probe.is_alive():
                self._due = now + self._interval
                return
            if self._probe is not None:
                self._in_task = False  # loops end here before an attempt does; threads do not
            self._interval = min(2 * self._interval, LONGEST_PROBE_US)
            self._due = now + self._interval
            probe = self._probe = _Probe()
        if not (self._in_task and self._start_task(probe)):
            self._start_thread(probe)

    def _start_task(self, probe: "_Probe") -> bool:
        """Try the store in a task of the loop that runs here; False where there is none."""
        import asyncio  # loaded already, as something was awaited

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        # With nothing of the request that happened to come when it was time.
        probe.worker = loop.create_task(self._attempt_async(probe), context=Context())
        return True

    def _start_thread(self, probe: "_Probe") -> None:
        thread = Thread(target=self._attempt, args=(probe,), name="apigate-probe", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the process ends, or may not have another one
            self._end(probe, None)
        else:
            probe.worker = thread

    def _attempt(self, probe: "_Probe") -> None:
        """Take the steps in this thread; in a loop of its own, if the store insists on being awaited."""
        try:
            with closing(self._steps(probe)) as steps:
                for answer in steps:
                    if isinstance(answer, Awaitable):
                        let_go(cast("object", answer))
                        break
                else:
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt must come
            self._end(probe, error)
            return
        finally:
            self._tell()
        import asyncio

        asyncio.run(self._attempt_async(probe))

    async def _attempt_async(self, probe: "_Probe") -> None:
        """Take the steps in this task."""
        from asyncio import sleep

        try:
            for answer in self._steps(probe):
                await (answer if isinstance(answer, Awaitable) else sleep(0))
        except Exception as error:  # noqa: BLE001 - as in _attempt
            self._end(probe, error)
        except BaseException:  # cancelled: the loop ends
            self._lose(probe)
            raise
        finally:
            self._tell()

    def _steps(self, probe: "_Probe") -> Generator[object, None, None]:
        """Every step of an attempt, as long as no other attempt has taken its place."""
        for answer in self._recovery.attempt():
            yield answer
            if self._probe is not probe:
                return
        if self._close(probe):
            for answer in self._recovery.finish():
                yield answer
                if self._probe is not probe:
                    return
            self._end(probe, None)

    def _close(self, probe: "_Probe") -> bool:
        now = self._clock.now_us()
        with self._lock:
            if self._probe is not probe:
                return False
            self.turn += 1
            probe.turn = self.turn
            self.is_open = False
            self._closed = now
            self._untold.append(StoreRecovered(self._store, max(0, now - self._since) / 1_000_000))
        return True

    def _end(self, probe: "_Probe", error: Exception | None) -> None:
        """Note how an attempt ended."""
        now = self._clock.now_us()
        with self._lock:
            if self._probe is not probe:
                return
            self._probe = None
            if self.is_open:
                self._due = now + self._interval
        if error is None:
            return
        if not isinstance(error, StoreError):
            from logging import getLogger

            getLogger("apigate").error("trying %s raised what is no StoreError", self._store, exc_info=error)
            error = StoreError("probe", repr(error))
        if probe.turn:  # it was closed already
            self.fail(error, probe.turn, awaited=self._in_task)

    def _lose(self, probe: "_Probe") -> None:
        """Let the next request have the store tried: this attempt came to nothing, through no fault of the store."""
        with self._lock:
            if self._probe is probe:
                self._probe = None
                self._in_task = False
                self._due = 0

    def _tell(self) -> None:
        """Log and hand out what happened, in the order it did, whichever thread is first."""
        while self._untold and self._telling.acquire(blocking=False):
            try:
                while self._untold:
                    event = self._untold.popleft()
                    self._log(event)
                    if self._on_event is not None:
                        self._on_event(event)
            finally:
                self._telling.release()

    def _log(self, event: StoreChange) -> None:
        from logging import getLogger

        if isinstance(event, StoreOutage):
            getLogger("apigate").warning(
                "%s cannot be reached (%s); until it answers again, %s", event.store, event.error, self._meanwhile()
            )
        else:
            getLogger("apigate").warning("%s answers again, after %.1f s", event.store, event.seconds)


@final
class Watched(Generic[T]):
    """An answer that has to be awaited, or its fallback; no coroutine until somebody does await it.

    Args:
        breaker: Told of a failure.
        turn: Its turn when the store was asked.
        answer: The answer.
        fallback: What is answered in place of a failure; without one, that is raised again.
    """

    __slots__ = ("_answer", "_breaker", "_fallback", "_turn")

    def __init__(self, breaker: Breaker, turn: int, answer: Awaitable[T], fallback: Callable[[], T] | None) -> None:
        """Await nothing yet."""
        self._breaker = breaker
        self._turn = turn
        self._answer = answer
        self._fallback = fallback

    def __await__(self) -> Generator[Any, Any, T]:
        return self._judged().__await__()

    async def _judged(self) -> T:
        fallback = self._fallback
        try:
            return await self._answer
        except StoreError as error:
            self._breaker.fail(error, self._turn, awaited=True)
            if fallback is None:
                raise
        return fallback()

    def close(self) -> None:
        """Let the answer go, as whoever asked cannot await it."""
        let_go(self._answer)


@final
class _Probe:
    """One attempt, and what makes it."""

    __slots__ = ("turn", "worker")

    def __init__(self) -> None:
        self.worker: Thread | Task[None] | None = None
        self.turn: int = 0  # of the breaker that it closed

    def is_alive(self) -> bool:
        """Whether it will come to an end; a task does not whose loop has ended, or stands still."""
        worker = self.worker
        if worker is None or isinstance(worker, Thread):
            return worker is None or worker.is_alive()
        return not worker.done() and worker.get_loop().is_running()
