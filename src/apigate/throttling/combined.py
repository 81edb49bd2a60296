"""Limits of which one has a window: its count and the buckets of the others in one decision, all or nothing.

On a server they are asked one after the other: the window of a client first, then the buckets, and last a window that
clients share. As soon as one refuses, the others are only looked at, so that the wait in the answer is the longest of
all; what those before it gave is given back, so for the caller nothing was taken. In this order whoever is refused by a
limit of his own has borrowed nothing from others meanwhile.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar, cast, final

from apigate.core.errors import ConfigurationError
from apigate.core.steps import Steps, run
from apigate.throttling.decision import Decision
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit
from apigate.throttling.store import Buckets, LocalWindows, ThrottleStore, WindowStore
from apigate.throttling.tallies import Standing

__all__ = ["CombinedBuckets", "check_windows", "open_buckets", "settle", "windows_of"]

T = TypeVar("T")

_SHARED = ("global", "stage", "method")
_CLIENTS = ("client", "client-method")


def open_buckets(store: ThrottleStore, limits: Sequence[Limit], now: int) -> Buckets:
    """The buckets and windows of these limits.

    A store with `opens_windows = True` is given all of them; one around another store, which takes care of itself.

    Raises:
        ConfigurationError: The store cannot hold a window that is among them.
    """
    if getattr(store, "opens_windows", False) or not any(limit.window for limit in limits):
        return store.open(limits, now)
    windows = windows_of(store, limits)
    buckets = [limit for limit in limits if not limit.window]
    if not hasattr(windows, "has_room") and not all(_is_asked_first(limit, limits) for limit in limits if limit.window):
        buckets = [limit.unsteady() for limit in buckets]  # what a window refuses after them, they get back
    return CombinedBuckets(limits, store.open(buckets, now) if buckets else None, windows)


def windows_of(store: ThrottleStore, limits: Sequence[Limit]) -> WindowStore:
    """Where a store counts windows.

    Raises:
        ConfigurationError: It does not, or cannot keep one that is among these limits.
    """
    named = [limit for limit in limits if limit.window]
    windows: Callable[[], WindowStore] | None = getattr(store, "windows", None)
    if not callable(windows):
        raise ConfigurationError(
            f"store: {store!r} holds no windows, and the {named[0].policy} limit is {named[0].rate}; use a Rate there, "
            f"or keep it in memory, Redis, Valkey, Memcached or MongoDB"
        )
    counted = windows()
    for limit in named:
        if limit.window is not None:
            counted.check(limit.window)
    return counted


def _is_asked_first(limit: Limit, limits: Sequence[Limit]) -> bool:
    """Whether a window is a client's own, or the last of levels with other names: nobody else misses what it lends."""
    return limit.level not in _SHARED and (limit.level in _CLIENTS or limit is limits[-1])


def settle(
    buckets: Buckets, keys: Sequence[Key], tokens: Sequence[int], now: int, decision: Decision
) -> Awaitable[None] | None:
    """Take more or give back what a decision took; a window gives back by the time that the decision has noted.

    Raises:
        StoreError: The buckets cannot be reached.
    """
    own: Callable[..., Awaitable[None] | None] | None = getattr(type(buckets), "settle", None)
    return buckets.adjust(keys, tokens, now) if own is None else own(buckets, keys, tokens, now, decision)


def check_windows(limits: Iterable[Limit], where: str) -> None:
    """See that at most one of the limits that a request meets has a window.

    Raises:
        ConfigurationError: Two have; it names both.
    """
    windows = [limit for limit in limits if limit.window]
    if len(windows) > 1:
        first, second = windows[:2]
        raise ConfigurationError(
            f"{where}: a request would be counted in two windows, at the levels {first.policy} ({first.rate}) and "
            f"{second.policy} ({second.rate}); one of a request's levels may have a Window, give the other a Rate"
        )


