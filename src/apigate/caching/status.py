"""What the cache says of itself: the field Cache-Status.

Source: RFC 9211.
"""

from functools import lru_cache

from apigate.core.message import Field, field

__all__ = ["NAME", "forwarded_status", "hit_status"]

NAME = "apigate"
"""How this cache is called there."""


def hit_status(ttl: int, mode: str) -> str:
    """A hit: how many seconds the response is still fresh (below 0: was, ago), and how it was keyed.

    >>> hit_status(30, "public")
    'apigate; hit; ttl=30; detail=public'
    """
    return f"{NAME}; hit; ttl={ttl}; detail={mode}"


@lru_cache(maxsize=1024)
def forwarded_status(reason: str, status: int | None = None, *, stored: bool = False, detail: str = "") -> Field:
    """Why a request went to the app, and what became of the answer.

    Args:
        reason: One of the words of RFC 9211, section 2.2.
        status: What the app answered, where that is not what the client gets.
        stored: Whether the answer is being stored.
        detail: More, in words of this cache.

    >>> forwarded_status("uri-miss", stored=True).text
    ('Cache-Status', 'apigate; fwd=uri-miss; stored')
    """
    parts = [NAME, f"fwd={reason}"]
    if status is not None:
        parts.append(f"fwd-status={status}")
    if stored:
        parts.append("stored")
    if detail:
        quoted = detail.replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'detail="{quoted}"')
    return field("Cache-Status", "; ".join(parts))
