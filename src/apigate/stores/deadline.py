"""How long a store may take to answer: one rule, and one default, for all of them that are on a server."""

from apigate.core.errors import ConfigurationError

__all__ = ["DEFAULT_DEADLINE_MS", "checked_deadline_ms"]

DEFAULT_DEADLINE_MS = 100
"""Milliseconds; a hundred times what a server in the same data centre takes."""

_LONGEST_MS = 60_000


def checked_deadline_ms(deadline_ms: object, store: str) -> int:
    """A deadline in milliseconds, if it is one.

    Args:
        deadline_ms: What was given.
        store: What to call the store in an error.

    Raises:
        ConfigurationError: It is not a whole number from 1 to 60,000.
    """
    if not isinstance(deadline_ms, int) or isinstance(deadline_ms, bool) or not 1 <= deadline_ms <= _LONGEST_MS:
        raise ConfigurationError(
            f"{store} deadline_ms: {deadline_ms!r} is not a whole number from 1 to {_LONGEST_MS:,}"
        )
    return deadline_ms
