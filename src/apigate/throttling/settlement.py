"""Which responses give tokens back: what a request costs may only be known by its outcome."""

import re

from apigate.core.errors import ConfigurationError

__all__ = ["parse_statuses"]

_STATUSES = r"(?ai:([1-5])xx|([1-5]\d\d))"


def parse_statuses(text: str, setting: str = "refund") -> frozenset[int]:
    """The statuses of a list such as `2xx, 404`.

    Raises:
        ConfigurationError: A member is neither a status nor a class of them.

    >>> sorted(parse_statuses("404, 409"))
    [404, 409]
    """
    found: set[int] = set()
    if not isinstance(text, str):
        raise ConfigurationError(f"{setting}: {text!r} is not a text such as '2xx, 404'")
    for part in text.split(",") if text.strip() else ():
        match = re.fullmatch(_STATUSES, part.strip())
        if match is None:
            raise ConfigurationError(
                f"{setting}: {part.strip()!r} is no status; write '2xx' or '404', joined by commas"
            )
        found.update(range(int(match[1]) * 100, int(match[1]) * 100 + 100) if match[1] else [int(match[2])])
    return frozenset(found)
