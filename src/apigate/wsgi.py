"""The gate around a WSGI app.

Rule: what the app returns goes to the server as it is. Fields are added when the app calls `start_response`, however
late that is; only where a gate must know when the response has ended is the iterable wrapped, and never a
`wsgi.file_wrapper`, which would lose the server's sendfile.

The app finds the request's context as `environ["apigate.context"]`: a variable that is no text needs a dot in its name,
or `wsgiref.validate` refuses the environ.

Source: PEP 3333.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol, TypeAlias, cast, final

from apigate.core.context import RequestContext, current
from apigate.core.message import Headers, Reader, Request, Response, ResponseHead
from apigate.gateway import Gateway, check_app
from apigate.throttling.decision import Throttled

__all__ = ["Environ", "GatewayMiddleware", "StartResponse", "WSGIApp", "Write"]

Environ: TypeAlias = dict[str, Any]  # Any: as PEP 3333 has it, values of every type
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Write: TypeAlias = Callable[[bytes], object]


class StartResponse(Protocol):
    """Begins a response, as PEP 3333 has it."""

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /) -> Write:
        """Take status and fields; return what writes the body of an old app."""
        ...


WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_SERVER_ERROR = 500


def _headers(environ: Mapping[str, Any]) -> Headers:
    pairs = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_")]
    own = [(key.replace("_", "-"), environ[key]) for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(key)]
    return Headers(pairs + own)


def _query(environ: Mapping[str, Any]) -> str:
    query: str = environ.get("QUERY_STRING", "")
    return query


_READER = Reader(_headers, _query)


def _path(environ: Environ) -> str:
    """The decoded path; PEP 3333 has its UTF-8 bytes tunnelled through Latin-1."""
    path: str = environ.get("PATH_INFO", "")
    if path and path[0] not in "/*":
        path = f"/{path}"  # Werkzeug routes it so
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


@final
class GatewayMiddleware:
    """Puts a gateway around a WSGI app.

    Args:
        app: The app.
        gateway: The gateway; one may stand around several apps, and be used by threads and loops at once.
        stage: The stage, where the path, host or a header does not tell.

    Raises:
        ConfigurationError: The stage is unknown, or missing while the gateway has several.

    >>> def app(environ, start_response): ...
    >>> app = GatewayMiddleware(app, Gateway(client_throttle="10/second; burst=20"))
    """

    def __init__(self, app: WSGIApp, gateway: Gateway, *, stage: str | None = None) -> None:
        """Bind the gateway to the app."""
        check_app(app, gateway, arguments=2)
        gateway.check_stage(stage)
        self.app: WSGIApp = app
        self.gateway: Gateway = gateway
        self.stage: str | None = stage

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        gateway = self.gateway
        outer = environ.get("apigate.context")
        if gateway.is_empty or (outer is not None and gateway.has_passed(outer, self.stage)):
            return self.app(environ, start_response)
        context = gateway.enter(
            Request(environ["REQUEST_METHOD"], _path(environ), environ.get("REMOTE_ADDR"), environ, _READER),
            self.stage,
        )
        if context.refusal is not None:
            return _refuse(context.refusal, environ, start_response)
        if prefix := context.request.prefix:
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
            environ["PATH_INFO"] = environ["PATH_INFO"][len(prefix) :]
        if outer is not None:
            context.outer = outer
        environ["apigate.context"] = context
        passage = _Passage(gateway, context, start_response)
        token = current.set(context) if gateway.marked else None
        try:
            body = self.app(environ, passage.start_response)
        except Throttled as error:
            passage.complete()
            return passage.refuse(error)
        except BaseException as error:
            passage.fail(error)
            passage.complete()
            raise
        finally:
            if token is not None:
                current.reset(token)
        if passage.status is not None and not (context.compiled.on_complete or gateway.marked):
            return body  # nothing is left to be seen
        if _is_file(body, environ):
            passage.complete()  # the server sends the file by itself; that it has begun is all that can be known
            return body
        return _Body(body, passage)


class _Passage:
    """One response on its way out."""

    __slots__ = ("begin", "context", "ended", "gateway", "status")

    def __init__(self, gateway: Gateway, context: RequestContext, begin: StartResponse) -> None:
        self.gateway: Gateway = gateway
        self.context: RequestContext = context
        self.begin: StartResponse = begin
        self.status: int | None = None
        self.ended = False

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /) -> Write:
        """Begin the response with the gateway's fields; an app may begin anew with an error."""
        self.status = int(status[:3])
        head = ResponseHead(self.status)
        for hook in self.context.compiled.on_response:
            hook(self.context, head)
        if head.added:
            headers = [*headers, *[added.text for added in head.added]]
        return self.begin(status, headers) if exc_info is None else self.begin(status, headers, exc_info)

    def followed(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks; an app that is a generator runs only now, and its decorated functions ask for the context."""
        chunks = iter(body)
        while True:
            token = current.set(self.context) if self.gateway.marked else None
            try:
                chunk = next(chunks)
            except StopIteration:
                return
            finally:
                if token is not None:
                    current.reset(token)
            yield chunk

    def refuse(self, error: Throttled) -> Iterable[bytes]:
        """Answer in the app's place; the server raises the error again if the app's head has been sent (PEP 3333)."""
        response = self.gateway.refuse(self.context, error)
        began = self.status is not None
        exc_info = (type(error), error, cast("TracebackType", error.__traceback__)) if began else None
        return _refuse(response, self.context.request.native, self.begin, exc_info)

    def fail(self, error: BaseException) -> None:
        """Note that the server will answer 500 in the app's place; unless the client left, and so saw no outcome."""
        if self.status is None and isinstance(error, Exception) and not isinstance(error, OSError):
            self.status = _SERVER_ERROR

    def complete(self) -> None:
        """Settle, once."""
        if not self.ended:
            self.ended = True
            self.gateway.complete(self.context, self.status)


class _Body:
    """The app's iterable, which tells when the response has ended: at its close."""

    __slots__ = ("body", "passage")

    def __init__(self, body: Iterable[bytes], passage: _Passage) -> None:
        self.body: Iterable[bytes] = body
        self.passage: _Passage = passage

    def __len__(self) -> int:
        """How many chunks there are, where the app's own iterable tells: servers work out Content-Length from one."""
        return len(cast("Sized", self.body))

    def __iter__(self) -> Iterator[bytes]:
        """The app's chunks. An app that is a generator may be throttled as late as here, before it began to answer."""
        passage = self.passage
        sent = False
        try:
            for chunk in passage.followed(self.body):
                yield chunk
                sent = True
        except Throttled as error:
            if sent:
                raise
            yield from passage.refuse(error)
        except Exception as error:
            passage.fail(error)
            raise

    def close(self) -> None:
        """Close the app's iterable, then settle whatever became of that."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.passage.complete()


def _is_file(body: Iterable[bytes], environ: Environ) -> bool:
    """Tell whether the server may send the body as a file."""
    wrapper: object = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


def _refuse(
    response: Response, environ: Mapping[str, Any], begin: StartResponse, exc_info: ExcInfo | None = None
) -> Iterable[bytes]:
    """Send the gateway's own response."""
    status = response.status
    line = f"{status} {HTTPStatus(status).phrase if status in _PHRASES else 'Error'}"
    fields = [added.text for added in response.fields]
    begin(line, fields) if exc_info is None else begin(line, fields, exc_info)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]


_PHRASES = frozenset(status.value for status in HTTPStatus)
