"""Structured fields: parsed strictly, so that one wrong character makes the whole field count as absent.

Rule: a parser here either returns all that the standard says, or None; it never repairs and never raises.

Source: RFC 9651 (which replaced RFC 8941), sections 3 and 4.
"""

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias, final

__all__ = [
    "BareItem",
    "Date",
    "DisplayString",
    "InnerList",
    "Item",
    "Member",
    "Parameters",
    "Token",
    "parse_dictionary",
    "parse_item",
    "parse_list",
    "serialize_dictionary",
    "serialize_item",
    "serialize_list",
]


@final
@dataclass(frozen=True, slots=True)
class Token:
    """A short word of a protocol, as `hit` or `text/html`; no `str`, as a String of the same letters is another value.

    Source: RFC 9651, section 3.3.4.
    """

    text: str


@final
@dataclass(frozen=True, slots=True)
class Date:
    """An instant in seconds since 1970. Source: RFC 9651, section 3.3.7."""

    seconds: int


@final
@dataclass(frozen=True, slots=True)
class DisplayString:
    """A text for people, of any Unicode characters. Source: RFC 9651, section 3.3.8."""

    text: str


BareItem: TypeAlias = int | float | str | bytes | bool | Token | Date | DisplayString
"""Integer, Decimal, String, Byte Sequence, Boolean, Token, Date, Display String. A Boolean is an `int` too in Python:
ask for it first."""

Parameters: TypeAlias = Mapping[str, BareItem]
"""What belongs to an item or an inner list, by key, in the order sent."""


@final
@dataclass(frozen=True, slots=True)
class Item:
    """A value with its parameters. Source: RFC 9651, section 3.3.

    >>> str(Item(Token("apigate"), {"hit": True, "ttl": 30}))
    'apigate;hit;ttl=30'
    """

    value: BareItem
    parameters: Parameters = field(default_factory=dict[str, BareItem])

    def __str__(self) -> str:
        """As it is sent."""
        return serialize_item(self)


@final
@dataclass(frozen=True, slots=True)
class InnerList:
    """Several items in parentheses, with parameters of their own. Source: RFC 9651, section 3.1.1."""

    items: tuple[Item, ...]
    parameters: Parameters = field(default_factory=dict[str, BareItem])

    def __str__(self) -> str:
        """As it is sent."""
        return _serialize_member(self)


Member: TypeAlias = Item | InnerList
"""What a List or a Dictionary is made of."""


def parse_item(text: str) -> Item | None:
    """The Item that a field is.

    Args:
        text: The field value; where a field came in several lines, they are no item.

    Returns:
        The item; None where the text is none.

    Source: RFC 9651, section 4.2.3.

    >>> parse_item('"a";b=1')
    Item(value='a', parameters={'b': 1})
    """
    try:
        reader = _Reader(text)
        item = reader.item()
        reader.end()
    except _InvalidError:
        return None
    return item


def parse_list(text: str) -> tuple[Member, ...] | None:
    """The members of the List that a field is.

    Args:
        text: The field value; lines joined by a comma.

    Returns:
        The members in order, none for an empty value; None where the text is no List.

    Source: RFC 9651, section 4.2.1.

    >>> [member.value for member in parse_list('"a", b')]
    ['a', Token(text='b')]
    """
    members: list[Member] = []
    try:
        reader = _Reader(text)
        while reader.more(first=not members):
            members.append(reader.member())
    except _InvalidError:
        return None
    return tuple(members)


def parse_dictionary(text: str) -> dict[str, Member] | None:
    """The members of the Dictionary that a field is, by key.

    Args:
        text: The field value; lines joined by a comma.

    Returns:
        The members, the last one of those with the same key; none for an empty value; None where the text is no
        Dictionary.

    Source: RFC 9651, section 4.2.2.

    >>> parse_dictionary("max-age=60, &&&") is None
    True
    """
    members: dict[str, Member] = {}
    try:
        reader = _Reader(text)
        while reader.more(first=not members):
            key = reader.key()
            members[key] = reader.member() if reader.skip("=") else Item(True, reader.parameters())
    except _InvalidError:
        return None
    return members


