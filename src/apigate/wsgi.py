"""The gate around a WSGI app.

Rule: what the app returns goes to the server as it is. Fields are added when the app calls `start_response`, however
late that is; only where a gate must know when the response has ended is the iterable wrapped. Never so a
`wsgi.file_wrapper`, which would lose the server's sendfile: it tells by a `close` of its own.

The app finds the request's context as `environ["apigate.context"]`: a variable that is no text needs a dot in its name,
or `wsgiref.validate` refuses the environ.

Source: PEP 3333.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sized
from contextvars import copy_context
from functools import partial
from http import HTTPStatus
from io import BytesIO
from types import TracebackType
from typing import cast, final

from apigate.caching.answer import Answer
from apigate.caching.fill import Fill
from apigate.caching.settings import KEYED_BY_CONTENT
from apigate.core.closing import close
from apigate.core.context import RequestContext, current
from apigate.core.endpoints import Routing
from apigate.core.message import Response, ResponseHead
from apigate.core.native import plain_environ, warm_requests, wsgi_request
from apigate.core.policy import block_on
from apigate.gateway import Gateway, check_app
from apigate.routing import routing_of
from apigate.throttling.decision import Throttled
from apigate.wsgi_exchange import (
    Environ,
    ExcInfo,
    StartResponse,
    Write,
    WSGIApp,
    ask,
    read_body,
    refresh,
    serve_exchange,
)

__all__ = ["Environ", "GatewayMiddleware", "StartResponse", "WSGIApp", "Write"]

_SERVER_ERROR = 500


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
        self.routing: Routing | None = routing_of(app)
        self._find = None if self.routing is None else self.routing.find
        self._has_begun = False
        self._label = gateway.bind(app, self.routing, warm=self.warm)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        gateway = self.gateway
        if not self._has_begun:
            self._has_begun = True
            gateway.begin(environ)
        outer = environ.get("apigate.context")
        if gateway.is_empty or (outer is not None and gateway.has_passed(outer, self.stage, environ)):
            return self.app(environ, start_response)
        request = wsgi_request(environ)
        if self._label:
            request.app = self._label
        if gateway.caches and not environ.get("wsgi.multithread", True):
            request.may_wait = False
        if gateway.reads_content and request.method in KEYED_BY_CONTENT:
            request.read_body = partial(read_body, environ)
        context = gateway.enter(request, self.stage, self._find)
        passage = _Passage(self, context, start_response)
        if outer is not None:
            context.stand_within(outer)
        if context.refusal is not None:
            return passage.send(context.refusal)
        if context.answer is not None:
            return self._answer(context, context.answer, environ, passage)
        return self._serve(context, _inner(context, environ), passage)

    def warm(self, requests: "Iterable[str | tuple[str, Mapping[str, str]]]") -> int:
        """Have responses stored before clients ask for them, one after another.

        Args:
            requests: Whole URLs as clients write them, `https://shop.example/pets?page=1`, as host and scheme are part
                of each key; or URLs with request fields.

        Returns:
            How many were stored now; the others are stored already, or may not be.

        Raises:
            ConfigurationError: A URL has no scheme or no host, or a single one is given in place of a list.
            ProtocolError: What is shared has to be awaited.
        """
        stored = 0
        for url, headers in warm_requests(requests):
            environ = plain_environ(url, headers)
            request = wsgi_request(environ)
            request.app = self._label
            context, exchange = self.gateway.enter_unasked(request, self.stage, self._find)
            found = block_on(exchange) if isinstance(exchange, Awaitable) else exchange
            if found is None:
                continue
            context.exchange = found
            app = partial(_in_context, self.app, context)
            copy_context().run(ask, app, found, _inner(context, environ))  # so that none of it is left behind here
            stored += found.has_stored
        return stored

    def _serve(self, context: RequestContext, environ: Environ, passage: "_Passage") -> Iterable[bytes]:
        """Hand an admitted request to the app."""
        gateway = self.gateway
        token = current.set(context) if gateway.marked else None
        try:
            if context.exchange is None:
                body = self.app(environ, passage.start_response)
            else:
                body = serve_exchange(
                    self.app,
                    context.exchange,
                    lambda: context.inner_refusal is not None,
                    environ,
                    passage.start_response,
                    passage.send_answer,
                )
        except Throttled as error:
            try:
                return passage.refuse(error)
            finally:  # the server raises it again where something has gone out
                passage.complete()
        except BaseException as error:
            passage.fail(error)
            passage.complete()
            raise
        finally:
            if token is not None:
                current.reset(token)
        if passage.status is not None and not (context.compiled.on_complete or gateway.marked):
            context.request.detach("apigate.context")
            return body  # nothing is left to be seen
        if _is_file(body, environ):
            if not _tells_of_close(body, passage.complete):
                passage.complete()  # that it has begun is all that can be known
            return body
        return _SizedBody(body, passage) if hasattr(body, "__len__") else _Body(body, passage)

    def _answer(
        self, context: RequestContext, answer: Answer, environ: Environ, passage: "_Passage"
    ) -> Iterable[bytes]:
        """Send what the cache answers in the app's place."""
        try:
            return passage.send_answer(answer)
        except BaseException as error:
            passage.fail(error)
            raise
        finally:
            passage.complete()
            if answer.refresh is not None:
                self._refresh(context, answer.refresh, environ)

    def _refresh(self, context: RequestContext, exchange: Fill, environ: Environ) -> None:
        """Have the app asked anew, for the same principal, by a request that takes from no limit."""
        anew = context.again(exchange)
        copied: Environ = {**environ, "wsgi.input": BytesIO(), "CONTENT_LENGTH": "0"}
        if environ["REQUEST_METHOD"] == "HEAD":
            copied["REQUEST_METHOD"] = "GET"
        refresh(partial(_in_context, self.app, anew), exchange, _inner(anew, copied))


