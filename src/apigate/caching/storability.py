"""Whether a response may be stored, and why not.

Rule: the answer is a reason in words, or None where nothing speaks against it; `explain` and Cache-Status show it.

Source: RFC 9111, section 3; what goes beyond it is said where it stands.
"""

from collections.abc import Collection
from typing import NamedTuple

from apigate.caching.directives import Directives
from apigate.caching.freshness import HEURISTIC_STATUSES, has_explicit_freshness
from apigate.caching.head import Head
from apigate.core.message import Headers

__all__ = ["TTL_STATUSES", "StorageRules", "allows_authorization", "is_lifetime_given", "storage_objection"]

TTL_STATUSES = frozenset({200, 203, 204, 300, 301, 308})
"""Statuses that a configured TTL is for, unless a policy says otherwise.

Errors are not among them: whoever can make the app err for one URL could make it err for all.
"""

_UNDERSTOOD = frozenset({*HEURISTIC_STATUSES, 201, 202, 302, 303, 307, 400, 401, 402, 403, 406, 407, 408, 409, 411})
_NEVER = frozenset({206, 304})
_ANY_COOKIE = "*"
_UNVERIFIED = (
    "the request has Authorization, which no gate has verified and the key does not name, and the response is not "
    "public, s-maxage or must-revalidate"
)


class StorageRules(NamedTuple):
    """What a policy allows.

    Attributes:
        ttl: Whether it sets the lifetime itself.
        statuses: Statuses that may be stored; None for those that the rules of HTTP allow.
        set_cookies: Names of cookies whose Set-Cookie may be stored; `*` for all.
        heuristic: Whether a lifetime may be guessed.
        private: Whether the response is kept for one verified principal, so that `private` does not forbid it.
    """

    ttl: bool = False
    statuses: Collection[int] | None = None
    set_cookies: Collection[str] = ()
    heuristic: bool = False
    private: bool = False


def storage_objection(  # noqa: PLR0911 - one line for each rule
    status: int, head: Head, rules: StorageRules, *, request_directives: Directives, restricted: bool
) -> str | None:
    """Why a response may not be stored; None if it may.

    Args:
        status: The status.
        head: The head.
        rules: What the policy allows.
        request_directives: The Cache-Control of the request.
        restricted: Whether the request had an Authorization field that only the app deals with.
    """
    if status in _NEVER or not 200 <= status <= 599:
        return f"status {status} is not stored"
    if rules.statuses is not None and status not in rules.statuses:
        return f"status {status} is not in the policy's statuses"
    if "no-store" in request_directives:
        return "the request says no-store"
    directives = head.directives
    forbidden = _forbidden(status, directives, rules)
    if forbidden is not None:
        return forbidden
    if restricted and not allows_authorization(directives):
        return _UNVERIFIED
    if head.vary is None:
        return "Vary: *"
    if head.has_cookies and (cookie := _forbidden_cookie(head.headers, rules)) is not None:
        return f"Set-Cookie of {cookie!r}"
    if head.misfit is not None:
        return head.misfit
    if rules.ttl and is_lifetime_given(status, rules):
        return None
    if has_explicit_freshness(head) or "no-cache" in directives:
        return None
    if rules.heuristic and head.last_modified is not None and (status in HEURISTIC_STATUSES or "public" in directives):
        return None
    unsaid = "it does not say how long it is fresh"
    return f"status {status} is not among those that a ttl stores, and {unsaid}" if rules.ttl else unsaid


def is_lifetime_given(status: int, rules: StorageRules) -> bool:
    """Tell whether the policy's TTL is for a status."""
    return status in (TTL_STATUSES if rules.statuses is None else rules.statuses)


def allows_authorization(directives: Directives) -> bool:
    """Tell whether the app lets a response to a request with Authorization be shared (RFC 9111, section 3.5)."""
    return "public" in directives or "s-maxage" in directives or "must-revalidate" in directives


def _forbidden(status: int, directives: Directives, rules: StorageRules) -> str | None:
    if "must-understand" in directives:  # no-store is then for caches that do not know the status
        if status not in _UNDERSTOOD:
            return f"must-understand, and {status} is a status that the cache does not know"
    elif "no-store" in directives:
        return "the response says no-store"
    if "private" in directives and not rules.private and not directives.fields("private"):
        return "the response is private"
    return None


def _forbidden_cookie(headers: Headers, rules: StorageRules) -> str | None:
    """The first cookie that is set and may not be stored: whoever got it would be taken for somebody else."""
    if _ANY_COOKIE in rules.set_cookies:
        return None
    for value in headers.get_all("set-cookie"):
        name = value.partition(";")[0].partition("=")[0].strip()
        if name not in rules.set_cookies:
            return name
    return None
