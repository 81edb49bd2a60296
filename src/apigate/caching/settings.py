"""What is cached of a method, and how: `CachePolicy`, as users write it in code and in TOML.

Rule: a policy that says nothing is safe: it reuses what the app said may be reused, for as long as it said.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, TypeAlias, TypedDict, cast, final

from apigate.core.errors import ConfigurationError
from apigate.core.functions import is_function
from apigate.core.message import Request
from apigate.core.names import check_settings, errors_of, known_keywords

__all__ = [
    "KEYED_BY_CONTENT",
    "POLICY_HINTS",
    "TABLE_HINTS",
    "UNAUTHORIZED",
    "CachePolicy",
    "CacheSettings",
    "KeyParts",
    "Per",
    "Query",
    "Unauthorized",
    "cache_policy",
    "check_policy_settings",
    "checked_texts",
]

Query: TypeAlias = Literal["kept", "sorted"] | Collection[str]
"""The query in the key: as it was sent, sorted by name, or only the parameters named, sorted."""

Per: TypeAlias = str | Callable[[Request], str | None]
"""Whose a stored response is: `"public"`, `"principal"`, `"claim:NAME"`, or what a function of the request gives."""

Unauthorized: TypeAlias = Literal["FAIL_WITH_403", "SUCCEED_WITH_RESPONSE_HEADER", "SUCCEED_WITHOUT_RESPONSE_HEADER"]
"""What becomes of a client that asks for invalidation and may not, in the words of Amazon API Gateway."""

UNAUTHORIZED: tuple[Unauthorized, ...] = (
    "FAIL_WITH_403",
    "SUCCEED_WITH_RESPONSE_HEADER",
    "SUCCEED_WITHOUT_RESPONSE_HEADER",
)

_UNAUTHORIZED: Unauthorized = "SUCCEED_WITH_RESPONSE_HEADER"

KEYED_BY_CONTENT = frozenset({"QUERY", "POST"})
"""Verbs whose content is part of the key, and so is read before the cache is asked."""

_FUNCTIONS = ("per", "tags", "invalidate")
"""Settings that a function of the request may be."""

_HINTS: Mapping[str, str] = {
    **dict.fromkeys(("timeout", "expire", "expires", "expiration", "max_age", "seconds", "lifetime"), "'ttl'"),
    **{part: f"key={{'{part}': ...}}" for part in ("query", "headers", "path")},
    **{
        name: f"{name!r} of the stage's cache, a ResponseCache"
        for name in ("max_bytes", "max_item_bytes", "max_entries", "policy", "shared", "max_lag", "encryption")
    },
}
"""What is meant by the names of other caches, by what stands a level deeper here, and by what is not a method's."""

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_LONGEST = 2**31  # seconds; RFC 9111, section 1.2.2
_AMAZON_TTL = 300  # Amazon API Gateway, "Cache settings for REST APIs": the default TTL of a stage's cache


def checked_texts(values: object, setting: str) -> tuple[str, ...]:
    """Texts, none of them empty.

    Raises:
        ConfigurationError: They are not a list of such.
    """
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ConfigurationError(f"{setting}: {values!r} is not a list of texts")
    listed = tuple(cast("Iterable[object]", values))
    for value in listed:
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"{setting}: {value!r} is not a text")
    return cast("tuple[str, ...]", listed)


def _names(values: object, setting: str) -> tuple[str, ...]:
    """Field names, lower-case, each once and in order."""
    named = {name.lower() for name in checked_texts(values, setting)}
    for name in named:
        if not _TOKEN.issuperset(name):
            raise ConfigurationError(f"{setting}: {name!r} is not the name of a field")
    return tuple(sorted(named))


@final
@known_keywords()
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyParts:
    """What of a request tells stored responses apart, beside verb class, scheme, host and path.

    Args:
        query: `"kept"` (the whole query as it was sent), `"sorted"` (the order of different names does not matter), or
            the names of the parameters that count; all others are then ignored, so the app must ignore them too.
        headers: Request fields that the app's answer depends on though it does not say so in Vary. With
            `Authorization` each credential has copies of its own, which it is given until they are stale, also where
            the app would not accept it any more.
        path: Whether the path counts as it was sent. False takes the decoded path alone, so that `/a%62` and `/ab`
            share one response; only for apps that never look at the path as it was sent.

    Raises:
        ConfigurationError: A part cannot be used.

    >>> KeyParts(query=["page", "size"], headers=["X-Tenant"]).headers
    ('x-tenant',)
    """

    query: Query = "kept"
    headers: Collection[str] = ()
    path: bool = True

    def __post_init__(self) -> None:
        """Check every part."""
        query: object = self.query
        if isinstance(query, str):
            if query not in ("kept", "sorted"):
                raise ConfigurationError(
                    f"key query: {query!r} is unknown; allowed are 'kept', 'sorted' or a list of parameter names"
                )
        else:
            object.__setattr__(self, "query", frozenset(checked_texts(query, "key query")))
        object.__setattr__(self, "headers", _names(self.headers, "key headers"))
        if not isinstance(self.path, bool):
            raise ConfigurationError(f"key path: {self.path!r} is not True or False")


