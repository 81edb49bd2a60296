"""How you test the limits of your own app: with a clock that only the test moves.

Needs pytest and httpx. `make_app` and what is above it would be your app's own code.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest

from apigate import Gateway, Method, Rate
from apigate.core.clock import Clock
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware

# ---- shop.py: the app and its limits


def shop(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answers a good password with 200, another with 401, and everything else with the pets."""
    wrong = environ["PATH_INFO"] == "/login" and environ["QUERY_STRING"] != "password=secret"
    start_response("401 Unauthorized" if wrong else "200 OK", [("Content-Type", "text/plain")])
    return [b"a cat and a dog"]


def make_app(clock: Clock | None = None) -> GatewayMiddleware:
    """The app behind its gateway; tests hand in their clock."""
    gateway = Gateway(
        client_throttle=Rate(10, burst=20),
        methods={"POST /login": Method(client_throttle=Rate(3, per=60), refund="2xx")},
        clock=clock,
    )
    return GatewayMiddleware(shop, gateway)


# ---- test_limits.py: its tests; `pytest_plugins` may stand in your conftest.py instead

pytest_plugins = ["apigate.testing.plugin"]


@pytest.fixture
def client(fake_clock: FakeClock) -> Iterator[httpx.Client]:
    """A client of the app."""
    transport = httpx.WSGITransport(app=make_app(fake_clock))
    with httpx.Client(transport=transport, base_url="http://shop.example") as client:
        yield client


def test_twenty_requests_may_come_at_once(client: httpx.Client) -> None:
    """The burst."""
    assert [client.get("/pets").status_code for _ in range(21)] == [200] * 20 + [429]


def test_whoever_was_refused_may_come_back_when_told(client: httpx.Client, fake_clock: FakeClock) -> None:
    """`Retry-After` is never too early."""
    while (response := client.get("/pets")).status_code == 200:
        pass
    assert response.json()["violated-policies"] == ["client"]
    fake_clock.advance(float(response.headers["Retry-After"]))
    assert client.get("/pets").status_code == 200


def test_only_failed_logins_count(client: httpx.Client, fake_clock: FakeClock) -> None:
    """Three in a minute."""
    for _ in range(10):
        assert client.post("/login", params={"password": "secret"}).status_code == 200
    wrong = [client.post("/login", params={"password": "guess"}).status_code for _ in range(4)]
    assert wrong == [401, 401, 401, 429]
    fake_clock.advance(20)
    assert client.post("/login", params={"password": "secret"}).status_code == 200


def test_one_client_takes_nothing_from_another(fake_clock: FakeClock) -> None:
    """Each address has a bucket of its own."""
    app = make_app(fake_clock)
    alice, bob = (
        httpx.Client(transport=httpx.WSGITransport(app=app, remote_addr=address), base_url="http://shop.example")
        for address in ("192.0.2.1", "192.0.2.2")
    )
    with alice, bob:
        while alice.get("/pets").status_code == 200:
            pass
        assert bob.get("/pets").status_code == 200
