"""The boundary to whatever workers share: bodies of responses, and a log of what was invalidated.

Rule: a store keeps bytes under digests and knows nothing of HTTP. What one process invalidates is one record of the
log, and every process has the same view of their order. A process says up to where it knows the log by a mark; it is
told what came after, or that there is a gap, and then everything it has is invalid.
"""

from collections.abc import Awaitable, Sequence
from hashlib import sha256
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

__all__ = [
    "EVERYTHING",
    "LOG_BYTES",
    "MARK_BYTES",
    "MOST_TEXT",
    "Found",
    "Invalidation",
    "Mark",
    "News",
    "Published",
    "ResponseStore",
    "bounded",
    "log_of",
    "mark_of",
    "position_of",
]

MOST_TEXT: Final = 480
"""Bytes of UTF-8 that the text of a record may have: the longest host, port and group of RFC 9875 fit."""

LOG_BYTES: Final = 16
MARK_BYTES: Final = LOG_BYTES + 8

_MARGIN = 4  # bytes of a character that was cut


class Invalidation(NamedTuple):
    """What is not to be reused any more (RFC 9111 section 4.4, and what operators ask for).

    Attributes:
        kind: `all` for whatever there is, `scope` for entries with this scope, `prefix` for decoded paths that begin
            so.
        text: The scope, such as `tag:pets`, or the beginning of the path; empty for `all`.
    """

    kind: Literal["all", "scope", "prefix"]
    text: str = ""


EVERYTHING: Final = Invalidation("all")
"""The whole stage is flushed."""

Mark: TypeAlias = bytes
"""Up to where somebody knows a log: the log's id, 16 random bytes, and the position of its last record, 8 bytes.

A log that was lost and begun again has another id, so that marks of the one say nothing about the other.
"""


def mark_of(log: bytes, position: int) -> Mark:
    """The mark of a position in a log."""
    return log + position.to_bytes(8, "big")


def log_of(mark: Mark) -> bytes:
    """The id of the log."""
    return mark[:LOG_BYTES]


def position_of(mark: Mark) -> int:
    """The position of the last record that is known, counted from the log's own beginning.

    >>> position_of(mark_of(bytes(16), 7))
    7
    """
    return int.from_bytes(mark[LOG_BYTES:], "big")


class Published(NamedTuple):
    """A record where it stands in the log."""

    position: int
    record: Invalidation


class News(NamedTuple):
    """What a log holds beyond a mark.

    Attributes:
        mark: Up to where it was read.
        records: In their order, those after `since`.
        since: The position from which on every record is among these. Where the asker knew another log, or was behind
            it, whatever is older counts as invalidated.
    """

    mark: Mark
    records: Sequence[Published]
    since: int


class Found(NamedTuple):
    """What lies under a key.

    Attributes:
        value: The bytes; None if there are none.
        news: What the log holds, where the store tells that in the same step.
    """

    value: bytes | None
    news: News | None


class ResponseStore(Protocol):
    """Keeps bytes by 32-byte digests, and a log of invalidations; shared by the workers of one stage.

    It may forget any value at any time. Every method but `has_news` may answer at once or hand back an awaitable of the
    same answer, as its author likes; the callers take both. It may also have `close()` and `close_async()`, as a
    `ThrottleStore` may.

    Attributes:
        max_lag_us: Microseconds after which what others invalidated is known at the latest; 0: at once, by `has_news`.
        max_item_bytes: The longest value that it takes.
    """

    max_lag_us: int
    max_item_bytes: int

    def has_news(self, known: Mark, now_us: int, /) -> bool:
        """Whether the log may hold more than is known; asked at each hit where the lag is 0, so cheap and never wrong.

        Args:
            known: Up to where the caller knows it; empty for nothing.
            now_us: The caller's monotonic microseconds.
        """
        ...

    def learn(self, known: Mark, records: Sequence[Invalidation] = ()) -> News | Awaitable[News]:
        """Append some records, and tell everything beyond a mark, these included.

        Args:
            known: Up to where the caller knows the log; empty for nothing.
            records: What is invalidated, each `bounded`.

        Raises:
            StoreError: The log cannot be reached; past the deadline, the records may have been appended.
        """
        ...

    def get(self, key: bytes, known: Mark) -> Found | Awaitable[Found]:
        """The value of a key; where that costs nothing, with what the log holds beyond a mark.

        Raises:
            StoreError: It cannot be reached.
        """
        ...

    def put(self, key: bytes, value: bytes, seconds: float) -> Awaitable[None] | None:
        """Keep a value, for so many seconds at most where the store counts them.

        Raises:
            StoreError: It cannot be reached, or has no room; then nothing but this value is lost.
        """
        ...

    def delete(self, key: bytes) -> Awaitable[None] | None:
        """Forget the value of a key.

        Raises:
            StoreError: It cannot be reached.
        """
        ...


def bounded(record: Invalidation) -> Invalidation:
    """The record itself, or where its text is too long for a log the narrowest one that holds all it does.

    A prefix is cut, and so becomes wider. Of a path its digest is told, which an entry of such a path has among its
    scopes. Of anything else longer than 480 bytes it is everything: such a tag, template or group is the app's own.

    >>> bounded(Invalidation("scope", "tag:pets")), bounded(Invalidation("scope", "tag:" + "x" * 999)).kind
    (Invalidation(kind='scope', text='tag:pets'), 'all')
    """
    kind, text = record
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= MOST_TEXT:
        return record
    if kind == "scope":
        return Invalidation("scope", f"path#{sha256(raw).hexdigest()}") if text.startswith("path:") else EVERYTHING
    return Invalidation("prefix", _cut(raw))


def _cut(raw: bytes) -> str:
    """As much of a text as may be kept, without half a character."""
    for end in range(MOST_TEXT, MOST_TEXT - _MARGIN, -1):
        try:
            return raw[:end].decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            continue
    return ""
