"""The gate in `MIDDLEWARE`.

Rule: a request is counted before the project works for it, by the view that it is going to; what middleware makes of it
on the way (another path, another verb, another URL configuration) is seen just before the view, and counted instead.
"""

from asyncio import current_task, get_running_loop
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.http.response import StreamingHttpResponse
from django.urls import get_script_prefix, set_script_prefix

from apigate.caching.answer import Answer
from apigate.caching.fill import Fill
from apigate.caching.settings import KEYED_BY_CONTENT
from apigate.caching.status import forwarded_status
from apigate.core.context import RequestContext, current
from apigate.core.endpoints import Endpoint, FindEndpoint
from apigate.core.message import Request, Response, ResponseHead
from apigate.core.native import wsgi_request
from apigate.core.policy import block_on, refuse_awaitable, require_done
from apigate.django.configuration import gateway_of_settings
from apigate.django.cors import GetResponse, add_cors_fields, cors_middleware
from apigate.django.followed import Followed, FollowedAsync
from apigate.django.refreshing import refresh_in_task, refresh_in_thread
from apigate.django.settling import later_of, when_closed
from apigate.django.warming import UNASKED, warm
from apigate.gateway import Gateway, empty_context
from apigate.routing.django import DjangoRouting, django_response, outer_context
from apigate.routing.django_exchange import (
    add_fields,
    answered,
    carry,
    closers,
    do_nothing,
    is_file,
    put_questions,
    read_content,
)
from apigate.routing.kept_chunks import end
from apigate.throttling.decision import Throttled

__all__ = ["GatewayMiddleware"]

_SERVER_ERROR = 500


class _Visit:
    """One request at the gate.

    Attributes:
        context: Where it was sent; another one, if the project turned out to call another view.
        settled: Whether its end has been noted.
        take_back: Takes back what the cache asks the project itself.
    """

    __slots__ = ("context", "settled", "take_back")

    def __init__(self, context: RequestContext) -> None:
        self.context = context
        self.settled = False
        self.take_back: Callable[[], None] = do_nothing


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
        if "wsgi.url_scheme" not in request.META:  # under ASGI; the cache keeps http and https apart
            request.META["wsgi.url_scheme"] = getattr(request, "scope", {}).get("scheme", "http")
        asked = wsgi_request(request.META, request.path_info)
        unasked: list[Fill] | None = request.META.get(UNASKED)
        if unasked is not None:
            return self._warm(request, asked, unasked)
        outer = outer_context(request)
        if self.gateway.is_empty or (outer is not None and self.gateway.has_passed(outer, self.stage, request.META)):
            request.apigate = empty_context(asked) if outer is None else outer  # type: ignore[attr-defined]
            if self._is_async:
                request._apigate_loop = get_running_loop()  # type: ignore[attr-defined]  # noqa: SLF001 - ours
            passed_on: HttpResponseBase | Awaitable[HttpResponseBase] = self._get_response(request)
            return passed_on
        if self.gateway.reads_content and request.method in KEYED_BY_CONTENT:
            asked.read_body = partial(read_content, request)
        return self._serve_async(request, asked, outer) if self._is_async else self._serve(request, asked, outer)

    def _serve(self, request: HttpRequest, asked: Request, outer: RequestContext | None) -> HttpResponseBase:
        context = self.gateway.enter(asked, self.stage, self._finder(request))
        visit = _handed_over(request, context, outer)
        if context.refusal is not None:
            return self._refusal(request, context, context.refusal)
        if context.answer is not None:
            return self._answer(request, visit, context.answer)
        return self._admitted(request, context, visit)

    def _warm(self, request: HttpRequest, asked: Request, unasked: list[Fill]) -> HttpResponseBase:
        """Have a response stored that nobody has asked for; note the exchange where the project was asked for it."""
        context, exchange = self.gateway.enter_unasked(asked, self.stage, self._finder(request))
        found = block_on(exchange) if isinstance(exchange, Awaitable) else exchange
        if found is None:
            return HttpResponse(status=204)
        unasked.append(found)
        context.exchange = found
        return self._admitted(request, context, _handed_over(request, context, None))

    def _admitted(self, request: HttpRequest, context: RequestContext, visit: _Visit) -> HttpResponseBase:
        gateway = self.gateway
        visit.take_back = put_questions(request, context.exchange)
        token = current.set(context) if gateway.marked else None
        try:
            try:
                response: HttpResponseBase = self._get_response(request)
            finally:
                visit.take_back()
                if token is not None:
                    current.reset(token)
            context = visit.context
            refused: Throttled | None = context.inner_refusal
            if refused is not None and response.status_code in (refused.status, _SERVER_ERROR):
                response = self._spoken_for(request, context, response, refused, gateway.refuse(context, refused))
            response = self._let_out(request, visit, response)
        except BaseException as error:
            self._settle(visit, _outcome(error))
            raise
        if context.exchange is not None:
            require_done(context.exchange.publish())
        return response

    async def _serve_async(
        self, request: HttpRequest, asked: Request, outer: RequestContext | None
    ) -> HttpResponseBase:
        gateway = self.gateway
        request._apigate_loop = get_running_loop()  # type: ignore[attr-defined]  # noqa: SLF001 - ours
        context = await gateway.enter_async(asked, self.stage, self._finder(request))
        visit = _handed_over(request, context, outer)
        if context.refusal is not None:
            return self._refusal(request, context, context.refusal)
        if context.answer is not None:
            return self._answer(request, visit, context.answer)
        visit.take_back = put_questions(request, context.exchange)
        token = current.set(context) if gateway.marked else None
        try:
            try:
                response: HttpResponseBase = await self._get_response(request)
            finally:
                visit.take_back()
                if token is not None:
                    current.reset(token)
            context = visit.context
            refused: Throttled | None = context.inner_refusal
            if refused is not None and response.status_code in (refused.status, _SERVER_ERROR):
                refusal = await gateway.refuse_async(context, refused)
                response = self._spoken_for(request, context, response, refused, refusal)
            response = self._let_out(request, visit, response)
        except BaseException as error:
            await self._settle_async(visit, _outcome(error))
            raise
        if context.exchange is not None and (told := context.exchange.publish()) is not None:
            await told
        return response

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
        visit.take_back()
        asked, find = self._asked_anew(request)
        require_done(self.gateway.give_back(first))
        self._settle(visit, None)
        return self._resent(request, visit, self.gateway.enter(asked, first.stage, find))

    async def _resend_async(self, request: HttpRequest, *_: object) -> HttpResponseBase | None:
        """`_resend` for tasks."""
        visit = self._misled(request)
        if visit is None:
            return None
        first = visit.context
        visit.take_back()
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
        _pass_by(context)
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
        return self._refusal(request, known, self.gateway.refuse(known, exception, later_of(request)))

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
        closers(made).extend(closers(response))  # not its close(), which tells Django that the request has ended
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

    # ---- what the cache answers

    def _answer(self, request: HttpRequest, visit: _Visit, answer: Answer) -> HttpResponseBase:
        """Answer in the project's place, and have it asked anew where that is due."""
        try:
            return self._let_out(request, visit, answered(answer))
        except BaseException as error:
            self._settle(visit, _outcome(error), later_of(request))
            raise
        finally:
            if answer.refresh is not None:
                anew = visit.context.again(answer.refresh)
                (refresh_in_task if self._is_async else refresh_in_thread)(
                    self._get_response, answer.refresh, request, anew
                )

    # ---- on the way out

    def _let_out(self, request: HttpRequest, visit: _Visit, response: HttpResponseBase) -> HttpResponseBase:
        """The project's response with the gateway's fields; settled when the server closes it."""
        context, exchange = visit.context, visit.context.exchange
        if context.refusal is None:
            if exchange is not None and context.inner_refusal is None:  # what comes of that is not the project's answer
                response = carry(exchange, request, response, later_of(request))
            head = ResponseHead(response.status_code, context.added)
            for hook in context.compiled.on_response:
                hook(context, head)
            add_fields(response, head.added)
        if (context.compiled.on_complete or exchange is not None) and not visit.settled:
            settle = partial(self._settle, visit, response.status_code, later_of(request))
            closers(response).append(settle)
            when_closed(request, settle)  # a middleware further out may drop the response for one of its own
            if self._is_async and (task := current_task()) is not None:
                task.add_done_callback(lambda _: settle())  # Django closes no response that broke, or had nobody left
        if self.gateway.marked and isinstance(response, StreamingHttpResponse) and not is_file(response):
            followed = FollowedAsync if response.is_async else Followed
            response.streaming_content = followed(context, response.streaming_content)
        return response

    def _settle(
        self, visit: _Visit, status: int | None, later: Callable[[Awaitable[None]], None] = refuse_awaitable
    ) -> None:
        """Note the end of a request, once."""
        if not visit.settled:
            visit.settled = True
            if visit.context.exchange is not None:
                end(visit.context.exchange, later)
            self.gateway.complete(visit.context, status, later)

    async def _settle_async(self, visit: _Visit, status: int | None) -> None:
        """`_settle` for tasks."""
        if not visit.settled:
            visit.settled = True
            if visit.context.exchange is not None:
                end(visit.context.exchange)
            await self.gateway.complete_async(visit.context, status)


