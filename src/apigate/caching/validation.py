"""Conditional requests, on both sides: what a client is told of a stored response, and what the app is asked about it.

Source: RFC 9110, section 13; RFC 9111, section 4.3.
"""

from collections.abc import Iterable

from apigate.caching.dates import parse_http_date
from apigate.caching.entry import StoredResponse
from apigate.caching.etags import EntityTag, matches_strongly, matches_weakly, parse_entity_tag, parse_entity_tags
from apigate.core.message import FieldLines, Headers

__all__ = [
    "NOT_MODIFIED_FIELDS",
    "freshened_fields",
    "is_not_modified",
    "is_of_another",
    "is_range_wanted",
    "questions",
]

NOT_MODIFIED_FIELDS = frozenset(
    {"cache-control", "content-location", "date", "etag", "expires", "vary", "set-cookie", "age", "cache-status"}
)
"""What a 304 repeats of the stored fields (RFC 9110, section 15.4.5); validators other than ETag only without one."""

_KEPT = frozenset({"content-encoding", "content-type", "content-range", "content-length", "etag"})
"""What a 304 does not change: it describes the content that is kept."""


def is_not_modified(stored: StoredResponse, if_none_match: str | None, if_modified_since: str | None) -> bool:
    """Tell whether a client has the stored response already, so that 304 is the answer.

    If-None-Match is compared weakly and alone counts where both are there.

    Args:
        stored: The response.
        if_none_match: The request's field, if it was sent.
        if_modified_since: The request's field, if it was sent.

    Source: RFC 9110, sections 13.1.2, 13.1.3 and 13.2.2.
    """
    if not 200 <= stored.status <= 299:
        return False  # RFC 9110, section 13.2.1: conditions are for what would be a success
    if if_none_match is not None:
        tags = parse_entity_tags(if_none_match)
        if tags is None or stored.etag is None:
            return False
        return tags == "*" or any(matches_weakly(tag, stored.etag) for tag in tags)
    if if_modified_since is None:
        return False
    now = stored.received_us / 1_000_000
    since = parse_http_date(if_modified_since, now)
    changed = stored.last_modified or stored.headers.get("date")
    modified = None if changed is None else parse_http_date(changed, now)
    return since is not None and modified is not None and modified <= since


def is_range_wanted(stored: StoredResponse, if_range: str | None) -> bool:
    """Tell whether the client's part is of the response that is stored, so that a range of it may be sent.

    Source: RFC 9110, section 13.1.5: strong comparison; a date has to be equal, and be a strong validator.
    """
    if if_range is None:
        return True
    tag = parse_entity_tag(if_range)
    if tag is not None:
        return stored.etag is not None and matches_strongly(tag, stored.etag)
    return False  # a Last-Modified is strong only if the app's clock says so (section 8.8.2.2), which nobody can tell


def questions(stored: StoredResponse) -> tuple[tuple[str, str], ...]:
    """The request fields that ask the app whether a stored response still holds.

    Source: RFC 9111, section 4.3.1.
    """
    asked: list[tuple[str, str]] = []
    if stored.etag is not None:
        asked.append(("if-none-match", stored.headers.get("etag") or ""))
    if stored.last_modified is not None:
        asked.append(("if-modified-since", stored.last_modified))
    return tuple(asked)


def is_of_another(stored: StoredResponse, tag: EntityTag | None) -> bool:
    """Tell whether the app's 304 is of another representation than the one that is stored.

    A strong tag that is stored as a weak one is still the same: what compresses weakens the tag of the 200 alone.

    Args:
        stored: The response that the app was asked about.
        tag: The tag that its 304 has, if any.

    Source: RFC 9111, section 4.3.4.
    """
    if tag is None:
        return False
    return not tag.weak if stored.etag is None else not matches_weakly(tag, stored.etag)


def freshened_fields(stored: StoredResponse, fields: FieldLines, left_out: Iterable[str] = ()) -> FieldLines:
    """The stored field lines, with those that the app's 304 brought instead.

    Args:
        stored: The response that is freshened.
        fields: The field lines of the 304, without those of its connection.
        left_out: Lower-case names that the 304 does not bring.

    Source: RFC 9111, section 3.2.
    """
    skipped = {*_KEPT, *left_out}
    brought = [(name, value) for name, value in fields if name.lower() not in skipped]
    replaced = {name.lower() for name, _ in brought}
    if "age" not in Headers(fields):
        replaced.add("age")  # it is as old as the 304 now
    return [*[(name, value) for name, value in stored.fields if name.lower() not in replaced], *brought]
