"""The programs by which the cache was promised to users, as they write them."""

import asyncio
import tomllib

import django
import httpx
import pytest
from django.http import HttpResponse
from django.urls import path
from fastapi import FastAPI
from flask import Flask

from apigate import CachePolicy, ConfigurationError, Gateway, Method, Rate, ResponseCache, Stage, asgi
from apigate.flask import Apigate
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware
from tests.django_project.asking import ask, module, project


def in_code():
    return Gateway(
        throttle=Rate(10_000, burst=5_000),
        stages=[
            Stage(
                "prod",
                throttle=Rate(1_000, burst=2_000),
                client_throttle=Rate(10, burst=20),
                cache=ResponseCache(max_bytes="512MB"),
                variables={"table": "pets-prod"},
                methods={
                    "*": Method(throttle=Rate(100, burst=200)),
                    "GET /pets/{id}": Method(throttle="50/second; burst=100", cache=CachePolicy(ttl=60)),
                    "POST /pets": Method(throttle=Rate(5, burst=10), client_throttle=Rate(1, burst=2)),
                    "GET /health": Method(exempt=True),
                },
            ),
        ],
        store="memory://",
        name="shop",
        clock=FakeClock(),
    )


IN_A_FILE = """
throttle = "10000/second; burst=5000"
[stages.prod]
throttle = "1000/second; burst=2000"
client_throttle = "10/second; burst=20"
cache = { max_bytes = "512MB" }
[stages.prod.methods."GET /pets/{id}"]
throttle = "50/second; burst=100"
cache = { ttl = 60 }
"""


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]


@pytest.fixture(params=["code", "file"])
def gateway(request):
    return in_code() if request.param == "code" else Gateway.from_dict(tomllib.loads(IN_A_FILE))


def statuses(gateway, *paths):
    gate = GatewayMiddleware(app, gateway, stage="prod")
    with httpx.Client(transport=httpx.WSGITransport(gate), base_url="https://shop.example") as client:
        return [client.get(path).headers["Cache-Status"].removeprefix("apigate; ").partition(";")[0] for path in paths]


def test_method_with_a_ttl_is_cached_and_the_others_go_by_the_app(gateway):
    assert gateway.stage("prod").cache.max_bytes == 512_000_000
    assert (
        statuses(gateway, "/pets/1", "/pets/1", "/health", "/health") == ["fwd=uri-miss", "hit"] + ["fwd=uri-miss"] * 2
    )


def test_update_of_a_method_keeps_its_cache(gateway):
    assert statuses(gateway, "/pets/1") == ["fwd=uri-miss"]
    gateway.stage("prod").update("GET /pets/{id}", throttle="10/second; burst=20")
    assert statuses(gateway, "/pets/1") == ["hit"]


FORGOTTEN = pytest.mark.parametrize(
    "forgotten",
    [{"path": "/pets/1"}, {"prefix": "/pets/"}, {"method": "GET /pets/{id}"}],
    ids=lambda each: next(iter(each)),
)


@FORGOTTEN
def test_operator_invalidates(gateway, forgotten):
    prod = gateway.stage("prod")
    statuses(gateway, "/pets/1")
    prod.cache.invalidate(**forgotten)
    assert statuses(gateway, "/pets/1", "/pets/1") == ["fwd=uri-miss", "hit"]
    prod.cache.flush()
    assert statuses(gateway, "/pets/1") == ["fwd=uri-miss"]


@FORGOTTEN
def test_operator_invalidates_in_an_event_loop(gateway, forgotten):
    prod = gateway.stage("prod")
    statuses(gateway, "/pets/1")
    asyncio.run(prod.cache.invalidate_async(**forgotten))
    assert statuses(gateway, "/pets/1", "/pets/1") == ["fwd=uri-miss", "hit"]
    asyncio.run(prod.cache.flush_async())
    assert statuses(gateway, "/pets/1") == ["fwd=uri-miss"]


def test_tag_is_one_of_the_policy(gateway):
    prod = gateway.stage("prod")
    prod.update("GET /pets/{id}", cache=CachePolicy(ttl=60, tags=["pets"]))
    statuses(gateway, "/pets/2")
    prod.cache.invalidate(tag="dogs")
    assert statuses(gateway, "/pets/2") == ["hit"]
    prod.cache.invalidate(tag="pets")
    assert statuses(gateway, "/pets/2") == ["fwd=uri-miss"]


def test_default_stage_takes_a_cache_from_the_gateway():
    gateway = Gateway(cache=ResponseCache(max_bytes="1MB"), methods={"GET /pets": Method(cache=CachePolicy(ttl=60))})
    assert gateway.stage("default").cache.max_bytes == 1_000_000
    with pytest.raises(ConfigurationError):
        Gateway(cache=ResponseCache(), stages=[Stage("prod")])


def test_decorators_on_an_endpoint_of_flask():
    calls = []
    flask, gateway = Flask("shop"), Gateway(clock=FakeClock())

    @flask.get("/reports/<int:number>")
    @gateway.throttle("5/second; burst=10", per="client")
    @gateway.cache(ttl=60)
    def report(number):
        calls.append(number)
        return str(number)

    Apigate(flask, gateway)
    client = flask.test_client()
    answers = [client.get("/reports/7") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]  # a hit is counted too
    assert {answer.text for answer in answers[:10]} == {"7"}
    assert calls == [7]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_decorators_on_an_endpoint_of_fastapi(kind):
    calls = []
    app, gateway = FastAPI(), Gateway(clock=FakeClock())

    if kind == "def":

        @app.get("/reports/{number}")
        @gateway.throttle("5/second; burst=10", per="client")
        @gateway.cache(ttl=60)
        def report(number: int):
            calls.append(number)
            return number

    else:

        @app.get("/reports/{number}")
        @gateway.throttle("5/second; burst=10", per="client")
        @gateway.cache(ttl=60)
        async def report(number: int):
            calls.append(number)
            return number

    app.add_middleware(asgi.GatewayMiddleware, gateway=gateway)

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://shop.example") as client:
            return [await client.get("/reports/7") for _ in range(11)]

    answers = asyncio.run(main())
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert {answer.json() for answer in answers[:10]} == {7}
    assert calls == [7]


@pytest.mark.parametrize("via", ["wsgi", "asgi"])
def test_decorators_on_a_view_of_django(via):
    django.setup()
    calls = []
    gateway = Gateway(clock=FakeClock())

    @gateway.throttle("5/second; burst=10", per="client")
    @gateway.cache(ttl=60)
    def report(request, number):
        calls.append(number)
        return HttpResponse(str(number))

    urls, setting = [path("reports/<int:number>", report)], {"GATEWAY": "shop_gateway.gateway"}
    with module("shop_gateway", gateway=gateway), project(via, urls, setting) as shop:
        answers = [ask(shop, "GET /reports/7") for _ in range(11)]
    assert [answer.status for answer in answers] == [200] * 10 + [429]
    assert {answer.body for answer in answers[:10]} == {b"7"}
    assert calls == [7]
