"""The gate knows the view before Django calls it, by Django's own resolver."""

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.http import HttpResponse
from django.test import override_settings
from django.urls import get_resolver, include, path, re_path, register_converter, resolve, reverse
from django.utils.translation import gettext_lazy
from django.views import View
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.viewsets import ViewSet

from apigate import Gateway, Method, Stage
from apigate.core.native import wsgi_request
from apigate.routing.django import DjangoRouting, _project
from apigate.staging import PathPrefix
from tests.django_project.asking import (
    ahello,
    ask,
    changing,
    counted,
    gateway,
    hello,
    module,
    project,
    statuses,
    urlconf,
)


class Page(View):
    def get(self, request, **_):
        return HttpResponse()

    def post(self, request, **_):
        return HttpResponse()


class Things(ViewSet):
    def list(self, request):
        return Response([])

    def retrieve(self, request, pk):
        return Response(pk)


class Grumpy:
    """A converter that raises what no converter should."""

    regex = "[^/]+"

    def to_python(self, value):
        if value == "no":
            raise ValueError(value)
        if value == "boom":
            raise RuntimeError(value)
        return value

    def to_url(self, value):
        return value


class Deep(Grumpy):
    regex = "[a-z/]+"


class Fickle(Grumpy):
    """One whose answer changes, as that of a look into a database."""

    known: frozenset[str] = frozenset()

    def to_python(self, value):
        if value not in self.known:
            raise ValueError(value)
        return value


register_converter(Grumpy, "grumpy")
register_converter(Deep, "deep")
register_converter(Fickle, "fickle")

router = DefaultRouter()
router.register("things", Things, basename="thing")

PATTERNS = [
    path("", hello),
    path("pets/", hello),
    path("pets/<int:pk>", hello),
    path("pets/<int:pk>/owners/<slug:name>/", hello),
    path("files/<path:name>", hello),
    path("plain/<word>", ahello),
    path("shop/", include(([path("carts/<uuid:pk>", hello, name="cart"), path("carts", Page.as_view())], "shop"))),
    re_path(r"^legacy/(?P<pk>[0-9]+)/$", hello),
    re_path(r"^(\w+)/by/(\w+)/?$", hello),
    re_path(r"(?i)^loud/(?P<pk>\w+)$", hello),
    re_path(r"^(?i:scoped)/(?P<pk>\w+)$", hello),
    re_path(r"^(?:v1/)?maybe/(?P<pk>[^/]+)$", hello),
    re_path(r"^(?:cats|dogs)/list$", hello),
    re_path(r"^nested/(?P<kind>(a|b)+)/", include([path("<int:pk>", hello), re_path(r"^x\.(?P<f>json|xml)$", hello)])),
    path("price$/(a)", hello),
    path("grumpy/<grumpy:word>", hello),
    path("deep/<deep:name>/", hello),
    path("api/", include(router.urls)),
]


