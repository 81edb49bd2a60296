"""A request that goes to the app, and what the cache makes of the answer while it passes.

Rule: a fill does no I/O. An adapter tells it the head, each chunk and the end, and does with the client's response what
it says. What is stored is what passed, whole and at a clean end; nothing is held back but an answer that the client
does not get at all (the app's 304 to our own question, an error instead of which a stale response is served).

Source: RFC 9111, sections 3, 4.3 and 4.4; RFC 5861.
"""

from collections.abc import Awaitable
from contextvars import Context
from typing import TYPE_CHECKING, final

from apigate.caching.answer import Answer, answer
from apigate.caching.coalescing import Lead
from apigate.caching.directives import Directives
from apigate.caching.entry import CacheKey, StoredResponse
from apigate.caching.exchange import UNSEEN, Asked, check_head, check_lines
from apigate.caching.freshness import initial_age
from apigate.caching.head import Head, head_of
from apigate.caching.reuse import Reuse, may_serve_on_error, reuse, stale_windows
from apigate.caching.status import forwarded_status
from apigate.caching.storability import storage_objection
from apigate.caching.storedfields import connection_fields, withheld_fields
from apigate.caching.validation import freshened_fields, is_of_another, questions
from apigate.caching.variance import NO_ORIGIN, Selected, selected_fields
from apigate.core.errors import ProtocolError
from apigate.core.message import Field, FieldLines, RequestFields

if TYPE_CHECKING:
    from apigate.caching.lookup import Lookup

__all__ = ["Fill"]

_SERVER_ERRORS = frozenset({500, 502, 503, 504})  # RFC 5861, section 4
_CONDITIONS = ("if-none-match", "if-modified-since", "if-range", "range")
_TOO_LONG = "it is longer than max_item_bytes"
_NO_ROOM = "there is no room for it in max_bytes"
_ANOTHER = "the app's 304 has the ETag of another one"
_NO_CONTENT = frozenset({204, 304})
_KEPT_FOR_VALIDATION = 3_600.0  # seconds a stale response with a validator is kept, as the app may still answer 304


