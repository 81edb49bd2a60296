"""A project for the real servers of `test_servers.py`, which run its `wsgi` or its `asgi`."""

import asyncio
import tempfile

import django
from django.conf import settings
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import path, re_path

from apigate import Gateway, Method

gateway = Gateway(
    throttle="1000/minute",
    in_flight=8,
    methods={"GET /limited": Method(client_throttle="2/minute"), "GET /one": Method(in_flight=1)},
)


async def slow(request):
    """A stream that goes on until its client leaves."""

    async def rows():
        yield b"begun"
        await asyncio.Event().wait()

    return StreamingHttpResponse(rows())


def file(request):
    content = tempfile.TemporaryFile()  # noqa: SIM115 - the response closes it
    content.write(b"x" * 300_000)
    content.seek(0)
    return FileResponse(content)


def hello(request, **_):
    return HttpResponse("hello")


@gateway.throttle("2/minute", per="client")
def marked(request, **_):
    return HttpResponse("marked")


@gateway.throttle("2/minute", per="client")
async def amarked(request):
    return HttpResponse("marked")


urlpatterns = [
    path("limited", hello),
    path("one", slow),
    path("file", file),
    path("async", amarked),
    path("marked/<path:rest>", marked),
    re_path(r"(?i)^loud$", marked),
]
if not settings.configured:
    settings.configure(
        SECRET_KEY="x",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["apigate.django.GatewayMiddleware", "django.middleware.common.CommonMiddleware"],
        APIGATE={"GATEWAY": gateway},
    )
    django.setup()


def __getattr__(name):
    if name == "wsgi":
        from django.core.wsgi import get_wsgi_application

        return get_wsgi_application()
    if name == "asgi":
        from django.core.asgi import get_asgi_application

        return get_asgi_application()
    raise AttributeError(name)
