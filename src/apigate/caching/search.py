"""No-Vary-Search: the parts of a query that make no difference to a response, as the response says itself.

Source: draft-ietf-httpbis-no-vary-search.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from apigate.caching.structured import InnerList, Item, Member, parse_dictionary

__all__ = ["SearchVariance", "parse_no_vary_search"]


@final
@dataclass(frozen=True, slots=True)
class SearchVariance:
    """Which differences between two queries count.

    Args:
        ordered: Whether the order of parameters with different names counts.
        listed: Names of parameters, decoded to octets.
        only_listed: True where only those in `listed` count; False where all but those do.

    Source: draft-ietf-httpbis-no-vary-search, "Data model".
    """

    ordered: bool
    listed: frozenset[bytes]
    only_listed: bool

    def __str__(self) -> str:
        """The same text for the same rule, in every process."""
        names = ",".join(sorted(quote_from_bytes(name, safe="") for name in self.listed))
        return f"{'ordered' if self.ordered else 'sorted'} {'only' if self.only_listed else 'but'} {names}"

    def normalized(self, query: str) -> str:
        """The query in a form that is equal for all queries that make no difference.

        Parameters are compared decoded, as forms are: `a` and `a=`, `+` and `%20` are equal, empty ones are passed
        over. Octets that are no UTF-8 stay different, where the draft takes them all for one character.

        Args:
            query: What follows the `?`, percent-encoded, in Latin-1.

        Source: draft-ietf-httpbis-no-vary-search, "Comparing".

        >>> SearchVariance(ordered=False, listed=frozenset({b"utm"}), only_listed=False).normalized("b=%31&utm=x&a")
        'a=&b=1'
        """
        octets = query.encode("latin-1") if _is_latin(query) else query.encode("utf-8", "surrogatepass")
        pairs = [_pair(part) for part in octets.split(b"&") if part]
        kept = [pair for pair in pairs if (pair[0] in self.listed) is self.only_listed]
        if not self.ordered:
            kept.sort(key=_name)  # stable, so that the values of one name keep their order
        return "&".join(f"{quote_from_bytes(name, safe='')}={quote_from_bytes(value, safe='')}" for name, value in kept)


def parse_no_vary_search(values: Iterable[str]) -> SearchVariance | None:
    """What No-Vary-Search says of a response.

    Args:
        values: The value of each line, in order.

    Returns:
        The variance; None where every difference counts, as without the field, where it is invalid, or says so itself.

    Source: draft-ietf-httpbis-no-vary-search, "Parse a URL search variance".

    >>> parse_no_vary_search(['params=("utm"), key-order']).normalized("b=1&utm=2&a=3")
    'a=3&b=1'
    """
    members = parse_dictionary(", ".join(values))
    if not members:
        return None
    unordered = _flag(members.get("key-order"))
    params = members.get("params")
    ignores_all = _flag(params)
    ignored = _names(params)
    if unordered is None or (ignores_all is None and ignored is None):  # of another type
        return None
    if "except" in members:
        kept = _names(members["except"])
        return SearchVariance(not unordered, kept, only_listed=True) if ignores_all and kept is not None else None
    if ignores_all:
        return SearchVariance(not unordered, frozenset(), only_listed=True)
    if not ignored and not unordered:
        return None
    return SearchVariance(not unordered, ignored or frozenset(), only_listed=False)


def _flag(member: Member | None) -> bool | None:
    """A Boolean, false where it is absent; None where the member is something else."""
    if member is None:
        return False
    return member.value if isinstance(member, Item) and isinstance(member.value, bool) else None


def _names(member: Member | None) -> frozenset[bytes] | None:
    """The parameter names of an inner list of Strings; None where it is no such list."""
    if not isinstance(member, InnerList):
        return None
    names = [item.value for item in member.items if isinstance(item.value, str)]
    return frozenset(_decoded(name.encode()) for name in names) if len(names) == len(member.items) else None


def _pair(part: bytes) -> tuple[bytes, bytes]:
    name, _, value = part.partition(b"=")
    return _decoded(name), _decoded(value)


def _name(pair: tuple[bytes, bytes]) -> bytes:
    return pair[0]


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _is_latin(text: str) -> bool:
    return text.isascii() or max(text) <= "\xff"
