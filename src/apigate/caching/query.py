"""The part of a query that belongs to a key: an allow-list of names, and whether their order counts.

Rule: two queries that an app may tell apart stay apart, but for what was asked. So a query is never decoded and written
anew; only names are decoded, to compare them.
"""

from urllib.parse import unquote_to_bytes

__all__ = ["normalized_query"]


def normalized_query(query: str, names: frozenset[str] | None, *, ordered: bool) -> str:
    """The query with only these parameters, in their order or in that of their names.

    Args:
        query: What follows the `?`, percent-encoded, in Latin-1.
        names: The names that are kept, decoded; None for all.
        ordered: True: the order in which parameters were sent counts. False: they are sorted by name; parameters of
            the same name keep their order.

    Returns:
        The kept parameters as they were sent, joined by `&`.

    Source: own decision; research on caches that leave parameters out of the key.

    >>> normalized_query("utm=1&b=%31&a=2&b", frozenset("ab"), ordered=False)
    'a=2&b=%31&b'
    """
    if names is None and ordered:
        return query
    parts = query.split("&")
    if names is not None:
        parts = [part for part in parts if _is_named(part, names)]
    if not ordered:
        parts.sort(key=_name)
    return "&".join(parts)


def _is_named(part: str, names: frozenset[str]) -> bool:
    """Whether an app may see one of the names in it.

    Some apps end a parameter at a semicolon too: a name behind one must not be left out of a key (CVE-2021-23336).
    """
    if ";" in part:
        return any(_name(piece) in names for piece in part.split(";")) or _name(part) in names
    return _name(part) in names


def _name(part: str) -> str:
    """The decoded name; octets that are no UTF-8 become surrogates, so that different ones stay different."""
    name = part.partition("=")[0]
    if name.isascii() and "%" not in name and "+" not in name:
        return name
    encoded = name.replace("+", " ").encode("latin-1" if max(name) <= "\xff" else "utf-8", "surrogatepass")
    return unquote_to_bytes(encoded).decode("utf-8", "surrogateescape")
