"""`Apigate`: an extension as Flask's users know them."""

import logging

import pytest
from flask import Blueprint, Flask, jsonify
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from apigate import ConfigurationError, Gateway, Method, Rate, Stage, Throttled
from apigate.flask import Apigate, context
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware
from tests.flask.asking import ask, calling, gated, gateway, remaining, statuses


def shop(**config):
    """An app with `GET /pets`; each app of the tests is made anew, as an app factory makes it."""
    app = Flask("shop")
    app.config.update(config)

    @app.get("/pets")
    def pets():
        return "pets"

    return app


# ---- around an app


@pytest.mark.parametrize("style", ["app and gateway", "init_app", "wsgi_app by hand"])
def test_every_way_to_put_it_around_an_app_limits_it(style):
    app, gate = shop(), gateway(client_throttle="2/minute")
    if style == "app and gateway":
        Apigate(app, gate)
    elif style == "init_app":
        Apigate(gateway=gate).init_app(app)
    else:
        app.wsgi_app = GatewayMiddleware(app.wsgi_app, gate)
    assert statuses(app, "GET /pets", "GET /pets", "GET /pets") == [200, 200, 429]


def test_a_refusal_says_what_refused_and_for_how_long():
    app = gated(shop(), gateway(client_throttle="2/minute"))
    first, _, refused = (ask(app, "GET /pets") for _ in range(3))
    assert first.headers["RateLimit"] == '"client";r=1;t=30'
    assert refused.headers["Retry-After"] == "30"
    assert refused.headers["RateLimit"] == '"client";r=0;t=30'
    assert refused.content_type == "application/problem+json"
    assert refused.get_json()["violated-policies"] == ["client"]


def test_time_opens_the_limit_again():
    clock = FakeClock()
    app = gated(shop(), gateway(client_throttle="2/minute", clock=clock))
    assert statuses(app, *["GET /pets"] * 3) == [200, 200, 429]
    clock.advance(30)
    assert statuses(app, *["GET /pets"] * 2) == [200, 429]


def test_clients_are_told_apart_by_address():
    app = gated(shop(), gateway(client_throttle="1/minute"))
    assert ask(app, "GET /pets", REMOTE_ADDR="192.0.2.1").status_code == 200
    assert ask(app, "GET /pets", REMOTE_ADDR="192.0.2.1").status_code == 429
    assert ask(app, "GET /pets", REMOTE_ADDR="192.0.2.2").status_code == 200


def test_one_extension_serves_several_apps_that_share_the_gateway():
    extension, first, second = Apigate(gateway=gateway(client_throttle="2/minute")), shop(), shop()
    extension.init_app(first)
    extension.init_app(second)
    assert [*statuses(first, "GET /pets"), *statuses(second, "GET /pets", "GET /pets")] == [200, 200, 429]


def test_one_extension_without_a_gateway_gives_each_app_its_own():
    extension = Apigate()
    first, second = (shop(APIGATE_CLIENT_THROTTLE=rate, APIGATE_CLOCK=FakeClock()) for rate in ("1/minute", "2/minute"))
    extension.init_app(first)
    extension.init_app(second)
    assert statuses(first, *["GET /pets"] * 2) == [200, 429]
    assert statuses(second, *["GET /pets"] * 3) == [200, 200, 429]
    assert first.extensions["apigate"].gateway is not second.extensions["apigate"].gateway


def test_what_an_app_factory_makes_twice_is_limited_twice():
    def make():
        return gated(shop(), gateway(client_throttle="1/minute"))

    assert [statuses(make(), *["GET /pets"] * 2) for _ in range(2)] == [[200, 429], [200, 429]]


