"""One policy over one cache: what becomes of a request, from the look into the cache to the flight that it joins.

Rule: what passes by the cache is decided before anything is looked up, and by what came over the wire. Each step is
written once, for threads and for tasks.

Source: RFC 9111, section 4; docs/explanation/coalescing.md.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import copy_context
from copy import copy
from functools import partial
from operator import attrgetter
from random import random
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast, final

from apigate.caching.answer import Answer, answer, warned
from apigate.caching.coalescing import Lead, Wait
from apigate.caching.directives import Directives, parse_directives
from apigate.caching.entry import CacheKey, StoredResponse
from apigate.caching.exchange import Asked, Exchange
from apigate.caching.fill import Fill
from apigate.caching.freshness import freshness_lifetime
from apigate.caching.head import Head
from apigate.caching.invalidation import (
    Invalidating,
    group_scope,
    is_safe,
    method_scope,
    path_scope,
    tag_scope,
)
from apigate.caching.key import QUERY, KeyMaker, content_digest
from apigate.caching.owner import EVERYBODY, Owner, owner_of
from apigate.caching.reuse import Reuse, may_serve_on_error, reuse
from apigate.caching.search import SearchVariance
from apigate.caching.settings import KEYED_BY_CONTENT, CachePolicy, KeyParts, checked_texts
from apigate.caching.status import forwarded_status
from apigate.caching.storability import StorageRules, allows_authorization, is_lifetime_given
from apigate.caching.store import MOST_TEXT, Invalidation, bounded
from apigate.caching.variance import FieldValue, matches, normalized_value, selected_fields
from apigate.core.clock import Clock
from apigate.core.message import METHOD_OVERRIDES, Field, Request, field
from apigate.core.steps import Pause, Steps, run

if TYPE_CHECKING:
    from apigate.caching.cache import ResponseCache

__all__ = ["NOBODY", "REASONS", "Found", "Lookup", "Passing", "Refused", "uncached"]

REASONS = ("request", "stale", "uri-miss", "vary-miss")
"""Why a request goes to the app and its answer may be stored (RFC 9211, section 2.2)."""

_NOTHING = Directives()
_CONDITIONS = frozenset({"if-match", "if-unmodified-since"})
_CONTENT = frozenset({"content-length", "transfer-encoding"})
_LONGEST_WISH = 1_024  # characters of a request's Cache-Control that are read
_LONG_PATH = MOST_TEXT // 5  # characters, of which one is at most four bytes
_ALONE = frozenset({"range", "if-none-match", "if-modified-since"})  # their answers may not be what others wait for
_VERDICTS = {
    Reuse.SERVE: "it is served",
    Reuse.REFRESH: "it is served, and the app is asked anew in the background",
    Reuse.VALIDATE: "the app is asked whether it still holds",
}


class Passing(NamedTuple):
    """A request that passes by the cache.

    Attributes:
        reason: In the words of RFC 9211: `bypass` or `method`.
        detail: In ours.
    """

    reason: str
    detail: str


class Refused(NamedTuple):
    """A request that is answered neither by the cache nor by the app.

    Attributes:
        kind: The type of the gateway response.
        detail: One sentence for people.
    """

    kind: str
    detail: str


_PROTOCOL = Passing("bypass", "it asks for another protocol")
_OVERRIDE = Passing("bypass", "it may stand for another method")
_CONDITION = Passing("bypass", "its condition is for the app to judge")  # RFC 9111, section 4.3.2
_UNKEYED = Passing("bypass", "it has content, which is no part of its key")
_COOKIES = Passing("bypass", "it has cookies, and the policy has a ttl and names none")
_METHOD = Passing("method", "its method is not cached here")
NOBODY = Passing("bypass", "nobody can tell whose the response would be")
"""A request of which nobody can tell whose the response to it would be, as the policy says it has to be somebody's."""

_WITHHELD = "what is stored is not for a request with Authorization, so the app is asked"

Found: TypeAlias = Answer | Exchange | Passing | Refused
"""What becomes of a request."""


