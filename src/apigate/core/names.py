"""Of what names are made, so that no part of a larger name may forge another; and which name was perhaps meant."""

from collections.abc import Iterable

from apigate.core.errors import ConfigurationError

__all__ = ["checked_name", "nearest"]

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


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most like another one; None where none is much like it.

    >>> nearest("leese", ["lease", "spread"]), nearest("colour", ["lease", "spread"])
    ('lease', None)
    """
    from difflib import get_close_matches

    return next(iter(get_close_matches(str(name), list(known), n=1)), None)
