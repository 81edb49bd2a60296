"""What is explained and warmed is what clients ask for, whatever the server tells of their requests."""

import httpx
import pytest

from apigate import CachePolicy, Gateway, Method
from apigate.core.context import current_context
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware

URL = "https://shop.example/pets?page=1"


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]


@pytest.fixture
def gate():
    gateway = Gateway(methods={"GET /{rest+}": Method(cache=CachePolicy(ttl=60))}, clock=FakeClock())
    return GatewayMiddleware(app, gateway)


def asked(gate, url, *, tells_raw):
    def server(environ, start_response):
        raw = httpx.URL(url).raw_path.decode()
        return gate({**environ, "RAW_URI": raw} if tells_raw else environ, start_response)

    with httpx.Client(transport=httpx.WSGITransport(server)) as client:
        return client.get(url).headers["Cache-Status"]


@pytest.mark.parametrize("tells_raw", [True, False])
def test_warmed_is_hit(gate, tells_raw):
    assert gate.warm([URL]) == 1
    assert "hit" in asked(gate, URL, tells_raw=tells_raw)


@pytest.mark.parametrize("tells_raw", [True, False])
def test_stored_is_explained(gate, tells_raw):
    asked(gate, URL, tells_raw=tells_raw)
    assert gate.gateway.explain("GET", URL).notes[0].startswith("cache: a response of 200")


def test_path_as_sent_still_tells_apart(gate):
    asked(gate, "https://shop.example/a/b", tells_raw=True)
    assert "uri-miss" in asked(gate, "https://shop.example/a%2Fb", tells_raw=True)
    assert "hit" in asked(gate, "https://shop.example/a%2Fb", tells_raw=True)


def test_warming_leaves_no_request_behind(gate):
    """Decorated functions that are called afterwards in the same thread would take it for theirs."""
    gate.warm([URL])
    assert current_context() is None
