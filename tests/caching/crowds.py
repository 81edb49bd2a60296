"""Crowds of clients that ask one gateway at once, by tasks, by threads or by both, and an app that counts its runs."""

import asyncio
import io
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any

from apigate import CachePolicy, Gateway, Method, ResponseCache, asgi, wsgi
from apigate.testing import FakeClock

__all__ = ["WORLDS", "Act", "AppError", "Ask", "House", "Seen", "until", "until_async"]

DEADLINE = 60.0
"""Seconds until a test gives up that nobody hangs."""

WORLDS = ("asgi", "wsgi", "both")


class AppError(Exception):
    """The app failed."""


@dataclass(frozen=True)
class Ask:
    """A request of a client."""

    path: str = "/a"
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()


@dataclass
class Seen:
    """What a client got."""

    status: int = 0
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False
    error: BaseException | None = None

    def get(self, name: str) -> str | None:
        """A field that came once at most."""
        values = [value for each, value in self.fields if each.lower() == name]
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def is_hit(self) -> bool:
        """Whether it is from the store."""
        return self.get("age") is not None


@dataclass
class Act:
    """One run of the app: conditions that it waits for, and what it does."""

    fields: Sequence[tuple[str, str]] = (("Cache-Control", "max-age=60"),)
    chunks: Sequence[bytes] = (b"one ", b"two")
    status: int = 200
    before: Callable[[], bool] | None = None
    between: Callable[[], bool] | None = None
    ends: str = "well"  # "raises before", "raises after", "short"
    inner: Callable[[], Any] | None = None  # what it does first: a function, of a coroutine for ASGI


