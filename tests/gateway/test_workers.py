"""Several workers on a store of one process: what a gateway says of it, to whom, and how often."""

import logging

import pytest

from apigate import CORS, Gateway, Method, Rate, Stage, asgi, wsgi
from apigate.stores.memory import MemoryStore
from tests.gateway.asking import ask, ask_in_task, built

ASKING = pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])


class Shared(MemoryStore):
    shared = True


@pytest.fixture
def said(caplog, monkeypatch):
    """What is logged where the environment asks for four workers."""
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    caplog.set_level(logging.WARNING, "apigate")
    return lambda: [record.getMessage() for record in caplog.records]


def around(gateway: Gateway) -> None:
    wsgi.GatewayMiddleware(lambda environ, start_response: [], gateway)


@ASKING
def test_it_is_said_once_a_gateway_with_what_it_means_and_what_to_do(asking, said, caplog):
    gateway = built(throttle="10/second", name="shop")
    for _ in range(3):
        asking(gateway)
    (warning,) = said()
    assert warning == (
        "WEB_CONCURRENCY is 4, and every limit of the gateway 'shop' is kept by each process alone. Each of the 4 "
        "workers admits the whole of it, and all together 4 times as much. Share one store: "
        "store='file:///run/app/apigate.state' among the workers of one host, store='redis://host:6379/0' among hosts; "
        "and give the gateway a name="
    )
    assert [(record.levelname, record.check) for record in caplog.records] == [("WARNING", "multiplied-limits")]
    asking(built(throttle="10/second", name="library"))
    assert len(said()) == 2
    assert "'library'" in said()[1]


LIMITED = {
    "global": {"throttle": "10/second"},
    "stage": {"stages": [Stage("prod", throttle="10/second")]},
    "client": {"client_throttle": "10/second"},
    "method": {"methods": {"GET /pets": Method(throttle="10/second")}},
    "one level of two": {"throttle": "10/second", "client_throttle": "5/second", "modes": {"global": "shadow"}},
}
UNLIMITED = {
    "nothing": {},
    "in flight, which is meant for each process": {"in_flight": 10, "client_in_flight": 2},
    "in shadow": {"throttle": "10/second", "modes": {"global": "shadow"}},
    "off": {"throttle": "10/second", "modes": {"global": "off"}},
    "a shared store": {"throttle": "10/second", "store": Shared(), "name": "shop"},
}


@pytest.mark.parametrize("settings", LIMITED.values(), ids=LIMITED)
def test_every_level_that_refuses_is_multiplied(settings, said):
    gateway = built(**settings, cors=None)
    around(gateway)
    assert len(said()) == 1
    assert [(finding.check, finding.setting) for finding in gateway.lint()] == [("multiplied-limits", "store")]
    assert str(gateway.lint()[0]).endswith("[multiplied-limits]")


@ASKING
@pytest.mark.parametrize("settings", UNLIMITED.values(), ids=UNLIMITED)
def test_nothing_is_said_where_nothing_is_multiplied(asking, settings, said):
    gateway = built(**settings)
    asking(gateway)
    assert said() == []
    assert "multiplied-limits" not in {finding.check for finding in gateway.lint()}


def test_nothing_is_said_of_one_worker(said, monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "1")
    gateway = built(throttle="10/second", cors=None)
    around(gateway)
    assert said() == []
    assert gateway.lint() == []


@ASKING
def test_what_is_decorated_after_the_gateway_was_bound_is_seen_at_the_first_request(asking, said):
    gateway = built()
    around(gateway)
    assert said() == []
    gateway.throttle("10/second")(lambda: None)
    asking(gateway)
    assert len(said()) == 1


def test_what_is_only_cached_by_a_decorator_is_no_limit(said):
    gateway = built(cors=None)
    gateway.cache(ttl=60)(lambda: None)
    around(gateway)
    assert said() == []
    assert "multiplied-limits" not in {finding.check for finding in gateway.lint()}


def test_what_is_decorated_in_shadow_is_not_multiplied(said):
    gateway = built(modes={"method": "shadow", "client-method": "off"})
    gateway.throttle("10/second")(lambda: None)
    around(gateway)
    assert said() == []


def test_a_server_that_tells_of_other_processes_is_heard_at_the_first_request(said, monkeypatch):
    monkeypatch.delenv("WEB_CONCURRENCY")
    gateway = built(throttle="10/second", cors=None)
    gate = wsgi.GatewayMiddleware(lambda environ, start_response: [], gateway)
    assert (said(), gateway.lint()) == ([], [])
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1", "wsgi.multiprocess": True}
    for _ in range(3):
        gate({**environ}, lambda status, headers, exc_info=None: None)
    assert len(said()) == 1
    assert "wsgi.multiprocess" in said()[0]
    assert "as many times as much as there are workers" in said()[0]
    assert [finding.check for finding in gateway.lint()] == ["multiplied-limits"]


def test_a_test_client_is_no_server_with_other_processes(said, monkeypatch):
    from falcon.testing import TestClient

    monkeypatch.delenv("WEB_CONCURRENCY")
    heard = []

    def app(environ, start_response):
        heard.append(environ["wsgi.multiprocess"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    gate = wsgi.GatewayMiddleware(app, built(throttle="10/second"))
    assert TestClient(gate).simulate_get("/").status_code == 200
    assert heard == [True]  # it says so, and is not believed
    assert said() == []


def test_lint_finds_it_where_nothing_is_bound(monkeypatch):
    gateway = Gateway(throttle=Rate(10), cors=CORS(allow_origins=["https://shop.example"]))
    assert gateway.lint() == []
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--workers 3")
    assert [finding.check for finding in gateway.lint()] == ["multiplied-limits"]


def test_an_asgi_app_is_told_when_it_starts_not_at_its_first_request(said, monkeypatch):
    monkeypatch.delenv("WEB_CONCURRENCY")
    gate = asgi.GatewayMiddleware(_idle, built(throttle="10/second"))
    monkeypatch.setenv("WEB_CONCURRENCY", "4")  # as after a fork
    with pytest.raises(StopIteration):
        gate({"type": "lifespan"}, None, None).send(None)
    assert len(said()) == 1


async def _idle(scope, receive, send):
    """Take nothing and send nothing."""
