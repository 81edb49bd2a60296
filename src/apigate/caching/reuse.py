"""Whether a stored response may be served as it is, after what it says, what the request says, and how old it is.

Source: RFC 9111, sections 4, 4.2.4 and 5.2.1; RFC 5861.
"""

from enum import Enum

from apigate.caching.directives import Directives
from apigate.caching.entry import StoredResponse
from apigate.caching.settings import CachePolicy

__all__ = ["Reuse", "may_serve_on_error", "reuse", "stale_windows"]

_STRICT = frozenset({"must-revalidate", "proxy-revalidate", "s-maxage"})
"""Directives of a response that is never served stale (RFC 9111, sections 5.2.2.2, 5.2.2.8 and 5.2.2.10)."""


class Reuse(Enum):
    """What may be done with a stored response."""

    SERVE = "serve"
    """It is fresh, or the request takes it stale."""

    REFRESH = "refresh"
    """It is stale, and served while the app is asked anew in the background (RFC 5861, section 3)."""

    VALIDATE = "validate"
    """The app has to be asked."""


def reuse(  # noqa: PLR0911 - one line for each rule
    stored: StoredResponse, request: Directives, policy: CachePolicy, now_us: int, *, obeys: bool
) -> Reuse:
    """What may be done with a stored response for a request.

    Args:
        stored: The response.
        request: The directives of the request.
        policy: The policy.
        now_us: The gateway's monotonic microseconds.
        obeys: Whether the request's directives count.
    """
    if stored.must_validate:
        return Reuse.VALIDATE
    age = stored.age(now_us)
    over = age - stored.lifetime  # seconds since it became stale; below 0 while it is fresh
    if obeys and request:
        if "no-cache" in request or _is_beyond(request.seconds("max-age"), age):
            return Reuse.VALIDATE
        if _is_beyond(request.seconds("min-fresh"), -over, least=True):
            return Reuse.VALIDATE
    if over < 0:
        return Reuse.SERVE
    if not _STRICT.isdisjoint(stored.directives):
        return Reuse.VALIDATE
    allowed = request.seconds("max-stale") if obeys else None
    if allowed is not None and over <= allowed:
        return Reuse.SERVE
    return Reuse.REFRESH if over < stale_windows(stored, policy)[0] else Reuse.VALIDATE


def may_serve_on_error(stored: StoredResponse, request: Directives, policy: CachePolicy, now_us: int) -> bool:
    """Tell whether a stored response may be served because the app has failed.

    What the request says of it counts only where the policy leaves the lifetime to the app.

    Source: RFC 5861, section 4; RFC 9111, section 4.2.4.
    """
    obeys = policy.ttl is None
    if stored.must_validate or not _STRICT.isdisjoint(stored.directives) or (obeys and "no-cache" in request):
        return False
    wanted = request.seconds("stale-if-error") if obeys else None
    return stored.age(now_us) - stored.lifetime < max(stale_windows(stored, policy)[1], wanted or 0)


def stale_windows(stored: StoredResponse, policy: CachePolicy) -> tuple[float, float]:
    """For how many seconds after its lifetime a response may be served while it is refreshed, and where the app fails.

    What the response says counts; else what the policy says.
    """
    said = stored.directives
    if stored.must_validate or not _STRICT.isdisjoint(said):
        return 0.0, 0.0
    refresh: float | None = policy.stale_while_revalidate
    error: float | None = policy.stale_if_error
    if "stale-while-revalidate" in said:
        refresh = said.seconds("stale-while-revalidate")
    if "stale-if-error" in said:
        error = said.seconds("stale-if-error")
    return refresh or 0.0, error or 0.0


def _is_beyond(bound: int | None, seconds: float, *, least: bool = False) -> bool:
    if bound is None:
        return False
    return seconds < bound if least else seconds > bound or bound == 0
