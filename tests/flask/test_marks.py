"""Decorators are marks: found through Flask's route, carried out by the gate in one decision with everything else."""

import inspect
import logging
import typing

import pytest
from flask import Blueprint, Flask, Response, abort, jsonify, request
from flask.views import MethodView, View
from flask_cors import cross_origin
from werkzeug.exceptions import HTTPException

from apigate import ConfigurationError, Method, Rate, Stage, Throttled
from apigate.flask import context
from tests.flask.asking import ask, calling, gated, gateway, remaining, statuses

TWICE = [200, 200, 429]


class MethodOverride:
    """Middleware as tutorials show it: the verb is what a field says."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        environ["REQUEST_METHOD"] = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", environ["REQUEST_METHOD"])
        return self.app(environ, start_response)


# ---- every kind of view; each has `GET /x`, twice a minute


def function(app, limit):
    @app.get("/x")
    @limit
    def x():
        return "x"


def coroutine(app, limit):
    @app.get("/x")
    @limit
    async def x():
        return "x"


def generator(app, limit):
    @app.get("/x")
    @limit
    def x():
        yield "x"


def streaming(app, limit):
    @app.get("/x")
    @limit
    def x():
        return Response(iter(["x", "y"]))


def with_arguments(app, limit):
    @app.get("/<path:rest>")
    @limit
    def x(rest):
        return rest


def blueprint(app, limit):
    api = Blueprint("api", __name__)

    @api.get("/x")
    @limit
    def x():
        return "x"

    app.register_blueprint(api)


def method_of_object(app, limit):
    class Views:
        @limit
        def x(self):
            return "x"

    app.add_url_rule("/x", "x", Views().x)


def dispatch_of_view(app, limit):
    class X(View):
        @limit
        def dispatch_request(self):
            return "x"

    app.add_url_rule("/x", view_func=X.as_view("x"))


def decorators_of_view(app, limit):
    class X(View):
        decorators: typing.ClassVar = [limit]

        def dispatch_request(self):
            return "x"

    app.add_url_rule("/x", view_func=X.as_view("x"))


def one_instance(app, limit):
    class X(View):
        init_every_request = False
        decorators: typing.ClassVar = [limit]

        def dispatch_request(self):
            return "x"

    app.add_url_rule("/x", view_func=X.as_view("x"))


def get_of_method_view(app, limit):
    class X(MethodView):
        @limit
        def get(self):
            return "x"

        def post(self):
            return "posted"

    app.add_url_rule("/x", view_func=X.as_view("x"))


def async_get_of_method_view(app, limit):
    class X(MethodView):
        @limit
        async def get(self):
            return "x"

    app.add_url_rule("/x", view_func=X.as_view("x"))


def inherited_get(app, limit):
    class Base(MethodView):
        @limit
        def get(self):
            return "x"

    class X(Base):
        pass

    app.add_url_rule("/x", view_func=X.as_view("x"))


def decorators_of_method_view(app, limit):
    class X(MethodView):
        decorators: typing.ClassVar = [limit]

        def get(self):
            return "x"

    app.add_url_rule("/x", view_func=X.as_view("x"))


def below_cross_origin(app, limit):
    @app.get("/x")
    @cross_origin()
    @limit
    def x():
        return "x"


def above_cross_origin(app, limit):
    @app.get("/x")
    @limit
    @cross_origin()
    def x():
        return "x"


KINDS = [
    *(function, coroutine, generator, streaming, with_arguments, blueprint, method_of_object),
    *(dispatch_of_view, decorators_of_view, one_instance),
    *(get_of_method_view, async_get_of_method_view, inherited_get, decorators_of_method_view),
    *(below_cross_origin, above_cross_origin),
]


@pytest.mark.parametrize("per", ["method", "client", lambda request: request.headers.get("x-user", "")])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_view_is_limited_by_the_gate(kind, per, caplog):
    app, gate = Flask("shop"), gateway(throttle="10/minute")
    kind(app, gate.throttle("2/minute", per=per))
    gated(app, gate)
    app.before_request(lambda: reached.append(1))
    reached = []
    with caplog.at_level(logging.WARNING, "apigate"):
        assert statuses(app, *["GET /x"] * 3) == TWICE
    assert len(reached) == 2  # refused before Flask began
    assert caplog.records == []
    assert gate.explain("GET", "/").levels[0].remaining == 7  # one request counts once, a refused one not at all


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_gate_every_kind_of_view_limits_itself_and_warns_once(kind, caplog):
    app, gate = Flask("shop"), gateway(throttle="10/minute")
    kind(app, gate.throttle("2/minute"))
    with caplog.at_level(logging.WARNING, "apigate"):
        assert statuses(app, *["GET /x"] * 3) == TWICE
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no gate of its gateway stands around the app" in caplog.text
    assert gate.explain("GET", "/").levels[0].remaining == 7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["inside", "outside"])
def test_middleware_that_rewrites_the_verb_is_no_way_around(kind, where, caplog):
    app, gate = Flask("shop"), gateway(throttle="100/minute")
    kind(app, gate.throttle("2/minute"))
    if where == "inside":
        app.wsgi_app = MethodOverride(app.wsgi_app)
    gated(app, gate)
    if where == "outside":
        app.wsgi_app = MethodOverride(app.wsgi_app)
    with caplog.at_level(logging.WARNING, "apigate"):
        assert statuses(app, *["POST /x"] * 3, headers={"X-HTTP-Method-Override": "GET"}) == TWICE
    assert len(caplog.records) == (where == "inside")
    if where == "inside":
        assert "the gate cannot see the app's routes" in caplog.text
    assert gate.explain("GET", "/").levels[0].remaining == 97  # and given back where the endpoint refused


def test_the_methods_of_a_view_have_limits_of_their_own():
    gate = gateway()

    class X(MethodView):
        @gate.throttle("1/minute")
        def get(self):
            return "got"

        @gate.throttle("2/minute")
        def post(self):
            return "posted"

        def put(self):
            return "put"

    app = Flask("shop")
    app.add_url_rule("/x", view_func=X.as_view("x"))
    gated(app, gate)
    assert statuses(app, *["GET /x", "HEAD /x"], *["POST /x"] * 3, *["PUT /x"] * 3) == [200, 429, *TWICE, 200, 200, 200]


def test_a_view_that_is_no_method_view_may_have_a_helper_called_get():
    gate = gateway()

    class X(View):
        @gate.throttle("1/minute")
        def get(self):
            return "got"

        def dispatch_request(self):
            return "x" if "lean" in request.args else self.get()

    app = Flask("shop")
    app.add_url_rule("/x", view_func=X.as_view("x"))
    gated(app, gate)
    assert statuses(app, *["GET /x?lean"] * 3, "GET /x", "GET /x") == [200, 200, 200, 200, 429]


def test_a_view_of_several_rules_has_one_bucket():
    app, gate = Flask("shop"), gateway()
    view = gate.throttle("2/minute")(lambda **_: "x")
    app.add_url_rule("/a", "a", view)
    app.add_url_rule("/b/<int:n>", "b", view)
    gated(app, gate)
    assert statuses(app, "GET /a", "GET /b/1", "GET /b/2", "GET /a") == [200, 200, 429, 429]


# ---- stacked, with the table, with others


def passing(view):
    """A decorator of somebody else's."""
    from functools import wraps

    @wraps(view)
    def passed(*args, **kwargs):
        return view(*args, **kwargs)

    return passed


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
@pytest.mark.parametrize("with_gate", [True, False])
def test_stacked_in_any_order_all_are_asked_in_one_decision(order, with_gate):
    app, gate = Flask("shop"), gateway(throttle="100/minute")
    decorators = [gate.throttle("3/minute"), gate.throttle("2/minute", per="client"), passing]

    def view():
        return "x"

    for place in order:
        view = decorators[place](view)
    app.add_url_rule("/x", "x", view)
    app.add_url_rule("/y", "y", lambda: "y")
    if with_gate:
        gated(app, gate)
    a, b = {"REMOTE_ADDR": "192.0.2.1"}, {"REMOTE_ADDR": "192.0.2.2"}
    assert [ask(app, "GET /x", **who).status_code for who in (a, a, a, b, b)] == [200, 200, 429, 200, 429]
    assert gate.explain("GET", "/z").levels[0].remaining == 96  # three took, and `explain` counts its own
    if with_gate:
        assert remaining(ask(app, "GET /y")) == {"global": 96}


