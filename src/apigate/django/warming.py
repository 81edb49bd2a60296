"""Responses that are stored before clients ask for them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.core.handlers.wsgi import WSGIHandler

from apigate.caching.fill import Fill
from apigate.core.native import plain_environ, warm_requests

__all__ = ["UNASKED", "warm"]

UNASKED = "apigate.unasked"
"""The key in META of a request that no client makes; clients can set only keys that begin with HTTP_."""


def warm(requests: Iterable[str | tuple[str, Mapping[str, str]]]) -> int:
    """Have the project's responses stored before clients ask for them, one after another.

    Each goes through the whole of `MIDDLEWARE`; it takes from no limit, and is nobody's.

    Args:
        requests: Whole URLs as clients write them, `https://shop.example/pets?page=1`, as host and scheme are part of
            each key; or URLs with request fields.

    Returns:
        How many were stored now; the others are stored already, or may not be.

    Raises:
        ConfigurationError: A URL has no scheme or no host, or a single one is given in place of a list.
        ProtocolError: What is shared has to be awaited.
    """
    asked = warm_requests(requests)
    handler = WSGIHandler()
    unasked: list[Fill] = []

    def begin(*_: Any) -> Callable[[bytes], object]:  # Any: as PEP 3333 has them
        return len  # the response goes to nobody

    for url, headers in asked:
        response = handler({**plain_environ(url, headers), UNASKED: unasked}, begin)
        try:
            for _ in response:
                pass
        finally:
            response.close()
    return sum(fill.has_stored for fill in unasked)
