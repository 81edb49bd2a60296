"""All that the core knows of HTTP messages: a request as it came in, a response that the gateway answers itself.

Rule: nothing is parsed before somebody asks for it. An adapter hands over its native mapping (an ASGI scope, a WSGI
environ) with the functions that read it, so a request that needs no header never decodes one.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, final

__all__ = [
    "FORWARDED",
    "METHOD_OVERRIDES",
    "PICKED",
    "Field",
    "FieldLines",
    "Headers",
    "Reader",
    "Request",
    "RequestFields",
    "Response",
    "ResponseHead",
    "Target",
    "field",
    "is_length",
]

FORWARDED = (
    "forwarded",
    "front-end-https",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-host",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "x-scheme",
    "x-script-name",
    "x-url-scheme",
)
"""Request fields in which proxies say what was asked of them, and of which apps make URLs; in order."""

METHOD_OVERRIDES = frozenset({"x-http-method", "x-http-method-override", "x-method-override"})
"""Request fields by which some apps take a request for one of another verb."""

PICKED = (
    "authorization",
    "cache-control",
    "content-length",
    "cookie",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "range",
    "transfer-encoding",
    "upgrade",
    *FORWARDED,
    *METHOD_OVERRIDES,
)
"""The request fields that a cache has to know of each request, read at once: what may change what the app answers."""


FieldLines: TypeAlias = Sequence[tuple[str, str]]
"""Field lines as they were sent, name and value, in Latin-1."""


RequestFields: TypeAlias = tuple[tuple[str, str | None], ...]
"""Request fields that are set, by their lower-case names, or (None) taken out."""


class Field(NamedTuple):
    """A response field in both native forms, so that neither adapter encodes it again.

    Attributes:
        text: Name and value as WSGI takes them.
        raw: Lower-case name and value as ASGI takes them, in Latin-1.
    """

    text: tuple[str, str]
    raw: tuple[bytes, bytes]


@lru_cache(maxsize=4096)  # measured: 0.1 us for a field sent before, 0.5 us for a new one
def field(name: str, value: str) -> Field:
    """A response field in both forms.

    >>> field("Retry-After", "3")
    Field(text=('Retry-After', '3'), raw=(b'retry-after', b'3'))
    """
    return Field((name, value), (name.lower().encode("latin-1"), value.encode("latin-1")))


def is_length(text: str) -> bool:
    """Tell whether a Content-Length is a number of bytes that anything may have.

    Of thousands of digits Python makes no number, so it has at most 15.

    >>> is_length("1024"), is_length("+1"), is_length("")
    (True, False, False)
    """
    return text.isascii() and text.isdigit() and len(text) < 16


@final
class Headers:
    """Request fields: names without regard to case, several values of one name in the order they came.

    >>> headers = Headers([("Accept", "a"), ("accept", "b")])
    >>> headers.get("ACCEPT"), headers.get_all("accept"), headers.get("cookie", "none")
    ('a', ['a', 'b'], 'none')
    """

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        """Take name and value pairs in the order they were received."""
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name.lower(), []).append(value)

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of the field, else `default`."""
        values = self._values.get(name.lower())
        return values[0] if values else default

    def get_all(self, name: str) -> list[str]:
        """Every value of the field, in order; empty if it was not sent."""
        return list(self._values.get(name.lower(), ()))

    def __contains__(self, name: object) -> bool:
        """Tell whether the field was sent."""
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        """The lower-case names that were sent, each once."""
        return iter(self._values)

    def __len__(self) -> int:
        """How many different names were sent."""
        return len(self._values)

    def __repr__(self) -> str:
        """Names only: values may be credentials."""
        return f"<Headers {', '.join(self._values)}>"


class Target(NamedTuple):
    """What a request asks for, but for host and query.

    Attributes:
        scheme: `http` or `https`.
        path: The whole decoded path, with what the app is mounted under.
        raw: The path as it was sent, still percent-encoded; empty where the server does not tell.
    """

    scheme: str
    path: str
    raw: str


class Reader(NamedTuple):
    """How one kind of native request is read, each part on first use.

    Attributes:
        headers: Gives the fields of the native request.
        query: Gives its query string, still percent-encoded, without the question mark.
        target: Gives scheme, whole path, path as sent (see `Target`) and query, as a plain tuple, which is made faster.
        picked: Gives those of the fields in `PICKED` that were sent, several lines of one joined by commas.
        value: Gives one field by its lower-case name, several lines joined by commas; None if it was not sent.
    """

    headers: Callable[[Mapping[str, Any]], Headers]  # Any: a scope or environ holds whatever its server put there
    query: Callable[[Mapping[str, Any]], str]
    target: Callable[[Mapping[str, Any]], tuple[str, str, str, str]] = lambda _: ("http", "", "", "")
    picked: Callable[[Mapping[str, Any]], dict[str, str]] = lambda _: {}
    value: Callable[[Mapping[str, Any], str], str | None] = lambda _, __: None


