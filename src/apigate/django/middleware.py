"""The gate in `MIDDLEWARE`.

Rule: a request is counted before the project works for it, by the view that it is going to; what middleware makes of it
on the way (another path, another verb, another URL configuration) is seen just before the view, and counted instead.
"""

from asyncio import AbstractEventLoop, current_task, get_running_loop, run_coroutine_threadsafe
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, cast, final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.http.response import StreamingHttpResponse
from django.urls import get_script_prefix, set_script_prefix

from apigate.core.context import RequestContext, current
from apigate.core.endpoints import Endpoint, FindEndpoint
from apigate.core.message import Request, Response, ResponseHead
from apigate.core.native import wsgi_request
from apigate.core.policy import refuse_awaitable
from apigate.django.configuration import gateway_of_settings
from apigate.django.cors import GetResponse, add_cors_fields, cors_middleware
from apigate.gateway import Gateway, empty_context
from apigate.routing.django import DjangoRouting, django_response
from apigate.throttling.decision import Throttled

__all__ = ["GatewayMiddleware"]

_SERVER_ERROR = 500


class _Visit:
    """One request at the gate.

    Attributes:
        context: Where it was sent; another one, if the project turned out to call another view.
        settled: Whether its end has been noted.
    """

    __slots__ = ("context", "settled")

    def __init__(self, context: RequestContext) -> None:
        self.context = context
        self.settled = False


