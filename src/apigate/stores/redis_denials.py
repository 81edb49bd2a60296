"""Refusals that a process remembers, so that it need not ask a server what it was just told.

Rule: only a bucket whose tokens come back by time alone is remembered, for no longer than its wait and at most a
second, and for requests that want at least as much as was refused. Then the server would refuse too, unless somebody
has reset the bucket or given tokens back within that second.
"""

from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple, final

from apigate.throttling.algorithms import judged, owed_at
from apigate.throttling.decision import Decision
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit

__all__ = ["LONGEST_US", "Denials"]

LONGEST_US = 1_000_000
"""How long a refusal is remembered at most: what other processes change is noticed within that."""

_MOST = 10_000


class _Denial(NamedTuple):
    """A bucket that refused `cost` tokens when it was owed `owed`; that holds `until`, by the clock of the callers."""

    cost: int
    owed: int
    at: int
    until: int


@final
class Denials:
    """The refusals of the last second, by limit and key; at most 10,000 of them."""

    def __init__(self) -> None:
        """Remember nothing."""
        self._known: dict[tuple[str, Key], _Denial] = {}
        self._lock = Lock()

    def find(self, limits: Sequence[Limit], keys: Sequence[Key], costs: Sequence[int], now: int) -> Decision | None:
        """The refusal that the server would give; None where it has to be asked.

        Buckets that did not refuse are shown as if they were full: what they hold is not known here.
        """
        if not self._known:
            return None
        refused = False
        wanted = [cost * limit.p for limit, cost in zip(limits, costs, strict=True)]
        for place, limit in enumerate(limits):
            denial = self._known.get((limit.name, keys[place])) if limit.steady else None
            if denial is not None and denial.at <= now < denial.until and costs[place] >= denial.cost:
                wanted[place] += owed_at((denial.owed, denial.at), limit.n, now)
                refused = True
        return judged(limits, costs, wanted, allowed=False) if refused else None

    def note(self, decision: Decision, keys: Sequence[Key], now: int) -> None:
        """Remember what refused; forget what was taken from, as less is left there now than was known."""
        if decision.allowed:
            if self._known:
                self.forget(decision.limits, keys)
            return
        waits = dict(decision.refusals())
        for limit, key, cost, owed in zip(decision.limits, keys, decision.costs, decision.owed, strict=True):
            wait = waits.get(limit)
            if limit.steady and wait is not None:
                with self._lock:
                    if len(self._known) >= _MOST:
                        self._make_room(now)
                    self._known[limit.name, key] = _Denial(cost, owed, now, now + min(wait, LONGEST_US))

    def forget(self, limits: Sequence[Limit], keys: Sequence[Key | None]) -> None:
        """Forget these buckets."""
        for limit, key in zip(limits, keys, strict=True):
            if key is not None:
                self._known.pop((limit.name, key), None)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    def _make_room(self, now: int) -> None:
        """Drop what no longer holds; everything, where that is not enough."""
        known = list(self._known.items())  # at once, as others forget some meanwhile
        self._known = {bucket: denial for bucket, denial in known if denial.at <= now < denial.until}
        if len(self._known) >= _MOST:
            self._known = {}
