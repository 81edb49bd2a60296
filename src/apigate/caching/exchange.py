"""What the cache has to do with a request that goes to the app: the boundary between its rules and the adapters.

Rule: an exchange does no I/O. An adapter tells it the head of the app's response, each chunk and the end, and does with
the client's response what it answers.
"""

from collections.abc import Awaitable, Iterable, Mapping
from typing import NamedTuple, Protocol, cast

from apigate.caching.answer import Answer
from apigate.caching.directives import Directives
from apigate.caching.entry import CacheKey
from apigate.caching.owner import Owner
from apigate.core.errors import ProtocolError
from apigate.core.message import Field, FieldLines, Request, RequestFields

__all__ = ["UNKEYED", "UNSEEN", "Asked", "Exchange", "check_head", "check_lines", "log_hidden"]

UNSEEN = "its content or its trailers do not pass here"
UNKEYED = "the app has read content of the request, which is no part of its key"
"""Over HTTP/2 no field tells that there is content, so a request with some is found out when the app reads it."""


class Asked(NamedTuple):
    """What is known of a request when the cache is asked.

    Attributes:
        request: The request.
        picked: Its fields that may matter, by lower-case name.
        directives: Its Cache-Control.
        owner: Whose a response to it is.
        digest: What stands for its content in the key; empty where that is no part of it.
        key: Its primary key.
    """

    request: Request
    picked: Mapping[str, str]
    directives: Directives
    owner: Owner
    digest: str
    key: CacheKey


class Exchange(Protocol):
    """One request that goes to the app.

    Attributes:
        questions: Request fields that are set for the app, or (None) taken out.
        replies: Whether the app's response is held back, as the client gets another one at its end; known after
            `begin`.
        keeps: Whether the response is being kept, so that the app should go on though the client has left.
    """

    @property
    def questions(self) -> RequestFields:
        """See the class."""
        ...

    @property
    def replies(self) -> bool:
        """See the class."""
        ...

    @property
    def keeps(self) -> bool:
        """See the class."""
        ...

    def begin(self, status: int, fields: FieldLines) -> tuple[Field, ...]:
        """The app's response has begun.

        Args:
            status: Its status.
            fields: Its field lines, as pairs.

        Returns:
            Fields to add to it, unless it is held back.

        Raises:
            ProtocolError: The field lines are no pairs of texts, or the status is no number.
        """
        ...

    def publish(self) -> Awaitable[None] | None:
        """What other workers have to know before the client has its answer; None, or an awaitable."""
        ...

    def feed(self, chunk: bytes) -> None:
        """A part of its content has come.

        Raises:
            ProtocolError: It is no bytes; nothing is kept of the response then.
        """
        ...

    def finish(self) -> Answer | None:
        """It has come to a clean end; the answer is what is sent in its place, if it is held back."""
        ...

    def fail(self) -> Answer | None:
        """The app raised, or its response was cut off; the answer can be sent if nothing has been so far.

        Without effect after `finish`.
        """
        ...

    def waive(self, why: str = UNSEEN) -> None:
        """What the app answers cannot be kept.

        Args:
            why: In words; without, it passes in part where nobody sees it, as a file or trailers.
        """
        ...

    def doubt(self, why: str) -> None:
        """What the app answers cannot be kept unless the policy says whose it is, for this reason."""
        ...

    def settle(self) -> Awaitable[None] | None:
        """What is left to do once the client has its response; None, or an awaitable where that has to be awaited."""
        ...


def check_lines(fields: FieldLines) -> None:
    """See that a program has given the field lines of a head as pairs: a mapping would be read as its names alone.

    Raises:
        ProtocolError: It has given a mapping.
    """
    if not isinstance(fields, (list, tuple)) and isinstance(fields, Mapping):  # 0.1 us less for the most
        raise ProtocolError(
            f"begin: {type(fields).__name__} is no list of field lines; give pairs, such as list(headers.items())"
        )


def check_head(status: object, fields: object) -> None:
    """See what is wrong with a head that could not be used.

    Raises:
        ProtocolError: The status is no number, or the field lines are no pairs of texts.
    """
    if not isinstance(status, int):
        raise ProtocolError(f"begin: the status {status!r} is not a whole number, such as 200")
    for line in cast("Iterable[object]", fields if isinstance(fields, Iterable) else (fields,)):
        pair = cast("tuple[object, ...]", line)
        if not isinstance(line, (tuple, list)) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise ProtocolError(
                f"begin: {line!r} is no field line, a pair of texts such as ('Content-Type', 'text/html')"
            )


def log_hidden(error: Exception, whose: str = "app") -> None:
    """Log what the client is not told of, as a stale response was served instead, or as no client waits.

    Args:
        error: What was raised.
        whose: What has failed, in the words of those who wrote it: app, view or project.
    """
    from logging import getLogger

    getLogger("apigate").error("the %s failed behind the cache", whose, exc_info=error)
