"""Four kinds of servers under one interface: ASGI and WSGI in process, uvicorn and gunicorn as they are run.

Each opens an `Exchange`: status and fields first, then the body chunk by chunk as it comes, so that a test sees what
is held back. A client may `leave` in the middle.
"""

import asyncio
import http.client
import itertools
import json
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, unquote_to_bytes

from tests.adapters import cells

ROOT = Path(__file__).parents[2]
DEADLINE = 20.0
SERVERS_OWN = {"date", "server", "connection", "transfer-encoding"}

Fields = list[tuple[str, str]]


class Reply(NamedTuple):
    """A whole response, without the fields that are the server's business."""

    status: int
    fields: Fields
    body: bytes
    whole: bool

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.fields if each == name]


class Exchange(Protocol):
    """A response that is coming in."""

    status: int
    fields: Fields
    whole: bool  # False once it turned out that the response was cut off

    def read(self) -> bytes:
        """The next chunk; empty at the end."""
        ...

    def leave(self) -> None:
        """Go, whatever is still to come."""
        ...


class Harness(Protocol):
    """Something that serves the cells."""

    name: str
    protocol: str
    parallel: bool  # whether it serves a second request while a first one is under way

    def open(self, method: str, target: str, fields: Mapping[str, str], body: bytes) -> Exchange: ...

    def stop(self) -> None: ...


def named(fields: Any) -> Fields:
    return [(name.lower(), value) for name, value in fields if name.lower() not in SERVERS_OWN]


# ---- ASGI in process


class AsgiExchange:
    def __init__(self, harness: "AsgiInProcess", scope: dict[str, Any], body: bytes) -> None:
        self._loop = harness.loop
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._inbox = [{"type": "http.request", "body": body, "more_body": False}]
        self._done = False
        self.whole = True
        self._gone: asyncio.Event
        self._serving = asyncio.run_coroutine_threadsafe(self._serve(harness.host, scope), self._loop)  # loops are weak
        first = self._outbox.get(timeout=DEADLINE)
        if isinstance(first, Exception):
            self.status, self.fields, self._done = 500, [], True
            return
        assert first["type"] == "http.response.start"
        self.status = first["status"]
        self.fields = named((name.decode("latin-1"), value.decode("latin-1")) for name, value in first["headers"])

    async def _serve(self, app: Any, scope: dict[str, Any]) -> None:
        self._gone = asyncio.Event()
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - what a server answers with 500, or cuts off
            self._outbox.put(error)
        else:
            self._outbox.put(None)

    async def _receive(self) -> Any:
        if self._inbox:
            return self._inbox.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if self._gone.is_set():
            raise OSError("the client has gone")
        self._outbox.put(message)

    def read(self) -> bytes:
        while not self._done:
            message = self._outbox.get(timeout=DEADLINE)
            if message is None or isinstance(message, Exception):
                self.whole = message is None
                self._done = True
            elif message["type"] == "http.response.body" and (body := message.get("body", b"")):
                return body
        return b""

    def leave(self) -> None:
        self._loop.call_soon_threadsafe(self._gone.set)


class AsgiInProcess:
    name, protocol, parallel = "asgi", "asgi", True

    def __init__(self) -> None:
        self.host = cells.asgi_host()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def open(self, method: str, target: str, fields: Mapping[str, str], body: bytes) -> AsgiExchange:
        path, _, query = target.partition("?")
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 80),
        }
        return AsgiExchange(self, scope, body)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE)
        self.loop.close()


# ---- WSGI in process


