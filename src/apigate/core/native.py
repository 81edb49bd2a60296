"""How native requests are read: an ASGI scope, a WSGI environ. For adapters and for readers of a framework's routes."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, TypeGuard, cast

from apigate.core.errors import ConfigurationError
from apigate.core.message import PICKED, Headers, Reader, Request, RequestFields

__all__ = [
    "asgi_request",
    "is_fields",
    "is_same_request",
    "path_below",
    "plain_environ",
    "plain_request",
    "put_fields",
    "staged_path",
    "warm_requests",
    "wsgi_path",
    "wsgi_request",
]

_AFTER_HOST = re.compile("[/?]")


def asgi_request(scope: Mapping[str, Any]) -> Request:  # Any: as the specification has it, values of every type
    """The request of an ASGI connection; a websocket's handshake is a GET of its path."""
    peer = scope.get("client")
    root = scope.get("root_path")
    path: str = scope["path"]
    if not root:
        return Request(scope.get("method", "GET"), path, peer[0] if peer else None, scope, _ASGI)
    request = Request(scope.get("method", "GET"), path_below(root, path), peer[0] if peer else None, scope, _ASGI)
    if len(request.path) == len(path):
        request.root = root
    cut = path.partition(root)[2] if root in path else request.path  # as some frameworks do, wherever the root stands
    if cut != request.path:
        request.alias = cut if cut.startswith("/") else f"/{cut}"
    return request


def wsgi_request(environ: Mapping[str, Any], path: str | None = None) -> Request:
    """The request of a WSGI environ.

    Args:
        environ: The environ.
        path: The path the app routes on, where that is known better.
    """
    if path is None:
        path = wsgi_path(environ)
    return Request(environ["REQUEST_METHOD"], path, environ.get("REMOTE_ADDR"), environ, _WSGI)


def path_below(root: str, path: str) -> str:
    """The path that an ASGI app routes on: without what it is mounted under.

    >>> path_below("/shop", "/shop/pets"), path_below("/shop", "/shopping")
    ('/pets', '/shopping')
    """
    if path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :]
    return path


def staged_path(root: str, path: str, prefix: str, *, has_root: bool) -> str:
    """The path of an ASGI scope whose `root_path` is extended by a stage's prefix.

    Args:
        root: The `root_path` before.
        path: The path before; some servers leave the root out of it.
        prefix: What names the stage.
        has_root: Whether the app expects its path to begin with `root_path`, as the specification has it.

    >>> staged_path("", "/prod/pets", "/prod", has_root=True), staged_path("", "/prod/pets", "/prod", has_root=False)
    ('/prod/pets', '/pets')
    """
    below = path_below(root, path) if root else path
    if has_root:
        return path if not root or below != path else root + path
    return path[: len(path) - len(below)] + below[len(prefix) :]


