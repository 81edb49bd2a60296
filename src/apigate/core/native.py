"""How native requests are read: an ASGI scope, a WSGI environ. For adapters and for readers of a framework's routes."""

from collections.abc import Mapping
from typing import Any

from apigate.core.message import Headers, Reader, Request

__all__ = ["asgi_request", "is_same_request", "path_below", "staged_path", "wsgi_path", "wsgi_request"]


def asgi_request(scope: Mapping[str, Any]) -> Request:  # Any: as the specification has it, values of every type
    """The request of an ASGI connection; a websocket's handshake is a GET of its path."""
    peer = scope.get("client")
    root = scope.get("root_path")
    path: str = scope["path"]
    if not root:
        return Request(scope.get("method", "GET"), path, peer[0] if peer else None, scope, _ASGI)
    request = Request(scope.get("method", "GET"), path_below(root, path), peer[0] if peer else None, scope, _ASGI)
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


_ASGI = Reader(_asgi_headers, _asgi_query)
_WSGI = Reader(_wsgi_headers, _wsgi_query)
