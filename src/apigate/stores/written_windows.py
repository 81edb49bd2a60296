"""Windows in a server that runs no scripts: a tally is read, decided here, and written if nobody wrote it meanwhile.

Whoever comes too late reads again; each such turn is another one's that was counted, so somebody always gets on. That
is exact whatever the clients do. Those of one process queue for the same key, so that only processes meet at the
server. The strategies of `limits` are not exact, on these servers: they count first and look then. The time is the
hosts', as limits has it too: clocks that differ by a second make a window a second shorter.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, Protocol, TypeVar, final

from apigate.core.clock import Clock, SystemClock
from apigate.core.errors import ConfigurationError, StoreTimeoutError
from apigate.core.steps import Steps, run
from apigate.stores.shown import shown
from apigate.stores.storage_connections import bounded
from apigate.stores.turns import Turn, Turns
from apigate.stores.written_names import kept_under
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit, window_of
from apigate.throttling.tallies import Standing, Tally, amend, ask, begin, lifetime_ms
from apigate.throttling.window import Window

__all__ = ["Slots", "WindowsOnly", "WrittenWindows", "need_package"]

T = TypeVar("T")


class Slots(Protocol):
    """Where tallies are kept, each as whole numbers under a name. Every method may hand back an awaitable."""

    def check(self, window: Window) -> None:
        """See that it can keep such a window.

        Raises:
            ConfigurationError: It cannot.
        """
        ...

    def read(self, name: str) -> Any:
        """The numbers, and what tells whether they were written since; None for that where there is nothing."""
        ...

    def write(self, limit: Limit, name: str, numbers: Sequence[int], seen: Any, life_ms: int) -> Any:
        """Write numbers if they are as they were `seen`, to be kept for so long at least; tells whether it did."""
        ...

    def drop(self, name: str) -> Any:
        """Forget what is under a name."""
        ...

    def drop_all(self, limit: Limit) -> Any:
        """Forget all of a limit.

        Raises:
            StoreError: It cannot find them.
        """
        ...

    def close(self) -> None:
        """Close the connections of threads."""
        ...

    async def close_async(self) -> None:
        """Close those of the running loop."""
        ...


@final
class WrittenWindows:
    """Windows in such a server.

    Args:
        slots: Where they are kept.
        deadline_ms: Milliseconds that an answer may take, as `checked_deadline_ms` has them.
        host_time: Whether this host's wall clock counts. Tests turn it off, to go by the time that is handed in.
        clock: This host's clock.
    """

    def __init__(self, slots: Slots, deadline_ms: int, *, host_time: bool = True, clock: Clock | None = None) -> None:
        """Keep the parts."""
        self._slots = slots
        self._deadline_ms = deadline_ms
        self._host_time = host_time
        self._clock = clock or SystemClock()
        self._turns = Turns(deadline_ms / 2_000)  # so that at least half of the deadline is the server's

    def check(self, window: Window) -> None:
        """See that the server can keep such a window."""
        self._slots.check(window)

    def acquire(self, limit: Limit, key: Key, cost: int, now: int) -> Standing | Awaitable[Standing]:
        """Count the cost if there is room for it."""

        def decide(tally: Tally, window: Window, at: int) -> tuple[Standing, bool]:
            standing = ask(tally, window, cost, at, take=True)
            return standing, standing.allowed and cost > 0

        turn = self._turns.turn(kept_under(limit, key))
        return self._bounded("acquire", self._in_turn(turn, limit, key, now, decide), turn)

    def peek(self, limit: Limit, key: Key, cost: int, now: int) -> Standing | Awaitable[Standing]:
        """What `acquire` would answer, counting nothing."""

        def decide(tally: Tally, window: Window, at: int) -> tuple[Standing, bool]:
            return ask(tally, window, cost, at, take=False), False

        turn = self._turns.turn(kept_under(limit, key))  # not waited for, as a look seldom writes
        return self._bounded("peek", self._written(turn, limit, key, now, decide), turn)

    def adjust(self, limit: Limit, key: Key, units: int, at: int | None, now: int) -> Awaitable[None] | None:
        """Count more without asking, or give back what was counted under `at`."""

        def decide(tally: Tally, window: Window, moment: int) -> tuple[Standing, bool]:
            before = list(tally.numbers())
            amend(tally, window, units, at, moment)
            return Standing(True, 0, 0, 0, moment), tally.numbers() != before

        turn = self._turns.turn(kept_under(limit, key))
        steps = self._in_turn(turn, limit, key, now, decide)
        return self._bounded("adjust", _nothing(steps), turn)

    def reset(self, limit: Limit, key: Key | None) -> Awaitable[None] | None:
        """Forget a key; without one, every key of the limit."""
        slots = self._slots
        return self._bounded(
            "reset",
            _nothing(_one(lambda: slots.drop_all(limit) if key is None else slots.drop(kept_under(limit, key)))),
        )

    def _bounded(self, operation: str, steps: Steps[T], turn: Turn | None = None) -> T | Awaitable[T]:
        return bounded(operation, self._deadline_ms, lambda: run(steps), lambda: turn is None or not turn.waited)

    def _in_turn(
        self,
        turn: Turn,
        limit: Limit,
        key: Key,
        now: int,
        decide: Callable[[Tally, Window, int], tuple[Standing, bool]],
    ) -> Steps[Standing]:
        """Write while nobody else of this process or loop writes the same."""
        yield turn.begin()
        try:
            return (yield from self._written(turn, limit, key, now, decide))
        finally:
            turn.end()

    def _written(
        self,
        turn: Turn,
        limit: Limit,
        key: Key,
        now: int,
        decide: Callable[[Tally, Window, int], tuple[Standing, bool]],
    ) -> Steps[Standing]:
        """Read, decide and write, until nobody wrote between; each is a round trip."""
        window = window_of(limit)
        name = kept_under(limit, key)
        ends = self._clock.now_us() + self._deadline_ms * 1_000
        trips = 0
        while True:
            numbers, seen = yield self._slots.read(name)
            at = round(self._clock.wall() * 1_000_000) if self._host_time else now
            tally = begin(window, numbers)
            healed = tally.settle(at)
            standing, changed = decide(tally, window, at)
            trips += 1
            if not (changed or healed):
                break
            written = yield self._slots.write(limit, name, tally.numbers(), seen, lifetime_ms(tally, at))
            trips += 1
            if written:
                break
            turn.waited = True  # for others, at the server, which has answered
            if self._clock.now_us() > ends:
                why = f"others wrote {name!r} at each try for {self._deadline_ms} ms"
                raise StoreTimeoutError("write", why, blames_store=False)
        return standing._replace(round_trips=trips)


class WindowsOnly:
    """A store that holds windows and no buckets, shared by all that use its server.

    Args:
        address: Its address.
        slots: Where its windows are kept.
        deadline_ms: Milliseconds that an answer may take, as `checked_deadline_ms` has them.
        host_time: Whether this host's wall clock counts. Tests turn it off, to go by the time that is handed in.
    """

    shared: bool = True
    """Other processes count in the same windows."""

    windows_only: bool = True
    """So whoever wants to know whether it answers has to ask for a window."""

    def __init__(self, address: str, slots: Slots, deadline_ms: int, *, host_time: bool = True) -> None:
        """Connect to nothing yet."""
        self._address = shown(address)
        self._slots = slots
        self._windows: WrittenWindows = WrittenWindows(slots, deadline_ms, host_time=host_time)

    def open(self, limits: Sequence[Limit], now: int) -> NoReturn:  # noqa: ARG002 - as every store's
        """Refuse.

        Raises:
            ConfigurationError: Always.
        """
        limit = limits[0]
        raise ConfigurationError(
            f"store: {self._address} holds windows only, and the {limit.policy} limit is the rate {limit.rate}; give "
            f"it a Window, or use a store that holds buckets: memory, a file, Redis or Valkey"
        )

    def windows(self) -> WrittenWindows:
        """Where windows are counted."""
        return self._windows

    def close(self) -> None:
        """Close the connections of threads; they are made anew where there is need."""
        self._slots.close()

    async def close_async(self) -> None:
        """Close those of the running loop."""
        await self._slots.close_async()

    def __repr__(self) -> str:
        """The address."""
        return f"<{type(self).__name__} {self._address}>"


def need_package(extra: str, *packages: str) -> None:
    """See that a client is installed: the one for threads or the one for event loops.

    Raises:
        ConfigurationError: None is.
    """
    from importlib.util import find_spec

    if not any(find_spec(package) for package in packages):
        raise ConfigurationError(
            f"store: {extra}:// needs {packages[0]}, and under an event loop {packages[1]}; install apigate[{extra}]"
        )


def _one(step: Callable[[], T]) -> Steps[T]:
    answer: T = yield step()
    return answer


def _nothing(steps: Steps[object]) -> Steps[None]:
    yield from steps
