"""What a window is kept under in Memcached and MongoDB: the limit's name, the kind, and the key; none can be forged.

Each part is percent-encoded, and the signs between them stand in no encoded part. The count and the period are not in
it, so that changing them forgets nothing.
"""

from hashlib import blake2b
from urllib.parse import quote

from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit

__all__ = ["kept_prefix", "kept_under", "short"]


def kept_prefix(limit: Limit) -> str:
    """What all keys of a limit begin with."""
    kind = "" if limit.window is None else limit.window.kind
    return f"{quote(limit.name, safe=':')}@{kind}:"


def kept_under(limit: Limit, key: Key) -> str:
    """The name of one window.

    >>> from apigate.throttling.limit import Limit
    >>> limit = Limit("shop:client:prod", "client", "client", Window("5/minute", kind="fixed"))
    >>> kept_under(limit, "u/1"), kept_under(limit, b"u")
    ('shop:client:prod@fixed:u%2F1', 'shop:client:prod@fixed:!75')
    """
    return kept_prefix(limit) + (f"!{key.hex()}" if isinstance(key, bytes) else quote(key, safe=""))


def short(name: str, longest: int) -> str:
    """The name, or where it is longer than a server takes, its digest.

    >>> short("a", 250), len(short("a" * 251, 250))
    ('a', 43)
    """
    if len(name) <= longest:
        return name
    return f"{name[:10]}@{blake2b(name.encode(), digest_size=16).hexdigest()}"
