"""Whose a stored response is: everybody's, one principal's, or that of all who have a claim or another trait in common.

Rule: where a policy asks for an owner that nobody can tell, the request passes by the cache.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from apigate.caching.settings import Per
from apigate.core.message import Request

__all__ = ["Owner", "owner_of"]

_CLAIM = "claim:"


class Owner(NamedTuple):
    """Whose the response to a request is.

    Attributes:
        name: A part of the key, which begins with its kind; empty for everybody.
        mode: The kind: `public`, `principal`, `claim` or `function`.
        private: Whether it is one verified principal.
    """

    name: str
    mode: str
    private: bool


_EVERYBODY = Owner("", "public", private=False)


def owner_of(per: Per | None, request: Request, principal: str | None, claims: Mapping[str, Any]) -> Owner | None:
    """Whose the response to a request is; None where nobody can tell.

    Args:
        per: What the policy says; None for the principal, where there is one, else everybody.
        request: The request.
        principal: Whoever was verified to send it; None where nobody was.
        claims: What is known of the principal. Any: as a token has them.

    Raises:
        ValueError: The policy's function gave something else than a text or None.

    >>> from apigate.core.native import plain_request
    >>> owner_of(None, plain_request("GET", "/pets", {}), "https://id.example|7", {})
    Owner(name='principal:https://id.example|7', mode='principal', private=True)
    """
    if per == "public" or (per is None and principal is None):
        return _EVERYBODY
    if callable(per):
        own: object = per(request)
        if own is not None and not isinstance(own, str):
            raise ValueError(f"cache per: {own!r} is neither a text nor None")
        return None if own is None else Owner(f"function:{own}", "function", private=False)
    if per is None or per == "principal":
        return None if principal is None else Owner(f"principal:{principal}", "principal", private=True)
    claim = per.removeprefix(_CLAIM)
    value = claims.get(claim)
    return None if value is None else Owner(f"{_CLAIM}{claim}={value!r}", "claim", private=False)
