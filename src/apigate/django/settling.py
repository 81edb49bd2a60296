"""When a request of Django has ended, and what has to be awaited then, where Django calls us in a thread."""

from asyncio import AbstractEventLoop, run_coroutine_threadsafe
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial

from django.http import HttpRequest

from apigate.core.policy import refuse_awaitable

__all__ = ["later_of", "when_closed"]


def later_of(request: HttpRequest) -> Callable[[Awaitable[None]], None]:
    """What takes that which has to be awaited, where Django calls us in a thread or when a task is done: the loop."""
    loop: AbstractEventLoop | None = getattr(request, "_apigate_loop", None)
    return refuse_awaitable if loop is None else partial(_settle_on, loop)


def _settle_on(loop: AbstractEventLoop, answer: Awaitable[None]) -> None:
    """Have an answer awaited on a loop, and keep what awaits it until then."""

    async def settle() -> None:
        await answer

    future = run_coroutine_threadsafe(settle(), loop)
    _settling.add(future)
    future.add_done_callback(_note_settled)


def _note_settled(future: Future[None]) -> None:
    _settling.discard(future)
    if not future.cancelled() and (error := future.exception()) is not None:
        from logging import getLogger

        getLogger("apigate").error("a request could not be settled", exc_info=error)


_settling: set[Future[None]] = set()


def when_closed(request: HttpRequest, then: Callable[[], None]) -> None:
    """Have something done when the response that is sent in the end is closed; Django closes the request with it."""
    close = request.close

    def close_all() -> None:
        request.close = close  # type: ignore[method-assign]  # and no reference to itself is left
        try:
            close()
        finally:
            then()

    request.close = close_all  # type: ignore[method-assign]
