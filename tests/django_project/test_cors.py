"""Refusals to pages of other origins: with the fields of the project's own CORS layer, wherever it stands."""

import pytest
from corsheaders.middleware import CorsMiddleware
from corsheaders.signals import check_request_enabled
from django.http import HttpResponse
from django.urls import path
from django.views import View

from apigate import CORS, Method, Stage
from apigate.asgi import GatewayMiddleware as ASGIGate
from apigate.django.cors import _log_failure
from apigate.staging import PathPrefix
from apigate.wsgi import GatewayMiddleware as WSGIGate
from tests.django_project.asking import ask, gateway, hello, module, project

LAYER = "corsheaders.middleware.CorsMiddleware"
SHOP = {"origin": "https://shop.example"}
ALLOWED = {"CORS_ALLOWED_ORIGINS": ["https://shop.example"], "CORS_EXPOSE_HEADERS": ["Retry-After"]}
COMMON = "django.middleware.common.CommonMiddleware"
PREFLIGHT = {**SHOP, "access-control-request-method": "GET"}


class Derived(CorsMiddleware):
    """A project's own."""

    def add_response_headers(self, request, response):
        super().add_response_headers(request, response)
        response["X-Derived"] = "yes"
        return response


class Broken(CorsMiddleware):
    def add_response_headers(self, request, response):
        if response.status_code == 429:
            raise AttributeError("user")
        return super().add_response_headers(request, response)


@pytest.fixture(autouse=True)
def layers():
    with module("made_layers", Derived=Derived, Broken=Broken, middleware=Derived):
        yield


@pytest.mark.parametrize(
    ("before", "after"),
    [([LAYER], []), ([], [LAYER]), ([LAYER, COMMON], []), ([COMMON], [COMMON, LAYER]), ([], [COMMON, LAYER])],
)
def test_refusals_have_the_fields_of_the_layer(before, after, via):
    with project(via, [path("x", hello)], gateway(throttle="1/minute"), before=before, after=after, **ALLOWED) as app:
        admitted, refused = ask(app, "GET /x", SHOP), ask(app, "GET /x", SHOP)
        assert (admitted.status, refused.status) == (200, 429)
        for name in ("access-control-allow-origin", "access-control-expose-headers", "vary"):
            assert refused.headers[name] == admitted.headers[name]
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        assert "access-control-allow-origin" not in ask(app, "GET /x", {"origin": "https://evil.example"}).headers
        plain = ask(app, "GET /x")
        assert (plain.status, "access-control-allow-origin" in plain.headers) == (429, False)


def test_refusal_of_a_function_further_in_has_them_too(via):
    gate = gateway()

    @gate.throttle("1/minute")
    def work():
        pass

    def view(request):
        work()
        return HttpResponse()

    with project(via, [path("x", view)], gate, after=[LAYER], **ALLOWED) as app:
        answers = [ask(app, "GET /x", SHOP) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 429]
        assert answers[1].headers["access-control-allow-origin"] == "https://shop.example"


def test_layer_that_was_derived(via):
    with project(
        via, [path("x", hello)], gateway(throttle="1/minute"), after=["made_layers.middleware"], **ALLOWED
    ) as app:
        refused = [ask(app, "GET /x", SHOP) for _ in range(2)][1]
        assert (refused.status, refused.headers["x-derived"]) == (429, "yes")


def test_layer_that_fails_on_a_refusal_is_left_out(via, caplog):
    _log_failure.cache_clear()  # it is said once for each kind of error, by the whole process
    with project(via, [path("x", hello)], gateway(throttle="1/minute"), after=["made_layers.Broken"], **ALLOWED) as app:
        _, *refused = [ask(app, "GET /x", SHOP) for _ in range(3)]
        assert [(each.status, "access-control-allow-origin" in each.headers) for each in refused] == [(429, False)] * 2
    said = [record.getMessage() for record in caplog.records if record.name == "apigate"]
    assert said == ["CorsMiddleware raised AttributeError on a refusal, which is sent without its fields"]


def test_rules_of_the_project_hold(via):
    def allowed(sender, request, **_):
        return request.META.get("HTTP_X_SECRET") == "1"

    check_request_enabled.connect(allowed)
    try:
        with project(via, [path("x", hello)], gateway(throttle="1/minute"), after=[LAYER]) as app:
            ask(app, "GET /x")
            refused = ask(app, "GET /x", {"origin": "https://other.example", "x-secret": "1"})
            assert refused.headers["access-control-allow-origin"] == "https://other.example"
    finally:
        check_request_enabled.disconnect(allowed)


