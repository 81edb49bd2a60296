"""Tasks beside the requests, in which stale responses are refreshed; for whatever runs in an event loop.

Source: RFC 5861, section 3.
"""

from asyncio import Task, gather, get_running_loop
from collections.abc import Callable, Coroutine
from typing import Any, final

from apigate.caching.fill import Fill

__all__ = ["RefreshTasks"]

_MOST = 100  # at once in a process; what is not refreshed now is by the next request


@final
class RefreshTasks:
    """The tasks of one adapter, in all event loops of the process.

    Attributes:
        running: Those that have not ended.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.running: set[Task[None]] = set()

    def start(self, exchange: Fill, ask: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have the app asked anew in a task of the running loop, unless too many do so already.

        Args:
            exchange: What the cache does with the response.
            ask: Begins to ask; what it raises is lost.
        """
        if len(self.running) >= _MOST:
            exchange.fail()
            return
        task = get_running_loop().create_task(ask(), context=exchange.context)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        task.add_done_callback(lambda _: exchange.fail())  # one that was cancelled before it began has said nothing

    async def stop(self) -> None:
        """Cancel those of the running loop, and wait for their end."""
        loop = get_running_loop()
        tasks = [task for task in self.running if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        await gather(*tasks, return_exceptions=True)
