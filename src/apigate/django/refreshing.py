"""A project that is asked anew in the background, once a stale response is out: in a thread, or in a task.

Rule: it is a request of nobody. It takes from no limit, and its middleware and views run as for any other.

Source: RFC 5861, section 3.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from copy import copy
from functools import partial
from io import BytesIO
from typing import Any, cast

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.signals import request_started
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.http.response import StreamingHttpResponse
from django.urls import get_script_prefix, set_script_prefix

from apigate.asgi_exchange import RefreshTasks
from apigate.caching.exchange import Exchange, log_hidden
from apigate.caching.fill import Fill
from apigate.core.context import RequestContext, current
from apigate.routing.django_exchange import expected_lines, field_lines, is_file, put_questions
from apigate.wsgi_exchange import refresh

__all__ = ["refresh_in_task", "refresh_in_thread"]

_refreshes = RefreshTasks()


def refresh_in_thread(
    get_response: Callable[[HttpRequest], HttpResponseBase],
    exchange: Fill,
    request: HttpRequest,
    context: RequestContext,
) -> None:
    """Ask in a thread, unless two do so already.

    Args:
        get_response: What comes after the gate.
        exchange: What the cache does with the response.
        request: The request that was answered.
        context: The context of the one that asks.
    """
    asked = _again(request, context)
    prefix = get_script_prefix()

    def app(environ: dict[str, Any], begin: Any) -> Iterable[bytes]:  # Any: as PEP 3333 has them
        current.set(context)
        set_script_prefix(prefix)
        request_started.send(sender=refresh_in_thread, environ=environ)
        response = get_response(asked)
        lines = [*field_lines(response), *expected_lines(asked, response)]
        begin(f"{response.status_code} {response.reason_phrase}", lines)
        return _Content(response)

    refresh(app, exchange, asked.META)


def refresh_in_task(
    get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]],
    exchange: Fill,
    request: HttpRequest,
    context: RequestContext,
) -> None:
    """Ask in a task of the running loop, whose end is its own; for the rest as `refresh_in_thread`."""
    _refreshes.start(exchange, partial(_refreshed, get_response, exchange, _again(request, context), context))


async def _refreshed(
    get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]],
    exchange: Exchange,
    asked: HttpRequest,
    context: RequestContext,
) -> None:
    current.set(context)
    put_questions(asked, exchange)
    try:
        async with ThreadSensitiveContext():
            await sync_to_async(request_started.send)(sender=refresh_in_task, scope=getattr(asked, "scope", None))
            response = await get_response(asked)
            try:
                exchange.begin(response.status_code, [*field_lines(response), *expected_lines(asked, response)])
                await _hear(response, exchange)
            finally:
                await sync_to_async(response.close)()
        answer = exchange.settle()
        if answer is not None:
            await answer
    except Exception as error:  # noqa: BLE001 - no request is left that it could be told to
        log_hidden(error, "project")
    finally:
        exchange.fail()  # without effect where the response is complete


async def _hear(response: HttpResponseBase, exchange: Exchange) -> None:
    if isinstance(response, StreamingHttpResponse):
        if is_file(response):
            return
        async for chunk in response:
            exchange.feed(chunk)
    else:
        exchange.feed(cast("HttpResponse", response).content)
    exchange.finish()


class _Content:
    """The chunks of a response, and its end; a file is none here, as it would be sent by the server."""

    def __init__(self, response: HttpResponseBase) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return iter(cast("Any", self._response))

    def close(self) -> None:
        """Close the response, which tells Django that the request has ended."""
        self._response.close()


def _again(request: HttpRequest, context: RequestContext) -> HttpRequest:
    """The request once more, as it came to the gate, without content; a GET where it was a HEAD."""
    again = copy(request)
    own = vars(again)
    for name in ("close", "headers", "_apigate_visit", "_apigate_loop"):
        own.pop(name, None)
    meta = {**request.META, "wsgi.input": BytesIO(), "CONTENT_LENGTH": "0"}
    if request.method == "HEAD":
        again.method = meta["REQUEST_METHOD"] = "GET"
    again.META = meta
    own.update(environ=meta, _stream=BytesIO(), _read_started=False, apigate=context)
    return again