@final
class Fill:
    """A response on its way from the app, which is stored if it may be: the `Exchange` of a request that may be cached.

    Tell it the head (`begin`), each part of the content (`feed`), and the end: `finish`, or `fail` where that was not a
    clean one.

    Args:
        lookup: The policy's lookup, which has the cache.
        asked: The request.
        reason: Why it goes to the app, in the words of RFC 9211.
        stored: The stored response that the app is asked about, if there is one.
        lead: The flight that this request leads, if it does.
        context: Variables to send it with in the background, by GET; None where a client waits for it.

    Attributes:
        has_stored: Whether the response was stored; known after `finish`.
        objection: Why it was not; empty as long as nothing speaks against it.
        questions: Request fields that are set for the app, or (None) taken out.
        replies: Whether the app's response is held back, as the client gets what `finish` or `fail` answers; known
            after `begin`.
        key: Where it is put, or would be.
    """

    # Defaults of the class for what few fills have or are asked for, see `RequestContext`.
    has_stored: bool = False
    objection: str = ""
    _tags: tuple[str, ...] = ()
    _written: StoredResponse | None = None  # what a shared tier is to be given
    _is_forgotten = False  # whether a shared tier is to forget what was stored
    _is_validated = False  # whether the app has answered our own question by 304

    def __init__(
        self,
        lookup: "Lookup",
        asked: Asked,
        reason: str,
        stored: StoredResponse | None = None,
        lead: Lead[StoredResponse] | None = None,
        context: Context | None = None,
    ) -> None:
        """Note when the request is sent."""
        self._lookup = lookup
        self._asked = asked
        self.reason: str = reason
        self._stored = stored
        self.lead: Lead[StoredResponse] | None = lead
        self.context: Context | None = context
        self._is_head = context is None and asked.request.method == "HEAD"
        self._waived = ""  # why it cannot be kept, whatever the app answers
        self.questions: RequestFields = ()
        self.replies: bool = False
        self._epoch = lookup.cache.generations.epoch
        self._chunks: list[bytes] | None = None
        self._length = 0
        self._head: tuple[int, Head, float] | None = None  # of a response that passes: status, head, wall time
        self._answer: StoredResponse | None = None
        self._has_ended = False
        self._is_unknown = True  # whether the head has not come
        self._came_us = self._sent_us = lookup.clock.now_us()
        self.key: CacheKey = asked.key
        if stored is not None:
            own = dict(questions(stored))
            self.questions = (*own.items(), *[(name, None) for name in _CONDITIONS if name not in own])

    # ---- what the app answers

    def begin(self, status: int, fields: FieldLines) -> tuple[Field, ...]:
        """The app's response has begun.

        Args:
            status: Its status.
            fields: Its field lines, as pairs of texts.

        Returns:
            Fields to add to it, unless `replies` is true now.

        Raises:
            ProtocolError: The field lines are no pairs of texts, or the status is no number.
        """
        check_lines(fields)
        lookup = self._lookup
        now_us = self._came_us = lookup.clock.now_us()
        try:
            if lookup.varied:
                fields = [*fields, *[added.text for added in lookup.varied]]
            head = head_of(fields)
            self._is_unknown = False
            stored = self._stored
            if stored is not None and status == 304:
                self.replies = self._is_validated = True
                self._freshen(stored, head)
                return ()
            if stored is not None and status in _SERVER_ERRORS and self._may_answer_stale(now_us):
                self.replies = True
                self._land(stored)
                return ()
            return self._record(status, head)
        except (AttributeError, TypeError, ValueError):
            check_head(status, fields)
            raise

    def feed(self, chunk: bytes) -> None:
        """A part of its content has come.

        Raises:
            ProtocolError: It is no bytes; nothing is kept of the response then.
        """
        if self._chunks is None or self.replies:
            return
        try:
            self._length += len(chunk)
            if self._length > self._lookup.cache.longest:
                self._refuse(self._too_long(self._length))
            elif chunk:
                self._chunks.append(bytes(chunk))  # a copy of a buffer, which the app may use again
        except TypeError as error:
            self._refuse("a part of its content was no bytes")
            raise ProtocolError(f"feed: {type(chunk).__name__} is no bytes; texts have to be encoded") from error

    def finish(self) -> Answer | None:
        """Its content has come to a clean end: it is stored if it may be. The answer, if any, is sent in its place."""
        if self._has_ended:
            return None
        if self._chunks is not None and self._head is not None and not self.replies:
            status, head, wall = self._head
            if head.length is not None and head.length != self._length:
                return self.fail()
            self._has_ended = True
            self._keep(status, head, head, b"".join(self._chunks), wall, None)
            return None
        self._has_ended = True
        if self.lead is not None:
            self.lead.refuse(self._came_us)  # without effect where it has landed
        return self._reply()

    @property
    def keeps(self) -> bool:
        """Whether it is being kept, so that the app should go on though the client has left.

        As long as the head has not come, nobody knows.
        """
        return not self._has_ended and (self._chunks is not None or self._is_unknown)

    def settle(self) -> Awaitable[None] | None:
        """What is left to do once the client has its response: to have workers share it. None, or an awaitable."""
        written, self._written = self._written, None
        if written is not None:
            return self._lookup.cache.give(self.key, written)
        if not self._is_forgotten or self._stored is None:
            return None
        self._is_forgotten = False
        return self._lookup.recall(self._asked, self._stored)

    def publish(self) -> Awaitable[None] | None:
        """Nothing: that is for exchanges that invalidate."""
        return None

    def fail(self) -> Answer | None:
        """The app raised, or its response was cut off: nothing is stored. The answer, if any, may be sent instead.

        Without effect after `finish`.
        """
        if self._has_ended:
            return None
        self._has_ended = True
        self._chunks = None
        now_us = self._lookup.clock.now_us()
        if self._is_unknown and self._may_answer_stale(now_us):
            self.replies = True
            self._land(self._stored)
        if self.lead is not None:
            self.lead.fail()
        return self._reply()

    def waive(self, why: str = UNSEEN) -> None:
        """What the app answers cannot be kept, for this reason."""
        self._waived = why
        if self._chunks is not None:
            self._refuse(why)

    def doubt(self, why: str) -> None:
        """What the app answers cannot be kept unless the policy says whose it is, for this reason."""
        if self._lookup.policy.per is None:
            self.waive(why)

    # ---- deciding

    def _freshen(self, stored: StoredResponse, head: Head) -> None:
        """Keep a stored response on, as the app's 304 says (RFC 9111, section 4.3.4).

        A 304 of another representation must not freshen it. Then the client gets what is stored this once, as it was:
        the app has called it current, and there is no other content to give. It is forgotten, and no other request is
        given it: the next one asks the app without a condition of ours.
        """
        if is_of_another(stored, head.etag):
            self._refuse(_ANOTHER)
            self._answer = stored
            self._forget(stored)
            return
        left_out = connection_fields(head.headers) | withheld_fields(head.headers, head.directives)
        merged = head_of(freshened_fields(stored, head.lines, left_out))
        objection = self._objection(stored.status, merged)
        self._keep(stored.status, merged, head, stored.body, self._lookup.clock.wall(), objection)

    def _record(self, status: int, head: Head) -> tuple[Field, ...]:
        """Pass it on, and keep it as it passes if it may be stored."""
        lookup = self._lookup
        self._head = status, head, lookup.clock.wall() if head.is_dated else 0.0  # others go by no time of day
        objection = self._objection(status, head)
        if objection is None:
            self._chunks = []
        else:
            self._refuse(objection)
            if self._stored is not None and status < 500:
                self._forget(self._stored)  # it is no longer what the app answers
        return lookup.forwarded(self.reason, objection)

    def _objection(self, status: int, head: Head) -> str | None:
        asked, rules = self._asked, self._lookup.rules
        if self._is_head:
            return "a response to HEAD has no content"
        if self._waived:
            return self._waived
        if head.length is not None and head.length > self._lookup.cache.longest:
            return self._too_long(head.length)
        objection = storage_objection(
            status,
            head,
            rules._replace(private=True) if asked.owner.private else rules,
            request_directives=asked.directives,
            restricted=self._lookup.is_restricted(asked),
        )
        if objection is not None:
            return objection
        tags = self._lookup.tags(asked.request)
        if tags is None:
            return "its tags cannot be told"
        self._tags = tags
        return None

    def _too_long(self, length: int) -> str:
        """Which bound a content of this length is over."""
        return _TOO_LONG if length > self._lookup.cache.max_item_bytes else _NO_ROOM

    def _may_answer_stale(self, now_us: int) -> bool:
        stored = self._stored
        if stored is None or not self._lookup.cache.is_valid(stored):
            return False
        return may_serve_on_error(stored, self._asked.directives, self._lookup.policy, now_us)

    # ---- storing

    def _keep(self, status: int, head: Head, came: Head, body: bytes, wall: float, objection: str | None) -> None:
        """Make a stored response of it, put it where it is found, and give it to who waits.

        Args:
            status: Its status.
            head: Its head.
            came: The head that came now, of the response itself or of a 304.
            body: The content.
            wall: When that came, in seconds since 1970-01-01 UTC; 0.0 where nothing goes by it.
            objection: Why it may not be kept, as a 304 may bring one.
        """
        lookup, asked = self._lookup, self._asked
        shared = not asked.owner.name or lookup.is_for_all(head.directives)
        self.key = lookup.key_of(asked, shared=shared, search=head.search)
        waited = (self._came_us - self._sent_us) / 1_000_000
        lines = head.kept if status in _NO_CONTENT else (*head.kept, ("Content-Length", str(len(body))))
        response = StoredResponse(
            status=status,
            fields=lines,
            body=body,
            initial_age=initial_age(came, wall - waited, wall) if came.tells_age else waited,
            received_us=self._came_us,
            lifetime=lookup.lifetime(status, head, wall),
            grace=0.0,
            vary=self._selected(head),
            scopes=lookup.scopes(asked, head.groups, self._tags),
            shared=shared,
            epoch=self._epoch,
            head=head,
        )
        response.grace = max(
            *stale_windows(response, lookup.policy), _KEPT_FOR_VALIDATION if response.has_validator else 0.0
        )
        if objection is not None:
            if self._stored is not None and not self._is_head:
                self._forget(self._stored)
            self._refuse(objection)
        elif lookup.cache.put(self.key, response, self._came_us):
            self._written = response
            self.has_stored = True
            if head.search is not None or lookup.cache.searches:
                lookup.note_search(self.key, head.search)
            if self.key is asked.key or lookup.is_for_waiters(asked, self.key):
                self._land(response)
            else:
                self._refuse("it is of another query than those who wait have")
        else:
            self._refuse(_NO_ROOM)
        self._answer = response

    def _selected(self, head: Head) -> Selected:
        """What the request has in the fields that select the response.

        Where not every page may read it, Origin is one of them: the app may tell each origin, and none, another thing.
        """
        names = head.vary or ()
        if not head.is_open and "origin" not in names:
            if not names and "origin" not in self._asked.picked:
                return NO_ORIGIN
            names = tuple(sorted((*names, "origin")))
        return selected_fields(names, self._lookup.value_of(self._asked.request))

    def _forget(self, stored: StoredResponse) -> None:
        """Forget what the app was asked about, here and, once the client has its answer, where it is shared."""
        self._is_forgotten = True
        self._lookup.forget(self._asked, stored)

    def _land(self, response: StoredResponse | None) -> None:
        self._answer = response
        if self.lead is None or response is None:
            return
        if response is self._written and not self._is_of_use(response):
            self.lead.refuse(self._came_us)  # each has to ask the app itself; in vain they would wait
        else:
            self.lead.land(response)

    def _is_of_use(self, response: StoredResponse) -> bool:
        """Tell whether a response that has just come may be served again without asking the app."""
        if self._came_us < response.fresh_until_us:
            return not response.must_validate
        return reuse(response, Directives(), self._lookup.policy, self._came_us, obeys=False) is not Reuse.VALIDATE

    def _refuse(self, objection: str) -> None:
        self._lookup.cache.note_objection(self._asked.key, objection)
        self.objection = objection
        self._chunks = None
        if self.lead is not None:
            self.lead.refuse(self._came_us)

    def _reply(self) -> Answer | None:
        """What the client gets in place of the app's response."""
        stored = self._answer
        if not self.replies or stored is None:
            return None
        asked, now_us = self._asked, self._lookup.clock.now_us()
        reason = "stale" if self._stored is not None else self.reason
        status = 304 if self._is_validated else None
        note = forwarded_status(reason, status, stored=stored is self._written)
        return answer(stored, asked.request.method, asked.picked, now_us, asked.owner.mode, note.text[1])
