"""What the throttle promises, said a second time and in another way: tokens as exact fractions, nothing clever.

It shares no line with what it checks. A bucket is what is owed to it in tokens, and the instant at which that was so;
there are no units but tokens and microseconds, no integers scaled by a period, no generations, no eviction. Where the
promise itself speaks of whole numbers (a wait in whole microseconds, what is left in whole tokens, and what is owed
after a change of rate in the smallest part of a token that the new rate can pay off) the fraction is rounded there,
away from the client.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

from apigate import Rate

__all__ = ["Model", "Outcome"]

SECOND = 1_000_000


@dataclass
class Limit:
    """One rate, as tokens a microsecond."""

    level: str
    speed: Fraction
    burst: int
    enforced: bool

    def __init__(self, level: str, rate: Rate, *, enforced: bool):
        self.level = level
        self.speed = Fraction(rate.count, round(rate.per * SECOND))
        self.burst = rate.burst
        self.enforced = enforced


@dataclass
class Bucket:
    """What is owed to one key at one limit."""

    owed: Fraction = Fraction(0)
    at: int | None = None  # None: nothing was ever taken

    def owed_at(self, now: int, speed: Fraction) -> Fraction:
        """Time pays it off; time that runs backwards pays nothing."""
        if self.at is None:
            return Fraction(0)
        return max(Fraction(0), self.owed - max(0, now - self.at) * speed)

    def is_ahead(self, now: int) -> bool:
        """Whether it was last written so far in the future that the clock must have been set back."""
        return self.at is not None and self.at - now > SECOND

    def write(self, owed: Fraction, now: int) -> None:
        """Its time never goes back, unless the clock was set back: then it would freeze."""
        if self.at is None or self.at <= now or self.is_ahead(now):
            self.at = now
        self.owed = owed


@dataclass
class Outcome:
    """A decision, as far as a user notices it."""

    allowed: bool
    wait_us: int | None
    violated: tuple[str, ...]
    shadowed: tuple[str, ...]
    remaining: list[int]
    charged: frozenset[str]  # the limits whose buckets paid


@dataclass
class Model:
    """Levels asked together. A limit is known by its level and its number in it; a bucket by that and its key."""

    modes: Mapping[str, str] = field(default_factory=dict)
    limits: dict[str, Limit] = field(default_factory=dict)
    buckets: dict[str, dict[str, Bucket]] = field(default_factory=dict)
    rated: dict[str, Limit] = field(default_factory=dict)  # the rate that each limit's buckets last had

    def change(self, levels: Mapping[str, Sequence[Rate]], now: int) -> None:
        """Set all levels. What is owed stays owed, cut to what the new bucket holds."""
        self.limits = {}
        for level, rates in levels.items():
            for number, rate in enumerate(rates):
                name = f"{level}/{number}"
                new = self.limits[name] = Limit(level, rate, enforced=self.modes.get(level) != "shadow")
                old = self.rated.get(name, new)
                if (old.speed, old.burst) != (new.speed, new.burst):
                    for bucket in self.buckets[name].values():
                        if bucket.at is not None:
                            self.carry_over(bucket, old, new, now)
                self.rated[name] = new
                self.buckets.setdefault(name, {})

    def carry_over(self, bucket: Bucket, old: Limit, new: Limit, now: int) -> None:
        """One bucket under a changed rate."""
        parts = new.speed.denominator  # the smallest part of a token that a microsecond can pay off
        owed = Fraction(ceil(bucket.owed_at(now, old.speed) * parts), parts)
        bucket.write(min(owed, Fraction(new.burst)), now)

    def bucket(self, name: str, keys: Mapping[str, str]) -> Bucket:
        """Whose bucket it is; the global level has one for all."""
        level = self.limits[name].level
        return self.buckets[name].setdefault("" if level == "global" else keys[level], Bucket())

    def hit(self, keys: Mapping[str, str], cost: int, now: int, patience: int = 0, *, keep: bool = True) -> Outcome:
        """Ask all levels; take from all or none. With `keep=False` only look."""
        buckets = {name: self.bucket(name, keys) for name in self.limits}
        before = {name: buckets[name].owed_at(now, limit.speed) for name, limit in self.limits.items()}
        short = {name for name, limit in self.limits.items() if before[name] + cost > limit.burst}
        shadowed = [name for name in short if not self.limits[name].enforced]
        refused = [
            name for name in short if self.limits[name].enforced and not self.booked(name, before, cost, patience)
        ]
        after = {name: owed + cost if not refused and name not in shadowed else owed for name, owed in before.items()}
        for name, bucket in buckets.items():
            if keep and (not (refused or name in shadowed) or bucket.is_ahead(now)):
                bucket.write(after[name], now)
        enforced_short = [name for name in self.limits if name in short and self.limits[name].enforced]
        return Outcome(
            allowed=not refused,
            wait_us=self.wait(enforced_short if refused else self.limits, after, cost if refused else 0),
            violated=tuple(dict.fromkeys(self.limits[name].level for name in enforced_short)) if refused else (),
            shadowed=tuple(dict.fromkeys(self.limits[name].level for name in self.limits if name in shadowed)),
            remaining=[max(0, floor(limit.burst - after[name])) for name, limit in self.limits.items()],
            charged=frozenset() if refused else frozenset(name for name in self.limits if name not in shadowed),
        )

    def booked(self, name: str, before: Mapping[str, Fraction], cost: int, patience: int) -> bool:
        """Whether its turn comes within the caller's patience."""
        limit = self.limits[name]
        return cost <= limit.burst and before[name] + cost <= limit.burst + patience * limit.speed

    def wait(self, names: "Sequence[str] | Mapping[str, Limit]", owed: Mapping[str, Fraction], cost: int) -> int | None:
        """Microseconds until all of these enforced limits have `cost` tokens; None for never."""
        waits = [0]
        for name in names:
            limit = self.limits[name]
            if cost > limit.burst:
                return None
            if limit.enforced:
                waits.append(ceil((owed[name] + cost - limit.burst) / limit.speed))
        return max(waits)

    def settle(self, keys: Mapping[str, str], tokens: int, now: int, charged: frozenset[str]) -> None:
        """Take more at the limits that were charged, up to a debt of one burst; or give back, down to nothing owed."""
        for name, limit in self.limits.items():
            bucket = self.bucket(name, keys)
            owed = bucket.owed_at(now, limit.speed)
            most = max(owed, Fraction(2 * limit.burst))
            settled = max(Fraction(0), min(owed + tokens, most)) if name in charged else owed
            if settled != owed:
                bucket.write(settled, now)

    def reset(self, keys: Mapping[str, str]) -> None:
        """Forget the buckets of these keys, at the levels named."""
        for name, limit in self.limits.items():
            if limit.level in keys:
                self.buckets[name].pop("" if limit.level == "global" else keys[limit.level], None)