def test_routes_and_blueprints_may_be_added_after_it():
    app = Flask("shop")
    Apigate(app, gateway(methods={"GET /api/pets/{id}": Method(client_throttle="1/minute")}))
    blueprint = Blueprint("api", __name__)

    @blueprint.get("/pets/<int:pet_id>")
    def pet(pet_id):
        return str(context.method)

    app.register_blueprint(blueprint, url_prefix="/api")
    assert ask(app, "GET /api/pets/7").text == "GET /api/pets/{id}"
    assert statuses(app, "GET /api/pets/8") == [429]


@pytest.mark.parametrize("testing", [False, True])
@pytest.mark.parametrize("debug", [False, True])
def test_testing_and_debug_change_nothing(testing, debug):
    app = shop(TESTING=testing)
    app.debug = debug
    scarce = (gate := gateway(client_throttle="10/minute")).throttle("1/minute")(lambda: "scarce")
    app.add_url_rule("/scarce", "scarce", calling(scarce))
    Apigate(app, gate)
    assert statuses(app, "GET /pets", "GET /scarce", "GET /scarce", "GET /pets") == [200, 200, 429, 200]


def test_the_outermost_of_two_gates_of_one_gateway_counts():
    gate = gateway(client_throttle="2/minute")
    app = gated(shop(), gate)
    app.wsgi_app = GatewayMiddleware(app.wsgi_app, gate)
    assert statuses(app, *["GET /pets"] * 3) == [200, 200, 429]


def test_a_proxy_fix_outside_tells_the_gate_who_asks():
    app = gated(shop(), gateway(client_throttle="1/minute"))
    app.wsgi_app = ProxyFix(app.wsgi_app)
    for address in ("192.0.2.1", "192.0.2.2"):
        headers = {"X-Forwarded-For": address}
        assert statuses(app, *["GET /pets"] * 2, headers=headers) == [200, 429]


def test_a_signal_handler_and_teardown_see_each_request_once():
    app, seen = gated(shop(), gateway(client_throttle="2/minute")), []
    app.before_request(lambda: seen.append("before"))
    app.teardown_request(lambda _: seen.append("teardown"))
    assert statuses(app, *["GET /pets"] * 3) == [200, 200, 429]
    assert seen == ["before", "teardown"] * 2  # a refused request costs the app nothing


# ---- the context


def test_the_context_tells_a_view_what_the_gateway_knows():
    app = Flask("shop")

    @app.get("/pets/<int:pet_id>")
    def pet(pet_id):
        left = {level: state.remaining for level, state in context.decision.levels.items()}
        return jsonify(method=context.method, client=context.client, stage=context.stage, left=left, id=pet_id)

    gated(app, gateway(throttle="10/second", client_throttle="5/second"))
    assert ask(app, "GET /pets/7", REMOTE_ADDR="192.0.2.1").get_json() == {
        "method": "GET /pets/{pet_id}",
        "client": "ip:192.0.2.1",
        "stage": "default",
        "left": {"global": 9, "client": 4},
        "id": 7,
    }


@pytest.mark.parametrize("with_gate", [False, True])
def test_without_a_gate_or_with_an_empty_one_the_context_is_empty_and_always_the_same(with_gate):
    app = Flask("shop")

    @app.get("/")
    def root():
        assert context.request_id == context.request_id
        assert context.decision is None
        assert context.request.path == "/"
        return f"{context.client} {context.method} {context.stage}"

    if with_gate:
        gated(app, gateway())
    assert ask(app, "GET /", REMOTE_ADDR="192.0.2.1").text == "ip:192.0.2.1 None (none)"


def test_outside_a_request_the_context_says_that_there_is_none():
    with pytest.raises(RuntimeError, match="outside of request context"):
        _ = context.client


def test_an_async_view_finds_the_context():
    app = Flask("shop")

    @app.get("/")
    async def root():
        return str(context.method)

    assert ask(gated(app, gateway(throttle="1/second")), "GET /").text == "GET /"


# ---- Throttled, on its way through Flask


