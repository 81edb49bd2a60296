"""The gate around an ASGI app: http and websocket handshakes go through the gateway, everything else passes through.

Rule: messages are never buffered, reordered or looked into, but for the head of the response, once, and the message
that ends it. A websocket's messages are not touched at all.

Source: ASGI specification 3.0, HTTP and WebSocket message format 2.4; "WebSocket Denial Response" extension.
"""

from collections.abc import Awaitable, Iterable, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any, cast, final

from apigate.asgi_exchange import (
    ASGIApp,
    Message,
    Receive,
    RequestBody,
    Scope,
    Send,
    ask_apart,
    refresh,
    serve_exchange,
    stop_refreshing,
)
from apigate.caching.answer import Answer
from apigate.caching.fill import Fill
from apigate.caching.settings import KEYED_BY_CONTENT
from apigate.core.context import RequestContext, current
from apigate.core.endpoints import Routing
from apigate.core.message import Request, Response, ResponseHead
from apigate.core.native import asgi_request, plain_request, staged_path, warm_requests
from apigate.gateway import Gateway, check_app
from apigate.routing import routing_of
from apigate.throttling.decision import Throttled

__all__ = ["ASGIApp", "GatewayMiddleware", "Message", "Receive", "Scope", "Send"]

_GATED = ("http", "websocket")
_AROUND = ("app", "root_path", "state")  # which Starlette and FastAPI add to the scopes of their middleware
_BODY = ("http.response.body", "http.response.zerocopysend", "http.response.pathsend")
_SERVER_ERROR = 500
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1


def _refusal_in(error: Exception) -> Throttled | None:
    """What a decorated function raised, also where a task group of the framework wrapped it."""
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return _refusal_in(group.exceptions[0]) if len(group.exceptions) == 1 else None
    return error if isinstance(error, Throttled) else None


async def _nothing() -> None:
    """Send nothing."""