def _inner(context: RequestContext, environ: Environ) -> Environ:
    """The environ that the app gets: with the context, and the stage's segment part of what it is mounted under."""
    if prefix := context.request.prefix:
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
        environ["PATH_INFO"] = environ["PATH_INFO"][len(prefix) :]
    environ["apigate.context"] = context
    return environ


def _in_context(app: WSGIApp, context: RequestContext, environ: Environ, begin: StartResponse) -> Iterable[bytes]:
    """Call the app in a context of its own, where its decorated functions find the request's."""
    current.set(context)
    return app(environ, begin)


class _Passage:
    """One response on its way out."""

    __slots__ = ("begin", "begun", "context", "ended", "gate", "status", "withheld")

    def __init__(self, gate: GatewayMiddleware, context: RequestContext, begin: StartResponse) -> None:
        self.gate: GatewayMiddleware = gate
        self.context: RequestContext = context
        self.begin: StartResponse = begin
        self.status: int | None = None
        self.ended = False
        self.begun = False  # whether the server has been given a head
        self.withheld = False  # whether the app's 500 was kept back: the gate answers what it was about

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /) -> Write:
        """Begin the response with the gateway's fields; an app may begin anew with an error."""
        context = self.context
        self.status = code = int(status[:3])
        refused: Throttled | None = context.inner_refusal
        self.withheld = refused is not None and code == _SERVER_ERROR
        if self.withheld:
            return _write_nothing
        if refused is not None and code == refused.status:
            self.gate.gateway.refuse(context, refused)  # the app has its own words for it
        if context.refusal is None:
            head = ResponseHead(code, context.added)
            try:
                for hook in context.compiled.on_response:
                    hook(context, head)
            except Exception:
                self.status = _SERVER_ERROR
                raise
            if head.added:
                headers = [*headers]
                for added in head.added:  # no comprehension, which is a call: it takes as long as three of these
                    headers.append(added.text)
        return self.give(status, headers, exc_info)

    def give(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None) -> Write:
        """Give the server a head; with the error where it has been given one before."""
        begun, self.begun = self.begun, True
        return self.begin(status, headers, exc_info) if begun and exc_info is not None else self.begin(status, headers)

    def followed(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks; an app that is a generator runs only now, and its decorated functions ask for the context."""
        chunks = iter(body)
        while True:
            token = current.set(self.context) if self.gate.gateway.marked else None
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
        response = self.gate.gateway.refuse(self.context, error)
        return self.send(response, (type(error), error, cast("TracebackType", error.__traceback__)))

    def send(self, response: Response, exc_info: ExcInfo | None = None) -> Iterable[bytes]:
        """Send the gateway's own response."""
        environ = self.context.request.native
        if "HTTP_ORIGIN" in environ:
            response = self.gate.gateway.readable(self.context, response, self.gate.routing)
        self.give(status_line(response.status), list(response.text), exc_info)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def send_answer(self, answer: Answer) -> Iterable[bytes]:
        """Send what the cache answers, with the gateway's fields."""
        headers = list(answer.text)
        if self.context.compiled.on_response:
            head = ResponseHead(answer.status)
            for hook in self.context.compiled.on_response:
                hook(self.context, head)
            headers += [added.text for added in head.added]
        self.status = answer.status
        self.give(status_line(answer.status), headers, None)
        return [answer.body] if answer.body else []

    def fail(self, error: BaseException) -> None:
        """Note that the server will answer 500 in the app's place; unless the client left, and so saw no outcome."""
        if self.status is None and isinstance(error, Exception) and not isinstance(error, OSError):
            self.status = _SERVER_ERROR

    def complete(self) -> None:
        """Settle, once."""
        if not self.ended:
            self.ended = self.context.ended = True
            self.context.request.detach("apigate.context")
            self.gate.gateway.complete(self.context, self.status)


class _Body:
    """The app's iterable, which tells when the response has ended: at its close."""

    __slots__ = ("body", "passage")

    def __init__(self, body: Iterable[bytes], passage: _Passage) -> None:
        self.body: Iterable[bytes] = body
        self.passage: _Passage = passage

    def __iter__(self) -> Iterator[bytes]:
        """The app's chunks. An app that is a generator may be throttled as late as here, before it began to answer."""
        passage = self.passage
        sent = False
        try:
            for chunk in passage.followed(self.body):
                if not passage.withheld:
                    yield chunk
                    sent = True
            if passage.withheld:
                yield from passage.refuse(passage.context.inner_refusal)
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
            close(self.body)
        finally:
            self.passage.complete()


class _SizedBody(_Body):
    """One that tells how many chunks there are: servers work out Content-Length where there is only one."""

    __slots__ = ()

    def __len__(self) -> int:
        """As many as the app's own iterable has."""
        return len(cast("Sized", self.body))


def _is_file(body: Iterable[bytes], environ: Environ) -> bool:
    """Tell whether the server may send the body as a file."""
    wrapper: object = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


def _tells_of_close(body: Iterable[bytes], told: Callable[[], None]) -> bool:
    """Have a body tell when the server closes it; False where it takes no `close`, as one that is made in C."""
    within = getattr(body, "close", None)

    def closed() -> None:
        try:
            if within is not None:
                within()
        finally:
            told()

    try:
        body.close = closed  # type: ignore[attr-defined]  # as PEP 3333 has servers look for it
    except (AttributeError, TypeError):
        return False
    return True


def status_line(status: int) -> str:
    """Code and reason phrase, as WSGI has them."""
    return _STATUS_LINES.get(status) or f"{status} Error"


def _write_nothing(_: bytes, /) -> None:
    """Take the body of a response that is kept back."""


_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
