"""What a client gets of a stored response: all of it, a part, or word that it has it already.

Source: RFC 9110, sections 14 and 15; RFC 9111, sections 4.2.3 and 4.3.2.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, final

from apigate.caching.entry import StoredResponse
from apigate.caching.ranges import multipart_byteranges, parse_range
from apigate.caching.status import hit_status
from apigate.caching.validation import NOT_MODIFIED_FIELDS, is_not_modified, is_range_wanted

if TYPE_CHECKING:
    from apigate.caching.fill import Fill

__all__ = ["Answer", "answer", "warned"]

_SPECIAL = frozenset({"if-none-match", "if-modified-since", "range"})  # fields that may ask for less than the whole
_WARNING = '199 apigate "cache invalidation was not authorized"'


@final
class Answer:
    """A response made of a stored one; it may be sent many times, so it is not changed.

    Attributes:
        status: The status code.
        text: Its field lines as WSGI takes them; not to be changed.
        body: The content; empty for HEAD and 304.
        refresh: What asks the app anew in the background, once the answer is out; None where nothing does.
    """

    __slots__ = ("_raw", "body", "refresh", "status", "text")

    def __init__(self, status: int, text: list[tuple[str, str]], body: bytes) -> None:
        """Keep the parts."""
        self.status: int = status
        self.text: list[tuple[str, str]] = text
        self.body: bytes = body
        self.refresh: Fill | None = None
        self._raw: list[tuple[bytes, bytes]] | None = None

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """Its field lines as ASGI takes them, made at first use; not to be changed."""
        raw = self._raw
        if raw is None:
            raw = self._raw = [
                (name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in self.text
            ]
        return raw

    def with_refresh(self, refresh: "Fill") -> "Answer":
        """The same, with something to be done once it is out."""
        made = Answer(self.status, self.text, self.body)
        made.refresh = refresh
        return made

    def __repr__(self) -> str:
        """Status and size."""
        return f"<Answer {self.status}, {len(self.body)} bytes>"


def answer(
    stored: StoredResponse, method: str, picked: Mapping[str, str], now_us: int, mode: str, status: str | None = None
) -> Answer:
    """What a request gets of a stored response.

    Args:
        stored: The response.
        method: The request's verb.
        picked: The request's fields that may matter, by lower-case name.
        now_us: The gateway's monotonic microseconds.
        mode: How it is keyed, for Cache-Status.
        status: The Cache-Status, where it is not that of a hit.
    """
    age = int(stored.initial_age + (now_us - stored.received_us) / 1_000_000)
    told = stored.told
    if status is None and told is not None and told[0] == age and told[1] == mode:
        whole: Answer = told[2]
    else:
        ttl = int(stored.lifetime) - age
        if not ttl and now_us >= stored.fresh_until_us:
            ttl = -1  # negative if stale, and never 0 (RFC 9211, section 2.3)
        whole = _whole(stored, age, status or hit_status(ttl, mode))
        if status is None and ttl:  # at 0 it may become stale within this second
            stored.told = age, mode, whole
    if method == "GET" and _SPECIAL.isdisjoint(picked):
        return whole
    conditional = "if-none-match" in picked or "if-modified-since" in picked
    if conditional and is_not_modified(stored, picked.get("if-none-match"), picked.get("if-modified-since")):
        return _not_modified(whole.text)
    if "range" in picked and method == "GET" and stored.status == 200:
        part = _part(stored, picked, whole.text)
        if part is not None:
            return part
    return Answer(stored.status, whole.text, b"") if method == "HEAD" else whole


def warned(made: Answer) -> Answer:
    """The same, with word to a client whose wish for invalidation was ignored, as Amazon API Gateway gives it."""
    return Answer(made.status, [*made.text, ("Warning", _WARNING)], made.body)


def _whole(stored: StoredResponse, age: int, status: str) -> Answer:
    lines = [*stored.fields, ("Age", str(max(0, age))), ("Cache-Status", status)]
    return Answer(stored.status, lines, stored.body)


def _not_modified(lines: list[tuple[str, str]]) -> Answer:
    has_tag = any(name.lower() == "etag" for name, _ in lines)
    kept = [(name, value) for name, value in lines if _is_repeated(name.lower(), has_tag=has_tag)]
    return Answer(304, kept, b"")


def _is_repeated(name: str, *, has_tag: bool) -> bool:
    """Tell whether a 304 repeats a field; all those of CORS are, as browsers ask for them of each response."""
    if name == "last-modified":
        return not has_tag
    return name in NOT_MODIFIED_FIELDS or name.startswith("access-control-")


def _part(stored: StoredResponse, picked: Mapping[str, str], text: list[tuple[str, str]]) -> Answer | None:
    """The part that is asked for (RFC 9110, section 14.2); None where all is to be sent."""
    if not is_range_wanted(stored, picked.get("if-range")):
        return None
    length = len(stored.body)
    ranges = parse_range(picked["range"], length)
    if ranges is None:
        return None
    kept = [(name, value) for name, value in text if name.lower() not in ("content-length", "content-range")]
    if not ranges:
        kept = [(name, value) for name, value in kept if name.lower() != "content-type"]
        return Answer(416, [*kept, ("Content-Range", f"bytes */{length}"), ("Content-Length", "0")], b"")
    if len(ranges) == 1:
        first, last = ranges[0]
        body = stored.body[first : last + 1]
        described = [("Content-Range", f"bytes {first}-{last}/{length}")]
    else:
        boundary = blake2b(stored.body, digest_size=12, person=b"byteranges").hexdigest()
        content_type = stored.headers.get("content-type") or "application/octet-stream"
        body = multipart_byteranges(stored.body, ranges, content_type, boundary)
        kept = [(name, value) for name, value in kept if name.lower() != "content-type"]
        described = [("Content-Type", f"multipart/byteranges; boundary={boundary}")]
    return Answer(206, [*kept, *described, ("Content-Length", str(len(body)))], body)
