"""What an operator has forgotten is said to be impossible where it could match nothing."""

import asyncio
import re

import pytest
from fastapi import FastAPI
from flask import Flask

from apigate import CachePolicy, ConfigurationError, Gateway, Method, ProtocolError, ResponseCache
from apigate.asgi import GatewayMiddleware as ASGIGate
from apigate.flask import Apigate
from apigate.wsgi import GatewayMiddleware as WSGIGate
from tests.response_stores import LoggedStore

TTL = Method(cache=CachePolicy(ttl=60))


def app(environ, start_response):
    start_response("200 OK", [])
    return []


def gateway(*methods):
    return Gateway(cache=ResponseCache(), methods=dict.fromkeys(methods, TTL))


def cache_of(*methods):
    gate = gateway(*methods)
    WSGIGate(app, gate)
    return gate.stage().cache


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        (lambda gate, cache: cache.invalidate(path="/pets"), "invalidate_async"),
        (lambda gate, cache: cache.flush(), "flush_async"),
        (lambda gate, cache: gate.explain("GET", "https://shop/pets"), "explain_async"),
        (lambda gate, cache: cache.ask("GET", "https://shop/pets"), "ask_async"),
    ],
)
def test_where_the_store_has_to_be_awaited_a_call_says_which_one_does(call, instead):
    gate = Gateway(name="shop", cache=ResponseCache(shared=LoggedStore(is_awaited=True)), methods={"*": TTL})
    with pytest.raises(ProtocolError, match=f"^the store has to be awaited here; use {instead}, or where"):
        call(gate, gate.stage().cache)


def test_an_invalidation_that_says_it_should_be_awaited_is_done_all_the_same_and_told_with_the_next():
    store = LoggedStore(is_awaited=True)
    cache = Gateway(name="shop", cache=ResponseCache(shared=store)).stage().cache
    with pytest.raises(ProtocolError, match=r"this process has forgotten it all the same, and the others will when"):
        cache.invalidate(path="/pets")
    store.forget()  # whatever it took of that call: on a server, nothing was sent
    asyncio.run(cache.invalidate_async(path="/dogs"))
    assert [record.text for record in store.records] == ["path:/pets", "path:/dogs"]


@pytest.mark.parametrize("kind", ["path", "prefix"])
@pytest.mark.parametrize("text", ["pets/1", "", "/pets?page=1", "/pets#top", "https://shop.example/pets", "/a://b"])
def test_what_is_no_path_is_an_error(kind, text):
    with pytest.raises(ConfigurationError, match=rf"^invalidate {kind}: .* is not a path such as '/pets/1'"):
        ResponseCache().invalidate(**{kind: text})
    with pytest.raises(ConfigurationError, match=rf"^invalidate {kind}: "):
        asyncio.run(ResponseCache().invalidate_async(**{kind: text}))


@pytest.mark.parametrize("method", ["get /pets", "GET", "GET pets", "GET/pets", "HEAD /pets", "", "*", "GET  /pets"])
def test_what_is_no_method_is_an_error(method):
    for cache in (ResponseCache(), cache_of("GET /pets")):
        with pytest.raises(
            ConfigurationError, match=r"^invalidate method: .* is not a method; write a verb in capitals"
        ):
            cache.invalidate(method=method)


def test_a_method_that_the_stage_does_not_have_is_an_error_that_says_the_nearest():
    cache = cache_of("GET /pets/{id}", "* /cats", "/files/{proxy+}", "*")
    for method in ("GET /pets/{id}", "* /cats", "/files/{proxy+}"):
        cache.invalidate(method=method)
    for method in ("GET /pets/{pk+}", "PUT /pets/{pk}"):
        with pytest.raises(ConfigurationError, match=rf"no method {re.escape(repr(method))}; did you mean 'GET /pets/"):
            cache.invalidate(method=method)
    with pytest.raises(ConfigurationError, match=r"no method 'GET /'; methods are "):
        cache.invalidate(method="GET /")


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("GET /orders/<int:order_id>", "write the parameter '<int:order_id>' with braces, as {id}"),
        ("GET /orders/:id", "write the parameter ':id' with braces, as {id}"),
        ("/orders/*", "write '*' with braces, as {id} for any one segment or, at the end, {rest+} for one or more"),
    ],
)
def test_a_parameter_as_others_write_it_is_an_error_that_says_how(method, said):
    for cache in (ResponseCache(), gateway("*").stage().cache, cache_of("GET /orders/{id}")):
        with pytest.raises(ConfigurationError, match=f"^invalidate method: in {re.escape(f'{method!r} {said}')}$"):
            cache.invalidate(method=method)


@pytest.mark.parametrize("methods", [{}, {"GET /orders/{id}": TTL}], ids=["no table", "table"])
@pytest.mark.parametrize("name", ["id", "order_id", "pk"])
def test_a_method_is_the_same_whatever_its_parameters_are_called(methods, name):
    flask_app = Flask("shop")
    flask_app.add_url_rule("/orders/<int:order_id>", endpoint="order", view_func=lambda order_id: f"{order_id}")
    gate = Gateway(cache=ResponseCache(policy=CachePolicy(ttl=60)), methods=methods)
    Apigate(flask_app, gate)
    client = flask_app.test_client()

    def is_hit():
        return "hit" in client.get("/orders/1").headers["Cache-Status"]

    assert [is_hit(), is_hit()] == [False, True]
    gate.stage().cache.invalidate(method=f"GET /orders/{{{name}}}")
    assert not is_hit()


def test_before_an_app_is_known_so_is_no_table():
    gate = gateway("GET /pets")
    gate.stage().cache.invalidate(method="GET /dogs")
    ResponseCache().invalidate(method="GET /dogs")


def test_a_method_that_was_added_is_known():
    gate = gateway("GET /pets")
    WSGIGate(app, gate)
    gate.stage().update("GET /dogs", cache=CachePolicy(ttl=60))
    gate.stage().cache.invalidate(method="GET /dogs")


def test_endpoints_of_frameworks_are_methods_too():
    gate, flask_app, fast_app = gateway("GET /pets/{id}"), Flask("shop"), FastAPI()
    flask_app.add_url_rule("/pets/<int:number>", view_func=str)
    flask_app.add_url_rule("/cats/<name>", endpoint="cats", view_func=lambda name: name)
    Apigate(flask_app, gate)
    fast_app.add_api_route("/dogs/{name}", lambda name: name)
    around = ASGIGate(fast_app, gate)
    cache = gate.stage().cache
    for method in ("GET /pets/{id}", "GET /pets/{number}", "GET /cats/{name}", "GET /dogs/{name}"):
        cache.invalidate(method=method)
    with pytest.raises(ConfigurationError, match=r"did you mean 'GET /cats/{name}'"):
        cache.invalidate(method="GET /cat/{name}")
    assert around.gateway is gate
