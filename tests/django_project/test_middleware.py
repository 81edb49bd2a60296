"""The gate among other middleware: what stands before and after it, what it hands on, and when a request has ended."""

import asyncio
import tempfile
from wsgiref.util import setup_testing_defaults

import django
import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path
from django.views.decorators.http import condition

from apigate import Gateway, Method, Throttle, Throttled
from apigate.asgi import GatewayMiddleware as ASGIGate
from apigate.core.context import current_context
from apigate.django import GatewayMiddleware
from apigate.wsgi import GatewayMiddleware as WSGIGate
from tests.django_project.asking import (
    GATE,
    HANDLERS,
    ahello,
    ask,
    changing,
    counted,
    exchanged,
    gateway,
    hello,
    module,
    project,
    statuses,
    urlconf,
)

NOTICES = pytest.mark.skipif(
    django.VERSION < (5, 0), reason="before 5.0, Django does not notice that a client has left"
)


def sync_only(get_response):
    def serve(request):
        return get_response(request)

    return serve


def async_only(get_response):
    async def serve(request):
        return await get_response(request)

    return serve


async_only.sync_capable = False
async_only.async_capable = True


@pytest.fixture(autouse=True)
def middleware():
    with module("made_middleware", sync_only=sync_only, async_only=async_only):
        yield


@pytest.mark.parametrize("view", [hello, ahello])
@pytest.mark.parametrize("before", [[], ["sync_only"], ["async_only"]])
@pytest.mark.parametrize("after", [[], ["sync_only"], ["async_only"], ["sync_only", "async_only"]])
def test_gate_works_between_any_others(before, after, view, via):
    gate = gateway(throttle="100/minute")
    marked = gate.throttle("2/minute", per="client")(view)
    named = [[f"made_middleware.{name}" for name in names] for names in (before, after)]
    with project(via, [path("x", marked), path("y", view)], gate, before=named[0], after=named[1]) as app:
        assert statuses(app, "GET /x", "GET /x", "GET /x", "GET /y") == [200, 200, 429, 200]
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 96
    assert counted(gate) == 3


def test_gate_is_of_the_kind_of_what_comes_after_it():
    with override_settings(APIGATE={"GATEWAY": Gateway(throttle="1/minute")}):
        assert not iscoroutinefunction(GatewayMiddleware(lambda request: None))
        tasks = GatewayMiddleware(markcoroutinefunction(lambda request: None))
        assert iscoroutinefunction(tasks)
        assert iscoroutinefunction(tasks.process_view)


def test_djangos_own_clients():
    gate = gateway(client_throttle="2/minute")
    with override_settings(ROOT_URLCONF=urlconf([path("x", hello)]), APIGATE={"GATEWAY": gate}, MIDDLEWARE=[GATE]):
        assert [Client().get("/x").status_code for _ in range(3)] == [200, 200, 429]
        assert asyncio.run(AsyncClient().get("/x")).status_code == 429
        refused = Client().get("/x")
        assert refused.json()["violated-policies"] == ["client"]
        assert refused["Retry-After"] == "30"


def test_gate_is_a_callable_like_any_middleware():
    gate = gateway(client_throttle="1/minute")
    with override_settings(APIGATE={"GATEWAY": gate}, ROOT_URLCONF=urlconf([path("x", hello)])):
        middleware = GatewayMiddleware(hello)
        assert [middleware(RequestFactory().get("/x")).status_code for _ in range(2)] == [200, 429]


# ---- what it hands on


def test_views_find_the_context(via):
    gate = gateway(client_throttle="5/minute", variables={"db": "pets"}, methods={"GET /x": Method()})

    def view(request):
        context = request.apigate
        return HttpResponse(f"{context.client} {context.variables['db']} {context.method} {len(context.request_id)}")

    with project(via, [path("x", view)], gate) as app:
        assert ask(app, "GET /x").body == b"ip:192.0.2.1 pets GET /x 32"


def test_empty_gateway_hands_out_an_empty_context(via):
    def view(request):
        return HttpResponse(f"{request.apigate.decision} {request.apigate.stage}")

    with project(via, [path("x", view)], Gateway()) as app:
        assert ask(app, "GET /x").body.startswith(b"None ")
        assert ask(app, "GET /x").headers.keys() <= {"content-type", "content-length"}


def test_without_the_middleware_there_is_no_context(via):
    def view(request):
        return HttpResponse(str(hasattr(request, "apigate")))

    with project(via, [path("x", view)], None) as app:
        assert ask(app, "GET /x").body == b"False"


def test_context_is_not_left_behind(via):
    gate = gateway()
    gate.throttle("5/minute")(hello)
    with project(via, [path("x", hello)], gate) as app:
        assert ask(app, "GET /x").status == 200
    assert current_context() is None