def test_paths_of_the_layer_are_those_of_the_project(via):
    gate = gateway(stages=[Stage("prod", throttle="1/minute")], stage_by=PathPrefix())
    with project(via, [path("api/x", hello)], gate, after=[LAYER], CORS_URLS_REGEX=r"^/api/", **ALLOWED) as app:
        answers = [ask(app, "GET /prod/api/x", SHOP) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 429]
        assert answers[1].headers["access-control-allow-origin"] == "https://shop.example"


def test_preflight_takes_from_the_global_level_alone(via):
    gate = gateway(throttle="3/minute", client_throttle="1/minute")
    marked = gate.throttle("1/minute")(hello)
    with project(via, [path("x", marked)], gate, after=[LAYER], **ALLOWED) as app:
        assert [ask(app, "OPTIONS /x", PREFLIGHT).status for _ in range(2)] == [200, 200]
        assert ask(app, "GET /x", SHOP).status == 200
        refused = ask(app, "OPTIONS /x", PREFLIGHT)
        assert refused.status == 429
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"


def test_options_that_is_no_preflight_counts(via):
    gate = gateway()
    marked = gate.throttle("1/minute")(hello)
    with project(via, [path("x", marked)], gate) as app:
        assert [ask(app, "OPTIONS /x").status for _ in range(2)] == [200, 429]
        assert ask(app, "OPTIONS /x", PREFLIGHT).status == 429, "the view is called, so its mark holds"


class Busy(View):
    """One whose `dispatch` works for every verb, whatever it says it serves."""

    http_method_names = ("get",)

    def dispatch(self, request, *args, **kwargs):
        return HttpResponse("worked")


@pytest.mark.parametrize("view", [hello, Busy.as_view()], ids=["function", "class"])
@pytest.mark.parametrize("named", ["* /search/", "*"])
def test_preflight_is_an_ordinary_request_of_the_view_where_there_is_no_layer(named, view, via):
    """Else it would run the view as often as it likes."""
    gate = gateway(methods={named: Method(client_throttle="2/minute")})
    with project(via, [path("search/", view)], gate) as app:
        assert [ask(app, "OPTIONS /search/", PREFLIGHT).status for _ in range(4)] == [200, 200, 429, 429]


def test_preflight_is_an_ordinary_request_to_a_gate_around_the_project(via):
    """It cannot ask the project's layer, nor see whether a view is run after all."""
    gate = gateway(methods={"* /search/": Method(client_throttle="2/minute")})
    with project(via, [path("search/", hello)], None) as app:
        outside = (WSGIGate if via == "wsgi" else ASGIGate)(app, gate)
        outside_of = type("Gated", (), {"is_wsgi": via == "wsgi", "__call__": lambda _, *given: outside(*given)})()
        assert [ask(outside_of, "OPTIONS /search/", PREFLIGHT).status for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("after", [[LAYER], [COMMON, LAYER], ["made_layers.middleware"]])
def test_preflight_is_left_to_the_layer(after, via):
    gate = gateway(throttle="9/minute", methods={"* /search/": Method(client_throttle="1/minute")})
    with project(via, [path("search/", hello)], gate, after=after, **ALLOWED) as app:
        answers = [ask(app, "OPTIONS /search/", PREFLIGHT) for _ in range(4)]
        assert [(answer.status, answer.body, answer.left) for answer in answers] == [
            (200, b"", {"global": left}) for left in (8, 7, 6, 5)
        ]
        assert [ask(app, "GET /search/", SHOP).status for _ in range(2)] == [200, 429]


def test_preflight_that_the_layer_passes_on_is_an_ordinary_request_of_the_view(via):
    gate = gateway(throttle="9/minute", methods={"* /search/": Method(client_throttle="2/minute")})
    with project(via, [path("search/", hello)], gate, after=[LAYER], CORS_URLS_REGEX=r"^/api/", **ALLOWED) as app:
        assert [ask(app, "OPTIONS /search/", PREFLIGHT).status for _ in range(4)] == [200, 200, 429, 429]
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 6, "each was counted once, those refused not at all"


def test_gateways_own_rule_where_there_is_no_layer(via):
    gate = gateway(throttle="1/minute", cors=CORS(allow_origins=["https://shop.example"]))
    with project(via, [path("x", hello)], gate) as app:
        refused = [ask(app, "GET /x", SHOP) for _ in range(2)][1]
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        assert refused.headers["vary"] == "Origin"


def test_lint_finds_the_layer(via):
    for after, found in (([LAYER], set()), ([], {"unreadable-refusals"})):
        gate = gateway(throttle="1/minute")
        with project(via, [path("x", hello)], gate, after=after) as app:
            ask(app, "GET /x")
            assert {finding.check for finding in gate.lint()} == found