def serialize_item(item: Item) -> str:
    """An item as it is sent.

    A String cannot hold every text: what it cannot hold becomes an underscore. A number out of range becomes the
    nearest one in range.

    Raises:
        ValueError: A key or a token is none, or a Decimal no number: words of the program, never what a client sent.

    Source: RFC 9651, section 4.1.3.
    """
    return _serialize_bare(item.value) + _serialize_parameters(item.parameters)


def serialize_list(members: Iterable[Member]) -> str:
    """A List as it is sent.

    Raises:
        ValueError: As `serialize_item`.

    Source: RFC 9651, section 4.1.1.
    """
    return ", ".join(_serialize_member(member) for member in members)


def serialize_dictionary(members: Mapping[str, Member]) -> str:
    """A Dictionary as it is sent.

    Raises:
        ValueError: As `serialize_item`.

    Source: RFC 9651, section 4.1.2.
    """
    parts: list[str] = []
    for key, member in members.items():
        if isinstance(member, Item) and member.value is True:
            parts.append(_checked(_KEY, key) + _serialize_parameters(member.parameters))
        else:
            parts.append(f"{_checked(_KEY, key)}={_serialize_member(member)}")
    return ", ".join(parts)


# ---- parsing

# Texts, compiled at first use. Possessive, as an unclosed string would else be tried in ever so many ways.

