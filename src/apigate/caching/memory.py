"""The memory tier: stored responses in this process, within a budget of bytes that is exact.

Rule: a hit takes no lock, moves nothing and waits for nobody: it reads a table and sets a mark. Who has to go is found
when room is needed, by second chance: the keys stand in the order in which they were stored, and one that was used
since it was last looked at goes to the end, without its mark, instead of away. Over made-up traces (Zipf, with scans,
drifting slowly and fast, news; with lifetimes and without; room for 1 and for 10 % of the keys) it has as many hits as
strict LRU or more, up to 1.7 of a hundred requests; and a hit takes a quarter of the time of `cachetools.LRUCache`
under a lock, whose order each hit changes.

Whatever changes the tier holds the one lock, and nothing foreign runs under it. There is no thread: each `put` looks at
a few keys in turn and drops what is of no use, so that each key is looked at again before half as many were put.

Whatever is small enough is admitted. Filters by frequency have a price, or a gain, by the trace, in hits of a hundred
requests. S3-FIFO: 1 to 8 more where nothing expires, 1 to 6 more in a small tier with lifetimes, 1 to 2 fewer in a
large one. W-TinyLFU: up to 8 more where popularity stays or drifts slowly, 2 to 11 fewer where it drifts fast or the
newest is asked for most, 1 to 13 fewer in a large tier with lifetimes. In a loop that is longer than there is room for,
second chance and LRU have no hit. `python -m benchmarks --only eviction` repeats it; no real trace was at hand.
"""

from collections import OrderedDict, deque
from threading import Lock
from typing import final

from apigate.caching.entry import CacheKey, StoredResponse
from apigate.caching.generations import Generations
from apigate.core.errors import ConfigurationError
from apigate.core.forks import renew_after_fork

__all__ = ["MemoryTier", "is_useless", "key_bytes"]

_KEY_BYTES = 390  # measured 348 to 372, which is right after the table has grown and while random keys drive others out
_PART_BYTES = 64  # a text's head, 49, its place in the tuple, 8, and what rounding up to 16 adds, 7
_SWEPT = 4
"""Keys looked at by each `put`: more than one, so that looking outruns putting."""

_CHANCES = 8
"""Used keys that are passed over for one that goes; then a used one goes, so that no `put` pauses."""


def key_bytes(key: CacheKey) -> int:
    """Bytes that a key and its place in the tier take, beside the size of its responses.

    An upper bound: CPython 3.11, the most that tracemalloc found at any moment of putting 50,000 keys; measured are 418
    bytes where this says 467, and 1,134 for twelve texts where it says 1,259. What allocators round up is in it.
    """
    texts = "".join(key)
    return _KEY_BYTES + _PART_BYTES * len(key) + (len(texts) if texts.isascii() else 4 * len(texts))


def is_useless(response: StoredResponse, now_us: int) -> bool:
    """Whether a response may neither be served nor validated any more: its lifetime is over, and its grace."""
    return now_us - response.fresh_until_us >= response.grace * 1_000_000


@final
class _Kept:
    """What is kept under a key."""

    __slots__ = ("base", "key", "responses", "size", "used")

    def __init__(self, key: CacheKey, base: int) -> None:
        self.key: CacheKey = key
        self.base: int = base  # bytes of the key
        self.responses: tuple[StoredResponse, ...] = ()
        self.size: int = 0
        self.used: bool = False  # since it was last stored or passed over


