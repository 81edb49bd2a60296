"""The cache between the gate and a WSGI app: tells an exchange what the app answers, as it passes.

Rule: chunks go on as they come; nothing is held back but a response that the client does not get at all. A response is
stored when its last declared byte has come, or its iterable has ended; what is closed before is not.

Source: RFC 9111; PEP 3333.
"""

from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from io import BytesIO
from threading import BoundedSemaphore, Thread
from types import TracebackType
from typing import Any, Protocol, TypeAlias, cast, final

from apigate.caching.answer import Answer
from apigate.caching.exchange import UNKEYED, Exchange, log_hidden
from apigate.caching.fill import Fill
from apigate.core.closing import close
from apigate.core.message import Field, is_length
from apigate.core.native import put_fields
from apigate.core.policy import require_done

__all__ = [
    "Environ",
    "ExcInfo",
    "StartResponse",
    "WSGIApp",
    "Write",
    "ask",
    "read_body",
    "refresh",
    "serve_exchange",
]

Environ: TypeAlias = dict[str, Any]  # Any: as PEP 3333 has it, values of every type
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Write: TypeAlias = Callable[[bytes], object]


class StartResponse(Protocol):
    """Begins a response, as PEP 3333 has it."""

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /) -> Write:
        """Take status and fields; return what writes the body of an old app."""
        ...


WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_refreshing = BoundedSemaphore(2)  # threads at once in a process; what is not refreshed now is by the next request


def serve_exchange(
    app: WSGIApp,
    exchange: Exchange,
    is_refused: Callable[[], bool],
    environ: Environ,
    begin: StartResponse,
    send: Callable[[Answer], Iterable[bytes]],
) -> Iterable[bytes]:
    """Have the app answer a request, and let the exchange know.

    Args:
        app: The app.
        exchange: What the cache does with the response.
        is_refused: Tells whether something that the app called was throttled; what comes of that is not the app's
            answer, and is neither stored nor replaced.
        environ: The request's environ.
        begin: Where the response begins.
        send: Begins what the cache answers instead, and gives its content.
    """
    if environ.get("wsgi.input_terminated") and not environ.get("CONTENT_LENGTH") and _is_unkeyed(environ):
        environ["wsgi.input"] = _Heeded(environ["wsgi.input"], exchange)
    listener = _Listener(exchange, is_refused, begin, environ)
    try:
        if exchange.questions:
            put_fields(environ, exchange.questions)
        body = app(environ, listener.start_response)
    except Exception as error:
        made = exchange.fail()
        if made is None or listener.has_begun or is_refused():
            raise
        log_hidden(error)
        return send(made)
    except BaseException:
        exchange.fail()
        raise
    replies = exchange.replies and not listener.is_refusal
    if listener.is_file(body) and not replies:
        exchange.waive()  # the server sends the file by itself
        exchange.finish()
        require_done(exchange.settle())
        return body
    if listener.has_begun and not exchange.keeps and not replies:
        require_done(exchange.settle())
        return body  # nothing is left to be heard
    if isinstance(body, (list, tuple)) and listener.has_begun and not replies:
        for chunk in body:
            listener.hear(chunk)
        exchange.finish()
        require_done(exchange.settle())
        return body
    if replies:
        return _replied(exchange, listener, body, send)
    return _Kept(exchange, listener, body, send)


def read_body(environ: Environ, most: int) -> bytes | None:
    """The whole content of a request, which the app can read again; None if it is longer than `most` bytes.

    Args:
        environ: The request's environ; its `wsgi.input` is replaced.
        most: Bytes.
    """
    declared: str = environ.get("CONTENT_LENGTH") or ""
    stream = environ["wsgi.input"]
    if declared.isascii() and declared.isdigit():
        length = int(declared) if is_length(declared) else most + 1
    elif environ.get("wsgi.input_terminated"):
        length = most + 1
    else:
        length = 0  # PEP 3333: without Content-Length there is none
    if length > most and declared:
        return None
    content: bytes = stream.read(length) if length else b""
    environ["wsgi.input"] = BytesIO(content) if len(content) <= most else _Joined(content, stream)
    return content if len(content) <= most and (not declared or len(content) == length) else None


def refresh(app: WSGIApp, exchange: Fill, environ: Environ) -> None:
    """Have the app asked anew in a thread, unless two do so already.

    Args:
        app: The app.
        exchange: What the cache does with the response.
        environ: An environ of its own for the request.
    """
    if not _refreshing.acquire(blocking=False):
        exchange.fail()
        return
    try:
        run = (exchange.context or copy_context()).run
        Thread(target=run, args=(_refreshed, app, exchange, environ), name="apigate refresh", daemon=True).start()
    except RuntimeError:  # the interpreter is about to end
        _refreshing.release()
        exchange.fail()


def ask(app: WSGIApp, exchange: Exchange, environ: Environ) -> None:
    """Have the app answer a request of nobody, so that its response is stored.

    Args:
        app: The app.
        exchange: What the cache does with the response.
        environ: An environ of its own for the request.
    """

    def begin(*_: object) -> Write:
        return len

    try:
        body = serve_exchange(app, exchange, lambda: False, environ, begin, lambda _: ())
        try:
            for _ in body:
                pass
        finally:
            close(body)
    except Exception as error:  # noqa: BLE001 - no request is left that it could be told to
        log_hidden(error)
    finally:
        exchange.fail()


def _refreshed(app: WSGIApp, exchange: Exchange, environ: Environ) -> None:
    try:
        ask(app, exchange, environ)
    finally:
        _refreshing.release()


