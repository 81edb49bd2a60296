"""The primary key of a request: what tells stored responses apart.

Rule: a key is made of the request as it came over the wire, never of what an app makes of it; whatever may change the
app's answer without being in Vary (host, scheme, what proxies forward) is part of it. So nobody can have a response
stored under a key that others ask for, but by asking for just that.

Source: RFC 9111, section 2.
"""

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import final

from apigate.caching.entry import CacheKey
from apigate.caching.query import normalized_query
from apigate.caching.search import SearchVariance
from apigate.caching.settings import CachePolicy, KeyParts
from apigate.core.message import FORWARDED, Request

__all__ = ["QUERY", "KeyMaker", "content_digest"]

QUERY = 5
"""Where in a key the query stands."""

_FORWARDED = frozenset(FORWARDED)
_SEARCHED = "\u2315"
_IDENTITY = re.compile(r"""(?i:for|by)=(?:"[^"]*"|[^\s",;]*)""")
"""What a query begins with that was normalized: a character that none on the wire has, as these are in Latin-1."""

_NO_COOKIES: tuple[str, ...] = ()
_OCTETS = r"[!#-+\--:<-\[\]-~]*+"
_COOKIES = rf"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++=(?:\"{_OCTETS}\"|{_OCTETS})(?:; (?!\Z)|\Z))*+"


@final
class KeyMaker:
    """Makes the keys of one policy.

    Args:
        policy: The policy.
    """

    __slots__ = ("_cookies", "_has_more", "_headers", "_normalize", "_raw")

    def __init__(self, policy: CachePolicy) -> None:
        """Work out what does not depend on the request."""
        parts: KeyParts = policy.key  # type: ignore[assignment]  # as the policy has checked it
        self._raw = parts.path
        self._headers = tuple(parts.headers)
        self._cookies = tuple(policy.cookies) if isinstance(policy.cookies, tuple) else _NO_COOKIES
        self._has_more = bool(self._headers or self._cookies)
        self._normalize: Callable[[str], str] | None = None
        if parts.query != "kept":
            names = None if isinstance(parts.query, str) else frozenset(parts.query)
            self._normalize = lambda query: normalized_query(query, names, ordered=False)

    def __call__(
        self, request: Request, picked: Mapping[str, str], owner: str = "", search: SearchVariance | None = None
    ) -> CacheKey:
        """The key of a request.

        Args:
            request: The request.
            picked: Its fields that may change an answer, see `apigate.core.message.PICKED`.
            owner: Whose the response is; empty where it is everybody's.
            search: What earlier responses of this path said about queries, if anything.
        """
        scheme, path, raw, query = request.reader.target(request.native)
        if self._normalize is not None:
            query = self._normalize(query)
        elif search is not None:
            query = f"{_SEARCHED}{search}? {search.normalized(query)}"
        verb = request.method
        key: CacheKey = (
            "GET" if verb == "HEAD" else verb,
            scheme,
            picked.get("host", ""),  # as it was sent: some apps tell the letter cases of a host apart
            path,
            raw if raw != path and self._raw else "",
            query,
            owner,
        )
        if request.app:
            key += (f"app={request.app}",)
        if request.root:
            key += (f"root={request.root}",)
        if self._has_more:
            key += self._more(request, picked)
        if not _FORWARDED.isdisjoint(picked):
            key += tuple(
                f"{name}={_proxied(picked[name]) if name == 'forwarded' else picked[name]}"
                for name in FORWARDED
                if name in picked
            )
        return key

    def without_query(self, key: CacheKey) -> CacheKey | None:
        """What all queries of a path have in common; None where the policy decides about queries itself."""
        return None if self._normalize is not None else (*key[:QUERY], *key[QUERY + 1 :])

    def _more(self, request: Request, picked: Mapping[str, str]) -> tuple[str, ...]:
        """The fields and cookies that the policy names; an absent one is told from an empty one."""
        parts = [_part(name, request.value(name)) for name in self._headers]
        if self._cookies:
            field = picked.get("cookie", "")
            sent = _cookies(field)
            parts += [f";{field}"] if sent is None else [_part(name, sent.get(name)) for name in self._cookies]
        return tuple(parts)


def content_digest(content: bytes, content_type: str | None, content_encoding: str | None) -> str:
    """What stands for a request's content in its key.

    Args:
        content: The content.
        content_type: Its media type, if that was sent.
        content_encoding: Its codings, if these were sent.

    Source: "The HTTP QUERY Method", section on caching: content and its metadata are part of the key.
    """
    digest = blake2b(digest_size=32)
    for part in (repr(content_type).encode(), repr(content_encoding).encode(), content):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _proxied(forwarded: str) -> str:
    """Host and scheme in a Forwarded field (RFC 7239): the rest says who asks, and changes from client to client."""
    parts = (part.strip() for part in forwarded.replace(",", ";").split(";"))
    return ";".join(part for part in parts if not _IDENTITY.fullmatch(part))


def _part(name: str, value: str | None) -> str:
    return f"{name}-" if value is None else f"{name}={value}"


def _cookies(field: str) -> dict[str, str] | None:
    """All values of each cookie in a Cookie field, as they were sent.

    None where the field is not as RFC 6265, section 4.2.1, has it: of quotes, white space and the like each app makes
    its own, so what it takes for a cookie may be none here. Such a field counts as a whole.
    """
    if not re.fullmatch(_COOKIES, field):
        return None
    found: dict[str, str] = {}
    for pair in field.split("; ") if field else ():
        name, _, value = pair.partition("=")
        found[name] = f"{found[name]};{value}" if name in found else value
    return found
