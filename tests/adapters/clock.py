"""A clock that stands still until a test moves it."""


class FakeClock:
    def __init__(self) -> None:
        self._us = 1_000_000_000
        self._wall = 1_700_000_000.0

    def now_us(self) -> int:
        return self._us

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        self._us += round(seconds * 1_000_000)
        self._wall += seconds

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        self.advance(seconds)
