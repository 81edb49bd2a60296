"""The cache around a Flask app, and by a decorator: with a gate around the app, with a blind one, and with none."""

import time
from types import MappingProxyType

import pytest
from flask import Blueprint, Flask, Response, abort, g, redirect, request, send_file, session
from flask.views import MethodView

from apigate import CachePolicy, ConfigurationError, Gateway, Method, ResponseCache
from apigate.core.policy import Phase
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware
from tests.flask.asking import ask, calling, gated, gateway, remaining, statuses

FRESH = MappingProxyType({"Cache-Control": "max-age=60"})
GATES = ["gate", "blind gate", "no gate"]


def put_around(app, gate, how):
    """The app with its gate, with one that cannot see its routes, or with none."""
    if how == "gate":
        gated(app, gate)
    elif how == "blind gate":
        app.wsgi_app = GatewayMiddleware(calling(app.wsgi_app), gate)
    return app


class Calls:
    """What a view answers: how often it was run."""

    def __init__(self, fields=FRESH):
        self.number = 0
        self.fields = fields

    def __call__(self, **_):
        self.number += 1
        return f"call {self.number}", dict(self.fields)


def app_with(view, rule="/x", **options):
    app = Flask(__name__)
    app.secret_key = "not a secret"
    app.add_url_rule(rule, "x", view, **options)
    return app


def cached(**settings):
    return gateway(**{"cache": ResponseCache(), **settings})


def bodies(app, *requests, headers=None):
    return [ask(app, request, headers).text for request in requests]


class ByToken:
    """An authorizer: the principal is what the token says."""

    phase = Phase.AUTHORIZE

    def on_request(self, context):
        context.principal = context.request.value("x-token")


# ---- whose it is, where the view reads Authorization


def counting():
    """A view that says how often it was run."""
    calls = Calls({})

    def view():
        return calls()

    return view


@pytest.mark.parametrize("how", GATES)
def test_a_decorated_view_has_a_copy_for_each_credential_that_the_key_names(how):
    gate = cached()
    app = app_with(gate.cache(ttl=60, key={"headers": ["Authorization"]})(counting()))
    put_around(app, gate, how)
    asked = ["Bearer a", "Bearer b", None, "Bearer a", "Bearer b", None]
    told = [bodies(app, "GET /x", headers={"Authorization": each} if each else {}) for each in asked]
    assert told == [["call 1"], ["call 2"], ["call 3"]] * 2


@pytest.mark.parametrize("how", GATES)
def test_a_decorated_view_that_is_public_keeps_nothing_of_a_credential_that_no_gate_has_verified(how):
    for verifies in (False, True):
        gate = cached(policies=[ByToken()] if verifies else [])
        app = put_around(app_with(gate.cache(ttl=60, per="public")(counting())), gate, how)
        headers = {"Authorization": "Bearer a", "X-Token": "alice"}
        told = [bodies(app, "GET /x", headers=headers) for _ in range(2)]
        assert told == [["call 1"], ["call 1" if verifies else "call 2"]]


# ---- by the settings of a stage


def test_a_hit_is_answered_without_the_view():
    view = Calls()
    app = gated(app_with(view), cached())
    miss, hit = ask(app, "GET /x"), ask(app, "GET /x")
    assert (miss.text, hit.text, view.number) == ("call 1", "call 1", 1)
    assert "fwd=uri-miss; stored" in miss.headers["Cache-Status"]
    assert "hit" in hit.headers["Cache-Status"]
    assert hit.headers["Age"] == "0"
    assert hit.mimetype == "text/html"


def test_neither_before_nor_after_request_functions_run_on_a_hit():
    runs = []
    app = app_with(Calls())
    app.before_request(lambda: runs.append("before"))
    app.after_request(lambda response: (runs.append("after"), response)[1])
    gated(app, cached())
    statuses(app, "GET /x", "GET /x")
    assert runs == ["before", "after"]


def test_head_conditions_and_parts_are_answered_from_what_is_stored():
    view = Calls({**FRESH, "ETag": '"one"'})
    app = gated(app_with(view), cached())
    ask(app, "GET /x")
    assert ask(app, "HEAD /x").headers["Content-Length"] == "6"
    assert ask(app, "GET /x", {"If-None-Match": '"one"'}).status_code == 304
    assert ask(app, "GET /x", {"Range": "bytes=5-"}).text == "1"
    assert view.number == 1


def test_variants_and_queries_are_told_apart():
    app = gated(app_with(Calls({**FRESH, "Vary": "Accept"})), cached())
    assert bodies(app, "GET /x", "GET /x?a=1", "GET /x") == ["call 1", "call 2", "call 1"]
    assert bodies(app, "GET /x", headers={"Accept": "text/csv"}) == ["call 3"]