@final
class GatewayMiddleware:
    """The gate in `MIDDLEWARE`.

    Args:
        get_response: What comes after it.

    Raises:
        ConfigurationError: The setting `APIGATE` cannot be used.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        """Take the gateway of the settings."""
        gateway, stage = gateway_of_settings()
        gateway.check_stage(stage)
        self.gateway: Gateway = gateway
        self.stage: str | None = stage
        self.routing: DjangoRouting = _bound_routing(self)
        self._get_response = get_response
        # asgiref's own, as only that finds on Python 3.11 what asgiref has marked
        self._is_async: bool = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated]
        if self._is_async:
            markcoroutinefunction(self)
        # Here Django looks for it; one of the other kind would cost each request a thread.
        self.process_view: Callable[..., Any] = self._resend_async if self._is_async else self._resend
        self._is_loaded = False

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request; in a chain of coroutines, hand back one."""
        if not self._is_loaded:
            self.routing.load()  # a gateway that has nothing but decorators is empty until they are imported
            self._is_loaded = True
            self.gateway.begin(getattr(request, "environ", {}))  # META of ASGI always has wsgi.multiprocess
        asked = wsgi_request(request.META, request.path_info)
        outer = _outer_context(request)
        if self.gateway.is_empty or (outer is not None and self.gateway.has_passed(outer, self.stage, request.META)):
            request.apigate = empty_context(asked) if outer is None else outer  # type: ignore[attr-defined]
            if self._is_async:
                request._apigate_loop = get_running_loop()  # type: ignore[attr-defined]  # noqa: SLF001 - ours
            passed_on: HttpResponseBase | Awaitable[HttpResponseBase] = self._get_response(request)
            return passed_on
        return self._serve_async(request, asked, outer) if self._is_async else self._serve(request, asked, outer)

    def _serve(self, request: HttpRequest, asked: Request, outer: RequestContext | None) -> HttpResponseBase:
        gateway = self.gateway
        context = gateway.enter(asked, self.stage, self._finder(request))
        visit = _handed_over(request, context, outer)
        if context.refusal is not None:
            return self._refusal(request, context, context.refusal)
        token = current.set(context) if gateway.marked else None
        try:
            response: HttpResponseBase = self._get_response(request)
        except BaseException as error:
            self._settle(visit, _outcome(error))
            raise
        finally:
            if token is not None:
                current.reset(token)
        context = visit.context
        refused: Throttled | None = context.inner_refusal
        if refused is not None and response.status_code in (refused.status, _SERVER_ERROR):
            response = self._spoken_for(request, context, response, refused, gateway.refuse(context, refused))
        return self._let_out(request, visit, response)

    async def _serve_async(
        self, request: HttpRequest, asked: Request, outer: RequestContext | None
    ) -> HttpResponseBase:
        gateway = self.gateway
        request._apigate_loop = get_running_loop()  # type: ignore[attr-defined]  # noqa: SLF001 - ours
        context = await gateway.enter_async(asked, self.stage, self._finder(request))
        visit = _handed_over(request, context, outer)
        if context.refusal is not None:
            return self._refusal(request, context, context.refusal)
        token = current.set(context) if gateway.marked else None
        try:
            response: HttpResponseBase = await self._get_response(request)
        except BaseException as error:
            await self._settle_async(visit, _outcome(error))
            raise
        finally:
            if token is not None:
                current.reset(token)
        context = visit.context
        refused: Throttled | None = context.inner_refusal
        if refused is not None and response.status_code in (refused.status, _SERVER_ERROR):
            refusal = await gateway.refuse_async(context, refused)
            response = self._spoken_for(request, context, response, refused, refusal)
        return self._let_out(request, visit, response)

    def _finder(self, request: HttpRequest) -> FindEndpoint:
        """What finds the view; in the URL configuration that a middleware further out has chosen, if one has."""
        urlconf: object = getattr(request, "urlconf", None)
        return self.routing.find if urlconf is None else partial(self.routing.find, urlconf=urlconf)

    # ---- just before the view

    def _resend(self, request: HttpRequest, *_: object) -> HttpResponseBase | None:
        """Django's `process_view`: send a request to the method that it really is for, if that is another one."""
        visit = self._misled(request)
        if visit is None:
            return None
        first = visit.context
        asked, find = self._asked_anew(request)
        if (answer := self.gateway.give_back(first)) is not None:
            refuse_awaitable(answer)
        self._settle(visit, None)
        return self._resent(request, visit, self.gateway.enter(asked, first.stage, find))

    async def _resend_async(self, request: HttpRequest, *_: object) -> HttpResponseBase | None:
        """`_resend` for tasks."""
        visit = self._misled(request)
        if visit is None:
            return None
        first = visit.context
        asked, find = self._asked_anew(request)
        if (answer := self.gateway.give_back(first)) is not None:
            await answer
        await self._settle_async(visit, None)
        return self._resent(request, visit, await self.gateway.enter_async(asked, first.stage, find))

    def _misled(self, request: HttpRequest) -> _Visit | None:
        """The visit of a request that was sent to another method than that of the view it has come to."""
        visit: _Visit | None = getattr(request, "_apigate_visit", None)
        if visit is None:
            return None
        sent = visit.context
        is_right = (
            request.path_info == (sent.request.path or "/")
            and request.method == sent.request.method.upper()
            and self.routing.endpoint_of(request) is sent.endpoint
        )
        return None if is_right else visit

    def _asked_anew(self, request: HttpRequest) -> tuple[Request, FindEndpoint]:
        """The request as it is now, and where it has come to."""
        endpoint = self.routing.endpoint_of(request)
        asked = wsgi_request({**request.META, "REQUEST_METHOD": request.method}, request.path_info)
        self._finder(request)(asked)  # for what else it may be taken for

        def find(_: Request) -> Endpoint | None:
            return endpoint

        return asked, find

    def _resent(self, request: HttpRequest, visit: _Visit, context: RequestContext) -> HttpResponseBase | None:
        """Go on with the second context; the first was as if the request had never come."""
        visit.context.compiled.counters.withdraw("admitted")
        context.outer = visit.context.outer
        visit.context = context
        visit.settled = context.refusal is not None
        request.apigate = context  # type: ignore[attr-defined]
        if self.gateway.marked:
            current.set(context)
        return None if context.refusal is None else self._refusal(request, context, context.refusal)

    # ---- refusals

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer what a view was refused by a decorated function, or by a throttle of its own."""
        context: object = getattr(request, "apigate", None)
        if not isinstance(exception, Throttled) or not isinstance(context, RequestContext):
            return None
        known = context.of(self.gateway.identity)
        if known is None:
            return None
        return self._refusal(request, known, self.gateway.refuse(known, exception, _later(request)))

    def _spoken_for(
        self,
        request: HttpRequest,
        context: RequestContext,
        response: HttpResponseBase,
        refused: Throttled,
        refusal: Response,
    ) -> HttpResponseBase:
        """The project's own words for a refusal, if it has found any; else ours instead of its 500."""
        if response.status_code == refused.status:
            return response
        made = self._refusal(request, context, refusal)
        _closers(made).extend(_closers(response))  # not its close(), which tells Django that the request has ended
        return made

    def _refusal(self, request: HttpRequest, context: RequestContext, refusal: Response) -> HttpResponseBase:
        """One of our responses as Django's, with the fields of the project's CORS layer."""
        layer = cors_middleware() if "HTTP_ORIGIN" in request.META else None
        if layer is None and "HTTP_ORIGIN" in request.META:
            refusal = self.gateway.readable(context, refusal, None)
        made = django_response(refusal)
        if layer is not None:
            add_cors_fields(layer, request, made)
        if request.method == "HEAD":
            made.content = b""
        return made

    # ---- on the way out

    def _let_out(self, request: HttpRequest, visit: _Visit, response: HttpResponseBase) -> HttpResponseBase:
        """The project's response with the gateway's fields; settled when the server closes it."""
        context = visit.context
        if context.refusal is None:
            head = ResponseHead(response.status_code, context.added)
            for hook in context.compiled.on_response:
                hook(context, head)
            for added in head.added:
                name, value = added.text
                known = response.headers.get(name)
                response.headers[name] = value if known is None else f"{known}, {value}"
        if context.compiled.on_complete and not visit.settled:
            settle = partial(self._settle, visit, response.status_code, _later(request))
            _closers(response).append(settle)
            _when_closed(request, settle)  # a middleware further out may drop the response for one of its own
            if self._is_async and (task := current_task()) is not None:
                task.add_done_callback(lambda _: settle())  # Django closes no response that broke, or had nobody left
        if self.gateway.marked and isinstance(response, StreamingHttpResponse) and not _is_file(response):
            followed = _FollowedAsync if response.is_async else _Followed
            response.streaming_content = followed(context, response.streaming_content)
        return response

    def _settle(
        self, visit: _Visit, status: int | None, later: Callable[[Awaitable[None]], None] = refuse_awaitable
    ) -> None:
        """Note the end of a request, once."""
        if not visit.settled:
            visit.settled = True
            self.gateway.complete(visit.context, status, later)

    async def _settle_async(self, visit: _Visit, status: int | None) -> None:
        """`_settle` for tasks."""
        if not visit.settled:
            visit.settled = True
            await self.gateway.complete_async(visit.context, status)


