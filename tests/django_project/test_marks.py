"""A decorator on a view is a mark that the gate carries out, whatever kind of view it is and whatever stands around."""

import asyncio
import inspect
import logging
from functools import partial
from types import SimpleNamespace

import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, StreamingHttpResponse
from django.test import RequestFactory
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_page
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET
from django.views.generic import TemplateView
from rest_framework.decorators import action, api_view
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.serializers import CharField, Serializer
from rest_framework.views import APIView
from rest_framework.viewsets import ModelViewSet, ViewSet

from apigate import ConfigurationError, Method, Throttled
from tests.django_project.asking import ask, changing, counted, gateway, hello, module, project, statuses

USER = SimpleNamespace(is_authenticated=True, pk=1)


def function(limit):
    @limit
    def view(request):
        return HttpResponse()

    return [path("x", view)]


def coroutine(limit):
    @limit
    async def view(request):
        return HttpResponse()

    return [path("x", view)]


def of_partial(limit):
    @limit
    def view(request, word):
        return HttpResponse(word)

    return [path("x", partial(view, word="yes"))]


def with_parameters(limit):
    @limit
    def view(request, pk):
        return HttpResponse(str(pk))

    return [path("<slug:pk>", view)]


def method(limit):
    class Page(View):
        @limit
        def get(self, request):
            return HttpResponse()

    return [path("x", Page.as_view())]


def async_method(limit):
    class Page(View):
        @limit
        async def get(self, request):
            return HttpResponse()

    return [path("x", Page.as_view())]


def inherited_method(limit):
    class Base(View):
        @limit
        def get(self, request):
            return HttpResponse()

    class Page(Base):
        pass

    return [path("x", Page.as_view())]


def dispatch(limit):
    class Page(View):
        @limit
        def dispatch(self, request):
            return super().dispatch(request)

        def get(self, request):
            return HttpResponse()

    return [path("x", Page.as_view())]


def on_as_view(limit):
    class Page(View):
        def get(self, request):
            return HttpResponse()

    return [path("x", limit(Page.as_view()))]


def on_async_as_view(limit):
    class Page(View):
        async def get(self, request):
            return HttpResponse()

    return [path("x", limit(Page.as_view()))]


def method_decorator_on_method(limit):
    class Page(View):
        @method_decorator(limit)
        def get(self, request):
            return HttpResponse()

    return [path("x", Page.as_view())]


def method_decorator_named_get(limit):
    @method_decorator(limit, name="get")
    class Page(View):
        def get(self, request):
            return HttpResponse()

    return [path("x", Page.as_view())]


def method_decorator_named_dispatch(limit):
    @method_decorator(limit, name="dispatch")
    class Page(View):
        def get(self, request):
            return HttpResponse()

    return [path("x", Page.as_view())]


def method_decorator_on_what_is_inherited(limit):
    class Base(View):
        def get(self, request):
            return HttpResponse()

    @method_decorator(limit, name="get")
    class Page(Base):
        pass

    return [path("x", Page.as_view())]


def method_decorator_inherited(limit):
    @method_decorator(limit, name="dispatch")
    class Base(View):
        pass

    class Page(Base):
        def get(self, request):
            return HttpResponse()

    return [path("x", Page.as_view())]


def method_decorator_of_several(limit):
    @method_decorator([csrf_exempt, limit, require_GET], name="dispatch")
    class Page(View):
        def get(self, request):
            return HttpResponse()

    return [path("x", Page.as_view())]


def method_decorators_stacked(limit):
    @method_decorator(csrf_exempt, name="dispatch")
    @method_decorator(limit, name="dispatch")
    @method_decorator(require_GET, name="dispatch")
    class Page(View):
        def get(self, request):
            return HttpResponse()

    return [path("x", Page.as_view())]


def generic_view(limit):
    @method_decorator(limit, name="get")
    class Page(TemplateView):
        def render_to_response(self, context, **_):
            return HttpResponse()

    return [path("x", Page.as_view())]


