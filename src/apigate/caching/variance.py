"""Which of several responses under one key a request may be given: `Vary`.

Rule: two values that an app may tell apart stay apart. RFC 9111 allows to take values for equal whose field's grammar
gives no meaning to the difference; but an app that reads `Accept` or `Origin` by a plain comparison gives it one, and
whoever asks with `TEXT/HTML`, or with a comma after an origin, would choose what is stored for everybody else. So it is
done for the fields only that a policy names.

Source: RFC 9111, section 4.1.
"""

from collections.abc import Callable, Collection, Iterable
from typing import TypeAlias

from apigate.core.message import Headers

__all__ = ["NO_ORIGIN", "FieldValue", "Selected", "matches", "normalized_value", "selected_fields", "varying_names"]

Selected: TypeAlias = tuple[tuple[str, str | None], ...]
"""Request fields that `Vary` names, with the values of the request that the response was for, in order of name."""

FieldValue: TypeAlias = Callable[[str], str | None]
"""Gives all values of a request field, by its lower-case name, joined by commas; None where it was not sent."""

NO_ORIGIN: Selected = (("origin", None),)
"""What selects a response to a request that came from no page of another origin; one object, to be told by identity."""

_ANY = "*"


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
    """What a request has in the fields that a response varies on, as it was sent.

    A field that was not sent is told from an empty one: an app can tell them apart.

    Args:
        names: Lower-case names, in order.
        value_of: Gives the request's values.
    """
    selected = tuple([(name, value_of(name)) for name in names])
    return NO_ORIGIN if selected == NO_ORIGIN else selected


def normalized_value(value_of: FieldValue, names: Collection[str], name: str) -> str | None:
    """A field's value, without case and white space around commas where these mean nothing to the app.

    Args:
        value_of: Gives the request's values.
        names: The fields of which that holds.
        name: The field.

    >>> normalized_value({"accept-language": "EN , de"}.get, {"accept-language"}, "accept-language")
    'en,de'
    """
    value = value_of(name)
    if value is None or name not in names:
        return value
    members = [member.strip(" \t") for member in value.lower().split(",")]  # a pattern is slow on a long run of spaces
    return ",".join([member for member in members if member])


def matches(selected: Selected, value_of: FieldValue) -> bool:
    """Tell whether a request has the same in those fields.

    >>> matches((("accept", "text/html"),), {"accept": "TEXT/HTML"}.get)
    False
    """
    return all(value_of(name) == value for name, value in selected)