@pytest.mark.parametrize("per", ["method", "client"])
@pytest.mark.parametrize("outer", [{}, {"client_throttle": "10/minute"}])
def test_a_view_that_calls_a_helper_that_refuses_is_answered_429_and_has_paid_for_its_work(per, outer):
    gate = gateway(**outer)

    @gate.throttle("1/minute", per=per)
    def helper():
        return "helped"

    app = shop()
    app.add_url_rule("/help", "help", calling(helper))
    gated(app, gate)
    admitted, refused = ask(app, "GET /help"), ask(app, "GET /help")
    assert (admitted.status_code, refused.status_code) == (200, 429)
    assert refused.headers["Retry-After"] == "60"
    if outer:
        assert remaining(ask(app, "GET /pets")) == {"client": 7}  # or the view could be made to work without end
    assert gate.stats()["default"]["GET /help"] == {"admitted": 1, "THROTTLED": 1}


@pytest.mark.parametrize("outer", [{}, {"client_throttle": "10/minute"}])
def test_so_is_one_whose_helper_goes_by_its_own_arguments(outer):
    gate = gateway(**outer)
    send = gate.throttle(Rate(3), key=lambda user, n: user, cost=lambda user, n: n)(lambda user, n: f"{n} sent")
    app = shop()
    app.add_url_rule("/send/<user>/<int:n>", "send", calling(send))
    gated(app, gate)
    assert statuses(app, "GET /send/a/2", "GET /send/a/2", "GET /send/b/3") == [200, 429, 200]
    if outer:
        assert remaining(ask(app, "GET /pets")) == {"client": 6}


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_handler_for_throttled_of_the_users_own_answers_in_its_own_words(order):
    gate, app = gateway(client_throttle="10/minute"), shop()
    scarce = gate.throttle("1/minute")(lambda: "scarce")
    app.add_url_rule("/scarce", "scarce", calling(scarce))

    def ours(error):
        return f"come back in {error.retry_after:.0f} s", 429

    if order == "before":
        app.register_error_handler(Throttled, ours)
    gated(app, gate)
    if order == "after":
        app.register_error_handler(Throttled, ours)
    assert ask(app, "GET /scarce").status_code == 200
    refused = ask(app, "GET /scarce")
    assert (refused.status_code, refused.text) == (429, "come back in 60 s")
    assert remaining(ask(app, "GET /pets")) == {"client": 7}


@pytest.mark.parametrize("where", ["app", "blueprint"])
def test_a_handler_for_every_exception_does_not_turn_a_refusal_into_a_500(where):
    gate, app, blueprint = gateway(client_throttle="10/minute"), shop(), Blueprint("api", __name__)
    scarce = gate.throttle("1/minute")(lambda: "scarce")
    blueprint.add_url_rule("/scarce", "scarce", calling(scarce))
    blueprint.add_url_rule("/broken", "broken", lambda: 1 / 0)

    def anything(error):
        return f"sorry: {type(error).__name__}", 500

    (app if where == "app" else blueprint).register_error_handler(Exception, anything)
    app.register_blueprint(blueprint)
    gated(app, gate)
    assert ask(app, "GET /scarce").status_code == 200
    refused = ask(app, "GET /scarce")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
    assert refused.get_json()["violated-policies"] == ["method"]
    assert ask(app, "GET /broken").text == "sorry: ZeroDivisionError"
    assert remaining(ask(app, "GET /pets")) == {"client": 6}


@pytest.mark.parametrize("what", [429, 500, HTTPException])
def test_a_handler_for_http_errors_is_not_asked_about_a_refusal(what):
    """Neither where the gate refuses, as Flask has not begun, nor where a function does."""
    gate, app = gateway(client_throttle="3/minute"), shop()
    scarce = gate.throttle("1/minute")(lambda: "scarce")
    app.add_url_rule("/scarce", "scarce", calling(scarce))
    app.register_error_handler(what, lambda _: ("mine", 418))
    gated(app, gate)
    for path, level in (("/scarce", "method"), ("/pets", "client")):
        assert ask(app, f"GET {path}").status_code == 200
        refused = ask(app, f"GET {path}")
        assert (refused.status_code, refused.json["violated-policies"]) == (429, [level])


