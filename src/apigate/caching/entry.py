"""A stored response: what the app answered, and what the cache has to know of it.

Rule: what can be worked out when a response is stored is worked out then (field lines in both native forms, directives,
validators, the moment it becomes stale), so that a hit compares numbers and copies references.

Source: RFC 9111, section 3.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, final

from apigate.caching.directives import Directives
from apigate.caching.etags import EntityTag
from apigate.caching.head import Head, head_of, weight_of
from apigate.caching.variance import Selected
from apigate.core.message import FieldLines, Headers

__all__ = ["CacheKey", "StoredResponse", "Told"]

CacheKey: TypeAlias = tuple[str, ...]
"""The primary key (RFC 9111, section 2): texts in a fixed order, see `apigate.caching.key`."""

Told: TypeAlias = tuple[int, str, Any]
"""The answer to the last hit: for which age in seconds, how it is keyed, and the `Answer`; Any: it knows this room."""

# Bytes beside the characters, measured by tracemalloc over 3,000 entries that had been hit, rounded up.
_BASE = 1_330  # 700 of these are the head of the last hit
_SCOPE = 65
_SELECTED = 170  # a field that Vary names


@final
class StoredResponse:
    """A response as it is kept; nothing of it changes, but for `epoch` and what is remembered of the last hit.

    Attributes:
        status: The status code.
        fields: Its field lines, without those that belong to one connection or one request.
        body: The whole content.
        initial_age: Seconds, the corrected initial age (RFC 9111, section 4.2.3).
        received_us: The gateway's monotonic microseconds when the head came.
        lifetime: Seconds, the freshness lifetime.
        grace: Seconds that it may be of use after it has become stale.
        vary: What the request has to match.
        scopes: What invalidates it, such as `path:/pets/1` or `tag:pets`.
        shared: Whether it may be served to others than the principal it was made for.
        epoch: Invalidations that it has outlived, see `apigate.caching.generations`.
        directives: The directives it came with, of the field that counts.
        targeted: Whether a field meant for this cache gave these.
        etag: Its entity tag, None if it has none that is valid.
        last_modified: Its Last-Modified as it was sent.
        must_validate: Whether it is never served without asking the app (`no-cache` without fields).
        fresh_until_us: When it becomes stale.
        size: Bytes it is accounted with; its key comes on top.
        told: The last head that was made of it, and for which second; for `apigate.caching.answer`.
    """

    __slots__ = (
        "body",
        "directives",
        "epoch",
        "etag",
        "fields",
        "fresh_until_us",
        "grace",
        "initial_age",
        "last_modified",
        "lifetime",
        "must_validate",
        "received_us",
        "scopes",
        "shared",
        "size",
        "status",
        "targeted",
        "told",
        "vary",
    )

    def __init__(
        self,
        *,
        status: int,
        fields: FieldLines,
        body: bytes,
        initial_age: float,
        received_us: int,
        lifetime: float,
        grace: float,
        vary: Selected = (),
        scopes: Sequence[str] = (),
        shared: bool = True,
        epoch: int = 0,
        head: Head | None = None,
    ) -> None:
        """Keep the parts, and work out the rest; `head` where the fields were read already."""
        if head is None:
            head = head_of(fields)
        self.status: int = status
        self.fields: tuple[tuple[str, str], ...] = tuple(fields)
        self.body: bytes = body
        self.initial_age: float = initial_age
        self.received_us: int = received_us
        self.lifetime: float = lifetime
        self.grace: float = grace
        self.vary: Selected = vary
        self.scopes: tuple[str, ...] = tuple(scopes)
        self.shared: bool = shared
        self.epoch: int = epoch
        self.directives: Directives = head.directives
        self.targeted: bool = head.targeted
        self.etag: EntityTag | None = head.etag
        self.last_modified: str | None = head.last_modified
        self.must_validate: bool = head.must_validate
        self.fresh_until_us: int = received_us + round((lifetime - initial_age) * 1_000_000)
        self.told: Told | None = None
        self.size: int = self._size()

    def _size(self) -> int:
        size = _BASE + len(self.body) + weight_of(self.fields)
        for scope in self.scopes:
            size += (len(scope) if scope.isascii() else 4 * len(scope)) + _SCOPE
        for name, value in self.vary:
            size += len(name) + len(value or "") + _SELECTED
        return size

    @property
    def headers(self) -> Headers:
        """The field lines by name; made anew each time, as keeping them would take more room than the lines."""
        return Headers(self.fields)

    def age(self, now_us: int) -> float:
        """Its current age in seconds (RFC 9111, section 4.2.3)."""
        return self.initial_age + (now_us - self.received_us) / 1_000_000

    @property
    def has_validator(self) -> bool:
        """Whether the app can be asked if it still holds."""
        return self.etag is not None or self.last_modified is not None

    def __repr__(self) -> str:
        """Status and size."""
        return f"<StoredResponse {self.status}, {len(self.body)} bytes, lifetime {self.lifetime:g} s>"
