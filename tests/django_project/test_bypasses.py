"""No way of writing a request reaches a limited view unlimited."""

import pytest
from django.http import HttpResponse
from django.urls import include, path, re_path
from django.views import View

from apigate import Method
from tests.django_project.asking import HANDLERS, ask, changing, gateway, module, project

REACHED: list[str] = []


def reached(request, *_, **__):
    REACHED.append(f"{request.method} {request.path_info}")
    return HttpResponse("reached")


class Reached(View):
    def dispatch(self, request, *_, **__):
        return reached(request)

    get = post = delete = dispatch


PATTERNS = {
    "path": ("pets/<pk>", path),
    "path with a slash": ("pets/<pk>/", path),
    "path, any depth": ("pets/<path:pk>", path),
    "regex": (r"^pets/(?P<pk>[^/]+)$", re_path),
    "regex that ends nowhere": (r"^pets/(?P<pk>.+)", re_path),
    "regex with an optional slash": (r"^pets/(?P<pk>[^/]+)/?$", re_path),
    "regex without case": (r"(?i)^pets/(?P<pk>[^/]+)/?$", re_path),
    "regex without case, in a part": (r"^(?i:pets)/(?P<pk>[^/]+)/?$", re_path),
    "regex by classes": (r"^[Pp][Ee][Tt][Ss]/(\w+)/?$", re_path),
    "regex with optional parts": (r"^(?:api/)?(?:v[0-9]/)?pets/(?P<pk>[^/]+)/?$", re_path),
    "regex that begins anywhere": (r"pets/(?P<pk>[^/]+)$", re_path),
    "regex that takes any slashes": (r"^/*pets/+(?P<pk>[^/]+)/*$", re_path),
}
REQUESTS = [
    "GET /pets/7",
    "GET /pets/7/",
    "GET /pets/7//",
    "GET //pets/7",
    "GET /pets//7",
    "GET /PETS/7",
    "GET /Pets/7/",
    "GET /%70ets/7",
    "GET /p%65ts/%37",
    "GET /pets%2F7",
    "GET /pets/%2e/7",
    "GET /pets/./7",
    "GET /x/../pets/7",
    "GET /x/%2e%2e/pets/7",
    "GET /./pets/7",
    "GET /pets/7%0A",
    "GET /pets/7%00",
    "GET /pets/7%20",
    "GET /pets/7;v=1",
    "GET /pets/7?x=/y",
    "GET /pets/%FF",
    "GET /pets/%C3%28",
    "GET /pets/7%FF",
    "GET /pets/%E2%98%83",
    "GET /p%C4%B1ts/7",
    "GET /api/v1/pets/7",
    "GET /v2/pets/7/",
    "GET /anything/pets/7",
    "GET http://shop.example/pets/7",
    "GET pets/7",
    "HEAD /pets/7",
    "HEAD /PETS/7/",
    "get /pets/7",
    "Get /pets/7",
    "OPTIONS /pets/7",
    "BREW /pets/7",
    "POST /pets/7",
    "DELETE /pets/7",
]


@pytest.fixture(autouse=True)
def forget():
    REACHED.clear()


def patterns_of(kind, view):
    route, function = PATTERNS[kind]
    return [function(route, view)]


@pytest.mark.parametrize("view", [reached, Reached.as_view()], ids=["function", "class"])
@pytest.mark.parametrize("kind", PATTERNS)
def test_decorated_view_is_never_reached_unlimited(kind, view, via):
    for included in (False, True):
        gate = gateway()
        patterns = patterns_of(kind, gate.throttle("1/minute")(view))
        with project(via, [path("", include(patterns))] if included else patterns, gate) as app:
            REACHED.clear()
            ask(app, "GET /pets/first")
            ask(app, "GET /pets/first/")
            assert len(REACHED) == 1
            for request in REQUESTS:
                assert ask(app, request).body != b"reached", request
            assert len(REACHED) == 1


NAMED = [(method, kind) for method in ("/pets/{id}", "/pets/{id}/", "/pets/{id+}") for kind in PATTERNS]
NAMED.remove(("/pets/{id}/", "path, any depth"))  # there the slash is a part of the parameter: it names only some paths


