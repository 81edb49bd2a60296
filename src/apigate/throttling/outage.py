"""What is decided of limits whose store cannot be reached: pure functions, no store, no clock.

Each level has a policy for that: it is not asked (`open`), it refuses (`closed`), or each process holds its share of it
(`local`). A refusal so made is no verdict on the client, so it is answered with 503 and not with 429.

Source: apigate, see docs/explanation/outages.md.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from apigate.throttling.decision import Decision
from apigate.throttling.limit import Limit

__all__ = ["LEAST_WAIT_US", "OUTAGES", "Outage", "OutagePolicy", "decided_alone", "outage_at", "share_of"]

Outage = Literal["open", "closed", "local"]
"""`open` does not ask a level during an outage; `closed` refuses; `local` lets each process admit its share."""

OUTAGES: tuple[Outage, ...] = ("open", "closed", "local")

OutagePolicy: TypeAlias = Outage | Mapping[str, Outage]
"""One policy for all levels, or one for each that is named and `local` for the others."""

LEAST_WAIT_US = 1_000_000
"""How long whoever is refused by a closed level is told to wait at the least."""


def outage_at(policy: OutagePolicy, level: str) -> Outage:
    """The policy of a level.

    >>> outage_at({"client": "closed"}, "client"), outage_at({"client": "closed"}, "global"), outage_at("open", "stage")
    ('closed', 'local', 'open')
    """
    return policy if isinstance(policy, str) else policy.get(level, "local")


def share_of(limit: Limit, workers: int) -> Limit:
    """What one of several processes may admit of a limit: its rate divided exactly, of its burst at least 1.

    To people and clients it goes on stating the rate that is configured.

    >>> from apigate.throttling.limit import limits_of
    >>> from apigate.throttling.rate import parse_rates
    >>> share = share_of(*limits_of("shop:client", "client", parse_rates("10/second; burst=21")), workers=4)
    >>> share.n * 1_000_000 / share.p, share.capacity // share.p, share.rate
    (2.5, 5, Rate('10/second; burst=21'))
    """
    if workers == 1:
        return limit
    rate = limit.rate.divided(workers)
    share = Limit(limit.name, limit.level, limit.policy, rate, enforced=limit.enforced, steady=limit.steady)
    share.rate = limit.rate
    return share


def decided_alone(
    limits: Sequence[Limit],
    costs: Sequence[int],
    closed: Sequence[int],
    places: Sequence[int],
    local: Decision | None,
    wait_us: int,
) -> Decision:
    """The decision of a process without the store, in the order of the limits that should have been asked.

    Args:
        limits: These limits.
        costs: Tokens wanted from each.
        closed: Where the limits stand that refuse.
        places: Where the limits stand whose shares were asked; the others that do not refuse are left out.
        local: What the shares said, in their order; None if there are none.
        wait_us: Microseconds until the store is tried again.
    """
    asked = list(limits)
    paid = [0] * len(limits)
    wanted = [0] * len(limits)
    allowed, booked = not closed, False
    unavailable = list(closed)
    if local is not None:
        for place, share, cost, owed in zip(places, local.limits, local.costs, local.wanted, strict=True):
            asked[place], paid[place], wanted[place] = share, cost, owed
        if not local.allowed:
            allowed = False
            unavailable += [place for place in places if _is_above_share(limits[place], asked[place], costs[place])]
        booked = local.allowed and bool(local.wait_us)
    for place in unavailable:
        limit = asked[place] = limits[place]
        paid[place] = costs[place]
        wanted[place] = limit.capacity + costs[place] * limit.p + 1
    decision = Decision(allowed, asked, paid, wanted)
    decision.note(local.shadowed if local is not None else (), booked=booked)
    if local is not None:
        waits, resets, counted = local.window_notes
        decision.note_windows(_moved(waits, places), _moved(resets, places), counted, 0)
    known = {*unavailable, *places}
    return decision.note_outage(unavailable, [place for place in range(len(limits)) if place not in known], wait_us)


def _moved(notes: Mapping[int, int], places: Sequence[int]) -> dict[int, int]:
    """What was noted by the places of the shares, by those of all limits."""
    return {places[place]: number for place, number in notes.items()}


def _is_above_share(limit: Limit, share: Limit, cost: int) -> bool:
    """Whether only the share is too small for a cost: that is no reason to say that waiting cannot help."""
    return limit.enforced and share.capacity < cost * share.p and cost * limit.p <= limit.capacity
