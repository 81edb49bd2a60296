"""Steps that are written once for threads and for tasks: each gives its answer, or an awaitable of it.

A course of steps is a generator; it yields what a store (or whatever else can wait) has answered, and is handed back
the value. Until the first awaitable it runs like any function; from there on as a coroutine.
"""

from collections.abc import Awaitable, Generator
from typing import Any, TypeAlias, TypeVar

__all__ = ["Steps", "run"]

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
    return _finish(steps, answer)


async def _finish(steps: Steps[T], answer: Any) -> T:
    """The rest of some steps, the first of them to be waited for."""
    try:
        while True:
            if _has_to_wait(answer):
                try:
                    answer = await answer
                except BaseException as error:  # noqa: BLE001 - the steps may have to put something right
                    answer = steps.throw(error)
                    continue
            answer = steps.send(answer)
    except StopIteration as end:
        outcome: T = end.value
        return outcome


def _has_to_wait(answer: object) -> bool:
    return isinstance(answer, Awaitable)
