"""How long a stored response may be reused, and how old it is.

Source: RFC 9111, section 4.2.
"""

from apigate.caching.dates import parse_http_date
from apigate.caching.directives import parse_age
from apigate.caching.head import Head
from apigate.core.message import Headers

__all__ = ["HEURISTIC_STATUSES", "freshness_lifetime", "has_explicit_freshness", "initial_age"]

HEURISTIC_STATUSES = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses whose responses may be reused without being told for how long (RFC 9110, section 15.1), but for 206."""

_HEURISTIC_FRACTION = 0.1  # of the time since the last change: RFC 9111, section 4.2.2
_LONGEST_HEURISTIC = 86_400  # longer than that one should warn; no field is left to do it with


def has_explicit_freshness(head: Head) -> bool:
    """Tell whether a response says itself how long it is fresh.

    Expires does not count where a targeted field speaks (RFC 9213, section 2.1).
    """
    said = head.directives
    return "s-maxage" in said or "max-age" in said or (not head.targeted and "expires" in head.headers)


def freshness_lifetime(status: int, head: Head, now: float, *, heuristic: bool) -> float:
    """The freshness lifetime in seconds; 0 where nothing tells.

    Args:
        status: The response's status.
        head: Its head.
        now: When it came, in seconds since 1970-01-01 UTC.
        heuristic: Whether a lifetime may be guessed from Last-Modified.

    Source: RFC 9111, sections 4.2.1 and 4.2.2.

    >>> from apigate.caching.head import head_of
    >>> freshness_lifetime(200, head_of([("Cache-Control", "max-age=600, s-maxage=60")]), 0.0, heuristic=False)
    60
    """
    headers, said = head.headers, head.directives
    for name in ("s-maxage", "max-age"):
        seconds = said.seconds(name)
        if seconds is not None:
            return seconds
    if not head.targeted and "expires" in headers:
        expires = _date(headers, "expires", now)
        date = _date(headers, "date", now)
        return 0 if expires is None else max(0.0, expires - (now if date is None else date))
    if heuristic and (status in HEURISTIC_STATUSES or "public" in said):
        modified = _date(headers, "last-modified", now)
        if modified is not None:
            date = _date(headers, "date", now)
            since = (now if date is None else date) - modified
            return min(max(0.0, since * _HEURISTIC_FRACTION), _LONGEST_HEURISTIC)
    return 0


def initial_age(head: Head, request_time: float, response_time: float) -> float:
    """The corrected initial age in seconds: what the fields say, and the time the app took.

    Args:
        head: The response's head.
        request_time: When the request was sent to the app, in seconds since 1970-01-01 UTC.
        response_time: When the response's head came.

    Source: RFC 9111, section 4.2.3.

    >>> from apigate.caching.head import head_of
    >>> initial_age(head_of([("Age", "7")]), 1_000.0, 1_002.0)
    9.0
    """
    waited = max(0.0, response_time - request_time)
    if not head.tells_age:
        return waited
    headers = head.headers
    date = _date(headers, "date", response_time)
    apparent = 0.0 if date is None else max(0.0, int(response_time) - date)
    age = parse_age(headers.get_all("age")) or 0
    return max(apparent, age + waited)


def _date(headers: Headers, name: str, now: float) -> int | None:
    """A date field; None where it is absent, invalid or sent more than once with different values."""
    values = headers.get_all(name)
    if not values or any(value != values[0] for value in values):
        return None
    return parse_http_date(values[0], now)