def test_fields_join_those_of_the_project(via):
    def view(request):
        return HttpResponse(headers={"RateLimit": '"own";r=1;t=2'})

    with project(via, [path("x", view)], gateway(throttle="2/minute")) as app:
        assert ask(app, "GET /x").headers["ratelimit"] == '"own";r=1;t=2, "global";r=1;t=30'


def test_gate_listed_twice_counts_once(via):
    gate = gateway(throttle="100/minute")
    with project(via, [path("x", hello)], gate, after=[GATE]) as app:
        assert ask(app, "GET /x").left == {"global": 99}
    assert counted(gate) == 1


@pytest.mark.parametrize("with_middleware", [False, True])
def test_plain_gates_find_marks_too(with_middleware, via, caplog):
    gate = gateway(throttle="100/minute", methods={"GET /loud/{id}": Method(throttle="1/minute")})
    marked = gate.throttle("2/minute", per="client")(hello)
    patterns = [path("x/<int:pk>", marked), path("loud/<int:id>", hello)]
    with project(via, patterns, gate if with_middleware else None, FORCE_SCRIPT_NAME=None) as app:
        outside = (WSGIGate if via == "wsgi" else ASGIGate)(app, gate)
        outside_of = type("Gated", (), {"is_wsgi": via == "wsgi", "__call__": lambda _, *given: outside(*given)})()
        assert statuses(outside_of, "GET /x/1", "GET /x/2", "GET /x/3") == [200, 200, 429]
        assert statuses(outside_of, "GET /loud/1", "GET /loud/2") == [200, 429]
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 96
    assert not [record for record in caplog.records if record.name == "apigate"]


def test_plain_gate_answers_a_function_that_refuses_further_in_and_keeps_what_was_taken(via):
    gate = gateway(throttle="100/minute")

    @gate.throttle("1/minute")
    def send_mail():
        pass

    def view(request):
        send_mail()
        return HttpResponse()

    with project(via, [path("x", view)], None) as app:
        outside = (WSGIGate if via == "wsgi" else ASGIGate)(app, gate)
        outside_of = type("Gated", (), {"is_wsgi": via == "wsgi", "__call__": lambda _, *given: outside(*given)})()
        assert statuses(outside_of, "GET /x", "GET /x") == [200, 429]
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 97


@pytest.mark.parametrize("script", [None] if django.VERSION < (5, 0) else [None, "/mounted"])  # no say before 5.0
def test_plain_asgi_gate_reads_the_path_as_django_does(script):
    gate = gateway(methods={"GET /pets/{id}": Method(throttle="1/minute")})
    with project("asgi", [path("pets/<int:pk>", hello)], None, FORCE_SCRIPT_NAME=script) as app:
        outside = ASGIGate(app, gate)
        assert statuses(outside, *[f"GET {script or ''}/pets/{number}" for number in (1, 2)]) == [200, 429]


# ---- when a request has ended


def test_slots_are_held_until_the_response_is_closed(via):
    gate = gateway(in_flight=1)
    others = []

    def rows():
        others.append(ask(app, "GET /y").status)
        yield b"a"

    async def arows():
        others.append((await exchanged(app, "GET", "/y")).status)
        yield b"a"

    def view(request):
        return StreamingHttpResponse(rows() if via == "wsgi" else arows())

    with project(via, [path("x", view), path("y", hello)], gate) as app:
        assert statuses(app, "GET /x", "GET /x", "GET /y") == [200, 200, 200]
    assert others == [503, 503]


def test_slots_are_freed_when_the_response_of_the_project_is_dropped(via):
    """ConditionalGetMiddleware answers 304 by a response of its own, and nobody closes the first."""
    gate = gateway(in_flight=1)
    view = condition(etag_func=lambda request: '"1"')(hello)

    def etagged(request):
        return HttpResponse("hello", headers={"ETag": '"1"'})

    before = ["django.middleware.http.ConditionalGetMiddleware"]
    with project(via, [path("x", etagged), path("y", view)], gate, before=before) as app:
        assert [ask(app, "GET /x", {"if-none-match": '"1"'}).status for _ in range(3)] == [304] * 3


