"""What shares of windows have counted during outages, and how much of that the store was told.

Rule: a share is never emptied, or each outage would begin with a full one; only what was not told yet is told. What was
told is kept as the tally that the share then was: so it leaves the window at the very moments at which it leaves the
share, and the difference is what came since.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, final

from apigate.stores.memory_windows import MemoryWindows
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit
from apigate.throttling.store import WindowStore
from apigate.throttling.tallies import begin
from apigate.throttling.window import WindowKind

__all__ = ["CarriedWindows"]

_SCANNED = 1_000
"""How many keys are looked at in one step."""


class _Told(NamedTuple):
    """A share's tally when the store had been told of all of it."""

    kind: WindowKind
    numbers: tuple[int, ...]


@final
class CarriedWindows:
    """Carries over what the shares of windows count, each part of it once.

    Args:
        shares: The windows of this process.
    """

    def __init__(self, shares: MemoryWindows) -> None:
        """Have told nothing."""
        self._shares = shares
        self._told: dict[tuple[str, Key], _Told] = {}  # by limit and key

    def carry(
        self, shares: Mapping[str, Limit], limits: Mapping[str, Limit], within: Callable[[Limit], WindowStore], now: int
    ) -> Iterator[object]:
        """Count in the store what it was not told of; as if it came now, so never for too short.

        Args:
            shares: The limits of the shares, by name.
            limits: The limits whose shares they are, by name.
            within: Where the store counts the windows of a limit.
            now: The time in microseconds.
        """
        kept: dict[tuple[str, Key], _Told] = {}
        for number, (name, key) in enumerate(self._shares.keys(), start=1):
            share, limit, before = shares[name], limits[name], self._told.get((name, key))
            standing = self._standing(share, key, now)
            if share.window is not None and standing is not None:
                used, told = standing
                if before is not None and before.kind == told.kind:
                    kept[name, key] = before
                    known = begin(share.window, before.numbers)
                    known.settle(now)
                    used -= known.used(now)
                if used > 0:
                    yield within(limit).adjust(limit, key, used, None, now)
                    self._told[name, key] = kept[name, key] = told  # only now: the store might have failed again
            if number % _SCANNED == 0:
                yield None  # a loop has others to serve
        self._told = kept  # of the others nothing counts any more

    def _standing(self, share: Limit, key: Key, now: int) -> tuple[int, _Told] | None:
        """What a share has counted, and its tally at that moment; None where nothing counts."""
        with self._shares:
            tally = None if share.window is None else self._shares.tally(share, key)
            if share.window is None or tally is None:
                return None
            tally.period = share.window.period_us
            tally.settle(now)
            used = tally.used(now)
            return (used, _Told(share.window.kind, tuple(tally.numbers()))) if used else None

    def forget(self, name: str, key: Key | None) -> None:
        """Forget what was told of a key that is reset; without one, of every key of the limit."""
        if key is not None:
            self._told.pop((name, key), None)
        else:
            self._told = {place: told for place, told in self._told.copy().items() if place[0] != name}
