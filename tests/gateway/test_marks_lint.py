"""What `lint` finds of decorators: it sees of a mark what it sees of the same setting in `methods`."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask

from apigate import Gateway, Method, Stage
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


# ---- the same, in `methods` and as a decorator

ODD = {
    # a verb, settings of the gateway, the method's settings, the same as a decorator, and what is found of either
    "a ttl for what is never stored": ("POST", {}, {"cache": 60}, ("cache", {"ttl": 60}), "uncached-verb"),
    "a policy where no cache is": ("GET", {"cache": None}, {"cache": 60}, ("cache", {"ttl": 60}), "without-effect"),
    "a client's limit at a method above that of all": (
        "GET",
        {"client_throttle": "1/minute"},
        {"client_throttle": "5/minute"},
        ("throttle", {"rate": "5/minute", "per": "client"}),
        "never-binds",
    ),
    "a method's limit above that of the gateway": (
        "GET",
        {"throttle": "1/minute"},
        {"throttle": "5/minute"},
        ("throttle", {"rate": "5/minute"}),
        "never-binds",
    ),
    "a rate that a wider one refuses first": (
        "GET",
        {"throttle": "1/minute; burst=9"},
        {"throttle": "5/minute"},
        ("throttle", {"rate": "5/minute"}),
        "rate-above-wider",
    ),
}


@everywhere
@pytest.mark.parametrize(("verb", "settings", "method", "mark", "check"), ODD.values(), ids=ODD)
def test_a_decorator_and_a_method_are_found_alike(framework, verb, settings, method, mark, check):
    name, arguments = mark
    by_method = Gateway(cors=None, **settings, methods={f"{verb} /pets": Method(**method)})
    framework(by_method).route("/pets", view(), verb)
    by_mark = Gateway(cors=None, **settings)
    framework(by_mark).route("/pets", getattr(by_mark, name)(**arguments)(view()), verb)
    assert by_mark.lint() == by_method.lint()
    assert found(by_mark) == [(check, f'stages.default.methods."{verb} /pets"')]


def test_a_decorator_s_cost_above_its_own_burst_is_found_and_its_method_s_is_not_taken_for_it():
    gateway = Gateway(cors=None, methods={"GET /b": Method(cost=7)})
    shop = InFlask(gateway)
    shop.route("/a", gateway.throttle("5/minute", cost=7)(view()))
    shop.route("/b", gateway.throttle("5/minute")(view()))
    assert found(gateway) == [("cost-above-burst", 'stages.default.methods."GET /a"')]


@pytest.mark.parametrize(
    ("settings", "mark"),
    [
        ({"client_throttle": "1/minute"}, {"rate": "5/minute"}),  # one bucket for all clients
        ({"client_throttle": "1/minute"}, {"rate": "5/minute", "per": lambda request: "team"}),
        ({"client_throttle": "1/minute"}, {"rate": "5/minute", "per": "client", "cost": 5}),
        ({"client_throttle": "1/minute"}, {"rate": "5/minute", "per": "client", "cost": lambda request: 1}),
        ({"methods": {"* /{rest+}": Method(throttle="1/minute")}}, {"rate": "5/minute"}),  # has other routes
        ({"methods": {"* /{rest+}": Method(throttle="5/minute")}}, {"rate": "1/minute"}),
        ({"methods": {"* /{rest+}": Method(throttle="1/minute")}}, {"rate": "5/minute", "per": "client"}),
        ({"stages": [Stage("a", throttle="1/minute"), Stage("b")], "stage_by": "path-prefix"}, {"rate": "5/minute"}),
    ],
)
def test_a_decorator_whose_limit_may_come_first_is_as_it_should_be(settings, mark):
    gateway = Gateway(cors=None, **settings)
    shop = InFlask(gateway)
    shop.route("/pets", gateway.throttle(**mark)(view()))
    shop.route("/cats", view())
    assert found(gateway) == []


def test_two_decorators_of_one_function_are_compared():
    gateway = Gateway(cors=None)
    shop = InFlask(gateway)
    shop.route("/pets", gateway.throttle("1/minute")(gateway.throttle("5/minute", per="client")(view())))
    shop.route("/cats", gateway.throttle("1/minute", per="client")(gateway.throttle("5/minute")(view())))
    assert found(gateway) == [("never-binds", 'stages.default.methods."GET /pets"')]


def test_a_view_of_several_verbs_of_which_one_is_cached_is_as_it_should_be():
    gateway = Gateway(cors=None)
    shop = InFlask(gateway)
    cached = gateway.cache(ttl=60)
    shop.app.route("/pets", methods=["GET", "POST"])(cached(view()))
    shop.app.route("/cats", endpoint="cats", methods=["PUT", "POST"])(cached(view()))
    assert found(gateway) == [("uncached-verb", 'stages.default.methods."POST /cats"')]


def test_a_decorator_that_a_method_overrules_is_not_looked_at():
    gateway = Gateway(cors=None, methods={"POST /pets": Method(cache=None)})
    InFlask(gateway).route("/pets", gateway.cache(ttl=60)(view()), "POST")
    assert found(gateway) == []


def test_a_stage_without_cache_beside_one_with_it_is_meant():
    gateway = Gateway(cors=None, stages=[Stage("prod"), Stage("dev", cache=None)], stage_by="path-prefix")
    InFlask(gateway).route("/pets", gateway.cache(ttl=60)(view()))
    assert found(gateway) == []
