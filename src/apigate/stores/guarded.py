"""A store around a store, which decides what happens while that one cannot be reached.

Rule: while the breaker is open nothing touches the store within. What each level does then is decided by one plain
function, whether the failure was raised or awaited; shares of limits are kept in a store in this process's memory, and
what that is owed is carried over when the store within answers again.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar, cast, final

from apigate.core.clock import Clock
from apigate.core.closing import close, close_async
from apigate.core.errors import StoreError
from apigate.stores.breaker import Breaker, StoreChange, Watched
from apigate.stores.guarded_windows import CarriedWindows
from apigate.stores.memory import MemoryStore
from apigate.throttling.algorithms import owed_at
from apigate.throttling.combined import open_buckets, settle, windows_of
from apigate.throttling.decision import Decision
from apigate.throttling.keys import Key
from apigate.throttling.limit import LEVELS, Limit
from apigate.throttling.outage import LEAST_WAIT_US, OUTAGES, OutagePolicy, decided_alone, outage_at, share_of
from apigate.throttling.rate import Rate
from apigate.throttling.store import Buckets, ThrottleStore, is_shared
from apigate.throttling.window import Window

__all__ = ["GuardedBuckets", "GuardedStore"]

T = TypeVar("T")

_CHUNK = 64
"""How many buckets are carried over in one step."""

_PROBE_RATE = Rate(1_000_000)  # never refuses, as a refusal would write nothing
_PROBE_WINDOW = Window("1000000/second", kind="fixed")  # where there are no buckets


_SCANNED = 1_000
"""How many buckets are looked at in one step."""


class _Carried(NamedTuple):
    """What of a share the store within was told."""

    share: Limit
    owed: int
    at: int


@final
class GuardedStore:
    """A store that outlives the outages of another one.

    Args:
        store: The store within.
        name: The name of whoever keeps something in it, which prefixes the bucket that tries it.
        clock: The clock that requests go by.
        outage: What levels do during an outage.
        workers: How many processes share the limits, over all hosts; None if nobody said, which counts as 1.
        on_event: Told of each outage and each recovery; must not raise.
        on_fill: As of `MemoryStore`, told of the shares.

    Attributes:
        store: The store within.
        shared: Whether other processes take from the same buckets.
        breaker: Whether the store within is asked.
        outage: What levels do during an outage.
        workers: How many processes share the limits; None if nobody said.

    >>> from apigate import Rate, Throttle
    >>> from apigate.core.clock import SystemClock
    >>> store = GuardedStore(MemoryStore(), name="shop", clock=SystemClock(), outage={"client": "closed"}, workers=4)
    >>> Throttle({"client": Rate(10)}, store=store).acquire({"client": "alice"}).allowed
    True
    """

    opens_windows: bool = True
    """It is handed limits with windows too, and has those within, and their shares, opened."""

    def __init__(
        self,
        store: ThrottleStore,
        *,
        name: str,
        clock: Clock,
        outage: OutagePolicy = "local",
        workers: int | None = None,
        on_event: Callable[[StoreChange], None] | None = None,
        on_fill: Callable[[int], None] | None = None,
    ) -> None:
        """Start with a store that is believed to answer."""
        self.store: ThrottleStore = store
        self.shared: bool = is_shared(store)
        self.breaker: Breaker = Breaker(repr(store), self, clock, on_event, self._done_meanwhile)
        self._clock = clock
        self.outage: OutagePolicy = outage
        self.workers: int | None = workers
        self._local = MemoryStore(on_fill=on_fill)
        self._limits: dict[str, Limit] = {}  # by name, as it was opened last
        self._shares: dict[str, Limit] = {}
        self._carried: dict[tuple[str, Key], _Carried] = {}  # by limit and key
        self._windows = CarriedWindows(self._local.windows())
        probing = _PROBE_WINDOW if getattr(store, "windows_only", False) else _PROBE_RATE
        self._probing = Limit(f"{name}:probe", "probe", "probe", probing)

    def open(self, limits: Sequence[Limit], now: int) -> "GuardedBuckets":
        """The buckets of these limits; those within are opened when the store can be asked."""
        policies = [outage_at(self.outage, limit.level) for limit in limits]
        places = [place for place, policy in enumerate(policies) if policy == "local"]
        closed = [place for place, policy in enumerate(policies) if policy == "closed" and limits[place].enforced]
        shares = [self._share(limits[place]) for place in places]
        self._limits.update({limit.name: limit for limit in limits})
        local = open_buckets(self._local, shares, now) if shares else None
        if any(limit.window for limit in limits):
            windows_of(self.store, limits)
        buckets = GuardedBuckets(self, limits, closed, places, local)
        turn = self.breaker.turn
        if not self.breaker.is_open:
            try:
                buckets.open(now)
            except StoreError as error:
                self.breaker.fail(error, turn)
        return buckets

    def close(self) -> None:
        """Close what the store within has opened for the threads of this process."""
        close(self.store)

    async def close_async(self) -> None:
        """Close what the store within has opened for threads and for the running event loop."""
        await close_async(self.store)

    def now_us(self) -> int:
        """The time in microseconds, for what is not told it."""
        return self._clock.now_us()

    def _share(self, limit: Limit) -> Limit:
        if self._limits.get(limit.name) is not limit:
            self._shares[limit.name] = share_of(limit, self.workers or 1)
        return self._shares[limit.name]

    def latest(self, limit: Limit) -> Limit:
        """The limit of this name as it was opened last, for what is opened late."""
        return self._limits[limit.name]

    def _done_meanwhile(self) -> str:
        """What is done in an outage, by the limits there are by then."""
        return _meanwhile(self.outage, self.workers, {limit.level for limit in self._limits.copy().values()})

    # ---- the way back, see Recovery

    def attempt(self) -> Iterator[object]:
        """Take a token from a bucket of its own, then all that the shares are owed, and have counted.

        Without asking for it: that is always written, while a store may have tokens in hand that it can give.
        """
        now = self._clock.now_us()
        yield open_buckets(self.store, [self._probing], now).adjust(("",), (1,), now)
        yield from self._carry()
        yield from self._carry_windows()

    def finish(self) -> Iterator[object]:
        """Take what the shares gave meanwhile."""
        yield from self._carry()
        yield from self._carry_windows()

    def _carry(self) -> Iterator[object]:
        """Take from the store within what the shares are owed and it was not told of; one step for many buckets.

        That is rounded up to whole tokens, so that carrying over never lets in more. What was carried is paid off at
        the rate of the share, as the share itself is.
        """
        now = self._clock.now_us()
        kept: dict[tuple[str, Key], _Carried] = {}
        chunk: list[tuple[Limit, Key, _Carried, int]] = []
        for number, (share, key, owed) in enumerate(self._local.owed(now), start=1):
            before = self._carried.get((share.name, key))
            rest = owed
            if before is not None and (before.share.n, before.share.p) == (share.n, share.p):
                kept[share.name, key] = before
                rest -= owed_at((before.owed, before.at), share.n, now)
            if rest > 0:
                chunk.append((self._limits[share.name], key, _Carried(share, owed, now), -(-rest // share.p)))
            if len(chunk) == _CHUNK:
                yield from self._take(chunk, kept, now)
                chunk = []
            elif number % _SCANNED == 0:
                yield None  # a loop has others to serve
        if chunk:
            yield from self._take(chunk, kept, now)
        self._carried = kept  # of the others nothing is owed any more

    def _carry_windows(self) -> Iterator[object]:
        """Count in the store within what shares of windows have counted and it was not told of."""
        return self._windows.carry(
            self._shares, self._limits, lambda limit: windows_of(self.store, [limit]), self._clock.now_us()
        )

    def _take(
        self,
        chunk: "Sequence[tuple[Limit, Key, _Carried, int]]",
        kept: "dict[tuple[str, Key], _Carried]",
        now: int,
    ) -> Iterator[object]:
        """Take so many tokens from each of these buckets, and note it."""
        buckets = self.store.open([limit for limit, _, _, _ in chunk], now)
        yield buckets.adjust([key for _, key, _, _ in chunk], [tokens for _, _, _, tokens in chunk], now)
        for limit, key, carried, _ in chunk:
            self._carried[limit.name, key] = kept[limit.name, key] = carried

    def forget(self, limits: Sequence[Limit], keys: Sequence[Key | None] | None) -> None:
        """Forget what was carried of buckets and windows that are reset."""
        for limit, key in zip(limits, [None] * len(limits) if keys is None else keys, strict=True):
            if limit.window is not None and (keys is None or key is not None):
                self._windows.forget(limit.name, key)
        if keys is None:
            names = {limit.name for limit in limits}
            self._carried = {place: carried for place, carried in self._carried.copy().items() if place[0] not in names}
        else:
            for limit, key in zip(limits, keys, strict=True):
                if key is not None:
                    self._carried.pop((limit.name, key), None)

    def __repr__(self) -> str:
        """The store within, and whether it is asked."""
        return f"<GuardedStore {self.store!r}{', in an outage' if self.breaker.is_open else ''}>"


@final
class GuardedBuckets:
    """The buckets of some limits in a `GuardedStore`."""

    __slots__ = ("_breaker", "_closed", "_inner", "_is_local", "_limits", "_local", "_places", "_store", "_unshared")

    def __init__(
        self,
        store: GuardedStore,
        limits: Sequence[Limit],
        closed: Sequence[int],
        places: Sequence[int],
        local: Buckets | None,
    ) -> None:
        """Keep where the limits stand that refuse in an outage, and that have shares."""
        self._store = store
        self._breaker = store.breaker
        self._limits = limits
        self._closed = closed
        self._places = places
        self._local = local
        self._is_local = len(places) == len(limits)
        self._unshared = [place for place, limit in enumerate(limits) if limit.enforced and place not in places]
        self._inner: Buckets | None = None

    def open(self, now: int) -> Buckets:
        """The buckets within, opened now.

        Raises:
            StoreError: The store cannot be reached.
        """
        limits = [self._store.latest(limit) for limit in self._limits]
        self._inner = open_buckets(self._store.store, limits, now)
        return self._inner

    def acquire(
        self, keys: Sequence[Key], costs: Sequence[int], now: int, patience: int = 0
    ) -> Decision | Awaitable[Decision]:
        """Take the costs from every bucket or from none; in an outage as the policies of the levels say."""
        breaker = self._breaker
        if not breaker.is_open:  # `_asked` written out: for what each request comes to, that saves 1.4 us
            turn = breaker.turn
            try:
                inner = self.open(now) if self._inner is None else self._inner
                answer = inner.acquire(keys, costs, now, patience)
            except StoreError as error:
                breaker.fail(error, turn)
                return self._acquire_late(keys, costs, patience)
            else:
                if type(answer) is Decision:
                    return answer
                return Watched(breaker, turn, answer, partial(self._acquire_late, keys, costs, patience))
        return self._acquire_alone(keys, costs, now, patience)

    def peek(self, keys: Sequence[Key], costs: Sequence[int], now: int) -> Decision | Awaitable[Decision]:
        """What `acquire` would answer, taking nothing."""
        return self._asked(
            now, lambda inner: inner.peek(keys, costs, now), lambda then: self._peek_alone(keys, costs, then)
        )

    def adjust(self, keys: Sequence[Key], tokens: Sequence[int], now: int) -> Awaitable[None] | None:
        """Take more tokens or give some back without asking; in an outage at the levels that have shares."""
        return self._adjust(keys, tokens, now, None)

    def settle(
        self, keys: Sequence[Key], tokens: Sequence[int], now: int, decision: Decision
    ) -> Awaitable[None] | None:
        """The same for what a decision took; a window gives back where it was counted, in the store or in the share."""
        return self._adjust(keys, tokens, now, decision)

    def _adjust(
        self, keys: Sequence[Key], tokens: Sequence[int], now: int, decision: Decision | None
    ) -> Awaitable[None] | None:
        within = None if decision is None or decision.local else decision
        return self._asked(
            now,
            lambda inner: _settled(inner, keys, tokens, now, within),
            lambda then: self._adjust_alone(keys, tokens, then, decision),
        )

    def reset(self, keys: Sequence[Key | None] | None = None) -> Awaitable[None] | None:
        """Forget these buckets, or every bucket of the limits; their shares always, and in an outage only these."""
        self._reset_alone(keys)
        return self._asked(self._store.now_us(), lambda inner: inner.reset(keys), _nothing)

    def _asked(
        self, now: int, ask: Callable[[Buckets], T | Awaitable[T]], alone: Callable[[int], T]
    ) -> T | Awaitable[T]:
        """What the buckets within answer; in an outage, or where they fail, what is decided alone, and when that is."""
        if self._breaker.is_open:
            return alone(now)
        return self._breaker.call(
            lambda: ask(self.open(now) if self._inner is None else self._inner), lambda: alone(self._store.now_us())
        )

    # ---- without the store

    def _refusing(self) -> Sequence[int]:
        """Where the limits stand that refuse: also those that an outage leaves open, where there is none.

        Then this process was too busy to ask, and whoever makes it so must not get past a limit by that.
        """
        return self._closed if self._breaker.is_open else self._unshared

    def _acquire_late(self, keys: Sequence[Key], costs: Sequence[int], patience: int) -> Decision:
        """Decide when the store has failed, by the time at which it has.

        A share would take the time from before a long deadline for a clock set back, go on from there, and be paid for
        what has passed since time and again.
        """
        return self._acquire_alone(keys, costs, self._store.now_us(), patience)

    def _acquire_alone(self, keys: Sequence[Key], costs: Sequence[int], now: int, patience: int) -> Decision:
        if self._refusing():
            return self._peek_alone(keys, costs, now)
        local = None
        if self._local is not None:
            local = self._local.acquire(self._of_local(keys), self._of_local(costs), now, patience)
        return self._judged_alone(costs, now, cast("Decision | None", local))  # memory answers at once

    def _peek_alone(self, keys: Sequence[Key], costs: Sequence[int], now: int) -> Decision:
        local = None
        if self._local is not None:
            local = self._local.peek(self._of_local(keys), self._of_local(costs), now)
        return self._judged_alone(costs, now, cast("Decision | None", local))

    def _judged_alone(self, costs: Sequence[int], now: int, local: Decision | None) -> Decision:
        self._breaker.probe_if_due(now)  # last, so that what was taken for this request is carried over too
        if local is not None and local.allowed and self._is_local:
            local.local = True
            return local
        wait_us = max(LEAST_WAIT_US, self._breaker.wait_us(now))
        return decided_alone(self._limits, costs, self._refusing(), self._places, local, wait_us)

    def _adjust_alone(self, keys: Sequence[Key], tokens: Sequence[int], now: int, decision: Decision | None) -> None:
        if self._local is not None:
            here = decision if decision is not None and decision.local else None
            _settled(self._local, self._of_local(keys), self._of_local(tokens), now, here)
        self._breaker.probe_if_due(now)

    def _reset_alone(self, keys: Sequence[Key | None] | None) -> None:
        self._store.forget(self._limits, keys)
        if self._local is not None:
            self._local.reset(None if keys is None else self._of_local(keys))

    def _of_local(self, values: Sequence[T]) -> Sequence[T]:
        """Those of the limits that have shares."""
        return values if self._is_local else [values[place] for place in self._places]


def _settled(
    buckets: Buckets, keys: Sequence[Key], tokens: Sequence[int], now: int, decision: Decision | None
) -> Awaitable[None] | None:
    """Settle by a decision of these buckets, or without one."""
    return buckets.adjust(keys, tokens, now) if decision is None else settle(buckets, keys, tokens, now, decision)


def _nothing(_: int) -> None:
    """Forget nothing more."""


def _meanwhile(outage: OutagePolicy, workers: int | None, limited: Collection[str]) -> str:
    """What the log says is done in an outage, at the levels that have limits."""
    part = f"1/{workers} of" if workers and workers > 1 else "up to the whole of"
    done = {
        "open": "nothing is limited",
        "closed": "whoever a limit would count is refused with 503",
        "local": f"each process admits {part} each limit",
    }
    if isinstance(outage, str):
        text = done[outage]
    else:
        levels = {
            kind: [each for each in LEVELS if each in limited and outage_at(outage, each) == kind] for kind in OUTAGES
        }
        text = "; ".join(f"at {', '.join(named)} {done[kind]}" for kind, named in levels.items() if named)
    if workers is None and part in text:
        text += "; nobody said how many processes share it, so set workers= or WEB_CONCURRENCY"
    return text
