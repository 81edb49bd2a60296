"""The acts of `apps` as a Django project does them, sync and async, with the gate in MIDDLEWARE.

A process has one Django, but each cell has a project of its own: a handler that was made under the cell's settings. All
that Django reads of them later is the root of the URLs, so whoever is asked puts its own there first. That holds as
long as no two cells are asked at once, and the table asks one after the other.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, NoReturn, TypeAlias

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.test import override_settings
from django.urls import URLPattern, path
from django.views.decorators.http import require_http_methods

from apigate import Gateway
from apigate import asgi as for_asgi
from apigate import wsgi as for_wsgi
from tests.adapters import apps
from tests.adapters.cells import Home, asgi_host_of, wsgi_host_of

Urls: TypeAlias = tuple[URLPattern, ...]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django_settings")
django.setup()


def surroundings() -> AbstractContextManager[None]:
    """Leaves the root of the URLs as it was, for the tests of others."""
    return override_settings(ROOT_URLCONF=settings.ROOT_URLCONF)


class Wsgi(WSGIHandler):
    """A project for WSGI servers."""

    def __init__(self, urls: Urls) -> None:
        super().__init__()
        self.urls = urls

    def __call__(self, environ: Any, start_response: Any) -> Any:
        settings.ROOT_URLCONF = self.urls
        return super().__call__(environ, start_response)


class Asgi(ASGIHandler):
    """A project for ASGI servers."""

    def __init__(self, urls: Urls) -> None:
        super().__init__()
        self.urls = urls

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        settings.ROOT_URLCONF = self.urls
        try:
            await super().__call__(scope, receive, send)
        except Exception:
            if file := body_file.get(None):
                file.close()  # Django leaves it open, and a warning would come at any time later
            raise

    async def read_body(self, receive: Any) -> Any:
        body = await super().read_body(receive)
        body_file.set(body)
        return body


body_file: ContextVar[Any] = ContextVar("body_file")


def home(protocol: str, handler: Any, view: Any, middleware: Any) -> Home:
    """Where a kind of handler lives; all its views do what `view` does."""

    def project(gateway: Gateway | None = None, *, stage: str | None = None, mark: apps.Mark = apps.unmarked) -> Any:
        urls = (
            path("pets/<str:id>", mark(require_http_methods(["GET", "HEAD", "POST"])(view))),
            path("login", require_http_methods(["POST"])(view)),
            path("", view),
            path("<path:rest>", view),
        )
        gates = [] if gateway is None else ["apigate.django.GatewayMiddleware"]
        with override_settings(MIDDLEWARE=gates, APIGATE={"GATEWAY": gateway, "STAGE": stage}):
            return handler(urls)

    def around(inner: Any, gateway: Gateway) -> Any:
        gate = middleware(inner, gateway)

        def entry(*call: Any) -> Any:
            settings.ROOT_URLCONF = inner.urls  # the gate asks Django's routes before Django is called
            return gate(*call)

        return entry

    return Home(protocol, project, around)


def django_wsgi_host() -> Any:
    return wsgi_host_of(home("wsgi", Wsgi, act, for_wsgi.GatewayMiddleware))


def django_asgi_host() -> Any:
    project = home("asgi", Asgi, act_async, for_asgi.GatewayMiddleware)
    return asgi_host_of(project, project.app(Gateway(throttle="1/day")))


# ---- views, sync


def act(request: HttpRequest, **_: str) -> HttpResponseBase:
    request.META["test.ledger"].add("calls")
    return ACTS[request.headers.get("x-do", "hello")](request)


def hello(request: HttpRequest) -> HttpResponse:
    fields = {"x-app": "yes", "content-type": "text/plain", "content-length": "5"}
    response = HttpResponse(b"" if request.method == "HEAD" else b"hello", headers=fields)
    response.cookies["a"], response.cookies["b"] = "1", "2"
    return response


def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body)


def status(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=int(request.headers["x-status"]))


def missing(request: HttpRequest) -> NoReturn:
    raise Http404


def seen(request: Any) -> HttpResponse:
    meta = request.META
    native = {"path": request.path_info, "mount": meta["SCRIPT_NAME"], "query": meta["QUERY_STRING"]}
    return HttpResponse(apps.described(request.apigate, native))


def broken(request: HttpRequest) -> NoReturn:
    raise RuntimeError("the app is broken")


def throttled(request: HttpRequest) -> NoReturn:
    raise apps.throttled()


def half(error: Exception) -> StreamingHttpResponse:
    return StreamingHttpResponse(apps.half(error), headers={"content-length": "100"})


def stream(request: HttpRequest) -> StreamingHttpResponse:
    kind = request.headers.get("x-type", "text/plain")
    return StreamingHttpResponse(apps.turnstile(request.META), content_type=kind)


def endless(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(apps.pieces(request.META["test.ledger"]))


ACTS: dict[str, Callable[[HttpRequest], HttpResponseBase]] = {
    "hello": hello,
    "echo": echo,
    "status": status,
    "missing": missing,
    "context": seen,
    "raise": broken,
    "raise-late": lambda _: half(RuntimeError("the app broke down half-way")),
    "throttled": throttled,
    "throttled-late": lambda _: half(apps.throttled()),
    "stream": stream,
    "endless": endless,
}


# ---- views, async: what waits is awaited


async def act_async(request: Any, **_: str) -> HttpResponseBase:
    request.scope["test.ledger"].add("calls")
    asked = request.headers.get("x-do", "hello")
    return STREAMS[asked](request) if asked in STREAMS else ACTS[asked](request)


def half_async(error: Exception) -> StreamingHttpResponse:
    return StreamingHttpResponse(apps.half_async(error), headers={"content-length": "100"})


def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    chunks = apps.turnstile_async(int(request.headers["x-turnstile"]))
    return StreamingHttpResponse(chunks, content_type=request.headers.get("x-type", "text/plain"))


STREAMS: dict[str, Callable[[Any], HttpResponseBase]] = {
    "raise-late": lambda _: half_async(RuntimeError("the app broke down half-way")),
    "throttled-late": lambda _: half_async(apps.throttled()),
    "stream": stream_async,
    "endless": lambda request: StreamingHttpResponse(apps.pieces_async(request.scope["test.ledger"])),
}
