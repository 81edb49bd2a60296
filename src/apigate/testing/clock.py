"""A clock that only its test moves, so that no test sleeps and none depends on the machine it runs on."""

from threading import Lock
from typing import final

__all__ = ["FakeClock"]

_WALL_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
_NOW_US = 1_000_000_000  # as on a machine that has been up for a while; not the wall's, so that mixing them up shows


@final
class FakeClock:
    """Stands in for the machine's clock: `Throttle(..., clock=FakeClock())`, `Gateway(..., clock=FakeClock())`.

    It starts at 2026-01-01T00:00:00Z and moves in whole microseconds. Whoever waits on it returns at once, and has
    moved it by as much. Threads may share it.

    >>> from apigate import Rate, Throttle
    >>> clock = FakeClock()
    >>> throttle = Throttle({"global": Rate(1, per=60)}, clock=clock)
    >>> throttle.acquire().allowed, throttle.acquire().allowed
    (True, False)
    >>> clock.advance(60)
    >>> throttle.acquire().allowed
    True
    """

    __slots__ = ("_lock", "_moved_us")

    def __init__(self) -> None:
        """Start where every fake clock starts."""
        self._lock = Lock()
        self._moved_us = 0

    def now_us(self) -> int:
        """Microseconds; only differences mean anything."""
        return _NOW_US + self._moved_us

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return (_WALL_US + self._moved_us) / 1_000_000

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: How much, at least 0; rounded to microseconds.

        Raises:
            ValueError: It is below 0; that is a `step`.
        """
        if seconds < 0:
            raise ValueError(f"seconds: {seconds!r} is below 0, and time does not run backwards; see step")
        self.step(seconds)

    def step(self, seconds: float) -> None:
        """Set the clock, forward or (below 0) back, as an operator or a time server does. No time passes by it.

        Args:
            seconds: By how much; rounded to microseconds.
        """
        with self._lock:
            self._moved_us += round(seconds * 1_000_000)

    def sleep(self, seconds: float) -> None:
        """Let the time pass at once, instead of blocking the thread."""
        self.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Let the time pass at once, without suspending the task."""
        self.advance(seconds)

    def __repr__(self) -> str:
        """How far it has moved."""
        return f"<FakeClock {self._moved_us / 1_000_000:+.6f} s>"
