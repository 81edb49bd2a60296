"""What a process makes of a store that workers share: its generations follow the log, and responses are put and found.

Rule: an invalidation that any process has been told of holds for every response asked for before it, wherever that was
put. So a response is put with a mark: up to where the log was known when the app was asked. Whoever finds it knows the
log further, and so knows whether anything that concerns it came later.

A fault of the store is a miss, a lost put, or news that come later; never an exception. What could not be published is
kept, and published with the next that can be; until then this process finds nothing in the store.
"""

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from threading import RLock
from typing import Protocol, final

from apigate.caching.codec import decode, decode_variance, encode, encode_variance, key_digest
from apigate.caching.encryption import OVERHEAD, Encryption
from apigate.caching.entry import CacheKey, StoredResponse
from apigate.caching.store import (
    EVERYTHING,
    Found,
    Invalidation,
    Mark,
    News,
    ResponseStore,
    bounded,
    log_of,
    mark_of,
    position_of,
)
from apigate.caching.variance import Selected
from apigate.core.errors import StoreError
from apigate.core.forks import renew_after_fork
from apigate.core.steps import Steps, run

__all__ = ["Epochs", "SharedGenerations", "SharedResponses"]

_MOST_PENDING = 1_000
_MOST_KNOWN = 8_192


class Epochs(Protocol):
    """What is told of each invalidation: `apigate.caching.generations.Generations`."""

    epoch: int

    def invalidate(self, scope: str) -> object:
        """Whatever has this scope is invalid from now on; an empty one stands for everything."""
        ...

    def invalidate_prefix(self, prefix: str) -> object:
        """Whatever has a decoded path that begins so is invalid from now on."""
        ...


