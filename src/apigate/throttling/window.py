"""A number of requests in a window of time, instead of a rate and a burst. A frozen value, no state, no clock."""

from dataclasses import KW_ONLY, dataclass, field
from math import gcd
from typing import Literal, TypeAlias, final

from apigate.core.errors import ConfigurationError
from apigate.core.names import known_keywords

__all__ = ["KINDS", "Window", "WindowKind"]

WindowKind: TypeAlias = Literal["fixed", "moving", "sliding"]
"""How the window is laid over time, see `Window`."""

KINDS: tuple[WindowKind, ...] = ("fixed", "moving", "sliding")

_SECOND = 1_000_000
_LARGEST = 2**52
"""A sliding count, which a debt may double, is weighed as count times milliseconds: exact in Lua below 2**53."""


@final
@known_keywords()
@dataclass(frozen=True, slots=True)
class Window:
    """At most so many requests in a window of time; may stand for one `Rate` of a request's levels.

    Args:
        limit: Count and period, `"100/minute"` or `"5 per 10 minutes"`: whole seconds, up to 366 days. There is no
            burst: all of the count may come at once.
        kind: `"fixed"` begins with the first request and ends a period later, then the next begins; across the end of
            one, twice the count may come within a period. `"moving"` keeps the moment of each request, and never
            admits more than the count within any period. `"sliding"` keeps two counts, and weighs the last window's by
            how much of it still lies within a period: close to `"moving"`, at the cost of `"fixed"`.

    Raises:
        ConfigurationError: It is no such text, or kind.

    Source: the strategies fixed window, moving window and sliding window counter of the package `limits`.

    >>> Window("100 per minute", kind="moving")
    Window('100/minute', kind='moving')
    """

    limit: str
    _: KW_ONLY
    kind: WindowKind
    count: int = field(init=False)
    period_us: int = field(init=False)
    n: int = field(init=False)
    p: int = field(init=False)

    def __post_init__(self) -> None:
        """Read the text; bring count and period to their smallest whole terms `n` per `p` us, as those of a rate."""
        from apigate.throttling.rate import period_text, read_count

        if self.kind not in KINDS:
            raise ConfigurationError(f"Window kind: {self.kind!r} is unknown; allowed are {', '.join(KINDS)}")
        count, period_us = read_count(self.limit, "Window")
        if period_us % _SECOND or count < 1:
            raise ConfigurationError(f"Window: {self.limit!r} is not a count of at least 1 in whole seconds")
        if count * (period_us // 1_000) > _LARGEST:
            raise ConfigurationError(f"Window: {self.limit!r} is too large for exact arithmetic; shorten the period")
        divisor = gcd(count, period_us)
        for name, value in (
            ("limit", f"{count}/{period_text(period_us)}"),
            ("count", count),
            ("period_us", period_us),
            ("n", count // divisor),
            ("p", period_us // divisor),
        ):
            object.__setattr__(self, name, value)

    @property
    def size(self) -> int:
        """What may come at once: the count."""
        return self.count

    @property
    def capacity(self) -> int:
        """The same in the unit of token buckets, tokens times `p`."""
        return self.count * self.p

    @property
    def window(self) -> int:
        """The period in seconds."""
        return self.period_us // _SECOND

    @property
    def per_second(self) -> float:
        """Requests a second in the long run, for comparing with rates."""
        return self.n * _SECOND / self.p

    def divided(self, parts: int) -> "Window":
        """The window of one of several equal parts: of the count at least 1, in the same period.

        >>> Window("10/minute", kind="fixed").divided(4)
        Window('2/minute', kind='fixed')
        """
        return Window(f"{max(1, self.count // parts)}/{self.limit.partition('/')[2]}", kind=self.kind)

    def __str__(self) -> str:
        """For people."""
        return f"{self.limit} in a {self.kind} window"

    def __repr__(self) -> str:
        """As it is written."""
        return f"Window({self.limit!r}, kind={self.kind!r})"