@pytest.mark.parametrize("with_gate", [True, False])
def test_a_blueprints_own_handler_for_throttled_answers_for_its_views_alone(with_gate):
    gate, app, api = gateway(), shop(), Blueprint("api", __name__, url_prefix="/api")
    scarce = gate.throttle("1/minute")(lambda: "scarce")
    api.add_url_rule("/scarce", "scarce", calling(scarce))
    api.register_error_handler(Throttled, lambda error: (f"{error.retry_after:.0f}", 420))
    app.register_blueprint(api)
    app.add_url_rule("/scarce", "scarce", calling(scarce))
    if with_gate:
        gated(app, gate)
    assert ask(app, "GET /api/scarce").status_code == 200
    refused = ask(app, "GET /api/scarce")
    assert (refused.status_code, refused.text) == (420, "60")
    assert ask(app, "GET /scarce").status_code == (429 if with_gate else 500)


def test_an_error_of_the_app_stays_the_apps():
    app = gated(shop(), gateway(client_throttle="10/minute"))
    app.add_url_rule("/broken", "broken", lambda: 1 / 0)
    assert ask(app, "GET /broken").status_code == 500
    app.testing = True
    with pytest.raises(ZeroDivisionError):
        ask(app, "GET /broken")


# ---- configuration


def configured(**config):
    app = shop(**config)
    Apigate(app)
    return app


def test_settings_come_from_the_apps_configuration():
    app = configured(
        APIGATE_CLIENT_THROTTLE="2/minute",
        APIGATE_METHODS={"GET /pets": {"client_throttle": "1/minute"}},
        APIGATE_ERROR_FORMAT="amazon",
        APIGATE_CLOCK=FakeClock(),
    )
    assert statuses(app, *["GET /pets"] * 2) == [200, 429]
    assert ask(app, "GET /pets").get_json() == {"message": "Too Many Requests"}


def test_a_configuration_in_python_may_hold_objects():
    app = configured(
        APIGATE_THROTTLE=Rate(100),
        APIGATE_METHODS={"GET /pets": Method(client_throttle=Rate(1, per=60))},
        APIGATE_CLIENT=lambda request: request.headers.get("x-user"),
        APIGATE_CLOCK=FakeClock(),
    )
    assert statuses(app, *["GET /pets"] * 2, headers={"x-user": "a"}) == [200, 429]
    assert statuses(app, "GET /pets", headers={"x-user": "b"}) == [200]


def test_stages_in_the_configuration():
    app = configured(
        APIGATE_STAGES=[Stage("prod"), Stage("beta", client_throttle="1/minute")],
        APIGATE_STAGE="beta",
        APIGATE_CLOCK=FakeClock(),
    )
    assert statuses(app, *["GET /pets"] * 2) == [200, 429]


def test_the_stage_given_in_code_goes_before_the_configured_one():
    app = shop(APIGATE_STAGE="beta")
    gate = gateway(stages=[Stage("prod", client_throttle="1/minute"), Stage("beta")])
    gated(app, gate, stage="prod")
    assert statuses(app, *["GET /pets"] * 2) == [200, 429]


def test_a_file_relative_to_the_apps_root(tmp_path):
    (tmp_path / "gate.toml").write_text('client_throttle = "1/minute"\n')
    app = Flask("shop", root_path=str(tmp_path))
    app.config.update(APIGATE_CONFIG="gate.toml", APIGATE_CLOCK=FakeClock())
    app.add_url_rule("/", "root", lambda: "root")
    Apigate(app)
    assert statuses(app, *["GET /"] * 2) == [200, 429]


