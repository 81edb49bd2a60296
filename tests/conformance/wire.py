"""What goes to and fro: a request, an answer, and the two forms of a date."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

Fields: TypeAlias = Sequence[tuple[str, str]]
"""Names and values; each character of a value is one byte, as in Latin-1."""

Interim: TypeAlias = tuple[int, Fields]

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What a hop of HTTP keeps to itself, besides what `Connection` names; section 8.
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


class Request(NamedTuple):
    """A request."""

    method: str
    target: str
    fields: Fields
    body: bytes = b""


class Answer(NamedTuple):
    """A final answer, and the interim ones before it."""

    status: int
    fields: Fields
    body: bytes = b""
    interim: tuple[Interim, ...] = ()


class Broken(Exception):
    """The exchange broke: no answer, or one without an end."""


def field(fields: Fields, name: str) -> str | None:
    """A field's value, all its lines joined; None if there is none."""
    values = [value for each, value in fields if each.lower() == name.lower()]
    return ", ".join(values) if values else None


def leading_integer(text: str | None) -> int | None:
    """The integer that a text begins with, as JavaScript reads it."""
    found = re.match(r"\s*[+-]?\d+", text or "", re.ASCII)
    return int(found[0]) if found else None


def http_date(milliseconds: int, *, rfc850: bool = False) -> str:
    """A date, cut down to the whole second. Written out here, as apigate's own is among what is tested.

    >>> http_date(784_111_777_999), http_date(784_111_777_999, rfc850=True)
    ('Sun, 06 Nov 1994 08:49:37 GMT', 'Sunday, 06-Nov-94 08:49:37 GMT')
    """
    date = datetime.fromtimestamp(milliseconds // 1000, UTC)
    day, month = _DAYS[date.weekday()], _MONTHS[date.month - 1]
    if rfc850:
        return f"{day}, {date.day:02}-{month}-{date.year % 100:02} {date:%H:%M:%S} GMT"
    return f"{day[:3]}, {date.day:02} {month} {date.year:04} {date:%H:%M:%S} GMT"


def has_body(method: str, status: int) -> bool:
    """Whether an answer to that method has a body, however short."""
    return method != "HEAD" and status not in (204, 304)


def across_hop(fields: Fields) -> list[tuple[str, str]]:
    """The fields without those that one hop keeps to itself."""
    named = {name.strip().lower() for name in (field(fields, "connection") or "").split(",")}
    return [(name, value) for name, value in fields if name.lower() not in _HOP_BY_HOP | named]


def framed(fields: Fields, length: int) -> list[tuple[str, str]]:
    """The fields, with that length of the body."""
    return [*without(fields, ("content-length",)), ("Content-Length", str(length))]


def without(fields: Fields, names: Iterable[str]) -> list[tuple[str, str]]:
    """The fields but for those; names in lower case."""
    left_out = set(names)
    return [(name, value) for name, value in fields if name.lower() not in left_out]


def check_framing(method: str, answer: Answer) -> None:
    """Raise Broken where a client over HTTP would not get the body whole."""
    said = field(answer.fields, "content-length")
    if said is not None and has_body(method, answer.status) and said != str(len(answer.body)):
        raise Broken(f"Content-Length is {said}, the body has {len(answer.body)} bytes")
