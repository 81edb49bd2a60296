"""One limit: a rate or window at a level, with the name its bucket is kept under. A value; buckets are in a store."""

from collections.abc import Iterable
from typing import Literal, final

from apigate.core.errors import ConfigurationError
from apigate.throttling.rate import Rate
from apigate.throttling.window import Window

__all__ = ["LEVELS", "MODES", "Limit", "Mode", "checked_cost", "checked_mode", "limits_of", "window_of"]

LEVELS = ("global", "stage", "method", "client", "client-method")
"""The levels of a gateway, from the widest bucket to the narrowest."""

Mode = Literal["enforce", "shadow", "off"]
"""`enforce` refuses; `shadow` counts what it would have refused; `off` is not there at all."""

MODES: tuple[Mode, ...] = ("enforce", "shadow", "off")
"""The strictest first."""


@final
class Limit:
    """One rate or window at one level; compared by identity.

    Attributes:
        name: What its buckets are kept under in a store: the same name is the same bucket.
        level: Which level it belongs to.
        policy: What it is called towards clients: the level, numbered where the level has several rates.
        rate: The rate or window, for people and clients, as it is configured; of a share in an outage, too.
        n: Tokens refilled per `p` microseconds, in smallest terms; what a window admits in the long run.
        p: See `n`.
        capacity: What a bucket holds, in tokens times `p`.
        enforced: False for a limit in shadow mode.
        steady: Whether its tokens come back by time alone, so that a refusal holds until its wait is over.
        window: Its window, None where it has a bucket.
    """

    __slots__ = ("capacity", "enforced", "level", "n", "name", "p", "policy", "rate", "steady", "window")

    def __init__(
        self, name: str, level: str, policy: str, rate: Rate | Window, *, enforced: bool = True, steady: bool = False
    ) -> None:
        """Take the whole numbers out of `rate`, so that deciding reads nothing else."""
        self.name: str = name
        self.level: str = level
        self.policy: str = policy
        self.rate: Rate | Window = rate
        self.window: Window | None = rate if isinstance(rate, Window) else None
        self.n: int = rate.n
        self.p: int = rate.p
        self.capacity: int = rate.capacity
        self.enforced: bool = enforced
        self.steady: bool = steady

    def unsteady(self) -> "Limit":
        """The same limit where its tokens are given back after all, so that no refusal of it may be remembered."""
        return Limit(self.name, self.level, self.policy, self.rate, enforced=self.enforced) if self.steady else self

    def __repr__(self) -> str:
        """Name and rate."""
        return f"<Limit {self.name}: {self.rate}{'' if self.enforced else ' (shadow)'}>"


def limits_of(
    name: str, level: str, rates: Iterable[Rate | Window], mode: Mode = "enforce", *, steady: bool = False
) -> tuple[Limit, ...]:
    """The limits of one level: one for each rate, none if the level is off."""
    if mode == "off":
        return ()
    return tuple(
        Limit(
            name if number == 1 else f"{name}#{number}",
            level,
            level if number == 1 else f"{level}-{number}",
            rate,
            enforced=mode == "enforce",
            steady=steady,
        )
        for number, rate in enumerate(rates, start=1)
    )


def window_of(limit: Limit) -> Window:
    """The window of a limit that has one.

    Raises:
        TypeError: It has a bucket.
    """
    if limit.window is None:
        raise TypeError(f"{limit!r} has no window")
    return limit.window


def checked_cost(cost: object, setting: str) -> int:
    """The cost of one request.

    Raises:
        ValueError: It is not a whole number of at least 0.
    """
    if not isinstance(cost, int) or isinstance(cost, bool) or cost < 0:
        raise ValueError(f"{setting}: {cost!r} is not a whole number of at least 0")
    return cost


def checked_mode(setting: str, mode: object) -> Mode:
    """The mode, if it is one.

    Raises:
        ConfigurationError: It is none of the three.
    """
    known: Mode
    for known in MODES:
        if str(mode) == known:
            return known
    raise ConfigurationError(f"{setting}: {mode!r} is no mode; allowed are {', '.join(MODES)}")
