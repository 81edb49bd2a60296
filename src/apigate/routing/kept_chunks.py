"""The chunks of a framework's streamed response, of which an exchange of the cache hears as they pass.

Rule: chunks go on as they come. What has not come to its own end is not kept.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias, final

from apigate.caching.exchange import Exchange
from apigate.core.closing import close
from apigate.core.steps import let_go

__all__ = ["KeptChunks", "KeptChunksAsync", "Later", "end"]

Later: TypeAlias = Callable[[Awaitable[None]], None]
"""Takes what has to be awaited, where the caller cannot."""


def end(exchange: Exchange, later: Later = let_go) -> None:
    """Have an exchange do what is left to do, once the response is out; what was not complete by now is not kept.

    Args:
        exchange: The exchange.
        later: Takes what has to be awaited; without it that is lost, and other workers ask the app themselves.
    """
    exchange.fail()  # without effect where the response is complete
    answer = exchange.settle()
    if answer is not None:
        later(answer)


@final
class KeptChunks:
    """Chunks for threads.

    Args:
        exchange: The exchange.
        chunks: The framework's chunks.
        later: As for `end`.
    """

    def __init__(self, exchange: Exchange, chunks: Any, later: Later = let_go) -> None:  # Any: whatever it streams
        """Nothing has passed yet."""
        self._exchange = exchange
        self._source = chunks
        self._later = later
        self._chunks: Iterator[bytes] = iter(chunks)

    def __iter__(self) -> Iterator[bytes]:
        """Itself."""
        return self

    def __next__(self) -> bytes:
        """The next chunk."""
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._exchange.finish()
            raise
        except BaseException:
            self._exchange.fail()
            raise
        self._exchange.feed(chunk)
        return chunk

    def close(self) -> None:
        """Close the framework's chunks, and settle."""
        try:
            close(self._source)
        finally:
            end(self._exchange, self._later)


@final
class KeptChunksAsync:
    """Chunks for tasks; who streams them closes them.

    Args:
        exchange: The exchange.
        chunks: The framework's chunks.
    """

    def __init__(self, exchange: Exchange, chunks: Any) -> None:  # Any: as KeptChunks
        """Nothing has passed yet."""
        self._exchange = exchange
        self._chunks: AsyncIterator[bytes] = aiter(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Itself."""
        return self

    async def __anext__(self) -> bytes:
        """The next chunk."""
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._exchange.finish()
            raise
        except BaseException:
            self._exchange.fail()
            raise
        self._exchange.feed(chunk)
        return chunk