def instance_that_is_called(limit):
    class Feed:
        @limit
        def __call__(self, request):
            return HttpResponse()

    return [path("x", Feed())]


def api_view_class(limit):
    class Page(APIView):
        @limit
        def get(self, request):
            return Response([])

    return [path("x", Page.as_view())]


def api_view_class_by_method_decorator(limit):
    @method_decorator(limit, name="dispatch")
    class Page(APIView):
        def get(self, request):
            return Response([])

    return [path("x", Page.as_view())]


def outside_api_view(limit):
    @limit
    @api_view(["GET"])
    def view(request):
        return Response([])

    return [path("x", view)]


def inside_api_view(limit):
    @api_view(["GET"])
    @limit
    def view(request):
        return Response([])

    return [path("x", view)]


def viewset(limit):
    class Things(ViewSet):
        @limit
        def list(self, request):
            return Response([])

    return [path("x", Things.as_view({"get": "list"}))]


def viewset_by_method_decorator(limit):
    @method_decorator(limit, name="list")
    class Things(ViewSet):
        def list(self, request):
            return Response([])

    return [path("x", Things.as_view({"get": "list"}))]


class Named(Serializer):
    name = CharField()


def model_viewset(limit):
    class Things(ModelViewSet):
        serializer_class = Named

        def get_queryset(self):
            return [{"name": "rex"}]

        @limit
        def list(self, request, *args, **kwargs):
            return super().list(request, *args, **kwargs)

    router = DefaultRouter(trailing_slash=False)
    router.register("x", Things, basename="thing")
    return [path("", include(router.urls))]


def extra_action(limit):
    class Things(ViewSet):
        @action(detail=False, url_path="recent")
        @limit
        def recent(self, request):
            return Response([])

    router = DefaultRouter(trailing_slash=False)
    router.register("", Things, basename="thing")
    return [path("", include(router.urls)), path("x", Things.as_view({"get": "recent"}))]


def extra_action_outside(limit):
    class Things(ViewSet):
        @limit
        @action(detail=False)
        def recent(self, request):
            return Response([])

    return [path("x", Things.as_view({"get": "recent"}))]


def stacked_outside(limit):
    return [path("x", limit(csrf_exempt(login_required(cache_page(60)(require_GET(hello))))))]


def stacked_inside(limit):
    return [path("x", csrf_exempt(login_required(require_GET(limit(hello)))))]


def stacked_within_cache_page(limit):
    return [path("x", cache_page(60)(limit(hello)))]


KINDS = [
    function,
    coroutine,
    of_partial,
    with_parameters,
    method,
    async_method,
    inherited_method,
    dispatch,
    on_as_view,
    on_async_as_view,
    method_decorator_on_method,
    method_decorator_named_get,
    method_decorator_named_dispatch,
    method_decorator_on_what_is_inherited,
    method_decorator_inherited,
    method_decorator_of_several,
    method_decorators_stacked,
    generic_view,
    instance_that_is_called,
    api_view_class,
    api_view_class_by_method_decorator,
    outside_api_view,
    inside_api_view,
    viewset,
    viewset_by_method_decorator,
    model_viewset,
    extra_action,
    extra_action_outside,
    stacked_outside,
    stacked_inside,
    stacked_within_cache_page,
]
TWICE = ["GET /x"] * 2
THRICE = ["GET /x"] * 3


def with_user(request):
    request.user = USER


@pytest.fixture(autouse=True)
def users():
    with module("made_users", middleware=changing(with_user)):
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_gate_carries_out_the_mark_of(kind, via, caplog):
    gate = gateway(throttle="100/minute")
    patterns = kind(gate.throttle("2/minute"))
    with project(via, patterns, gate, after=["made_users.middleware"]) as app:
        assert statuses(app, *THRICE) == [200, 200, 429]
        assert ask(app, "HEAD /x").status == 429  # HEAD counts as GET
        assert ask(app, "GET /x").json["violated-policies"] == ["method"]
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 97, "a refusal takes from no level"
    assert (counted(gate), counted(gate, "THROTTLED")) == (2, 3)
    assert not [record for record in caplog.records if record.name == "apigate"], "it was not the gate"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not stacked_within_cache_page])
