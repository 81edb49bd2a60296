"""What a throttle decided, and why. Everything but the verdict is worked out when it is read."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import final

from apigate.core.errors import ApigateError
from apigate.throttling.limit import Limit
from apigate.throttling.rate import Rate
from apigate.throttling.window import Window

__all__ = ["Decision", "LevelState", "Throttled", "longest_wait"]


@final
class LevelState:
    """How one limit stood after a decision; worked out as it is read."""

    __slots__ = ("_decision", "_limit", "_place", "_taken")

    def __init__(self, decision: "Decision", limit: Limit, place: int, taken: bool) -> None:
        """Look at one limit.

        Args:
            decision: The decision.
            limit: The limit.
            place: Where it stands among the limits of the decision.
            taken: Whether tokens were taken from it.
        """
        self._decision = decision
        self._limit = limit
        self._place = place
        self._taken = taken

    @property
    def level(self) -> str:
        """The level, such as `client`."""
        return self._limit.level

    @property
    def policy(self) -> str:
        """The limit's name towards clients; differs from `level` where a level has several rates."""
        return self._limit.policy

    @property
    def rate(self) -> Rate | Window:
        """Its rate and burst, or its window, as configured; in an outage a process admits its share of that."""
        return self._limit.rate

    @property
    def enforced(self) -> bool:
        """False in shadow mode: then a violated limit refused nothing."""
        return self._limit.enforced

    @property
    def remaining(self) -> int:
        """Whole tokens left in the bucket, or how much the window still admits."""
        decision, limit, place = self._decision, self._limit, self._place
        left = (limit.capacity - decision.wanted[place]) // limit.p
        if not self._taken:
            left += decision.costs[place]
        return left if left > 0 else 0  # noqa: FURB136 - max() takes as long as the rest

    @property
    def violated(self) -> bool:
        """Whether it had too few tokens."""
        return not self._taken and self._decision.wanted[self._place] > self._limit.capacity

    @property
    def retry_after(self) -> float | None:
        """Seconds until this limit alone would admit the same cost.

        0.0 if it does, None if it never can, because the cost is above the burst.
        """
        if not self.violated:
            return 0.0
        wait = self._decision.wait_at(self._place)
        return None if wait is None else wait / 1_000_000

    def __repr__(self) -> str:
        """Name, rate and what is left."""
        return f"<LevelState {self.policy} {self.rate}: {self.remaining} left{', violated' if self.violated else ''}>"