@pytest.mark.parametrize(("method", "kind"), NAMED)
def test_view_of_the_method_table_is_never_reached_unlimited(method, kind, via):
    """Where one segment is named, that is what is limited: a deeper path is another method."""
    gate = gateway(methods={method: Method(throttle="1/minute")})
    with project(via, patterns_of(kind, reached), gate) as app:
        ask(app, "GET /pets/first")
        ask(app, "GET /pets/first/")
        assert len(REACHED) <= 1  # or the first was a 404, which counts too
        allowed = deeper(kind, method)
        for request in REQUESTS:
            if request not in allowed:
                assert ask(app, request).body != b"reached", request


def deeper(kind, method):
    """What a template does not name, though the route takes it."""
    if kind == "regex that begins anywhere":
        return {"GET /anything/pets/7", "GET /api/v1/pets/7", "GET /v2/pets/7/"}
    return set()


@pytest.mark.parametrize("header", ["x-http-method-override", "x-method"])
@pytest.mark.parametrize("limited", ["mark", "table"])
def test_verb_that_a_middleware_changes(limited, header, via):
    gate = gateway(
        throttle="100/minute", methods={"DELETE /pets/{id}": Method(throttle="1/minute")} if limited == "table" else {}
    )

    class Pets(View):
        def post(self, request, pk):
            return HttpResponse("posted")

        def delete(self, request, pk):
            return HttpResponse("deleted")

    if limited == "mark":
        Pets.delete = gate.throttle("1/minute")(Pets.delete)

    def override(request):
        request.method = request.META.get(f"HTTP_{header.upper().replace('-', '_')}", request.method)

    with (
        module("made_override", middleware=changing(override)),
        project(via, [path("pets/<pk>", Pets.as_view())], gate, after=["made_override.middleware"]) as app,
    ):
        assert ask(app, "POST /pets/1").body == b"posted"
        assert ask(app, "POST /pets/1", {header: "DELETE"}).body == b"deleted"
        assert ask(app, "POST /pets/1", {header: "DELETE"}).status == 429
        assert ask(app, "DELETE /pets/1").status == 429
        assert ask(app, "POST /pets/1").body == b"posted"
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 96, "one request counts once"


@pytest.mark.parametrize("limited", ["mark", "table"])
def test_path_that_a_middleware_changes(limited, via):
    gate = gateway(
        throttle="100/minute",
        in_flight=1,
        methods={"GET /pets/{id}": Method(throttle="1/minute")} if limited == "table" else {},
    )
    view = gate.throttle("1/minute")(reached) if limited == "mark" else reached

    def strip(request):
        request.path_info = request.path_info.removeprefix("/v1")

    with (
        module("made_strip", middleware=changing(strip)),
        project(
            via, [path("pets/<pk>", view), path("<path:rest>", reached)], gate, after=["made_strip.middleware"]
        ) as app,
    ):
        assert ask(app, "GET /v1/other").body == b"reached"
        assert ask(app, "GET /v1/pets/1").body == b"reached"
        assert ask(app, "GET /v1/pets/2").status == 429
        assert ask(app, "GET /pets/2").status == 429
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 97
    assert gate.stats()["default"].get("*", {}).get("admitted", 0) <= 1


@pytest.mark.parametrize("slash", [True, False])
def test_redirects_to_a_slash_are_counted(slash, via):
    gate = gateway(methods={"GET /pets/{id}": Method(throttle="2/minute")})
    common = ["django.middleware.common.CommonMiddleware"]
    with project(via, [path("pets/<pk>/", reached)], gate, after=common, APPEND_SLASH=slash) as app:
        assert ask(app, "GET /pets/7").status == (301 if slash else 404)
        assert ask(app, "GET /pets/7/").body == b"reached"
        assert ask(app, "GET /pets/7/").status == 429


def test_environ_that_no_server_gives_is_refused_or_limited():
    gate = gateway(methods={"GET /pets/{id}": Method(throttle="1/minute")})
    with project("wsgi", [path("pets/<pk>", reached)], gate) as app:
        assert isinstance(app, HANDLERS["wsgi"])
        for target in ("*", "", "?", "//", "/pets/7"):
            ask(app, f"GET {target}")
        assert ask(app, "GET /pets/8").status == 429
    assert REACHED == ["GET /pets/7"]
