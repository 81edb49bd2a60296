"""Of what names are made, so that no part of a larger name may forge another; and what a wrong one is told.

That is which name was perhaps meant, and which setting an error is of.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager

from apigate.core.errors import ConfigurationError

__all__ = ["checked_name", "errors_of", "nearest"]

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


@contextmanager
def errors_of(setting: str) -> Generator[None, None, None]:
    """Say in front of a `ConfigurationError` which setting it is of.

    >>> with errors_of("stages.prod"):
    ...     raise ConfigurationError("ttl: -1 is below 0")
    Traceback (most recent call last):
    apigate.core.errors.ConfigurationError: stages.prod: ttl: -1 is below 0
    """
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}") from None
