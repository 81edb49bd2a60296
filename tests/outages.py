"""A store that fails on command, in the three ways that a store may answer; and waiting for whoever tries it."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from apigate import StoreError
from apigate.stores.memory import MemoryStore

__all__ = ["WAYS", "FailingStore", "WindowsToo", "attempts_end", "tasks_run"]

WAYS = ("at once", "awaited", "by loop")
"""Plain values; awaitables; and awaitables exactly where an event loop runs, as a store over a network has it."""

_PATIENCE = 10


class FailingStore:
    """A store in memory that raises `error` while there is one.

    Attributes:
        error: Makes what is raised, such as `lambda operation: StoreError(operation, "nobody is there")`.
        calls: What was asked of it, `open` among it.
        held_at: The operation that waits for `goes_on`, and says so by `is_held`.
        hold_async: What every awaitable waits for first, if anything.
    """

    shared = True

    def __init__(self, way: str = "at once") -> None:
        self.way = way
        self.memory = MemoryStore()
        self.error: Callable[[str], Exception] | None = None
        self.calls: list[str] = []
        self.held_at = ""
        self.is_held = threading.Event()
        self.goes_on = threading.Event()
        self.hold_async: asyncio.Event | None = None

    def fail(self, kind: type[StoreError] = StoreError) -> None:
        self.error = lambda operation: kind(operation, "nobody is there")

    def work(self) -> None:
        self.error = None

    def forget(self) -> None:
        """Come back with nothing in memory."""
        self.memory = MemoryStore()

    def open(self, limits: Any, now: int) -> Any:
        self.check("open")
        return _Buckets(self, limits, now)

    def check(self, operation: str) -> None:
        self.calls.append(operation)
        if operation == self.held_at:
            self.is_held.set()
            assert self.goes_on.wait(_PATIENCE)
        error = self.error  # looked at once: another thread may have it work again meanwhile
        if error is not None:
            raise error(operation)

    def has_to_be_awaited(self) -> bool:
        if self.way == "by loop":
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return False
            return True
        return self.way == "awaited"

    def __repr__(self) -> str:
        return "<the store>"


class _Answers:
    """What is asked of a `FailingStore`, whichever way that answers."""

    store: FailingStore

    def acquire(self, *given: Any) -> Any:
        return self._answer("acquire", given)

    def peek(self, *given: Any) -> Any:
        return self._answer("peek", given)

    def adjust(self, *given: Any) -> Any:
        return self._answer("adjust", given)

    def reset(self, *given: Any) -> Any:
        return self._answer("reset", given)

    def _answer(self, operation: str, given: Any) -> Any:
        return self._later(operation, given) if self.store.has_to_be_awaited() else self._now(operation, given)

    def _now(self, operation: str, given: Any) -> Any:
        raise NotImplementedError

    async def _later(self, operation: str, given: Any) -> Any:
        return self._now(operation, given)


class _Buckets(_Answers):
    def __init__(self, store: FailingStore, limits: Any, now: int) -> None:
        self.store = store
        self.limits = limits
        self.now = now
        self.opened = (store.memory, store.memory.open(limits, now))

    def _now(self, operation: str, given: Any) -> Any:
        self.store.check(operation)
        memory = self.store.memory
        if self.opened[0] is not memory:
            self.opened = (memory, memory.open(self.limits, self.now))
        return getattr(self.opened[1], operation)(*given)

    async def _later(self, operation: str, given: Any) -> Any:
        if self.store.hold_async is not None:
            await self.store.hold_async.wait()
        await asyncio.sleep(0)
        return await super()._later(operation, given)


class WindowsToo(FailingStore):
    """One that counts windows too."""

    def windows(self) -> Any:
        return _Windows(self)


class _Windows(_Answers):
    """The windows of a `FailingStore`."""

    def __init__(self, store: FailingStore) -> None:
        self.store = store

    def check(self, window: Any) -> None:
        self.store.memory.windows().check(window)

    def _now(self, operation: str, given: Any) -> Any:
        self.store.check(f"window {operation}")
        return getattr(self.store.memory.windows(), operation)(*given)


def attempts_end() -> None:
    """Wait for the threads that try stores, but for those that others just start."""
    for thread in threading.enumerate():
        if thread.name == "apigate-probe" and thread.is_alive():
            thread.join(_PATIENCE)
            assert not thread.is_alive()


async def tasks_run() -> None:
    """Let the other tasks of the loop run until they wait for something else than their turn."""
    for _ in range(200):
        await asyncio.sleep(0)