def test_a_cookie_that_is_set_is_not_stored():
    def view():
        response = Response("x", headers=dict(FRESH))
        response.set_cookie("id", "of alice")
        return response

    app = gated(app_with(view), cached())
    assert all(ask(app, "GET /x").headers["Set-Cookie"] for _ in range(2))
    assert "hit" not in ask(app, "GET /x").headers["Cache-Status"]


def test_each_principal_has_its_own():
    gate = cached(policies=[ByToken()], methods={"GET /x": Method(cache=CachePolicy(ttl=60))})
    app = gated(app_with(Calls({})), gate)
    for token, body in (("alice", "call 1"), ("bob", "call 2"), ("alice", "call 1")):
        assert bodies(app, "GET /x", headers={"X-Token": token}) == [body]


def test_an_unsafe_method_and_operators_invalidate():
    view = Calls()
    app = app_with(view)
    app.add_url_rule("/x", "change", lambda: redirect("/other"), methods=["DELETE"])
    gate = (
        gated(app, cached(methods={"GET /x": Method(cache=CachePolicy(tags=["pets"]))})).extensions["apigate"].gateway
    )
    assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 1"]
    ask(app, "DELETE /x")
    assert bodies(app, "GET /x") == ["call 2"]
    gate.stage().cache.invalidate(tag="pets")
    assert bodies(app, "GET /x") == ["call 3"]
    gate.stage().cache.flush()
    assert bodies(app, "GET /x") == ["call 4"]


