"""What is forgotten when: scopes of stored responses, and requests of unsafe methods that name them.

A scope is a text that a stored response carries and an invalidation names: `path:/pets/1`, `method:GET /pets/{}`,
`tag:pets`, `group:https://shop.example|pets`.

Source: RFC 9111, section 4.4; RFC 9875.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, final
from urllib.parse import quote, unquote, urljoin, urlsplit

from apigate.caching.answer import Answer
from apigate.caching.exchange import check_head, check_lines
from apigate.caching.groups import parse_groups
from apigate.caching.store import Invalidation
from apigate.core.errors import ConfigurationError
from apigate.core.message import Field, FieldLines, Request, RequestFields, Target
from apigate.core.names import nearest
from apigate.core.routes import ANY, shape_of, unbraced

if TYPE_CHECKING:
    from apigate.caching.lookup import Lookup

__all__ = [
    "SAFE_METHODS",
    "Invalidating",
    "group_scope",
    "invalidation",
    "is_safe",
    "method_scope",
    "path_scope",
    "tag_scope",
]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
"""Methods that change nothing; any other, known or not, may (RFC 9110, section 9.2.1)."""


def is_safe(method: str) -> bool:
    """Tell whether a method changes nothing, also in lower case: the frameworks that serve `get` take it for `GET`."""
    return method in SAFE_METHODS or method.upper() in SAFE_METHODS


def path_scope(path: str) -> str:
    """The scope of all responses of a decoded path, whatever their query."""
    return f"path:{path}"


def method_scope(method: str) -> str:
    """The scope of all responses of a method, such as `GET /pets/{id}`, whatever its parameters are called."""
    return f"method:{shape_of(method)}"


def tag_scope(tag: str) -> str:
    """The scope of all responses with a tag of their policy."""
    return f"tag:{tag}"


def group_scope(scheme: str, host: str, group: str) -> str:
    """The scope of all responses of a group, which is one of its origin alone (RFC 9875, section 2)."""
    return f"group:{scheme}://{host.lower()}|{group}"


def invalidation(given: Mapping[str, object], methods: Callable[[], Collection[str] | None]) -> Invalidation:
    """What an operator has forgotten, if it can match anything.

    Args:
        given: What is given, by kind: `path`, `prefix`, `tag` and `method`, all but one of them None.
        methods: Gives the names of the stage's methods, None while nobody knows them all.

    Raises:
        ConfigurationError: Not exactly one text is given, or it is none of its kind.
    """
    named = [(kind, value) for kind, value in given.items() if value is not None]
    if len(named) != 1 or not isinstance(named[0][1], str):
        raise ConfigurationError("invalidate: give exactly one of path=, prefix=, tag= and method=, as one text")
    kind, text = named[0][0], named[0][1]
    if kind == "tag":
        return Invalidation("scope", tag_scope(text))
    if kind == "method":
        _check_method(text, methods())
        return Invalidation("scope", method_scope(text))
    if not text.startswith("/") or any(part in text for part in ("?", "#", "://")):
        raise ConfigurationError(
            f"invalidate {kind}: {text!r} is not a path such as '/pets/1': it begins with a slash, and has no host, "
            f"query or fragment; it holds for all of them"
        )
    return Invalidation("prefix", text) if kind == "prefix" else Invalidation("scope", path_scope(text))


def _check_method(text: str, known: Collection[str] | None) -> None:
    """See that a method's name may be one of the stage's, but for what its parameters are called."""
    if known is not None and shape_of(text) in map(shape_of, known):
        return
    verb, _, template = text.partition(" ")
    is_name = template.startswith("/") and (verb == ANY or verb.isalpha()) and verb == verb.upper() and verb != "HEAD"
    if not is_name and not text.startswith("/"):
        raise ConfigurationError(
            f"invalidate method: {text!r} is not a method; write a verb in capitals, GET also for HEAD, and the "
            f"template as the stage has it, such as 'GET /pets/{{id}}'"
        )
    if instead := unbraced(template or text):
        raise ConfigurationError(f"invalidate method: in {text!r} {instead}")
    if known is not None:
        close = nearest(text, known)
        hint = f"did you mean {close!r}?" if close else f"methods are {', '.join(sorted(known)) or 'none'}"
        raise ConfigurationError(f"invalidate method: the stage has no method {text!r}; {hint}")


@final
class Invalidating:
    """A request of an unsafe method: what it may have changed is forgotten, unless it failed. An `Exchange`.

    Nothing is stored of its response. Tell it the head (`begin`), and then have it forgotten (`publish`).

    Args:
        lookup: The policy's lookup, which has the cache.
        request: The request.
        picked: Its fields that may matter.

    Attributes:
        questions: As in `Exchange`: none.
        replies: As in `Exchange`: never.
        keeps: As in `Exchange`: never.
        scopes: What was forgotten; known after `begin`.
    """

    questions: RequestFields = ()
    replies: bool = False
    keeps: bool = False

    def __init__(self, lookup: "Lookup", request: Request, picked: Mapping[str, str]) -> None:
        """Keep what it is about."""
        self._lookup = lookup
        self._target = request.target  # as it came: the app may change it, as ProxyFix does
        self._host = picked.get("host", "").lower()
        self.scopes: tuple[str, ...] = ()

    def begin(self, status: int, fields: FieldLines) -> tuple[Field, ...]:
        """The app's response has begun; what is returned is added to its fields.

        Raises:
            ProtocolError: The field lines are no pairs of texts, or the status is no number.
        """
        check_lines(fields)
        try:
            if 200 <= status <= 399:
                self.scopes = tuple(dict.fromkeys(self._scopes(fields)))
        except (AttributeError, TypeError, ValueError):
            check_head(status, fields)
            raise
        return self._lookup.note("method")

    def publish(self) -> Awaitable[None] | None:
        """Have it forgotten, here and where it is shared, before the client has its answer. None, or an awaitable."""
        cache = self._lookup.cache
        if cache.news is None:
            cache.generations.apply(self.scopes)
            return None
        return cache.publish([Invalidation("scope", scope) for scope in self.scopes])

    def feed(self, chunk: bytes) -> None:
        """Nothing: no content is kept."""

    def finish(self) -> Answer | None:
        """Nothing: the app's response is sent."""
        return None

    def fail(self) -> Answer | None:
        """Nothing: the app's response, if any, is sent."""
        return None

    def waive(self, why: str = "") -> None:
        """Nothing: no content is kept."""

    def doubt(self, why: str) -> None:
        """Nothing: no content is kept."""

    def settle(self) -> Awaitable[None] | None:
        """Nothing is left to do."""
        return None

    def _scopes(self, fields: FieldLines) -> Iterator[str]:
        target = self._target
        yield path_scope(target.path)
        groups: list[str] = []
        for sent, value in fields:
            name = sent.lower()
            if name in ("location", "content-location"):
                path = _path_of(value, target, self._host)
                if path is not None:
                    yield path_scope(path)
            elif name == "cache-group-invalidation":
                groups.append(value)
        for group in parse_groups(groups) if groups else ():
            yield group_scope(target.scheme, self._host, group)


def _path_of(reference: str, target: Target, host: str) -> str | None:
    """The decoded path that a reference means; None for one of another origin, which nobody here speaks for."""
    try:
        sent = target.raw if target.raw.startswith("/") else quote(target.path, errors="surrogateescape")
        parts = urlsplit(urljoin(f"{target.scheme}://{host}{sent}", reference.strip()))
    except ValueError:
        return None
    if parts.scheme != target.scheme or _authority(parts.netloc, parts.scheme) != _authority(host, parts.scheme):
        return None
    return unquote(parts.path, errors="replace")


def _authority(authority: str, scheme: str) -> str:
    """Host and port, without the port that goes without saying."""
    return authority.lower().removesuffix(":443" if scheme == "https" else ":80")