_KEY = r"[a-z*][a-z0-9_.*-]*"
_TOKEN = r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*"  # noqa: S105 - no password
_NUMBER = r"(-?)([0-9]{1,15})(?:\.([0-9]{1,3}))?(?![0-9.])"
_STRING = r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]++|\\["\\])*+)"'
_BYTES = r":(?:([A-Za-z0-9+/]+)={0,2})?:"
_DISPLAY = r'%"((?:[\x20\x21\x23\x24\x26-\x7e]++|%[0-9a-f]{2})*+)"'

_LARGEST = 10**15 - 1  # section 3.3.1
_LARGEST_DECIMAL = 10**12 - 0.001  # section 3.3.2


class _InvalidError(Exception):
    """The text is no structured field."""


class _Reader:
    """A text and how far it is read; every method takes what it names, or raises `_InvalidError`."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        if not text.isascii():
            raise _InvalidError
        self.text = text.strip(" ")
        self.at = 0

    def take(self, pattern: str) -> "re.Match[str]":
        match = re.compile(pattern).match(self.text, self.at)
        if match is None:
            raise _InvalidError
        self.at = match.end()
        return match

    def skip(self, character: str) -> bool:
        """Take this character, if it is next."""
        if self.text.startswith(character, self.at):
            self.at += 1
            return True
        return False

    def end(self) -> None:
        if self.at < len(self.text):
            raise _InvalidError

    def more(self, *, first: bool) -> bool:
        """Take what separates two members, and tell whether there is another one."""
        if first:
            return bool(self.text)
        self.take(r"[ \t]*")
        if self.at == len(self.text):
            return False
        self.take(r",[ \t]*")
        if self.at == len(self.text):  # a comma at the end
            raise _InvalidError
        return True

    def key(self) -> str:
        return self.take(_KEY)[0]

    def member(self) -> Member:
        if not self.skip("("):
            return self.item()
        items: list[Item] = []
        while True:
            self.take(" *")
            if self.skip(")"):
                return InnerList(tuple(items), self.parameters())
            items.append(self.item())
            if self.text[self.at : self.at + 1] not in {" ", ")"}:
                raise _InvalidError

    def item(self) -> Item:
        return Item(self.bare(), self.parameters())

    def parameters(self) -> Parameters:
        found: dict[str, BareItem] = {}
        while self.skip(";"):
            self.take(" *")
            key = self.key()
            found[key] = self.bare() if self.skip("=") else True
        return found

    def bare(self) -> BareItem:
        return _BARE.get(self.text[self.at : self.at + 1], _Reader.token)(self)

    def token(self) -> Token:
        return Token(self.take(_TOKEN)[0])

    def string(self) -> str:
        return re.sub(r"\\(.)", r"\1", self.take(_STRING)[1])

    def boolean(self) -> bool:
        return self.take(r"\?([01])")[1] == "1"

    def number(self) -> int | float:
        sign, whole, fraction = self.take(_NUMBER).groups()
        if fraction is None:
            return int(sign + whole)
        if len(whole) > 12:
            raise _InvalidError
        return float(f"{sign}{whole}.{fraction}")  # 15 digits: a double holds them all

    def date(self) -> Date:
        self.at += 1
        seconds = self.number()
        if not isinstance(seconds, int):
            raise _InvalidError
        return Date(seconds)

    def octets(self) -> bytes:
        """Padding may be missing, as section 4.2.7 allows; what stands before it may not end in a single letter."""
        encoded = self.take(_BYTES)[1] or ""
        if len(encoded) % 4 == 1:
            raise _InvalidError
        return a2b_base64(encoded + "=" * (-len(encoded) % 4))

    def display(self) -> DisplayString:
        encoded = self.take(_DISPLAY)[1]
        octets = re.sub(rb"%(..)", lambda match: bytes.fromhex(match[1].decode()), encoded.encode())
        try:
            return DisplayString(octets.decode("utf-8"))
        except UnicodeDecodeError:
            raise _InvalidError from None


_BARE: Mapping[str, Callable[[_Reader], BareItem]] = MappingProxyType(
    {
        '"': _Reader.string,
        ":": _Reader.octets,
        "?": _Reader.boolean,
        "@": _Reader.date,
        "%": _Reader.display,
        **dict.fromkeys("-0123456789", _Reader.number),
    }
)
"""How a bare item is read, by its first character; what is not here may be a Token."""


# ---- serializing


def _serialize_member(member: Member) -> str:
    if isinstance(member, Item):
        return serialize_item(member)
    return f"({' '.join(map(serialize_item, member.items))}){_serialize_parameters(member.parameters)}"


def _serialize_parameters(parameters: Parameters) -> str:
    return "".join(
        f";{_checked(_KEY, key)}" + ("" if value is True else f"={_serialize_bare(value)}")
        for key, value in parameters.items()
    )


def _serialize_bare(value: BareItem) -> str:  # noqa: PLR0911 - one line for each type
    match value:
        case bool():
            return "?1" if value else "?0"
        case int():
            return str(min(max(value, -_LARGEST), _LARGEST))
        case float():
            return _serialize_decimal(value)
        case str():
            safe = "".join(character if " " <= character <= "~" else "_" for character in value)
            return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case bytes():
            return f":{b2a_base64(value, newline=False).decode()}:"
        case Token():
            return _checked(_TOKEN, value.text)
        case Date():
            return "@" + _serialize_bare(value.seconds)
        case DisplayString():
            return _serialize_display(value.text)


def _serialize_decimal(value: float) -> str:
    text = f"{min(max(value, -_LARGEST_DECIMAL), _LARGEST_DECIMAL):.3f}".rstrip("0")
    return _checked(_NUMBER, text + "0" if text.endswith(".") else text)


def _serialize_display(text: str) -> str:
    octets = text.encode("utf-8", "replace")
    plain = (chr(octet) if 0x20 <= octet <= 0x7E and octet not in b'%"' else f"%{octet:02x}" for octet in octets)
    return f'%"{"".join(plain)}"'


def _checked(pattern: str, text: str) -> str:
    if re.fullmatch(pattern, text) is None:
        raise ValueError(f"{text!r} cannot be written as a structured field; allowed is {pattern}")
    return text
