"""Tokens that a process takes ahead, so that it asks a server once for many requests.

Rule: a process holds at most `lease - 1` unspent tokens of a bucket, each for at most a second. No token is spent that
was not taken first, so what is admitted in all stays within burst + rate x time; but a token may be spent later than it
was taken. With W processes, a bucket admits within any interval of t seconds at most

    burst + rate x t + W x (lease - 1)

and whoever is refused may lack up to W x (lease - 1) tokens that others hold.
"""

from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple, TypeAlias, final

from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit

__all__ = ["HELD_US", "Bucket", "Leases", "Taking"]

HELD_US = 1_000_000
"""How long tokens taken ahead may be spent; what is left then is given back when the bucket is next asked for."""

_MOST = 10_000

Bucket: TypeAlias = tuple[Limit, Key]
"""A limit, and whose bucket."""


class Taking(NamedTuple):
    """What one request has taken from hand, bucket by bucket, and what the server is to be asked.

    Attributes:
        wanted: Where the tokens were in hand: what the bucket is owed with them taken, in tokens times its `p`;
            else None.
        ahead: How many tokens to take ahead.
        back: How many were held too long, and go back.
        leases: What was in hand then; a reset may have put others in their place since.
    """

    wanted: list[int | None]
    ahead: list[int]
    back: list[int]
    leases: "list[_Lease]"


class _Lease:
    """The tokens of one bucket: in hand, being asked for; and what it was owed `at` the time when they were taken."""

    __slots__ = ("asked", "at", "owed", "tokens")

    def __init__(self) -> None:
        self.tokens = self.asked = self.owed = self.at = 0

    def overdue(self, now: int) -> int:
        """Take out of hand what was held too long, or under a clock that was set back since."""
        if 0 <= now - self.at < HELD_US:
            return 0
        overdue, self.tokens = self.tokens, 0
        return overdue


@final
class Leases:
    """The tokens in hand, of at most 10,000 buckets.

    Args:
        lease: How many tokens to take at once, those of the request itself among them.
    """

    def __init__(self, lease: int) -> None:
        """Hold nothing."""
        self.tolerance: int = lease - 1
        self._held: dict[tuple[str, Key], _Lease] = {}
        self._lock = Lock()

    def take(self, buckets: Sequence[Bucket], costs: Sequence[int], now: int) -> Taking:
        """Take from hand where that is enough; `settle` has to follow, unless it was enough everywhere."""
        taking = Taking([], [], [], [])
        with self._lock:
            for (limit, key), cost in zip(buckets, costs, strict=True):
                lease = self._held.get((limit.name, key)) or self._begin(limit.name, key, now)
                back = lease.overdue(now)
                wanted: int | None = None
                ahead = 0
                if 0 < cost <= lease.tokens:
                    lease.tokens -= cost
                    owed = max(0, lease.owed - (now - lease.at) * limit.n)
                    wanted = min(limit.capacity, max(cost * limit.p, owed - lease.tokens * limit.p))
                else:
                    ahead = max(0, self.tolerance - lease.tokens - lease.asked)
                    lease.asked += ahead
                taking.wanted.append(wanted)
                taking.ahead.append(ahead)
                taking.back.append(back)
                taking.leases.append(lease)
        return taking

    def settle(
        self,
        buckets: Sequence[Bucket],
        costs: Sequence[int],
        taking: Taking,
        now: int,
        answer: Sequence[tuple[int, int]] | None,
    ) -> None:
        """Take in hand what the server gave ahead; or put back what was taken from hand.

        What has no room in hand any more is let go: it flows back in time.

        Args:
            buckets: As for `take`.
            costs: As for `take`.
            taking: What that said.
            now: When that was.
            answer: Where the request was admitted: what each bucket is owed, and how many tokens of it came ahead.
                None where it was refused or nobody answered.
        """
        with self._lock:
            for place, (limit, key) in enumerate(buckets):
                lease = taking.leases[place]
                lease.asked -= taking.ahead[place]
                if self._held.get((limit.name, key)) is not lease:
                    continue
                if answer is None:
                    self._put(lease, 0 if taking.wanted[place] is None else costs[place])
                elif taking.wanted[place] is None:
                    lease.owed, came = answer[place]
                    self._put(lease, came)
                    lease.at = now

    def gain(self, bucket: Bucket, tokens: int, owed: int, now: int) -> None:
        """Take in hand what a request took that was given up before it was answered.

        Args:
            bucket: Of which.
            tokens: How many: what it wanted, and what came ahead.
            owed: What the bucket is owed with all of them taken.
            now: When it asked.
        """
        limit, key = bucket
        with self._lock:
            lease = self._held.get((limit.name, key)) or self._begin(limit.name, key, now)
            lease.overdue(now)
            self._put(lease, tokens)
            lease.owed, lease.at = owed, now

    def _put(self, lease: _Lease, tokens: int) -> None:
        lease.tokens = min(self.tolerance, lease.tokens + tokens)

    def drop(self, buckets: Sequence[tuple[Limit, Key | None]]) -> None:
        """Let go of what is held of these buckets."""
        with self._lock:
            for limit, key in buckets:
                if key is not None:
                    self._held.pop((limit.name, key), None)

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._held.clear()

    def _begin(self, name: str, key: Key, now: int) -> _Lease:
        """The lease of a bucket of which nothing is held; one that nobody keeps where there is no room."""
        if len(self._held) >= _MOST:
            self._held = {
                bucket: lease for bucket, lease in self._held.items() if lease.asked or 0 <= now - lease.at < HELD_US
            }
        lease = _Lease()
        if len(self._held) < _MOST:
            self._held[name, key] = lease
        else:
            lease.asked = self.tolerance  # so that nothing is taken ahead
        return lease
