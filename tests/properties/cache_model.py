"""A shared cache as RFC 9111 has it, said a second time: a list of responses that is looked through, nothing clever.

It shares no line with what it checks: texts are read here by plain splitting, dates by the standard library. It knows
the rules of the standard, and where these leave a choice the one that apigate's documentation says it makes.

Where apigate may do either of two things (a response of no more use may be forgotten at any time; a refresh in the
background may be left out for a while after storage refused an answer) the model gives every outcome that is right.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from fractions import Fraction
from itertools import chain, combinations
from math import floor

__all__ = ["Model", "Outcome", "Question", "Said", "Visit"]

Fields = dict[str, str]
"""Fields by lower-case name; none comes twice here."""

CACHEABLE_BY_TTL = {200, 203, 204, 300, 301, 308}
UNDERSTOOD = {200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 409, 410, 414, 501}
FAILURES = {500, 502, 503, 504}
DESCRIBE_CONTENT = {"content-type", "content-length", "content-encoding", "content-range", "etag"}
NEVER_KEPT = {"age", "cache-status", "content-length", "connection"}
FOREVER = 2**31
VALIDATOR_KEEPS = 3_600
REFUSAL_KEEPS = 10


@dataclass(frozen=True)
class Visit:
    """A request of a client."""

    method: str
    path: str
    query: str
    fields: tuple[tuple[str, str], ...]

    @property
    def named(self) -> Fields:
        """Its fields."""
        return dict(self.fields)


@dataclass(frozen=True)
class Said:
    """What the app answers when it is asked."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes
    broken: str = ""  # "first", "within" or "short"


@dataclass(frozen=True)
class Question:
    """What the app was asked: only what a cache may change."""

    method: str
    conditions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """What a client sees, and what the app was asked for it."""

    origin: str
    """Whose response it is: "store", "app", "gate" (504), or "none" where the app raised."""
    status: int = 0
    body: bytes = b""
    age: int | None = None
    made: str | None = None
    etag: str | None = None
    asked: tuple[Question, ...] = ()


@dataclass
class Stored:
    """A response that is kept."""

    path: str
    query: str
    owner: str | None
    nominated: dict[str, str | None]
    status: int
    fields: Fields
    body: bytes
    age_then: Fraction
    then: Fraction
    lifetime: Fraction

    def age(self, now: Fraction) -> Fraction:
        """Current age (4.2.3)."""
        return self.age_then + (now - self.then)

    def is_fresh(self, now: Fraction) -> bool:
        """Freshness (4.2)."""
        return self.lifetime > self.age(now)


def directives(text: str | None) -> dict[str, str]:
    """Cache-Control, of texts without a comma in quotes; the first of two counts."""
    found: dict[str, str] = {}
    for part in (text or "").split(","):
        name, _, argument = part.strip().partition("=")
        if name and name.lower() in ("no-cache", "private") and not argument:
            found[name.lower()] = ""  # for the whole response, whatever it says of fields beside
        elif name:
            found.setdefault(name.lower(), argument.strip('"'))
    return found


def seconds(said: dict[str, str], name: str) -> int | None:
    """A directive's seconds; 0 where they cannot be read."""
    if name not in said:
        return None
    return int(said[name]) if said[name].isdigit() else 0


def date(text: str | None) -> Fraction | None:
    """An HTTP-date as seconds; None for anything else."""
    try:
        return None if text is None else Fraction(int(parsedate_to_datetime(text).timestamp()))
    except ValueError:
        return None


def response_directives(fields: Fields) -> tuple[dict[str, str], bool]:
    """Those that count, and whether they are meant for such caches alone (RFC 9213)."""
    if fields.get("cdn-cache-control"):
        return directives(fields["cdn-cache-control"]), True
    return directives(fields.get("cache-control")), False


