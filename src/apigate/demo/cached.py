"""The tour's look at a cache: one client's requests for one URL, and what each of them is to be given.

Rule: nothing is waited for but what the app is asked in the background. Time passes as the tour says: its clock is
moved on.
"""

from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple, final

from apigate.core.clock import Clock, SystemClock
from apigate.demo.server import HOST, PATIENCE

__all__ = ["LOOKS", "Look", "Seen", "TourClock", "look_at_cache"]

_PATH = "/cached/pets"
_TRIES = 2_000
_PAUSE = 0.005  # seconds between them


class TourClock(SystemClock):
    """The machine's clock, which the tour moves on instead of waiting.

    >>> clock = TourClock()
    >>> before = clock.now_us()
    >>> clock.skip(65)
    >>> clock.now_us() - before >= 65_000_000
    True
    """

    __slots__ = ("_skipped",)

    def __init__(self) -> None:
        """Start at the machine's time."""
        self._skipped = 0

    def now_us(self) -> int:
        """Microseconds of the machine's monotonic clock, and what was skipped."""
        return super().now_us() + self._skipped * 1_000_000

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC, and what was skipped."""
        return super().wall() + self._skipped

    def skip(self, seconds: int) -> None:
        """Let time pass at once."""
        self._skipped += seconds


@final
class Look(NamedTuple):
    """One request, and what it is to be given.

    Attributes:
        title: What happens, in few words.
        verb: The request's verb.
        status: The status that is expected.
        cache: What Cache-Status is to begin with, after the cache's name.
        ages: The least Age, and one that it stays below; None where there is to be none.
        skipped: Seconds that pass before.
        patient: Whether it is sent again until that is so, as the app is being asked in the background.
        knows: Whether the client says that it has what it was given before (If-None-Match).
        body: What is added, as JSON.
    """

    title: str
    verb: str
    status: int
    cache: str
    ages: tuple[int, int] | None = None
    skipped: int = 0
    patient: bool = False
    knows: bool = False
    body: bytes | None = None

    @property
    def request(self) -> str:
        """Verb and path."""
        return f"{self.verb} {_PATH}"


LOOKS = (
    Look("a miss: the app answers", "GET", 200, "fwd=uri-miss; stored"),
    Look("a hit, 5 s later: the app is not asked", "GET", 200, "hit; ttl=", (5, 60), skipped=5),
    Look("a client that has it already (If-None-Match)", "GET", 304, "hit; ttl=", (5, 60), knows=True),
    Look("stale, after 60 s more: served, the app asked anew", "GET", 200, "hit; ttl=-", (65, 600), skipped=60),
    Look("what came of that", "GET", 200, "hit; ttl=", (0, 60), patient=True),
    Look("a new pet: what is stored is out of date", "POST", 201, "fwd=method", body=b'{"name": "Bella"}'),
    Look("so a miss again", "GET", 200, "fwd=uri-miss; stored"),
)
"""The tour's requests; the policy is that of the stage `cached`: 60 s, and stale for 600 s more."""


@final
class Seen(NamedTuple):
    """A request and what it was given.

    Attributes:
        look: What was to happen.
        status: The status that came; 0 if none did.
        cache: The Cache-Status, without the cache's name.
        age: The Age; None if there was none.
        tag: The ETag.
        tries: How often it was sent.
        failure: Why nothing came.
    """

    look: Look
    status: int = 0
    cache: str = ""
    age: int | None = None
    tag: str = ""
    tries: int = 1
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was given what was expected."""
        look = self.look
        if self.status != look.status or not self.cache.startswith(look.cache):
            return False
        if look.ages is None or self.age is None:
            return look.ages is None and self.age is None
        return look.ages[0] <= self.age < look.ages[1]


def look_at_cache(port: int, clock: Clock) -> Sequence[Seen]:
    """Send the requests of `LOOKS`.

    Args:
        port: Where the store is served.
        clock: The gateway's clock; where it cannot be moved on, nothing becomes stale.
    """
    with closing(HTTPConnection(HOST, port, timeout=PATIENCE)) as connection:
        seen: list[Seen] = []
        for look in LOOKS:
            if isinstance(clock, TourClock):
                clock.skip(look.skipped)
            fields = {"If-None-Match": seen[-1].tag} if look.knows else {"Content-Type": "application/json"}
            seen.append(_seen(connection, look, fields))
        return seen


def _seen(connection: HTTPConnection, look: Look, fields: dict[str, str]) -> Seen:
    seen = _sent(connection, look, fields)
    while look.patient and not (seen.ok or seen.failure) and seen.tries < _TRIES:
        SystemClock().sleep(_PAUSE)
        seen = _sent(connection, look, fields)._replace(tries=seen.tries + 1)
    return seen


def _sent(connection: HTTPConnection, look: Look, fields: dict[str, str]) -> Seen:
    try:
        connection.request(look.verb, _PATH, look.body, fields)
        answer = connection.getresponse()
        answer.read()
    except (OSError, HTTPException) as error:
        connection.close()
        return Seen(look, failure=f"the server did not answer: {error!r}")
    age = answer.getheader("Age")
    return Seen(
        look,
        answer.status,
        answer.getheader("Cache-Status", "").removeprefix("apigate; "),
        int(age) if age is not None and age.isdecimal() else None,
        answer.getheader("ETag", ""),
    )
