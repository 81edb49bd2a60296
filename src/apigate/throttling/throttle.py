"""A throttle that needs no gateway: named levels, asked together."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from threading import Lock
from types import TracebackType
from typing import Self, TypeAlias, TypeVar, final

from apigate.core.clock import Clock, SystemClock
from apigate.core.errors import ConfigurationError, ProtocolError
from apigate.core.steps import refuse_to_wait
from apigate.throttling.combined import check_windows, open_buckets, settle
from apigate.throttling.decision import Decision, Throttled
from apigate.throttling.keys import LONGEST_KEY, Key, bucket_key
from apigate.throttling.limit import Limit, Mode, checked_cost, checked_mode, limits_of
from apigate.throttling.rate import RateLike, parse_rates
from apigate.throttling.store import Buckets, ThrottleStore, store_name

__all__ = ["Keys", "Reservation", "Throttle"]

Keys: TypeAlias = Mapping[str, str | int]
"""Whose bucket is asked at each level, such as `{"client": "alice"}`."""

_T = TypeVar("_T", Decision, None)
_LONGEST_WAIT = 3_600.0
_RESERVED = frozenset(":#")  # they separate the parts of a bucket's name


@final
class Throttle:
    """Rates at named levels that admit or refuse together: a call takes its tokens at every level or at none.

    Args:
        levels: Name and rate of each level; one of them may have a `Window`. The level `global` has one bucket; every
            other has one for each key.
        store: Where the buckets are kept: a store, or an address as `Gateway` takes it, such as
            `"redis://host:6379/0"`; default a `MemoryStore` of its own.
        clock: The clock to go by; default the machine's.
        name: Prefixes the buckets' names, for several throttles on one store: letters, digits, `-`, `_` and `.`, and
            after a colon whatever else tells it from others of the same app. Required where other processes use the
            store too; else `throttle`.
        modes: Levels that are not enforced: `{"client": "shadow"}`, or `"off"`.

    Attributes:
        store: Where the buckets are, to be closed by whoever wants to.

    Every method that asks or settles raises `StoreError` where the store cannot be reached. What to do then is for the
    caller to say; a `Gateway` has a policy for it.

    Raises:
        ConfigurationError: A rate, a mode, a name or a store cannot be used.
        StoreError: The store cannot be reached, where it has to be for that.

    >>> throttle = Throttle({"global": Rate(1_000), "client": "1/minute; burst=2"})
    >>> decision = throttle.acquire({"client": "alice"})
    >>> decision.allowed, decision.levels["client"].remaining
    (True, 1)
    """

    def __init__(
        self,
        levels: Mapping[str, RateLike],
        *,
        store: ThrottleStore | str | None = None,
        clock: Clock | None = None,
        name: str | None = None,
        modes: Mapping[str, Mode] | None = None,
    ) -> None:
        """Check the levels and open their buckets."""
        self.clock: Clock = clock or SystemClock()
        self._modes = dict(modes or {})
        if not isinstance(levels, Mapping):
            raise ConfigurationError(f"Throttle levels: {levels!r} is not a mapping, as {{'global': '10/second'}}")
        self._levels: dict[str, RateLike] = dict(levels)
        from apigate.stores.address import open_store  # nothing else of a domain knows a store, not even the default

        self.store: ThrottleStore = open_store("memory://" if store is None else store)
        owner, colon, part = name.partition(":") if isinstance(name, str) else (name, "", "")
        self._name = store_name(owner, self.store, "throttle", "Throttle") + colon + part
        self._changing = Lock()
        self._opened = self._open(self._levels)

    def _open(self, levels: Mapping[str, RateLike]) -> "_Opened":
        if not levels:
            raise ConfigurationError("Throttle levels: none given; name at least one, as in {'global': Rate(10)}")
        for level in levels:
            if not isinstance(level, str) or not level or set(level) & _RESERVED:
                raise ConfigurationError(
                    f"Throttle levels: {level!r} is no name for a level; it has ':' or '#', or none"
                )
        for level in self._modes:
            if level not in levels:
                raise ConfigurationError(f"Throttle modes: {level!r} is no level; levels are {', '.join(levels)}")
        limits: list[Limit] = []
        for level, rates in levels.items():
            mode = checked_mode(f"Throttle modes[{level!r}]", self._modes.get(level, "enforce"))
            limits += limits_of(f"{self._name}:{level}", level, parse_rates(rates, f"Throttle level {level!r}"), mode)
        check_windows(limits, "Throttle levels")
        return _Opened(limits, levels, open_buckets(self.store, limits, self.clock.now_us()))

    def update(self, levels: Mapping[str, RateLike]) -> None:
        """Change the rates of some levels; the buckets keep what they are owed.

        Raises:
            ConfigurationError: A rate cannot be used; nothing was changed then.
            ValueError: There is no such level.
        """
        self._opened.check(levels)
        with self._changing:
            changed = {**self._levels, **levels}
            self._opened = self._open(changed)
            self._levels = changed

    def acquire(self, keys: Keys | None = None, cost: int = 1, *, wait: float = 0.0) -> Decision:
        """Ask every level for `cost` tokens, and take them if all of them have these.

        Args:
            keys: Whose bucket at each level but `global`.
            cost: Tokens wanted, at least 0. More than a burst is never admitted.
            wait: Seconds to wait for one's turn, up to an hour. Those who wait are served in the order they came, and
                nobody who comes later overtakes them; but a `Window` cannot be booked ahead, so where a level has one,
                whoever waits asks again when the wait is over, and others may have come first.

        Raises:
            ValueError: A level's key is missing, a level is unknown, or a number is out of bounds.
            ProtocolError: The store is asynchronous; use `acquire_async`.
        """
        if cost == 1 and not wait:  # what most callers ask, without the checks of the rest
            opened = self._opened
            answer = opened.buckets.acquire(opened.keys(keys), opened.ones, self.clock.now_us())
            return answer if type(answer) is Decision else _value(answer, "acquire_async")
        answer = self._ask(keys, cost, wait)
        decision = answer if type(answer) is Decision else _value(answer, "acquire_async")
        patience = self._patience(wait) if wait else 0
        while (pause := _pause(decision, patience)) is not None:
            self.clock.sleep(pause / 1_000_000)
            patience -= pause
            decision = _value(self._ask(keys, cost, 0.0), "acquire_async")
        if wait and decision.allowed and (turn := decision.wait_us):
            try:
                self.clock.sleep(turn / 1_000_000)
            except BaseException:
                _value(self._adjust(keys, decision, -cost), "acquire_async")
                raise
        return decision

    async def acquire_async(self, keys: Keys | None = None, cost: int = 1, *, wait: float = 0.0) -> Decision:
        """`acquire` for tasks: waiting suspends only the caller, and one that is cancelled gives its place back."""
        if cost == 1 and not wait:  # as in `acquire`
            opened = self._opened
            asked = opened.buckets.acquire(opened.keys(keys), opened.ones, self.clock.now_us())
            return asked if type(asked) is Decision else await _awaited(asked)
        answer = self._ask(keys, cost, wait)
        decision = answer if type(answer) is Decision else await _awaited(answer)
        patience = self._patience(wait) if wait else 0
        while (pause := _pause(decision, patience)) is not None:
            await self.clock.sleep_async(pause / 1_000_000)
            patience -= pause
            decision = await _awaited(self._ask(keys, cost, 0.0))
        if wait and decision.allowed and (turn := decision.wait_us):
            try:
                await self.clock.sleep_async(turn / 1_000_000)
            except BaseException:
                await _awaited(self._adjust(keys, decision, -cost))
                raise
        return decision

    def peek(self, keys: Keys | None = None, cost: int = 1) -> Decision:
        """What `acquire` would answer now, taking nothing."""
        return _value(self._peek(keys, cost), "peek_async")

    async def peek_async(self, keys: Keys | None = None, cost: int = 1) -> Decision:
        """`peek` for tasks."""
        return await _awaited(self._peek(keys, cost))

    def reset(self, keys: Keys | None = None) -> None:
        """Forget the buckets of these keys, at the levels named; without keys, all buckets of this throttle.

        Raises:
            ValueError: A level is unknown.
        """
        _value(self._reset(keys), "reset_async")

    async def reset_async(self, keys: Keys | None = None) -> None:
        """`reset` for tasks."""
        await _awaited(self._reset(keys))

    def reserve(self, keys: Keys | None = None, cost: int = 1, *, wait: float = 0.0) -> "Reservation":
        """Take tokens that may be given back, or exceeded, once the outcome is known.

        Raises:
            Throttled: The tokens were refused.
            ValueError: As `acquire`.
        """
        return self._reservation(keys, cost, self.acquire(keys, cost, wait=wait))

    async def reserve_async(self, keys: Keys | None = None, cost: int = 1, *, wait: float = 0.0) -> "Reservation":
        """`reserve` for tasks: `async with await throttle.reserve_async(...) as reservation`."""
        return self._reservation(keys, cost, await self.acquire_async(keys, cost, wait=wait))

    def _reservation(self, keys: Keys | None, cost: int, decision: Decision) -> "Reservation":
        if not decision.allowed:
            raise Throttled(decision)
        held = dict(keys or {})
        return Reservation(decision, cost, lambda tokens: self._adjust(held, decision, tokens))

    def _ask(self, keys: Keys | None, cost: int, wait: float) -> Decision | Awaitable[Decision]:
        if not 0 <= wait <= _LONGEST_WAIT:
            raise ValueError(f"wait: {wait!r} is not a number of seconds from 0 to {_LONGEST_WAIT:.0f}")
        opened = self._opened
        return opened.buckets.acquire(
            opened.keys(keys), opened.costs(cost), self.clock.now_us(), round(wait * 1_000_000) if wait else 0
        )

    def _patience(self, wait: float) -> int:
        """For how many microseconds to ask again; 0 where turns are booked ahead."""
        return round(wait * 1_000_000) if any(limit.window for limit in self._opened.limits) else 0

    def _peek(self, keys: Keys | None, cost: int) -> Decision | Awaitable[Decision]:
        opened = self._opened
        return opened.buckets.peek(opened.keys(keys), opened.costs(cost), self.clock.now_us())

    def _reset(self, keys: Keys | None) -> Awaitable[None] | None:
        opened = self._opened
        return opened.buckets.reset(opened.some_keys(keys))

    def _adjust(self, keys: Keys | None, decision: Decision, tokens: int) -> Awaitable[None] | None:
        """Settle the limits that the decision charged: a shadow limit may not be one, nor one that was added since."""
        opened = self._opened
        charged = decision.charged
        changes = [tokens if limit.name in charged else 0 for limit in opened.limits]
        return settle(opened.buckets, opened.keys(keys), changes, self.clock.now_us(), decision)

    def __repr__(self) -> str:
        """Every level with its rate."""
        return f"<Throttle {', '.join(f'{limit.policy} {limit.rate}' for limit in self._opened.limits)}>"


@final
class _Opened:
    """The levels as they stand; replaced as a whole when a rate changes, so that no call sees half of a change."""

    __slots__ = ("_asked", "_keyed", "_levels", "buckets", "limits", "ones")

    def __init__(self, limits: Sequence[Limit], levels: Mapping[str, object], buckets: Buckets) -> None:
        self.limits: Sequence[Limit] = limits
        self.buckets: Buckets = buckets
        self._levels = frozenset(levels)
        self._asked = tuple("" if limit.level == "global" else limit.level for limit in limits)
        self._keyed = len(self._levels) - ("global" in self._levels)
        self.ones: tuple[int, ...] = (1,) * len(limits)

    def costs(self, cost: int) -> Sequence[int]:
        """The cost at every limit."""
        if cost == 1:
            return self.ones
        return (checked_cost(cost, "cost"),) * len(self.ones)

    def keys(self, keys: Keys | None) -> list[Key]:
        """The key of every limit, in their order."""
        given: Keys = keys or {}
        asked: list[Key] = []
        try:
            for level in self._asked:
                if level:
                    key = given[level]
                    if type(key) is str and 0 < len(key) <= LONGEST_KEY and key.isascii():
                        asked.append(key)
                    else:
                        asked.append(_key(level, key))
                else:
                    asked.append("")
            if len(given) != self._keyed:
                self.check(given)
        except (KeyError, TypeError):
            if not isinstance(given, Mapping):
                raise ValueError(  # noqa: TRY004 - as every wrong argument
                    f"keys: {given!r} is not a mapping from level to key, as {{'client': 'alice'}}"
                ) from None
            self.check(given)
            missing = next(level for level in self._asked if level and level not in given)
            raise ValueError(f"keys: the level {missing!r} needs a key, as in {{{missing!r}: 'alice'}}") from None
        return asked

    def some_keys(self, keys: Keys | None) -> list[Key | None] | None:
        """The key of every limit whose level is named, None for the others; None without keys."""
        if keys is None:
            return None
        self.check(keys)
        return [
            None if limit.level not in keys else "" if limit.level == "global" else _key(limit.level, keys[limit.level])
            for limit in self.limits
        ]

    def check(self, levels: Mapping[str, object]) -> None:
        """See that all of these are levels."""
        for level in levels:
            if level not in self._levels:
                raise ValueError(f"keys: {level!r} is no level; levels are {', '.join(sorted(self._levels))}")


@final
class Reservation:
    """Tokens taken ahead of an outcome, as a context manager.

    Leaving it settles at the reserved cost, also by an exception: an outcome that never comes leaves the tokens taken.

    Attributes:
        decision: The decision that granted it.
    """

    def __init__(self, decision: Decision, cost: int, adjust: Callable[[int], Awaitable[None] | None]) -> None:
        """Hold `cost` tokens; `adjust` takes more (above 0) or gives back (below 0)."""
        self.decision: Decision = decision
        self._cost = cost
        self._adjust = adjust
        self._settled = False

    def commit(self, cost: int | None = None) -> None:
        """Settle at another cost: less gives the rest back, more may leave a debt of at most one burst.

        Raises:
            ProtocolError: It was settled before, or the store is asynchronous.
            ValueError: `cost` is not a whole number of at least 0.
        """
        _value(self._settle(cost), "commit_async")

    async def commit_async(self, cost: int | None = None) -> None:
        """`commit` for tasks."""
        await _awaited(self._settle(cost))

    def refund(self) -> None:
        """Give everything back, as if it had not been asked for.

        Raises:
            ProtocolError: It was settled before, or the store is asynchronous.
        """
        self.commit(0)

    async def refund_async(self) -> None:
        """`refund` for tasks."""
        await self.commit_async(0)

    def _settle(self, cost: int | None) -> Awaitable[None] | None:
        if self._settled:
            raise ProtocolError("this reservation was settled before")
        if cost is not None:
            checked_cost(cost, "cost")
        self._settled = True
        return None if cost is None or cost == self._cost else self._adjust(cost - self._cost)

    def __enter__(self) -> Self:
        """Hold the tokens."""
        return self

    async def __aenter__(self) -> Self:
        """Hold the tokens."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Settle at the reserved cost unless that was done."""
        self._settled = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Settle at the reserved cost unless that was done."""
        self._settled = True


def _key(level: str, key: object) -> Key:
    if isinstance(key, str):
        if key:
            return key if len(key) <= LONGEST_KEY and key.isascii() else bucket_key(key)
    elif isinstance(key, int):
        return bucket_key(str(key))
    raise ValueError(f"keys: the key {key!r} of level {level!r} is neither a text nor a whole number")


def _pause(decision: Decision, patience: int) -> int | None:
    """How long to wait before asking again; None for not at all."""
    wait = None if decision.allowed or not patience else decision.wait_us
    return wait if wait is not None and wait <= patience else None


def _value(answer: _T | Awaitable[_T], instead: str) -> _T:
    """The answer of a store that does not wait."""
    if isinstance(answer, Awaitable):
        refuse_to_wait(answer, instead)
    return answer


async def _awaited(answer: _T | Awaitable[_T]) -> _T:
    return await answer if isinstance(answer, Awaitable) else answer
