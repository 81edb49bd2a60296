"""Every stage and method with its limits, as text: what `apigate routes` prints."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from apigate.caching.policy import CachingPolicy, InvalidatingPolicy
from apigate.config import UNSET
from apigate.core.endpoints import Endpoint
from apigate.core.policy import CompiledMethod
from apigate.core.routes import ANY
from apigate.pipeline import ClockPolicy
from apigate.running_stage import RunningStage
from apigate.throttling.in_flight import InFlightPolicy
from apigate.throttling.policy import ExemptPolicy, RateLimitFieldsPolicy, SettlementPolicy, ThrottlePolicy

if TYPE_CHECKING:
    from apigate.gateway import Gateway

__all__ = ["audit"]


def audit(gateway: "Gateway", endpoints: Sequence[Endpoint] = ()) -> Iterator[str]:
    """The method table of every stage, line by line.

    Args:
        gateway: The gateway.
        endpoints: The endpoints of the app it stands around, where its framework tells them.
    """
    yield f"gateway {gateway.name}" + (f", stage by {gateway.stage_by!r}" if gateway.stage_by else "")
    if gateway.marked and not endpoints:
        yield "Decorated functions have limits of their own; name the app instead of the gateway to see them."
    for stage in gateway.stages.values():
        yield f"\nstage {stage.name}"
        rows = list(_rows(stage, endpoints))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _rows(stage: RunningStage, endpoints: Sequence[Endpoint]) -> Iterator[tuple[str, str, str, str]]:
    """Method, level, rate and mode; the method only in the first of its rows."""
    yield "METHOD", "LEVEL", "LIMIT", "MODE"
    bound = {stage.compiled_for(endpoint): endpoint for endpoint in endpoints}
    named = [name for name in stage.settings.methods if name != ANY and name not in {each.method for each in bound}]
    for compiled in (*map(stage.compiled, named), *bound, stage.compiled(None)):
        title = compiled.method or "* (what matches no other)"
        for row in (*_limits(stage, compiled), *_terms(stage, compiled.method)) or [("-", "no limit", "")]:
            yield title, *row
            title = ""


def _limits(stage: RunningStage, compiled: CompiledMethod) -> Iterator[tuple[str, str, str]]:
    """Level, limit and mode of everything that may refuse a request to a method."""
    settings = stage.settings.settings(compiled.method)
    levels: set[str] = set()
    for policy in compiled.policies:
        match policy:
            case ThrottlePolicy():
                for limit in policy.limits:
                    levels.add(limit.level)
                    yield limit.policy, str(limit.rate), _mode(limit.enforced)
            case InFlightPolicy():
                yield from (
                    (slots.level, f"{most} in flight", _mode(enforced)) for slots, most, enforced in policy.limits
                )
            case CachingPolicy():
                yield "cache", policy.lookup.policy.terms, ""
            case InvalidatingPolicy():
                yield "cache", policy.terms, ""
            case ClockPolicy() | ExemptPolicy() | RateLimitFieldsPolicy() | SettlementPolicy():
                pass
            case _:
                yield "-", f"{type(policy).__name__}, in phase {policy.phase.name}", ""
    if settings.exempt is True:
        return
    configured = {
        "stage": stage.settings.throttle,
        "method": settings.throttle,
        "client": stage.settings.client_throttle,
        "client-method": settings.client_throttle,
    }
    for level, rates in configured.items():
        if level not in levels and isinstance(rates, tuple):
            yield from ((level, str(rate), "off") for rate in rates)


def _mode(enforced: bool) -> str:
    return "enforce" if enforced else "shadow"


def _terms(stage: RunningStage, name: str | None) -> Iterator[tuple[str, str, str]]:
    """What else decides how much a request to a method takes."""
    settings = stage.settings.settings(name)
    if settings.exempt is True:
        yield "exempt", "takes from no level", ""
        return
    terms = {
        "exempt": _named(settings.exempt) if callable(settings.exempt) else None,
        "cost": _named(settings.cost) if settings.cost not in (1, UNSET) else None,
        "refund": settings.refund if isinstance(settings.refund, str) else None,
        "final cost": _named(settings.final_cost) if callable(settings.final_cost) else None,
    }
    yield from ((term, value, "") for term, value in terms.items() if value is not None)


def _named(value: object) -> str:
    """A number as it is, a function by its name."""
    return str(getattr(value, "__qualname__", value))