@final
class Lookup:
    """One policy over one cache.

    Args:
        cache: The cache.
        policy: The policy.
        clock: The clock to go by.
        method: The method's name, a scope of what is stored; None where it has none.
        chance: Gives a number from 0 to 1, for jitter.

    Attributes:
        cache: The cache.
        policy: The policy.
        clock: The clock.
        rules: What may be stored.
        varied: What is added to Vary.
        value_of: Gives a request's fields as responses are selected by them.
        is_detailed: Whether Cache-Status says why a response is not stored.
    """

    def __init__(
        self,
        cache: "ResponseCache",
        policy: CachePolicy,
        clock: Clock,
        method: str | None = None,
        chance: Callable[[], float] = random,
    ) -> None:
        """Work out what does not depend on the request."""
        self.cache: ResponseCache = cache
        self.policy: CachePolicy = policy
        self.clock: Clock = clock
        self.rules: StorageRules = StorageRules(
            ttl=policy.ttl is not None,
            statuses=policy.statuses,
            set_cookies=policy.set_cookies,
            heuristic=policy.heuristic,
        )
        self.varied: tuple[Field, ...] = (field("Vary", ", ".join(policy.vary)),) if policy.vary else ()
        self.is_detailed: bool = cache.is_detailed
        self._notes: dict[tuple[str, str], tuple[Field, ...]] = {}
        self._methods = policy.methods if policy.stores else frozenset[str]()
        self._key = KeyMaker(policy)
        self.value_of: Callable[[Request], FieldValue] = _value_of(policy.normalize)
        # Where clients need leave to invalidate, min-fresh and max-age may not have the app asked without it.
        self._is_obedient = policy.ttl is None and policy.invalidate is None
        self._tags = () if callable(policy.tags) else cast("tuple[str, ...]", policy.tags)  # as they were checked
        self._wait_us = round(policy.wait * 1_000_000)
        self._lifetime = None if policy.ttl is None else float(policy.ttl)
        self._forwarded = {reason: (forwarded_status(reason, stored=True), *self.varied) for reason in REASONS}
        self._unkept = {reason: (forwarded_status(reason), *self.varied) for reason in REASONS}
        self._scope = () if method is None else (method_scope(method),)
        self._chance = chance
        self._warns = policy.invalidate is not None and policy.unauthorized == "SUCCEED_WITH_RESPONSE_HEADER"
        self._keys_authorization = "authorization" in cast("KeyParts", policy.key).headers  # as the policy checked it
        self._ignores_cookies = policy.ttl is None or policy.cookies is not None
        odd = {"authorization", "cache-control", "pragma", "upgrade", *_CONTENT, *METHOD_OVERRIDES, *_CONDITIONS}
        self._odd = frozenset(odd if self._ignores_cookies else {*odd, "cookie"})

    def ask(self, request: Request, now_us: int, owner: Owner = EVERYBODY) -> Found | Awaitable[Found]:
        """What becomes of a request.

        Args:
            request: The request.
            now_us: The clock's microseconds.
            owner: Whose a response to it is.

        Returns:
            An answer; an exchange, with which it goes to the app; that it passes by; or that it is refused. An
            awaitable of either (a `Pause` within, for threads) where another request or a shared tier is waited for.
        """
        news = self.cache.news
        if news is not None:
            waiting = news.synchronise(now_us)
            if waiting is not None:
                return run(self._informed(waiting, request, now_us, owner))
        return self._look(request, now_us, owner)

    def _informed(self, waiting: Awaitable[None], request: Request, now_us: int, owner: Owner) -> Steps[Found]:
        """What becomes of a request, once it is known what other workers have invalidated."""
        yield waiting
        found: Found = yield self._look(request, now_us, owner)
        return found

    def _look(self, request: Request, now_us: int, owner: Owner) -> Found | Awaitable[Found]:
        method = request.method
        picked = request.reader.picked(request.native)
        if method not in self._methods:
            return self._other(request, picked)
        odd = not self._odd.isdisjoint(picked)
        if odd:
            passing = self._passes_by(request.method, picked)
            if passing is not None:
                return passing
        if method in KEYED_BY_CONTENT:
            return run(self._with_content(request, picked, owner))
        cache = self.cache
        key = self._key(request, picked, owner.name)
        if cache.searches:
            key = self._searched(key, request, picked, owner.name)
        stored = cache.find(key, self.value_of(request), picked.get("origin"))
        if stored is not None and not odd and now_us < stored.fresh_until_us and not stored.must_validate:
            return answer(stored, method, picked, now_us, owner.mode)
        directives = _directives(picked) if odd else _NOTHING
        return self._consider(Asked(request, picked, directives, owner, "", key), stored, now_us)

    def explain(self, request: Request, now_us: int, owner: Owner = EVERYBODY) -> Steps[list[str]]:
        """What would become of a request, and why, in sentences; nothing is changed, and no other request waited for.

        What workers share is looked at too.
        """
        picked, method = request.picked, request.method
        if method not in self._methods:
            return [uncached(method)]
        passing = self._passes_by(request.method, picked)
        if passing is not None:
            return [f"it passes by: {passing.detail}"]
        if method in KEYED_BY_CONTENT:
            return ["its content is part of the key, and is not known here"]
        cache = self.cache
        if cache.news is not None:
            yield cache.news.synchronise(now_us)
        key = self._key(request, picked, owner.name)
        if cache.searches:
            key = self._searched(key, request, picked, owner.name)
        asked = Asked(request, picked, _directives(picked), owner, "", key)
        held = cache.find(key, self.value_of(request), picked.get("origin"))
        stored = self._allowed(asked, held)
        verdict = None if stored is None else self._verdict(stored, asked, now_us)
        if verdict in (None, Reuse.VALIDATE) and not self._goes_alone(asked, stored, obeys=self.policy.ttl is None):
            found = yield from cache.fetch(key, self.value_of(request), now_us)
            if found is not None:
                stored, verdict = found, self._verdict(found, asked, now_us)
        if stored is None or verdict is None:
            missed = self._missed(key, host=picked.get("host")) if held is None else _WITHHELD
            return [missed, self._made(owner.mode)]
        age, said = stored.age(now_us), f"a response of {stored.status}, keyed as {owner.mode}"
        standing = f"{said}, {age:.0f} s old, fresh for {stored.lifetime - age:.0f} s more"
        if age >= stored.lifetime:
            standing = f"{said}, stale for {age - stored.lifetime:.0f} s"
        if verdict is Reuse.VALIDATE and not stored.has_validator:
            return [f"{standing}: the app is asked anew"]
        return [f"{standing}: {_VERDICTS[verdict]}"]

    def _missed(self, key: CacheKey, host: str | None) -> str:
        """Why nothing is found under a key, in words."""
        if not host:
            return "no host was given, which is part of the key; give the whole URL or a Host to find what is stored"
        objection = self.cache.objections.get(hash(key))
        why = "" if objection is None else f"; the last answer was not stored: {objection}"
        return f"nothing that it may be given is stored, so the app is asked{why}"

    def _made(self, mode: str) -> str:
        """By what terms a response would be stored, and under which key, in words."""
        return f"its policy is {self.policy.terms}; its key is {self.policy.key_terms}, keyed as {mode}"

    def note(self, reason: str, detail: str = "") -> tuple[Field, ...]:
        """The Cache-Status of a request that passes by the cache."""
        known = self._notes.get((reason, detail))
        if known is None:
            known = self._notes[reason, detail] = (forwarded_status(reason, detail=detail if self.is_detailed else ""),)
        return known

    def owner(self, request: Request, principal: str | None, claims: Mapping[str, Any]) -> Owner | None:
        """As `owner_of`; None also where the policy's function fails, so that the request passes by.

        Args:
            request: The request.
            principal: Whoever was verified to send it.
            claims: What is known of the principal. Any: as a token has them.
        """
        if request.method not in self._methods:
            return EVERYBODY  # nothing is stored, so nobody's
        try:
            return owner_of(self.policy.per, request, principal, claims)
        except Exception as error:  # noqa: BLE001 - a function of the user's may raise anything
            self.cache.note_fault(self.policy, "per", "the request passes by the cache", error)
            return None

    # ---- before anything is looked up

    def _other(self, request: Request, picked: Mapping[str, str]) -> Found:
        """A method that is not cached; if it is unsafe, it invalidates."""
        if is_safe(request.method):
            return _METHOD
        return Invalidating(self, request, picked)

    def _passes_by(self, method: str, picked: Mapping[str, str]) -> Passing | None:
        if "upgrade" in picked:
            return _PROTOCOL
        if not METHOD_OVERRIDES.isdisjoint(picked):
            return _OVERRIDE
        if not _CONDITIONS.isdisjoint(picked):
            return _CONDITION
        if picked.get("cookie") and not self._ignores_cookies:  # an empty field has none
            return _COOKIES
        if not _CONTENT.isdisjoint(picked) and method not in KEYED_BY_CONTENT and _has_content(picked):
            return _UNKEYED
        return None

    def _with_content(self, request: Request, picked: Mapping[str, str], owner: Owner) -> Steps[Found]:
        """A request whose content is part of the key."""
        content = None if request.read_body is None else (yield request.read_body(self.policy.max_request_bytes))
        if content is None:
            return Passing("bypass", "its content cannot be read, or is longer than max_request_bytes")
        digest = content_digest(content, request.value("content-type"), request.value("content-encoding"))
        key = (*self._key(request, picked, owner.name), digest)
        stored = self.cache.find(key, self.value_of(request), picked.get("origin"))
        asked = Asked(request, picked, _directives(picked), owner, digest, key)
        found: Found = yield self._consider(asked, stored, self.clock.now_us())
        return found

    def _searched(self, key: CacheKey, request: Request, picked: Mapping[str, str], owner: str) -> CacheKey:
        """The key as earlier responses of the path have said that queries are to be taken (No-Vary-Search)."""
        base = self._key.without_query(key)
        search = None if base is None else self.cache.search(base)
        return key if search is None else self._key(request, picked, owner, search)

    # ---- after the look

    def _consider(self, asked: Asked, stored: StoredResponse | None, now_us: int) -> Found | Awaitable[Found]:
        """What becomes of a request whose key has nothing stored, or something that cannot be served at once."""
        directives, obeys = asked.directives, self.policy.ttl is None
        if self.policy.invalidate is not None and _asks_anew(directives):
            decided = self._invalidation(asked, stored, self.policy.invalidate)
            if decided is not None:
                return decided
            obeys = False
        found = stored
        if stored is not None or asked.owner.name:
            stored = self._allowed(asked, stored)
        if stored is not None:
            verdict = reuse(stored, directives, self.policy, now_us, obeys=obeys and self._is_obedient)
            if verdict is Reuse.SERVE:
                return self._answer(stored, asked, now_us)
            if verdict is Reuse.REFRESH and not asked.digest:  # in the background its content is not there any more
                return self._refreshing(stored, asked, now_us)
        if obeys and "only-if-cached" in directives:
            return Refused("NOT_CACHED", "The request takes only what is cached, and that cannot be served.")
        reason = self._reason(asked, found, stored, obeys=obeys)
        if self._goes_alone(asked, stored, obeys=obeys):
            return Fill(self, asked, reason, stored)
        return self._fly(asked, stored, reason, now_us)

    def _invalidation(
        self, asked: Asked, stored: StoredResponse | None, may: Callable[[Request], bool]
    ) -> Found | Awaitable[Found] | None:
        """What becomes of a client's wish to invalidate; None where it is ignored."""
        if self._is_allowed(may, asked.request):
            if self.cache.news is not None:
                return run(self._told(asked))
            if stored is not None:
                self.forget(asked, stored)  # now: what the app answers may be a 304 or a part, which replaces nothing
            return Fill(self, asked, "request")
        if self.policy.unauthorized == "FAIL_WITH_403":
            return Refused("ACCESS_DENIED", "This client may not invalidate what is cached.")
        return None

    def _is_allowed(self, may: Callable[[Request], bool], request: Request) -> bool:
        try:
            return may(request)
        except Exception as error:  # noqa: BLE001 - a function of the user's may raise anything
            self.cache.note_fault(self.policy, "invalidate", "the client counts as one that may not", error)
            return False

    def _allowed(self, asked: Asked, stored: StoredResponse | None) -> StoredResponse | None:
        """The stored response that the request may be given: its own, or one that the app lets everybody have."""
        if stored is None and asked.owner.name and self.policy.per is None:
            found = self.cache.find(self._shared_key(asked), self.value_of(asked.request), asked.picked.get("origin"))
            return found if found is not None and self.is_for_all(found.directives) else None
        if stored is None or not self.is_restricted(asked):
            return stored
        return stored if allows_authorization(stored.directives) else None

    def is_restricted(self, asked: Asked) -> bool:
        """Tell whether the app alone may let a response to this request be shared (RFC 9111, section 3.5).

        So it is with Authorization, unless a gate has verified the client before the cache was looked at, or the whole
        field is in the key, so that each credential has copies of its own. Of several lines a gate may have verified
        one, and the app may read another; a server that tells who asks may keep the field to itself.
        """
        credential = asked.picked.get("authorization")
        if credential is None or (credential and self._keys_authorization):
            return False
        return not asked.owner.verified or len(asked.request.headers.get_all("authorization")) > 1

    def _reason(self, asked: Asked, found: StoredResponse | None, stored: StoredResponse | None, *, obeys: bool) -> str:
        """Why a request goes to the app (RFC 9211, section 2.2).

        Args:
            asked: The request.
            found: What is selected by it.
            stored: What of that it may be given.
            obeys: Whether its directives count.
        """
        if stored is None and found is None:
            return "vary-miss" if self.cache.has(asked.key) else "uri-miss"
        return "request" if stored is None or (obeys and _asks_anew(asked.directives)) else "stale"

    def _told(self, asked: Asked) -> Steps[Found]:
        """Have the path forgotten wherever it is shared; the app is asked after that, so what it brings is valid."""
        yield self.cache.publish([Invalidation("scope", path_scope(asked.key[3]))])
        return Fill(self, asked, "request")

    def _verdict(self, stored: StoredResponse, asked: Asked, now_us: int) -> Reuse:
        return reuse(stored, asked.directives, self.policy, now_us, obeys=self._is_obedient)

    def _goes_alone(self, asked: Asked, stored: StoredResponse | None, *, obeys: bool) -> bool:
        """Tell whether a request waits for no other one, nor any for it, and none is looked for that workers share."""
        if asked.request.method == "HEAD" or "no-store" in asked.directives or self.is_restricted(asked):
            return True
        return (obeys and _asks_anew(asked.directives)) or (stored is None and not _ALONE.isdisjoint(asked.picked))

    def _fly(self, asked: Asked, stored: StoredResponse | None, reason: str, now_us: int) -> Found | Awaitable[Found]:
        """Ask the app, or wait for whoever is asking it the same."""
        place = self.cache.flights.join(asked.key, now_us) if self._wait_us else None
        if isinstance(place, Wait):
            return run(self._waited(place, asked, stored, reason, now_us))
        return self._ask_app(place if isinstance(place, Lead) else None, asked, stored, reason)

    def _waited(
        self, place: Wait[StoredResponse], asked: Asked, stored: StoredResponse | None, reason: str, now_us: int
    ) -> Steps[Found]:
        brought = yield from self._joined(place, asked, now_us)
        if isinstance(brought, StoredResponse):
            return self._answer(brought, asked, self.clock.now_us())
        found: Found = yield self._ask_app(brought, asked, stored, reason)
        return found

    def _ask_app(
        self, lead: Lead[StoredResponse] | None, asked: Asked, stored: StoredResponse | None, reason: str
    ) -> Found | Awaitable[Found]:
        """Ask the app, unless what it would answer has come meanwhile, here or where it is shared."""
        try:
            landed = None
            if lead is not None:  # something may have landed since the look before
                landed = self.cache.find(asked.key, self.value_of(asked.request), asked.picked.get("origin"))
            if landed is not None and landed is not stored:
                now_us = self.clock.now_us()
                if self._may_give(landed, asked, now_us):
                    return self._landed(landed, asked, lead, now_us)
            if self.cache.shared is not None:
                return run(self._fetched(lead, asked, stored, reason))
            return Fill(self, asked, reason, stored, lead)
        except BaseException:
            if lead is not None:
                lead.fail()
            raise

    def _fetched(
        self, lead: Lead[StoredResponse] | None, asked: Asked, stored: StoredResponse | None, reason: str
    ) -> Steps[Found]:
        """What another worker has stored, or a request that goes to the app."""
        now_us = self.clock.now_us()
        try:
            found = yield from self.cache.fetch(asked.key, self.value_of(asked.request), now_us)
            if found is None:
                return Fill(self, asked, reason, stored, lead)
            self.cache.put(asked.key, found, now_us)
            if self._may_give(found, asked, now_us):
                return self._landed(found, asked, lead, now_us)
            return Fill(self, asked, reason, found, lead)
        except BaseException:
            if lead is not None:
                lead.fail()
            raise

    def _joined(self, place: object, asked: Asked, now_us: int) -> Steps[Lead[StoredResponse] | StoredResponse | None]:
        """Lead a flight, or what another one has brought that the request may be given; None to go alone."""
        key, value_of = asked.key, self.value_of(asked.request)
        until_us = now_us + self._wait_us
        while True:
            if isinstance(place, Wait):
                if not asked.request.may_wait:
                    return None
                seconds = (until_us - now_us) / 1_000_000
                place = yield Pause(partial(place.wait, seconds), partial(place.wait_async, seconds))
                now_us = self.clock.now_us()
            if isinstance(place, Lead):
                return cast("Lead[StoredResponse]", place)
            if not isinstance(place, StoredResponse):
                return None
            if matches(place.vary, value_of):
                return place if self._may_give(place, asked, now_us) else None
            if len(key) > len(asked.key):
                return None
            names = [name for name, _ in place.vary]  # it is of another variant: fly with those of the same
            key = (*asked.key, *[f"{name}={value!r}" for name, value in selected_fields(names, value_of)])
            if now_us >= until_us:
                return None
            place = self.cache.flights.join(key, now_us)

    def _landed(self, stored: StoredResponse, asked: Asked, lead: Lead[StoredResponse] | None, now_us: int) -> Answer:
        if lead is not None:
            lead.land(stored)
        return self._answer(stored, asked, now_us)

    def _may_give(self, stored: StoredResponse, asked: Asked, now_us: int) -> bool:
        if not self.cache.is_valid(stored):
            return False
        if self._verdict(stored, asked, now_us) is not Reuse.VALIDATE:
            return True
        return may_serve_on_error(stored, asked.directives, self.policy, now_us) and stored.fresh_until_us < now_us

    def _answer(self, stored: StoredResponse, asked: Asked, now_us: int) -> Answer:
        mode = "public" if stored.shared else asked.owner.mode
        made = answer(stored, asked.request.method, asked.picked, now_us, mode)
        return warned(made) if self._warns and _asks_anew(asked.directives) else made

    def _refreshing(self, stored: StoredResponse, asked: Asked, now_us: int) -> Answer:
        """Serve it stale; whoever leads the flight has the app asked in the background (RFC 5861, section 3)."""
        made = self._answer(stored, asked, now_us)
        if "no-store" in asked.directives:
            return made  # what the app would answer to this request may not be stored
        context = copy_context()  # what refreshes leads the flight, and nobody else
        lead = context.run(self.cache.flights.join, asked.key, now_us)
        if not isinstance(lead, Lead):
            return made
        landed = self.cache.find(asked.key, self.value_of(asked.request))  # since the look before
        landed = self._allowed(asked, landed)
        if landed is not None and landed is not stored and self._may_give(landed, asked, now_us):
            return self._landed(landed, asked, lead, now_us)
        request = copy(asked.request)
        request.method = "GET"  # where it was HEAD: only a whole response can be stored
        unconditional = {name: value for name, value in asked.picked.items() if name not in _ALONE}
        anew = asked._replace(request=request, picked=unconditional, directives=_NOTHING)
        return made.with_refresh(Fill(self, anew, "stale", stored, lead, context))

    # ---- for fills

    def forwarded(self, reason: str, objection: str | None) -> tuple[Field, ...]:
        """What is added to the head of the app's response: Cache-Status and Vary.

        Args:
            reason: Why the app was asked; one of `REASONS`.
            objection: Why its answer is not stored; None where it may be.
        """
        if objection is None:
            return self._forwarded[reason]
        if not self.is_detailed:
            return self._unkept[reason]
        return (forwarded_status(reason, detail=objection), *self.varied)

    def lifetime(self, status: int, head: Head, wall: float) -> float:
        """For how many seconds a response is fresh: the policy's TTL where it has one for this status, less jitter."""
        seconds = self._lifetime
        if seconds is None or not is_lifetime_given(status, self.rules):
            seconds = freshness_lifetime(status, head, wall, heuristic=self.policy.heuristic)
        jitter = self.policy.jitter
        return seconds * (1 - jitter * self._chance()) if jitter else seconds

    def is_for_all(self, directives: Directives) -> bool:
        """Tell whether the app lets everybody have a response that was made for one principal.

        Where it says `private` as well, the restriction counts.
        """
        if self.policy.per is not None or ("private" in directives and not directives.fields("private")):
            return False
        return "public" in directives or "s-maxage" in directives

    def key_of(self, asked: Asked, *, shared: bool, search: SearchVariance | None) -> CacheKey:
        """The key under which a response is put."""
        owner = "" if shared else asked.owner.name
        if owner == asked.owner.name and search is None and not self.cache.searches:
            return asked.key
        if asked.digest:
            return (*self._key(asked.request, asked.picked, owner), asked.digest)
        return self._key(asked.request, asked.picked, owner, search)

    def note_search(self, key: CacheKey, search: SearchVariance | None) -> None:
        """Note how queries of a path are to be taken from now on, as the response says that was just put."""
        self.cache.note_search(self._key.without_query(key), search)

    def is_for_waiters(self, asked: Asked, key: CacheKey) -> bool:
        """Tell whether a response is for all who wait for it.

        Their queries may differ, as an earlier response has allowed; then this one has to allow it too.

        Args:
            asked: The request that it answers.
            key: Where it was put.
        """
        query = asked.key[QUERY]
        return key[QUERY] == query or query == self._key(asked.request, asked.picked)[QUERY]

    def forget(self, asked: Asked, stored: StoredResponse) -> None:
        """Forget a response that a request has found."""
        self.cache.remove(self._key_where(asked, stored), stored)

    def recall(self, asked: Asked, stored: StoredResponse) -> Awaitable[None] | None:
        """Have other workers forget it too; None if that is done, or an awaitable."""
        return self.cache.recall(self._key_where(asked, stored), stored)

    def _key_where(self, asked: Asked, stored: StoredResponse) -> CacheKey:
        """The key under which a request has found a response."""
        return self._shared_key(asked) if stored.shared and asked.owner.name else asked.key

    def _shared_key(self, asked: Asked) -> CacheKey:
        """Where a response to the request is that everybody may have."""
        key = self.key_of(asked, shared=True, search=None)
        return self._searched(key, asked.request, asked.picked, "") if self.cache.searches and not asked.digest else key

    def tags(self, request: Request) -> tuple[str, ...] | None:
        """The policy's tags of a response to a request; None where its function fails to tell them."""
        tags = self.policy.tags
        if not callable(tags):
            return self._tags
        try:
            given: object = tags(request)
            return checked_texts([given] if isinstance(given, str) else given, "cache tags")
        except Exception as error:  # noqa: BLE001 - a function of the user's may raise anything
            self.cache.note_fault(self.policy, "tags", "what it was asked for is not stored", error)
            return None

    def scopes(self, asked: Asked, groups: Iterable[str], tags: Iterable[str]) -> tuple[str, ...]:
        """What invalidates a response to a request.

        Args:
            asked: The request.
            groups: The groups that the response names.
            tags: The policy's tags.
        """
        _, scheme, host, path, *_ = asked.key
        scopes = (path_scope(path), *self._scope)
        if len(path) > _LONG_PATH and (told := bounded(Invalidation("scope", scopes[0])).text) != scopes[0]:
            scopes += (told,)
        if tags:
            scopes += tuple([tag_scope(tag) for tag in tags])
        if groups:
            scopes += tuple([group_scope(scheme, host, group) for group in groups])
        return scopes


def _value_of(names: Iterable[str]) -> Callable[[Request], FieldValue]:
    """Gives a request's fields, those of these names without what means nothing to the app."""
    same = frozenset(names)
    return (lambda request: partial(normalized_value, request.value, same)) if same else attrgetter("value")


def uncached(method: str) -> str:
    """What becomes of a request whose method is not cached, in words."""
    if is_safe(method):
        return f"{method} is not cached here"
    return f"{method} is not cached here; it invalidates its path, unless it fails"


def _has_content(picked: Mapping[str, str]) -> bool:
    return "transfer-encoding" in picked or picked["content-length"] not in {"", "0"}


def _directives(picked: Mapping[str, str]) -> Directives:
    """The request's directives; the old Pragma counts where there is no Cache-Control (RFC 9111, section 5.4)."""
    if "cache-control" in picked:
        return parse_directives([picked["cache-control"][:_LONGEST_WISH]])
    if "pragma" in picked and "no-cache" in parse_directives([picked["pragma"]]):
        return Directives({"no-cache": None})
    return _NOTHING


def _asks_anew(directives: Directives) -> bool:
    return "no-cache" in directives or directives.seconds("max-age") == 0