@final
class SharedGenerations:
    """The generations of one process, kept in step with the log of a store.

    All invalidations of the stage go through `invalidate`; none is made on the generations directly. `synchronise` is
    called at each hit, before the memory is looked at, and at each miss, before the app is asked.

    Args:
        store: The store.
        generations: Told of each invalidation once, in the order of the log.

    Attributes:
        store: The store.
        known: Up to where the log is known; empty for nothing.
        known_us: When it was, for whoever wants to serve nothing once that is too long ago, as in an outage.
    """

    __slots__ = (
        "__weakref__",
        "_due_us",
        "_epochs",
        "_floor",
        "_generations",
        "_has_news",
        "_lag_us",
        "_lock",
        "_pending",
        "_positions",
        "_sending",
        "known",
        "known_us",
        "store",
    )

    def __init__(self, store: ResponseStore, generations: Epochs) -> None:
        """Know nothing; the store is asked at first use."""
        self.store: ResponseStore = store
        self._generations = generations
        self._lag_us = store.max_lag_us
        self._has_news: Callable[[Mark, int], bool] | None = None if self._lag_us else store.has_news
        self._due_us: int | None = None
        self.known: Mark = b""
        self.known_us: int | None = None
        self._pending: list[Invalidation] = []
        self._sending = 0  # how many of these are on their way
        self._floor = 0
        self._positions: list[int] = []  # of records, each with the epoch that it began
        self._epochs: list[int] = []
        self._lock = RLock()
        renew_after_fork(self)

    def renew(self) -> None:
        """Take a new lock: in a process just forked, nobody else holds it."""
        self._lock = RLock()
        self._sending = 0

    def synchronise(self, now_us: int) -> Awaitable[None] | None:
        """Learn what others have invalidated, if it is time; nothing is asked within half the bound of a store's lag.

        Where the bound is near, one caller asks and the others go on; once it has passed, as after an idle time, each
        caller asks.

        Args:
            now_us: The gateway's monotonic microseconds.
        """
        due = self._due_us
        if due is not None and now_us < due:
            return None
        if self._has_news is not None:
            if not self._has_news(self.known, now_us) and not self._pending:
                self.known_us = now_us
                return None
        elif due is not None:
            self._claim(now_us)
        return run(self._exchanged((), now_us))

    def invalidate(self, record: Invalidation, now_us: int) -> Awaitable[None] | None:
        """Invalidate something in every process; in this one it is done when this returns, or has been awaited.

        Args:
            record: What; texts of more than 480 bytes are `bounded`.
            now_us: The gateway's monotonic microseconds.
        """
        return run(self._exchanged([bounded(record)], now_us))

    def mark_at(self, epoch: int) -> Mark | None:
        """Up to where the log was known in an epoch; None where that is not known any more, so nothing is to be put."""
        with self._lock:
            place = bisect_right(self._epochs, epoch) - 1
            if place < 0:
                return None
            is_last = place == len(self._epochs) - 1
            return self.known if is_last else mark_of(log_of(self.known), self._positions[place])

    def epoch_at(self, mark: Mark) -> int | None:
        """The epoch in which the log was known so far; None where that is not known, so the response is not used."""
        with self._lock:
            position = position_of(mark)
            if log_of(mark) != log_of(self.known) or not self._floor <= position <= position_of(self.known):
                return None
            return self._epochs[bisect_right(self._positions, position) - 1]

    @property
    def is_behind(self) -> bool:
        """Whether something that was invalidated here has not been published yet."""
        return bool(self._pending or self._sending)

    def take(self, news: News, now_us: int) -> None:
        """Tell the generations of what a log holds, unless they know it.

        Args:
            news: What it holds.
            now_us: When it was asked.
        """
        with self._lock:
            self._take(news)
            if self.known_us is None or now_us > self.known_us:
                self.known_us = now_us
            if self._lag_us:
                self._due_us = max(self._due_us or 0, now_us + self._lag_us // 2)

    def _take(self, news: News) -> None:
        known = position_of(self.known) if self.known else -1
        if log_of(news.mark) == log_of(self.known) and position_of(news.mark) <= known:
            return
        if log_of(news.mark) != log_of(self.known) or news.since > known:
            self._generations.invalidate("")
            self._floor = known = news.since
            self._positions, self._epochs = [known], [self._generations.epoch]
        for position, record in news.records:
            if position > known:
                self._apply(record)
                self._positions.append(position)
                self._epochs.append(self._generations.epoch)
        self.known = news.mark
        if len(self._positions) > _MOST_KNOWN:
            half = len(self._positions) // 2
            del self._positions[:half], self._epochs[:half]
            self._floor = self._positions[0]

    def _apply(self, record: Invalidation) -> None:
        if record.kind == "prefix":
            self._generations.invalidate_prefix(record.text)
        else:
            self._generations.invalidate(record.text if record.kind == "scope" else "")

    def _claim(self, now_us: int) -> None:
        """Be the one who asks; the others go on until the bound."""
        with self._lock:
            self._due_us = now_us + self._lag_us // 2
            if self.known_us is not None:
                self._due_us = min(self._due_us, self.known_us + self._lag_us)

    def _exchanged(self, own: Sequence[Invalidation], now_us: int) -> Steps[None]:
        """Publish what is invalidated now, and what could not be before, and learn what others have invalidated."""
        with self._lock:
            late, self._pending = self._pending, []
            self._sending += len(late)
        is_told = False
        try:
            news: News = yield self.store.learn(self.known, [*late, *own])
            self.take(news, now_us)
            is_told = True
        except StoreError:
            pass
        finally:  # also where whoever waited has given up
            with self._lock:
                self._sending -= len(late)
                if not is_told:
                    self._put_off(late, own, now_us)

    def _put_off(self, late: Sequence[Invalidation], own: Sequence[Invalidation], now_us: int) -> None:
        """Invalidate here what may not have become known, and publish it later."""
        for record in own:
            self._apply(record)
        pending = [*late, *own, *self._pending]
        self._pending = pending if len(pending) <= _MOST_PENDING else [EVERYTHING]
        if self._lag_us:
            self._due_us = now_us + self._lag_us // 2


@final
class SharedResponses:
    """Responses in a store that workers share.

    Args:
        store: The store.
        generations: This process's, in step with the log of the same store.
        encryption: What makes values unreadable in the store; None leaves them as they are.
        bodies: Whether there are responses in it; without, it is for invalidations alone.
        place: Whose they are, of gateway and stage: what was encrypted for another is not read.
    """

    __slots__ = ("_bodies", "_encryption", "_generations", "_limit", "_place", "_store")

    def __init__(
        self,
        store: ResponseStore,
        generations: SharedGenerations,
        *,
        encryption: Encryption | None = None,
        bodies: bool = True,
        place: str = "",
    ) -> None:
        """Ask nothing yet."""
        self._store = store
        self._generations = generations
        self._encryption = encryption
        self._bodies = bodies
        self._place = place.encode("utf-8", "surrogatepass")
        self._limit = store.max_item_bytes - (OVERHEAD if encryption is not None else 0)

    def get(
        self, key: CacheKey, select: Callable[[Sequence[str]], Selected], wall: float, now_us: int
    ) -> StoredResponse | Awaitable[StoredResponse | None] | None:
        """The response under a key that the request selects, if nothing that concerns it was invalidated.

        It has the epoch up to which that is known; whoever uses it asks `Generations.is_valid`, as for any other.

        Args:
            key: The primary key.
            select: The values of these request fields, as they are taken when a response is stored; called where
                responses of the key vary.
            wall: Seconds since 1970.
            now_us: The gateway's monotonic microseconds.
        """
        if not self._bodies or self._generations.is_behind:
            return None
        return run(self._found(key, select, wall, now_us))

    def put(self, key: CacheKey, response: StoredResponse, wall: float, now_us: int) -> Awaitable[None] | None:
        """Keep a response for the workers, as long as it may be of use.

        Args:
            key: The primary key.
            response: The response; its epoch is that in which the app was asked, or a later one up to which nothing
                that concerns it was invalidated.
            wall: Seconds since 1970.
            now_us: The gateway's monotonic microseconds.
        """
        seconds = response.lifetime - response.age(now_us) + response.grace
        mark = self._generations.mark_at(response.epoch)
        if not self._bodies or mark is None or seconds <= 0 or len(response.body) > self._limit:
            return None
        value = encode(response, mark, wall, now_us)
        if len(value) > self._limit:
            return None
        return run(self._put(key, response.vary, value, seconds))

    def delete(self, key: CacheKey, vary: Selected = ()) -> Awaitable[None] | None:
        """Forget what lies under a key and what selected it."""
        return run(self._deleted(key_digest(key, vary))) if self._bodies else None

    def _found(
        self, key: CacheKey, select: Callable[[Sequence[str]], Selected], wall: float, now_us: int
    ) -> Steps[StoredResponse | None]:
        digest = key_digest(key)
        vary: Selected = ()
        try:
            raw = yield from self._read(digest, now_us)
            variance = None if raw is None else decode_variance(raw)
            if variance is not None:
                vary = select(variance.names)
                raw = yield from self._read(key_digest(key, vary), now_us)
            if raw is None:
                return None
            yield self._generations.synchronise(now_us)
        except StoreError:
            return None
        decoded = decode(raw, wall, now_us, self._generations.epoch_at)
        return None if decoded is None or decoded.response.vary != vary else decoded.response

    def _read(self, digest: bytes, now_us: int) -> Steps[bytes | None]:
        found: Found = yield self._store.get(digest, self._generations.known)
        if found.news is not None:
            self._generations.take(found.news, now_us)
        if found.value is None or self._encryption is None:
            return found.value
        return self._encryption.decrypt(self._place + digest, found.value)

    def _put(self, key: CacheKey, vary: Selected, value: bytes, seconds: float) -> Steps[None]:
        try:
            if vary:
                names = encode_variance(name for name, _ in vary)
                yield self._write(key_digest(key), names, seconds)
            yield self._write(key_digest(key, vary), value, seconds)
        except StoreError:
            return

    def _write(self, digest: bytes, value: bytes, seconds: float) -> Awaitable[None] | None:
        sealed = value if self._encryption is None else self._encryption.encrypt(self._place + digest, value)
        return self._store.put(digest, sealed, seconds)

    def _deleted(self, digest: bytes) -> Steps[None]:
        try:
            yield self._store.delete(digest)
        except StoreError:
            return