@pytest.mark.parametrize(
    ("request_line", "method"),
    [
        ("GET /", "GET /"),
        ("HEAD /pets/", "GET /pets/"),
        ("POST /pets/7", "POST /pets/{pk}"),
        ("BREW /pets/7", "* /pets/{pk}"),
        ("GET /pets/7/owners/a-b/", "GET /pets/{pk}/owners/{name}/"),
        ("GET /files/a/b/c", "GET /files/{name+}"),
        ("GET /plain/x", "GET /plain/{word}"),
        ("GET /shop/carts/01234567-89ab-cdef-0123-456789abcdef", "GET /shop/carts/{pk}"),
        ("GET /shop/carts", "GET /shop/carts"),
        ("POST /shop/carts", "POST /shop/carts"),
        ("OPTIONS /shop/carts", "OPTIONS /shop/carts"),
        ("PUT /shop/carts", None),
        ("GET /legacy/12/", "GET /legacy/{pk}/"),
        ("GET /a/by/b", "GET /{_0}/by/{_1}"),
        ("GET /LOUD/x", "GET /loud/{pk}"),
        ("GET /SCOPED/x", "GET /scoped/{pk}"),
        ("GET /v1/maybe/7", "GET /maybe/{pk}"),
        ("GET /dogs/list", "GET /(?:cats|dogs)/list"),
        ("GET /nested/ab/7", "GET /nested/{kind}/{pk}"),
        ("GET /nested/a/x.xml", "GET /nested/{kind}/x.{f}"),
        ("GET /price$/(a)", "GET /price$/(a)"),
        ("GET /grumpy/x", "GET /grumpy/{word}"),
        ("GET /grumpy/no", None),
        ("GET /grumpy/boom", None),
        ("GET /deep/a/b/", "GET /deep/{name+}/"),
        ("GET /api/things/", "GET /api/things/"),
        ("DELETE /api/things/", None),
        ("GET /api/things/1/", "GET /api/things/{pk}/"),
        ("GET /api/things.json", "GET /api/things.{format}"),
        ("GET /nowhere", None),
        ("GET /pets", None),
        ("GET /pets/7\n", None),
        ("GET", "GET /"),
    ],
)
def test_template_of(request_line, method):
    verb, _, target = request_line.partition(" ")
    with override_settings(ROOT_URLCONF=urlconf(PATTERNS)):
        routing = DjangoRouting()
        asked = [wsgi_request({"REQUEST_METHOD": verb, "PATH_INFO": target}) for _ in range(2)]
        first, again = (routing.find(each) for each in asked)
        assert first is again
        assert (None if first is None else first.method) == method


def test_every_view_is_listed():
    with override_settings(ROOT_URLCONF=urlconf(PATTERNS[1:8] + PATTERNS[-1:])):
        assert [endpoint.method for endpoint in DjangoRouting().endpoints()][:7] == [
            "* /pets/",
            "* /pets/{pk}",
            "* /pets/{pk}/owners/{name}/",
            "* /files/{name+}",
            "* /plain/{word}",
            "* /shop/carts/{pk}",
            "GET /shop/carts",
        ]
        assert "GET /api/things/{pk}/" in {endpoint.method for endpoint in DjangoRouting().endpoints()}


def test_urls_that_include_themselves_are_listed_once():
    urls = urlconf([path("x", hello)])
    urls.urlpatterns.append(path("more/", include(urls)))
    with override_settings(ROOT_URLCONF=urls):
        assert [endpoint.method for endpoint in DjangoRouting().endpoints()] == ["* /x", "* /more/x"]
        asked = wsgi_request({"REQUEST_METHOD": "GET", "PATH_INFO": "/more/more/more/x"})
        assert DjangoRouting().find(asked).method == "GET /more/more/more/x"


def test_each_route_has_a_bucket_of_its_own_and_what_has_none_shares_one(via):
    gate = gateway(methods={"*": Method(throttle="1/minute")})
    with project(via, PATTERNS, gate) as app:
        assert statuses(app, "GET /pets/1", "GET /pets/2", "GET /pets/7/owners/x/", "GET /legacy/1/") == [
            *(200, 429),
            *(200, 200),
        ]
        assert (
            statuses(app, "GET /nowhere", "GET /nor/here", "PUT /shop/carts", "DELETE /api/things/")
            == [404] + [429] * 3
        )


def test_what_is_remembered_is_bounded_in_length_and_number():
    with override_settings(ROOT_URLCONF=urlconf([path("<path:rest>", hello)])):
        remembered = _project(get_resolver())._routed
        routing = DjangoRouting()

        def asked(verb, target):
            assert routing.find(wsgi_request({"REQUEST_METHOD": verb, "PATH_INFO": target})) is not None
            return len(remembered)

        assert asked("GET", "/x") == 1
        assert asked("X" * 197, "/x") == 2
        assert asked("X" * 198, "/x") == 2
        assert asked("X" * 100_000, "/x") == 2
        assert asked("GET", "/" + "x" * 195) == 3
        assert asked("GET", "/" + "x" * 196) == 3
        assert max(asked("GET", f"/{number}") for number in range(5_000)) == 4_096
        assert max(len(verb) + len(target) for verb, target in remembered) < 200


