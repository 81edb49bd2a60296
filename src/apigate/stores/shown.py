"""How the address of a store is shown: in errors, in the log, in events and in `repr`.

Rule: what may be secret is left out, whether or not the address is well written.
"""

import re

__all__ = ["shown"]

_PARTS = re.compile(r"([\w+.-]+:(?://)?)?(.*)", re.DOTALL)


def shown(address: str) -> str:
    """The scheme, hosts and path of an address, without user and password, and without its options.

    What comes before the last `@` is taken for a password even where that holds a `/` or `#` that it should not.

    >>> shown("redis+sentinel://me:secret@a:26379,b:26379/mymaster?password=hunter2")
    'redis+sentinel://a:26379,b:26379/mymaster'
    """
    scheme, rest = _PARTS.fullmatch(address).groups("")  # type: ignore[union-attr]  # it matches any text
    return scheme + rest.partition("?")[0].rpartition("@")[2].partition("#")[0]