@final
class Decision:
    """The outcome of asking every level at once.

    Attributes:
        allowed: Whether the request was admitted. If so it has taken its cost at every level, else at none.
        limits: The limits asked, in order.
        costs: Tokens wanted from each.
        wanted: What each bucket would be owed with the costs taken, in tokens times its `p`.
        shadowed: The limits in shadow mode that would have refused.
        round_trips: How often a server was asked for it: 0 in memory, in a file, and where this process knew already.
        tolerance: Where processes take tokens ahead, how many of each bucket one may hold unspent: within any interval
            a level admits at most its burst, its rate times the interval, and this for each process. Else 0.
        local: Whether the store could not be asked, and this process decided by itself.
        unavailable: The limits that refused for that reason: their level is closed in an outage, or the cost is above
            this process's share of the burst. What they wait for is the next time that the store is tried.
        unasked: The limits that were left out for that reason: their level is open in an outage. They took nothing.
    """

    # Defaults of the class for what few decisions have and few callers read. Measured: to set one takes a fifth of the
    # time that it takes to read a default, so what is read of every decision is set. The others are read only where
    # `local`, or a window among the limits, says that there may be any.
    round_trips: int = 0
    tolerance: int = 0
    unavailable: tuple[Limit, ...] = ()
    unasked: tuple[Limit, ...] = ()
    _waits: Mapping[int, int] = MappingProxyType({})
    _resets: Mapping[int, int] = MappingProxyType({})
    _counted: Mapping[str, int] = MappingProxyType({})

    def __init__(self, allowed: bool, limits: Sequence[Limit], costs: Sequence[int], wanted: Sequence[int]) -> None:
        """Keep the raw numbers.

        Args:
            allowed: The verdict.
            limits: The limits asked.
            costs: Tokens wanted from each.
            wanted: What each bucket would be owed with these taken, in tokens times its `p`.
        """
        self.allowed: bool = allowed
        self.limits: Sequence[Limit] = limits
        self.costs: Sequence[int] = costs
        self.wanted: Sequence[int] = wanted
        self.shadowed: tuple[Limit, ...] = ()
        self.local: bool = False
        self._booked = False

    def note(self, shadowed: tuple[Limit, ...], *, booked: bool) -> "Decision":
        """Note what few decisions have, and return this one.

        Args:
            shadowed: The limits in shadow mode that lack the tokens.
            booked: Whether tokens were booked ahead, so that the caller has to wait for its turn.
        """
        self.shadowed = shadowed
        self._booked = booked
        return self

    def note_outage(self, places: Collection[int], unasked: Collection[int], wait_us: int) -> "Decision":
        """Note that the store could not be asked, and return this decision.

        Args:
            places: Where the limits stand that refused as nobody can tell what they would say.
            unasked: Where the limits stand that were left out.
            wait_us: Microseconds until the store is tried again.
        """
        self.local = True
        self.unavailable = tuple([self.limits[place] for place in places])
        self.unasked = tuple([self.limits[place] for place in unasked])
        self._waits = {**self._waits, **dict.fromkeys(places, wait_us)}
        return self

    def note_windows(
        self, waits: Mapping[int, int], resets: Mapping[int, int], counted: Mapping[str, int], round_trips: int
    ) -> "Decision":
        """Note what the windows among its limits have told, and return this one.

        Args:
            waits: By place, microseconds until one that refused admits the same cost; left out for never.
            resets: By place, microseconds until one admits more than now.
            counted: By the limit's name, the time under which its cost was counted, to give it back by.
            round_trips: How often a server was asked for the whole decision.
        """
        self._waits, self._resets, self._counted = waits, resets, counted
        self.round_trips = round_trips
        return self

    @property
    def window_notes(self) -> tuple[Mapping[int, int], Mapping[int, int], Mapping[str, int]]:
        """Waits, resets and times as `note_windows` was given them."""
        return self._waits, self._resets, self._counted

    def counted_at(self, name: str) -> int | None:
        """The time under which the window of this limit has counted the cost; None if it has not."""
        return self._counted.get(name)

    @property
    def taken(self) -> list[bool]:
        """Whether tokens were taken, limit by limit."""
        if not (self.shadowed or self.unasked):
            return [self.allowed] * len(self.limits)
        spared = (*self.shadowed, *self.unasked)
        return [self.allowed and limit not in spared for limit in self.limits]

    def settling(self, cost: int, levels: Collection[str] | None = None) -> list[int]:
        """What more to take at each limit (or to give back, below 0) so that the request costs `cost` in the end.

        Args:
            cost: Tokens.
            levels: The levels to settle; None for all.
        """
        return [
            cost - paid if taken and (levels is None or limit.level in levels) else 0
            for limit, paid, taken in zip(self.limits, self.costs, self.taken, strict=True)
        ]

    @property
    def charged(self) -> frozenset[str]:
        """The names of the limits from which tokens were taken: for settling them later."""
        return frozenset(limit.name for limit, taken in zip(self.limits, self.taken, strict=True) if taken)

    @property
    def owed(self) -> list[int]:
        """What each bucket is owed after the decision, in tokens times its `p`."""
        if self.allowed and not self.shadowed:
            return list(self.wanted)
        return [
            wanted if taken else wanted - cost * limit.p
            for limit, cost, wanted, taken in zip(self.limits, self.costs, self.wanted, self.taken, strict=True)
        ]

    @property
    def violated(self) -> tuple[str, ...]:
        """The levels that refused, widest first; empty if the request was admitted."""
        return tuple(dict.fromkeys(limit.level for limit, _ in self.refusals()))

    @property
    def remaining(self) -> int | None:
        """Whole tokens left at the tightest enforced level; None if no level is enforced."""
        tightest = self.tightest()
        return None if tightest is None else tightest[1]

    @property
    def retry_after(self) -> float | None:
        """Seconds until the same request would be admitted if nobody else came.

        0.0 if it was admitted (after a wait: how long it waited for its turn), None if waiting cannot help because the
        cost is above a burst. Exact to the microsecond: asked that much later it is admitted, a microsecond before it
        is not.
        """
        if self.allowed and not self._booked:
            return 0.0
        wait = self.wait_us
        return None if wait is None else wait / 1_000_000

    @property
    def wait_us(self) -> int | None:
        """The same in whole microseconds; where tokens were booked ahead, the wait until the caller's turn."""
        longest = 0
        if self.allowed and not self._booked:
            return longest
        wanted, place = self.wanted, 0
        for limit in self.limits:
            if wanted[place] > limit.capacity and limit.enforced:
                wait = self.wait_at(place)
                if wait is None:
                    return None
                if wait > longest:
                    longest = wait
            place += 1  # noqa: SIM113 - as in `tightest`
        return longest

    def refusals(self, unit: int = 1) -> tuple[tuple[Limit, int | None], ...]:
        """The limits that refused, each with its wait, None for never; empty if admitted.

        Args:
            unit: The microseconds in which waits are told, rounded up: so that nobody is told to come too early.
        """
        found: tuple[tuple[Limit, int | None], ...] = ()
        if self.allowed:
            return found
        wanted, place = self.wanted, 0
        for limit in self.limits:
            if wanted[place] > limit.capacity and limit.enforced:
                wait = self.wait_at(place)
                found += ((limit, None if wait is None else -(-wait // unit)),)
            place += 1  # noqa: SIM113 - as in `tightest`
        return found

    def wait_at(self, place: int) -> int | None:
        """Microseconds until the limit at a place, which lacks tokens, has them; None if it never will."""
        limit = self.limits[place]
        if (limit.window is not None or self.local) and place in self._waits:
            return self._waits[place]
        if self.costs[place] * limit.p > limit.capacity:
            return None
        return -((limit.capacity - self.wanted[place]) // limit.n)

    def tightest(self) -> tuple[Limit, int, int] | None:
        """The enforced limit with the fewest tokens left, these, and what its bucket is owed; None if there is none.

        Limits that could not be asked are none.
        A window is owed as much as a bucket of its `n` would pay off until the window admits more.
        """
        found: Limit | None = None
        fewest = found_at = place = 0
        wanted, costs, allowed = self.wanted, self.costs, self.allowed
        for limit in self.limits:
            left = (limit.capacity - wanted[place]) // limit.p
            if not allowed:
                left += costs[place]
            if (left < fewest or found is None) and limit.enforced and not (self.local and self._is_unknown(limit)):
                found, fewest, found_at = limit, left, place
            place += 1  # noqa: SIM113 - enumerate costs 60 ns, on every response
        if found is None:
            return None
        if fewest < 0:
            fewest = 0
        if found.window is not None:
            owed = self._resets.get(found_at, 0) * found.n
        else:
            owed = wanted[found_at] if allowed else wanted[found_at] - costs[found_at] * found.p
        return found, fewest, owed

    def _is_unknown(self, limit: Limit) -> bool:
        return limit in self.unasked or limit in self.unavailable

    @property
    def buckets(self) -> tuple[LevelState, ...]:
        """How every single limit stands, in the order they were asked."""
        taken = self.taken
        return tuple([LevelState(self, limit, place, taken[place]) for place, limit in enumerate(self.limits)])

    @property
    def levels(self) -> Mapping[str, LevelState]:
        """How each level stands; of a level with several rates the one that binds most."""
        levels: dict[str, LevelState] = {}
        taken = self.taken
        for place, limit in enumerate(self.limits):
            state, level = LevelState(self, limit, place, taken[place]), limit.level
            if level not in levels or _severity(state) > _severity(levels[level]):
                levels[level] = state
        return levels

    def __bool__(self) -> bool:
        """The verdict, so that `if throttle.acquire(...)` does what it says."""
        return self.allowed

    def __repr__(self) -> str:
        """The verdict and the levels."""
        levels = ", ".join(f"{state.policy} {state.remaining} left" for state in self.buckets)
        return f"<Decision {'allowed' if self.allowed else 'refused by ' + ', '.join(self.violated)}: {levels}>"


class Throttled(ApigateError):
    """A decorated function, or a reservation, was refused.

    Attributes:
        decision: The decision that refused it.
        retry_after: Seconds to wait, or None where waiting cannot help.
        status: What a request is answered with that comes to this: 429, or 503 where the store could not be asked.
    """

    def __init__(self, decision: Decision) -> None:
        """Say which levels refused, and for how long."""
        self.decision: Decision = decision
        self.retry_after: float | None = decision.retry_after
        self.status: int = 503 if decision.unavailable else 429
        wait = "waiting cannot help" if self.retry_after is None else f"retry after {self.retry_after:.3f} s"
        why = ", as the store cannot be reached" if decision.unavailable else ""
        super().__init__(f"refused by {', '.join(decision.violated)}{why}; {wait}")


def longest_wait(refusals: Sequence[tuple[Limit, int | None]]) -> int | None:
    """The wait after which every limit that refused would admit; None if one never does."""
    longest = 0
    for _, wait in refusals:
        if wait is None:
            return None
        longest = max(longest, wait)
    return longest


def _severity(state: LevelState) -> tuple[bool, float, int]:
    """Orders the limits of one level: violated before not, never before later before sooner, fewest left first."""
    wait = float("inf") if state.retry_after is None else state.retry_after
    return (state.violated, wait, -state.remaining)
