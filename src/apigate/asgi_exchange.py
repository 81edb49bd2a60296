"""The cache between the gate and an ASGI app: tells an exchange what the app answers, as it passes.

Rule: messages go on as they come; nothing is held back but a response that the client does not get at all. A client
that leaves does not cut short a response that is being stored, as others wait for it.

Source: RFC 9111; ASGI specification 3.0, HTTP message format 2.4.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextvars import Context
from functools import partial
from typing import Any, TypeAlias, final

from apigate.caching.answer import Answer
from apigate.caching.exchange import UNKEYED, Exchange, log_hidden
from apigate.caching.fill import Fill
from apigate.core.message import RequestFields

__all__ = [
    "ASGIApp",
    "Message",
    "Receive",
    "RefreshTasks",
    "RequestBody",
    "Scope",
    "Send",
    "ask",
    "ask_apart",
    "refresh",
    "send_answer",
    "serve_exchange",
    "stop_refreshing",
]

Scope: TypeAlias = MutableMapping[str, Any]  # Any: as the specification has it, values of every type
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_UNSEEN = ("http.response.trailers", "http.response.pathsend", "http.response.zerocopysend")  # so it cannot be stored
_WITHOUT_CONTENT = ("GET", "HEAD")  # methods whose content is no part of a key
_PATIENCE = 30.0  # seconds that an app goes on for others after its client has left; some responses never end
_MOST_DESERTED = 1_000  # of these at once in a process; clients that leave may not have any number of calls live on
_MOST_REFRESHES = 100  # at once of one adapter in a process; what is not refreshed now is by the next request


async def serve_exchange(
    app: ASGIApp, exchange: Exchange, is_refused: Callable[[], bool], scope: Scope, receive: Receive, send: Send
) -> None:
    """Have the app answer a request, and let the exchange know.

    Args:
        app: The app.
        exchange: What the cache does with the response.
        is_refused: Tells whether something that the app called was throttled; what comes of that is not the app's
            answer, and is neither stored nor replaced.
        scope: The request's scope.
        receive: Where the client is heard.
        send: Where the response goes.
    """
    listener = _Listener(exchange, is_refused, receive, send, scope.get("method") in _WITHOUT_CONTENT)
    made: Answer | None = None
    if exchange.questions:
        scope = _asking(scope, exchange.questions)
    try:
        await app(scope, listener.receive, listener.send)
    except Exception as error:
        made = exchange.fail()
        if made is None or listener.has_begun or is_refused():
            raise
        log_hidden(error)
    except BaseException:
        exchange.fail()
        raise
    finally:
        if listener.over is not None:
            listener.over.set()
    made = made or exchange.fail()  # without effect where the response is complete
    if made is not None and not listener.has_begun:
        await send_answer(made, send)
    if (left := exchange.settle()) is not None:
        await left


async def send_answer(answer: Answer, send: Send) -> None:
    """Send what the cache answers."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.raw.copy()})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def refresh(app: ASGIApp, exchange: Fill, scope: Scope) -> None:
    """Have the app asked anew in a task of its own, which the server's shutdown cancels.

    Args:
        app: The app.
        exchange: What the cache does with the response.
        scope: A scope of its own for the request.
    """
    _refreshes.start(exchange, partial(ask, app, exchange, scope))


async def ask(app: ASGIApp, exchange: Exchange, scope: Scope) -> None:
    """Have the app answer a request of nobody, so that its response is stored.

    Args:
        app: The app.
        exchange: What the cache does with the response.
        scope: A scope of its own for the request.
    """
    has_asked = False

    async def receive() -> Message:
        nonlocal has_asked
        if not has_asked:
            has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.get_running_loop().create_future()  # nobody is there who could leave
        raise AssertionError("unreachable")

    async def send(_: Message) -> None:
        """Send to nobody."""

    try:
        await serve_exchange(app, exchange, _never, scope, receive, send)
    except Exception as error:  # noqa: BLE001 - no request is left that it could be told to
        log_hidden(error)


async def ask_apart(app: ASGIApp, exchange: Exchange, scope: Scope, variables: Context) -> None:
    """`ask`, where nothing that is set meanwhile is left behind in the caller's context.

    Args:
        app: As in `ask`.
        exchange: As in `ask`.
        scope: As in `ask`.
        variables: A context of its own for the request.
    """
    await asyncio.get_running_loop().create_task(ask(app, exchange, scope), context=variables)


async def stop_refreshing() -> None:
    """Cancel what is being refreshed on this loop."""
    await _refreshes.stop()


