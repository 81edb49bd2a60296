"""The gate of phase CACHE: a request that it can answer does not reach the app.

Source: RFC 9111, section 4.
"""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, final

from apigate.caching.answer import Answer
from apigate.caching.fill import Fill
from apigate.caching.lookup import Found, Lookup, Passing, Refused
from apigate.caching.settings import Per
from apigate.core.context import RequestContext
from apigate.core.counters import Counters
from apigate.core.message import Response, ResponseHead
from apigate.core.policy import Outcome, Phase
from apigate.core.responses import GatewayResponses
from apigate.core.steps import Steps, run

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CachingPolicy"]

_CLAIM = "claim:"


@final
class CachingPolicy:
    """Looks a request up, after it was authorized and throttled.

    Args:
        lookup: The policy's lookup, which has the cache.
        responses: Makes gateway responses.
        counters: Counts requests by what became of them: `cache:hit`, `cache:stale`, `cache:miss`, `cache:bypass`.
    """

    phase = Phase.CACHE

    def __init__(self, lookup: Lookup, responses: GatewayResponses, counters: Counters) -> None:
        """Keep the parts."""
        self.lookup: Lookup = lookup
        self._responses = responses
        self._hits: Iterator[int] = counters.counter("cache:hit")
        self._stale: Iterator[int] = counters.counter("cache:stale")
        self._misses: Iterator[int] = counters.counter("cache:miss")
        self._bypasses: Iterator[int] = counters.counter("cache:bypass")
        per = lookup.policy.per
        self._owner = None if per is None or per == "public" else _Owner(per)
        self._by_principal = per is None

    def on_request(self, context: RequestContext) -> Outcome:
        """Answer the request, or send it on with an exchange."""
        request = context.request
        if context.principal is not None and self._by_principal:
            found = self.lookup.ask(
                request, context.now_us, f"principal:{context.principal}", "principal", private=True
            )
        elif self._owner is not None:
            owner = self._owner.of(context)
            if owner is None:
                return self._judge(context, Passing("bypass", "nobody tells whose the response is"))
            found = self.lookup.ask(request, context.now_us, owner, self._owner.mode, private=self._owner.private)
        else:
            found = self.lookup.ask(request, context.now_us)
        if type(found) is Answer:
            context.answer = found
            next(self._hits)
            return None
        if isinstance(found, Awaitable):
            return run(self._later(context, found))
        return self._judge(context, found)

    def on_response(self, context: RequestContext, head: ResponseHead) -> None:
        """Say of a request that passed by why it did."""
        if context.passing is not None:
            head.added += self.lookup.note(*context.passing)

    def _later(self, context: RequestContext, found: Awaitable[Found]) -> Steps[Response | None]:
        return self._judge(context, (yield found))

    def _judge(self, context: RequestContext, found: Found) -> Response | None:
        if isinstance(found, Answer):
            context.answer = found
            next(self._hits if found.refresh is None else self._stale)
        elif isinstance(found, Passing):
            context.passing = found
            next(self._bypasses)
        elif isinstance(found, Refused):
            return self._responses.make(found.kind, context, found.detail)
        else:
            context.exchange = found
            if isinstance(found, Fill):
                next(self._misses)
        return None


@final
class _Owner:
    """Tells whose a response is."""

    def __init__(self, per: Per) -> None:
        self._per = per
        self.private: bool = per == "principal"
        self.mode: str = "function" if callable(per) else per.partition(":")[0]

    def of(self, context: RequestContext) -> str | None:
        """A text for who may have the response; None where nobody can be told.

        Raises:
            ValueError: The policy's function gave something else than a text or None.
        """
        per = self._per
        if callable(per):
            own: object = per(context.request)
            if own is not None and not isinstance(own, str):
                raise ValueError(f"cache per: {own!r} is neither a text nor None")
            return None if own is None else f"function:{own}"
        if per == "principal":
            return None if context.principal is None else f"principal:{context.principal}"
        claim = per.removeprefix(_CLAIM)
        value = context.claims.get(claim)
        return None if value is None else f"{_CLAIM}{claim}={value!r}"