def test_405_of_a_class_is_a_405(via):
    with project(via, PATTERNS, gateway(client_throttle="9/minute")) as app:
        assert statuses(app, "PUT /shop/carts", "DELETE /api/things/") == [405, 405]


def test_converter_that_raises_is_the_projects_own_500(via):
    gate = gateway(client_throttle="2/minute")
    with project(via, PATTERNS, gate) as app:
        assert statuses(app, "GET /grumpy/boom", "GET /grumpy/no", "GET /grumpy/boom") == [500, 404, 429]


def test_converter_is_asked_each_time(via, monkeypatch):
    gate = gateway()

    @gate.throttle("1/minute")
    def known(request, word):
        return HttpResponse("known")

    @gate.throttle("1/minute")
    def unknown(request, word):
        return HttpResponse("unknown")

    with project(via, [path("<fickle:word>", known), path("<str:word>", unknown)], gate) as app:
        assert ask(app, "GET /rex").body == b"unknown"
        monkeypatch.setattr(Fickle, "known", frozenset({"rex"}))
        assert ask(app, "GET /rex").body == b"known"
        assert ask(app, "GET /rex").status == 429


METHOD_TABLE = {
    "GET /pets/{id}": "/pets/7",
    "GET /legacy/{id}": "/legacy/7/",
    "GET /legacy/{id}/": "/legacy/7/",
    "GET /loud/{id}": "/LOUD/7",
    "GET /loud/rex": "/Loud/REX",
    "GET /scoped/{id}": "/sCoPeD/7",
    "GET /maybe/{id}": "/v1/maybe/7",
    "GET /deep/{name+}": "/deep/a/b/",
    "GET /files/{name+}": "/files/a/b",
    "GET /nested/{kind}/{id}": "/nested/a/7",
    "* /pets/{id}": "/pets/7",
    "/pets/{id}": "/pets/7",
}


@pytest.mark.parametrize("method", METHOD_TABLE)
def test_method_table_finds(method, via):
    gate = gateway(throttle="100/minute", methods={method: Method(client_throttle="1/minute")})
    target = METHOD_TABLE[method]
    with project(via, PATTERNS, gate) as app:
        assert statuses(app, f"GET {target}", f"GET {target}", f"HEAD {target}") == [200, 429, 429]
    assert gate.explain("GET", "/nowhere-else").levels[0].remaining == 98


@pytest.mark.parametrize("target", ["/de/ueber/7", "/en/about/7", "/plain/7"])
def test_translated_routes_are_known(target, via, caplog):
    gate = gateway(methods={"*": Method(throttle="2/minute")})

    @gate.throttle("1/minute", per="client")
    def about(request, pk):
        return HttpResponse(request.LANGUAGE_CODE)

    patterns = [
        *i18n_patterns(path("about/<int:pk>", about), path("ueber/<int:pk>", about)),
        path("plain/<int:pk>", about),
    ]
    after = ["django.middleware.locale.LocaleMiddleware"]
    with project(via, patterns, gate, after=after, LANGUAGES=[("en", "E"), ("de", "D")]) as app:
        assert statuses(app, f"GET {target}", f"GET {target}") == [200, 429]
        assert ask(app, f"GET {target}", {"accept-language": "de"}).status == 429
        assert gate.explain("GET", target, address="192.0.2.1").verdict != "admitted"
    assert gate.stats()["default"][f"GET {target.replace('7', '{pk}')}"] == {"admitted": 1, "THROTTLED": 2}
    assert not [record for record in caplog.records if record.name == "apigate"]


