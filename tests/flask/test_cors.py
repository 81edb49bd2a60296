"""A refusal to a page of another origin carries the app's own CORS fields."""

import gzip
import logging

import pytest
from flask import Blueprint, Flask, g, request
from flask_cors import CORS as FlaskCORS  # noqa: N811 - a class, and apigate has one of that name

from apigate import CORS, Stage
from apigate.staging import PathPrefix
from tests.flask.asking import ask, calling, gated, gateway, statuses

ORIGIN = {"Origin": "https://shop.example"}


def app_with(layer=None, rule="/pets"):
    app = Flask("shop")
    app.add_url_rule(rule, "pets", lambda: "pets")
    if layer is not None:
        layer(app)
    return app


def by_hand(app):
    @app.after_request
    def allow(response):
        if request.headers.get("Origin") == "https://shop.example":
            response.headers["Access-Control-Allow-Origin"] = "https://shop.example"
            response.headers.add("Vary", "Origin")
        return response


def flask_cors(app):
    FlaskCORS(app)


def flask_cors_by_path(app):
    FlaskCORS(app, resources={r"/pets": {"origins": ["https://shop.example"], "expose_headers": ["Retry-After"]}})


@pytest.mark.parametrize("layer", [by_hand, flask_cors, flask_cors_by_path])
@pytest.mark.parametrize("opaque", [False, True])
def test_a_refusal_has_the_fields_that_the_apps_responses_have(layer, opaque):
    app = app_with(layer)
    if opaque:  # middleware within the gate hides the routes, not the app
        app.wsgi_app = calling(app.wsgi_app)
    gated(app, gateway(client_throttle="1/minute"))
    served, refused = ask(app, "GET /pets", ORIGIN), ask(app, "GET /pets", ORIGIN)
    assert (served.status_code, refused.status_code) == (200, 429)
    for name in ("Access-Control-Allow-Origin", "Vary", "Access-Control-Expose-Headers"):
        assert refused.headers.get_all(name) == served.headers.get_all(name)
    assert refused.headers["Access-Control-Allow-Origin"] in ("*", "https://shop.example")
    assert refused.headers["Retry-After"] == "60"
    assert refused.get_json()["violated-policies"] == ["client"]


@pytest.mark.parametrize("layer", [by_hand, flask_cors, flask_cors_by_path])
def test_a_refusal_to_no_origin_is_left_alone(layer):
    app = gated(app_with(layer), gateway(client_throttle="1/minute"))
    ask(app, "GET /pets")
    assert "Access-Control-Allow-Origin" not in ask(app, "GET /pets").headers


@pytest.mark.parametrize("layer", [by_hand, flask_cors_by_path])
def test_another_origin_is_not_let_in(layer):
    app = gated(app_with(layer), gateway(client_throttle="1/minute"))
    ask(app, "GET /pets")
    assert "Access-Control-Allow-Origin" not in ask(app, "GET /pets", {"Origin": "https://evil.example"}).headers


@pytest.mark.parametrize("kind", ["view", "helper"])
def test_so_has_the_refusal_of_a_decorated_function(kind):
    gate, app = gateway(), Flask("shop")
    scarce = gate.throttle("1/minute")(lambda: "scarce")
    app.add_url_rule("/scarce", "scarce", scarce if kind == "view" else calling(scarce))
    FlaskCORS(app)
    gated(app, gate)
    served, refused = ask(app, "GET /scarce", ORIGIN), ask(app, "GET /scarce", ORIGIN)
    assert (served.status_code, refused.status_code) == (200, 429)
    allowed = [response.headers.get_all("Access-Control-Allow-Origin") for response in (served, refused)]
    assert allowed[0] == allowed[1]
    assert len(allowed[1]) == 1


def test_the_layer_of_a_blueprint_is_asked_for_its_own_routes():
    app, api = app_with(), Blueprint("api", __name__, url_prefix="/api")
    api.add_url_rule("/x", "x", lambda: "x")
    by_hand(api)
    app.register_blueprint(api)
    gated(app, gateway(client_throttle="2/minute"))
    assert statuses(app, "GET /pets", "GET /pets") == [200, 200]
    assert "Access-Control-Allow-Origin" in ask(app, "GET /api/x", ORIGIN).headers
    assert "Access-Control-Allow-Origin" not in ask(app, "GET /pets", ORIGIN).headers


def test_the_layer_sees_the_path_without_the_stage():
    app = app_with(flask_cors_by_path)
    gated(app, gateway(stages=[Stage("prod", throttle="1/minute")], stage_by=PathPrefix()))
    assert [ask(app, "GET /prod/pets", ORIGIN).headers["Access-Control-Allow-Origin"] for _ in range(2)] == [
        "https://shop.example"
    ] * 2


def test_neither_before_request_nor_the_view_runs_and_what_relies_on_them_is_passed_over(caplog):
    app, ran = app_with(by_hand), []

    @app.before_request
    def before():
        ran.append("before")
        g.started = 1

    @app.after_request
    def timing(response):
        response.headers["X-Took"] = str(g.started)  # g has none on a refusal
        return response

    @app.teardown_request
    def close(_):
        ran.append(f"close {g.started}")  # nor here

    gated(app, gateway(client_throttle="1/minute"))
    assert ask(app, "GET /pets", ORIGIN).status_code == 200
    ran.clear()
    with caplog.at_level(logging.WARNING, "apigate"):
        for _ in range(3):
            refused = ask(app, "GET /pets", ORIGIN)
            assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (429, ORIGIN["Origin"])
    assert ran == []
    assert len(caplog.records) == 2  # each once, not once a request
    assert "timing" in caplog.text


def test_what_else_is_done_to_responses_does_not_break_the_refusal():
    app = app_with(by_hand)

    @app.after_request
    def compress(response):
        response.set_data(gzip.compress(response.get_data()))
        response.headers.update({"Content-Encoding": "gzip", "X-Seen": "yes"})
        response.set_cookie("seen", "yes")
        return response

    gated(app, gateway(client_throttle="1/minute"))
    ask(app, "GET /pets", ORIGIN)
    refused = ask(app, "GET /pets", ORIGIN)
    assert "Content-Encoding" not in refused.headers
    assert "Set-Cookie" not in refused.headers
    assert int(refused.headers["Content-Length"]) == len(refused.data)
    assert refused.get_json()["status"] == 429
    assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]


def test_an_after_request_function_that_forgets_to_return_is_no_500():
    app = app_with(by_hand)
    app.after_request(lambda response: None)
    gate = gateway(throttle="1/minute")
    gated(app, gate)
    assert [ask(app, "GET /pets", ORIGIN).status_code for _ in range(2)] == [500, 429]


def test_an_app_without_a_layer_has_the_gateways_own():
    app = gated(app_with(), gateway(client_throttle="1/minute", cors=CORS(allow_origins=["https://shop.example"])))
    ask(app, "GET /pets")
    assert ask(app, "GET /pets", ORIGIN).headers["Access-Control-Allow-Origin"] == "https://shop.example"


def test_an_async_after_request_function():
    app = app_with()

    @app.after_request
    async def allow(response):
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    gated(app, gateway(client_throttle="1/minute"))
    ask(app, "GET /pets")
    assert ask(app, "GET /pets", ORIGIN).headers["Access-Control-Allow-Origin"] == "*"