def test_without_a_gate_the_view_itself_answers(kind, via):
    gate = gateway(throttle="100/minute")
    patterns = kind(gate.throttle("2/minute"))
    with project(via, patterns, None, after=["made_users.middleware"]) as app:
        assert statuses(app, *THRICE) == [200, 200, 429]
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 97
    assert (counted(gate), counted(gate, "THROTTLED")) == (2, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_mark_per_client(kind, via):
    gate = gateway()
    with project(via, kind(gate.throttle("1/minute", per="client")), gate, after=["made_users.middleware"]) as app:
        assert statuses(app, *TWICE) == [200, 429]
        assert ask(app, "GET /x", address="192.0.2.2").status == 200


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not stacked_outside])
def test_two_gateways_marks_are_each_carried_out_by_their_own(kind, via):
    gate, other = gateway(), gateway()
    limit, loose = gate.throttle("2/minute"), other.throttle("1/minute")
    with project(via, kind(lambda view: limit(loose(view)) if callable(view) else view), gate) as app:
        assert statuses(app, "GET /x") in ([200], [500])  # login_required has no user here


def test_function_keeps_what_it_is():
    limit = gateway().throttle("1/minute")

    @csrf_exempt
    def view(request: object, pk: int = 1) -> HttpResponse:
        """Say hello."""
        return HttpResponse(str(pk))

    limited = limit(view)
    assert limited.csrf_exempt
    assert inspect.signature(limited) == inspect.signature(view)
    assert (limited.__name__, limited.__qualname__, limited.__doc__) == (view.__name__, view.__qualname__, "Say hello.")
    assert limited.__annotations__ == view.__annotations__
    assert not iscoroutinefunction(limited)


@pytest.mark.parametrize("under", [lambda view: view, csrf_exempt, require_GET])
def test_coroutine_function_stays_one(under):
    limit = gateway().throttle("1/minute")

    @under
    async def view(request):
        return HttpResponse()

    class Page(View):
        async def get(self, request):
            return HttpResponse()

    assert iscoroutinefunction(limit(view)) == iscoroutinefunction(view)
    assert iscoroutinefunction(limit(Page.as_view()))
    assert inspect.iscoroutinefunction(limit(Page.get))


def test_attributes_that_are_set_later_reach_the_view():
    @gateway().throttle("1/minute")
    def view(request):
        return HttpResponse()

    view.login_required = False
    assert view.__wrapped__.login_required is False


def test_view_of_a_class_has_its_attributes():
    limit = gateway().throttle("1/minute")
    view = limit(TemplateView.as_view(template_name="x.html"))
    assert view.view_class is TemplateView
    assert view.view_initkwargs == {"template_name": "x.html"}


def test_head_has_marks_of_its_own_where_the_class_has_head(via):
    gate = gateway()

    class Page(View):
        @gate.throttle("1/minute")
        def get(self, request):
            return HttpResponse()

        def head(self, request):
            return HttpResponse()

    with project(via, [path("x", Page.as_view())], gate) as app:
        assert statuses(app, "HEAD /x", "HEAD /x", "GET /x", "GET /x", "HEAD /x") == [200, 200, 200, 429, 200]


def test_verb_of_the_users_own_is_found(via, caplog):
    gate = gateway()

    class Page(View):
        http_method_names = [*View.http_method_names, "purge"]  # noqa: RUF012 - as Django has it

        @gate.throttle("1/minute")
        def purge(self, request):
            return HttpResponse()

    with project(via, [path("x", Page.as_view())], gate) as app:
        assert statuses(app, "BREW /x", "PURGE /x", "PURGE /x", "BREW /x") == [405, 200, 429, 405]
    assert not [record for record in caplog.records if record.name == "apigate"]