def _later(request: HttpRequest) -> Callable[[Awaitable[None]], None]:
    """What takes that which has to be awaited, where Django calls us in a thread or when a task is done: the loop."""
    loop: AbstractEventLoop | None = getattr(request, "_apigate_loop", None)
    return refuse_awaitable if loop is None else partial(_settle_on, loop)


def _settle_on(loop: AbstractEventLoop, answer: Awaitable[None]) -> None:
    """Have an answer awaited on a loop, and keep what awaits it until then."""

    async def settle() -> None:
        await answer

    future = run_coroutine_threadsafe(settle(), loop)
    _settling.add(future)
    future.add_done_callback(_note_settled)


def _note_settled(future: Future[None]) -> None:
    _settling.discard(future)
    if not future.cancelled() and (error := future.exception()) is not None:
        from logging import getLogger

        getLogger("apigate").error("a request could not be settled", exc_info=error)


_settling: set[Future[None]] = set()


def _outer_context(request: HttpRequest) -> RequestContext | None:
    """What a gate further out made known: in MIDDLEWARE, or around the project's handler."""
    found: object = (
        getattr(request, "apigate", None)
        or request.META.get("apigate.context")
        or getattr(request, "scope", request.META).get("apigate")
    )
    return found if isinstance(found, RequestContext) else None


def _handed_over(request: HttpRequest, context: RequestContext, outer: RequestContext | None) -> _Visit:
    """Make the context known to the views, and the stage's segment part of what the project is mounted under."""
    context.outer = outer
    visit = _Visit(context)
    request.apigate = context  # type: ignore[attr-defined]  # as api.md names it
    request._apigate_visit = visit  # type: ignore[attr-defined]  # noqa: SLF001 - ours
    if prefix := context.request.prefix:
        before = get_script_prefix()
        request.path_info = request.path_info[len(prefix) :] or "/"
        request.META["PATH_INFO"] = request.path_info
        request.META["SCRIPT_NAME"] = request.META.get("SCRIPT_NAME", "") + prefix
        set_script_prefix(f"{before.rstrip('/')}{prefix}/")
        _when_closed(request, partial(set_script_prefix, before))
    return visit


def _when_closed(request: HttpRequest, then: Callable[[], None]) -> None:
    """Have something done when the response that is sent in the end is closed; Django closes the request with it."""
    close = request.close

    def close_all() -> None:
        request.close = close  # type: ignore[method-assign]  # and no reference to itself is left
        try:
            close()
        finally:
            then()

    request.close = close_all  # type: ignore[method-assign]


def _closers(response: HttpResponseBase) -> list[Callable[[], object]]:
    """What is called when a response is closed; Django has no public name for it."""
    closers: list[Callable[[], object]] = cast("Any", response)._resource_closers  # noqa: SLF001
    return closers


def _outcome(error: BaseException) -> int | None:
    """The status of a request that ended so; None for a client that left, and so saw no outcome."""
    return _SERVER_ERROR if isinstance(error, Exception) else None


def _is_file(response: StreamingHttpResponse) -> bool:
    """Tell whether the server may send the response as a file."""
    return getattr(response, "file_to_stream", None) is not None


class _Followed:
    """The chunks of a response; what makes them runs only now, and its decorated functions ask for the context."""

    def __init__(self, context: RequestContext, chunks: Any) -> None:  # Any: what Django streams, of either kind
        self._context = context
        self._chunks: Iterator[bytes] = iter(chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = current.set(self._context)
        try:
            return next(self._chunks)
        finally:
            current.reset(token)


class _FollowedAsync:
    """`_Followed` for tasks."""

    def __init__(self, context: RequestContext, chunks: Any) -> None:  # Any: as _Followed
        self._context = context
        self._chunks: AsyncIterator[bytes] = aiter(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        token = current.set(self._context)
        try:
            return await anext(self._chunks)
        finally:
            current.reset(token)


def _bound_routing(gate: GatewayMiddleware) -> DjangoRouting:
    """The routes of the project; the gateway is bound to them once, however often Django loads its middleware."""
    for _, routing in gate.gateway.bound:
        if isinstance(routing, DjangoRouting) and routing.in_project:
            return routing
    routing = DjangoRouting(in_project=True, has_cors=lambda: cors_middleware() is not None)
    gate.gateway.bind(gate, routing)
    return routing
