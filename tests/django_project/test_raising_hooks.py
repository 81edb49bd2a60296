"""A policy that raises on the way out, wherever its gate stands: nothing that the request held stays held."""

import asyncio
from wsgiref.util import setup_testing_defaults

import pytest
from django.http import HttpResponse
from django.urls import path

from apigate import CachePolicy, Gateway, ResponseCache, asgi, wsgi
from apigate.core.policy import Phase
from apigate.testing import FakeClock
from tests.django_project.asking import ask, exchanged, project


class Raising:
    """Raises where a client says so; notes how requests ended."""

    phase = Phase.GUARD

    def __init__(self):
        self.statuses = []

    def on_response(self, context, head):
        if context.request.value("x-bad"):
            raise KeyError("bad")

    def on_complete(self, context, status):
        self.statuses.append(status)


async def asgi_app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


def wsgi_app(environ, start_response):
    start_response("200 OK", [])
    return [b"x"]


def over_asgi(gateway):
    gate = asgi.GatewayMiddleware(asgi_app, gateway)
    return lambda headers: asyncio.run(exchanged(gate, "GET", "/a", headers)).status


def over_wsgi(gateway):
    gate = wsgi.GatewayMiddleware(wsgi_app, gateway)

    def asked(headers):
        begun = []
        environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        environ |= {"PATH_INFO": "/a", "REMOTE_ADDR": "192.0.2.1"}
        setup_testing_defaults(environ)
        body = gate(environ, lambda *head: begun.append(head))
        list(body)
        getattr(body, "close", lambda: None)()
        return int(begun[0][0][:3])

    return asked


@pytest.mark.parametrize("cached", [False, True], ids=["from the app", "from the cache"])
@pytest.mark.parametrize("via", ["asgi gate", "wsgi gate", "asgi", "wsgi"])
def test_a_hook_that_raises_frees_what_the_request_held(via, cached):
    policy = Raising()
    cache = {"cache": ResponseCache(policy=CachePolicy(60))} if cached else {}
    gateway = Gateway(in_flight=1, policies=[policy], clock=FakeClock(), **cache)
    if via.endswith("gate"):
        asked = {"asgi gate": over_asgi, "wsgi gate": over_wsgi}[via](gateway)
        see(asked, policy, KeyError)
        return
    with project(via, [path("a", lambda request: HttpResponse("x"))], gateway) as app:
        see(lambda headers: ask(app, "GET /a", headers).status, policy, None)


def see(asked, policy, raised):
    assert asked({}) == 200
    for _ in range(2):
        if raised is None:  # Django makes a response of it
            assert asked({"x-bad": "1"}) == 500
        else:
            with pytest.raises(raised):
                asked({"x-bad": "1"})
    assert asked({}) == 200
    assert policy.statuses == [200, 500, 500, 200]