@final
class CombinedBuckets:
    """The buckets of some limits and the windows of the others, in the order of the limits.

    Where requests are counted in two windows all the same (the settings of two methods hold for one path), they are
    asked one after the other, and give back as the buckets do.
    """

    def __init__(self, limits: Sequence[Limit], tokens: Buckets | None, windows: WindowStore) -> None:
        """Tell the places of buckets and windows apart."""
        self._limits: tuple[Limit, ...] = tuple(limits)
        self._tokens = tokens
        self._windows = windows
        self._token_places = [place for place, limit in enumerate(limits) if not limit.window]
        self._window_places = [place for place, limit in enumerate(limits) if limit.window]
        self._first = [place for place in self._window_places if _is_asked_first(limits[place], limits)]
        self._last = [place for place in self._window_places if place not in self._first]
        self._local: LocalWindows | None = cast("LocalWindows", windows) if hasattr(windows, "has_room") else None

    def acquire(
        self, keys: Sequence[Key], costs: Sequence[int], now: int, patience: int = 0
    ) -> Decision | Awaitable[Decision]:
        """Take the costs everywhere or nowhere. Nothing is booked ahead, as windows cannot be."""
        del patience
        local = self._local
        if local is None:
            return run(self._acquire(keys, costs, now))
        with local:
            return self._acquire_in_step(local, keys, costs, now)

    def peek(self, keys: Sequence[Key], costs: Sequence[int], now: int) -> Decision | Awaitable[Decision]:
        """What `acquire` would answer, taking nothing."""
        return run(self._peek(keys, costs, now))

    def adjust(self, keys: Sequence[Key], tokens: Sequence[int], now: int) -> Awaitable[None] | None:
        """Take more or give back without asking; a window gives nothing back, as nobody says when it has counted it."""
        return run(self._adjust(keys, tokens, now, None))

    def settle(
        self, keys: Sequence[Key], tokens: Sequence[int], now: int, decision: Decision
    ) -> Awaitable[None] | None:
        """Take more or give back what a decision took; a window gives back by the time that the decision has noted."""
        return run(self._adjust(keys, tokens, now, decision))

    def reset(self, keys: Sequence[Key | None] | None) -> Awaitable[None] | None:
        """Forget buckets and windows of these keys, or of all."""
        return run(self._reset(keys))

    # ---- the steps

    def _acquire(self, keys: Sequence[Key], costs: Sequence[int], now: int) -> Steps[Decision]:
        """The windows of clients, tokens, the other windows; whatever refuses, what was taken before is given back."""
        answer = _Answer(self._limits, costs, self._token_places)
        try:
            yield from self._ask_windows(self._first, keys, answer, now)
            taking = answer.allowed
            answer.hear((yield from self._ask_tokens(keys, costs, now, take=taking)), taken=taking)
            yield from self._ask_windows(self._last, keys, answer, now)
        except GeneratorExit:  # nobody waits for it any more
            raise
        except BaseException:
            yield from self._return(keys, answer, now, quietly=True)
            raise
        if not answer.allowed:
            yield from self._return(keys, answer, now)
        return answer.decision()

    def _ask_windows(self, places: Sequence[int], keys: Sequence[Key], answer: "_Answer", now: int) -> Steps[None]:
        """Count in the windows at these places, or where something has refused only look at them."""
        for place in places:
            ask = self._windows.acquire if answer.allowed else self._windows.peek
            answer.note(place, (yield ask(self._limits[place], keys[place], answer.costs[place], now)))

    def _acquire_in_step(
        self, windows: LocalWindows, keys: Sequence[Key], costs: Sequence[int], now: int
    ) -> Decision | Awaitable[Decision]:
        """Where nobody else comes between, the windows are looked at first, and nothing needs to be given back.

        Not written as steps, which take as long again as all of this: what is in memory has nothing to wait for.
        """
        limits, places = self._limits, self._window_places
        take = True
        for place in places:
            if limits[place].enforced and not windows.has_room(limits[place], keys[place], costs[place], now):
                take = False
        tokens: Decision | None = None
        if self._tokens is not None:
            ask = self._tokens.acquire if take else self._tokens.peek
            answered = ask(self._of_tokens(keys), self._of_tokens(costs), now)
            if not isinstance(answered, Decision):
                raise TypeError(f"{self._tokens!r} has to be awaited, and the windows beside it answer at once")
            tokens = answered
            take = take and tokens.allowed
        answer = _Answer(limits, costs, self._token_places)
        answer.hear(tokens, taken=take)
        count = windows.acquire if take else windows.peek
        for place in places:
            answer.note(place, count(limits[place], keys[place], costs[place], now))
        return answer.decision()

    def _peek(self, keys: Sequence[Key], costs: Sequence[int], now: int) -> Steps[Decision]:
        answer = _Answer(self._limits, costs, self._token_places)
        answer.hear((yield from self._ask_tokens(keys, costs, now, take=False)), taken=False)
        for place in self._window_places:
            answer.note(place, (yield self._windows.peek(self._limits[place], keys[place], costs[place], now)))
        return answer.decision()

    def _ask_tokens(self, keys: Sequence[Key], costs: Sequence[int], now: int, *, take: bool) -> Steps[Decision | None]:
        if self._tokens is None:
            return None
        own_keys, own_costs = self._of_tokens(keys), self._of_tokens(costs)
        if take:
            taken: Decision = yield self._tokens.acquire(own_keys, own_costs, now)
            return taken
        seen: Decision = yield self._tokens.peek(own_keys, own_costs, now)
        return seen

    def _return(self, keys: Sequence[Key], answer: "_Answer", now: int, *, quietly: bool = False) -> Steps[None]:
        """Give back what was taken; `quietly` where another fault is on its way to the caller."""
        try:
            if self._tokens is not None and answer.tokens is not None and answer.tokens_taken:
                answer.round_trips += bool(answer.tokens.round_trips)
                yield self._tokens.adjust(self._of_tokens(keys), answer.tokens.settling(0), now)
            for place, standing in list(answer.standings.items()):
                if standing.allowed and answer.taken_at(place):
                    answer.round_trips += bool(standing.round_trips)
                    limit, cost = self._limits[place], answer.costs[place]
                    yield self._windows.adjust(limit, keys[place], -cost, standing.at, now)
                    if not standing.used:
                        answer.standings[place] = standing._replace(next_us=0)
        except Exception:
            if not quietly:
                raise

    def _adjust(self, keys: Sequence[Key], tokens: Sequence[int], now: int, decision: Decision | None) -> Steps[None]:
        if self._tokens is not None:
            yield self._tokens.adjust(self._of_tokens(keys), self._of_tokens(tokens), now)
        for place in self._window_places:
            if tokens[place]:
                limit = self._limits[place]
                at = None if decision is None else decision.counted_at(limit.name)
                yield self._windows.adjust(limit, keys[place], tokens[place], at, now)

    def _reset(self, keys: Sequence[Key | None] | None) -> Steps[None]:
        if self._tokens is not None:
            yield self._tokens.reset(None if keys is None else self._of_tokens(keys))
        for place in self._window_places:
            key = None if keys is None else keys[place]
            if keys is None or key is not None:
                yield self._windows.reset(self._limits[place], key)

    def _of_tokens(self, values: Sequence[T]) -> list[T]:
        return [values[place] for place in self._token_places]


