"""What would become of a request, and why: the answer behind `Gateway.explain` and `apigate explain`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from apigate.caching.policy import CachingPolicy, InvalidatingPolicy
from apigate.core.names import printable
from apigate.core.native import plain_request
from apigate.core.steps import Steps
from apigate.pipeline import RefusalPolicy
from apigate.throttling.decision import Decision, LevelState
from apigate.throttling.in_flight import InFlightPolicy
from apigate.throttling.policy import ExemptPolicy, RateLimitFieldsPolicy, SettlementPolicy, ThrottlePolicy
from apigate.throttling.window import Window

if TYPE_CHECKING:
    from apigate.gateway import Gateway

__all__ = ["Explanation", "explain"]


@final
@dataclass(frozen=True, slots=True)
class Explanation:
    """What a gateway would do with one request.

    Attributes:
        request: Verb and decoded path.
        stage: The stage, or None where the request names none.
        method: The method matched, or None.
        client: Who would be counted.
        levels: How each limit would stand after the request, in the order they are asked.
        notes: What else decides, one sentence each.
        verdict: `admitted`, or the type of the gateway response.
    """

    request: str
    stage: str | None
    method: str | None
    client: str
    levels: tuple[LevelState, ...]
    notes: tuple[str, ...]
    verdict: str

    def __str__(self) -> str:
        """A page for people."""
        lines = [
            printable(self.request),
            f"  stage   {self.stage or 'none'}",
            f"  method  {self.method or 'none matches'}",
            f"  client  {printable(self.client)}",
        ]
        for state in self.levels:
            standing = f"{state.remaining} left" if not state.violated else _short(state)
            lines.append(f"  {state.policy:<15} {state.rate!s:<28} {standing}{'' if state.enforced else ' (shadow)'}")
        lines += [f"  note    {note}" for note in self.notes]
        return "\n".join([*lines, f"  verdict {self.verdict}"])


def _short(state: LevelState) -> str:
    if state.retry_after is None:
        return f"refuses: the cost is above {'its count' if isinstance(state.rate, Window) else 'the burst'}"
    return f"refuses for {state.retry_after:.3f} s"


def explain(
    gateway: "Gateway",
    method: str,
    path: str,
    headers: Mapping[str, str],
    address: str,
    stage: str | None,
    principal: str | None = None,
) -> Steps[Explanation]:
    """See `Gateway.explain`; the store may have to be waited for."""
    gateway.check_stage(stage)
    request = plain_request(method, path, headers, address)
    context = gateway.route(request, stage, gateway.endpoint_of)
    context.principal = principal
    levels: tuple[LevelState, ...] = ()
    notes: list[str] = []
    verdict = "admitted"
    for policy in context.compiled.policies:
        match policy:
            case RefusalPolicy():
                verdict = policy.kind
                notes.append(policy.detail)
            case ExemptPolicy():
                policy.on_request(context)
                notes += ["exempt by the method's rule: takes from no level"] if context.exempt else []
            case ThrottlePolicy() if not context.exempt:
                decision: Decision = yield policy.buckets.peek(
                    policy.keys(context), policy.costs(request), context.now_us
                )
                levels = decision.buckets
                refused = "STORE_UNAVAILABLE" if decision.unavailable else "THROTTLED"
                verdict = "admitted" if decision.allowed else refused
                notes += ["the store cannot be reached: this process decides by itself"] if decision.local else []
            case CachingPolicy() | InvalidatingPolicy():
                sentences: list[str] = yield policy.explain(context)
                notes += [f"cache: {sentence}" for sentence in sentences]
            case InFlightPolicy():
                notes += [f"at most {most} in flight at level {slots.level}" for slots, most, _ in policy.limits]
            case ThrottlePolicy() | RateLimitFieldsPolicy() | SettlementPolicy():
                pass
            case _:
                notes.append(f"{type(policy).__name__} of your own runs in phase {policy.phase.name}; it was not asked")
    if gateway.is_preflight(context):
        notes.append("a CORS preflight: it takes from the global level alone")
    elif levels and context.method is None:
        notes.append("requests that match no method share the buckets of *")
    notes = notes or ([] if levels else ["takes from no level"])
    known = None if verdict == "RESOURCE_NOT_FOUND" else context.stage
    return Explanation(f"{method} {request.path}", known, context.method, context.client, levels, tuple(notes), verdict)
