"""The token bucket in exact whole numbers: pure functions, no clock, no store, no lock.

A bucket is a pair `(owed, last)`: what is owed to it, in tokens times the period `p`, and the microsecond it was last
settled. Refilling `n` tokens per `p` microseconds pays off `n` of these units each microsecond, so no division and no
rounding happens while deciding, and an absent bucket equals one that owes nothing. The same steps run in Lua on
doubles, which are exact below 2**53.

Source: apigate, see docs/explanation/token-bucket.md.
"""

from collections.abc import Sequence
from typing import TypeAlias

from apigate.throttling.decision import Decision
from apigate.throttling.limit import Limit

__all__ = ["FRESH", "SKEW_US", "State", "decide", "judged", "owed_at", "rescaled", "settled", "written"]

State: TypeAlias = tuple[int, int]
"""One bucket: owed tokens times the period, and the microsecond this was true."""

FRESH: State = (0, -(2**62))
"""A bucket that owes nothing, last settled before any clock began."""

SKEW_US = 1_000_000
"""How far a bucket's time may lie ahead of the clock before that counts as a clock that was set back.

Callers read the clock before they hold the bucket, and hosts disagree a little; without this margin clients with
different clocks could farm tokens from the healing."""


def owed_at(state: State, n: int, now: int) -> int:
    """What the bucket is still owed at `now`.

    A clock that went back pays nothing off.

    >>> owed_at((3_000_000, 0), n=1, now=1_000_000)
    2000000
    """
    owed, last = state
    if now > last:
        owed -= (now - last) * n
        if owed < 0:
            return 0
    return owed


def settled(state: State, owed: int, now: int) -> State:
    """The bucket to write where `owed` holds at `now`.

    Its time does not go back, unless the clock went back by more than `SKEW_US`: then the bucket goes on from `now`,
    as it would freeze otherwise.
    """
    return (owed, state[1] if now < state[1] <= now + SKEW_US else now)


def rescaled(state: State, old: Limit, new: Limit, now: int) -> State:
    """The same bucket under a changed rate: owed tokens stay owed, cut to what the new bucket holds."""
    owed = -(-owed_at(state, old.n, now) * new.p // old.p)
    return settled(state, min(owed, new.capacity), now)


def decide(
    limits: Sequence[Limit],
    states: Sequence[State],
    costs: Sequence[int],
    now: int,
    patience: int = 0,
) -> Decision:
    """Whether a request may take its tokens from every bucket: all or nothing.

    A shadow bucket never refuses, and takes tokens only where it has them. Whoever waits may book tokens ahead.

    Args:
        limits: The limits of the buckets.
        states: The buckets, `FRESH` for one that is absent.
        costs: Tokens wanted from each, at least 0.
        now: The time in microseconds.
        patience: How many microseconds the caller would wait for its turn.

    Returns:
        The decision. The caller writes what `written` says.
    """
    allowed = enough = True
    wanted: list[int] = []
    for limit, state, cost in zip(limits, states, costs, strict=True):
        owed = owed_at(state, limit.n, now) + cost * limit.p
        wanted.append(owed)
        if owed > limit.capacity:
            enough = False
            if limit.enforced and (owed > limit.capacity + patience * limit.n or cost * limit.p > limit.capacity):
                allowed = False
    return Decision(True, limits, costs, wanted) if enough else judged(limits, costs, wanted, allowed=allowed)


def judged(limits: Sequence[Limit], costs: Sequence[int], wanted: Sequence[int], *, allowed: bool) -> Decision:
    """The decision behind a verdict, wherever that was reached.

    Args:
        limits: The limits of the buckets.
        costs: Tokens wanted from each.
        wanted: What each bucket would be owed with these taken, in tokens times its `p`.
        allowed: The verdict.
    """
    short = [limit for limit, owed in zip(limits, wanted, strict=True) if owed > limit.capacity]
    decision = Decision(allowed, limits, costs, wanted)
    if not short:
        return decision
    shadowed = tuple(limit for limit in short if not limit.enforced)
    return decision.note(shadowed, booked=len(shadowed) < len(short))


def written(decision: Decision, states: Sequence[State], now: int) -> list[State]:
    """The buckets as they stand after a decision, in the order of the limits.

    A refusal changes none, but for those that a clock set back would freeze: they go on from `now`.
    """
    if decision.allowed and not decision.shadowed:
        return [settled(state, owed, now) for state, owed in zip(states, decision.wanted, strict=True)]
    return [
        settled(state, owed, now) if taken or state[1] > now + SKEW_US else state
        for state, owed, taken in zip(states, decision.owed, decision.taken, strict=True)
    ]
