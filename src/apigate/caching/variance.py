"""Which of several responses under one key a request may be given: `Vary`.

Source: RFC 9111, section 4.1.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from apigate.core.message import Headers

__all__ = ["NO_ORIGIN", "FieldValue", "Selected", "matches", "selected_fields", "varying_names"]

Selected: TypeAlias = tuple[tuple[str, str | None], ...]
"""Request fields that `Vary` names, with the values of the request that the response was for, in order of name."""

FieldValue: TypeAlias = Callable[[str], str | None]
"""Gives all values of a request field, by its lower-case name, joined by commas; None where it was not sent."""

NO_ORIGIN: Selected = (("origin", None),)
"""What selects a response to a request that came from no page of another origin; one object, to be told by identity."""

_ANY = "*"
_LANGUAGES = frozenset({"accept-language", "accept", "accept-encoding", "accept-charset"})


def varying_names(headers: Headers) -> tuple[str, ...] | None:
    """The names in a response's Vary, lower-case and in order; None for `*`, which no request matches.

    Args:
        headers: The response's fields.

    >>> varying_names(Headers([("Vary", "Accept, accept-language")]))
    ('accept', 'accept-language')
    """
    names: set[str] = set()
    for value in headers.get_all("vary"):
        names.update(part.strip().lower() for part in value.split(","))
    for name in names:
        if name.startswith(_ANY):
            return None
    return tuple(sorted(names - {""}))


def selected_fields(names: Iterable[str], value_of: FieldValue) -> Selected:
    """What a request has in the fields that a response varies on, normalized as the fields' grammar allows.

    A field that was not sent is told from an empty one: an app can tell them apart.

    Args:
        names: Lower-case names, in order.
        value_of: Gives the request's values.
    """
    selected = tuple([(name, _normalized(name, value_of(name))) for name in names])
    return NO_ORIGIN if selected == NO_ORIGIN else selected


def matches(selected: Selected, value_of: FieldValue) -> bool:
    """Tell whether a request has the same in those fields.

    >>> matches((("accept", "text/html,*/*"),), {"accept": "text/html, */*"}.get)
    True
    """
    return all(_normalized(name, value_of(name)) == value for name, value in selected)


def _normalized(name: str, value: str | None) -> str | None:
    """A field's value without what its grammar gives no meaning to: white space around commas; case, in negotiation."""
    if value is None:
        return None
    members = [member.strip(" \t") for member in value.split(",")]  # a pattern would be slow on a long run of spaces
    value = ",".join([member for member in members if member])
    return value.lower() if name in _LANGUAGES else value
