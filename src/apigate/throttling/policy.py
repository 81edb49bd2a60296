"""The throttle as a gate: every level of a method in one decision, its fields on the way out, its settlement after.

Three small policies rather than one with switches: a gateway that sends no fields, or refunds nothing, has none of
that in its pipeline.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import final

from apigate.core.clock import Clock
from apigate.core.context import RequestContext
from apigate.core.message import Field, Request, Response, ResponseHead
from apigate.core.policy import Completion, Outcome, Phase
from apigate.core.responses import GatewayResponses
from apigate.throttling.combined import settle
from apigate.throttling.decision import Decision, longest_wait
from apigate.throttling.fields import Draft, retry_after_field, seconds_up, x_fields
from apigate.throttling.keys import LONGEST_KEY, Key, bucket_key
from apigate.throttling.limit import Limit, checked_cost
from apigate.throttling.mark import ThrottleMark
from apigate.throttling.store import Buckets

__all__ = ["ExemptPolicy", "RateLimitFieldsPolicy", "SettlementPolicy", "ThrottlePolicy", "ThrottleRefusals"]

PER_CLIENT = ("client", "client-method")
"""Levels whose buckets belong to a client; the others have one that all share."""

_SECOND = 1_000_000

_READY = 4_096
"""How many different refusals are kept rendered."""

SETTLED = ("method", "client", "client-method")
"""Levels that are settled by the outcome."""


@final
class ExemptPolicy:
    """Asks, once a request, whether it takes from any level.

    Args:
        rule: A function of the request that is true for those that do not.
    """

    phase = Phase.THROTTLE

    def __init__(self, rule: Callable[[Request], bool]) -> None:
        """Keep the rule."""
        self._rule = rule

    def on_request(self, context: RequestContext) -> None:
        """Note the answer for the policies after it."""
        context.exempt = bool(self._rule(context.request))


@final
class ThrottlePolicy:
    """Asks every level at once.

    Args:
        limits: What is asked, those shared by all clients first, those of marks last.
        buckets: Their buckets.
        refusals: Makes the refusal.
        cost: Tokens a request takes, or a function of the request.
        marks: The decorators of the endpoint, in the order of their limits.
        on_shadow: Told the levels in shadow mode that would have refused.
    """

    phase = Phase.THROTTLE

    def __init__(
        self,
        limits: Sequence[Limit],
        buckets: Buckets,
        refusals: "ThrottleRefusals",
        *,
        cost: int | Callable[[Request], int] = 1,
        marks: Sequence[ThrottleMark] = (),
        on_shadow: Callable[[RequestContext, tuple[str, ...]], None] | None = None,
    ) -> None:
        """Work out what does not depend on the request."""
        self.limits: tuple[Limit, ...] = tuple(limits)
        self.buckets: Buckets = buckets
        self.cost: int | Callable[[Request], int] = cost
        self._refusals = refusals
        self._on_shadow = on_shadow
        self._marks = tuple(mark for mark in marks for _ in mark.rates)  # one for each of their limits
        own = self.limits[: len(self.limits) - len(self._marks)]
        self._own = len(own)
        self._clients = sum(limit.level in PER_CLIENT for limit in own)
        self._shared: tuple[Key, ...] = ("",) * (self._own - self._clients)
        fixed = [mark.fixed_cost for mark in self._marks]
        self._costs: tuple[int, ...] = ()
        if isinstance(cost, int) and None not in fixed:
            self._costs = (cost,) * self._own + tuple(each for each in fixed if each is not None)

    @property
    def marks(self) -> tuple[ThrottleMark | None, ...]:
        """The decorator that each limit is of; None for those of the settings."""
        return (None,) * self._own + self._marks

    def on_request(self, context: RequestContext) -> Outcome:
        """Take the request's tokens at every level, or refuse it."""
        if context.exempt:
            return None
        costs = self._costs or self.costs(context.request)
        keys = self._shared
        if self._clients:
            client = context.client  # as in `keys`, a call saved
            short = len(client) <= LONGEST_KEY and client.isascii()
            keys += (client if short else bucket_key(client),) * self._clients
        if self._marks:
            keys += tuple([mark.key(context) for mark in self._marks])
        answer = self.buckets.acquire(keys, costs, context.now_us)
        if type(answer) is not Decision:
            return self._judge_later(context, answer)
        context.decision = answer
        if answer.shadowed:
            return self._judge(context, answer)
        return None if answer.allowed else self._refusals(context, answer)

    def keys(self, context: RequestContext) -> Sequence[Key]:
        """Whose bucket is asked at each level."""
        keys = self._shared
        if self._clients:
            keys += (bucket_key(context.client),) * self._clients
        return keys + tuple([mark.key(context) for mark in self._marks])

    def costs(self, request: Request) -> Sequence[int]:
        """What the request takes at each level.

        Raises:
            ValueError: The cost function gave something else than a whole number of at least 0.
        """
        if self._costs:
            return self._costs
        cost = self.cost if isinstance(self.cost, int) else checked_cost(self.cost(request), "cost")
        return (cost,) * self._own + tuple([mark.cost(request) for mark in self._marks])

    def _judge(self, context: RequestContext, decision: Decision) -> Response | None:
        context.decision = decision
        if decision.shadowed and self._on_shadow is not None:
            self._on_shadow(context, tuple(dict.fromkeys(limit.level for limit in decision.shadowed)))
        return None if decision.allowed else self._refusals(context, decision)

    async def _judge_later(self, context: RequestContext, answer: Awaitable[Decision]) -> Response | None:
        return self._judge(context, await answer)

    def give_back(self, context: RequestContext, now: int) -> Completion:
        """Return what a request took, as if it had never come; unless it was settled before."""
        decision: Decision | None = context.decision
        if decision is None or not decision.allowed or context.settled:
            return None
        context.settled = True
        return settle(self.buckets, self.keys(context), decision.settling(0), now, decision)


