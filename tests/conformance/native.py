"""Requests and answers in the forms of ASGI and WSGI, both ways."""

import io
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from apigate.asgi import ASGIApp, Message, Receive, Scope, Send
from apigate.wsgi import Environ, StartResponse, WSGIApp
from tests.conformance.wire import Answer, Broken, Request, has_body

EARLY_HINT = "http.response.early_hint"
_CGI = {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}
_PHRASED = {status.value for status in HTTPStatus}
_HOST, _PORT = "cache.test", 80


def asgi_scope(request: Request, *, early_hints: bool = False) -> Scope:
    """The scope of a request."""
    path, _, query = request.target.partition("?")
    headers = [(b"host", _HOST.encode())]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in request.fields]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode(errors="replace"),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
        "server": (_HOST, _PORT),
        "extensions": {EARLY_HINT: {}} if early_hints else {},
    }


def asgi_request(scope: Scope, body: bytes = b"") -> Request:
    """The request of a scope."""
    target = scope["raw_path"].decode()
    if scope["query_string"]:
        target += f"?{scope['query_string'].decode()}"
    fields = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
    return Request(scope["method"], target, fields, body)


async def read_asgi(receive: Receive) -> bytes:
    """The request's body."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Broken("the client left")
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


async def send_asgi(send: Send, answer: Answer) -> None:
    """Send an answer."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.fields]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def asgi_answer(start: Message, body: bytes) -> Answer:
    """The answer that the messages make."""
    fields = [(bytes(name).decode(), bytes(value).decode("latin-1")) for name, value in start.get("headers", ())]
    return Answer(start["status"], fields, body)


async def collect_asgi(app: ASGIApp, scope: Scope, receive: Receive) -> Answer:
    """The whole answer of an app."""
    start: Message = {}
    chunks: list[bytes] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        elif message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))

    await app(scope, receive, send)
    return asgi_answer(start, b"".join(chunks))


def wsgi_environ(request: Request) -> Environ:
    """The environ of a request."""
    path, _, query = request.target.partition("?")
    environ: Environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": request.target,
        "SERVER_NAME": _HOST,
        "SERVER_PORT": str(_PORT),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": _HOST,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.fields:
        key = name.upper().replace("-", "_")
        environ[key if key in _CGI else f"HTTP_{key}"] = value
    return environ


def wsgi_request(environ: Environ) -> Request:
    """The request of an environ."""
    target = quote(environ["PATH_INFO"].encode("latin-1"))
    if environ.get("QUERY_STRING"):
        target += f"?{environ['QUERY_STRING']}"
    fields = [(_CGI[name], value) for name, value in environ.items() if name in _CGI and value]
    fields += [
        (name[5:].replace("_", "-").lower(), value) for name, value in environ.items() if name.startswith("HTTP_")
    ]
    length = int(environ.get("CONTENT_LENGTH") or 0)
    return Request(environ["REQUEST_METHOD"], target, fields, environ["wsgi.input"].read(length) if length else b"")


def begin_wsgi(start_response: StartResponse, answer: Answer) -> Iterable[bytes]:
    """Begin an answer; what is left to return."""
    phrase = HTTPStatus(answer.status).phrase if answer.status in _PHRASED else "Unknown"
    start_response(f"{answer.status} {phrase}", list(answer.fields))
    return [answer.body] if answer.body else []


def collect_wsgi(app: WSGIApp, environ: Environ) -> Answer:
    """The whole answer of an app, as a server reads it."""
    begun: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if begun and exc_info is None:
            raise AssertionError("the head was sent before")
        begun.append((status, headers))
        return written.append

    body = app(environ, start_response)
    try:
        written.extend(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    status, headers = begun[-1]
    return Answer(int(status[:3]), headers, b"".join(written))


def as_sent(request: Request, answer: Answer) -> Answer:
    """The answer as a server sends it: without a body where there must be none."""
    return answer if has_body(request.method, answer.status) else answer._replace(body=b"")


def server_error(error: BaseException) -> Answer:
    """What a server answers in the place of an app that raised; the error too, for whoever looks into a failed case."""
    text = f"Internal Server Error: {error!r}".encode()
    return Answer(500, [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))], text)
