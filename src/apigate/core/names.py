"""Of what names are made, so that no part of a larger name may forge another; and what a wrong one is told.

That is which name was perhaps meant, and which setting an error is of; and how one is shown.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import wraps
from types import MappingProxyType
from typing import TypeVar

from apigate.core.errors import ConfigurationError

__all__ = ["check_settings", "checked_name", "errors_of", "known_keywords", "nearest", "printable"]

T = TypeVar("T")

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


def printable(text: str) -> str:
    r"""A line without what a terminal would take for an order.

    >>> print(printable("GET /pets\x1b[2J"))
    GET /pets\x1b[2J
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most like another one; None where none is much like it.

    >>> nearest("leese", ["lease", "spread"]), nearest("colour", ["lease", "spread"])
    ('lease', None)
    """
    from difflib import get_close_matches

    return next(iter(get_close_matches(str(name), list(known), n=1)), None)


def check_settings(
    names: Iterable[str], known: Collection[str], setting: str, hints: Mapping[str, str] = MappingProxyType({})
) -> None:
    """See that names are settings.

    Args:
        names: The names.
        known: The settings there are.
        setting: Where they stand.
        hints: What is meant by names that other caches have.

    Raises:
        ConfigurationError: One is none; it says what is perhaps meant.
    """
    for name in names:
        if name not in known:
            close = hints.get(name) or (repr(meant) if (meant := nearest(name, known)) else None)
            hint = f"did you mean {close}?" if close else f"allowed are {', '.join(sorted(known))}"
            raise ConfigurationError(f"{setting}: {name!r} is no setting; {hint}")


def known_keywords(hints: Mapping[str, str] = MappingProxyType({})) -> Callable[[type[T]], type[T]]:
    """A decorator of a class: what it does not take by name is no `TypeError`, but says what is perhaps meant.

    Args:
        hints: As of `check_settings`.

    >>> Rate(10, brust=20)
    Traceback (most recent call last):
    apigate.core.errors.ConfigurationError: Rate: 'brust' is no setting; did you mean 'burst'?
    """

    def decorated(kind: type[T]) -> type[T]:
        made: Callable[..., None] = getattr(kind, "__init__")  # noqa: B009 - mypy finds another class's unsafe
        code = made.__code__
        known = frozenset(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])

        @wraps(made)
        def init(self: T, *given: object, **settings: object) -> None:
            check_settings(settings, known, kind.__name__, hints)
            made(self, *given, **settings)

        setattr(kind, "__init__", init)  # noqa: B010 - as above
        return kind

    return decorated


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
