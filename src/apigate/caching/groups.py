"""Cache groups: names by which responses are invalidated together.

Source: RFC 9875.
"""

from collections.abc import Iterable

from apigate.caching.structured import Item, parse_list

__all__ = ["parse_groups"]


def parse_groups(values: Iterable[str]) -> tuple[str, ...]:
    """The groups that Cache-Groups or Cache-Group-Invalidation names: a List of Strings.

    However many, of whatever length: the standard asks for at least 32 groups of 32 characters, and what a server
    takes as a field is bound already. Which methods and which origin count is up to the caller.

    Args:
        values: The value of each line, in order.

    Returns:
        The groups, each once, in the order sent; none where the field is absent, invalid, or has a member that is no
        String. Parameters are passed over; case counts.

    Source: RFC 9875, sections 2 and 3.

    >>> parse_groups(['"pets";x=1, "dogs"', '"pets"'])
    ('pets', 'dogs')
    """
    members = parse_list(", ".join(values)) or ()
    names = [member.value for member in members if isinstance(member, Item) and isinstance(member.value, str)]
    return tuple(dict.fromkeys(names)) if len(names) == len(members) else ()