@final
class RefreshTasks:
    """The tasks of one adapter in which stale responses are refreshed, in all event loops of the process.

    Attributes:
        running: Those that have not ended.

    Source: RFC 5861, section 3.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.running: set[asyncio.Task[None]] = set()

    def start(self, exchange: Fill, ask: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have the app asked anew in a task of the running loop, unless too many do so already.

        Args:
            exchange: What the cache does with the response.
            ask: Begins to ask; what it raises is lost.
        """
        if len(self.running) >= _MOST_REFRESHES:
            exchange.fail()
            return
        task = asyncio.get_running_loop().create_task(ask(), context=exchange.context)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        task.add_done_callback(lambda _: exchange.fail())  # one that was cancelled before it began has said nothing

    async def stop(self) -> None:
        """Cancel those of the running loop, and wait for their end."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in self.running if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_refreshes = RefreshTasks()


def _never() -> bool:
    return False


def _asking(scope: Scope, questions: RequestFields) -> Scope:
    """The scope with what the cache asks the app itself."""
    asked = {name.encode("latin-1"): value for name, value in questions}
    # A bridge to WSGI takes an underscore for a hyphen: a client's If_None_Match would stand beside our own question.
    headers = [(name, value) for name, value in scope["headers"] if name.replace(b"_", b"-") not in asked]
    headers += [(name, value.encode("latin-1")) for name, value in asked.items() if value is not None]
    return {**scope, "headers": headers}


_deserted: "set[_Listener]" = set()  # whose client has left, and which go on for others


@final
class _Listener:
    """Hears the app's response and the client's leaving."""

    def __init__(
        self, exchange: Exchange, is_refused: Callable[[], bool], receive: Receive, send: Send, is_unkeyed: bool
    ) -> None:
        self._exchange = exchange
        self._is_unkeyed = is_unkeyed  # whether content of the request would be no part of its key
        self._is_refused = is_refused
        self._receive = receive
        self._send = send
        self._has_left = False
        self._is_idle = False  # whether nothing is left to be heard
        self.has_begun = False  # whether the client has been sent anything
        self.over: asyncio.Event | None = None  # set once nobody needs the response any more

    async def receive(self) -> Message:
        """What the client sends; that it has left is told only when nobody needs the response any more, or too late."""
        message = await self._receive()
        if self._is_unkeyed and message.get("body"):
            self._exchange.waive(UNKEYED)
        if message["type"] == "http.disconnect":
            self._has_left = True
            if self._exchange.keeps and len(_deserted) < _MOST_DESERTED:
                self.over = self.over or asyncio.Event()
                _deserted.add(self)
                try:
                    async with asyncio.timeout(_PATIENCE):
                        await self.over.wait()
                except TimeoutError:
                    self._exchange.fail()  # what the app sends now that it is told may be cut short
                finally:
                    _deserted.discard(self)
            elif self._exchange.keeps:
                self._exchange.fail()
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Note a message, and pass it on."""
        return self._send(message) if self._is_idle else self._heard(message)

    async def _heard(self, message: Message) -> None:
        exchange = self._exchange
        kind = message["type"]
        if kind == "http.response.body":
            exchange.feed(message.get("body", b""))
            made = None if message.get("more_body", False) else exchange.finish()
            if made is not None:
                self.has_begun = True
                await send_answer(made, self._send)
        elif kind == "http.response.start":
            if self._is_refused():
                exchange.fail()
                self._is_idle = True
            else:
                message = self._begun(message)
                told = exchange.publish()
                if told is not None:
                    await told
                self._is_idle = not (exchange.replies or exchange.keeps)
        elif kind in _UNSEEN:
            exchange.waive()
        if self._is_idle or not exchange.replies:
            self.has_begun = True
            if not (self._has_left and exchange.keeps):
                try:
                    await self._send(message)
                except OSError:  # the client has left; some servers say so here
                    if not exchange.keeps:
                        raise
                    self._has_left = True
        if self.over is not None and not exchange.keeps:
            self.over.set()

    def _begun(self, message: Message) -> Message:
        """The head of the response with the cache's fields; the app's own message is left as it is."""
        if message.get("trailers"):
            self._exchange.waive()
        headers = list(message.get("headers", ()))  # any iterable, which may be one that is read only once
        lines = [(str(name, "latin-1"), str(value, "latin-1")) for name, value in headers]
        headers += [field.raw for field in self._exchange.begin(message["status"], lines)]
        return {**message, "headers": headers}


def _content(chunks: list[bytes], *, has_more: bool) -> Message:
    """Content that was read, as one message."""
    return {"type": "http.request", "body": b"".join(chunks), "more_body": has_more}


@final
class RequestBody:
    """The content of a request that is read for its key, and read again by the app.

    Args:
        receive: Where it comes from.
    """

    def __init__(self, receive: Receive) -> None:
        """Nothing is read yet."""
        self._receive = receive
        self._read: list[Message] = []

    async def read(self, most: int) -> bytes | None:
        """The whole content; None if it is longer than `most` bytes, or the client has left."""
        chunks: list[bytes] = []
        length, has_more = 0, True
        while has_more and length <= most:
            message = await self._receive()
            if message["type"] != "http.request":
                self._read = [_content(chunks, has_more=True), message]
                return None
            has_more = message.get("more_body", False)
            chunk: bytes = message.get("body", b"")
            if chunk:  # of empty ones there may be any number
                chunks.append(chunk)
                length += len(chunk)
        whole = _content(chunks, has_more=has_more)
        self._read = [whole]
        return whole["body"] if length <= most else None

    async def receive(self) -> Message:
        """For the app: what was read, then what comes."""
        if self._read:
            return self._read.pop(0)
        return await self._receive()
