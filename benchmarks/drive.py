"""Requests without a server: with a small client's fields, through ASGI or WSGI callables.

Rule: what a server would do for each request (a new scope or environ, driving the coroutine,
running through the body) is done for every case alike, and every app answers once, checked, before
it is timed.
"""

import asyncio
import io
from collections.abc import Callable, Iterable, Mapping
from itertools import islice, repeat
from typing import Any, TypeAlias

from apigate.asgi import ASGIApp, Message
from apigate.wsgi import ExcInfo, Write, WSGIApp
from benchmarks.measure import Batch

__all__ = ["Driver", "asgi_batch", "wsgi_batch"]

ADDRESS = "192.0.2.1"
SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "root_path": "",
    "query_string": b"",
    "headers": [
        (b"host", b"api.example"),
        (b"user-agent", b"benchmark/1.0"),
        (b"accept", b"application/json"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"connection", b"keep-alive"),
    ],
    "client": (ADDRESS, 50_000),
    "server": ("192.0.2.2", 80),
}
ENVIRON: dict[str, Any] = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "QUERY_STRING": "",
    "SERVER_NAME": "192.0.2.2",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": ADDRESS,
    "REMOTE_PORT": "50000",
    "HTTP_HOST": "api.example",
    "HTTP_USER_AGENT": "benchmark/1.0",
    "HTTP_ACCEPT": "application/json",
    "HTTP_ACCEPT_ENCODING": "gzip, deflate",
    "HTTP_CONNECTION": "keep-alive",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.input": io.BytesIO(),
    "wsgi.errors": None,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}
LOOP = asyncio.new_event_loop()
NO_FIELDS: Mapping[str, str] = {}

Driver: TypeAlias = Callable[..., Batch]
"""Makes an app the batch that asks it: `asgi_batch` or `wsgi_batch`."""


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    pass


def _write(data: bytes) -> None:
    pass


def _start(status: str, fields: list[tuple[str, str]], exc_info: ExcInfo | None = None, /) -> Write:
    return _write


def asgi_batch(
    app: ASGIApp,
    *,
    path: str = "/pets",
    paths: Iterable[str] = (),
    method: str = "GET",
    fields: Mapping[str, str] = NO_FIELDS,
    after: int = 0,
    status: int = 200,
    field: str = "",
) -> Batch:
    """Requests of one client, one after the other, on a running event loop.

    Args:
        app: What is asked.
        path: What is asked for.
        paths: What the requests that are timed ask for instead, one each; must never end.
        method: How.
        fields: Header fields of the requests beside a small client's, names in lower case.
        after: How many requests go before the first that counts, to empty its bucket.
        status: What it must answer; else AssertionError.
        field: The name of a response header field that must be there, in lower case.
    """
    sent_fields = [*SCOPE["headers"], *((name.encode(), value.encode()) for name, value in fields.items())]
    scope = SCOPE | {"path": path, "raw_path": path.encode(), "method": method, "headers": sent_fields}

    async def serve(times: int) -> None:
        for _ in repeat(None, times):
            await app(scope.copy(), _receive, _send)

    async def serve_paths(times: int) -> None:
        for asked in islice(paths, times):
            own = scope.copy()
            own["path"] = asked
            own["raw_path"] = asked.encode()
            await app(own, _receive, _send)

    async def ask() -> tuple[int, Mapping[str, str]]:
        sent: list[Message] = []

        async def keep(message: Message) -> None:
            sent.append(message)

        await app(scope.copy(), _receive, keep)
        return sent[0]["status"], {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}

    def batch(times: int) -> None:
        LOOP.run_until_complete(serve_paths(times) if paths else serve(times))

    LOOP.run_until_complete(serve(after))
    _check(LOOP.run_until_complete(ask()), status, field)
    return batch


def wsgi_batch(
    app: WSGIApp,
    *,
    path: str = "/pets",
    paths: Iterable[str] = (),
    method: str = "GET",
    fields: Mapping[str, str] = NO_FIELDS,
    after: int = 0,
    status: int = 200,
    field: str = "",
) -> Batch:
    """The same for WSGI: each body is run through, and closed where it can be."""
    sent_fields = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in fields.items()}
    environ = ENVIRON | {"PATH_INFO": path, "REQUEST_METHOD": method} | sent_fields

    def serve(times: int, asked: Iterable[str]) -> None:
        for path_info in islice(asked, times):
            own = environ.copy()
            own["PATH_INFO"] = path_info
            body = app(own, _start)
            for _chunk in body:
                pass
            if hasattr(body, "close"):
                body.close()

    def ask() -> tuple[int, Mapping[str, str]]:
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def keep(line: str, fields: list[tuple[str, str]], exc_info: ExcInfo | None = None, /) -> Write:
            started.append((line, list(fields)))
            return _write

        body = app(environ.copy(), keep)
        list(body)
        if hasattr(body, "close"):
            body.close()
        line, fields = started[0]
        return int(line.split()[0]), {name.lower(): value for name, value in fields}

    def batch(times: int) -> None:
        serve(times, paths or repeat(path))

    serve(after, repeat(path))
    _check(ask(), status, field)
    return batch


def _check(answer: tuple[int, Mapping[str, str]], status: int, field: str) -> None:
    if answer[0] != status or (field and field not in answer[1]):
        raise AssertionError(f"not what is to be timed: wanted {status} with {field or 'any field'}, got {answer}")
