"""What `Gateway.throttle` leaves on a function: limits of its own, which the gate asks together with all others."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, final

from apigate.core.context import RequestContext
from apigate.core.message import Request
from apigate.throttling.keys import Key, bucket_key
from apigate.throttling.limit import Limit, checked_cost
from apigate.throttling.rate import Rate
from apigate.throttling.window import Window

__all__ = ["ONE_BUCKET", "Per", "ThrottleMark"]

ONE_BUCKET = "method"
"""The key of a bucket that all callers of a function share."""

Per: TypeAlias = Literal["method", "client"] | Callable[[Request], str | None]
"""One bucket for the function (`"method"`), one a client (`"client"`), or one for each text a function gives.

Where the function gives None, it is the client's.
"""


@final
class ThrottleMark:
    """The limits of one decorated function.

    Attributes:
        owner: What all marks of one gateway have in common.
        name: What its buckets are kept under.
        level: `method` where all callers share one bucket, else `client-method`.
        rates: The rates.
        refusal: Status and OpenAPI Response Object of its refusals, for the documentation of the endpoint.
    """

    __slots__ = ("_cost", "_per", "level", "name", "owner", "rates", "refusal")

    def __init__(
        self,
        owner: object,
        name: str,
        rates: tuple[Rate | Window, ...],
        per: Per,
        cost: int | Callable[[Request], int],
        refusal: tuple[int, dict[str, Any]],
    ) -> None:
        """Keep the settings, which the decorator has checked."""
        self.refusal: tuple[int, dict[str, Any]] = refusal
        self.owner: object = owner
        self.name: str = name
        self.rates: tuple[Rate | Window, ...] = rates
        self.level: str = "method" if per == "method" else "client-method"
        self._per = per
        self._cost = cost

    def limits(self, others: int, *, enforced: bool = True, steady: bool = False) -> tuple[Limit, ...]:
        """Its limits, called after their level and numbered on from the `others` that the level has already."""
        level = self.level
        return tuple(
            Limit(
                self.name if number == 1 else f"{self.name}#{number}",
                level,
                level if others + number == 1 else f"{level}-{others + number}",
                rate,
                enforced=enforced,
                steady=steady,
            )
            for number, rate in enumerate(self.rates, start=1)
        )

    @property
    def is_per_client(self) -> bool:
        """Whether its buckets are those of the clients."""
        return self._per == "client"

    @property
    def needs_request(self) -> bool:
        """Whether nothing can be decided without a request."""
        return self._per != "method" or callable(self._cost)

    def key(self, context: RequestContext) -> Key:
        """Whose bucket a request takes from.

        Raises:
            ValueError: The function gave something else than a text or None.
        """
        if self._per == "method":
            return ONE_BUCKET
        own: object = self._per(context.request) if callable(self._per) else None
        if own is None:
            return bucket_key(context.client)
        if not isinstance(own, str):
            raise ValueError(f"throttle per: {own!r} is neither a text nor None")  # noqa: TRY004 - as for costs
        return bucket_key(f"per:{own}")  # or it could be the name of a client, whose bucket stands beside it

    def cost(self, request: Request) -> int:
        """What a request takes.

        Raises:
            ValueError: The cost function gave something else than a whole number of at least 0.
        """
        return self._cost if isinstance(self._cost, int) else checked_cost(self._cost(request), "throttle cost")

    @property
    def fixed_cost(self) -> int | None:
        """What every request takes, or None where it depends on the request."""
        return self._cost if isinstance(self._cost, int) else None

    def __repr__(self) -> str:
        """Level and rates."""
        return f"<ThrottleMark {self.level} {', '.join(str(rate) for rate in self.rates)}>"