@final
class _Listener:
    """Hears the head of the app's response, and what old apps write."""

    def __init__(
        self, exchange: Exchange, is_refused: Callable[[], bool], begin: StartResponse, environ: Environ
    ) -> None:
        self._exchange = exchange
        self.is_refused = is_refused
        self._begin = begin
        self._wrapper: object = environ.get("wsgi.file_wrapper")
        self.has_begun = False  # whether the server was given a head
        self.is_refusal = False  # whether what passes is what the app made of a refusal, so not the app's answer
        self._was_called = False
        self.left: int | None = None  # bytes that are still to come, if that is known

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /) -> Write:
        """Note the head, and pass it on; one that replaces another is not kept."""
        exchange = self._exchange
        self.is_refusal = self.is_refused()
        if self._was_called or self.is_refusal:
            exchange.fail()
            added: tuple[Field, ...] = ()
        else:
            added = exchange.begin(int(status[:3]), headers)
            require_done(exchange.publish())
        self._was_called = True
        if exchange.replies and not self.is_refusal:
            return exchange.feed
        self.has_begun = True
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        self.left = int(lengths[0]) if len(lengths) == 1 and is_length(lengths[0]) else None
        given = [*headers, *[field.text for field in added]] if added else headers
        write = self._begin(status, given) if exc_info is None else self._begin(status, given, exc_info)

        def written(chunk: bytes) -> None:
            self.hear(chunk)
            write(chunk)

        return written

    def hear(self, chunk: bytes) -> None:
        """Note a chunk; after the last byte that was declared, the response is complete."""
        self._exchange.feed(chunk)
        if self.left is not None:
            self.left -= len(chunk)
            if self.left == 0:
                self._exchange.finish()

    def is_file(self, body: Iterable[bytes]) -> bool:
        """Tell whether the server may send the body as a file."""
        return isinstance(self._wrapper, type) and isinstance(body, self._wrapper)


class _Kept:
    """The app's iterable, which tells an exchange what passes."""

    __slots__ = ("_body", "_exchange", "_listener", "_send")

    def __init__(
        self,
        exchange: Exchange,
        listener: _Listener,
        body: Iterable[bytes],
        send: Callable[[Answer], Iterable[bytes]],
    ) -> None:
        self._exchange = exchange
        self._listener = listener
        self._body = body
        self._send = send

    def __iter__(self) -> Iterator[bytes]:
        """The app's chunks; or what is answered instead, where the app begins its response as late as here."""
        exchange, listener = self._exchange, self._listener
        try:
            for chunk in self._body:
                if exchange.replies and not listener.is_refusal:
                    exchange.feed(chunk)
                else:
                    listener.hear(chunk)
                    yield chunk
        except Exception as error:
            made = exchange.fail()
            if made is None or listener.has_begun or listener.is_refused():
                raise
            log_hidden(error)
            yield from self._send(made)
            return
        made = exchange.finish()
        if made is not None and not listener.has_begun:
            yield from self._send(made)

    def close(self) -> None:
        """Close the app's iterable; what was not complete by now is not kept."""
        try:
            close(self._body)
        finally:
            self._exchange.fail()
            require_done(self._exchange.settle())


def _replied(
    exchange: Exchange, listener: _Listener, body: Iterable[bytes], send: Callable[[Answer], Iterable[bytes]]
) -> Iterable[bytes]:
    """What the cache answers, once the app's response has ended."""
    kept = _Kept(exchange, listener, body, send)
    try:
        return list(kept)
    finally:
        kept.close()


def _is_unkeyed(environ: Environ) -> bool:
    """Tell whether content of a request would be no part of its key."""
    return environ["REQUEST_METHOD"] in ("GET", "HEAD")


@final
class _Heeded:
    """An input from which the app may read what no field tells of; then its answer is not kept."""

    def __init__(self, stream: Any, exchange: Exchange) -> None:  # Any: whatever the server has for an input
        self._stream = stream
        self._exchange = exchange

    def _heed(self, content: bytes) -> bytes:
        if content:
            self._exchange.waive(UNKEYED)
        return content

    def read(self, *size: int) -> bytes:
        """As the server's."""
        return self._heed(self._stream.read(*size))

    def readline(self, *size: int) -> bytes:
        """As the server's."""
        return self._heed(self._stream.readline(*size))

    def readlines(self, *hint: int) -> list[bytes]:
        """As the server's."""
        return [self._heed(line) for line in self._stream.readlines(*hint)]

    def __iter__(self) -> Iterator[bytes]:
        """Line by line, as the server's."""
        return map(self._heed, iter(self._stream))

    def __getattr__(self, name: str) -> Any:  # Any: as the server's has it
        return getattr(self._stream, name)


@final
class _Joined:
    """An input of which a part was read: that part, then the rest."""

    def __init__(self, read: bytes, rest: Any) -> None:  # Any: whatever the server has for an input
        self._read = BytesIO(read)
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        """As many bytes as there are, or `size`."""
        content = self._read.read(size)
        if 0 <= size <= len(content):
            return content
        return content + cast("bytes", self._rest.read(*(() if size < 0 else (size - len(content),))))

    def readline(self, size: int = -1) -> bytes:
        """One line."""
        line = self._read.readline(size)
        if line.endswith(b"\n") or 0 <= size <= len(line):
            return line
        return line + cast("bytes", self._rest.readline(*(() if size < 0 else (size - len(line),))))

    def readlines(self, _hint: int = -1) -> list[bytes]:
        """All lines."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        """Line by line."""
        while line := self.readline():
            yield line