@final
class MemoryTier:
    """Stored responses by key, bounded in bytes and in number; safe under threads and tasks, and in forked children.

    Args:
        max_bytes: What all of it may take, at least 1: keys, responses and their overhead, as they account for
            themselves. At no moment is it more.
        max_entries: How many responses are kept, at least 1.
        max_item_bytes: The `size` of a response that is still stored, at least 1.
        max_variants: How many responses of one key are kept, at least 1; the one stored first goes.
        generations: Where given, responses that it calls invalid are dropped in passing.

    Attributes:
        bytes: What is taken now.
        entries: How many responses are kept now.
        evictions: How many had to go for others, for their number or the bytes.
        expirations: How many were dropped because they were of no use any more.

    Raises:
        ConfigurationError: A bound is not a whole number of at least 1.

    >>> tier = MemoryTier(1_000_000, 1_000, 100_000)
    >>> tier.get(("GET", "/pets")), tier.bytes
    ((), 0)
    """

    def __init__(
        self,
        max_bytes: int,
        max_entries: int,
        max_item_bytes: int,
        max_variants: int = 32,
        generations: Generations | None = None,
    ) -> None:
        """Start empty."""
        self.max_bytes: int = _bound("max_bytes", max_bytes)
        self.max_entries: int = _bound("max_entries", max_entries)
        self.max_item_bytes: int = _bound("max_item_bytes", max_item_bytes)
        self.max_variants: int = _bound("max_variants", max_variants)
        self.evictions: int = 0
        self.expirations: int = 0
        self._generations = generations
        self._lock = Lock()
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        """Have nothing."""
        self._order: OrderedDict[CacheKey, _Kept] = OrderedDict()
        self._read = self._order.get
        self._ring: deque[_Kept] = deque()  # every key once, in the order in which they are looked at
        self.bytes: int = 0
        self.entries: int = 0

    def get(self, key: CacheKey) -> tuple[StoredResponse, ...]:
        """All variants that are stored under a key, the latest first; none if there are none."""
        kept = self._read(key)
        if kept is None:
            return ()
        kept.used = True
        return kept.responses

    def put(self, key: CacheKey, response: StoredResponse, now_us: int) -> bool:
        """Store a response, in place of the variant that was selected by the same request fields.

        Args:
            key: Its key.
            response: What is stored. It goes unchanged from now on.
            now_us: The gateway's monotonic microseconds, for what else has become useless.

        Returns:
            False if it is too large. Then the variant that it would have replaced is gone too, being known to be old.
        """
        with self._lock:
            self._sweep(now_us)
            kept = self._read(key)
            return self._add(key, response) if kept is None else self._replace(kept, response)

    def remove(self, key: CacheKey, response: StoredResponse | None = None) -> bool:
        """Forget one response, which is told by identity, or all of a key; whether anything was there."""
        with self._lock:
            kept = self._read(key)
            if kept is None:
                return False
            left = [] if response is None else [other for other in kept.responses if other is not response]
            found = len(left) < len(kept.responses)
            self._keep(kept, left)
            return found

    def clear(self) -> None:
        """Forget everything; what is freed is freed outside the lock."""
        with self._lock:
            before = self._order
            self._begin()
        del before

    def renew(self) -> None:
        """Take a new lock in a forked child; empty, if a thread of the parent was just changing the tier."""
        if self._lock.locked():
            self._begin()
        self._lock = Lock()

    def _add(self, key: CacheKey, response: StoredResponse) -> bool:
        """Store the first response of a key."""
        base = key_bytes(key)
        size = base + response.size
        if response.size > self.max_item_bytes or size > self.max_bytes:
            return False
        if self.bytes + size > self.max_bytes or self.entries >= self.max_entries:
            self._make_room(self.max_bytes - size, self.max_entries - 1)
        kept = self._order[key] = _Kept(key, base)
        kept.size, kept.responses = size, (response,)
        self.bytes += size
        self.entries += 1
        self._ring.append(kept)
        return True

    def _replace(self, kept: _Kept, response: StoredResponse) -> bool:
        """Store a response beside the other variants of a key, or in place of one."""
        base = kept.base
        others = [other for other in kept.responses if other.vary != response.vary]
        if response.size > self.max_item_bytes or base + response.size > self.max_bytes:
            self._keep(kept, others)
            return False
        chosen = self._chosen(base, response, others)
        self.evictions += 1 + len(others) - len(chosen)
        bytes_more = base + sum([one.size for one in chosen]) - kept.size
        entries_more = len(chosen) - len(kept.responses)
        self._make_room(self.max_bytes - bytes_more, self.max_entries - entries_more, kept)
        self._order.move_to_end(kept.key)
        self._keep(kept, chosen)
        return True

    def _chosen(self, base: int, response: StoredResponse, others: list[StoredResponse]) -> list[StoredResponse]:
        """The response and as many other variants of its key, the latest first, as may be kept together."""
        room = self.max_bytes - base - response.size
        chosen = [response]
        for other in others[: min(self.max_variants, self.max_entries) - 1]:
            room -= other.size
            if room < 0:
                break
            chosen.append(other)
        return chosen

    def _make_room(self, max_bytes: int, max_entries: int, spared: _Kept | None = None) -> None:
        """Evict by second chance, but for one, until no more than this is kept."""
        order = self._order
        chances = _CHANCES
        while self.bytes > max_bytes or self.entries > max_entries:
            key, kept = next(iter(order.items()))
            if kept is spared:
                order.move_to_end(key)
            elif kept.used and chances:
                chances -= 1
                kept.used = False
                order.move_to_end(key)
            else:
                chances = _CHANCES
                self.evictions += len(kept.responses)
                self._forget(kept)

    def _keep(self, kept: _Kept, responses: list[StoredResponse]) -> None:
        """Change what is kept under a key; without a response, the key goes."""
        if responses:
            size = kept.base + sum(response.size for response in responses)
            self.bytes += size - kept.size
            self.entries += len(responses) - len(kept.responses)
            kept.size, kept.responses = size, tuple(responses)
        else:
            self._forget(kept)

    def _forget(self, kept: _Kept) -> None:
        """Take a key out; its place in the ring is found empty when its turn comes."""
        del self._order[kept.key]
        self.bytes -= kept.size
        self.entries -= len(kept.responses)
        kept.key, kept.responses = (), ()

    def _sweep(self, now_us: int) -> None:
        """Look at the next few keys of the ring, and drop what is of no use."""
        ring = self._ring
        epoch = None if self._generations is None else self._generations.epoch
        for _ in range(min(_SWEPT, len(ring))):
            kept = ring.popleft()
            for response in kept.responses:
                if now_us >= response.fresh_until_us or response.epoch != epoch:  # else it is of use, at one glance
                    self._drop_useless(kept, now_us)
                    break
            if kept.responses:
                ring.append(kept)

    def _drop_useless(self, kept: _Kept, now_us: int) -> None:
        """Drop the responses of a key that are of no use."""
        useful = [response for response in kept.responses if self._is_useful(response, now_us)]
        if len(useful) < len(kept.responses):
            self.expirations += len(kept.responses) - len(useful)
            self._keep(kept, useful)

    def _is_useful(self, response: StoredResponse, now_us: int) -> bool:
        if is_useless(response, now_us):
            return False
        return self._generations is None or self._generations.is_valid(response)


def _bound(setting: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"MemoryTier {setting}: {value!r} is not a whole number of at least 1")
    return value