def _handed_over(request: HttpRequest, context: RequestContext, outer: RequestContext | None) -> _Visit:
    """Make the context known to the views, and the stage's segment part of what the project is mounted under."""
    if outer is not None:
        context.stand_within(outer)
    visit = _Visit(context)
    request.apigate = context  # type: ignore[attr-defined]  # as api.md names it
    request._apigate_visit = visit  # type: ignore[attr-defined]  # noqa: SLF001 - ours
    if prefix := context.request.prefix:
        before = get_script_prefix()
        request.path_info = request.path_info[len(prefix) :] or "/"
        request.META["PATH_INFO"] = request.path_info
        request.META["SCRIPT_NAME"] = request.META.get("SCRIPT_NAME", "") + prefix
        set_script_prefix(f"{before.rstrip('/')}{prefix}/")
        when_closed(request, partial(set_script_prefix, before))
    return visit


def _pass_by(context: RequestContext) -> None:
    """Have a request pass by the cache that came to another view than it was sent to: two policies speak for it."""
    answer, exchange = context.answer, context.exchange
    if answer is not None and answer.refresh is not None:
        answer.refresh.fail()
    if exchange is not None and exchange.keeps:
        exchange.fail()
        context.exchange = None
    if answer is not None or context.exchange is not exchange:
        context.answer = None
        context.added = (forwarded_status("bypass"),)


def _outcome(error: BaseException) -> int | None:
    """The status of a request that ended so; None for a client that left, and so saw no outcome."""
    return _SERVER_ERROR if isinstance(error, Exception) else None


def _bound_routing(gate: GatewayMiddleware) -> DjangoRouting:
    """The routes of the project; the gateway is bound to them once, however often Django loads its middleware."""
    for _, routing in gate.gateway.bound:
        if isinstance(routing, DjangoRouting) and routing.in_project:
            return routing
    routing = DjangoRouting(in_project=True, has_cors=lambda: cors_middleware() is not None)
    gate.gateway.bind(gate, routing, warm=warm)
    return routing