@pytest.mark.parametrize("fails", [False, True])
def test_refund_by_status(fails, via):
    gate = gateway(methods={"POST /login": Method(throttle="2/minute", refund="2xx,3xx")})

    def login(request):
        if fails:
            return HttpResponse(status=403)
        return HttpResponse()

    with project(via, [path("login", login)], gate) as app:
        assert statuses(app, *["POST /login"] * 4) == ([403, 403, 429, 429] if fails else [200] * 4)


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")  # Django's own, of any file under ASGI
def test_files_are_sent_as_files(via):
    gate = gateway(in_flight=1, methods={"GET /file": Method(throttle="2/minute", refund="2xx")})
    gate.throttle("1/minute")(hello)
    wrapped = []

    class Wrapper:
        def __init__(self, file, size=0):
            self.file, self.close = file, file.close
            wrapped.append(file)

        def __iter__(self):
            return iter(lambda: self.file.read(1000), b"")

    def view(request):
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the response closes it
        file.write(b"content")
        file.seek(0)
        return FileResponse(file)

    with project(via, [path("file", view)], gate) as app:
        serving = app
        if via == "wsgi":

            def serving(environ, start_response):
                return app({**environ, "wsgi.file_wrapper": Wrapper}, start_response)

            serving.is_wsgi = True
        for _ in range(4):
            answer = ask(serving, "GET /file")
            assert (answer.status, answer.body) == (200, b"content")
    assert bool(wrapped) == (via == "wsgi")


@NOTICES
def test_client_that_leaves_has_seen_no_outcome():
    """It must not get its token back for that, though a failure would give it back."""
    gate = gateway(in_flight=1, methods={"GET /x": Method(throttle="1/minute", refund="5xx")})
    begun, leaves = asyncio.Event(), asyncio.Event()

    async def view(request):
        leaves.set()
        begun.set()
        await asyncio.Event().wait()

    async def once(app):
        return (await exchanged(app, "GET", "/x", leaves=leaves)).status

    with project("asgi", [path("x", view)], gate) as app:
        asyncio.run(asyncio.wait_for(once(app), 10))
        assert ask(app, "GET /x").status == 429


@NOTICES
def test_client_that_leaves_in_the_middle_of_a_stream_frees_its_slot():
    gate = gateway(in_flight=1)
    leaves = asyncio.Event()

    async def rows():
        yield b"a"
        leaves.set()
        await asyncio.Event().wait()
        yield b"b"

    async def view(request):
        return StreamingHttpResponse(rows())

    async def once(app):
        return (await exchanged(app, "GET", "/x", leaves=leaves)).body

    with project("asgi", [path("x", view), path("y", hello)], gate) as app:
        assert asyncio.run(asyncio.wait_for(once(app), 10)) == b"a"
        assert ask(app, "GET /y").status == 200


def test_sync_view_whose_client_leaves_frees_its_slot():
    gate = gateway(in_flight=1)
    leaves = asyncio.Event()

    async def leave():
        leaves.set()

    with project("asgi", [path("x", hello), path("y", hello)], gate) as app:

        async def once():
            await leave()
            return await exchanged(app, "GET", "/x", leaves=leaves)

        asyncio.run(asyncio.wait_for(once(), 10))
        assert ask(app, "GET /y").status == 200


# ---- refusals within


def test_throttle_of_the_views_own_is_answered_and_what_was_taken_outside_stays_taken(via):
    clock_gate = gateway(throttle="100/minute")
    throttle = Throttle({"user": "1/minute"}, clock=clock_gate.clock)

    def view(request):
        decision = throttle.acquire({"user": "alice"})
        if not decision.allowed:
            raise Throttled(decision)
        return HttpResponse()

    with project(via, [path("x", view)], clock_gate) as app:
        assert statuses(app, "GET /x", "GET /x") == [200, 429]
        assert ask(app, "GET /x").headers["retry-after"] == "60"
    assert clock_gate.explain("GET", "/nowhere").levels[0].remaining == 96


@pytest.mark.parametrize("debug", [False, True])
def test_refusal_in_a_middleware_further_in_keeps_what_was_taken_outside(debug, via):
    gate = gateway(throttle="100/minute")

    @gate.throttle("1/minute")
    def work():
        pass

    with (
        module("made_working", middleware=changing(lambda request: work())),
        project(via, [path("x", hello)], gate, after=["made_working.middleware"], DEBUG=debug) as app,
    ):
        assert statuses(app, "GET /x", "GET /x") == [200, 429]
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 97


@pytest.mark.parametrize("debug", [False, True])
def test_other_errors_are_the_projects(debug, via):
    def view(request):
        raise ValueError

    gate = gateway(throttle="100/minute", in_flight=1)
    urls = urlconf([path("x", view)], handler500=lambda request: HttpResponse("sorry", status=500))
    with project(via, urls, gate, DEBUG=debug) as app:
        answer = ask(app, "GET /x")
        assert answer.status == 500
        assert (answer.body == b"sorry") is not debug
        assert answer.left == {"global": 99}
        assert ask(app, "GET /x").status == 500


