"""Whether an event loop runs in this thread, for what answers at once in a thread and by an awaitable in a loop."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["running_loop"]


def running_loop() -> "AbstractEventLoop | None":
    """The event loop that runs in this thread, or None. Does not import asyncio: without that, no loop runs."""
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()  # noqa: SLF001 - the public one raises