@final
@known_keywords(_HINTS)
@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How responses of a method are cached; without arguments, as the app's own fields say (RFC 9111).

    Args:
        ttl: Seconds that a response is fresh, instead of what max-age, s-maxage and Expires say; it never overrides
            no-store, private or no-cache. 0 stores nothing; None leaves the lifetime to the app, and a response that
            does not say is not stored.
        key: What of a request tells responses apart; a `KeyParts`, or a mapping of its arguments.
        vary: Request fields that are added to each response's Vary.
        normalize: Request fields of which case and white space around commas mean nothing to the app, such as
            `Accept-Language`: responses that vary on them are then found more often. An app that does tell `en` from
            `EN` would have one stored for the other.
        methods: Verbs that are cached: GET, with which HEAD comes, as it is answered from what GET has stored; QUERY
            and POST by a digest of the content, which is read for that. Default GET and QUERY.
        statuses: Statuses that may be stored; default those that HTTP allows, and with a `ttl` 200, 203, 204, 300, 301
            and 308.
        per: Whose a stored response is: `"public"`, `"principal"`, `"claim:NAME"`, or a function of the request;
            where that gives None, or fails, the request passes by the cache. Default per principal where an authorizer
            verified one, unless the app says `public` or `s-maxage`. A response to a request with Authorization is
            stored where an authorizer has verified the client, where `key` names the field, or where the app says
            `public`, `s-maxage` or `must-revalidate`; a function or `"public"` verifies nobody.
        cookies: The names of cookies that the app's answer depends on, which become part of the key, or `"ignore"`
            where it depends on none. A Cookie field that is not as RFC 6265 has it counts as a whole, as apps read it
            differently. Default: with a `ttl`, a request with cookies passes by the cache.
        set_cookies: Names of cookies that may be stored with a response and so set for everybody; `"*"` for all.
        tags: Names by which responses are invalidated together; a list, or a function of the request that gives a list
            or one text. Where that fails, the response is not stored.
        stale_while_revalidate: Seconds after its lifetime in which a response is served while the app is asked anew
            in the background, where the app does not say itself (RFC 5861).
        stale_if_error: The same, where the app fails: it raises, or answers 500, 502, 503 or 504.
        jitter: The largest part, 0 to 1, by which a lifetime is shortened at random, so that responses stored
            together do not all become stale at once.
        heuristic: Whether a lifetime may be guessed from Last-Modified where the app gives none (RFC 9111, 4.2.2).
        wait: Seconds that a request waits for another one that is asking the app the same; 0 for not at all.
        max_request_bytes: The longest content of a request that is read to be part of the key.
        invalidate: A function of the request that says whether its client may have a stored response invalidated by
            `Cache-Control: max-age=0` or `no-cache`. Without one, both directives are obeyed where there is no `ttl`
            (the throttle has counted them), and ignored where there is.
        unauthorized: What becomes of a client that asks so and may not; only with `invalidate`.

    In a table, and so in a file, `"module:name"` names the function for `per`, `tags` or `invalidate`.

    Raises:
        ConfigurationError: A setting cannot be used.

    Source: RFC 9111; Amazon API Gateway, "Cache settings for REST APIs"; docs/how-to/cache-responses.md.

    >>> CachePolicy(ttl=60, key={"query": ["page"]}).key.query
    frozenset({'page'})
    """

    ttl: float | None = None
    key: KeyParts | Mapping[str, Any] = KeyParts()
    vary: Collection[str] = ()
    normalize: Collection[str] = ()
    methods: Collection[str] = ("GET", "QUERY")
    statuses: Collection[int] | None = None
    per: Per | None = None
    cookies: Collection[str] | Literal["ignore"] | None = None
    set_cookies: Collection[str] = ()
    tags: Collection[str] | Callable[[Request], Collection[str]] = ()
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    jitter: float = 0.0
    heuristic: bool = False
    wait: float = 5.0
    max_request_bytes: int = 65_536
    invalidate: Callable[[Request], bool] | None = None
    unauthorized: Unauthorized = _UNAUTHORIZED

    def __post_init__(self) -> None:
        """Check every setting."""
        for name in ("ttl", "stale_while_revalidate", "stale_if_error"):
            _check_seconds(name, getattr(self, name), optional=True)
        _check_seconds("wait", self.wait)
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, (int, float)) or not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"cache jitter: {self.jitter!r} is not a number from 0 to 1")
        if not isinstance(self.heuristic, bool):
            raise ConfigurationError(f"cache heuristic: {self.heuristic!r} is not True or False")
        if not _is_whole(self.max_request_bytes):
            raise ConfigurationError(
                f"cache max_request_bytes: {self.max_request_bytes!r} is not a whole number of bytes of at least 0"
            )
        set_own = object.__setattr__
        set_own(self, "key", _key_parts(self.key))
        set_own(self, "vary", _names(self.vary, "cache vary"))
        set_own(self, "normalize", _names(self.normalize, "cache normalize"))
        set_own(self, "methods", _checked_methods(self.methods))
        if self.statuses is not None:
            set_own(self, "statuses", _checked_statuses(self.statuses))
        _check_per(self.per)
        if self.cookies is not None and self.cookies != "ignore":
            set_own(self, "cookies", tuple(sorted(checked_texts(self.cookies, "cache cookies"))))
        set_cookies = ("*",) if self.set_cookies == "*" else checked_texts(self.set_cookies, "cache set_cookies")
        set_own(self, "set_cookies", frozenset(set_cookies))
        if not is_function(self.tags, "cache tags"):
            set_own(self, "tags", tuple(checked_texts(self.tags, "cache tags")))
        if self.invalidate is not None and not is_function(self.invalidate, "cache invalidate"):
            raise ConfigurationError(
                f"cache invalidate: {self.invalidate!r} is not a function of the request, nor in a table the name of "
                f"one, such as 'shop:is_operator'"
            )
        if self.unauthorized not in UNAUTHORIZED:
            raise ConfigurationError(
                f"cache unauthorized: {self.unauthorized!r} is unknown; allowed are {', '.join(UNAUTHORIZED)}"
            )
        if self.invalidate is None and self.unauthorized != _UNAUTHORIZED:
            raise ConfigurationError(
                f"cache unauthorized: {self.unauthorized!r} has no effect without invalidate, a function that says who "
                f"may"
            )

    @classmethod
    def amazon(cls, **settings: Any) -> Self:  # Any: values of every setting's type
        """As Amazon API Gateway caches: GET only, for 300 seconds, whatever lifetime the app gives.

        Args:
            settings: What is to be different.
        """
        check_policy_settings(settings, "cache")
        given: dict[str, Any] = {"ttl": _AMAZON_TTL, "methods": ("GET",), **settings}
        return cls(**given)

    @property
    def terms(self) -> str:
        """Lifetime, verbs and whose a response is, in a few words."""
        lifetime = "as the app says" if self.ttl is None else f"{self.ttl:g} s"
        whose = "" if self.per is None else f", per {self.per if isinstance(self.per, str) else 'function'}"
        return f"{lifetime}, {' '.join(sorted(self.methods))}{whose}"

    @property
    def key_terms(self) -> str:
        """What tells stored responses apart, in a few words, but for whose they are."""
        parts = cast("KeyParts", self.key)
        terms = ["verb", "scheme", "host", "path" if parts.path else "decoded path"]
        if isinstance(parts.query, str):
            terms.append("the query as it was sent" if parts.query == "kept" else "the query sorted by name")
        else:
            terms.append(f"of the query {', '.join(sorted(parts.query)) or 'nothing'}")
        terms += [f"the field {name}" for name in parts.headers]
        if isinstance(self.cookies, tuple):
            terms += [f"the cookie {name}" for name in self.cookies]
        return ", ".join(terms)

    @property
    def stores(self) -> bool:
        """Whether anything is stored: a `ttl` of 0 turns that off."""
        return self.ttl != 0

    @property
    def reads_content(self) -> bool:
        """Whether the content of some requests is part of their key."""
        return not KEYED_BY_CONTENT.isdisjoint(self.methods)


POLICY_HINTS: Mapping[str, str] = {
    **{item.name: f'policy={{"{item.name}": {"60" if item.name == "ttl" else "..."}}}' for item in fields(CachePolicy)},
    **dict.fromkeys([name for name, meant in _HINTS.items() if meant == "'ttl'"], 'policy={"ttl": 60}'),
}
"""What is meant by the settings of a policy where those of a cache stand."""

TABLE_HINTS: Mapping[str, str] = {
    name: f"policy.{'ttl' if _HINTS.get(name) == repr('ttl') else name}" for name in POLICY_HINTS
}
"""The same in a table, which may stand in a file."""


class CacheSettings(TypedDict, total=False):
    """What `CachePolicy` takes, by name; each setting is said there."""

    ttl: float | None
    key: KeyParts | Mapping[str, Any]  # Any: as CachePolicy
    vary: Collection[str]
    normalize: Collection[str]
    methods: Collection[str]
    statuses: Collection[int] | None
    per: Per | None
    cookies: Collection[str] | Literal["ignore"] | None
    set_cookies: Collection[str]
    tags: Collection[str] | Callable[[Request], Collection[str]]
    stale_while_revalidate: float | None
    stale_if_error: float | None
    jitter: float
    heuristic: bool
    wait: float
    max_request_bytes: int
    invalidate: Callable[[Request], bool] | None
    unauthorized: Unauthorized


def cache_policy(value: object, setting: str) -> CachePolicy | None:
    """A policy as it was written: the object, a table of its settings, a number of seconds; None for no cache.

    Raises:
        ConfigurationError: It is none of these, or a setting cannot be used.
    """
    if value is None or isinstance(value, CachePolicy):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return CachePolicy(ttl=value)
    if isinstance(value, str):
        if value.strip().lower() == "off":
            return None
        if value.strip().lower() == "amazon":
            return CachePolicy.amazon()
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        check_policy_settings(table, setting)
        with errors_of(setting):
            return CachePolicy(**{name: _function(name, each) for name, each in table.items()})
    raise ConfigurationError(
        f"{setting}: {value!r} is not a CachePolicy, a table of its settings, a number of seconds, 'amazon', 'off' or "
        f"None"
    )


def _function(name: str, value: object) -> Any:  # Any: a value of any setting's type
    """A value as it stands in a table; where a function may be, `module:name` names it."""
    if name not in _FUNCTIONS or not isinstance(value, str) or value.startswith("claim:"):
        return value
    if value.count(":") != 1 or not all(part.isidentifier() for part in value.replace(":", ".").split(".")):
        return value
    from apigate.core.loading import load

    with errors_of(f"cache {name}"):
        found: object = load(value)
        if not callable(found):
            raise ConfigurationError(f"{value} is a {type(found).__name__}, not a function of the request")
        return found


def check_policy_settings(names: Iterable[str], setting: str) -> None:
    """See that names are settings of a `CachePolicy`.

    Raises:
        ConfigurationError: One is none.
    """
    check_settings(names, {item.name for item in fields(CachePolicy)}, setting, _HINTS)


def _key_parts(key: object) -> KeyParts:
    if isinstance(key, KeyParts):
        return key
    if isinstance(key, Mapping):
        table = cast("Mapping[str, Any]", key)
        check_settings(table, {item.name for item in fields(KeyParts)}, "cache key")
        return KeyParts(**table)
    raise ConfigurationError(f"cache key: {key!r} is not a KeyParts or a table of query, headers and path")


def _check_seconds(name: str, value: object, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= cast("float", value) <= _LONGEST:
        none = ", or None" if optional else ""
        raise ConfigurationError(f"cache {name}: {value!r} is not a number of seconds from 0 to 2**31{none}")


def _checked_methods(methods: object) -> frozenset[str]:
    named = checked_texts(methods, "cache methods")
    for method in named:
        if method not in ("GET", "HEAD", "QUERY", "POST"):
            raise ConfigurationError(f"cache methods: {method!r} cannot be cached; allowed are GET, HEAD, QUERY, POST")
    return frozenset({*named, "HEAD"} if "GET" in named else named)


def _checked_statuses(statuses: object) -> frozenset[int]:
    if isinstance(statuses, (str, bytes)) or not isinstance(statuses, Iterable):
        raise ConfigurationError(f"cache statuses: {statuses!r} is not a list of status codes")
    known = list(cast("Iterable[object]", statuses))
    for status in known:
        if not _is_whole(status) or not 200 <= cast("int", status) <= 599 or status in (206, 304):
            raise ConfigurationError(f"cache statuses: {status!r} is not a status from 200 to 599 that can be stored")
    return frozenset(cast("list[int]", known))


def _check_per(per: object) -> None:
    if per is None or is_function(per, "cache per") or per in ("public", "principal"):
        return
    if not isinstance(per, str) or not per.startswith("claim:") or per == "claim:":
        raise ConfigurationError(
            f"cache per: {per!r} is unknown; allowed are 'public', 'principal', 'claim:NAME' or a function of the "
            f"request"
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
