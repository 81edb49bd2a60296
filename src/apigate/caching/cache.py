"""The response cache of one stage: its tiers, its flights, and what operators do with it.

What is behind it is imported when the first cache is made: `import apigate` is not to pay for it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from apigate.caching.settings import CachePolicy, cache_policy
from apigate.caching.sizes import parse_size
from apigate.core.clock import Clock, SystemClock
from apigate.core.errors import ConfigurationError

if TYPE_CHECKING:
    from apigate.caching.entry import CacheKey, StoredResponse
    from apigate.caching.search import SearchVariance
    from apigate.caching.variance import FieldValue

__all__ = ["ResponseCache"]

_MOST_SEARCHES = 1_024


@final
class ResponseCache:
    """Stored responses of one stage, within a budget in bytes.

    Args:
        max_bytes: What all stored responses may take, with keys, fields, contents, tags and overhead: bytes, or a text
            such as `"512MB"`.
        max_item_bytes: The longest content that is stored; Amazon API Gateway's limit is 1,048,576 bytes.
        max_entries: How many responses are stored at most.
        policy: How the methods are cached that have no policy of their own.
        clock: The clock to go by; in a gateway, the gateway's.
        is_detailed: Whether Cache-Status says why a response was not stored; for development, as it tells clients
            about the app.

    Raises:
        ConfigurationError: A setting cannot be used.

    >>> ResponseCache(max_bytes="512MB").max_bytes
    512000000
    """

    def __init__(
        self,
        max_bytes: int | str = "64MB",
        *,
        max_item_bytes: int | str = 1_048_576,
        max_entries: int = 1_000_000,
        policy: CachePolicy | Mapping[str, Any] | str = CachePolicy(),  # noqa: B008 - frozen. Any: a table
        clock: Clock | None = None,
        is_detailed: bool = False,
    ) -> None:
        """Check every setting; nothing is stored yet."""
        from apigate.caching.coalescing import Flights
        from apigate.caching.generations import Generations
        from apigate.caching.memory import MemoryTier
        from apigate.caching.variance import matches

        self.max_bytes: int = parse_size(max_bytes, "cache max_bytes")
        self.max_item_bytes: int = parse_size(max_item_bytes, "cache max_item_bytes")
        self.policy: CachePolicy | None = cache_policy(policy, "cache policy")
        self.clock: Clock = clock or SystemClock()
        self.is_detailed: bool = is_detailed
        self.generations: Generations = Generations()
        self.flights: Flights[StoredResponse] = Flights()
        self.searches: dict[CacheKey, SearchVariance] = {}
        self.shared: Any = None
        self._tier = MemoryTier(
            self.max_bytes, max_entries, self.max_bytes, generations=self.generations
        )  # an item is bounded by its content
        self._matches = matches
        self._bound_to: str | None = None

    # ---- what operators do

    def invalidate(
        self, *, path: str | None = None, prefix: str | None = None, tag: str | None = None, method: str | None = None
    ) -> None:
        """Forget responses, in one step whatever their number; what is under way from the app counts as stored.

        Args:
            path: A decoded path, with what the app is mounted under; all its queries and variants.
            prefix: The beginning of such paths.
            tag: A tag of a policy.
            method: A method as the stage names it, `GET /pets/{id}`.

        Raises:
            ConfigurationError: Not exactly one of them is given.
        """
        given = [value for value in (path, prefix, tag, method) if value is not None]
        if len(given) != 1 or not isinstance(given[0], str):
            raise ConfigurationError("invalidate: give exactly one of path=, prefix=, tag= and method=, a text")
        from apigate.caching.invalidation import method_scope, path_scope, tag_scope

        if prefix is not None:
            self.generations.invalidate_prefix(prefix)
        elif path is not None:
            self.generations.invalidate(path_scope(path))
        elif tag is not None:
            self.generations.invalidate(tag_scope(tag))
        elif method is not None:
            self.generations.invalidate(method_scope(method))

    def flush(self) -> None:
        """Forget every response."""
        self.generations.invalidate("")
        self._tier.clear()

    def stats(self) -> dict[str, int]:
        """What is stored now, and what had to go."""
        tier = self._tier
        return {
            "bytes": tier.bytes,
            "entries": tier.entries,
            "evictions": tier.evictions,
            "expirations": tier.expirations,
        }

    def bind(self, stage: str, clock: Clock) -> None:
        """Become the cache of a stage; for gateways.

        Raises:
            ConfigurationError: It is another stage's.
        """
        if self._bound_to is not None:
            raise ConfigurationError(f"cache: this ResponseCache is of {self._bound_to}; make one for {stage}")
        self._bound_to = stage
        self.clock = clock

    # ---- for lookups and fills

    def find(self, key: "CacheKey", value_of: "FieldValue") -> "StoredResponse | None":
        """The latest valid response under a key that a request matches.

        Args:
            key: The primary key.
            value_of: Gives the request's fields.
        """
        for stored in self._tier.get(key):
            if (not stored.vary or self._matches(stored.vary, value_of)) and self.generations.is_valid(stored):
                return stored
        return None

    def has(self, key: "CacheKey") -> bool:
        """Tell whether there is any response under a key."""
        return bool(self._tier.get(key))

    def is_valid(self, stored: "StoredResponse") -> bool:
        """Tell whether nothing has invalidated a response since its request was sent."""
        return self.generations.is_valid(stored)

    def put(self, key: "CacheKey", stored: "StoredResponse", now_us: int) -> bool:
        """Store a response; False where there is no room for it."""
        return self._tier.put(key, stored, now_us)

    def remove(self, key: "CacheKey", stored: "StoredResponse") -> None:
        """Forget one response."""
        self._tier.remove(key, stored)

    def note_search(self, base: "CacheKey | None", search: "SearchVariance") -> None:
        """Note how queries of a path are to be taken."""
        if base is not None:
            if len(self.searches) >= _MOST_SEARCHES:
                self.searches.clear()
            self.searches[base] = search

    def __repr__(self) -> str:
        """What is stored, and the budget."""
        return f"<ResponseCache {self._tier.entries} responses, {self._tier.bytes} of {self.max_bytes} bytes>"