def test_one_decorator_on_two_views_has_two_buckets(via):
    gate = gateway()
    limit = gate.throttle("1/minute")

    def one(request):
        return HttpResponse()

    def other(request):
        return HttpResponse()

    class Base(View):
        def get(self, request):
            return HttpResponse()

    @method_decorator(limit, name="dispatch")
    class Third(Base):
        pass

    @method_decorator(limit, name="dispatch")
    class Fourth(Base):
        pass

    views = [limit(one), limit(other), Third.as_view(), Fourth.as_view()]
    with project(via, [path(str(number), view) for number, view in enumerate(views)], gate) as app:
        assert statuses(app, *[f"GET /{number}" for number in range(4)]) == [200] * 4
        assert statuses(app, *[f"GET /{number}" for number in range(4)]) == [429] * 4


def test_subclasses_of_a_decorated_class_share_its_bucket(via):
    gate = gateway()

    @method_decorator(gate.throttle("2/minute"), name="dispatch")
    class Base(View):
        def get(self, request):
            return HttpResponse()

    class One(Base):
        pass

    class Other(Base):
        pass

    with project(via, [path("one", One.as_view()), path("other", Other.as_view())], gate) as app:
        assert statuses(app, "GET /one", "GET /other", "GET /one", "GET /other") == [200, 200, 429, 429]


def test_several_marks_of_a_view_are_one_decision(via):
    gate = gateway(throttle="100/minute")

    @gate.throttle("3/minute")
    @gate.throttle("1/minute", per="client")
    def view(request):
        return HttpResponse()

    with project(via, [path("x", view)], gate) as app:
        assert statuses(app, *TWICE) == [200, 429]
        assert ask(app, "GET /x", address="192.0.2.2").status == 200
        explained = gate.explain("GET", "/x")
        assert {level.policy: level.remaining for level in explained.levels} == {
            "global": 97,
            "method": 0,
            "client-method": 0,
        }


def test_mark_joins_the_method_table(via):
    gate = gateway(throttle="100/minute", methods={"GET /x": Method(client_throttle="2/minute")})

    @gate.throttle("3/minute")
    def view(request):
        return HttpResponse()

    with project(via, [path("x", view)], gate) as app:
        assert [ask(app, "GET /x", address=f"192.0.2.{each}").status for each in (1, 1, 1, 2, 2)] == [
            *(200, 200, 429),
            *(200, 429),
        ]
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 96


def test_what_was_taken_outside_stays_taken_when_a_function_further_in_refuses(via):
    """The view has begun its work; it could be made to work without end else."""
    gate = gateway(throttle="100/minute")

    @gate.throttle("1/minute")
    def send_mail():
        pass

    def view(request):
        send_mail()
        return HttpResponse()

    with project(via, [path("x", view)], gate) as app:
        assert statuses(app, *THRICE) == [200, 429, 429]
        assert ask(app, "GET /x").headers["content-type"] == "application/problem+json"
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 95
    assert (counted(gate), counted(gate, "THROTTLED")) == (1, 3)


def test_coroutine_function_further_in_refuses_and_what_was_taken_outside_stays_taken(via):
    gate = gateway(throttle="100/minute")

    @gate.throttle("1/minute", per="client")
    async def send_mail():
        pass

    async def view(request):
        await send_mail()
        return HttpResponse()

    with project(via, [path("x", view)], gate) as app:
        assert statuses(app, *TWICE) == [200, 429]
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 97


def test_function_with_a_key_refuses_and_what_was_taken_outside_stays_taken(via):
    gate = gateway(throttle="100/minute", client_throttle="3/minute")

    @gate.throttle("1/minute", key=lambda name: name)
    def send_mail(name):
        pass

    def view(request):
        send_mail("alice")
        return HttpResponse()

    with project(via, [path("x", view)], gate) as app:
        answers = [ask(app, "GET /x") for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 429, 429, 429]
    assert [answer.json["violated-policies"] for answer in answers[1:]] == [["client-method"]] * 2 + [["client"]]


