"""A response cache without a gateway: what a gate knows of a request is told by the program.

Rule: whoever is told to be asking is believed. A policy that goes by something that the program has not told is passed
by or refused; never is a response then everybody's.
"""

from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from apigate.caching.lookup import NOBODY, Found, Lookup, Passing
from apigate.caching.settings import CachePolicy, cache_policy
from apigate.core.errors import ConfigurationError
from apigate.core.message import Request
from apigate.core.native import is_fields, plain_request

if TYPE_CHECKING:
    from apigate.caching.cache import ResponseCache

__all__ = ["asked", "request_of"]

_NO_CLAIMS: Mapping[str, object] = MappingProxyType({})
_MOST_LOOKUPS = 64  # policies, each worked out once


def request_of(method: str, url: str, headers: Mapping[str, str]) -> Request:
    """The request that a program tells of; see `ResponseCache.ask`.

    Raises:
        ConfigurationError: Nothing tells its host, or its fields are no mapping of texts.
    """
    if not is_fields(headers):
        raise ConfigurationError(
            "ask headers: they are not a mapping of names to texts, such as {'Accept': 'text/html'}; several of one "
            "name are one text, joined by commas"
        )
    request = plain_request(method, url, headers)
    if request.value("host") is None:
        raise ConfigurationError(
            f"ask url: {url!r} tells no host, which is part of each key; give a whole URL such as "
            f"'https://shop.example/pets', or a Host in headers"
        )
    return request


def asked(
    cache: "ResponseCache", request: Request, content: bytes, policy: CachePolicy | None, principal: str | None
) -> Found | Awaitable[Found]:
    """What becomes of a request; see `ResponseCache.ask`.

    Args:
        cache: The cache.
        request: The request.
        content: Its content.
        policy: How it is cached; None for the cache's own policy.
        principal: Whoever was verified to send it.

    Raises:
        ConfigurationError: The policy goes by a claim; or the cache is to be shared, and that needs a gateway.
    """
    if cache.news is None and cache.sharing is not None and cache.sharing is not False:
        raise ConfigurationError(
            f"cache shared: {_told(cache.sharing)} has no effect without a gateway; leave it out, or give the cache to "
            f"a Gateway(cache=...)"
        )
    policy = cache.policy if policy is None else cache_policy(policy, "ask policy")
    if policy is None:
        return Passing("bypass", "the cache has no policy")
    request.read_body = lambda most: content if len(content) <= most else None
    lookup, now_us = _lookup(cache, policy), cache.clock.now_us()
    owner = lookup.owner(request, principal, _NO_CLAIMS)
    if owner is None:
        return NOBODY
    return lookup.ask(request, now_us, owner)


def _told(sharing: object) -> str:
    """A setting in an error, without what is secret in an address."""
    from urllib.parse import urlsplit

    return repr(f"{urlsplit(sharing).scheme}://...") if isinstance(sharing, str) else repr(sharing)


def _lookup(cache: "ResponseCache", policy: CachePolicy) -> Lookup:
    """The lookup of a policy, made once."""
    found = cache.lookups.get(policy)
    if found is None:
        if isinstance(policy.per, str) and policy.per.startswith("claim:"):
            raise ConfigurationError(
                f"cache per: {policy.per!r} is known to a gateway alone; give a function of the request"
            )
        if len(cache.lookups) >= _MOST_LOOKUPS:
            cache.lookups.clear()
        found = cache.lookups[policy] = Lookup(cache, policy, cache.clock)
    return found