def test_errors_that_are_propagated_free_the_slot():
    def view(request):
        raise ValueError("wrong")

    with project(
        "wsgi", [path("x", view), path("y", hello)], gateway(in_flight=1), DEBUG_PROPAGATE_EXCEPTIONS=True
    ) as app:
        with pytest.raises(ValueError, match="wrong"):
            ask(app, "GET /x")
        assert ask(app, "GET /y").status == 200


def test_handler500_does_not_hide_a_refusal(via):
    gate = gateway()

    @gate.throttle("1/minute")
    def work():
        pass

    def view(request):
        try:
            work()
        except Throttled as error:
            raise RuntimeError from error
        return HttpResponse()

    urls = urlconf([path("x", view)], handler500=lambda request: HttpResponse("sorry", status=500))
    with project(via, urls, gate) as app:
        assert statuses(app, "GET /x", "GET /x") == [200, 429]


@pytest.mark.parametrize(("status", "kept"), [(429, True), (500, False), (503, True)])
def test_exception_handler_of_rest_framework_has_the_say(status, kept, via):
    """Whatever it answers, what was taken outside stays taken."""
    from rest_framework.decorators import api_view
    from rest_framework.response import Response

    gate = gateway(throttle="100/minute")

    @gate.throttle("1/minute")
    def work():
        pass

    @api_view(["GET"])
    def view(request):
        work()
        return Response({})

    def handler(exc, context):
        return Response({"own": "words"}, status=status)

    patterns = [path("x", view)]
    with project(via, patterns, gate) as app:
        assert statuses(app, "GET /x", "GET /x") == [200, 429]
    with project(
        via, patterns, gate, REST_FRAMEWORK={"EXCEPTION_HANDLER": handler, "UNAUTHENTICATED_USER": None}
    ) as app:
        answer = ask(app, "GET /x")
        assert (answer.status, b"own" in answer.body) == (status if kept else 429, kept)
    assert gate.explain("GET", "/nowhere").levels[0].remaining == 96


def test_head_of_a_refusal_has_no_body(via):
    with project(via, [path("x", hello)], gateway(throttle="1/minute")) as app:
        ask(app, "GET /x")
        answer = ask(app, "HEAD /x")
        assert (answer.status, answer.body) == (429, b"")
        assert int(answer.headers["content-length"]) > 200


def test_decorated_function_in_a_thread_of_the_view_knows_the_request():
    gate = gateway()

    @gate.throttle("1/minute", per="client")
    def work():
        return "done"

    async def view(request):
        return HttpResponse(await sync_to_async(work)())

    with project("asgi", [path("x", view)], gate) as app:
        assert statuses(app, "GET /x", "GET /x") == [200, 429]


def test_gate_that_has_nothing_but_decorators_is_one_from_the_first_request_on(via, caplog):
    """The views, and so their decorators, are imported by the first request."""
    gate = gateway()

    class Late:
        @property
        def urlpatterns(self):
            if not hasattr(self, "made"):
                self.made = [path("x", gate.throttle("1/minute")(hello))]
            return self.made

    with project(via, urlconf([]), gate) as app, override_settings(ROOT_URLCONF=Late()):
        assert statuses(app, "GET /x", "GET /x") == [200, 429]
    assert not [record for record in caplog.records if record.name == "apigate"]


def test_handlers_are_djangos():
    assert [kind.__name__ for kind in HANDLERS.values()] == ["WSGIHandler", "ASGIHandler"]


def warned(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "apigate"]


def test_several_workers_are_told_once_that_limits_are_multiplied(via, caplog, monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with project(via, [path("x", hello)], gateway(throttle="2/minute")) as app:
        statuses(app, "GET /x", "GET /x")
    (warning,) = warned(caplog)
    assert "Each of the 4 workers admits the whole of it" in warning


def test_a_server_that_tells_of_other_processes_is_heard(caplog):
    environ = {"wsgi.multiprocess": True}
    setup_testing_defaults(environ)
    with project("wsgi", [path("x", hello)], gateway(throttle="2/minute")) as app:
        for _ in range(2):
            app({**environ, "PATH_INFO": "/x"}, lambda status, headers: None).close()
    (warning,) = warned(caplog)
    assert "wsgi.multiprocess" in warning


def test_neither_a_test_client_nor_asgi_tells_of_other_processes(caplog):
    gate = gateway(throttle="9/minute")
    with project("wsgi", [path("x", hello)], gate):
        assert Client().get("/x").status_code == 200
        assert asyncio.run(AsyncClient().get("/x")).status_code == 200
    assert gate.explain("GET", "/x").levels[0].remaining == 6
    assert warned(caplog) == []
