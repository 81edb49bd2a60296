"""The boundary to whatever keeps the buckets. A decision is one atomic operation, never a get and then a set."""

from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import Protocol, Self

from apigate.core.errors import ConfigurationError
from apigate.core.names import checked_name
from apigate.throttling.decision import Decision
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit
from apigate.throttling.tallies import Standing
from apigate.throttling.window import Window

__all__ = ["Buckets", "LocalWindows", "ThrottleStore", "WindowStore", "is_shared", "store_name"]


class Buckets(Protocol):
    """The buckets of some limits, asked together; keys and costs come in the order of the limits.

    Every method may answer at once or hand back an awaitable of the same answer, as its author likes; the callers
    take both.
    """

    def acquire(
        self, keys: Sequence[Key], costs: Sequence[int], now: int, patience: int = 0
    ) -> Decision | Awaitable[Decision]:
        """Take the costs from every bucket or from none, as `apigate.throttling.algorithms.decide` says.

        Raises:
            StoreError: The buckets cannot be reached; nothing was taken.
        """
        ...

    def peek(self, keys: Sequence[Key], costs: Sequence[int], now: int) -> Decision | Awaitable[Decision]:
        """What `acquire` would answer, taking nothing.

        Raises:
            StoreError: The buckets cannot be reached.
        """
        ...

    def adjust(self, keys: Sequence[Key], tokens: Sequence[int], now: int) -> Awaitable[None] | None:
        """Take more tokens (above 0) or give some back (below 0) without asking.

        A bucket is never owed less than nothing, nor by this more than twice its burst.

        Raises:
            StoreError: The buckets cannot be reached.
        """
        ...

    def reset(self, keys: Sequence[Key | None] | None) -> Awaitable[None] | None:
        """Forget these buckets, leaving out limits whose key is None; without keys every bucket of the limits.

        Raises:
            StoreError: The buckets cannot be reached.
        """
        ...


class ThrottleStore(Protocol):
    """Keeps token buckets by limit and key; checked by `apigate.testing.ThrottleStoreContract`.

    What else it may have, each only where it applies:

    ===============  =======  =====================================================================================
    Attribute        Of       What it says
    ===============  =======  =====================================================================================
    `shared`         store    True: other processes take from the same buckets, so whoever uses it must be named
    `offload`        store    True: it blocks, so where an event loop runs it is asked in a thread, for 100 ms at most
    `deadline_ms`    store    with `offload`: how many milliseconds instead
    `windows()`      store    its `WindowStore`; without it a `Window` is a `ConfigurationError`
    `windows_only`   store    True: it has windows and no buckets; an outage of it is tried by a window
    `opens_windows`  store    True: `open` is given limits with windows too; for a store around a store
    `on_fill`        store    who is told the number of buckets when every place is taken; a gateway replaces None
    `close()`        store    closes what it opened for the threads of this process; opened again where it is asked
    `close_async()`  store    to be awaited; the same, and for the running event loop
    `settle`         buckets  with `adjust`'s arguments and the decision, in its place for what a decision took
    `has_room`       windows  it answers in this process, at once, see `LocalWindows`
    ===============  =======  =====================================================================================
    """

    def open(self, limits: Sequence[Limit], now: int) -> Buckets:
        """The buckets of these limits.

        Limits of the same name share their buckets; the same limit may be there several times, to settle several of
        its keys at once. A rate that differs from the one the name had replaces it at
        `now` microseconds, for whoever opened it before too, and the buckets keep what they are owed. A
        shared store may change a bucket when it is next used; the time since its last use counts at the old rate then.
        """
        ...


class WindowStore(Protocol):
    """Counts what comes in windows, for one limit and key at a time, as `apigate.throttling.tallies` says.

    A `ThrottleStore` that can do so has a method `windows` that gives its `WindowStore`. Every method may answer at
    once or hand back an awaitable.

    Windows are kept by the limit's name, its kind and the key. A window whose count or period differs from the one the
    name had goes on with what was counted.
    """

    def check(self, window: Window) -> None:
        """See that it can keep such a window.

        Raises:
            ConfigurationError: It cannot.
        """
        ...

    def acquire(self, limit: Limit, key: Key, cost: int, now: int) -> Standing | Awaitable[Standing]:
        """Count the cost if there is room for it.

        Raises:
            StoreError: The windows cannot be reached. Past the deadline, the cost may have been counted.
        """
        ...

    def peek(self, limit: Limit, key: Key, cost: int, now: int) -> Standing | Awaitable[Standing]:
        """What `acquire` would answer, counting nothing.

        Raises:
            StoreError: The windows cannot be reached.
        """
        ...

    def adjust(self, limit: Limit, key: Key, units: int, at: int | None, now: int) -> Awaitable[None] | None:
        """Count more without asking (above 0), or give back (below 0) what was counted under `at`.

        Raises:
            StoreError: The windows cannot be reached.
        """
        ...

    def reset(self, limit: Limit, key: Key | None) -> Awaitable[None] | None:
        """Forget what was counted for a key; without one, for every key of the limit.

        Raises:
            StoreError: The windows cannot be reached, or it cannot find every key.
        """
        ...


class LocalWindows(Protocol):
    """A `WindowStore` in this process, which answers at once.

    It is a context manager: what is done inside is one step, which nobody else comes between. So windows and buckets
    are asked together, and none ever has to give anything back.
    """

    def __enter__(self) -> Self:
        """Begin a step."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        ...

    def has_room(self, limit: Limit, key: Key, cost: int, now: int) -> bool:
        """Whether `acquire` would admit."""
        ...

    def acquire(self, limit: Limit, key: Key, cost: int, now: int) -> Standing:
        """Count the cost if there is room for it."""
        ...

    def peek(self, limit: Limit, key: Key, cost: int, now: int) -> Standing:
        """What `acquire` would answer, counting nothing."""
        ...


def is_shared(store: ThrottleStore) -> bool:
    """Tell whether other processes take from the same buckets."""
    return bool(getattr(store, "shared", False))


def store_name(name: str | None, store: ThrottleStore, default: str, owner: str) -> str:
    """What prefixes the names of all limits of one owner in a store.

    Args:
        name: The name that was given, if any.
        store: The store.
        default: The name where none was given and no other process uses the store.
        owner: What to call the owner in an error.

    Raises:
        ConfigurationError: It is missing or cannot be a name.
    """
    if name is None:
        if is_shared(store):
            raise ConfigurationError(
                f"{owner} name: {store!r} is shared with other processes, so a name is needed that keeps the buckets "
                f"of different apps apart, such as name='shop'"
            )
        return default
    return checked_name(name, f"{owner} name")
