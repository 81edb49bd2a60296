"""Of what the names of gateways and stages are made: parts of larger names, which no part may forge."""

from apigate.core.errors import ConfigurationError

__all__ = ["checked_name"]

_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
"""No colon, which separates the parts, and no brace, which tells a Redis cluster where a key belongs."""


def checked_name(name: object, setting: str) -> str:
    """A name, if it is one.

    Args:
        name: What was given.
        setting: What to call it in an error.

    Raises:
        ConfigurationError: It is not a text of letters, digits, `-`, `_` and `.`.
    """
    if not isinstance(name, str) or not name or not _CHARACTERS.issuperset(name):
        raise ConfigurationError(f"{setting}: {name!r} is no name; give a text of letters, digits, '-', '_' and '.'")
    return name
