"""Whose a stored response is: everybody's, one principal's, or that of all who have a claim or another trait in common.

Rule: where a policy asks for an owner that nobody can tell, the request passes by the cache. Whose it is, and whether a
gate has verified who asks, are two things: a function of the request gives a name, and proves nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from apigate.caching.settings import Per
from apigate.core.message import Request

__all__ = ["EVERYBODY", "Owner", "owner_of"]

_CLAIM = "claim:"


class Owner(NamedTuple):
    """Whose the response to a request is.

    Attributes:
        name: A part of the key, which begins with its kind; empty for everybody.
        mode: The kind: `public`, `principal`, `claim` or `function`.
        private: Whether it is one verified principal, so that a response that is `private` may be kept.
        verified: Whether a gate has verified who asks, so that a credential is nothing that the app has yet to check;
            never true for everybody unless the policy says `public`.
    """

    name: str
    mode: str
    private: bool
    verified: bool


EVERYBODY = Owner("", "public", private=False, verified=False)
"""Everybody's, as far as the app lets a response to a request with Authorization be so (RFC 9111, section 3.5)."""

_PUBLIC = Owner("", "public", private=False, verified=True)


def owner_of(per: Per | None, request: Request, principal: str | None, claims: Mapping[str, Any]) -> Owner | None:
    """Whose the response to a request is; None where nobody can tell.

    Args:
        per: What the policy says; None for the principal, where there is one, else everybody, unless there are
            claims without a principal: then nobody can tell.
        request: The request.
        principal: Whoever was verified to send it; None where nobody was.
        claims: What is known of the principal. Any: as a token has them.

    Raises:
        ValueError: The policy's function gave something else than a text or None.

    >>> from apigate.core.native import plain_request
    >>> owner_of(None, plain_request("GET", "/pets", {}), "https://id.example|7", {})
    Owner(name='principal:https://id.example|7', mode='principal', private=True, verified=True)
    """
    if per is None and principal is None:
        return None if claims else EVERYBODY  # whoever was verified without a principal: it may be any one's
    verified = principal is not None or bool(claims)
    if per == "public":
        return _PUBLIC if verified else EVERYBODY
    if callable(per):
        own: object = per(request)
        if own is not None and not isinstance(own, str):
            raise ValueError(f"cache per: {own!r} is neither a text nor None")
        return None if own is None else Owner(f"function:{own}", "function", private=False, verified=verified)
    if per is None or per == "principal":
        if principal is not None and not isinstance(principal, str | int):
            raise ValueError(f"context.principal: {type(principal).__name__} is no text")
        return None if principal is None else Owner(f"principal:{principal}", "principal", private=True, verified=True)
    claim = per.removeprefix(_CLAIM)
    value = claims.get(claim)
    if value is not None and not _is_plain(value):
        raise ValueError(f"cache per: the claim {claim!r} is a {type(value).__name__}, which tells nobody apart")
    return None if value is None else Owner(f"{_CLAIM}{claim}={value!r}", "claim", private=False, verified=True)


def _is_plain(value: object) -> bool:
    """Whether it is of JSON's types: any other may be written as its address in memory, which is used again."""
    if isinstance(value, Mapping):
        named = cast("Mapping[object, object]", value)
        return all(map(_is_plain, [*named, *named.values()]))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, cast("Sequence[object]", value)))
    return value is None or type(value) in (str, int, float, bool)
