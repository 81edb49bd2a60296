"""How the tests of Redis ask a store: by threads, or by tasks of an event loop, one call or many at once."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

from apigate.core.errors import StoreError
from apigate.stores.redis import RedisStore
from apigate.throttling.decision import Decision
from apigate.throttling.limit import Limit, limits_of
from apigate.throttling.rate import parse_rates

PATIENT_MS = 10_000
"""The deadline of stores whose answers always come; only a fault makes a test wait so long."""

LATE = 0.35
"""Seconds over a deadline of 400 ms or more, which are less than whoever waited twice would take."""

TRIES = 5


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What came of a call, a fault of the store too, and how many seconds it took."""
    begun = monotonic()
    try:
        answer = call()
    except StoreError as error:
        answer = error
    return answer, monotonic() - begun


def in_time(attempt: Callable[[], Sequence[tuple[Any, float]]], deadline_ms: int, late: float = LATE) -> list[Any]:
    """What came of the calls of all attempts, until all of one end by their deadlines.

    A busy machine makes some call late; whoever waits longer than it may is late in each attempt.

    Args:
        attempt: Makes some calls, each `timed`.
        deadline_ms: The deadline of each.
        late: Seconds that each may take beyond it.
    """
    answers = []
    for _ in range(TRIES):
        made = attempt()
        answers += [answer for answer, _ in made]
        if all(seconds < deadline_ms / 1_000 + late for _, seconds in made):
            return answers
    raise AssertionError(f"in {TRIES} attempts some call took longer than {deadline_ms} ms: {made}")


@contextmanager
def hasty(store: Any, deadline_ms: int) -> Iterator[None]:
    """Have a store on Redis give up by this deadline, and before and after wait for answers that do come."""
    patient, store.connections.deadline_ms = store.connections.deadline_ms, deadline_ms
    try:
        yield
    finally:
        store.connections.deadline_ms = patient


class Threads:
    """Calls are answered where they are made."""

    name = "threads"

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The answer of one call."""
        return function(*arguments)

    def at_once(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """The answers of many calls that begin together; an exception stands for itself."""
        barrier = threading.Barrier(len(calls))

        def run(call: Callable[[], Any]) -> Any:
            barrier.wait()
            try:
                return call()
            except Exception as error:  # noqa: BLE001 - what came of it is what the test asks
                return error

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(run, calls))

    def notice(self) -> None:
        """Threads notice what has become of a connection when they use it."""

    def close(self) -> None:
        """Nothing is kept."""


class Tasks:
    """Calls are awaited in one event loop, which runs as long as they do."""

    name = "tasks"

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The answer of one call."""

        async def awaited() -> Any:
            answer = function(*arguments)
            return answer if isinstance(answer, Decision) else await answer

        return self._runner.run(awaited())

    def at_once(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """The answers of many calls that begin together; an exception stands for itself."""

        async def awaited() -> list[Any]:
            asked = [call() for call in calls]
            answers = iter(await asyncio.gather(*filter(asyncio.iscoroutine, asked), return_exceptions=True))
            return [next(answers) if asyncio.iscoroutine(each) else each for each in asked]

        return self._runner.run(awaited())

    def notice(self) -> None:
        """Let the loop notice what has become of its connections, as one does that goes on between calls."""

        async def turns() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        self._runner.run(turns())

    def close(self) -> None:
        """End the loop as `asyncio.run` does, by which the connections are closed."""
        self._runner.close()


Caller = Threads | Tasks


class Stores:
    """Opens stores, and closes them when the test ends."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._open: list[RedisStore] = []

    def __call__(self, uri: str, **settings: Any) -> RedisStore:
        """A store; it waits long, and remembers no refusals, unless the settings say so."""
        store = RedisStore(uri, **{"deadline_ms": PATIENT_MS, "denial_cache": False, **settings})
        self._open.append(store)
        return store

    def close(self) -> None:
        """Close all, in threads and loop."""
        self._caller.close()
        for store in self._open:
            store.close()


class Asked:
    """Some limits of a store, asked by threads or tasks."""

    def __init__(self, caller: Caller, store: Any, limits: Sequence[Limit], now: int = 0) -> None:
        self.caller, self.limits = caller, limits
        self.buckets = store.open(limits, now)

    def acquire(self, *keys: Any, cost: int = 1, now: int = 0, patience: int = 0) -> Decision:
        """Ask for the same cost at every limit; one key stands for all of them."""
        return self.caller.ask(self.call, keys, cost, now, patience)

    def call(self, keys: Sequence[Any] = ("a",), cost: int = 1, now: int = 0, patience: int = 0) -> Any:
        """A call as the store answers it, for `at_once`."""
        return self.buckets.acquire(self._all(keys), [cost] * len(self.limits), now, patience)

    def peek(self, *keys: Any, cost: int = 0, now: int = 0) -> Decision:
        """Look at every limit."""
        return self.caller.ask(self.buckets.peek, self._all(keys), [cost] * len(self.limits), now)

    def adjust(self, *keys: Any, tokens: int, now: int = 0) -> None:
        """Take or give the same at every limit."""
        self.caller.ask(self.buckets.adjust, self._all(keys), [tokens] * len(self.limits), now)

    def reset(self, *keys: Any) -> None:
        """Forget these buckets; without keys all."""
        self.caller.ask(self.buckets.reset, self._all(keys) if keys else None)

    def left(self, *keys: Any, now: int = 0) -> list[int]:
        """Whole tokens left at each limit."""
        return [state.remaining for state in self.peek(*keys, now=now).buckets]

    def _all(self, keys: Sequence[Any]) -> list[Any]:
        keys = keys or ("a",)
        return list(keys) if len(keys) == len(self.limits) else list(keys) * len(self.limits)


def is_admitted(asked: Asked, *keys: Any) -> bool:
    """Whether a call is answered, and admitted."""
    return getattr(timed(lambda: asked.acquire(*keys))[0], "allowed", False)


def limits(*rates: str, owner: str = "shop", steady: bool = True) -> list[Limit]:
    """One limit for each rate, at a level of its own."""
    return [
        limit
        for number, rate in enumerate(rates)
        for limit in limits_of(f"{owner}:level-{number}", f"level-{number}", parse_rates(rate), steady=steady)
    ]