@dataclass
class Model:
    """One cache.

    Args:
        ttl: The policy's lifetime; None to honour the app's.
        refresh_window: The policy's stale-while-revalidate.
        error_window: The policy's stale-if-error.
        known: Credentials that a gate verifies before the cache is asked.
        owns: What has copies of its own: "" for nothing, "principal" for who was verified, "credential" for each.
    """

    ttl: Fraction | None = None
    refresh_window: Fraction = 0
    error_window: Fraction = 0
    known: frozenset[str] = frozenset()
    owns: str = ""
    kept: list[Stored] = field(default_factory=list)
    refused: dict[tuple[str, str, str | None], Fraction] = field(default_factory=dict)

    # ---- what may come of a visit

    def visits(
        self, visit: Visit, app: Callable[[Question], Said], now: Fraction, wall: Fraction, delay: Fraction
    ) -> Iterator[tuple[Outcome, int, "Model"]]:
        """Every outcome that is right, with how many responses have been forgotten for it, and the cache after it.

        Args:
            visit: The request.
            app: What the app answers to a question.
            now: Seconds that never go back.
            wall: Seconds since 1970-01-01 UTC.
            delay: Seconds that the app takes to begin.
        """
        useless = [
            place
            for place, stored in enumerate(self.kept)
            if key_of(stored) == self.key(visit) and self.is_useless(stored, now)
        ]
        for forgotten in chain.from_iterable(combinations(useless, number) for number in range(len(useless) + 1)):
            for refreshes in (True, False):
                after = deepcopy(self)
                after.kept = [stored for place, stored in enumerate(after.kept) if place not in forgotten]
                yield _Once(after, visit, app, now, wall, delay, refreshes=refreshes).outcome(), len(forgotten), after

    # ---- the rules

    def key(self, visit: Visit) -> tuple[str, str, str | None]:
        """What a response is found by: path, query, and whose it is."""
        return visit.path, visit.query, visit.named.get("authorization") if self.owns else None

    def must_ask_the_app(self, visit: Visit) -> bool:
        """Whether the app alone can judge the credential (3.5)."""
        credential = visit.named.get("authorization")
        return credential is not None and credential not in self.known and self.owns != "credential"

    def is_nobodys(self, visit: Visit) -> bool:
        """Whether it passes by, as it has no owner though the policy wants one."""
        return self.owns == "principal" and visit.named.get("authorization") not in self.known

    def is_useless(self, stored: Stored, now: Fraction) -> bool:
        """Whether it may be forgotten: stale, and longer than any window or a validator is of use."""
        windows = [self.window(stored, "stale-while-revalidate"), self.window(stored, "stale-if-error")]
        validator = VALIDATOR_KEEPS if {"etag", "last-modified"} & stored.fields.keys() else 0
        return stored.age(now) - stored.lifetime >= max(*windows, validator)

    def window(self, stored: Stored, name: str) -> Fraction:
        """For how long it may be served stale (RFC 5861)."""
        said, _ = response_directives(stored.fields)
        if self.never_stale(said):
            return 0
        own = self.refresh_window if name == "stale-while-revalidate" else self.error_window
        given = seconds(said, name)
        return own if given is None else given

    @staticmethod
    def never_stale(said: dict[str, str]) -> bool:
        """Sections 5.2.2.2, 5.2.2.4, 5.2.2.8 and 5.2.2.10."""
        whole = "no-cache" in said and not said["no-cache"]
        return whole or bool({"must-revalidate", "proxy-revalidate", "s-maxage"} & said.keys())

    def lifetime(self, status: int, fields: Fields, wall: Fraction) -> Fraction | None:
        """Freshness lifetime (4.2.1); None where nothing tells."""
        if self.ttl is not None and status in CACHEABLE_BY_TTL:
            return self.ttl
        said, targeted = response_directives(fields)
        for name in ("s-maxage", "max-age"):
            if name in said:
                return seconds(said, name)
        if "expires" in fields and not targeted:
            expires, sent = date(fields["expires"]), date(fields.get("date"))
            return 0 if expires is None else max(0, expires - (wall if sent is None else sent))
        return None

    def may_store(self, visit: Visit, status: int, fields: Fields, wall: Fraction) -> bool:  # noqa: PLR0911 - as reuse
        """Section 3, and what apigate asks beyond it: a lifetime or no-cache, and no cookie."""
        said, _ = response_directives(fields)
        understood = "must-understand" in said and status in UNDERSTOOD
        if visit.method != "GET" or status in (206, 304) or "set-cookie" in fields:
            return False
        if "no-store" in directives(visit.named.get("cache-control")):
            return False
        if ("no-store" in said and not understood) or ("must-understand" in said and not understood):
            return False
        if "private" in said and not said["private"] and self.owns != "principal":
            return False
        if self.must_ask_the_app(visit) and not {"public", "s-maxage", "must-revalidate"} & said.keys():
            return False
        if "*" in fields.get("vary", ""):
            return False
        return self.lifetime(status, fields, wall) is not None or "no-cache" in said