def test_what_was_taken_outside_is_given_back_where_the_views_own_mark_is_refused_at_the_view(via):
    """A second call of it is one that the gate knew nothing of, so it had not carried out the mark."""
    gate = gateway(throttle="100/minute")

    @gate.throttle("1/minute")
    def view(request):
        return HttpResponse()

    def twice(request):
        view(request)
        return view(request)

    twice.__wrapped__ = view
    with project(via, [path("x", twice)], gate) as app:
        assert ask(app, "GET /x").status == 429
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 99


def test_view_may_answer_a_refusal_by_itself(via):
    gate = gateway(throttle="100/minute")

    @gate.throttle("1/minute")
    def send_mail():
        pass

    def view(request):
        try:
            send_mail()
        except Throttled as error:
            return HttpResponse(f"come back in {error.retry_after:.0f} s")
        return HttpResponse("sent")

    with project(via, [path("x", view)], gate) as app:
        assert [ask(app, "GET /x").body for _ in range(2)] == [b"sent", b"come back in 60 s"]


@pytest.mark.parametrize("chunks", ["sync", "async"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_generator_of_a_streaming_response_is_limited(chunks, via):
    gate = gateway(throttle="100/minute")

    @gate.throttle("1/minute", per="client")
    def rows():
        yield b"a"

    @gate.throttle("1/minute", per="client")
    async def arows():
        yield b"a"

    def view(request):
        return StreamingHttpResponse(rows() if chunks == "sync" else arows())

    with project(via, [path("x", view)], gate) as app:
        assert statuses(app, *TWICE) == [200, 429]


def test_functions_called_while_a_response_streams_know_the_request(via):
    gate = gateway()

    @gate.throttle("1/minute", per="client")
    def limited_row():
        return b"a"

    def row():
        try:
            return limited_row()
        except Throttled:
            return b"refused"

    def rows():
        yield row()

    async def arows():
        yield row()

    def view(request):
        return StreamingHttpResponse(rows() if via == "wsgi" else arows())

    with project(via, [path("x", view)], gate) as app:
        assert ask(app, "GET /x").body == b"a"
        assert ask(app, "GET /x").body == b"refused"
        assert ask(app, "GET /x", address="192.0.2.2").body == b"a"


def test_per_client_outside_of_any_request_says_what_is_missing():
    @gateway().throttle("1/minute", per="client")
    def send_mail():
        pass

    with pytest.raises(ConfigurationError, match=r"'apigate\.django\.GatewayMiddleware' in MIDDLEWARE"):
        send_mail()


def test_view_called_by_hand_raises():
    @gateway().throttle("1/minute")
    def view(request):
        return HttpResponse()

    request = RequestFactory().get("/x")
    assert view(request).status_code == 200
    with pytest.raises(Throttled):
        view(request)


def test_endpoint_without_a_gate_warns_once(via, caplog):
    gate = gateway()
    with project(via, function(gate.throttle("2/minute")), None) as app, caplog.at_level(logging.WARNING, "apigate"):
        statuses(app, *THRICE)
    (record,) = [record for record in caplog.records if record.name == "apigate"]
    assert "no gate of its gateway stands around the app" in record.getMessage()


def test_many_tasks_at_once_get_what_there_is():
    gate = gateway()

    @gate.throttle("5/minute")
    async def view(request):
        await asyncio.sleep(0)
        return HttpResponse()

    from tests.django_project.asking import exchanged

    async def crowd(app):
        return [answer.status for answer in await asyncio.gather(*[exchanged(app, "GET", "/x") for _ in range(20)])]

    with project("asgi", [path("x", view)], gate) as app:
        assert sorted(asyncio.run(crowd(app))) == [200] * 5 + [429] * 15


def test_lint_finds_a_view_that_a_route_has_without_its_decorator():
    gate = gateway(cors=None)

    def view(request):
        return HttpResponse()

    decorated = gate.throttle("1/minute")(view)
    for served, found in ((decorated, []), (view, ["decorator-above-route"])):
        with project("wsgi", [path("x", served)], gate) as app:
            ask(app, "GET /x")
            assert [finding.check for finding in gate.lint()] == found