@final
class Request:
    """One HTTP request, as far as the gateway looks at it.

    Attributes:
        method: The verb as it was sent.
        path: The decoded path that the app will route on, without what the app is mounted under.
        peer: The address of the other end of the connection, or None where the server does not tell.
        native: The ASGI scope or WSGI environ it came in.
        reader: How the rest of it is read; hot paths ask it themselves, which saves a call.
        prefix: The start of the path that named the stage and was taken off `path`; empty where there is none.
        alias: Another path that the app may take this one for; empty where there is none.
        read_body: Gives the whole content of the request, or an awaitable of it, None if it is longer than the number
            of bytes that it is given; the app reads it again. None where the adapter cannot.
        app: Which of the apps around which one gateway stands it is for; empty for the first.
        root: What the app is mounted under, where the path that the server tells does not begin with it.
        may_wait: Whether it may wait for another request; not where one thread serves them all.
    """

    # Defaults of the class for what few requests have and few readers ask for.
    app: str = ""
    root: str = ""
    may_wait: bool = True
    read_body: Callable[[int], bytes | None | Awaitable[bytes | None]] | None = None
    _headers: Headers | None = None

    def __init__(self, method: str, path: str, peer: str | None, native: Mapping[str, Any], reader: Reader) -> None:
        """Keep what an adapter read at once, and how the rest is read."""
        self.method: str = method
        self.path: str = path
        self.peer: str | None = peer
        self.native: Mapping[str, Any] = native
        self.reader: Reader = reader
        self.prefix: str = ""
        self.alias: str = ""

    @property
    def headers(self) -> Headers:
        """The request's fields."""
        headers = self._headers
        if headers is None:
            headers = self._headers = self.reader.headers(self.native)
        return headers

    @property
    def query(self) -> str:
        """The query string, still percent-encoded, without the question mark."""
        return self.reader.query(self.native)

    @property
    def target(self) -> Target:
        """Scheme and paths."""
        return Target(*self.reader.target(self.native)[:3])

    @property
    def picked(self) -> dict[str, str]:
        """Those of the fields in `PICKED` that were sent; read anew each time."""
        return self.reader.picked(self.native)

    def value(self, name: str) -> str | None:
        """All that was sent in a field, by its lower-case name; None if it was not sent."""
        return self.reader.value(self.native, name)

    def detach(self, key: str) -> None:
        """Go on with a copy of the native request, which the context is not in.

        To be called once the request has ended. Else context, request and native request stand in a circle, with all
        that a framework has put there, and take up memory until the garbage collector comes.

        Args:
            key: What the adapter has put the context under.
        """
        if key in self.native:
            self.native = native = dict(self.native)
            del native[key]

    def __repr__(self) -> str:
        """Verb and path, as in an access log."""
        return f"<Request {self.method} {self.path}>"


@final
class Response:
    """A response that the gateway gives itself; the app is not called. It may be sent many times, so it is not changed.

    Attributes:
        kind: The type of gateway response, such as `THROTTLED`.
        status: The HTTP status code.
        fields: Its fields, `Content-Length` among them.
        raw: The same as ASGI takes them.
        text: The same as WSGI takes them.
        body: The whole body; adapters leave it out for HEAD.
        violated: The names of the limits that refused, if any did.
    """

    __slots__ = ("body", "fields", "kind", "raw", "status", "text", "violated")

    def __init__(
        self, kind: str, status: int, fields: Iterable[Field], body: bytes, violated: tuple[str, ...] = ()
    ) -> None:
        """Keep the parts."""
        self.kind: str = kind
        self.status: int = status
        self.fields: tuple[Field, ...] = tuple(fields)
        self.raw: tuple[tuple[bytes, bytes], ...] = tuple([field.raw for field in self.fields])
        self.text: tuple[tuple[str, str], ...] = tuple([field.text for field in self.fields])
        self.body: bytes = body
        self.violated: tuple[str, ...] = violated

    def __repr__(self) -> str:
        """Kind, status and size."""
        return f"<Response {self.kind} {self.status}, {len(self.body)} bytes>"


@final
class ResponseHead:
    """The head of the app's response on its way out.

    Attributes:
        status: The app's status code.
        added: Fields that policies add; appended to the app's own.
    """

    __slots__ = ("added", "status")

    def __init__(self, status: int, added: Iterable[Field] = ()) -> None:
        """Start with what is known before the response is."""
        self.status: int = status
        self.added: list[Field] = [*added]