def test_route_in_the_language_of_the_client(via):
    """Which route it is depends on a header that only LocaleMiddleware reads: what the view asks is known after it."""
    gate = gateway(throttle="100/minute")

    @gate.throttle("1/minute")
    def view(request):
        return HttpResponse()

    patterns = [path(gettext_lazy("Yes"), view)]
    after = ["django.middleware.locale.LocaleMiddleware"]
    with project(via, patterns, gate, after=after) as app:
        german = {"accept-language": "de"}
        assert [ask(app, "GET /Ja", german).status for _ in range(3)] == [200, 429, 429]
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 98
    assert (counted(gate), counted(gate, "THROTTLED")) == (1, 2)


def test_urlconf_chosen_by_a_middleware(via, caplog):
    gate = gateway(throttle="100/minute")

    @gate.throttle("1/minute")
    def tenant(request):
        return HttpResponse("tenant")

    @gate.throttle("5/minute")
    def main(request):
        return HttpResponse("main")

    other = urlconf([path("x", tenant)])

    def choose(request):
        if request.META.get("HTTP_X_TENANT"):
            request.urlconf = other

    with module("made_tenants", middleware=changing(choose)):
        for place in ("before", "after"):
            with project(via, [path("x", main)], gate, **{place: ["made_tenants.middleware"]}) as app:
                assert ask(app, "GET /x").body == b"main"
                got = [ask(app, "GET /x", {"x-tenant": "a"}).status for _ in range(2)]
                assert got == ([200, 429] if place == "before" else [429, 429])
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 96
    assert (counted(gate), counted(gate, "THROTTLED")) == (3, 3)
    assert not [record for record in caplog.records if record.name == "apigate"]


def test_stage_by_the_first_segment(via):
    gate = gateway(
        stages=[
            Stage("prod", variables={"db": "p"}, methods={"GET /pets/{id}": Method(throttle="1/minute")}),
            Stage("beta", variables={"db": "b"}),
        ],
        stage_by=PathPrefix(),
    )

    def view(request, pk=0):
        return HttpResponse(f"{reverse('pet', args=[pk])} {request.path} {request.path_info} {request.apigate.stage}")

    patterns = [path("pets/<int:pk>", view, name="pet"), path("", view)]
    with project(via, patterns, gate) as app:
        assert ask(app, "GET /prod/pets/7").body == b"/prod/pets/7 /prod/pets/7 /pets/7 prod"
        assert ask(app, "GET /prod/pets/7").status == 429
        assert ask(app, "GET /beta/pets/7").body == b"/beta/pets/7 /beta/pets/7 /pets/7 beta"
        assert ask(app, "GET /beta").body == b"/beta/pets/0 /beta / beta"
        assert statuses(app, "GET /gamma/pets/7", "GET /pets/7", "GET /") == [404, 404, 404]
        assert reverse("pet", args=[1]) == "/pets/1", "the prefix does not outlive its request"


def test_settings_that_tests_override_are_taken_up(via):
    with project(via, [path("x", hello)], gateway(client_throttle="1/minute")) as app:
        assert statuses(app, "GET /x", "GET /x", "GET /y") == [200, 429, 429]
    with project(via, [path("y", hello)], {"CLIENT_THROTTLE": "2/minute"}) as app:
        assert statuses(app, "GET /x", "GET /y", "GET /y") == [404, 200, 429]


def test_resolve_is_left_as_it_is():
    with override_settings(ROOT_URLCONF=urlconf(PATTERNS)):
        assert resolve("/pets/7").func is hello


def test_listing_and_explaining_know_the_project(via):
    gate = Gateway(throttle="9/minute")

    @gate.throttle("1/minute")
    def view(request):
        return HttpResponse()

    with project(via, [path("x", view)], gate) as app:
        assert ask(app, "GET /x").status == 200
        assert [level.policy for level in gate.explain("GET", "/x").levels] == ["global", "method"]
        assert len(gate.bound) == 1
        project_again = project(via, [path("x", view)], gate)
        with project_again as again:
            assert ask(again, "GET /x").status == 429
        assert len(gate.bound) == 1, "Django makes its middleware anew for each handler"
