"""Functions of the user's that are asked with every request: what they may be, and what they may give."""

import functools

import pytest
from flask import Flask

from apigate import CachePolicy, ConfigurationError, Gateway, GatewayResponse, Method, Stage
from apigate.flask import Apigate
from apigate.testing import FakeClock
from tests.gateway.asking import ask


async def asked(*_):
    """True, once it is awaited; nobody does."""
    return False


class Asked:
    async def __call__(self, *_):
        return False


class Selector:
    async def select(self, request):
        return None


@pytest.mark.parametrize("function", [asked, functools.partial(asked), Asked()], ids=["function", "partial", "object"])
@pytest.mark.parametrize(
    ("setting", "given"),
    [
        ("client", lambda function: Gateway(client=function)),
        ("exempt", lambda function: Gateway(exempt=function)),
        ("Method exempt", lambda function: Gateway(methods={"GET /": Method(exempt=function)})),
        ("cost", lambda function: Gateway(cost=function)),
        ("final_cost", lambda function: Gateway(methods={"GET /": Method(final_cost=function)})),
        ("on_event", lambda function: Gateway(on_event=function)),
        ("throttle per", lambda function: Gateway().throttle("1/second", per=function)),
        ("throttle key", lambda function: Gateway().throttle("1/second", key=function)),
        ("throttle cost", lambda function: Gateway().throttle("1/second", cost=function)),
        ("cache per", lambda function: CachePolicy(60, per=function)),
        ("cache tags", lambda function: CachePolicy(60, tags=function)),
        ("cache invalidate", lambda function: CachePolicy(60, invalidate=function)),
        ("GatewayResponse body", lambda function: GatewayResponse(body=function)),
    ],
)
def test_a_coroutine_function_is_refused_as_what_it_gives_would_be_true_for_everybody(setting, given, function):
    with pytest.raises(ConfigurationError, match=f"{setting}: .* is a coroutine function"):
        given(function)


def test_nor_may_a_selector_of_the_users_be_one():
    with pytest.raises(ConfigurationError, match=r"stage_by: .* is a coroutine function"):
        Gateway(stages=[Stage("prod")], stage_by=Selector())


def test_a_client_that_is_no_text_is_an_error_and_not_a_new_client_each_time():
    gateway = Gateway(client=lambda request: object(), client_throttle="1/hour", clock=FakeClock())
    with pytest.raises(ValueError, match=r"client: <object object at .*> is neither a text nor None"):
        ask(gateway)


def test_a_text_that_a_function_gives_is_not_the_bucket_of_a_client_of_that_name():
    gateway = Gateway(clock=FakeClock())
    app = Flask("shop")
    app.get("/")(gateway.throttle("1/hour", per=lambda request: request.headers.get("x-key"))(lambda: "served"))
    Apigate(app, gateway)
    client = app.test_client()
    name = gateway.explain("GET", "/", address="127.0.0.1").client
    assert [client.get("/", headers={"x-key": name}).status_code for _ in range(2)] == [200, 429]
    assert client.get("/").status_code == 200