@final
class GatewayMiddleware:
    """Puts a gateway around an ASGI app.

    Args:
        app: The app.
        gateway: The gateway; one may stand around several apps, and be used by threads and loops at once.
        stage: The stage, where the path, host or a header does not tell.

    Raises:
        ConfigurationError: The stage is unknown, or missing while the gateway has several.

    >>> async def app(scope, receive, send): ...
    >>> app = GatewayMiddleware(app, Gateway(client_throttle="10/second; burst=20"))
    """

    def __init__(self, app: ASGIApp, gateway: Gateway, *, stage: str | None = None) -> None:
        """Bind the gateway to the app."""
        check_app(app, gateway, arguments=3)
        gateway.check_stage(stage)
        self.app: ASGIApp = app
        self.gateway: Gateway = gateway
        self.stage: str | None = stage
        self.routing: Routing | None = routing_of(app)
        self._find = None if self.routing is None else self.routing.find
        self._has_begun = False
        self._around: Scope = {}  # what stands around this gate adds to each scope
        self._label = gateway.bind(app, self.routing, warm_async=self.warm)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection. All of an admitted one here: each coroutine within another costs every message."""
        gateway, kind, outer = self.gateway, scope["type"], scope.get("apigate")
        if not self._has_begun:
            self._begin(scope)
        if (
            gateway.is_empty
            or kind not in _GATED
            or (outer is not None and gateway.has_passed(outer, self.stage, scope))
        ):
            await self.app(scope, _until_shutdown(receive) if kind == "lifespan" and gateway.caches else receive, send)
            return
        request = asgi_request(scope)
        if self._label or gateway.reads_content:
            receive = self._prepare(request, receive)
        entered = gateway.enter_soon(request, self.stage, self._find)
        context = entered if type(entered) is RequestContext else await entered
        if context.refusal is not None:
            _link(context, outer)
            await _refuse(self, context, context.refusal, receive, send)
            return
        if context.answer is not None:
            await self._answer(context, context.answer, scope, outer, send)
            return
        scope = self._inner(context, scope, outer)
        passage = _Passage(self, context, receive, send)
        app, send = self.app, passage.pass_on
        if context.exchange is not None or context.compiled.on_complete or kind != "http":
            app, receive, send = passage.watched(kind)
        token = current.set(context) if gateway.marked else None
        try:
            await app(scope, receive, send)
            if context.inner_refusal is not None:
                await passage.refuse()
        except Exception as error:
            if not await passage.refuse_uncaught(error):
                raise
        finally:
            if token is not None:
                current.reset(token)
            context.ended = True
            request.detach("apigate")
            if context.compiled.on_complete:
                await passage.complete()

    def _begin(self, scope: Scope) -> None:
        """Look at the first connection."""
        self._has_begun = True
        self.gateway.begin(scope)
        self._around = {name: scope[name] for name in _AROUND if name in scope and scope["type"] == "lifespan"}

    def _prepare(self, request: Request, receive: Receive) -> Receive:
        """Tell a request which app it is for, and let its content be read; gives what the app hears that by."""
        request.app = self._label
        if not (self.gateway.reads_content and request.method in KEYED_BY_CONTENT and request.native["type"] == "http"):
            return receive
        body = RequestBody(receive)
        request.read_body = body.read
        return body.receive

    def _inner(self, context: RequestContext, scope: Scope, outer: RequestContext | None) -> Scope:
        """The scope that the app gets, with the context."""
        if prefix := context.request.prefix:
            root = scope.get("root_path") or ""
            path = staged_path(root, scope["path"], prefix, has_root=getattr(self.routing, "path_has_root", True))
            scope = {**scope, "root_path": root + prefix, "path": path}
        _link(context, outer)
        scope["apigate"] = context
        return scope

    async def _answer(
        self, context: RequestContext, answer: Answer, scope: Scope, outer: RequestContext | None, send: Send
    ) -> None:
        """Send what the cache answers in the app's place, with the gateway's fields."""
        _link(context, outer)
        gateway, compiled = self.gateway, context.compiled
        headers = answer.raw.copy()  # what stands further out may add to it, and the next hit is made of the same
        status = _SERVER_ERROR  # where a hook raises
        try:
            if compiled.on_response:
                head = ResponseHead(answer.status)
                for hook in compiled.on_response:
                    hook(context, head)
                for added in head.added:  # as in `_Passage.begin`
                    headers.append(added.raw)
            status = answer.status
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": answer.body})
        finally:
            context.ended = True
            if compiled.on_complete:
                await gateway.complete_async(context, status)
            if answer.refresh is not None:
                self._refresh(context, answer.refresh, scope)

    def _refresh(self, context: RequestContext, exchange: Fill, scope: Scope) -> None:
        """Have the app asked anew, for the same principal, by a request that takes from no limit."""
        anew = context.again(exchange)
        scope = self._inner(anew, {**scope, "method": "GET" if scope["method"] == "HEAD" else scope["method"]}, None)
        if self.gateway.marked and exchange.context is not None:
            exchange.context.run(current.set, anew)
        refresh(self.app, exchange, scope)

    async def warm(self, requests: "Iterable[str | tuple[str, Mapping[str, str]]]") -> int:
        """Have responses stored before clients ask for them, one after another.

        Args:
            requests: Whole URLs as clients write them, `https://shop.example/pets?page=1`, as host and scheme are part
                of each key; or URLs with request fields.

        Returns:
            How many were stored now; the others are stored already, or may not be.

        Raises:
            ConfigurationError: A URL has no scheme or no host, or a single one is given in place of a list.
        """
        stored = 0
        for url, headers in warm_requests(requests):
            request = asgi_request(self._unasked(plain_request("GET", url, headers)))
            request.app = self._label
            context, exchange = self.gateway.enter_unasked(request, self.stage, self._find)
            found = await exchange if isinstance(exchange, Awaitable) else exchange
            if found is None:
                continue
            context.exchange = found
            variables = copy_context()  # none of it is left behind in the caller's
            variables.run(current.set, context)
            await ask_apart(self.app, found, self._inner(context, dict(request.native), None), variables)
            stored += found.has_stored
        return stored

    def _unasked(self, request: Request) -> Scope:
        """The scope of a request of nobody, as it would come from what stands around this gate."""
        around = dict(self._around)
        if "state" in around:
            around["state"] = dict(around["state"])  # a copy for each request, as servers make one
        return {"http_version": "1.1", **request.native, **around}


def _until_shutdown(receive: Receive) -> Receive:
    """`receive` of a lifespan, which ends what goes on in the background when the server does."""

    async def hear() -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await stop_refreshing()
        return message

    return hear


def _link(context: RequestContext, outer: RequestContext | None) -> None:
    """Note a gate further out, if there is one."""
    if outer is not None:
        context.stand_within(outer)


async def _refuse(
    gate: GatewayMiddleware,
    context: RequestContext,
    response: Response,
    receive: Receive,
    send: Send,
    *,
    connected: bool = False,
) -> None:
    """Send the gateway's own response."""
    scope = context.request.native
    if scope["type"] == "http":
        if _has_origin(scope):
            response = gate.gateway.readable(context, response, gate.routing)
        await send({"type": "http.response.start", "status": response.status, "headers": list(response.raw)})
        body = b"" if scope["method"] == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body, "more_body": False})
        return
    if not connected:
        await receive()  # websocket.connect: nothing may be sent before it
    if "websocket.http.response" in (scope.get("extensions") or ()):
        headers = list(response.raw)
        await send({"type": "websocket.http.response.start", "status": response.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": response.body, "more_body": False})
    else:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": response.kind})


def _has_origin(scope: Mapping[str, Any]) -> bool:
    """Tell whether a page of some origin asks; without decoding any field."""
    for name, _ in scope.get("headers", ()):  # noqa: SIM110 - any() and its generator take four times as long
        if name == b"origin":
            return True
    return False


class _Passage:
    """One connection's messages on their way out: adds fields to the first, and notices the last."""

    # Defaults of the class for what is not looked at in the plain case, see RequestContext.
    ended = trailers = connected = answered = False
    status: int | None = None

    def __init__(self, gate: GatewayMiddleware, context: RequestContext, receive: Receive, send: Send) -> None:
        self.gate = gate
        self.context = context
        self.receive = receive
        self.send = send
        self.started = self.withheld = self.left = False

    def watched(self, kind: str) -> tuple[ASGIApp, Receive, Send]:
        """What the app, its `receive` and its `send` are where more is to be seen than the head of a response."""
        app, context = self.gate.app, self.context
        if context.exchange is not None:
            app = partial(serve_exchange, app, context.exchange, lambda: context.inner_refusal is not None)
        if kind != "http":
            return app, self.hear, self.note
        if context.compiled.on_complete:
            return app, self.hear, self.watch
        return app, self.receive, self.pass_on

    def pass_on(self, message: Message) -> Awaitable[None]:
        """Send a message of a response whose end nobody waits for. No coroutine of ours: that saves 0.1 us each."""
        if self.started or message["type"] != "http.response.start":
            return self.keep_back(message) if self.withheld else self.send(message)
        begun = self.begin(message)
        return _nothing() if begun is None else self.send(begun)

    async def watch(self, message: Message) -> None:
        """Send a message, and settle after the last."""
        if not self.started and message["type"] == "http.response.start":
            begun = self.begin(message)
            if begun is not None:
                await self.send(begun)
            return
        if self.withheld:
            await self.keep_back(message)
            return
        await self.send(message)
        if self.is_last(message):
            await self.complete()

    async def complete(self) -> None:
        """Settle, once."""
        if not self.ended:
            self.ended = True
            await self.gate.gateway.complete_async(self.context, self.status)

    def keep_back(self, message: Message) -> Awaitable[None]:
        """Take a message of the app's 500; after the last the gate answers, as some apps wait for the client to go."""
        return self.refuse() if self.is_last(message) else _nothing()

    async def refuse(self) -> None:
        """Answer a request that a decorated function refused, unless the app has done so itself."""
        context, gateway = self.context, self.gate.gateway
        error: Throttled = context.inner_refusal
        if self.answered:
            return
        if self.started and not self.withheld:
            if self.status == error.status:  # the app's own words for it; what was taken out here is given back too
                await gateway.refuse_async(context, error)
            return
        self.answered = True
        response = await gateway.refuse_async(context, error)
        await _refuse(self.gate, context, response, self.receive, self.send, connected=self.connected)

    async def refuse_uncaught(self, error: Exception) -> bool:
        """Answer an error of the app's that is a refusal, or comes of one; tells whether nothing is left to be raised.

        What the server will answer to any other is noted.
        """
        refusal = _refusal_in(error)
        if self.withheld or (refusal is not None and not self.started):
            self.context.inner_refusal = self.context.inner_refusal or refusal
            await self.refuse()
            return refusal is not None
        if not (self.started or self.left):
            self.status = _SERVER_ERROR  # what the server will answer in the app's place
        return False

    def note(self, message: Message) -> Awaitable[None]:
        """Send a message of a websocket, untouched; but for the end that a framework makes of an uncaught refusal."""
        if not self.started and self.context.inner_refusal is not None:
            self.withheld = message["type"] == "websocket.close" or message.get("status") == _SERVER_ERROR
        self.started = True
        return _nothing() if self.withheld else self.send(message)

    async def hear(self) -> Message:
        """`receive`, which notes that a websocket's app has taken the connect event, and that a client has left.

        A client that leaves before the response has begun has seen no outcome, whatever the app then answers.
        """
        message = await self.receive()
        self.connected = True
        self.left = self.left or (message["type"] == "http.disconnect" and not self.started)
        return message

    def begin(self, message: Message) -> Message | None:
        """The head of the response with the gateway's fields; the app's own message is left as it is.

        None where the app makes a 500 of a refusal that it did not catch: the gate will answer that itself.
        """
        context, status = self.context, message["status"]
        self.started = True
        self.status = None if self.left else status
        refused = context.inner_refusal
        if refused is not None and status in (refused.status, _SERVER_ERROR):
            self.withheld = status == _SERVER_ERROR
            return None if self.withheld else message
        if context.refusal is not None:
            return message
        self.trailers = message.get("trailers", False)
        head = ResponseHead(status, context.added)
        try:
            for hook in context.compiled.on_response:
                hook(context, head)
        except Exception:
            self.status = _SERVER_ERROR
            raise
        if not head.added:
            return message
        begun = dict(message)
        begun["headers"] = headers = list(message.get("headers", ()))
        for added in head.added:
            headers.append(added.raw)  # noqa: PERF401 - a comprehension is a call, which takes as long as three of these
        return begun

    def is_last(self, message: Message) -> bool:
        """Tell whether the response has ended with this message."""
        kind = message["type"]
        if kind in _BODY:
            return not self.trailers and not message.get("more_body", False)
        return kind == "http.response.trailers" and not message.get("more_trailers", False)