def test_with_the_method_table_all_levels_are_one_decision():
    app = Flask("shop")
    gate = gateway(throttle="100/minute", methods={"GET /x/{id}": Method(client_throttle="5/minute")})

    @app.get("/x/<int:n>")
    @gate.throttle("1/minute")
    def x(n):
        return jsonify({name: state.remaining for name, state in context.decision.levels.items()})

    gated(app, gate)
    assert ask(app, "GET /x/1").get_json() == {"global": 99, "client-method": 4, "method": 0}
    refused = ask(app, "GET /x/2")
    assert (refused.status_code, refused.get_json()["violated-policies"]) == (429, ["method"])
    levels = {state.policy: state.remaining for state in gate.explain("GET", "/x/3").levels}
    assert (levels["global"], levels["client-method"]) == (99, 4)  # the refused one took nothing


def test_a_second_call_of_a_view_within_the_request_takes_again():
    app, gate = Flask("shop"), gateway()

    @app.get("/x")
    @gate.throttle("3/minute")
    def x():
        return "x"

    app.add_url_rule("/twice", "twice", lambda: x() + x())
    app.add_url_rule("/again", "again", calling(x))
    gated(app, gate)
    assert statuses(app, "GET /twice", "GET /x", "GET /x", "GET /again") == [200, 200, 429, 429]