class WsgiExchange:
    def __init__(self, app: Any, environ: dict[str, Any]) -> None:
        self.whole = True
        self.status, self.fields = 500, []
        self._chunks: list[bytes] = []
        self._body: Any = ()
        self._iterator: Iterator[bytes] = iter(())
        try:
            self._body = app(environ, self._start_response)
            self._iterator = iter(self._body)
            if not self.fields:  # the app starts its response as late as its first chunk
                self._chunks += itertools.islice(self._iterator, 1)
        except Exception:  # noqa: BLE001 - what a server answers with 500
            self._end()

    def _start_response(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        self.status = int(status.partition(" ")[0])
        self.fields = named(headers)
        return self._chunks.append

    def read(self) -> bytes:
        if self._chunks:
            return self._chunks.pop(0)
        try:
            for chunk in self._iterator:
                if chunk:
                    return chunk
        except Exception:  # noqa: BLE001 - a response cut off
            self.whole = False
        self._end()
        return b""

    def leave(self) -> None:
        self._end()

    def _end(self) -> None:
        body, self._body, self._iterator = self._body, (), iter(())
        if hasattr(body, "close"):
            body.close()


class WsgiInProcess:
    name, protocol, parallel = "wsgi", "wsgi", True

    def __init__(self) -> None:
        self.host = cells.wsgi_host()

    def open(self, method: str, target: str, fields: Mapping[str, str], body: bytes) -> WsgiExchange:
        path, _, query = target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in fields.items():
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        return WsgiExchange(self.host, environ)

    def stop(self) -> None:
        pass


# ---- real servers


class HttpExchange:
    def __init__(self, port: int, method: str, target: str, fields: Mapping[str, str], body: bytes) -> None:
        self.whole = True
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        self._connection.connect()
        self._socket = self._connection.sock
        self._connection.putrequest(method, target, skip_host="host" in fields, skip_accept_encoding=True)
        for name, value in fields.items():
            self._connection.putheader(name, value)
        if body:
            self._connection.putheader("content-length", str(len(body)))
        self._connection.endheaders(body or None)
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.fields = named(self._response.getheaders())

    def read(self) -> bytes:
        try:
            chunk = self._response.read1(1 << 20)
        except (http.client.HTTPException, OSError):
            chunk, self.whole = b"", False
        if not chunk:
            self.whole = self.whole and self._response.length in (None, 0)
            self._close()
        return chunk

    def leave(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, at once
        self._close()

    def _close(self) -> None:
        self._response.close()
        self._connection.close()
        self._socket.close()


class RealServer:
    """A server in a process of its own, on a socket that listens already: nobody waits for it to come up."""

    def __init__(self, name: str, protocol: str, arguments: list[str], *, parallel: bool = True) -> None:
        self.name, self.protocol, self.parallel = name, protocol, parallel
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            self.port = listener.getsockname()[1]
            self._home = tempfile.TemporaryDirectory()
            self.log = Path(self._home.name, "log")
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, *(argument.format(fd=listener.fileno()) for argument in arguments)],
                    cwd=ROOT,
                    env={**os.environ, "HOME": self._home.name, "PYTHONPATH": os.pathsep.join(["src", "."])},
                    pass_fds=[listener.fileno()],
                    stdout=log,
                    stderr=log,
                )

    def open(self, method: str, target: str, fields: Mapping[str, str], body: bytes) -> HttpExchange:
        try:
            return HttpExchange(self.port, method, target, fields, body)
        except (http.client.HTTPException, OSError) as error:
            raise AssertionError(f"{self.name} does not answer: {error!r}\n{self.log.read_text()}") from error

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._home.cleanup()


def uvicorn(http_parser: str, websockets: str) -> RealServer:
    arguments = ["-m", "tests.adapters.serve", "{fd}", http_parser, websockets]
    return RealServer(f"uvicorn-{http_parser}", "asgi", arguments)


def gunicorn(worker: str, *options: str, parallel: bool) -> RealServer:
    arguments = ["-m", "gunicorn", "--bind", "fd://{fd}", "--workers", "1", "--worker-class", worker, *options]
    return RealServer(f"gunicorn-{worker}", "wsgi", [*arguments, "tests.adapters.cells:wsgi_host()"], parallel=parallel)


HARNESSES: dict[str, Callable[[], Harness]] = {
    "asgi": AsgiInProcess,
    "wsgi": WsgiInProcess,
    "uvicorn-h11": lambda: uvicorn("h11", "websockets"),
    "uvicorn-httptools": lambda: uvicorn("httptools", "websockets-sansio"),
    "gunicorn-sync": lambda: gunicorn("sync", parallel=False),
    "gunicorn-gthread": lambda: gunicorn("gthread", "--threads", "8", parallel=True),
}


# ---- a test's view


class Turnstile:
    """Lets the app's streams go on, one chunk for each permit."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE)
        self.port = self._listener.getsockname()[1]
        self._app: socket.socket | None = None

    def permit(self) -> None:
        if self._app is None:
            self._app = self._listener.accept()[0]
        self._app.sendall(b".")

    def close(self) -> None:
        self._listener.close()
        if self._app is not None:
            self._app.close()


class Visit:
    """A client of one fresh cell."""

    def __init__(self, harness: Harness, cell: str) -> None:
        self.harness = harness
        self.cell = cell

    def open(self, method: str, target: str, body: bytes = b"", **fields: str) -> Exchange:
        sent = {name.replace("_", "-"): value for name, value in fields.items()}
        return self.harness.open(method, target, {"x-cell": self.cell, **sent}, body)

    def ask(self, method: str, target: str, body: bytes = b"", **fields: str) -> Reply:
        exchange = self.open(method, target, body, **fields)
        chunks = b"".join(iter(exchange.read, b""))
        return Reply(exchange.status, exchange.fields, chunks, exchange.whole)

    def get(self, target: str = "/pets/1", **fields: str) -> Reply:
        return self.ask("GET", target, **fields)

    @contextmanager
    def stream(self, target: str = "/pets/1", **fields: str) -> Iterator[tuple[Exchange, Turnstile]]:
        turnstile = Turnstile()
        try:
            yield self.open("GET", target, x_do="stream", x_turnstile=str(turnstile.port), **fields), turnstile
        finally:
            turnstile.close()

    def control(self, command: str) -> dict[str, Any]:
        return json.loads(self.ask("GET", "/", x_control=command).body)

    def advance(self, seconds: float) -> None:
        self.control(f"advance:{seconds}")

    def report(self) -> dict[str, Any]:
        return self.control("report")
