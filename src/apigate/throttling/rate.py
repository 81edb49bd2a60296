"""A rate and a burst: how fast a token bucket refills and how much it holds. A frozen value, no state, no clock."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from math import gcd
from typing import TYPE_CHECKING, Any, TypeAlias, final

from apigate.core.errors import ConfigurationError
from apigate.core.names import known_keywords
from apigate.throttling.window import Window

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Rate", "RateLike", "parse_rates", "period_text", "read_count"]

_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}
_SHORT = {"s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day", "w": "week"}
_CALENDAR = {"month": 30, "year": 365}
_GRAMMAR = "a text such as '100/second', '5 per 10 minutes' or '50/second; burst=100'"
# Texts, compiled at first use: compiling them here would cost every import a millisecond.
_NUMBER = r"\d(?:_?\d){0,18}"  # a longer one exceeds exact arithmetic, and Python reads very long ones not at all
_RATE = rf"(?ai:(?P<count>{_NUMBER})\s*(?:/|\bper\b)\s*(?P<times>{_NUMBER}(?:\.\d+)?)?\s*(?P<unit>[a-z]+))"
_BURST = rf"(?ai:burst\s*=\s*(?P<burst>{_NUMBER}))"

# Owed tokens are kept times the period, a debt may reach twice the capacity, and a cost adds once more: so with a
# capacity of at most 2**51 every number stays below 2**53, where the doubles of a Lua script are still exact.
_LARGEST_CAPACITY = 2**51


@final
@known_keywords()
@dataclass(frozen=True, slots=True)
class Rate:
    """`count` tokens flow back every `per` seconds into a bucket that holds `burst`.

    Args:
        count: Tokens refilled in each period; a whole number, at least 1. For less than one a second, make the period
            longer: `Rate(1, per=10)`.
        per: The period in seconds, as a number or a `timedelta`; at least one microsecond.
        burst: What the bucket holds, so how many requests may come at once; at least 1, default `count`.

    Raises:
        ConfigurationError: A value is out of bounds, or the three together exceed exact arithmetic.

    Source: Amazon API Gateway, "Throttle requests to your REST APIs" (rate and burst of a token bucket).

    >>> Rate(10, burst=20)
    Rate('10/second; burst=20')
    >>> Rate(90, per=60).burst
    90
    """

    count: int
    _: KW_ONLY
    per: "float | timedelta" = 1.0
    burst: int | None = None
    period_us: int = field(init=False, compare=False)
    n: int = field(init=False, compare=False)
    p: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Check the numbers, and bring rate and period to their smallest whole terms `n` tokens per `p` us."""
        count = _whole("count", self.count)
        burst = count if self.burst is None else _whole("burst", self.burst)
        period_us = _microseconds(self.per)
        divisor = gcd(count, period_us)
        for name, value in (
            ("per", period_us / 1_000_000),
            ("burst", burst),
            ("period_us", period_us),
            ("n", count // divisor),
            ("p", period_us // divisor),
        ):
            object.__setattr__(self, name, value)
        if burst * self.p > _LARGEST_CAPACITY:
            raise ConfigurationError(
                f"{self}: burst times period is too large for exact arithmetic; use a smaller burst, a shorter period, "
                f"or a count that shares factors with the period, such as {_round_count(count)}"
            )

    @property
    def size(self) -> int:
        """What the bucket holds, in tokens: the burst, or the count where none was given."""
        return self.count if self.burst is None else self.burst

    @property
    def capacity(self) -> int:
        """The same in tokens times `p`, the unit in which owed tokens are kept."""
        return self.size * self.p

    @property
    def window(self) -> int:
        """Whole seconds in which an empty bucket is full again, rounded up; at least 1."""
        return max(1, -(-self.capacity // (self.n * 1_000_000)))

    @property
    def per_second(self) -> float:
        """Tokens refilled each second, for comparing rates."""
        return self.n * 1_000_000 / self.p

    def divided(self, parts: int) -> "Rate":
        """The rate of one of several equal parts: the same count in so many times the period, of the burst at least 1.

        It may be too slow to be configured, and is exact all the same, in this process.

        >>> Rate(10, burst=21).divided(4), Rate(1, per=60).divided(3)
        (Rate('10/4 second; burst=5'), Rate('1/3 minute'))
        """
        divisor = gcd(self.n, parts)
        part = object.__new__(Rate)
        for name, value in (
            ("count", self.count),
            ("per", self.period_us * parts / 1_000_000),
            ("burst", max(1, self.size // parts)),
            ("period_us", self.period_us * parts),
            ("n", self.n // divisor),
            ("p", self.p * (parts // divisor)),
        ):
            object.__setattr__(part, name, value)
        return part

    def __str__(self) -> str:
        """The text that `parse_rates` reads back."""
        return f"{self.count}/{period_text(self.period_us)}" + (
            "" if self.burst == self.count else f"; burst={self.burst}"
        )

    def __repr__(self) -> str:
        """The same, as a constructor of text."""
        return f"Rate('{self}')"


RateLike: TypeAlias = Rate | Window | str | Sequence[Rate | Window | str]
"""What every throttle setting takes: a rate, its text, a window, or several of these."""


def parse_rates(rates: RateLike, setting: str = "rate") -> tuple[Rate | Window, ...]:
    """Every rate and window in `rates`, at least one.

    Text is `n[/|per][m]unit[; burst=N]`, several joined by `,` `|` or `;`; a burst belongs to the rate before it. In a
    file, `{window = "100/minute", kind = "moving"}` is a window.

    Args:
        rates: A rate, a window, a text, or a sequence of these.
        setting: What to call it in an error.

    Raises:
        ConfigurationError: Something in it is not a rate.

    >>> parse_rates("10/second; burst=20, 1000 per hour")
    (Rate('10/second; burst=20'), Rate('1000/hour'))
    """
    if isinstance(rates, Rate | Window):
        return (rates,)
    if isinstance(rates, str):
        return _parse_text(rates, setting)
    if isinstance(rates, Mapping) and "window" in rates:
        return (_read_table(rates, setting),)
    if isinstance(rates, Sequence):
        found = tuple(rate for item in rates for rate in parse_rates(item, setting))
        if found:
            return found
    raise ConfigurationError(
        f"{setting}: {rates!r} is not a rate; give a Rate, {_GRAMMAR}, a Window, or a list of these"
    )


def read_count(text: object, setting: str) -> tuple[int, int]:
    """Count and microseconds of one rate without a burst.

    Raises:
        ConfigurationError: It is no such text.
    """
    found = _read_text(text, setting) if isinstance(text, str) else []
    if len(found) != 1 or found[0][2] is not None:
        raise ConfigurationError(
            f"{setting}: {text!r} is not one count and period without a burst, such as '100/minute'"
        )
    return found[0][0], _microseconds(found[0][1])


def _read_table(table: "Mapping[str, Any]", setting: str) -> Window:
    """The window that a table of a file describes. Any: whatever stands in the file."""
    if set(table) != {"window", "kind"}:
        raise ConfigurationError(
            f"{setting}: {dict(table)!r} is no window; write {{window = '100/minute', kind = 'moving'}}"
        )
    try:
        return Window(table["window"], kind=table["kind"])
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}") from None


def _parse_text(text: str, setting: str) -> tuple[Rate, ...]:
    found = _read_text(text, setting)
    try:
        return tuple(Rate(count, per=per, burst=burst) for count, per, burst in found)
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}") from None


def _read_text(text: str, setting: str) -> list[tuple[int, float, int | None]]:
    """Count, seconds and burst of every rate in a text."""
    found: list[tuple[int, float, int | None]] = []
    for part in re.split(r"[,;|]", text):
        piece = part.strip()
        if match := re.fullmatch(_BURST, piece):
            if not found or found[-1][2] is not None:
                raise ConfigurationError(f"{setting}: in {text!r} the part {piece!r} follows no rate of its own")
            found[-1] = (*found[-1][:2], int(match["burst"]))
        elif match := re.fullmatch(_RATE, piece):
            found.append((int(match["count"]), float(match["times"] or 1) * _unit(match["unit"], text, setting), None))
        else:
            where = f"{piece!r}" if piece == text else f"{piece!r} in {text!r}"
            raise ConfigurationError(f"{setting}: {where} is not a rate; write {_GRAMMAR}")
    return found


def _unit(word: str, text: str, setting: str) -> int:
    """Seconds of a unit's name, its plural or its abbreviation."""
    name = word.lower()
    unit = _SHORT.get(name, name.removesuffix("s"))
    if unit in _CALENDAR:
        raise ConfigurationError(
            f"{setting}: {word!r} in {text!r} has no fixed length; use days, as '{_CALENDAR[unit]} day'"
        )
    if unit not in _SECONDS:
        raise ConfigurationError(f"{setting}: {word!r} in {text!r} is no unit; allowed are {', '.join(_SECONDS)}")
    return _SECONDS[unit]


def _whole(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        if value > _LARGEST_CAPACITY:
            raise ConfigurationError(
                f"Rate {name}: a number above {_LARGEST_CAPACITY} is too large for exact arithmetic"
            )
        return value
    hint = "; for a slower rate make the period longer, as in Rate(1, per=10)" if isinstance(value, float) else ""
    raise ConfigurationError(f"Rate {name}: {value!r} is not a whole number of at least 1{hint}")


def _microseconds(per: object) -> int:
    total = getattr(per, "total_seconds", None)  # a timedelta, without importing datetime
    seconds = per if total is None else total()
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 1e-6 <= seconds <= 366 * 86_400:
        return round(seconds * 1_000_000)
    raise ConfigurationError(
        f"Rate per: {per!r} is not a period; give seconds from 0.000001 to 366 days, or a timedelta"
    )


def period_text(period_us: int) -> str:
    """The period in the largest unit that divides it: `minute`, `10 second`, `0.25 second`."""
    for unit, seconds in reversed(_SECONDS.items()):
        times, rest = divmod(period_us, seconds * 1_000_000)
        if not rest:
            return unit if times == 1 else f"{times} {unit}"
    return f"{period_us / 1_000_000:.6f}".rstrip("0") + " second"


def _round_count(count: int) -> int:
    """The nearest number with one significant digit."""
    digits = len(str(count)) - 1
    return round(count, -digits)