def test_a_stage_that_exempts_the_method_exempts_its_marks():
    app = Flask("shop")
    gate = gateway(methods={"GET /x": Method(exempt=True)})
    function(app, gate.throttle("1/minute"))
    assert statuses(gated(app, gate), *["GET /x"] * 3) == [200, 200, 200]


def test_a_request_that_a_rule_exempts_takes_nothing_from_helpers_either():
    app = Flask("shop")
    gate = gateway(throttle="1/minute", exempt=lambda request: request.headers.get("x-probe") == "1")
    helper = gate.throttle("1/minute")(lambda: "helped")
    app.add_url_rule("/x", "x", calling(helper))
    gated(app, gate)
    assert statuses(app, *["GET /x"] * 3, headers={"x-probe": "1"}) == [200, 200, 200]
    assert statuses(app, *["GET /x"] * 2) == [200, 429]


def test_one_gateway_at_two_stages():
    gate = gateway(stages=[Stage("a", throttle="9/minute"), Stage("b", throttle="9/minute")])
    apps = []
    limit = gate.throttle("2/minute")
    view = limit(lambda: "x")
    for stage in ("a", "b"):
        app = Flask(stage)
        app.add_url_rule("/x", "x", view)
        apps.append(gated(app, gate, stage=stage))
    assert [*statuses(apps[0], "GET /x"), *statuses(apps[1], "GET /x"), *statuses(apps[0], "GET /x")] == TWICE


@pytest.mark.parametrize("cost", [3, lambda request: int(request.headers.get("x-cost", 1))])
def test_a_cost(cost):
    app, gate = Flask("shop"), gateway()
    function(app, gate.throttle("5/minute", cost=cost))
    gated(app, gate)
    assert statuses(app, *["GET /x"] * 2, headers={"x-cost": "3"}) == [200, 429]


# ---- preflights at decorated views


PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}


def test_a_preflight_that_cross_origin_answers_takes_nothing_from_the_view_below():
    app, gate = Flask("shop"), gateway()
    below_cross_origin(app, gate.throttle("1/minute"))
    gated(app, gate)
    assert statuses(app, *["OPTIONS /x"] * 3, headers=PREFLIGHT) == [200, 200, 200]
    assert statuses(app, "GET /x", "GET /x") == [200, 429]


def test_a_preflight_that_reaches_the_decorated_view_is_limited():
    app, gate = Flask("shop"), gateway()
    above_cross_origin(app, gate.throttle("1/minute"))
    gated(app, gate)
    assert statuses(app, *["OPTIONS /x"] * 2, headers=PREFLIGHT) == [200, 429]


@pytest.mark.parametrize("headers", [{}, PREFLIGHT])
def test_an_options_that_flask_answers_takes_nothing_from_the_view(headers):
    app, gate = Flask("shop"), gateway()
    function(app, gate.throttle("1/minute"))
    gated(app, gate)
    assert statuses(app, *["OPTIONS /x", "options /x"] * 2, headers=headers) == [200] * 4
    assert statuses(app, "GET /x", "GET /x") == [200, 429]


# ---- without a gate


def test_who_asks_and_what_it_costs_need_a_request_and_a_call_outside_of_one_says_so():
    gate = gateway()
    helper = gate.throttle("1/minute", per="client")(lambda: "helped")
    with pytest.raises(ConfigurationError, match=r"Flask: Apigate\(app, gateway\)"):
        helper()


