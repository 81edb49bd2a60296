"""What a throttle decided, and why. Everything but the verdict is worked out when it is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from apigate.core.errors import ApigateError
from apigate.throttling.limit import Limit
from apigate.throttling.rate import Rate

__all__ = ["Decision", "LevelState", "Throttled"]


@final
@dataclass(frozen=True, slots=True)
class LevelState:
    """How one limit stood after a decision.

    Attributes:
        level: The level, such as `client`.
        policy: The limit's name towards clients; differs from `level` where a level has several rates.
        rate: Its rate and burst.
        remaining: Whole tokens left in the bucket.
        retry_after: Seconds until this limit alone would admit the same cost; 0.0 if it does, None if it never can
            because the cost is above the burst.
        violated: Whether it had too few tokens.
        enforced: False in shadow mode: then a violated limit refused nothing.
    """

    level: str
    policy: str
    rate: Rate
    remaining: int
    retry_after: float | None
    violated: bool
    enforced: bool


@final
class Decision:
    """The outcome of asking every level at once.

    Attributes:
        allowed: Whether the request was admitted. If so it has taken its cost at every level, else at none.
        costs: Tokens wanted from each limit, in the order they were asked.
        shadowed: The limits in shadow mode that would have refused.
        owed: What each bucket is owed now, in the order of the limits and in tokens times their `p`; for stores.
        late: Whether a bucket's time lay ahead of the clock; for stores.
        rewound: Whether it lay so far ahead that the clock must have been set back; for stores.
    """

    # Set on the few decisions that need them; no slots, as a class attribute for the others is the cheapest default.
    shadowed: tuple[Limit, ...] = ()
    late: bool = False
    rewound: bool = False

    def __init__(self, allowed: bool, limits: Sequence[Limit], costs: Sequence[int], owed: Sequence[int]) -> None:
        """Keep the raw numbers.

        Args:
            allowed: The verdict.
            limits: The limits asked.
            costs: Tokens wanted from each.
            owed: What each is owed now: with the tokens taken if admitted, without if refused.
        """
        self.allowed: bool = allowed
        self.owed: Sequence[int] = owed
        self._limits = limits
        self.costs: Sequence[int] = costs

    def refusal_waits(self) -> list[tuple[Limit, int | None]]:
        """The enforced limits that had too few tokens, each with its wait in microseconds; None for never."""
        if self.allowed:
            return []
        return [
            (limit, _wait_us(limit, cost, owed))
            for limit, cost, owed in zip(self._limits, self.costs, self.owed, strict=True)
            if limit.enforced and owed + cost * limit.p > limit.capacity
        ]

    @property
    def violated(self) -> tuple[str, ...]:
        """The levels that refused, widest first; empty if the request was admitted."""
        return tuple(dict.fromkeys(limit.level for limit, _ in self.refusal_waits()))

    @property
    def retry_after(self) -> float | None:
        """Seconds until the same request would be admitted if nobody else came.

        0.0 if it was admitted, None if waiting cannot help: the cost is above a burst. Exact to the microsecond:
        asked that much later it is admitted, a microsecond before it is not.
        """
        wait = self.wait_us
        return None if wait is None else wait / 1_000_000

    @property
    def wait_us(self) -> int | None:
        """The same in whole microseconds; where tokens were booked ahead, the wait until the caller's turn."""
        if not self.allowed:
            waits = [wait for _, wait in self.refusal_waits()]
            return None if None in waits else max(wait for wait in waits if wait is not None)
        return max(
            (
                _wait_us(limit, 0, owed) or 0
                for limit, owed in zip(self._limits, self.owed, strict=True)
                if limit.enforced
            ),
            default=0,
        )

    @property
    def buckets(self) -> tuple[LevelState, ...]:
        """How every single limit stands, in the order they were asked."""
        return tuple(map(self._state, range(len(self._limits))))

    @property
    def levels(self) -> Mapping[str, LevelState]:
        """How each level stands; of a level with several rates the one that binds most."""
        levels: dict[str, LevelState] = {}
        for state in self.buckets:
            known = levels.get(state.level)
            if known is None or _severity(state) > _severity(known):
                levels[state.level] = state
        return levels

    def tightest(self) -> tuple[Limit, int] | None:
        """The enforced limit with the fewest tokens left, and its place among the buckets; None if there is none."""
        found: Limit | None = None
        place = fewest = -1
        for index, limit in enumerate(self._limits):
            if limit.enforced:
                remaining = (limit.capacity - self.owed[index]) // limit.p
                if found is None or remaining < fewest:
                    found, place, fewest = limit, index, remaining
        return None if found is None else (found, place)

    def _state(self, index: int) -> LevelState:
        limit, owed, cost = self._limits[index], self.owed[index], self.costs[index]
        violated = limit in self.shadowed or (not self.allowed and owed + cost * limit.p > limit.capacity)
        wait = _wait_us(limit, cost, owed) if violated else 0
        return LevelState(
            level=limit.level,
            policy=limit.policy,
            rate=limit.rate,
            remaining=max(0, (limit.capacity - owed) // limit.p),
            retry_after=None if wait is None else wait / 1_000_000,
            violated=violated,
            enforced=limit.enforced,
        )

    def __repr__(self) -> str:
        """The verdict and the levels."""
        levels = ", ".join(f"{state.policy} {state.remaining} left" for state in self.buckets)
        return f"<Decision {'allowed' if self.allowed else 'refused by ' + ', '.join(self.violated)}: {levels}>"


@final
class Throttled(ApigateError):
    """A decorated function, or a reservation, was refused.

    Attributes:
        decision: The decision that refused it.
        retry_after: Seconds to wait, or None where waiting cannot help.
    """

    def __init__(self, decision: Decision) -> None:
        """Say which levels refused, and for how long."""
        self.decision: Decision = decision
        self.retry_after: float | None = decision.retry_after
        wait = "waiting cannot help" if self.retry_after is None else f"retry after {self.retry_after:.3f} s"
        super().__init__(f"refused by {', '.join(decision.violated)}; {wait}")


def _wait_us(limit: Limit, cost: int, owed: int) -> int | None:
    """Microseconds until the limit has `cost` tokens, rounded up; None if it never holds that many."""
    if cost * limit.p > limit.capacity:
        return None
    return max(0, -((limit.capacity - owed - cost * limit.p) // limit.n))


def _severity(state: LevelState) -> tuple[bool, float, int]:
    """Orders the limits of one level: violated before not, never before later before sooner, fewest left first."""
    wait = float("inf") if state.retry_after is None else state.retry_after
    return (state.violated, wait, -state.remaining)
