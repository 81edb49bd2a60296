"""The token bucket in exact whole numbers: pure functions, no clock, no store, no lock.

A bucket is a pair `(owed, last)`: what is owed to it, in tokens times the period `p`, and the microsecond it was last
settled. Refilling `n` tokens per `p` microseconds pays off `n` of these units each microsecond, so no division and no
rounding happens while deciding, and an absent bucket equals one that owes nothing. The same steps run in Lua on
doubles, which are exact below 2**53.

Source: apigate, see docs/explanation/token-bucket.md.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from apigate.throttling.decision import Decision
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit

__all__ = ["FRESH", "SKEW_US", "Ledger", "State", "decide", "owed_at", "rescaled", "settled"]

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
    return (min(owed, new.capacity), now)


Ledger: TypeAlias = tuple[Mapping[Key, State], int, int, int, bool]
"""The buckets of one limit with its numbers beside them, so that deciding looks nothing up: the buckets by key, where
a key that is not there gives `FRESH`, then `n`, `p`, `capacity` and `enforced` as in `Limit`."""


def decide(
    limits: Sequence[Limit],
    ledgers: Sequence[Ledger],
    keys: Sequence[Key],
    costs: Sequence[int],
    now: int,
    patience: int = 0,
) -> Decision:
    """Whether a request may take its tokens from every bucket: all or nothing.

    A shadow bucket never refuses, and takes tokens only where it has them.

    Args:
        limits: The limits, for the decision to explain itself.
        ledgers: Their buckets and numbers.
        keys: Whose bucket of each.
        costs: Tokens wanted from each, at least 0.
        now: The time in microseconds.
        patience: How many microseconds the caller would wait for its turn; tokens of that time may be booked ahead.

    Returns:
        The decision. If it is allowed, or `rewound`, the caller writes every bucket as `settled`; where it is not
        `late` either, simply as what is owed now.
    """
    allowed = True
    late = rewound = False
    shadowed: tuple[Limit, ...] = ()
    owed_now: list[int] = []
    for (states, n, p, capacity, enforced), key, cost in zip(ledgers, keys, costs):  # noqa: B905 - strict costs 60 ns
        owed, last = states[key]
        if now > last:  # owed_at, inlined: calling it costs a third of a decision
            owed -= (now - last) * n
            if owed < 0:
                owed = 0
        elif now < last:
            late = True
            rewound = rewound or last - now > SKEW_US
        owed += cost * p
        if owed > capacity:
            if not enforced:
                owed -= cost * p
                shadowed += (limits[len(owed_now)],)
            elif owed > capacity + patience * n or cost * p > capacity:
                allowed = False
        owed_now.append(owed)
    decision = Decision(allowed, limits, costs, owed_now)
    if shadowed:
        decision.shadowed = shadowed
    if not allowed:
        decision.owed = [
            owed if limit in shadowed else owed - cost * limit.p
            for limit, owed, cost in zip(limits, owed_now, costs, strict=True)
        ]
    if late:
        decision.late, decision.rewound = True, rewound
    return decision