def test_settings_from_the_environment(monkeypatch):
    monkeypatch.setenv("FLASK_APIGATE_CLIENT_THROTTLE", "1/minute")
    monkeypatch.setenv("FLASK_APIGATE_ENABLED", "false")
    app = shop()
    app.config.from_prefixed_env()
    Apigate(app)
    assert "apigate" not in app.extensions
    app.config["APIGATE_ENABLED"] = True
    Apigate(app)
    assert app.extensions["apigate"].gateway.stage().settings.client_throttle == (Rate(1, per=60),)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, ["no APIGATE_* key", "APIGATE_CLIENT_THROTTLE"]),
        ({"APIGATE_TROTTLE": "1/minute"}, ["APIGATE_TROTTLE: 'TROTTLE' is no setting", "did you mean 'THROTTLE'?"]),
        (
            {"APIGATE_LIMITS": {}},
            ["APIGATE_LIMITS: 'LIMITS' is no setting; did you mean 'THROTTLE' or 'CLIENT_THROTTLE'?"],
        ),
        ({"APIGATE_X": "red"}, ["APIGATE_X", "is no setting", "THROTTLE", "CONFIG", "ENABLED", "STAGE"]),
        ({"APIGATE_CLIENT_THROTTLE": "often"}, ["APIGATE_CLIENT_THROTTLE:", "'often'"]),
        ({"APIGATE_METHODS": {"GET pets": {}}}, ["APIGATE_METHODS:", "'GET pets' is not a method"]),
        ({"APIGATE_METHODS": {"GET /pets": "1/minute"}}, ["APIGATE_METHODS:", "is not a table"]),
        ({"APIGATE_ERROR_FORMAT": "xml"}, ["APIGATE_ERROR_FORMAT:", "amazon"]),
        ({"APIGATE_ENABLED": "false"}, ["APIGATE_ENABLED: 'false' is not True or False"]),
        ({"APIGATE_THROTTLE": "1/s", "APIGATE_STAGE": "prod"}, ["'prod' is no stage", "default"]),
        ({"APIGATE_CONFIG": "nowhere.toml"}, ["nowhere.toml"]),
        ({"APIGATE_CONFIG": 7}, ["APIGATE_CONFIG: 7 is not the path"]),
        ({"APIGATE_CONFIG": "a.toml", "APIGATE_THROTTLE": "1/s"}, ["APIGATE_THROTTLE:", "APIGATE_CONFIG"]),
    ],
)
def test_a_wrong_configuration_names_the_key_and_what_is_allowed(config, words):
    app = shop(**config)
    with pytest.raises(ConfigurationError) as raised:
        Apigate(app)
    for word in words:
        assert word in str(raised.value)
    assert "apigate" not in app.extensions