def test_a_helper_without_a_gate_that_needs_the_request_names_the_missing_line():
    app, gate = Flask("shop"), gateway()
    helper = gate.throttle("1/minute", per="client")(lambda: "helped")
    app.add_url_rule("/x", "x", calling(helper))
    app.testing = True
    with pytest.raises(ConfigurationError, match=r"Flask: Apigate\(app, gateway\)"):
        ask(app, "GET /x")


def test_the_gate_of_another_gateway_is_told_from_none(caplog):
    app, gate = Flask("shop"), gateway()
    app.get("/x")(gate.throttle("1/minute")(lambda: "x"))
    gated(app, gateway(client_throttle="9/minute"))
    with caplog.at_level(logging.WARNING, "apigate"):
        assert statuses(app, "GET /x", "GET /x") == [200, 429]
    assert caplog.text.endswith("no gate of its gateway stands around the app\n")


def test_outside_of_any_request_a_view_is_a_function_that_throttles_itself():
    gate = gateway()
    view = gate.throttle("1/minute")(lambda: "x")
    assert view() == "x"
    with pytest.raises(Throttled) as raised:
        view()
    assert raised.value.retry_after == 60


FAILED_LOGINS = {
    "tuple": lambda: ("no", 401),
    "status line": lambda: ("no", "401 NO"),
    "with fields": lambda: ("no", 401, {}),
    "response": lambda: Response("no", 401),
}


@pytest.mark.parametrize("outcome", [*FAILED_LOGINS, "abort", "abort with response"])
@pytest.mark.parametrize("with_gate", [True, False])
def test_a_failed_login_is_told_from_a_good_one_with_and_without_a_gate(outcome, with_gate):
    """`refund` by the status: a tuple's 401, or that of `abort`, is not a 200."""
    app = Flask("shop")
    gate = gateway(methods={"POST /login": Method(client_throttle="2/minute", refund="2xx")})

    @app.post("/login")
    @gate.throttle("100/minute")
    def login():
        if request.args["password"] == "right":
            return ("welcome", {"x-a": "b"})
        if outcome.startswith("abort"):
            abort(Response("no", 401) if outcome == "abort with response" else 401)
        return FAILED_LOGINS[outcome]()

    if with_gate:
        gated(app, gate)
    assert statuses(app, *["POST /login?password=right"] * 5) == [200] * 5
    assert statuses(app, *["POST /login?password=wrong"] * 3) == [401, 401, 429]


def test_an_error_of_a_view_without_a_gate_stays_the_views():
    app, gate = Flask("shop"), gateway()
    app.add_url_rule("/x", "x", gate.throttle("1/minute")(lambda: 1 / 0))
    assert statuses(app, "GET /x", "GET /x") == [500, 429]


# ---- what is decorated stays what it was


def annotated(pet: int, *, kind: "str" = "cat") -> Response:
    """Its docstring."""


async def annotated_async(pet: int, *, kind: "str" = "cat") -> Response:
    """Its docstring."""


async def annotated_generator(pet: int, *, kind: "str" = "cat") -> Response:
    """Its docstring."""
    yield


def annotated_sync_generator(pet: int, *, kind: "str" = "cat") -> Response:
    """Its docstring."""
    yield


@pytest.mark.parametrize("view", [annotated, annotated_async, annotated_generator, annotated_sync_generator])
@pytest.mark.parametrize("arguments", [{"per": "client"}, {"key": lambda pet, kind: pet}])
def test_a_decorated_function_keeps_everything(view, arguments):
    decorated = gateway().throttle(Rate(1), **arguments)(view)
    assert inspect.signature(decorated) == inspect.signature(view)
    assert typing.get_type_hints(decorated) == typing.get_type_hints(view)
    assert decorated.__annotations__ == view.__annotations__
    assert decorated.__doc__ == "Its docstring."
    assert (decorated.__name__, decorated.__qualname__) == (view.__name__, view.__qualname__)
    assert decorated.__module__ == view.__module__
    assert decorated.__defaults__ == view.__defaults__
    assert decorated.__wrapped__ is view
    for question in (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction):
        assert question(decorated) is question(view)


def test_an_http_exception_of_a_view_passes_through_unchanged():
    gate = gateway()

    @gate.throttle("2/minute")
    def view():
        abort(418)

    with pytest.raises(HTTPException) as raised:
        view()
    assert raised.value.code == 418
