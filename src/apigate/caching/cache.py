"""The response cache of one stage: its tiers, its flights, and what operators do with it.

What is behind it is imported when the first cache is made: `import apigate` is not to pay for it.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from inspect import signature
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from apigate.caching.settings import POLICY_HINTS, CachePolicy, cache_policy
from apigate.caching.sizes import parse_size
from apigate.core.clock import Clock, SystemClock
from apigate.core.errors import ConfigurationError
from apigate.core.names import known_keywords
from apigate.core.steps import Steps, block, refuse_to_wait, run

if TYPE_CHECKING:
    from apigate.caching.encryption import Encryption
    from apigate.caching.entry import CacheKey, StoredResponse
    from apigate.caching.lookup import Found, Lookup
    from apigate.caching.search import SearchVariance
    from apigate.caching.shared import SharedGenerations, SharedResponses
    from apigate.caching.store import Invalidation, ResponseStore
    from apigate.caching.variance import FieldValue

__all__ = ["CACHE_SETTINGS", "ITEM_BYTES", "ResponseCache"]

ITEM_BYTES = 1_048_576
"""The longest content that is stored where nobody says otherwise: that of Amazon API Gateway."""

_SO_FAR = "; this process has forgotten it all the same, and the others will when it next asks the store"
_LEAST_BYTES = 2_400  # with its key, as they account for themselves: a 204 without fields takes 2,424
_MOST_SEARCHES = 1_024
_MOST_OBJECTIONS = 256


@final
@known_keywords(POLICY_HINTS)
class ResponseCache:
    """Stored responses of one stage, within a budget in bytes.

    Args:
        max_bytes: What all stored responses may take, with keys, fields, contents, tags and overhead: bytes, or a text
            such as `"512MB"`; at least 2,400.
        max_item_bytes: The longest content that is stored; Amazon API Gateway's limit is 1,048,576 bytes.
        max_entries: How many responses are stored at most.
        policy: How the methods are cached that have no policy of their own: a `CachePolicy`, a table of its settings,
            or a number of seconds, which is its `ttl`.
        shared: What workers share, in a gateway. None: invalidations, through the gateway's store where that is shared.
            True: responses too. An address, `"file:///run/app/cache"` or `"redis://host:6379/0"`, or a
            `ResponseStore`: responses and invalidations there. False: nothing. With an address the gateway needs a
            name.
        max_lag: Seconds after which what others have invalidated is known at the latest, where the store is a server;
            a file is known at once.
        encryption: Keys of 32 bytes, also in Base64, by which responses are unreadable in what is shared; the first
            encrypts, all decrypt. None for none.
        clock: The clock to go by; in a gateway, the gateway's.
        is_detailed: Whether Cache-Status says why a response was not stored; for development, as it tells clients
            about the app.

    Attributes:
        generations: What has been invalidated in this process.
        flights: What is being asked of the app just now.
        searches: How queries of a path are to be taken, as the app has said last (No-Vary-Search).
        objections: Why the last response under a key was not stored.
        lookups: The policies of `ask`, each worked out once.
        sharing: The setting `shared`, as it was given.
        longest: Bytes of the longest content that may be stored.
        news: What keeps up with the invalidations of other workers; None where nothing is shared.
        shared: What has the responses of other workers; None where these are not shared.

    Raises:
        ConfigurationError: A setting cannot be used.

    >>> ResponseCache(max_bytes="512MB").max_bytes
    512000000
    """

    def __init__(
        self,
        max_bytes: int | str = "64MB",
        *,
        max_item_bytes: int | str = ITEM_BYTES,
        max_entries: int = 1_000_000,
        policy: CachePolicy | Mapping[str, Any] | str | float = CachePolicy(),  # noqa: B008 - frozen. Any: a table
        shared: "bool | str | ResponseStore | None" = None,
        max_lag: float = 1.0,
        encryption: Sequence[bytes | str] | None = None,
        clock: Clock | None = None,
        is_detailed: bool = False,
    ) -> None:
        """Check every setting; nothing is stored yet."""
        from apigate.caching.coalescing import Flights
        from apigate.caching.generations import Generations
        from apigate.caching.memory import MemoryTier
        from apigate.caching.variance import NO_ORIGIN, matches, selected_fields

        self.max_bytes: int = _checked_budget(max_bytes)
        self.max_item_bytes: int = parse_size(max_item_bytes, "cache max_item_bytes")
        self.longest: int = min(self.max_item_bytes, self.max_bytes - _LEAST_BYTES)
        self.policy: CachePolicy | None = cache_policy(policy, "cache policy")
        self.clock: Clock = clock or SystemClock()
        self.is_detailed: bool = is_detailed
        self.generations: Generations = Generations()
        self.flights: Flights[StoredResponse] = Flights()
        self.searches: dict[int, SearchVariance] = {}  # by the hash of the key without its query
        self.objections: dict[int, str] = {}  # by the hash of the key: of one size, however long it is
        self.sharing: bool | str | ResponseStore | None = _checked_sharing(shared)
        self.max_lag: float = _checked_lag(max_lag)
        self.news: SharedGenerations | None = None
        self.shared: SharedResponses | None = None
        self.encryption: Encryption | None = None if encryption is None else _encryption(encryption)
        self._tier = MemoryTier(
            self.max_bytes, max_entries, self.max_bytes, generations=self.generations
        )  # an item is bounded by its content
        self._matches = matches
        self._no_origin = NO_ORIGIN
        self._select = selected_fields
        self._bound_to: str | None = None
        self._methods: Callable[[], Collection[str] | None] = lambda: None
        self._faults: set[tuple[CachePolicy, str]] = set()  # what is logged of its policies
        self.lookups: dict[CachePolicy, Lookup] = {}  # of `ask`

    # ---- without a gateway

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        content: bytes = b"",
        policy: CachePolicy | None = None,
        principal: str | None = None,
    ) -> "Found":
        """What becomes of a request, for programs without a gateway; another one that asks the same is waited for.

        Args:
            method: The verb.
            url: The whole URL, or a path with its query where `headers` has a Host.
            headers: The request's fields.
            content: Its content, part of the key of QUERY and POST.
            policy: How it is cached; None for the cache's own policy.
            principal: Whoever was verified to send it: unless the policy or the app says otherwise, only the same one
                is given what is stored. None where it may be anybody's.

        Returns:
            An `Answer` to send; or an `Exchange` to be told what the app answers (`begin`, `publish`, `feed`, and
            `finish` or `fail`: others may wait for the end), which is a `Fill`, or for an unsafe method an
            `Invalidating`; or that the request passes by the cache (`Passing`); or that it is refused (`Refused`).

        Raises:
            ConfigurationError: The policy goes by a claim, or the cache is to be shared: both need a gateway. Or
                nothing tells the host, or the fields are no mapping of texts.
            ProtocolError: A shared tier has to be awaited; use `ask_async`.

        >>> cache = ResponseCache(max_bytes="1MB", policy=CachePolicy(ttl=60))
        >>> exchange = cache.ask("GET", "https://shop.example/pets")
        >>> _ = exchange.begin(200, []), exchange.feed(b"three pets"), exchange.finish()
        >>> cache.ask("GET", "https://shop.example/pets").body
        b'three pets'
        """
        from apigate.caching.asking import asked, request_of

        found = asked(self, request_of(method, url, headers), content, policy, principal)
        if isinstance(found, Awaitable):
            found = block(found)
        if isinstance(found, Awaitable):
            refuse_to_wait(found, "ask_async")
        return found

    async def ask_async(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        content: bytes = b"",
        policy: CachePolicy | None = None,
        principal: str | None = None,
    ) -> "Found":
        """`ask` for tasks: what is waited for is awaited. The arguments are the same.

        Raises:
            ConfigurationError: The policy goes by a claim, or the cache is to be shared: both need a gateway. Or
                nothing tells the host, or the fields are no mapping of texts.
        """
        from apigate.caching.asking import asked, request_of

        found = asked(self, request_of(method, url, headers), content, policy, principal)
        return await found if isinstance(found, Awaitable) else found

    # ---- what operators do

    def invalidate(
        self, *, path: str | None = None, prefix: str | None = None, tag: str | None = None, method: str | None = None
    ) -> None:
        """Forget responses, in one step whatever their number; what is under way from the app counts as stored.

        Args:
            path: A decoded path, with what the app is mounted under; all its queries and variants.
            prefix: The beginning of such paths.
            tag: A tag of a policy.
            method: A method as the stage names it, `GET /pets/{id}`, whatever its parameters are called. Where no gate
                stands around the app, as in a shell or a job, nobody knows which there are: one that no stage has
                forgets nothing.

        Raises:
            ConfigurationError: Not exactly one of them is given, or it could match nothing: a path without a slash at
                its start or with a query, a method that the stage does not have.
            ProtocolError: What is shared has to be awaited; use `invalidate_async`. Forgotten it is all the same: here
                at once, by others once this process has asked the store again.
        """
        answer = self.publish([self._record(path, prefix, tag, method)])
        if answer is not None:
            refuse_to_wait(answer, "invalidate_async", _SO_FAR)

    async def invalidate_async(
        self, *, path: str | None = None, prefix: str | None = None, tag: str | None = None, method: str | None = None
    ) -> None:
        """`invalidate` for tasks."""
        answer = self.publish([self._record(path, prefix, tag, method)])
        if answer is not None:
            await answer

    def flush(self) -> None:
        """Forget every response.

        Raises:
            ProtocolError: What is shared has to be awaited; use `flush_async`. As for `invalidate`, it is done.
        """
        from apigate.caching.store import EVERYTHING

        self._tier.clear()
        answer = self.publish([EVERYTHING])
        if answer is not None:
            refuse_to_wait(answer, "flush_async", _SO_FAR)

    async def flush_async(self) -> None:
        """`flush` for tasks."""
        from apigate.caching.store import EVERYTHING

        self._tier.clear()
        answer = self.publish([EVERYTHING])
        if answer is not None:
            await answer

    def stats(self) -> dict[str, int]:
        """What is stored now, and what had to go."""
        tier = self._tier
        return {
            "bytes": tier.bytes,
            "entries": tier.entries,
            "evictions": tier.evictions,
            "expirations": tier.expirations,
        }

    def bind(self, stage: str, clock: Clock, methods: Callable[[], Collection[str] | None] = lambda: None) -> None:
        """Become the cache of a stage; for gateways.

        Args:
            stage: What to call it.
            clock: The clock of the gateway.
            methods: Gives the names of the stage's methods, None while nobody knows them all.

        Raises:
            ConfigurationError: It is another stage's.
        """
        if self._bound_to is not None:
            raise ConfigurationError(f"cache: this ResponseCache is of {self._bound_to}; make one for {stage}")
        self._bound_to = stage
        self._methods = methods
        self.clock = clock
        self.lookups.clear()

    def share(self, store: "ResponseStore", *, bodies: bool) -> None:
        """Share with other workers; for gateways.

        Args:
            store: What is shared.
            bodies: Whether responses are, beside invalidations.
        """
        from apigate.caching.shared import SharedGenerations, SharedResponses

        self.news = SharedGenerations(store, self.generations)
        place = self._bound_to or ""
        self.shared = SharedResponses(store, self.news, encryption=self.encryption, place=place) if bodies else None

    def _record(self, path: str | None, prefix: str | None, tag: str | None, method: str | None) -> "Invalidation":
        from apigate.caching.invalidation import invalidation

        return invalidation({"path": path, "prefix": prefix, "tag": tag, "method": method}, self._methods)

    # ---- for lookups and fills

    def publish(self, records: "Sequence[Invalidation]") -> Awaitable[None] | None:
        """Have something forgotten here and everywhere; None if it is done, or an awaitable."""
        if self.news is not None:
            return run(self._published(self.news, records))
        from apigate.caching.generations import PREFIX

        self.generations.apply([PREFIX + record.text if record.kind == "prefix" else record.text for record in records])
        return None

    def _published(self, news: "SharedGenerations", records: "Sequence[Invalidation]") -> Steps[None]:
        for record in records:
            yield news.invalidate(record, self.clock.now_us())

    def fetch(self, key: "CacheKey", value_of: "FieldValue", now_us: int) -> "Steps[StoredResponse | None]":
        """The response that another worker has stored under a key, if it is valid; it is not put here."""
        if self.shared is None:
            return None
        found: StoredResponse | None = yield self.shared.get(
            key, lambda names: self._select(names, value_of), self.clock.wall(), now_us
        )
        return found if found is not None and self.generations.is_valid(found) else None

    def give(self, key: "CacheKey", stored: "StoredResponse") -> Awaitable[None] | None:
        """Let other workers find a response; None if that is done, or an awaitable."""
        if self.shared is None:
            return None
        return self.shared.put(key, stored, self.clock.wall(), self.clock.now_us())

    def recall(self, key: "CacheKey", stored: "StoredResponse") -> Awaitable[None] | None:
        """Have other workers find a response no longer; None if that is done, or an awaitable."""
        return None if self.shared is None else self.shared.delete(key, stored.vary)

    def find(self, key: "CacheKey", value_of: "FieldValue", origin: str | None = "") -> "StoredResponse | None":
        """The latest valid response under a key that a request matches.

        Args:
            key: The primary key.
            value_of: Gives the request's fields.
            origin: The request's Origin, which most responses are selected by; empty where the caller has not read it.
        """
        for stored in self._tier.get(key):
            vary = stored.vary
            if vary and (vary is not self._no_origin or origin is not None) and not self._matches(vary, value_of):
                continue
            if self.generations.is_valid(stored):
                return stored
        return None

    def has(self, key: "CacheKey") -> bool:
        """Tell whether there is any valid response under a key, for whatever request."""
        found = self._tier.get(key)
        return bool(found) and any(self.generations.is_valid(stored) for stored in found)

    def is_valid(self, stored: "StoredResponse") -> bool:
        """Tell whether nothing has invalidated a response since its request was sent."""
        return self.generations.is_valid(stored)

    def put(self, key: "CacheKey", stored: "StoredResponse", now_us: int) -> bool:
        """Store a response; False where there is no room for it."""
        return self._tier.put(key, stored, now_us)

    def remove(self, key: "CacheKey", stored: "StoredResponse") -> None:
        """Forget one response."""
        self._tier.remove(key, stored)

    def note_objection(self, key: "CacheKey", objection: str) -> None:
        """Note why the last response under a key was not stored, for whoever asks."""
        if len(self.objections) >= _MOST_OBJECTIONS:
            self.objections.clear()
        self.objections[hash(key)] = objection

    def note_fault(self, policy: CachePolicy, setting: str, so: str, error: Exception) -> None:
        """Log that a function of a policy failed, once for each: no client is told, nor can one fill the log.

        Args:
            policy: The policy.
            setting: What the function is for.
            so: What becomes of the request.
            error: What it raised, or what is wrong with what it gave.
        """
        if (policy, setting) in self._faults:
            return
        if len(self._faults) >= _MOST_OBJECTIONS:
            self._faults.clear()
        self._faults.add((policy, setting))
        from logging import getLogger

        words = "cache %s: the function of %s failed, so %s; this is said once"
        getLogger("apigate").error(words, setting, self._bound_to or "the cache", so, exc_info=error)

    def search(self, base: "CacheKey") -> "SearchVariance | None":
        """How queries of a path are to be taken; None if every difference counts."""
        return self.searches.get(hash(base))

    def note_search(self, base: "CacheKey | None", search: "SearchVariance | None") -> None:
        """Note how queries of a path are to be taken."""
        if base is None:
            return
        if search is None:
            self.searches.pop(hash(base), None)
            return
        if len(self.searches) >= _MOST_SEARCHES:
            self.searches.clear()
        self.searches[hash(base)] = search

    def __repr__(self) -> str:
        """What is stored, and the budget."""
        return f"<ResponseCache {self._tier.entries} responses, {self._tier.bytes} of {self.max_bytes} bytes>"


CACHE_SETTINGS = frozenset(signature(ResponseCache).parameters)
"""What a `ResponseCache` takes, by name."""


def _checked_budget(max_bytes: int | str) -> int:
    size = parse_size(max_bytes, "cache max_bytes")
    if size < _LEAST_BYTES:
        raise ConfigurationError(
            f"cache max_bytes: {max_bytes!r} has room for no response, as each takes {_LEAST_BYTES:,} bytes and more; "
            f"give a size such as '64MB'. Seconds that responses are kept are the policy's, policy={size}"
        )
    return size


def _checked_sharing(shared: object) -> "bool | str | ResponseStore | None":
    if shared is None or isinstance(shared, (bool, str)) or callable(getattr(shared, "learn", None)):
        return shared  # type: ignore[return-value]  # one of these
    raise ConfigurationError(
        f"cache shared: {shared!r} is not True, False, None, the address of a store or a ResponseStore"
    )


def _checked_lag(max_lag: object) -> float:
    if isinstance(max_lag, bool) or not isinstance(max_lag, (int, float)) or not 0.01 <= max_lag <= 3_600:
        raise ConfigurationError(f"cache max_lag: {max_lag!r} is not a number of seconds from 0.01 to 3,600")
    return float(max_lag)


def _encryption(keys: Sequence[bytes | str]) -> "Encryption":
    from apigate.caching.encryption import Encryption

    return Encryption(keys)
