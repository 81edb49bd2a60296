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
from apigate.caching.entry import CacheKey, FieldLines, StoredResponse, cache_directives
from apigate.caching.exchange import Asked
from apigate.caching.freshness import initial_age
from apigate.caching.groups import parse_groups
from apigate.caching.reuse import Reuse, may_serve_on_error, reuse, stale_windows
from apigate.caching.search import parse_no_vary_search
from apigate.caching.status import forwarded_status
from apigate.caching.storability import storage_objection
from apigate.caching.storedfields import connection_fields, stored_fields, withheld_fields
from apigate.caching.validation import freshened_fields, questions
from apigate.caching.variance import selected_fields, varying_names
from apigate.core.message import Field, Headers

if TYPE_CHECKING:
    from apigate.caching.lookup import Lookup

__all__ = ["Fill"]

_SERVER_ERRORS = frozenset({500, 502, 503, 504})  # RFC 5861, section 4
_CONDITIONS = ("if-none-match", "if-modified-since", "if-range", "range")
_NO_CONTENT = frozenset({204, 205, 304})
_KEPT_FOR_VALIDATION = 3_600.0  # seconds a stale response with a validator is kept, as the app may still answer 304


@final
class Fill:
    """A response on its way from the app, which is stored if it may be.

    Args:
        lookup: The policy's lookup, which has the cache.
        asked: The request.
        reason: Why it goes to the app, in the words of RFC 9211.
        stored: The stored response that the app is asked about, if there is one.
        lead: The flight that this request leads, if it does.
        context: Variables to send it with in the background, by GET; None where a client waits for it.
    """

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
        self._reason = reason
        self._stored = stored
        self.lead: Lead[StoredResponse] | None = lead
        self.context: Context | None = context
        self._is_head = context is None and asked.request.method == "HEAD"
        self._is_unseen = False
        self.questions: tuple[tuple[str, str | None], ...] = ()
        self.replies: bool = False
        self._epoch = lookup.cache.generations.epoch
        self._sent_us = lookup.clock.now_us()
        self._chunks: list[bytes] | None = None
        self._length = 0
        self._expected: int | None = None
        self._head: tuple[int, FieldLines, float] | None = None  # of a response that passes: status, lines, wall
        self._came_us = self._sent_us
        self._answer: StoredResponse | None = None
        self._written: StoredResponse | None = None  # what a shared tier is to be given
        self._has_ended = False
        self._is_unknown = True  # whether the head has not come
        self.key: CacheKey = asked.key
        if stored is not None:
            own = dict(questions(stored))
            self.questions = (*own.items(), *[(name, None) for name in _CONDITIONS if name not in own])

    # ---- what the app answers

    def begin(self, status: int, fields: FieldLines) -> tuple[Field, ...]:
        """See `Exchange`."""
        lookup = self._lookup
        now_us = self._came_us = lookup.clock.now_us()
        if lookup.varied:
            fields = [*fields, *[added.text for added in lookup.varied]]
        headers = Headers(fields)
        self._is_unknown = False
        stored = self._stored
        if stored is not None and status == 304:
            self.replies = True
            wall = lookup.clock.wall()
            withheld = withheld_fields(headers, cache_directives(headers)[0])
            left_out = {*connection_fields(headers), *withheld, *lookup.dropped}
            length = None if stored.status in _NO_CONTENT else len(stored.body)
            merged = freshened_fields(stored, fields, left_out)
            merged = stored_fields(merged, cache_directives(Headers(merged))[0], lookup.dropped, length)
            self._keep(stored.status, merged, headers, stored.body, wall)
            return ()
        if status in _SERVER_ERRORS and self._may_answer_stale(now_us):
            self.replies = True
            self._land(stored)
            return ()
        return self._record(status, fields, headers)

    def feed(self, chunk: bytes) -> None:
        """See `Exchange`."""
        if self._chunks is None or self.replies:
            return
        self._length += len(chunk)
        if self._length > self._lookup.cache.max_item_bytes:
            self._refuse("it is longer than max_item_bytes")
            return
        if chunk:
            self._chunks.append(bytes(chunk))  # a copy of a buffer, which the app may use again

    def finish(self) -> Answer | None:
        """See `Exchange`."""
        if self._has_ended:
            return None
        if self._chunks is not None and self._head is not None and not self.replies:
            if self._expected is not None and self._expected != self._length:
                return self.fail()
            self._has_ended = True
            status, fields, wall = self._head
            body = b"".join(self._chunks)
            came = Headers(fields)
            length = None if status in _NO_CONTENT else len(body)
            lines = stored_fields(fields, cache_directives(came)[0], self._lookup.dropped, length)
            self._keep(status, lines, came, body, wall)
        self._has_ended = True
        if self.lead is not None:
            self.lead.refuse(self._came_us)  # without effect where it has landed
        return self._reply()

    @property
    def keeps(self) -> bool:
        """See `Exchange`: as long as the head has not come, nobody knows."""
        return not self._has_ended and (self._chunks is not None or self._is_unknown)

    def settle(self) -> Awaitable[None] | None:
        """See `Exchange`."""
        written, self._written = self._written, None
        return None if written is None else self._lookup.cache.give(self.key, written)

    def publish(self) -> Awaitable[None] | None:
        """See `Exchange`."""
        return None

    def fail(self) -> Answer | None:
        """See `Exchange`."""
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

    def waive(self) -> None:
        """See `Exchange`."""
        self._is_unseen = True
        if self._chunks is not None:
            self._refuse("its content or its trailers do not pass here")

    # ---- deciding

    def _record(self, status: int, fields: FieldLines, headers: Headers) -> tuple[Field, ...]:
        """Pass it on, and keep it as it passes if it may be stored."""
        lookup = self._lookup
        wall = lookup.clock.wall()
        self._head = status, fields, wall
        directives, targeted = cache_directives(headers)
        objection = self._objection(status, headers, directives, targeted=targeted)
        if objection is None:
            self._chunks = []
        else:
            self._refuse(objection)
        if self._stored is not None and status < 500 and self._chunks is None:
            lookup.forget(asked=self._asked, stored=self._stored)  # it is no longer what the app answers
        note = forwarded_status(
            self._reason,
            stored=self._chunks is not None,
            detail=objection if lookup.is_detailed and objection else "",
        )
        return (note, *lookup.varied)

    def _objection(self, status: int, headers: Headers, directives: Directives, *, targeted: bool) -> str | None:
        asked, rules = self._asked, self._lookup.rules
        if self._is_head:
            return "a response to HEAD has no content"
        if asked.private:
            rules = rules._replace(private=True)
        return storage_objection(
            status,
            headers,
            directives,
            rules,
            targeted=targeted,
            request_directives=asked.directives,
            authorization="authorization" in asked.picked,
        ) or self._unfit(headers)

    def _unfit(self, headers: Headers) -> str | None:  # noqa: PLR0911 - one line for each rule
        """What about the content forbids to keep it."""
        if self._is_unseen:
            return "its content or its trailers do not pass here"
        lengths = set(headers.get_all("content-length"))
        if len(lengths) > 1:
            return "it has several Content-Lengths"
        for length in lengths:
            if not (length.isascii() and length.isdigit() and len(length) < 16):
                return "its Content-Length is not a number"
            self._expected = int(length)
            if self._expected > self._lookup.cache.max_item_bytes:
                return "it is longer than max_item_bytes"
        if "content-range" in headers:
            return "it is a part"
        if (headers.get("content-type") or "").partition(";")[0].strip().lower() == "text/event-stream":
            return "it is a stream of events"
        return None

    def _may_answer_stale(self, now_us: int) -> bool:
        stored = self._stored
        if stored is None or not self._lookup.cache.is_valid(stored):
            return False
        return may_serve_on_error(stored, self._asked.directives, self._lookup.policy, now_us)

    # ---- storing

    def _keep(self, status: int, fields: FieldLines, came: Headers, body: bytes, wall: float) -> None:
        """Make a stored response of it, put it where it is found, and give it to who waits.

        Args:
            status: Its status.
            fields: The field lines that are kept.
            came: The fields that came now, of the response or of a 304; they tell the age.
            body: The content.
            wall: When they came, in seconds since 1970-01-01 UTC.
        """
        headers = Headers(fields)
        lookup, asked = self._lookup, self._asked
        directives, targeted = cache_directives(headers)
        waited = (self._came_us - self._sent_us) / 1_000_000
        lifetime = lookup.lifetime(status, headers, directives, wall, targeted=targeted)
        names = varying_names(headers) or ()
        if _depends_on_origin(headers, asked):
            names = tuple(sorted({*names, "origin"}))
        shared = not asked.owner or lookup.is_for_all(directives)
        search = parse_no_vary_search(headers.get_all("no-vary-search"))
        self.key = lookup.key_of(asked, shared=shared, search=search)
        response = StoredResponse(
            status=status,
            fields=fields,
            body=body,
            initial_age=initial_age(came, wall - waited, wall),
            received_us=self._came_us,
            lifetime=lifetime,
            grace=0.0,
            vary=selected_fields(names, asked.request.value),
            scopes=lookup.scopes(asked.request, parse_groups(headers.get_all("cache-groups"))),
            shared=shared,
            epoch=self._epoch,
        )
        response.grace = max(
            *stale_windows(response, lookup.policy), _KEPT_FOR_VALIDATION if response.has_validator else 0.0
        )
        objection = self._objection(status, headers, directives, targeted=targeted)  # a 304 may have brought one
        if objection is not None:
            if self._stored is not None and not self._is_head:
                lookup.forget(asked=asked, stored=self._stored)
            self._refuse(objection)
        elif lookup.cache.put(self.key, response, self._came_us):
            self._written = response
            lookup.note_search(self.key, search)
            if lookup.is_for_waiters(asked, self.key):
                self._land(response)
            else:
                self._refuse("it is of another query than those who wait have")
        else:
            self._refuse("it is longer than max_item_bytes")
        self._answer = response

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
        return reuse(response, Directives(), self._lookup.policy, self._came_us, obeys=False) is not Reuse.VALIDATE

    def _refuse(self, objection: str) -> None:
        self._lookup.cache.note_objection(self._asked.key, objection)
        self._chunks = None
        if self.lead is not None:
            self.lead.refuse(self._came_us)

    def _reply(self) -> Answer | None:
        """What the client gets in place of the app's response."""
        stored = self._answer
        if not self.replies or stored is None:
            return None
        asked, now_us = self._asked, self._lookup.clock.now_us()
        reason = "stale" if self._stored is not None else self._reason
        note = forwarded_status(reason, 304 if stored is self._written else None, stored=stored is self._written)
        return answer(stored, asked.request.method, asked.picked, now_us, asked.mode, note.text[1])


def _depends_on_origin(headers: Headers, asked: Asked) -> bool:
    """Tell whether another origin's page may not be given a response, or not without fields that only it is sent.

    Where no origin asked, the app may have left out what it would have told one, as CORS layers do.
    """
    allowed = headers.get("access-control-allow-origin")
    return allowed != "*" if allowed is not None else asked.request.value("origin") is None