@final
class _Answer:
    """What buckets and windows have answered so far."""

    def __init__(self, limits: tuple[Limit, ...], costs: Sequence[int], token_places: Sequence[int]) -> None:
        self.limits = limits
        self.costs = costs
        self.tokens: Decision | None = None
        self.tokens_taken: bool = False
        self.token_places = token_places
        self.allowed: bool = True
        self.round_trips: int = 0
        self.standings: dict[int, Standing] = {}
        self._asked: set[int] = set()  # the windows that were asked to take, not only looked at

    def hear(self, tokens: Decision | None, *, taken: bool) -> None:
        """Take in what the buckets answered, which were asked for tokens or only looked at."""
        if tokens is not None:
            self.tokens = tokens
            self.tokens_taken = taken and tokens.allowed
            self.allowed = self.allowed and tokens.allowed
            self.round_trips += tokens.round_trips

    def note(self, place: int, standing: Standing) -> None:
        """Take in what a window answered."""
        if self.allowed:
            self._asked.add(place)
        self.standings[place] = standing
        self.round_trips += standing.round_trips
        if not standing.allowed and self.limits[place].enforced:
            self.allowed = False

    def taken_at(self, place: int) -> bool:
        """Whether a window was asked to count."""
        return place in self._asked

    def decision(self) -> Decision:
        """All of it as one decision."""
        limits = list(self.limits)
        wanted = [0] * len(limits)
        if self.tokens is not None:  # its limits are those that the store goes by now, if a rate was changed
            for place, limit, owed in zip(self.token_places, self.tokens.limits, self.tokens.wanted, strict=True):
                limits[place], wanted[place] = limit, owed
        waits: dict[int, int] = {}
        for place, standing in self.standings.items():
            wanted[place] = (standing.used + self.costs[place]) * self.limits[place].p
            if standing.wait_us is not None:
                waits[place] = standing.wait_us
        decision = Decision(self.allowed, limits, self.costs, wanted)
        shadows = [place for place, limit in enumerate(limits) if not limit.enforced]
        if shadows:
            short = (place for place in shadows if wanted[place] > limits[place].capacity)
            decision.note(tuple([limits[place] for place in short]), booked=False)
        if self.tokens is not None and self.tokens.tolerance:
            decision.tolerance = self.tokens.tolerance
        resets = {place: standing.next_us for place, standing in self.standings.items()}
        counted = {limits[p].name: each.at for p, each in self.standings.items() if self.allowed and each.allowed}
        return decision.note_windows(waits, resets, counted, self.round_trips)
