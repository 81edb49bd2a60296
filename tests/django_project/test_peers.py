"""Bugs that limiters for Django are known for, each of them shown not to be here; numbers are of the report's list."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.http import HttpResponse
from django.urls import path
from rest_framework.decorators import api_view
from rest_framework.response import Response

from apigate import Method, Throttled
from tests.django_project.asking import ahello, ask, counted, exchanged, gateway, hello, project, statuses


def test_a_refused_narrow_limit_does_not_drain_the_wide_one(via):  # 1, 2
    gate = gateway(throttle="10/minute")
    with project(via, [path("x", gate.throttle("1/minute")(hello)), path("y", hello)], gate) as app:
        assert statuses(app, *["GET /x"] * 20) == [200] + [429] * 19
        assert statuses(app, *["GET /y"] * 10) == [200] * 9 + [429]


def test_the_refusal_names_the_limit(via):  # 3
    gate = gateway(throttle="10/minute", client_throttle="5/minute")
    with project(via, [path("x", gate.throttle("1/minute")(hello))], gate) as app:
        assert [ask(app, "GET /x") for _ in range(2)][1].json["violated-policies"] == ["method"]


def test_clients_do_not_share_a_bucket(via):  # 4
    gate = gateway()
    with project(via, [path("x", gate.throttle("1/minute", per="client")(hello))], gate) as app:
        assert [ask(app, "GET /x", address=f"192.0.2.{number}").status for number in range(5)] == [200] * 5


def test_threads_at_once_get_what_there_is():  # 6, 7: django-ratelimit#255, increments that are not atomic
    gate = gateway()
    with project("wsgi", [path("x", gate.throttle("50/minute")(hello))], gate) as app, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: ask(app, "GET /x").status, range(200)))
    assert (found.count(200), found.count(429)) == (50, 150)
    assert counted(gate) == 50


@pytest.mark.parametrize("forwarded", ["198.51.100.9", "198.51.100.9, 192.0.2.1"])
def test_forwarded_addresses_are_not_believed_unasked(forwarded, via):  # 13
    gate = gateway(client_throttle="1/minute")
    with project(via, [path("x", hello)], gate) as app:
        assert ask(app, "GET /x", {"x-forwarded-for": "203.0.113.1"}).status == 200
        assert ask(app, "GET /x", {"x-forwarded-for": forwarded}).status == 429


def test_addresses_of_one_ipv6_network_are_one_client(via):  # 13
    gate = gateway(client_throttle="1/minute")
    with project(via, [path("x", hello)], gate) as app:
        assert [ask(app, "GET /x", address=f"2001:db8::{number}").status for number in (1, 2)] == [200, 429]


def test_retry_after_is_there_and_right(via):  # 16: django-ratelimit#165, #325
    gate = gateway(client_throttle="1/minute")
    with project(via, [path("x", hello)], gate) as app:
        ask(app, "GET /x")
        gate.clock.advance(0.5)
        assert ask(app, "GET /x").headers["retry-after"] == "60"
        gate.clock.advance(59.4)
        assert ask(app, "GET /x").headers["retry-after"] == "1"
        gate.clock.advance(0.1)
        assert ask(app, "GET /x").status == 200


def test_failed_logins_are_not_tested_first_and_counted_later():  # 17
    gate = gateway(methods={"POST /login": Method(client_throttle="5/minute", refund="2xx")})
    served = []

    async def login(request):
        served.append(1)
        await asyncio.sleep(0)
        return HttpResponse(status=403)

    async def attack(app):
        return await asyncio.gather(*[exchanged(app, "POST", "/login") for _ in range(20)])

    with project("asgi", [path("login", login)], gate) as app:
        found = [answer.status for answer in asyncio.run(attack(app))]
    assert (found.count(403), found.count(429), len(served)) == (5, 15, 5)


def test_decorator_and_middleware_count_once(via):  # flask-limiter#108, #337
    gate = gateway(throttle="100/minute", client_throttle="50/minute")
    with project(via, [path("x", gate.throttle("20/minute")(hello))], gate) as app:
        statuses(app, *["GET /x"] * 5)
        assert [level.remaining for level in gate.explain("GET", "/x", address="192.0.2.1").levels] == [94, 44, 14]


def test_path_parameters_make_no_buckets(via):  # slowapi#217
    gate = gateway(methods={"*": Method(throttle="3/minute")})
    with project(via, [path("pets/<int:pk>", hello)], gate) as app:
        assert statuses(app, *[f"GET /pets/{number}" for number in range(5)]) == [200] * 3 + [429] * 2


def test_coroutine_views_are_limited(via):  # django-ratelimit#293
    gate = gateway()
    with project(via, [path("x", gate.throttle("1/minute")(ahello))], gate) as app:
        assert statuses(app, "GET /x", "GET /x") == [200, 429]


def test_views_of_one_name_do_not_share_a_bucket(via):
    """As they do in django-ratelimit, whose group is module and name."""
    gate = gateway()

    def make():
        @gate.throttle("1/minute")
        def view(request):
            return HttpResponse()

        return view

    with project(via, [path("x", make()), path("y", make())], gate) as app:
        assert statuses(app, "GET /x", "GET /y", "GET /x", "GET /y") == [200, 200, 429, 429]


def test_throttles_of_rest_framework_may_stay(via):
    """They answer by their own 429; the gateway keeps what it took, as the request was one."""
    from rest_framework.throttling import SimpleRateThrottle

    class Once(SimpleRateThrottle):
        rate = "1/day"

        def get_cache_key(self, request, view):
            return f"made-once-{via}"

    @api_view(["GET"])
    def view(request):
        return Response({})

    view.cls.throttle_classes = [Once]
    gate = gateway(throttle="100/minute")
    from django.core.cache import cache

    cache.clear()
    with project(via, [path("x", view)], gate) as app:
        first, second = ask(app, "GET /x"), ask(app, "GET /x")
        assert (first.status, second.status) == (200, 429)
        assert second.headers["content-type"] == "application/json"
        assert second.left == {"global": 98}


def test_throttled_is_not_an_error_of_the_view(via, caplog):
    """django-ratelimit raises PermissionDenied, a 403, and needs a middleware and a view of its own for a 429."""
    gate = gateway()

    @gate.throttle("1/minute")
    def work():
        pass

    def view(request):
        work()
        return HttpResponse()

    with project(via, [path("x", view)], gate) as app:
        assert statuses(app, "GET /x", "GET /x") == [200, 429]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert issubclass(Throttled, Exception)
