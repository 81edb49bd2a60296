"""Steps that are written once for threads and for tasks: each gives its answer, or an awaitable of it.

A course of steps is a generator; it yields what a store (or whatever else can wait) has answered, and is handed back
the value. Until the first awaitable it runs like any function; from there on as a coroutine.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar, final

from apigate.core.closing import close
from apigate.core.errors import ProtocolError

__all__ = ["Pause", "Steps", "block", "let_go", "refuse_to_wait", "run"]

T = TypeVar("T")

Steps: TypeAlias = Generator[Any, Any, T]
"""What is waited for, one answer after another, and the outcome. Any: each step has an answer of its own type."""


def run(steps: Steps[T]) -> T | Awaitable[T]:
    """The outcome of some steps, or an awaitable of it from the first on that has to be waited for.

    >>> def sum_of(first, second):
    ...     return (yield first) + (yield second)
    >>> run(sum_of(1, 2))
    3
    """
    try:
        answer = next(steps)
        while not _has_to_wait(answer):
            answer = steps.send(answer)
    except StopIteration as end:
        outcome: T = end.value
        return outcome
    return _Rest(steps, answer)


@final
class Pause(Generic[T]):
    """What a task awaits and a thread may block on: another request of this process.

    Args:
        block: Gives the outcome, in a thread.
        wait: Gives an awaitable of it.
    """

    __slots__ = ("_wait", "block")

    def __init__(self, block: Callable[[], T], wait: Callable[[], Awaitable[T]]) -> None:
        """Keep both."""
        self.block: Callable[[], T] = block
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait in a task."""
        return self._wait().__await__()


def block(answer: Awaitable[T]) -> T | Awaitable[T]:
    """The outcome of steps whose pauses a thread can block on; else what has to be awaited after all.

    Args:
        answer: What `run` has answered.
    """
    return answer.block() if isinstance(answer, _Rest) else answer


@final
class _Rest(Generic[T]):
    """The rest of some steps, the first of them to be waited for; no coroutine until somebody does await it."""

    __slots__ = ("_answer", "_steps")

    def __init__(self, steps: Steps[T], answer: Any) -> None:
        self._steps = steps
        self._answer: Any = answer

    def __await__(self) -> Generator[Any, Any, T]:
        return self._finish().__await__()

    async def _finish(self) -> T:
        steps, answer = self._steps, self._answer
        try:
            while True:
                if _has_to_wait(answer):
                    try:
                        answer = await answer
                    except GeneratorExit:  # nobody waits any more, so nothing can be awaited to put things right
                        steps.close()
                        raise
                    except BaseException as error:  # noqa: BLE001 - the steps may have to put something right
                        answer = steps.throw(error)
                        continue
                answer = steps.send(answer)
        except StopIteration as end:
            outcome: T = end.value
            return outcome

    def block(self) -> "T | _Rest[T]":
        """Take the steps in a thread, as far as it can wait."""
        steps, answer = self._steps, self._answer
        try:
            while True:
                if hasattr(answer, "block"):  # a Pause, or steps of another course
                    try:
                        answer = answer.block()
                    except BaseException as error:  # noqa: BLE001 - as in _finish
                        answer = steps.throw(error)
                        continue
                if _has_to_wait(answer):
                    self._answer = answer
                    return self
                answer = steps.send(answer)
        except StopIteration as end:
            outcome: T = end.value
            return outcome

    def close(self) -> None:
        """End the steps where they are, as whoever asked cannot wait."""
        let_go(self._answer)
        self._steps.close()


def let_go(answer: object) -> None:
    """Close what has to be awaited, and will not be: a coroutine complains else."""
    close(answer)


def refuse_to_wait(answer: object, instead: str, so_far: str = "") -> NoReturn:
    """Say that a call cannot wait for a store, and what can.

    Args:
        answer: What has to be awaited.
        instead: The call that waits.
        so_far: What has been done all the same, in words.

    Raises:
        ProtocolError: Always.
    """
    let_go(answer)
    raise ProtocolError(
        f"the store has to be awaited here; use {instead}, or where that is so only as an event loop runs in this "
        f"thread, call it from another thread{so_far}"
    )


def _has_to_wait(answer: object) -> bool:
    return isinstance(answer, Awaitable)
