"""The chunks of a streamed response while the request's context is known, as its decorated functions ask for that."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, final

from apigate.core.context import RequestContext, current

__all__ = ["Followed", "FollowedAsync"]


@final
class Followed:
    """The chunks of a response; what makes them runs only now, and its decorated functions ask for the context."""

    def __init__(self, context: RequestContext, chunks: Any) -> None:  # Any: what Django streams, of either kind
        self._context = context
        self._chunks: Iterator[bytes] = iter(chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = current.set(self._context)
        try:
            return next(self._chunks)
        finally:
            current.reset(token)


@final
class FollowedAsync:
    """`Followed` for tasks."""

    def __init__(self, context: RequestContext, chunks: Any) -> None:  # Any: as Followed
        self._context = context
        self._chunks: AsyncIterator[bytes] = aiter(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        token = current.set(self._context)
        try:
            return await anext(self._chunks)
        finally:
            current.reset(token)
