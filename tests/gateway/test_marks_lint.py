"""What `lint` finds of decorators: it sees of a mark what it sees of the same setting in `methods`."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask

from apigate import Gateway
from apigate.asgi import GatewayMiddleware
from apigate.flask import Apigate

Decorator = Callable[[Any], Any]  # Any: whatever kind of function


class InFlask:
    def __init__(self, gateway: Gateway) -> None:
        self.app = Flask("shop")
        Apigate(self.app, gateway)

    def route(self, path: str, function: Any, verb: str = "GET") -> Any:
        return self.app.route(path, endpoint=path, methods=[verb])(function)


class InFastAPI:
    def __init__(self, gateway: Gateway) -> None:
        self.app = FastAPI()
        GatewayMiddleware(self.app, gateway)

    def route(self, path: str, function: Any, verb: str = "GET") -> Any:
        return self.app.api_route(path, methods=[verb])(function)


everywhere = pytest.mark.parametrize("framework", [InFlask, InFastAPI])
of_every_kind = pytest.mark.parametrize(
    "decorator",
    [
        lambda gateway: gateway.cache(ttl=60),
        lambda gateway: gateway.throttle("1/minute"),
        lambda gateway: gateway.throttle("1/minute", key=lambda: "all"),
        lambda gateway: lambda function: gateway.throttle("1/minute")(gateway.cache(ttl=60)(function)),
    ],
    ids=["cache", "throttle", "key", "both"],
)


def view() -> Any:
    def pets() -> str:
        return "three pets"

    return pets


def found(gateway: Gateway) -> list[tuple[str, str]]:
    return [(finding.check, finding.setting) for finding in gateway.lint()]


@everywhere
@of_every_kind
def test_a_decorator_above_the_route_is_found(framework, decorator):
    gateway = Gateway(cors=None)
    shop = framework(gateway)
    decorated = decorator(gateway)(shop.route("/pets", view()))
    assert found(gateway) == [("decorator-above-route", "GET /pets")]
    del decorated  # as in a function that makes the app
    assert found(gateway) == [("decorator-above-route", "GET /pets")]


@everywhere
@of_every_kind
def test_one_below_is_as_it_should_be(framework, decorator):
    gateway = Gateway(cors=None)
    shop = framework(gateway)
    shop.route("/pets", decorator(gateway)(view()))
    assert found(gateway) == []


@everywhere
def test_one_below_does_not_hide_another_above(framework):
    gateway = Gateway(cors=None)
    shop, both = framework(gateway), gateway.cache(ttl=60)
    shop.route("/cats", both(view()))
    gateway.throttle("1/minute")(shop.route("/pets", both(view())))
    both(shop.route("/dogs", view()))
    assert found(gateway) == [("decorator-above-route", f"GET /{path}") for path in ("pets", "dogs")]


@everywhere
def test_a_function_with_a_route_of_its_own_beside_the_decorated_one_is_meant(framework):
    gateway = Gateway(cors=None)
    shop, pets = framework(gateway), view()
    shop.route("/free", pets)
    shop.route("/pets", gateway.throttle("1/minute")(pets))
    assert found(gateway) == []


@everywhere
def test_what_no_route_calls_is_no_route_s(framework):
    gateway = Gateway(cors=None)
    shop = framework(gateway)
    gateway.throttle("1/minute")(view())
    shop.route("/pets", view())
    assert found(gateway) == []
