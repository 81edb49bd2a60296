"""The head of a response, read once: what storing, selecting and serving it have to know of its fields.

Rule: nothing here depends on the request or the policy, so heads that an app repeats are read once for all.

Source: RFC 9111, section 3; RFC 9213, section 2.2.
"""

from functools import lru_cache
from typing import final

from apigate.caching.directives import Directives, parse_directives, targeted_directives
from apigate.caching.etags import EntityTag, parse_entity_tag
from apigate.caching.groups import parse_groups
from apigate.caching.search import SearchVariance, parse_no_vary_search
from apigate.caching.storedfields import kept_fields
from apigate.caching.variance import varying_names
from apigate.core.message import FieldLines, Headers, is_length

__all__ = ["TARGETS", "Head", "head_of", "weight_of"]

TARGETS = ("apigate-cache-control", "cdn-cache-control")
"""The fields that may speak to this cache alone, the first that is valid instead of Cache-Control (RFC 9213)."""

_TELLING = frozenset(
    {
        *TARGETS,
        "access-control-allow-origin",
        "age",
        "cache-control",
        "cache-groups",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "etag",
        "expires",
        "last-modified",
        "no-vary-search",
        "set-cookie",
        "vary",
    }
)
"""The fields that are read here; most heads have few of them."""

_DATES = frozenset({"age", "date", "expires", "last-modified"})
"""The fields that are reckoned by the time of day."""

_NOTHING = Directives()
_REMEMBERED = 2_048  # characters; longer heads are read each time, so that what is remembered stays small
_LINE = 310  # bytes of a kept line beside its characters, measured; see `apigate.caching.entry`


@final
class Head:
    """The field lines of a response, and what they say.

    Attributes:
        lines: The field lines.
        headers: The same by name.
        directives: The directives that this cache goes by.
        targeted: Whether a field meant for this cache gave them.
        vary: The request fields that select the response, lower-case and in order; None for `*`.
        search: What it says of queries; None where it says nothing.
        groups: Its groups (RFC 9875).
        etag: Its entity tag; None if it has none that is valid.
        last_modified: Its Last-Modified as it was sent.
        length: Bytes of content that it declares; None where it does not.
        misfit: Why content under such a head cannot be stored whole; None if it can.
        tells_age: Whether it has an Age or a Date.
        is_dated: Whether what it says may be reckoned by the time of day.
        is_open: Whether the pages of every origin may read it.
        has_cookies: Whether it sets cookies.
        must_validate: Whether it is never served without asking the app (`no-cache` without fields).
        kept: The lines that are stored, without Content-Length.
        weight: Bytes that these take.
    """

    __slots__ = (
        "directives",
        "etag",
        "groups",
        "has_cookies",
        "headers",
        "is_dated",
        "is_open",
        "kept",
        "last_modified",
        "length",
        "lines",
        "misfit",
        "must_validate",
        "search",
        "targeted",
        "tells_age",
        "vary",
        "weight",
    )

    def __init__(self, lines: tuple[tuple[str, str], ...]) -> None:
        """Read the lines."""
        headers = Headers(lines)
        found = _TELLING.intersection(headers)
        self.lines: tuple[tuple[str, str], ...] = lines
        self.headers: Headers = headers
        directives, targeted = _directives(headers, found)
        self.directives: Directives = directives
        self.targeted: bool = targeted
        self.vary: tuple[str, ...] | None = varying_names(headers) if "vary" in found else ()
        self.search: SearchVariance | None = None
        if "no-vary-search" in found:
            self.search = parse_no_vary_search(headers.get_all("no-vary-search"))
        self.groups: tuple[str, ...] = ()
        if "cache-groups" in found:
            self.groups = parse_groups(headers.get_all("cache-groups"))
        self.etag: EntityTag | None = parse_entity_tag(headers.get("etag") or "") if "etag" in found else None
        self.last_modified: str | None = headers.get("last-modified") if "last-modified" in found else None
        length, misfit = _content(headers, found)
        self.length: int | None = length
        self.misfit: str | None = misfit
        self.tells_age: bool = "age" in found or "date" in found
        self.is_dated: bool = not _DATES.isdisjoint(found)
        self.is_open: bool = (
            "access-control-allow-origin" in found and headers.get("access-control-allow-origin") == "*"
        )
        self.has_cookies: bool = "set-cookie" in found
        self.must_validate: bool = "no-cache" in directives and not directives.fields("no-cache")
        self.kept: tuple[tuple[str, str], ...] = kept_fields(lines, headers, self.directives)
        self.weight: int = weight_of(self.kept)


def head_of(lines: FieldLines) -> Head:
    """The head with these field lines.

    >>> head_of([("Cache-Control", "max-age=60"), ("Content-Length", "5")]).length
    5
    """
    whole = tuple(lines)
    size = 0
    for name, value in whole:
        size += len(name) + len(value)
    return _remembered(whole) if size <= _REMEMBERED else Head(whole)


def weight_of(lines: FieldLines) -> int:
    """Bytes that some lines take where they are stored."""
    weight = 0
    for name, value in lines:
        weight += 2 * (len(name) + len(value)) + _LINE
    return weight


_remembered = lru_cache(maxsize=256)(Head)


def _directives(headers: Headers, found: frozenset[str]) -> tuple[Directives, bool]:
    for target in TARGETS:
        if target in found:
            said = targeted_directives(headers.get_all(target))
            if said is not None:
                return said, True
    return (parse_directives(headers.get_all("cache-control")) if "cache-control" in found else _NOTHING), False


def _content(headers: Headers, found: frozenset[str]) -> tuple[int | None, str | None]:
    """The declared length, and why content under these fields cannot be stored whole."""
    lengths = set(headers.get_all("content-length")) if "content-length" in found else ()
    length: int | None = None
    if len(lengths) > 1:
        return None, "it has several Content-Lengths"
    for text in lengths:
        if not is_length(text):
            return None, "its Content-Length is not a number"
        length = int(text)
    if "content-range" in found:
        return length, "it is a part"
    if (
        "content-type" in found
        and (headers.get("content-type") or "").partition(";")[0].strip().lower() == "text/event-stream"
    ):
        return length, "it is a stream of events"
    return length, None
