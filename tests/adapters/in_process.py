"""A server without a socket for each protocol: nothing between the gate and the test but what the protocol demands."""

import asyncio
import itertools
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from tests.adapters.harness import DEADLINE, Fields, Harness, named
from tests.adapters.hosts import HOSTS

# ---- ASGI in process

BROKEN = object()


class AsgiExchange:
    def __init__(self, harness: "AsgiInProcess", scope: dict[str, Any], body: bytes) -> None:
        self._loop = harness.loop
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._inbox = [{"type": "http.request", "body": body, "more_body": False}]
        self._done = False
        self.whole = True
        self._gone: asyncio.Event
        self._serving = asyncio.run_coroutine_threadsafe(self._serve(harness.app, scope), self._loop)  # loops are weak
        first = self._outbox.get(timeout=DEADLINE)
        if first is BROKEN:
            self.status, self.fields, self._done = 500, [], True
            return
        assert first["type"] == "http.response.start"
        self.status = first["status"]
        self.fields = named((name.decode("latin-1"), value.decode("latin-1")) for name, value in first["headers"])

    async def _serve(self, app: Any, scope: dict[str, Any]) -> None:
        self._gone = asyncio.Event()
        try:
            await app(scope, self._receive, self._send)
        except Exception:  # noqa: BLE001 - what a server answers with 500, or cuts off
            self._outbox.put(BROKEN)  # not the error, which would keep alive what the app was about
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
            if message is None or message is BROKEN:
                self.whole = message is None
                self._done = True
            elif message["type"] == "http.response.body" and (body := message.get("body", b"")):
                return body
        return b""

    def leave(self) -> None:
        self._loop.call_soon_threadsafe(self._gone.set)


class AsgiInProcess:
    def __init__(self, host: str) -> None:
        self.server, self.host, self.protocol = "asgi", host, "asgi"
        self.app = HOSTS[host].make()
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
        self.status = 500
        self.fields: Fields = []
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
        self.fields = named((name, value.strip()) for name, value in headers)  # Django begins cookies with a space
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
    def __init__(self, host: str) -> None:
        self.server, self.host, self.protocol = "wsgi", host, "wsgi"
        self.app = HOSTS[host].make()

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
        return WsgiExchange(self.app, environ)

    def stop(self) -> None:
        pass


IN_PROCESS: dict[str, Callable[[str], Harness]] = {"asgi": AsgiInProcess, "wsgi": WsgiInProcess}
