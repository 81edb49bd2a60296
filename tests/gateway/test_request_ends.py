"""What is left of a request that has ended: nothing waits for the garbage collector, and all can still be read."""

import asyncio
import gc
from weakref import ref

import pytest

from apigate import Gateway, asgi, wsgi
from apigate.core.context import RequestContext


async def asgi_app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def wsgi_app(environ, start_response):
    start_response("200 OK", [])
    return [b""]


def asked_by_asgi(gateway):
    scope = {"type": "http", "method": "GET", "path": "/pets", "headers": [(b"accept", b"text/plain")]}

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        pass

    asyncio.run(asgi.GatewayMiddleware(asgi_app, gateway)(scope, receive, send))
    return scope, "apigate"


def asked_by_wsgi(gateway):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/pets", "HTTP_ACCEPT": "text/plain"}
    body = wsgi.GatewayMiddleware(wsgi_app, gateway)(environ, lambda *_: None)
    getattr(body, "close", lambda: None)()
    return environ, "apigate.context"


@pytest.fixture
def uncollected():
    gc.disable()
    yield
    gc.enable()


ASKED = pytest.mark.parametrize("asked", [asked_by_asgi, asked_by_wsgi])
GATEWAYS = pytest.mark.parametrize(
    "settings", [{"client_throttle": "5/second"}, {"client_in_flight": 5}], ids=["plain", "seen to its end"]
)


@ASKED
@GATEWAYS
@pytest.mark.usefixtures("uncollected")
def test_nothing_waits_for_the_garbage_collector(asked, settings):
    native, key = asked(Gateway(**settings))
    context = ref(native[key])
    assert isinstance(context(), RequestContext)
    del native
    assert context() is None


@ASKED
@GATEWAYS
def test_whoever_keeps_the_context_can_read_the_request(asked, settings):
    native, key = asked(Gateway(**settings))
    context = native[key]
    native.clear()
    assert (context.request.path, context.request.headers.get("accept")) == ("/pets", "text/plain")
    assert key not in context.request.native