def test_rate_limit_fields_are_of_this_request_and_never_stored():
    app = gated(app_with(Calls()), cached(client_throttle="3/minute"))
    answers = [ask(app, "GET /x") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [remaining(answer)["client"] for answer in answers[:3]] == [2, 1, 0]


def test_a_stale_response_is_served_while_a_thread_asks_anew():
    clock = FakeClock()
    view = Calls({})
    policy = CachePolicy(ttl=60, stale_while_revalidate=60)
    app = gated(app_with(view), cached(clock=clock, methods={"GET /x": Method(cache=policy)}))
    ask(app, "GET /x")
    clock.advance(70)
    assert ask(app, "GET /x").headers["Age"] == "70"
    deadline = time.monotonic() + 20
    while ask(app, "GET /x").text != "call 2":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert view.number == 2


# ---- by a decorator


def function(app, cache, view):
    @app.get("/x")
    @cache
    def x():
        return view()


def coroutine(app, cache, view):
    @app.get("/x")
    @cache
    async def x():
        return view()


def blueprint(app, cache, view):
    api = Blueprint("api", __name__)

    @api.get("/x")
    @cache
    def x():
        return view()

    app.register_blueprint(api)


def method_view(app, cache, view):
    class Page(MethodView):
        @cache
        def get(self):
            return view()

    app.add_url_rule("/x", view_func=Page.as_view("x"))


def class_decorators(app, cache, view):
    class Page(MethodView):
        decorators = [cache]  # noqa: RUF012 - as Flask documents it

        def get(self):
            return view()

    app.add_url_rule("/x", view_func=Page.as_view("x"))


KINDS = [function, coroutine, blueprint, method_view, class_decorators]


@pytest.mark.parametrize("how", GATES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_decorated_view_of_any_kind_is_cached(kind, how):
    gate, view, app = gateway(), Calls({}), Flask(__name__)
    kind(app, gate.cache(ttl=60), view)
    put_around(app, gate, how)
    miss, hit = ask(app, "GET /x"), ask(app, "GET /x")
    assert (miss.text, hit.text, view.number) == ("call 1", "call 1", 1)
    assert "hit" in hit.headers["Cache-Status"]


@pytest.mark.parametrize("how", GATES)
def test_path_parameters_tell_responses_apart(how):
    gate, app, runs = gateway(), Flask(__name__), []

    @app.get("/pets/<int:pk>")
    @gate.cache(ttl=60)
    def pet(pk):
        runs.append(pk)
        return {"pet": pk}

    put_around(app, gate, how)
    assert [ask(app, f"GET /pets/{pk}").json["pet"] for pk in (1, 2, 1)] == [1, 2, 1]
    assert runs == [1, 2]
    gate.stage().cache.invalidate(method="GET /pets/{pk}")
    assert ask(app, "GET /pets/1").json == {"pet": 1}
    assert runs == [1, 2, 1]


@pytest.mark.parametrize("how", ["gate", "no gate"])
@pytest.mark.parametrize("order", ["cache outside", "throttle outside"])
def test_stacked_with_a_throttle_in_any_order_hits_are_counted_too(order, how):
    gate, view = gateway(), Calls({})
    limit, cache = gate.throttle("3/minute"), gate.cache(ttl=60)

    def page():
        return view()

    decorated = cache(limit(page)) if order == "cache outside" else limit(cache(page))
    app = put_around(app_with(decorated), gate, how)
    assert statuses(app, *["GET /x"] * 4) == [200, 200, 200, 429]
    assert view.number == 1


def test_a_view_without_a_gate_is_asked_whether_it_has_changed():
    clock = FakeClock()
    gate, asked = gateway(clock=clock), []

    @gate.cache(ttl=60)
    def view():
        asked.append((request.if_none_match.to_header(), request.headers.get("If-Modified-Since")))
        response = Response("x", headers={"ETag": '"one"'})
        return response.make_conditional(request)

    app = app_with(view)
    assert ask(app, "GET /x").status_code == 200
    assert ask(app, "GET /x", {"If-None-Match": '"one"'}).status_code == 304
    clock.advance(61)
    headers = {"If-None-Match": '"mine"', "If-Modified-Since": "Mon, 01 Jan 2024 00:00:00 GMT"}
    answer = ask(app, "GET /x", headers)
    assert (answer.status_code, answer.text) == (200, "x")
    assert asked == [("", None), ('"one"', None)]


def test_under_the_gate_of_another_gateway_a_view_asks_its_own_gateway_s_cache():
    app, own, other = Flask("shop"), gateway(), gateway(methods={"GET /else": Method(cache=60)})
    app.get("/x")(own.cache(ttl=60)(lambda: "x"))
    gated(app, other)
    miss, hit = (ask(app, "GET /x").headers["cache-status"] for _ in range(2))
    assert "stored" in miss
    assert "hit" in hit
    assert [gate.stage().cache.stats()["entries"] for gate in (own, other)] == [1, 0]


def test_without_a_gate_what_flask_adds_is_added_to_each_response_anew():
    gate = gateway()
    app = app_with(gate.cache(ttl=60)(Calls({})))
    numbers = iter(range(10))
    app.after_request(lambda response: (response.headers.set("X-Number", str(next(numbers))), response)[1])
    assert [ask(app, "GET /x").headers["X-Number"] for _ in range(2)] == ["0", "1"]


def test_without_a_gate_a_session_that_was_read_tells_responses_apart():
    gate, view = gateway(), Calls()

    @gate.cache()
    def whose():
        session.get("user")
        return view()

    client = app_with(whose).test_client(use_cookies=False)
    cookies = ("a=1", "a=2", "a=1")
    assert [client.get("/x", headers={"Cookie": c}).text for c in cookies] == ["call 1", "call 2", "call 1"]


def test_without_a_gate_a_session_that_no_view_read_changes_nothing():
    gate = gateway()
    app = app_with(gate.cache(ttl=60)(Calls({})))
    assert "Vary" not in ask(app, "GET /x").headers
    assert bodies(app, "GET /x") == ["call 1"]


def test_without_a_gate_a_page_that_writes_the_session_is_not_stored():
    gate, view = gateway(), Calls({})

    @gate.cache(ttl=60)
    def page():
        session["user"] = view.number
        return view()

    app = app_with(page)
    assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 2"]


def test_without_a_gate_before_request_functions_come_first():
    gate = gateway()
    app = app_with(gate.cache(ttl=60)(Calls({})))

    @app.before_request
    def allow():
        g.user = request.headers.get("X-User")
        if g.user is None:
            abort(401)

    assert statuses(app, "GET /x", headers={"X-User": "alice"}) == [200]
    assert statuses(app, "GET /x") == [401]


def test_without_a_gate_a_stream_is_kept_as_it_passes_and_a_broken_one_is_not():
    gate, runs = gateway(), []

    @gate.cache(ttl=60)
    def numbers():
        runs.append(1)

        def chunks():
            yield "1"
            if len(runs) == 1:
                raise OSError("the disk is gone")
            yield "2"

        return Response(chunks())

    app = app_with(numbers)
    with pytest.raises(OSError, match="disk"):
        bodies(app, "GET /x")
    assert bodies(app, "GET /x", "GET /x") == ["12", "12"]
    assert len(runs) == 2


def test_without_a_gate_a_file_is_left_to_the_server(tmp_path):
    gate, runs = gateway(), []
    file = tmp_path / "x.txt"
    file.write_text("file")

    @gate.cache(ttl=60)
    def view():
        runs.append(1)
        return send_file(file)

    app = app_with(view)
    for _ in range(2):
        with ask(app, "GET /x") as answer:
            assert answer.text == "file"
    assert len(runs) == 2


def test_without_a_gate_a_stale_response_is_served_when_the_view_raises_and_not_when_it_aborts():
    clock = FakeClock()
    gate = gateway(clock=clock)
    errors = [None, RuntimeError("no"), 404]

    @gate.cache(ttl=60, stale_if_error=600)
    def view():
        error = errors.pop(0)
        if isinstance(error, int):
            abort(error)
        if error is not None:
            raise error
        return "fine"

    app = app_with(view)
    found = []
    for _ in range(3):
        answer = ask(app, "GET /x")
        found.append((answer.status_code, answer.headers.get("Age")))
        clock.advance(90)
    assert found == [(200, None), (200, "90"), (404, None)]


def test_without_a_gate_what_may_be_refreshed_is_refreshed_at_once():
    clock = FakeClock()
    gate = gateway(clock=clock)
    app = app_with(gate.cache(ttl=60, stale_while_revalidate=60)(Calls({})))
    ask(app, "GET /x")
    clock.advance(70)
    assert bodies(app, "GET /x", "GET /x") == ["call 2", "call 2"]


def test_without_a_gate_post_may_be_keyed_by_its_content():
    gate, runs = gateway(), []

    @gate.cache(ttl=60, methods=["POST"])
    def view():
        runs.append(1)
        return request.get_data(as_text=True)

    app = app_with(view, methods=["POST"])
    client = app.test_client()
    assert [client.post("/x", data=data).text for data in ("a", "b", "a")] == ["a", "b", "a"]
    assert len(runs) == 2


def test_with_a_gate_post_may_be_keyed_by_its_content():
    gate, runs = gateway(), []

    @gate.cache(ttl=60, methods=["POST"])
    def view():
        runs.append(1)
        return request.get_data(as_text=True)

    client = gated(app_with(view, methods=["POST"]), gate).test_client()
    assert [client.post("/x", data=data).text for data in ("a", "b", "a")] == ["a", "b", "a"]
    assert len(runs) == 2


@pytest.mark.parametrize("how", GATES)
def test_an_unsafe_method_of_the_same_view_invalidates(how):
    gate, view, app = gateway(), Calls({}), Flask(__name__)

    class Pets(MethodView):
        decorators = [gate.cache(ttl=60)]  # noqa: RUF012 - as Flask documents it

        def get(self):
            return view()

        def post(self):
            return "", 201

    app.add_url_rule("/x", view_func=Pets.as_view("x"))
    put_around(app, gate, how)
    assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 1"]
    assert ask(app, "POST /x").status_code == 201
    assert bodies(app, "GET /x") == ["call 2"]


def test_a_view_that_another_view_calls_is_simply_called():
    gate, inner = gateway(), Calls({})
    page = gate.cache(ttl=60)(inner)

    def outer():
        return page()

    app = gated(app_with(outer), gate)
    assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 2"]


def test_outside_of_any_request_a_decorated_view_is_simply_called():
    page = gateway().cache(ttl=60)(lambda: "x")
    assert page() == "x"


def test_a_stage_without_a_cache_caches_nothing():
    gate = gateway(cache=None)
    app = gated(app_with(gate.cache(ttl=60)(Calls({}))), gate)
    assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 2"]


def test_a_disabled_gateway_caches_nothing():
    gate = gateway()
    app = app_with(gate.cache(ttl=60)(Calls({})))
    app.config["APIGATE_ENABLED"] = False
    gated(app, gate)
    assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 2"]


def test_an_app_and_a_blueprint_are_not_decorated_as_a_whole():
    with pytest.raises(ConfigurationError, match="give a policy or its settings"):
        Gateway().cache(CachePolicy(), ttl=1)
    with pytest.raises(ConfigurationError, match="cache ttl"):
        Gateway().cache(ttl=-1)


def test_the_listing_names_the_cache():
    gate = gateway()
    app = gated(app_with(gate.cache(ttl=60)(Calls({}))), gate)
    lines = app.test_cli_runner().invoke(args=["apigate", "routes"]).output
    assert "cache" in lines
    assert "60" in lines


def test_a_view_that_is_its_own_gate_is_not_asked_by_head_for_what_is_stored_for_get():
    gate = gateway()
    app = Flask("shop")

    @app.get("/")
    @gate.cache(ttl=60, stale_while_revalidate=600)
    def page():
        return "" if request.method == "HEAD" else "page"

    client = app.test_client()
    assert client.get("/").text == "page"
    gate.clock.advance(61)
    assert client.head("/").status_code == 200
    assert client.get("/").text == "page"
