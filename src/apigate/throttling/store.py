"""The boundary to whatever keeps the buckets. A decision is one atomic operation, never a get and then a set."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from apigate.throttling.decision import Decision
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit

__all__ = ["Buckets", "ThrottleStore"]


class Buckets(Protocol):
    """The buckets of some limits, asked together; keys and costs come in the order of the limits.

    Every method may answer at once or hand back an awaitable of the same answer, as its author likes; the callers
    take both.
    """

    def acquire(
        self, keys: Sequence[Key], costs: Sequence[int], now: int, patience: int = 0
    ) -> Decision | Awaitable[Decision]:
        """Take the costs from every bucket or from none, as `apigate.throttling.algorithms.decide` says.

        Raises:
            StoreError: The buckets cannot be reached; nothing was taken.
        """
        ...

    def peek(self, keys: Sequence[Key], costs: Sequence[int], now: int) -> Decision | Awaitable[Decision]:
        """What `acquire` would answer, taking nothing.

        Raises:
            StoreError: The buckets cannot be reached.
        """
        ...

    def adjust(self, keys: Sequence[Key], tokens: Sequence[int], now: int) -> Awaitable[None] | None:
        """Take more tokens (above 0) or give some back (below 0) without asking.

        A bucket is never owed less than nothing, nor by this more than twice its burst.

        Raises:
            StoreError: The buckets cannot be reached.
        """
        ...

    def reset(self, keys: Sequence[Key | None] | None) -> Awaitable[None] | None:
        """Forget these buckets, leaving out limits whose key is None; without keys every bucket of the limits.

        Raises:
            StoreError: The buckets cannot be reached.
        """
        ...


class ThrottleStore(Protocol):
    """Keeps token buckets by limit and key; checked by `apigate.testing.ThrottleStoreContract`."""

    def open(self, limits: Sequence[Limit], now: int) -> Buckets:
        """The buckets of these limits.

        Limits of the same name share their buckets. A rate that differs from the one the name had replaces it at
        `now` microseconds, for whoever opened it before too, and the buckets keep what they are owed.
        """
        ...