@final
class ThrottleRefusals:
    """Makes the response to a request that a throttle refused.

    Args:
        responses: Makes gateway responses.
        draft: The version of the RateLimit fields, or None for none.
        x_clock: The clock for X-RateLimit fields, or None for none.
    """

    def __init__(self, responses: GatewayResponses, draft: Draft | None, x_clock: Clock | None) -> None:
        """Keep the parts."""
        self._responses = responses
        self._draft = draft
        self._x_clock = x_clock
        self._ready: dict[tuple[tuple[Limit, int | None], ...], Response] = {}

    def __call__(self, context: RequestContext, decision: Decision) -> Response:
        """The response, with the wait and the limits that refused."""
        if decision.local and decision.unavailable:
            return self._unavailable(context, decision)
        refusals = decision.refusals(_SECOND)
        ready = self._ready.get(refusals)  # under a flood the same few refusals are sent again and again
        if ready is not None:
            return ready
        fields, detail, violated = self._explained(refusals)
        if self._x_clock is not None:
            fields += x_fields(decision.tightest(), self._x_clock.wall())
        response = self._responses.make("THROTTLED", context, detail, fields, violated)
        if self._x_clock is None and self._responses.is_standard:
            if len(self._ready) >= _READY:
                self._ready.clear()
            self._ready[refusals] = response
        return response

    def _unavailable(self, context: RequestContext, decision: Decision) -> Response:
        """The response where the store could not be asked: no verdict on the client, and no field that counts."""
        refusals = decision.refusals()
        wait = longest_wait(refusals)
        fields = () if wait is None else (retry_after_field(seconds_up(wait)),)
        named = " and ".join(limit.policy for limit, _ in refusals)
        detail = f"The {named} limit{'s' if len(refusals) > 1 else ''} cannot be checked at the moment."
        violated = tuple([limit.policy for limit, _ in refusals])
        return self._responses.make("STORE_UNAVAILABLE", context, detail, fields, violated)

    def _explained(
        self, refusals: tuple[tuple[Limit, int | None], ...]
    ) -> tuple[tuple[Field, ...], str, tuple[str, ...]]:
        """Fields, one sentence, and the names of the limits that refused; each limit with its wait in seconds."""
        fields: tuple[Field, ...] = ()
        wait = longest_wait(refusals)
        if wait is not None:
            fields += (retry_after_field(wait),)
        if self._draft is not None:
            fields += self._draft.refused(refusals)
        named = " and ".join(f"the {limit.policy} limit of {limit.rate}" for limit, _ in refusals)
        verb = "were" if len(refusals) > 1 else "was"
        tail = "." if wait is not None else ", and this request costs more than it ever admits at once."
        detail = f"{named[:1].upper()}{named[1:]} {verb} exceeded{tail}"
        return fields, detail, tuple(limit.policy for limit, _ in refusals)


@final
class RateLimitFieldsPolicy:
    """Tells the client where it stands, on what the app answers to an admitted request.

    Args:
        limits: The limits of the method.
        draft: The version of the RateLimit fields, or None for none.
        x_clock: The clock for X-RateLimit fields, or None for none.
    """

    phase = Phase.THROTTLE

    def __init__(self, limits: Sequence[Limit], draft: Draft | None, x_clock: Clock | None) -> None:
        """Write the fields that never change."""
        self._x_clock = x_clock
        enforced = [limit for limit in limits if limit.enforced]
        self._policies = draft.policies(enforced) if draft and enforced else ()
        self._standing = draft.standing if draft and enforced else None

    def on_response(self, context: RequestContext, head: ResponseHead) -> None:
        """Add the fields."""
        decision: Decision | None = context.decision
        tightest = None if decision is None else decision.tightest()
        if tightest is None:
            return
        if self._standing is not None:
            limit, remaining, owed = tightest
            head.added += self._policies + self._standing(limit, remaining, owed)
        if self._x_clock is not None:
            head.added += x_fields(tightest, self._x_clock.wall())


@final
class SettlementPolicy:
    """Gives tokens back, or takes more, once the outcome is known.

    It settles the levels method, client and client-method. The global and the stage's level keep what was taken: they
    protect the server, which has worked for the response whatever it was.

    Args:
        throttle: The policy that took the tokens.
        clock: Tells when it is settled.
        refund: Statuses that cost nothing in the end.
        final_cost: Says what the others cost; None for what was taken.
    """

    phase = Phase.THROTTLE

    def __init__(
        self,
        throttle: ThrottlePolicy,
        clock: Clock,
        refund: frozenset[int],
        final_cost: Callable[[RequestContext, int], int] | None,
    ) -> None:
        """Keep the rules."""
        self._throttle = throttle
        self._clock = clock
        self._refund = refund
        self._final_cost = final_cost

    def on_complete(self, context: RequestContext, status: int | None) -> Completion:
        """Settle; an outcome that never came leaves the tokens taken."""
        decision: Decision | None = context.decision
        if decision is None or not decision.allowed or status is None or context.settled:
            return None
        context.settled = True
        if status in self._refund:
            cost = 0
        elif self._final_cost is not None:
            cost = checked_cost(self._final_cost(context, status), "final_cost")
        else:
            return None
        tokens, throttle = decision.settling(cost, SETTLED), self._throttle
        return settle(throttle.buckets, throttle.keys(context), tokens, self._clock.now_us(), decision)
