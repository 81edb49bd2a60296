"""The one place where time is read, and where waiting happens.

Rule: no other module of apigate imports `time`. A `Clock` is injected everywhere; `apigate.testing.FakeClock` stands
in for it in tests, so that none of them sleeps.
"""

import time
from typing import Protocol

from apigate.core.errors import ProtocolError
from apigate.core.loops import running_loop

__all__ = ["Clock", "SystemClock", "pause"]


class Clock(Protocol):
    """Tells the time, and waits."""

    def now_us(self) -> int:
        """Microseconds on a clock that never goes back; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC, for what is shown to people and clients."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`."""
        ...

    async def sleep_async(self, seconds: float) -> None:
        """Suspend the calling task for `seconds`."""
        ...


class SystemClock:
    """The machine's clocks: `time.monotonic_ns` and `time.time`."""

    __slots__ = ()

    def now_us(self) -> int:
        """Microseconds of the machine's monotonic clock."""
        return time.monotonic_ns() // 1000

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`.

        Raises:
            ProtocolError: The thread runs an event loop, which would stand still.
        """
        if running_loop() is not None:
            raise ProtocolError("waiting here would stop the running event loop; use the _async twin of this call")
        time.sleep(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Suspend the calling asyncio task for `seconds`."""
        import asyncio  # a synchronous user never pays its 50 ms

        await asyncio.sleep(seconds)


def pause(seconds: float) -> None:
    """Let other threads and processes go on for a moment so short that an event loop may stand still meanwhile.

    For whoever asks the kernel again and again for a lock that is held for microseconds.
    """
    time.sleep(seconds)
