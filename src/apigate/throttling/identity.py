"""The rule that says which client a request belongs to."""

from collections.abc import Callable, Sequence
from typing import final

from apigate.core.context import RequestContext
from apigate.core.errors import ConfigurationError
from apigate.core.functions import is_function
from apigate.core.message import Request
from apigate.throttling.keys import address_of, forwarded_for, hop_address, network_of

__all__ = ["FORWARDING_HEADERS", "ClientIdentity"]

FORWARDING_HEADERS = ("x-forwarded-for", "forwarded")
"""Fields in which proxies say whom they heard."""

_REMEMBERED = 4_096


@final
class ClientIdentity:
    """Names a request's client: the API key's id, else the principal, else the address.

    Key and principal only if an authorizer verified them in this request. The name starts with its kind, so that the
    kinds never share a bucket.

    Args:
        trusted_hops: How many proxies of the operator's stand in front of the app.
        forwarding_header: The one field they write; every other is ignored, as a client can send it itself.
        rule: A function of the request that names the client instead; where it gives None, this rule holds.

    Attributes:
        untrusted_forwarding: Whether a forwarding field came from a private peer while no hop is trusted, which
            means that a proxy's clients are all counted as one; for `lint`.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self,
        trusted_hops: int = 0,
        forwarding_header: str = "x-forwarded-for",
        rule: Callable[[Request], str | None] | None = None,
    ) -> None:
        """Check the settings."""
        if not isinstance(trusted_hops, int) or isinstance(trusted_hops, bool) or trusted_hops < 0:
            raise ConfigurationError(f"trusted_hops: {trusted_hops!r} is not a whole number of at least 0")
        if not isinstance(forwarding_header, str) or forwarding_header.lower() not in FORWARDING_HEADERS:
            allowed = ", ".join(FORWARDING_HEADERS)
            raise ConfigurationError(f"forwarding_header: {forwarding_header!r} is unknown; allowed are {allowed}")
        if rule is not None and not is_function(rule, "client"):
            raise ConfigurationError(f"client: {rule!r} is not a function of the request")
        self.trusted_hops: int = trusted_hops
        self.forwarding_header: str = forwarding_header.lower()
        self.rule: Callable[[Request], str | None] | None = rule
        self.untrusted_forwarding: bool = False
        self._names: dict[str | tuple[str | None, str] | None, str] = {}

    def __call__(self, context: RequestContext) -> str:
        """The name of the request's client.

        Raises:
            ValueError: The function gave something else than a text or None.
        """
        if self.rule is not None:
            own: object = self.rule(context.request)
            if own is not None:
                if not isinstance(own, str):
                    raise ValueError(f"client: {own!r} is neither a text nor None")
                return f"client:{own}"
        if context.api_key is not None:
            return f"key:{context.api_key}"
        if context.principal is not None:
            return f"principal:{context.principal}"
        return self.address(context.request)

    def address(self, request: Request) -> str:
        """`ip:` and the address, or the /64 of an IPv6 address, that the request came from."""
        peer = request.peer
        if not self.trusted_hops:
            name = self._names.get(peer)
            if name is None:
                self._watch(request)
                name = self._remember(peer, _named(peer, (), 0))
            return name
        values = request.headers.get_all(self.forwarding_header)
        together = (peer, ",".join(values))
        name = self._names.get(together)
        if name is None:
            hops = self.trusted_hops
            chain = (
                forwarded_for(values, hops) if self.forwarding_header == "forwarded" else together[1].rsplit(",", hops)
            )
            name = _named(peer, chain if values else (), hops)
            if len(together[1]) < 200:  # no client may make us remember long texts
                self._remember(together, name)
        return name

    def _remember(self, seen: str | tuple[str | None, str] | None, name: str) -> str:
        """Parsing an address takes microseconds, and most requests come from addresses seen before."""
        if len(self._names) >= _REMEMBERED:
            self._names.clear()
        self._names[seen] = name
        return name

    def _watch(self, request: Request) -> None:
        """Note a proxy that nobody declared; only for peers not seen before, so it costs nothing."""
        address = address_of(request.peer) if request.peer else None
        if address is None or address.is_private:
            self.untrusted_forwarding |= any(header in request.headers for header in FORWARDING_HEADERS)


def _named(peer: str | None, chain: Sequence[str], trusted_hops: int) -> str:
    address = hop_address(peer, chain, trusted_hops)
    return f"ip:{network_of(address)}" if address is not None else f"ip:{peer or 'unknown'}"