def test_a_gateway_and_its_settings_beside_it_is_a_contradiction():
    with pytest.raises(ConfigurationError, match="APIGATE_CLIENT_THROTTLE: a gateway was given"):
        Apigate(shop(APIGATE_CLIENT_THROTTLE="1/minute"), gateway())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda: (gateway(), shop()), "is not a Gateway"),
        (lambda: (shop().wsgi_app, gateway()), "is not a Flask app"),
    ],
)
def test_arguments_that_are_something_else(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        Apigate(*arguments())


def test_init_app_with_something_else():
    with pytest.raises(ConfigurationError, match="is not a Flask app"):
        Apigate(gateway=gateway()).init_app(shop().wsgi_app)


def test_an_app_has_one_gateway():
    app = gated(shop(), gateway())
    with pytest.raises(ConfigurationError, match="has a gateway already"):
        Apigate(app, gateway())


def test_several_stages_and_nothing_that_tells_which():
    with pytest.raises(ConfigurationError, match="stage_by"):
        Apigate(shop(), gateway(stages=[Stage("a"), Stage("b")]))


def test_switched_off_nothing_is_limited_not_even_what_is_decorated(caplog):
    gate, app = gateway(client_throttle="1/minute"), shop(APIGATE_ENABLED=False)

    @app.get("/scarce")
    @gate.throttle("1/minute", per="client")
    def scarce():
        return f"{context.stage} {context.decision}"

    gated(app, gate)
    with caplog.at_level(logging.WARNING, "apigate"):
        assert [ask(app, "GET /scarce").text for _ in range(3)] == ["(none) None"] * 3
    assert statuses(app, *["GET /pets"] * 3) == [200, 200, 200]
    assert caplog.records == []
    assert "apigate" not in app.extensions


# ---- the command line


@pytest.fixture
def cli():
    gate = gateway(throttle="100/second", methods={"POST /pets": Method(client_throttle="2/minute")})
    app = shop()

    @app.get("/pets/<int:pet_id>")
    @gate.throttle("5/second")
    def pet(pet_id):
        return str(pet_id)

    gated(app, gate)
    return app.test_cli_runner()


def test_flask_apigate_routes_lists_the_apps_own_routes(cli):
    result = cli.invoke(args=["apigate", "routes"])
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    assert ["GET", "/pets/{pet_id}", "global", "100/second", "enforce"] in lines
    assert ["method", "5/second", "enforce"] in lines
    assert ["POST", "/pets", "global", "100/second", "enforce"] in lines
    assert any(line[:2] == ["GET", "/static/{filename+}"] for line in lines)


def test_flask_apigate_explain_says_what_would_become_of_a_request(cli):
    result = cli.invoke(args=["apigate", "explain", "GET", "/pets/7", "--address", "192.0.2.1", "-H", "x-a: b"])
    assert result.exit_code == 0
    assert "method  GET /pets/{pet_id}" in result.output
    assert "verdict admitted" in result.output


def test_flask_apigate_explain_is_told_who_asks():
    app = Flask("shop")
    Apigate(app, Gateway(methods={"*": Method(cache={"per": "principal"})}))
    asked = ["apigate", "explain", "GET", "http://localhost/pets"]
    assert "nobody can tell whose" in app.test_cli_runner().invoke(args=asked).output
    assert "keyed as principal" in app.test_cli_runner().invoke(args=[*asked, "--principal", "ada"]).output


def test_flask_apigate_explain_under_a_fixed_stage():
    app = gated(shop(), gateway(stages=[Stage("a"), Stage("b", throttle="1/second")]), stage="b")
    result = app.test_cli_runner().invoke(args=["apigate", "explain", "GET", "/pets"])
    assert (result.exit_code, "stage   b" in result.output) == (0, True)


def test_flask_apigate_explain_does_not_trace_back_over_a_slip(cli):
    for option, said in (("-H", "is not a header"), ("--address", "is not an address")):
        result = cli.invoke(args=["apigate", "explain", "GET", "/pets", option, "nonsense"])
        assert result.exit_code == 1
        assert said in result.output


def test_flask_apigate_explain_takes_a_verb_in_either_letter_case(cli):
    upper, lower = (cli.invoke(args=["apigate", "explain", verb, "/pets/7"]).output for verb in ("GET", "get"))
    assert lower == upper


def test_flask_apigate_lint_exits_with_1_if_there_is_a_finding():
    app = gated(shop(), gateway(throttle="100/second"))
    result = app.test_cli_runner().invoke(args=["apigate", "lint"])
    assert (result.exit_code, "unreadable-refusals" in result.output) == (1, True)
    assert "around flask.app.Flask no CORS layer was found" in result.output


def test_flask_apigate_lint_is_silent_where_all_is_well():
    with_layer = shop()
    with_layer.after_request(lambda response: response)
    gated(with_layer, gateway(throttle="100/second"))
    for app in (with_layer, configured(APIGATE_THROTTLE="100/second", APIGATE_CORS=None)):
        result = app.test_cli_runner().invoke(args=["apigate", "lint"])
        assert (result.exit_code, result.output) == (0, "")


def test_the_gateway_of_an_app_can_be_reached():
    gate = gateway(throttle="1/second")
    app = gated(shop(), gate)
    assert isinstance(gate, Gateway)
    assert app.extensions["apigate"].gateway is gate