class House:
    """A gateway around one app in both protocols; `act` gives what each run does, by its number from 0."""

    def __init__(self, policy: CachePolicy | None = None, cache: ResponseCache | None = None, **settings: Any) -> None:
        self.clock = FakeClock()
        self.cache = cache or ResponseCache()
        methods = {"*": Method(cache=policy or CachePolicy(wait=2 * DEADLINE))}  # who hangs is found out
        self.gateway = Gateway(cache=self.cache, methods=methods, clock=self.clock, **settings)
        self.act: Callable[[int, Ask], Act] = lambda number, ask: Act()
        self.asked: list[Ask] = []
        self.answered = 0
        self._lock = threading.Lock()
        self._numbers = count()
        self.asgi = asgi.GatewayMiddleware(self._asgi_app, self.gateway)
        self.wsgi = wsgi.GatewayMiddleware(self._wsgi_app, self.gateway)

    @property
    def runs(self) -> int:
        """How often the app was asked."""
        return len(self.asked)

    @property
    def waiting(self) -> int:
        """How many wait for a flight."""
        return sum(len(flight.waiting) for flight in list(self.cache.flights._board.flights.values()))

    # ---- the app

    async def _asgi_app(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        act = self._begun(scope["path"], scope["method"], scope["headers"])
        if act.inner is not None:
            await act.inner()
        listening = asyncio.ensure_future(self._stop_on_disconnect(receive, asyncio.current_task()))
        try:
            await until_async(act.before)
            if act.ends == "raises before":
                raise AppError
            headers = [(name.lower().encode(), value.encode()) for name, value in act.fields]
            await send({"type": "http.response.start", "status": act.status, "headers": headers})
            for chunk in act.chunks if scope["method"] != "HEAD" else ():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await until_async(act.between)
            if act.ends == "raises after":
                raise AppError
            if act.ends != "short":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            listening.cancel()

    async def _stop_on_disconnect(self, receive, task):
        """As Starlette does while it streams."""
        while (await receive())["type"] != "http.disconnect":
            pass
        task.cancel()

    def _wsgi_app(self, environ, start_response):
        headers = [(name[5:].encode(), value.encode()) for name, value in environ.items() if name.startswith("HTTP_")]
        act = self._begun(environ["PATH_INFO"], environ["REQUEST_METHOD"], headers)
        if act.inner is not None:
            act.inner()
        until(act.before)
        if act.ends == "raises before":
            raise AppError
        start_response(f"{act.status} Said", list(act.fields))
        return self._streamed(act, environ["REQUEST_METHOD"])

    def _streamed(self, act: Act, method: str) -> Iterator[bytes]:
        for chunk in act.chunks if method != "HEAD" else ():
            yield chunk
            until(act.between)
        if act.ends in ("raises after", "short"):
            raise AppError  # by WSGI a response without a length that ends is whole

    def _begun(self, path: str, method: str, headers: Sequence[tuple[bytes, bytes]]) -> Act:
        fields = tuple((name.decode().lower().replace("_", "-"), value.decode()) for name, value in headers)
        ask = Ask(path, method, fields)
        number = next(self._numbers)
        self.asked.append(ask)
        return self.act(number, ask)

    # ---- clients

    def crowd(self, world: str, asks: Sequence[Ask]) -> list[Seen]:
        """What as many clients get, all at once."""
        if world == "asgi":
            return asyncio.run(self._tasks(asks))
        if world == "wsgi":
            return self._threads(asks)
        half = len(asks) // 2
        with ThreadPoolExecutor(1) as pool:
            tasks = pool.submit(asyncio.run, self._tasks(asks[:half]))
            threads = self._threads(asks[half:])
            return tasks.result() + threads

    async def _tasks(self, asks: Sequence[Ask]) -> list[Seen]:
        async with asyncio.timeout(DEADLINE):
            return await asyncio.gather(*[self.ask_async(ask) for ask in asks])

    def _threads(self, asks: Sequence[Ask]) -> list[Seen]:
        barrier = threading.Barrier(len(asks))

        def visit(ask: Ask) -> Seen:
            barrier.wait()
            return self.ask(ask)

        with ThreadPoolExecutor(len(asks)) as pool:
            return list(pool.map(visit, asks, timeout=DEADLINE))

    async def ask_async(self, ask: Ask, receive: Callable[[], Any] | None = None) -> Seen:
        """One client by ASGI."""
        seen = Seen()
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def hear():
            if messages:
                return messages.pop()
            return await asyncio.get_running_loop().create_future()

        async def send(message):
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                seen.fields = [(name.decode(), value.decode()) for name, value in message["headers"]]
            else:
                seen.body += message.get("body", b"")
                seen.whole = not message.get("more_body", False)

        scope = {
            "type": "http",
            "method": ask.method,
            "scheme": "http",
            "path": ask.path,
            "raw_path": ask.path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"shop"), *[(name.encode(), value.encode()) for name, value in ask.fields]],
        }
        try:
            await self.asgi(scope, receive or hear, send)
        except AppError as error:
            seen.error = error
        self._count()
        return seen

    def environ(self, ask: Ask, **more: Any) -> dict[str, Any]:
        """A request by WSGI."""
        return {
            "REQUEST_METHOD": ask.method,
            "PATH_INFO": ask.path,
            "RAW_URI": ask.path,
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.multithread": True,
            "HTTP_HOST": "shop",
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in ask.fields},
            **more,
        }

    def ask(self, ask: Ask, **more: Any) -> Seen:
        """One client by WSGI."""
        seen = Seen()

        def start_response(status, headers, exc_info=None):
            seen.status, seen.fields = int(status[:3]), headers

        try:
            body = self.wsgi(self.environ(ask, **more), start_response)
            try:
                for chunk in body:
                    seen.body += chunk
                seen.whole = True
            finally:
                getattr(body, "close", lambda: None)()
        except AppError as error:
            seen.error = error
        self._count()
        return seen

    def _count(self) -> None:
        with self._lock:
            self.answered += 1

    def visit(self, world: str, ask: Ask) -> Seen:
        """One client."""
        return asyncio.run(self.ask_async(ask)) if world == "asgi" else self.ask(ask)


def until(condition: Callable[[], object] | None) -> None:
    """Block until something is so."""
    deadline = monotonic() + DEADLINE
    while condition is not None and not condition():
        assert monotonic() < deadline, "it never came to it"
        select.select([], [], [], 0.001)


async def until_async(condition: Callable[[], object] | None) -> None:
    """Suspend until something is so."""
    deadline = monotonic() + DEADLINE
    while condition is not None and not condition():
        assert monotonic() < deadline, "it never came to it"
        await asyncio.sleep(0.001)