class _Once:
    """One visit."""

    def __init__(
        self, cache: Model, visit: Visit, app, now: Fraction, wall: Fraction, delay: Fraction, *, refreshes: bool
    ):
        self.cache, self.visit, self.app = cache, visit, app
        self.now, self.wall, self.delay = now, wall, delay
        self.refreshes = refreshes
        self.asked: list[Question] = []
        sent = visit.named
        self.sent = sent
        if cache.ttl is not None:
            self.wants = {}
        elif "cache-control" in sent:
            self.wants = directives(sent["cache-control"])
        else:
            self.wants = {name: "" for name in directives(sent.get("pragma")) if name == "no-cache"}

    # ---- section 4

    def outcome(self) -> Outcome:
        visit, cache = self.visit, self.cache
        if visit.method not in ("GET", "HEAD"):
            return self.unsafe()
        if "if-match" in self.sent or cache.is_nobodys(visit) or (cache.ttl is not None and "cookie" in self.sent):
            return self.passed(self.ask({}), None, store=False)
        stored = self.selected()
        if stored is not None:
            how = self.reuse(stored)
            if how == "serve":
                return self.served(stored)
            if how == "refresh":
                return self.refreshed(stored)
        if "only-if-cached" in self.wants:
            return Outcome("gate", 504)
        return self.forwarded(stored)

    def selected(self) -> Stored | None:
        """The latest that matches (4.1), if the request may be given it (3.5)."""
        for stored in self.cache.kept:
            if key_of(stored) == self.cache.key(self.visit) and self.has_same(stored.nominated):
                said, _ = response_directives(stored.fields)
                if self.cache.must_ask_the_app(self.visit) and not (
                    {"public", "s-maxage", "must-revalidate"} & said.keys()
                ):
                    return None
                return stored
        return None

    def has_same(self, nominated: dict[str, str | None]) -> bool:
        return all(self.sent.get(name) == value for name, value in nominated.items())

    def reuse(self, stored: Stored) -> str:  # noqa: PLR0911 - one line for each rule
        """Sections 4.2.4, 5.2.1 and 5.2.2.4; RFC 5861, section 3."""
        said, _ = response_directives(stored.fields)
        if "no-cache" in said and not said["no-cache"]:
            return "ask"
        if "no-cache" in self.wants:
            return "ask"
        age = stored.age(self.now)
        most, least = seconds(self.wants, "max-age"), seconds(self.wants, "min-fresh")
        if most is not None and (age > most or most == 0):
            return "ask"
        if least is not None and stored.lifetime - age < least:
            return "ask"
        if stored.is_fresh(self.now):
            return "serve"
        if self.cache.never_stale(said):
            return "ask"
        over = age - stored.lifetime
        if "max-stale" in self.wants and over <= (
            seconds(self.wants, "max-stale") if self.wants["max-stale"] else FOREVER
        ):
            return "serve"
        return "refresh" if over < self.cache.window(stored, "stale-while-revalidate") else "ask"

    # ---- answers from the store

    def served(self, stored: Stored) -> Outcome:
        """RFC 9110, section 13.2.2: conditions, then a range."""
        status, body = stored.status, stored.body
        fields = stored.fields
        if 200 <= status <= 299 and self.is_not_modified(fields):
            status, body = 304, b""
        elif status == 200 and self.visit.method == "GET" and "range" in self.sent and self.range_applies(fields):
            status, body = a_part(self.sent["range"], body)
        if self.visit.method == "HEAD":
            body = b""
        age = floor(stored.age(self.now))
        made = fields.get("x-made") if status != 304 else None
        return Outcome("store", status, body, age, made, fields.get("etag"), tuple(self.asked))

    def is_not_modified(self, fields: Fields) -> bool:
        if "if-none-match" in self.sent:
            tag = fields.get("etag")
            wanted = [part.strip().removeprefix("W/") for part in self.sent["if-none-match"].split(",")]
            return tag is not None and (wanted == ["*"] or tag.removeprefix("W/") in wanted)
        since = date(self.sent.get("if-modified-since"))
        changed = date(fields.get("last-modified", fields.get("date")))
        return since is not None and changed is not None and changed <= since

    def range_applies(self, fields: Fields) -> bool:
        if "if-range" not in self.sent:
            return True
        return not self.sent["if-range"].startswith("W/") and self.sent["if-range"] == fields.get("etag")

    def refreshed(self, stored: Stored) -> Outcome:
        """Served stale; the app is asked in the background, unless what it answers to this may not be stored."""
        outcome = self.served(stored)
        if "no-store" in directives(self.sent.get("cache-control")):
            return outcome
        until = self.cache.refused.get(self.cache.key(self.visit))
        may_be_left_out = until is not None and self.now <= until
        if self.refreshes or not may_be_left_out:
            kept = tuple(each for each in self.visit.fields if each[0] not in ("cache-control", "pragma"))
            visit = Visit("GET", self.visit.path, self.visit.query, kept)
            behind = _Once(self.cache, visit, self.app, self.now, self.wall, self.delay, refreshes=True)
            behind.forwarded(stored)
            self.asked = behind.asked
        return Outcome(**{**vars(outcome), "asked": tuple(self.asked)})

    # ---- the app

    def ask(self, conditions: Fields, *, own: bool = False) -> Said:
        """Ask the app; with the client's conditions, or those of the cache alone."""
        named = ("if-none-match", "if-modified-since", "if-range", "range")
        sent = conditions if own else {name: self.sent[name] for name in named if name in self.sent}
        question = Question(self.visit.method, tuple(sorted(sent.items())))
        self.asked.append(question)
        said = self.app(question)
        self.now, self.wall = self.now + self.delay, self.wall + self.delay
        return said

    def unsafe(self) -> Outcome:
        """Section 4.4: a response that is no error invalidates the target and what its Location names."""
        said = self.ask({})
        if said.broken != "first" and said.status < 400:
            location = dict(said.fields).get("location", "")
            gone = {self.visit.path, location}
            self.cache.kept = [stored for stored in self.cache.kept if stored.path not in gone]
        return self.shown(said)

    def forwarded(self, stored: Stored | None) -> Outcome:
        """Sections 3 and 4.3."""
        if stored is None:
            return self.passed(self.ask({}), None, store=True)
        conditions = {
            "if-none-match": stored.fields.get("etag"),
            "if-modified-since": stored.fields.get("last-modified"),
        }
        said = self.ask({name: value for name, value in conditions.items() if value is not None}, own=True)
        if said.broken == "first":
            return self.served(stored) if self.may_stand_in(stored) else self.shown(said)
        if said.status == 304:
            return self.freshened(stored, said)
        if said.status in FAILURES and self.may_stand_in(stored):
            return self.served(stored)
        return self.passed(said, stored, store=True)

    def may_stand_in(self, stored: Stored) -> bool:
        """Where the app fails: 4.3.3; RFC 5861, section 4."""
        said, _ = response_directives(stored.fields)
        if stored not in self.cache.kept or self.cache.never_stale(said) or "no-cache" in self.wants:
            return False
        over = stored.age(self.now) - stored.lifetime
        asked_for = seconds(self.wants, "stale-if-error") or 0
        return over < max(0, asked_for, self.cache.window(stored, "stale-if-error"))

    def freshened(self, stored: Stored, said: Said) -> Outcome:
        """Section 4.3.4: the stored response with the new fields, as if it had come now."""
        came = dict(said.fields)
        fields = {name: value for name, value in stored.fields.items() if name != "age"}
        fields |= {name: value for name, value in came.items() if name not in DESCRIBE_CONTENT | {"age", "connection"}}
        new = self.made(stored.status, self.without_qualified(fields), came, stored.body)
        if self.visit.method == "HEAD":
            return self.served(new)  # which changes nothing that is stored
        if self.cache.may_store(self.visit, stored.status, fields, self.wall):
            self.put(new)
        else:
            self.refuse(stored)
        return self.served(new)

    def passed(self, said: Said, stored: Stored | None, *, store: bool) -> Outcome:
        """The app's response goes to the client, and is kept if it may be (section 3)."""
        if not store or said.broken == "first":
            return self.shown(said)
        fields = dict(said.fields)
        if self.cache.may_store(self.visit, said.status, fields, self.wall):
            if not said.broken:
                self.put(self.made(said.status, self.without_qualified(fields), fields, said.body))
        else:
            self.refuse(stored if said.status < 500 else None)
        return self.shown(said)

    def shown(self, said: Said) -> Outcome:
        if said.broken == "first":
            return Outcome("none", asked=tuple(self.asked))
        fields = dict(said.fields)
        body = b"" if self.visit.method == "HEAD" or said.status in (204, 304) else said.body
        made = fields.get("x-made") if said.status != 304 else None
        return Outcome("app", said.status, body, None, made, fields.get("etag"), tuple(self.asked))

    # ---- what is kept

    def without_qualified(self, fields: Fields) -> Fields:
        """Without what no-cache and private name (5.2.2.4, 5.2.2.7)."""
        said = directives(fields.get("cache-control"))
        named = {said.get("no-cache", "").lower(), said.get("private", "").lower()}
        return {name: value for name, value in fields.items() if name not in named | NEVER_KEPT}

    def made(self, status: int, fields: Fields, came: Fields, body: bytes) -> Stored:
        nominated = {name.strip().lower() for name in fields.get("vary", "").split(",")} - {""}
        sent = date(came.get("date"))
        apparent = 0 if sent is None else max(0, floor(self.wall) - sent)
        lifetime = self.cache.lifetime(status, fields, self.wall)
        return Stored(
            *self.cache.key(self.visit),
            nominated={name: self.sent.get(name) for name in nominated},
            status=status,
            fields=fields,
            body=body,
            age_then=max(apparent, int(came.get("age", "0")) + self.delay),
            then=self.now,
            lifetime=lifetime or 0,
        )

    def put(self, new: Stored) -> None:
        """Keep it, instead of what was selected by the same request fields."""
        if self.reuse(new) == "ask" or not new.is_fresh(self.now):
            self.cache.refused[key_of(new)] = self.now + REFUSAL_KEEPS  # nobody had any use of it
        same = [each for each in self.cache.kept if key_of(each) == key_of(new) and each.nominated == new.nominated]
        self.cache.kept = [new, *[each for each in self.cache.kept if each not in same]]

    def refuse(self, stored: Stored | None) -> None:
        """Keep nothing; what was stored before is no longer what the app answers."""
        self.cache.refused[self.cache.key(self.visit)] = self.now + REFUSAL_KEEPS
        self.cache.kept = [each for each in self.cache.kept if each is not stored]


def key_of(of: Stored) -> tuple[str, str, str | None]:
    return of.path, of.query, of.owner


def a_part(asked: str, body: bytes) -> tuple[int, bytes]:
    """One range of bytes (RFC 9110, section 14.1.2)."""
    first, _, last = asked.removeprefix("bytes=").partition("-")
    if not first:
        start, end = max(0, len(body) - int(last)), len(body) - 1
        satisfiable = int(last) > 0 and bool(body)
    else:
        start, end = int(first), min(int(last or len(body)), len(body) - 1)
        satisfiable = start < len(body)
    return (206, body[start : end + 1]) if satisfiable else (416, b"")
