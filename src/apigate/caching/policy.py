"""The gate of phase CACHE: a request that it can answer does not reach the app.

Source: RFC 9111, section 4.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import cast, final

from apigate.caching.answer import Answer
from apigate.caching.exchange import Exchange
from apigate.caching.fill import Fill
from apigate.caching.invalidation import Invalidating, is_safe
from apigate.caching.lookup import NOBODY, Found, Lookup, Passing, Refused, uncached
from apigate.caching.owner import Owner
from apigate.core.context import RequestContext
from apigate.core.counters import Counters
from apigate.core.message import Response
from apigate.core.policy import Outcome, Phase
from apigate.core.responses import GatewayResponses
from apigate.core.steps import Steps, run

__all__ = ["OUTCOMES", "CachingPolicy", "InvalidatingPolicy"]

OUTCOMES = ("hit", "stale", "miss", "bypass")
"""What may become of a request that is looked up."""

_KNOWN = (Answer, Fill, Invalidating, Passing, Refused)
"""What may become of a request that need not wait: all that `Found` is. To ask for `Awaitable` takes 0.1 us more."""


@final
class CachingPolicy:
    """Looks a request up, after it was authorized and throttled.

    Args:
        lookup: The policy's lookup, which has the cache.
        responses: Makes gateway responses.
        counters: Counts requests by what became of them: `cache:hit`, `cache:stale`, `cache:miss`, `cache:bypass`.
        on_look: Told of each request, what became of it, and why where it went to the app; if anybody is.
    """

    phase = Phase.CACHE

    def __init__(
        self,
        lookup: Lookup,
        responses: GatewayResponses,
        counters: Counters,
        on_look: Callable[[RequestContext, str, str | None], None] | None = None,
    ) -> None:
        """Keep the parts."""
        self.lookup: Lookup = lookup
        self._on_look = on_look
        self._responses = responses
        self._counts: dict[str, Iterator[int]] = {each: counters.counter(f"cache:{each}") for each in OUTCOMES}
        self._hits = self._counts["hit"]
        per = lookup.policy.per
        self._by_principal = per is None

    def on_request(self, context: RequestContext) -> Outcome:
        """Answer the request, or send it on with an exchange."""
        if self._by_principal and context.principal is None and context.api_key is None and not context.claims:
            found = self.lookup.ask(context.request, context.now_us)
        else:
            found = self._ask(context)
        if type(found) is Answer and found.refresh is None and self._on_look is None:
            context.answer = found
            next(self._hits)
            return None
        if isinstance(found, _KNOWN):
            return self._judge(context, found)
        return run(self._later(context, cast("Awaitable[Found]", found)))

    def warm(self, context: RequestContext) -> Fill | Awaitable[Fill | None] | None:
        """The exchange by which a response is stored before clients ask; None where there is nothing to do."""
        found = self._ask(context)
        return run(self._warmed(found)) if isinstance(found, Awaitable) else _fill_of(found)

    def _warmed(self, found: Awaitable[Found]) -> Steps[Fill | None]:
        return _fill_of((yield found))

    def explain(self, context: RequestContext) -> list[str] | Awaitable[list[str]]:
        """What would become of a request, and why, in sentences; what workers share may have to be waited for."""
        request, owner = context.request, self._owner(context)
        if owner is None:
            return [f"it passes by: {NOBODY.detail}"]
        return run(self.lookup.explain(request, context.now_us, owner))

    def _owner(self, context: RequestContext) -> Owner | None:
        if self._by_principal and context.principal is None and context.api_key is not None:
            return None  # it may be any one's, as with claims and no principal
        return self.lookup.owner(context.request, context.principal, context.claims)

    def _ask(self, context: RequestContext) -> Found | Awaitable[Found]:
        request, owner = context.request, self._owner(context)
        if owner is None:
            return NOBODY
        return self.lookup.ask(request, context.now_us, owner)

    def _later(self, context: RequestContext, found: Awaitable[Found]) -> Steps[Response | None]:
        return self._judge(context, (yield found))

    def _judge(self, context: RequestContext, found: Found) -> Response | None:
        if isinstance(found, Refused):
            return self._responses.make(found.kind, context, found.detail)
        if isinstance(found, Answer):
            context.answer = found
            outcome = "hit" if found.refresh is None else "stale"
        elif isinstance(found, Passing):
            context.added += self.lookup.note(found.reason, found.detail)
            outcome = "bypass"
        else:
            context.exchange = found
            outcome = "miss" if isinstance(found, Fill) else "bypass"
        next(self._counts[outcome])
        if self._on_look is not None:
            self._on_look(context, outcome, self._reason(found))
        return None

    def _reason(self, found: Answer | Exchange | Passing) -> str | None:
        """Why a request goes to the app, in the words of RFC 9211 and ours; None where the cache answers."""
        if isinstance(found, Answer):
            return None
        if isinstance(found, Passing):
            return f"{found.reason}: {found.detail}"
        if not isinstance(found, Fill):
            return "method"
        objection = self.lookup.cache.objections.get(hash(found.key))
        return found.reason if objection is None else f"{found.reason}: the last answer was not stored: {objection}"


def _fill_of(found: Found) -> Fill | None:
    if isinstance(found, Answer):
        return found.refresh
    return found if isinstance(found, Fill) else None


@final
class InvalidatingPolicy:
    """Has unsafe methods that are not cached themselves invalidate what is cached of their path.

    Args:
        lookup: A lookup of the cache.

    Attributes:
        terms: What it does, in a few words.

    Source: RFC 9111, section 4.4.
    """

    phase = Phase.CACHE
    terms = "not cached; an unsafe request invalidates its path"

    def __init__(self, lookup: Lookup) -> None:
        """Keep the lookup."""
        self._lookup = lookup

    def on_request(self, context: RequestContext) -> None:
        """Send the request on with an exchange, if its method is unsafe."""
        request = context.request
        if not is_safe(request.method):
            context.exchange = Invalidating(self._lookup, request, request.picked)

    def explain(self, context: RequestContext) -> list[str]:
        """What would become of a request, and why, in sentences."""
        return [uncached(context.request.method)]