def is_same_request(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two native requests ask for the same path, though one may be mounted deeper than the other.

    >>> is_same_request({"path": "/shop/pets"}, {"root_path": "/shop", "path": "/pets"})
    True
    >>> is_same_request({"SCRIPT_NAME": "", "PATH_INFO": "/batch"}, {"SCRIPT_NAME": "", "PATH_INFO": "/orders"})
    False
    """
    if one is other:
        return True
    sent, found = _whole_path(one), _whole_path(other)
    return sent == found or sent.endswith(found)


def _whole_path(native: Mapping[str, Any]) -> str:
    path: str | None = native.get("path")
    return f"{native.get('SCRIPT_NAME', '')}{native.get('PATH_INFO', '')}" if path is None else path


def wsgi_path(environ: Mapping[str, Any]) -> str:
    """The decoded path; PEP 3333 has its UTF-8 bytes tunnelled through Latin-1."""
    path: str = environ.get("PATH_INFO", "")
    if path and path[0] not in "/*":
        path = f"/{path}"  # Werkzeug routes it so
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def put_fields(environ: dict[str, Any], fields: RequestFields) -> RequestFields:
    """Set request fields in an environ, or (None) take them out.

    Args:
        environ: The environ, which is changed.
        fields: Names and values; not Content-Type and Content-Length, which an environ has in another way.

    Returns:
        The same fields as they were, to be put back.

    >>> environ = {"HTTP_RANGE": "bytes=0-1"}
    >>> before = put_fields(environ, (("range", None), ("if-none-match", '"1"')))
    >>> environ, before
    ({'HTTP_IF_NONE_MATCH': '"1"'}, (('range', 'bytes=0-1'), ('if-none-match', None)))
    """
    before = tuple([(name, environ.get(_environ_key(name))) for name, _ in fields])
    for name, value in fields:
        if value is None:
            environ.pop(_environ_key(name), None)
        else:
            environ[_environ_key(name)] = value
    return before


def _environ_key(name: str) -> str:
    return f"HTTP_{name.upper().replace('-', '_')}"


def _asgi_headers(scope: Mapping[str, Any]) -> Headers:
    return Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope.get("headers", ()))


def _asgi_query(scope: Mapping[str, Any]) -> str:
    query: bytes = scope.get("query_string", b"")
    return query.decode("latin-1")


def _wsgi_headers(environ: Mapping[str, Any]) -> Headers:
    pairs = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_")]
    own = [(key.replace("_", "-"), environ[key]) for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(key)]
    return Headers(pairs + own)


def _wsgi_query(environ: Mapping[str, Any]) -> str:
    query: str = environ.get("QUERY_STRING", "")
    return query


def _asgi_target(scope: Mapping[str, Any]) -> tuple[str, str, str, str]:
    raw: bytes = scope.get("raw_path") or b""
    query: bytes = scope.get("query_string", b"")
    return scope.get("scheme", "http"), scope["path"], raw.decode("latin-1"), query.decode("latin-1")


_PICKED_BYTES: Mapping[bytes, str] = {
    "".join(spelled).encode(): name
    for name in PICKED
    for spelled in product(*[("-", "_") if letter == "-" else letter for letter in name])
}
"""Also with underscores: behind a bridge to WSGI, and in Django before it left such fields out, they are the same."""


def _asgi_picked(scope: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    name_of = _PICKED_BYTES.get
    for raw, value in scope.get("headers", ()):
        name = name_of(raw)
        if name is not None:
            text: str = value.decode("latin-1")
            found[name] = f"{found[name]}, {text}" if name in found else text
    if scope["type"] == "websocket":
        found.setdefault("upgrade", "websocket")  # over HTTP/2 the field is not sent
    return found


def _asgi_value(scope: Mapping[str, Any], name: str) -> str | None:
    wanted = name.encode("latin-1", "replace")
    values = [
        value for raw, value in scope.get("headers", ()) if raw == wanted or (b"_" in raw and _hyphened(raw) == wanted)
    ]
    return b", ".join(values).decode("latin-1") if values else None


def _hyphened(raw: bytes) -> bytes:
    return raw.replace(b"_", b"-")


def _wsgi_target(environ: Mapping[str, Any]) -> tuple[str, str, str, str]:
    raw: str = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    if not path.isascii():
        path = path.encode("latin-1", "replace").decode("utf-8", "surrogateescape")  # different octets stay different
    scheme: str = environ.get("wsgi.url_scheme", "http")
    return scheme, path, raw.partition("?")[0], environ.get("QUERY_STRING", "")


_PICKED_KEYS: Mapping[str, str] = {
    "CONTENT_LENGTH" if name == "content-length" else _environ_key(name): name for name in PICKED
}
_PICKED_SET = frozenset(_PICKED_KEYS)


def _wsgi_picked(environ: Mapping[str, Any]) -> dict[str, str]:
    found = {_PICKED_KEYS[key]: environ[key] for key in _PICKED_SET.intersection(environ)}  # measured: the fastest way
    if not found.get("content-length", True):
        del found["content-length"]  # as PEP 3333 allows, where none was sent
    if environ.get("REMOTE_USER"):
        found.setdefault("authorization", "")  # a server that has checked who asks may keep the field to itself
    return found


def _wsgi_value(environ: Mapping[str, Any], name: str) -> str | None:
    key = name.upper().replace("-", "_")
    value: str | None = environ.get(f"HTTP_{key}")
    return value if value is not None or name not in ("content-type", "content-length") else environ.get(key)


def is_fields(headers: object) -> TypeGuard[Mapping[str, str]]:
    """Whether a program has given request fields: a mapping of names to texts."""
    return isinstance(headers, Mapping) and all(
        isinstance(part, str) for pair in cast("Mapping[object, object]", headers).items() for part in pair
    )


def warm_requests(
    requests: "Iterable[str | tuple[str, Mapping[str, str]]]",
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """URLs and fields of the requests that a cache is warmed with.

    Raises:
        ConfigurationError: A URL has no scheme or no host, what stands beside it is no mapping of texts, or a single
            one is given in place of a list.
    """
    if isinstance(requests, str):
        raise ConfigurationError(f"warm: give a list of URLs, [{requests!r}], not a single text")
    return map(_warm_request, requests)


def _warm_request(request: object) -> tuple[str, Mapping[str, str]]:
    alone: tuple[object, object] = request, {}
    parts = cast("Sequence[object]", request) if isinstance(request, (tuple, list)) else alone
    url, headers = parts if len(parts) == 2 else alone
    if not isinstance(url, str):
        raise ConfigurationError(f"warm: {url!r} is neither a URL nor a pair of a URL and request fields")
    if not is_fields(headers):
        raise ConfigurationError(
            f"warm: what stands beside {url!r} is not a mapping of names to texts, such as {{'Accept-Language': 'en'}}"
        )
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or not rest.partition("/")[0]:
        raise ConfigurationError(f"warm: {url!r} is not a whole URL such as 'https://shop.example/pets'")
    return url, headers


def plain_environ(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The environ of a GET request that came in no server.

    Args:
        url: The whole URL, percent-encoded.
        headers: The request's fields.
    """
    from io import BytesIO

    request = plain_request("GET", url, headers)
    host, _, port = (request.value("host") or "").partition(":")
    native, scheme = request.native, request.target.scheme
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.encode("utf-8", "surrogateescape").decode("latin-1"),
        "RAW_URI": request.target.raw,
        "QUERY_STRING": request.query,
        "SERVER_NAME": host,
        "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": BytesIO(),
        "wsgi.errors": BytesIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    return {**environ, **{key: value for key, value in native.items() if key.startswith("HTTP_")}}


def plain_request(method: str, url: str, headers: Mapping[str, str], address: str | None = None) -> Request:
    """A request that came in no server: for explaining, and for what is used without a gateway.

    Behind it stands as much of a native one as the readers of routes look at.

    Args:
        method: The verb.
        url: The path, percent-encoded, with its query; or a whole URL.
        headers: The request's fields.
        address: The peer's address.

    >>> request = plain_request("GET", "https://shop.example/pets?page=2", {})
    >>> request.path, request.query, request.target.scheme, request.value("host")
    ('/pets', 'page=2', 'https', 'shop.example')
    """
    from urllib.parse import unquote

    scheme, host = "http", ""
    if not url.startswith("/") and "://" in url:
        scheme, _, rest = url.partition("#")[0].partition("://")
        host = _AFTER_HOST.split(rest, maxsplit=1)[0]
        url = rest[len(host) :] if rest.startswith("/", len(host)) else f"/{rest[len(host) :]}"
    raw, _, query = url.partition("?")
    pairs = [(name.lower(), value) for name, value in headers.items()]
    if host and all(name != "host" for name, _ in pairs):
        pairs.append(("host", host))
    path = unquote(raw)
    native: dict[str, object] = {
        "type": "http",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": raw.encode("utf-8", "surrogatepass"),
        "query_string": query.encode("utf-8", "surrogatepass"),
        "headers": [tuple(text.encode("utf-8", "surrogatepass") for text in pair) for pair in pairs],
        **{_environ_key(name): value for name, value in pairs},
    }
    return Request(method, path, address, native, _ASGI)


_ASGI = Reader(_asgi_headers, _asgi_query, _asgi_target, _asgi_picked, _asgi_value)
_WSGI = Reader(_wsgi_headers, _wsgi_query, _wsgi_target, _wsgi_picked, _wsgi_value)
