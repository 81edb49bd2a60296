"""The cache in MIDDLEWARE, under WSGI and ASGI: what it answers, what it hears, what it must not keep."""

import asyncio
import gc
import threading
import time
from http.cookies import Morsel
from types import SimpleNamespace

import pytest
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from rest_framework.decorators import api_view
from rest_framework.response import Response

from apigate import CachePolicy, ConfigurationError, Method, ResponseCache, Throttled
from apigate.core.policy import Phase
from apigate.django import warm
from apigate.testing import FakeClock
from tests.django_project.asking import ask, changing, counted, exchanged, gateway, hello, module, project
from tests.response_stores import LoggedStore

SESSIONS = {
    "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    "MESSAGE_STORAGE": "django.contrib.messages.storage.cookie.CookieStorage",
}
SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"
CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"


class Calls:
    """A view that counts how often it is run, and answers with that number."""

    def __init__(self, **fields):
        self.number = 0
        self.fields = {name.replace("_", "-"): value for name, value in fields.items()}
        self.seen = []

    def __call__(self, request, **_):
        self.number += 1
        self.seen.append(request)
        response = HttpResponse(f"call {self.number}", headers=self.fields)
        return self.changed(request, response) or response

    def changed(self, request, response):
        """What a test does to the response."""


def fresh(**fields):
    return Calls(**{"Cache_Control": "max-age=60", **fields})


def cached(**settings):
    return gateway(**{"cache": ResponseCache(), **settings})


def bodies(app, *requests, headers=None):
    return [ask(app, request, headers).body.decode() for request in requests]


class ByToken:
    """An authorizer: the principal is what the token says."""

    phase = Phase.AUTHORIZE

    def on_request(self, context):
        context.principal = context.request.value("x-token")


# ---- miss and hit


def test_a_hit_is_answered_without_the_view(via):
    view = fresh()
    gate = cached()
    with project(via, [path("x", view)], gate) as app:
        miss, hit = ask(app, "GET /x"), ask(app, "GET /x")
    assert (miss.body, hit.body, view.number) == (b"call 1", b"call 1", 1)
    assert "fwd=uri-miss; stored" in miss.headers["cache-status"]
    assert "hit" in hit.headers["cache-status"]
    assert hit.headers["age"] == "0"
    assert hit.headers["content-type"] == miss.headers["content-type"]
    assert (counted(gate, "cache:miss"), counted(gate, "cache:hit")) == (1, 1)


def test_nothing_is_kept_of_a_response_that_does_not_say_how_long_it_is_fresh(via):
    with project(via, [path("x", Calls())], cached()) as app:
        assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 2"]


def test_a_ttl_sets_how_long(via):
    clock = FakeClock()
    gate = cached(clock=clock, methods={"GET /x": Method(cache=CachePolicy(ttl=60))})
    with project(via, [path("x", Calls())], gate) as app:
        assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 1"]
        clock.advance(60)
        assert bodies(app, "GET /x", "GET /x") == ["call 2", "call 2"]


def test_head_is_answered_from_get_and_never_the_reverse(via):
    view = fresh()
    with project(via, [path("x", view)], cached()) as app:
        assert ask(app, "HEAD /x").status == 200
        assert bodies(app, "GET /x") == ["call 2"]
        head = ask(app, "HEAD /x")
        assert (head.body, head.headers["content-length"], view.number) == (b"", "6", 2)


def test_a_client_that_has_it_gets_304(via):
    view = fresh(ETag='"one"')
    with project(via, [path("x", view)], cached()) as app:
        ask(app, "GET /x")
        answer = ask(app, "GET /x", {"If-None-Match": '"one"'})
        assert (answer.status, answer.body, view.number) == (304, b"", 1)
        assert ask(app, "GET /x", {"If-None-Match": '"two"'}).status == 200


def test_a_part_is_cut_out_of_what_is_stored(via):
    view = fresh(ETag='"one"')
    with project(via, [path("x", view)], cached()) as app:
        ask(app, "GET /x")
        part = ask(app, "GET /x", {"Range": "bytes=0-3"})
        assert (part.status, part.body, part.headers["content-range"]) == (206, b"call", "bytes 0-3/6")


def test_status_and_fields_are_kept(via):
    def view(request):
        return HttpResponse("gone", status=410, headers={"Cache-Control": "max-age=60", "X-Own": "yes"})

    with project(via, [path("x", view)], cached()) as app:
        ask(app, "GET /x")
        hit = ask(app, "GET /x")
        assert (hit.status, hit.body, hit.headers["x-own"]) == (410, b"gone", "yes")
        assert "hit" in hit.headers["cache-status"]


def test_variants_are_told_apart(via):
    view = fresh(Vary="Accept-Language")
    with project(via, [path("x", view)], cached()) as app:
        german, english = {"Accept-Language": "de"}, {"Accept-Language": "en"}
        assert bodies(app, "GET /x", headers=german) == ["call 1"]
        assert bodies(app, "GET /x", headers=english) == ["call 2"]
        assert bodies(app, "GET /x", headers=german) == ["call 1"]


def test_fields_of_the_policy_are_added_to_vary_and_not_put_in_its_place(via):
    view = fresh(Vary="Accept")
    gate = cached(methods={"GET /x": Method(cache=CachePolicy(vary=["X-Tenant"]))})
    with project(via, [path("x", view)], gate) as app:
        miss = ask(app, "GET /x", {"X-Tenant": "a"})
        hit = ask(app, "GET /x", {"X-Tenant": "a"})
        for answer in (miss, hit):
            assert {part.strip().lower() for part in answer.headers["vary"].split(",")} == {"accept", "x-tenant"}
        assert bodies(app, "GET /x", headers={"X-Tenant": "b"}) == ["call 2"]


def test_the_query_counts(via):
    with project(via, [path("x", fresh())], cached()) as app:
        assert bodies(app, "GET /x?a=1", "GET /x?a=2", "GET /x?a=1") == ["call 1", "call 2", "call 1"]


def test_an_unsafe_method_invalidates_also_when_it_is_another_view(via):
    pages = fresh()

    class Pets(View):
        def get(self, request):
            return pages(request)

        def post(self, request):
            return HttpResponse(status=201)

    with project(via, [path("pets", Pets.as_view())], cached()) as app:
        assert bodies(app, "GET /pets", "GET /pets") == ["call 1", "call 1"]
        assert ask(app, "POST /pets").status == 201
        assert bodies(app, "GET /pets") == ["call 2"]


def test_operators_invalidate_by_tag_path_and_method(via):
    gate = cached(methods={"GET /x": Method(cache=CachePolicy(ttl=60, tags=["pets"]))})
    with project(via, [path("x", Calls())], gate) as app:
        cache = gate.stage().cache
        assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 1"]
        cache.invalidate(tag="pets")
        assert bodies(app, "GET /x") == ["call 2"]
        cache.invalidate(path="/x")
        assert bodies(app, "GET /x") == ["call 3"]
        cache.invalidate(method="GET /x")
        assert bodies(app, "GET /x") == ["call 4"]


def test_each_principal_has_its_own(via):
    gate = cached(policies=[ByToken()], methods={"GET /x": Method(cache=CachePolicy(ttl=60))})
    with project(via, [path("x", Calls())], gate) as app:
        assert bodies(app, "GET /x", headers={"X-Token": "alice"}) == ["call 1"]
        assert bodies(app, "GET /x", headers={"X-Token": "bob"}) == ["call 2"]
        assert bodies(app, "GET /x", headers={"X-Token": "alice"}) == ["call 1"]


def test_rate_limit_fields_are_of_this_request_and_never_stored(via):
    gate = cached(client_throttle="3/minute")
    with project(via, [path("x", fresh())], gate) as app:
        answers = [ask(app, "GET /x") for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.left["client"] for answer in answers[:3]] == [2, 1, 0]


# ---- streams


def test_a_stream_is_kept_as_it_passes(via):
    runs = []

    def numbers(request):
        runs.append(1)
        return StreamingHttpResponse(iter([b"1", b"2", b"3"]), headers={"Cache-Control": "max-age=60"})

    async def anumbers(request):
        async def chunks():
            for chunk in (b"1", b"2", b"3"):
                yield chunk

        runs.append(1)
        return StreamingHttpResponse(chunks(), headers={"Cache-Control": "max-age=60"})

    with project(via, [path("x", numbers if via == "wsgi" else anumbers)], cached()) as app:
        miss, hit = ask(app, "GET /x"), ask(app, "GET /x")
    assert (miss.body, hit.body, len(runs)) == (b"123", b"123", 1)
    assert hit.headers["content-length"] == "3"


@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")  # Django's own, of the content of that request
def test_a_stream_that_breaks_is_not_kept(via):
    runs = []

    def broken():
        yield b"1"
        raise OSError("the disk is gone")

    async def abroken():
        yield b"1"
        raise OSError("the disk is gone")

    def view(request):
        runs.append(1)
        chunks = broken() if via == "wsgi" else abroken()
        return StreamingHttpResponse(chunks, headers={"Cache-Control": "max-age=60"})

    with project(via, [path("x", view)], cached()) as app:
        for _ in range(2):
            with pytest.raises(OSError, match="disk"):
                ask(app, "GET /x")
    assert len(runs) == 2
    gc.collect()


def test_a_file_is_left_to_the_server(tmp_path):
    file = tmp_path / "x.txt"
    file.write_text("file")
    view = Calls()
    view.changed = lambda request, response: FileResponse(file.open("rb"), headers={"Cache-Control": "max-age=60"})
    with project("wsgi", [path("x", view)], cached()) as app:
        assert bodies(app, "GET /x", "GET /x") == ["file", "file"]
    assert view.number == 2


# ---- revalidation, stale responses


def test_the_project_is_asked_whether_it_has_changed(via):
    clock = FakeClock()
    view = fresh(ETag='"one"')
    view.changed = lambda request, response: (
        HttpResponse(status=304, headers={"ETag": '"one"', "Cache-Control": "max-age=60"})
        if request.headers.get("If-None-Match") == '"one"'
        else None
    )
    with project(via, [path("x", view)], cached(clock=clock)) as app:
        ask(app, "GET /x")
        clock.advance(61)
        answer = ask(app, "GET /x")
        assert (answer.status, answer.body, view.number) == (200, b"call 1", 2)
        assert bodies(app, "GET /x") == ["call 1"]
        assert view.number == 2


def test_what_the_cache_asks_is_no_question_of_the_clients(via):
    """A layer further out that judges conditions must not see ours."""
    clock = FakeClock()
    view = fresh(ETag='"one"')
    view.changed = lambda request, response: (
        HttpResponse(status=304, headers={"ETag": '"one"'}) if "If-None-Match" in request.headers else None
    )
    with project(via, [path("x", view)], cached(clock=clock), before=[CONDITIONAL]) as app:
        ask(app, "GET /x")
        clock.advance(61)
        assert ask(app, "GET /x").status == 200


def test_a_client_s_own_condition_does_not_reach_the_project_in_place_of_ours(via):
    clock = FakeClock()
    view = fresh(ETag='"one"')
    asked = []
    view.changed = lambda request, response: asked.append(
        (request.headers.get("If-None-Match"), request.headers.get("If-Modified-Since"))
    )
    with project(via, [path("x", view)], cached(clock=clock)) as app:
        ask(app, "GET /x")
        clock.advance(61)
        headers = {"If-None-Match": '"mine"', "If-Modified-Since": "Mon, 01 Jan 2024 00:00:00 GMT"}
        ask(app, "GET /x", headers)
    assert asked[1] == ('"one"', None)


def test_a_stale_response_is_served_while_the_view_fails(via):
    clock = FakeClock()
    view = fresh()

    def fail(request, response):
        if view.number > 1:
            raise RuntimeError("no")

    view.changed = fail
    gate = cached(clock=clock, methods={"GET /x": Method(cache=CachePolicy(ttl=60, stale_if_error=60))})
    with project(via, [path("x", view)], gate) as app:
        ask(app, "GET /x")
        clock.advance(90)
        stale = ask(app, "GET /x")
        assert (stale.status, stale.body, stale.headers["age"], view.number) == (200, b"call 1", "90", 2)
        clock.advance(60)
        assert ask(app, "GET /x").status == 500


def test_a_stale_response_is_served_while_a_thread_asks_anew():
    clock = FakeClock()
    view = fresh()
    gate = cached(clock=clock, methods={"GET /x": Method(cache=CachePolicy(ttl=60, stale_while_revalidate=60))})
    with project("wsgi", [path("x", view)], gate) as app:
        ask(app, "GET /x")
        clock.advance(70)
        stale = ask(app, "GET /x")
        assert (stale.body, stale.headers["age"]) == (b"call 1", "70")
        wait_for(lambda: ask(app, "GET /x").body == b"call 2")
    assert view.number == 2


def wait_for(condition):
    """Until a thread of the background is done."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("verb", ["GET", "HEAD"])
def test_a_stale_response_is_served_while_a_task_asks_anew(verb):
    clock = FakeClock()
    view = fresh()
    gate = cached(
        clock=clock,
        client_throttle="10/minute",
        methods={"GET /x": Method(cache=CachePolicy(ttl=60, stale_while_revalidate=60))},
    )

    async def asked(app):
        await exchanged(app, "GET", "/x")
        clock.advance(70)
        stale = await exchanged(app, verb, "/x")
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        return stale, await exchanged(app, "GET", "/x")

    with project("asgi", [path("x", view)], gate) as app:
        stale, after = asyncio.run(asked(app))
    assert (stale.headers["age"], after.body, view.number) == ("70", b"call 2", 2)
    assert after.left["client"] == 8  # the refresh took nothing: 10, a minute's share back, less two
    assert view.seen[1].method == "GET"


# ---- one flight for many


def test_many_clients_of_one_cold_page_run_the_view_once():
    view = fresh()

    async def slow(request):
        await asyncio.sleep(0.05)
        return view(request)

    async def crowd(app):
        return await asyncio.gather(*[exchanged(app, "GET", "/x") for _ in range(20)])

    with project("asgi", [path("x", slow)], cached()) as app:
        answers = asyncio.run(crowd(app))
    assert {answer.body for answer in answers} == {b"call 1"}
    assert view.number == 1


def test_a_leader_whose_client_leaves_hands_over_to_another():
    view = fresh()
    began = asyncio.Event()

    async def slow(request):
        began.set()
        await asyncio.sleep(0.05)
        return view(request)

    async def crowd(app):
        leaves = asyncio.Event()
        first = asyncio.create_task(exchanged(app, "GET", "/x", leaves=leaves))
        await began.wait()
        others = [asyncio.create_task(exchanged(app, "GET", "/x")) for _ in range(5)]
        await asyncio.sleep(0.01)
        leaves.set()
        answers = await asyncio.gather(*others)
        await asyncio.gather(first, return_exceptions=True)
        return answers

    with project("asgi", [path("x", slow)], cached()) as app:
        answers = asyncio.run(crowd(app))
    assert {answer.body for answer in answers} == {b"call 1"}


@pytest.mark.parametrize("with_gate", [True, False], ids=["gate", "no gate"])
def test_what_a_view_makes_of_a_throttled_call_is_not_kept(via, with_gate):
    gate = gateway()

    @gate.throttle("1/minute")
    def helper():
        return "fine"

    @gate.cache(ttl=60)
    def page(request, pk):
        try:
            return HttpResponse(helper())
        except Throttled:
            return HttpResponse("busy")

    with project(via, [path("<int:pk>", page)], gate if with_gate else None) as app:
        assert bodies(app, "GET /1", "GET /2", "GET /1") == ["fine", "busy", "fine"]
        assert "hit" not in ask(app, "GET /2").headers.get("cache-status", "")


# ---- several workers


@pytest.mark.parametrize("stream", [False, True])
def test_what_one_worker_stored_another_serves_until_it_is_invalidated(via, tmp_path, stream):
    def worker():
        shared = f"file://{tmp_path}/cache"
        return gateway(name="shop", cache=ResponseCache(shared=shared, policy=CachePolicy(ttl=60)))

    def streamed(request, response):
        if stream and request.method == "GET":
            chunks = iter([response.content])
            return StreamingHttpResponse(chunks if via == "wsgi" else later(chunks), headers=view.fields)
        return None

    async def later(chunks):
        for chunk in chunks:
            yield chunk

    view = fresh()
    view.changed = streamed
    one, other = worker(), worker()
    with project(via, [path("x", view)], one) as app:
        assert bodies(app, "GET /x") == ["call 1"]
    with project(via, [path("x", view)], other) as app:
        assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 1"]
        ask(app, "POST /x")
    with project(via, [path("x", view)], one) as app:
        assert bodies(app, "GET /x") == ["call 3"]


@pytest.mark.parametrize("kind", ["plain", "stream", "decorated without a gate"])
def test_a_store_that_has_to_be_awaited_is(kind):
    store = LoggedStore(is_awaited=True)
    view = Calls()
    policy = CachePolicy(ttl=60)

    def worker():
        return gateway(cache=ResponseCache(shared=store, policy=policy))

    async def page(request):
        async def chunks():
            yield b"streamed"

        made = view(request)
        return StreamingHttpResponse(chunks()) if kind == "stream" else made

    async def asked(app, verb="GET"):
        answer = await exchanged(app, verb, "/x")
        await asyncio.sleep(0.05)  # what is written is so when the client has its response
        return answer

    for _ in range(2):
        gate = worker()
        bare = kind == "decorated without a gate"
        decorated = gate.cache(policy)(page) if bare else page
        with project("asgi", [path("x", decorated)], None if bare else gate) as app:
            assert asyncio.run(asked(app)).status == 200
    assert view.number == 1
    gate = worker()
    with project("asgi", [path("x", page)], gate) as app:
        asyncio.run(asked(app, "POST"))
        assert len(store.records) == 1
        asyncio.run(asked(app))
    assert view.number == 3


# ---- content in the key


def test_query_is_keyed_by_its_content():
    view = Calls()
    view.changed = lambda request, response: HttpResponse(
        f"{view.number} {request.body.decode()}", headers={"Cache-Control": "max-age=60"}
    )
    with project("asgi", [path("x", view)], cached()) as app:
        answers = [asyncio.run(with_content(app, "QUERY", content)) for content in (b"a", b"b", b"a")]
    assert [body for body, _ in answers] == [b"1 a", b"2 b", b"1 a"]


def test_content_that_is_too_long_or_of_unknown_length_passes_by():
    view = fresh()
    gate = cached(methods={"QUERY /x": Method(cache=CachePolicy(ttl=60, max_request_bytes=3))})
    with project("asgi", [path("x", view)], gate) as app:
        assert asyncio.run(with_content(app, "QUERY", b"four"))[0] == b"call 1"
        assert asyncio.run(with_content(app, "QUERY", b"four"))[0] == b"call 2"
        assert asyncio.run(with_content(app, "QUERY", b"a", length=False))[0] == b"call 3"
        assert asyncio.run(with_content(app, "QUERY", b"a", length=False))[0] == b"call 4"


async def with_content(app, verb, content, *, length=True):
    headers = [(b"content-type", b"text/plain")]
    if length:
        headers.append((b"content-length", str(len(content)).encode()))
    scope = {
        "type": "http",
        "method": verb,
        "path": "/x",
        "raw_path": b"/x",
        "query_string": b"",
        "headers": headers,
        "client": ("192.0.2.1", 1),
        "server": ("shop.example", 80),
    }
    waiting = [{"type": "http.request", "body": content, "more_body": False}]
    sent, left = [], asyncio.Event()

    async def receive():
        if waiting:
            return waiting.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            left.set()

    await app(scope, receive, send)
    return b"".join(message.get("body", b"") for message in sent[1:]), sent[0]


# ---- the five CVEs of Django's own cache, 2026


@pytest.mark.parametrize("vary", ["*", "Accept, *", "*, Accept", "Accept,*"])
def test_cve_2026_6907_a_star_anywhere_in_vary_is_never_reused(via, vary):
    with project(via, [path("x", fresh(Vary=vary))], cached()) as app:
        assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 2"]


@pytest.mark.parametrize("said", ["No-Store", "PRIVATE", "max-age=60, Private", "NO-STORE, max-age=60"])
def test_cve_2026_8404_directives_have_no_case(via, said):
    gate = cached(methods={"GET /x": Method(cache=CachePolicy(ttl=60))})
    with project(via, [path("x", Calls(Cache_Control=said))], gate) as app:
        assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 2"]


@pytest.mark.parametrize("cookie", [None, "unrelated=1"])
@pytest.mark.parametrize("policy", [CachePolicy(), CachePolicy(ttl=60), CachePolicy(ttl=60, cookies="ignore")])
def test_cve_2026_48588_a_cookie_that_is_set_is_not_stored_whatever_the_client_sent(via, cookie, policy):
    view = fresh(Vary="Cookie")
    view.changed = lambda request, response: response.set_cookie("sessionid", "of alice")
    gate = cached(methods={"GET /x": Method(cache=policy)})
    with project(via, [path("x", view)], gate) as app:
        headers = {"Cookie": cookie} if cookie else {}
        assert bodies(app, "GET /x", "GET /x", headers=headers) == ["call 1", "call 2"]


def test_cve_2026_113593_an_absent_field_is_not_an_empty_one(via):
    view = fresh(Vary="X-Tenant")
    with project(via, [path("x", view)], cached()) as app:
        assert bodies(app, "GET /x") == ["call 1"]
        assert bodies(app, "GET /x", headers={"X-Tenant": ""}) == ["call 2"]
        assert bodies(app, "GET /x") == ["call 1"]


@pytest.mark.parametrize("where", ["before", "after"])
def test_cve_2026_35192_a_page_that_sets_a_session_is_not_stored(via, where):
    """Whether the session's cookie is set within the gate or by middleware further out."""
    view = fresh()
    view.changed = lambda request, response: request.session.__setitem__("user", view.number)
    with project(via, [path("x", view)], cached(), **{where: [SESSION]}, **SESSIONS) as app:
        first, second = ask(app, "GET /x"), ask(app, "GET /x")
    assert "sessionid" in first.headers["set-cookie"]
    assert (first.body, second.body) == (b"call 1", b"call 2")


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_page_that_read_the_session_is_one_for_each_cookie(via, where):
    view = fresh()
    view.changed = lambda request, response: request.session.get("user") and None
    with project(via, [path("x", view)], cached(), **{where: [SESSION]}, **SESSIONS) as app:
        assert bodies(app, "GET /x", headers={"Cookie": "a=1"}) == ["call 1"]
        assert bodies(app, "GET /x", headers={"Cookie": "a=2"}) == ["call 2"]
        hit = ask(app, "GET /x", {"Cookie": "a=1"})
        assert (hit.body, hit.headers["vary"]) == (b"call 1", "Cookie")


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_page_with_a_csrf_token_is_not_stored(via, where):
    from django.middleware.csrf import get_token

    view = fresh()
    view.changed = lambda request, response: get_token(request) and None
    with project(via, [path("x", view)], cached(), **{where: [CSRF]}) as app:
        first, second = ask(app, "GET /x"), ask(app, "GET /x")
    assert "csrftoken" in first.headers["set-cookie"]
    assert (first.body, second.body) == (b"call 1", b"call 2")


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_page_that_shows_messages_is_not_stored(via, where):
    from django.contrib.messages import get_messages

    view = fresh()
    view.changed = lambda request, response: list(get_messages(request)) and None
    gate = cached()
    with project(via, [path("x", view)], gate, **{where: [SESSION, MESSAGES]}, **SESSIONS) as app:
        assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 2"]


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_page_in_the_clients_language_is_one_for_each_language(via, where):
    view = fresh()
    locale = "django.middleware.locale.LocaleMiddleware"
    with project(via, [path("x", view)], cached(), USE_I18N=True, **{where: [locale]}) as app:
        assert bodies(app, "GET /x", headers={"Accept-Language": "de"}) == ["call 1"]
        assert bodies(app, "GET /x", headers={"Accept-Language": "en"}) == ["call 2"]
        assert bodies(app, "GET /x", headers={"Accept-Language": "de"}) == ["call 1"]


def test_a_cookie_that_python_cannot_read_is_set_as_it_was(via):
    view = fresh()
    line = "theme=dark; Path=/; Sparkling"

    class Odd(Morsel):
        def OutputString(self, attrs=None):  # noqa: N802 - as its parent has it
            return line

    view.changed = lambda request, response: dict.__setitem__(response.cookies, "theme", Odd())
    gate = cached(methods={"GET /x": Method(cache=CachePolicy(ttl=60, set_cookies="*"))})
    with project(via, [path("x", view)], gate) as app:
        assert [ask(app, "GET /x").headers["set-cookie"].strip() for _ in range(2)] == [line, line]


def test_a_cookie_that_the_policy_allows_by_name_is_stored_and_set_again(via):
    view = fresh()

    def both(request, response):
        response.set_cookie("theme", "dark", max_age=60, samesite="Lax")

    view.changed = both
    gate = cached(methods={"GET /x": Method(cache=CachePolicy(ttl=60, set_cookies=["theme"]))})
    with project(via, [path("x", view)], gate) as app:
        miss, hit = ask(app, "GET /x"), ask(app, "GET /x")
    assert hit.body == b"call 1"
    assert hit.headers["set-cookie"] == miss.headers["set-cookie"]
    assert "SameSite=Lax" in hit.headers["set-cookie"]


# ---- what middleware makes of a request on its way


def test_a_request_that_is_sent_on_to_another_view_passes_by(via):
    """Two policies would speak for it, and a response under the first one's key would be the second one's."""

    def rewrite(request):
        if request.headers.get("X-Beta"):
            request.path_info = "/beta"

    stable, beta = fresh(), fresh()
    views = [path("x", stable), path("beta", beta)]
    with (
        module("rewriting", rewrite=changing(rewrite)),
        project(via, views, cached(), after=["rewriting.rewrite"]) as app,
    ):
        sent_on = ask(app, "GET /x", {"X-Beta": "1"})
        assert "fwd=bypass" in sent_on.headers["cache-status"]
        assert ask(app, "GET /x", {"X-Beta": "1"}).status == 200
        assert (stable.number, beta.number) == (0, 2)
        assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 1"]
        assert (stable.number, beta.number) == (1, 2)


# ---- the decorator


def shapes(cache, view):
    """Kinds of views, each with `GET /x`."""

    @cache
    def function(request):
        return view(request)

    @cache
    async def coroutine(request):
        return view(request)

    class Page(View):
        @cache
        def get(self, request):
            return view(request)

    class Later(View):
        @method_decorator(cache)
        def get(self, request):
            return view(request)

    class Whole(View):
        @cache
        def dispatch(self, request):
            return super().dispatch(request)

        def get(self, request):
            return view(request)

    @api_view(["GET"])
    @cache
    def rest(request):
        answered = view(request)
        return Response(answered.content.decode(), headers=dict(answered.headers.items()))

    return {
        "function": function,
        "coroutine": coroutine,
        "method": Page.as_view(),
        "method_decorator": Later.as_view(),
        "dispatch": Whole.as_view(),
        "as_view": cache(Page.as_view()),
        "api_view": rest,
    }


SHAPES = ["function", "coroutine", "method", "method_decorator", "dispatch", "as_view", "api_view"]


@pytest.mark.parametrize("with_gate", [True, False], ids=["gate", "no gate"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_decorated_view_of_any_kind_is_cached(via, shape, with_gate):
    gate = gateway()
    view = Calls()
    decorated = shapes(gate.cache(ttl=60), view)[shape]
    with project(via, [path("x", decorated)], gate if with_gate else None) as app:
        miss, hit = ask(app, "GET /x"), ask(app, "GET /x")
    assert (miss.status, hit.status, view.number) == (200, 200, 1)
    assert miss.body == hit.body
    assert "hit" in hit.headers["cache-status"]


@pytest.mark.parametrize("with_gate", [True, False], ids=["gate", "no gate"])
def test_path_parameters_tell_responses_apart(via, with_gate):
    gate = gateway()
    runs = []

    @gate.cache(ttl=60)
    def pet(request, pk):
        runs.append(pk)
        return HttpResponse(f"pet {pk}")

    with project(via, [path("pets/<int:pk>", pet)], gate if with_gate else None) as app:
        assert bodies(app, "GET /pets/1", "GET /pets/2", "GET /pets/1") == ["pet 1", "pet 2", "pet 1"]
        assert runs == [1, 2]
        gate.stage().cache.invalidate(method="GET /pets/{pk}")
        assert bodies(app, "GET /pets/1") == ["pet 1"]
    assert runs == [1, 2, 1]


@pytest.mark.parametrize("with_gate", [True, False], ids=["gate", "no gate"])
@pytest.mark.parametrize("order", ["cache outside", "throttle outside"])
def test_stacked_with_a_throttle_in_any_order_hits_are_counted_too(via, order, with_gate):
    gate = gateway()
    view = Calls()
    limit, cache = gate.throttle("3/minute"), gate.cache(ttl=60)

    def page(request):
        return view(request)

    decorated = cache(limit(page)) if order == "cache outside" else limit(cache(page))
    with project(via, [path("x", decorated)], gate if with_gate else None) as app:
        assert [ask(app, "GET /x").status for _ in range(4)] == [200, 200, 200, 429]
    assert view.number == 1


def test_without_a_gate_what_is_not_the_views_own_fault_is_not_stored(via):
    """A session is written by middleware that stands outside of a decorated view."""
    gate = gateway()
    view = Calls()
    view.changed = lambda request, response: request.session.__setitem__("user", view.number)

    @gate.cache(ttl=60)
    def page(request):
        return view(request)

    with project(via, [path("x", page)], None, after=[SESSION], **SESSIONS) as app:
        assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 2"]


def test_without_a_gate_a_template_is_stored_as_it_was_rendered(via):
    gate = gateway()
    runs = []

    @gate.cache(ttl=60)
    def page(request):
        runs.append(1)
        return TemplateResponse(request, engines["django"].from_string("number {{ n }}"), {"n": len(runs)})

    templates = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
    with project(via, [path("x", page)], None, TEMPLATES=templates) as app:
        assert bodies(app, "GET /x", "GET /x") == ["number 1", "number 1"]
    assert runs == [1]


def test_without_a_gate_a_stream_is_kept_and_conditions_are_answered(via):
    gate = gateway()
    runs = []

    @gate.cache(ttl=60)
    def page(request):
        runs.append(1)
        chunks = iter([b"1", b"2"])
        if via == "asgi":
            chunks = later()
        return StreamingHttpResponse(chunks, headers={"ETag": '"one"'})

    async def later():
        yield b"1"
        yield b"2"

    with project(via, [path("x", page)], None) as app:
        assert bodies(app, "GET /x", "GET /x") == ["12", "12"]
        assert ask(app, "GET /x", {"If-None-Match": '"one"'}).status == 304
    assert runs == [1]


def test_without_a_gate_a_stale_response_is_served_when_the_view_raises(via):
    clock = FakeClock()
    gate = gateway(clock=clock)
    view = Calls()

    def fail(request, response):
        if view.number > 1:
            raise RuntimeError("no")

    view.changed = fail

    @gate.cache(ttl=60, stale_if_error=60)
    def page(request):
        return view(request)

    with project(via, [path("x", page)], None) as app:
        ask(app, "GET /x")
        clock.advance(90)
        assert ask(app, "GET /x").body == b"call 1"
        clock.advance(60)
        assert ask(app, "GET /x").status == 500


def test_a_method_setting_comes_before_the_decorator(via):
    gate = gateway(methods={"GET /x": Method(cache=None)})
    view = Calls()
    with project(via, [path("x", gate.cache(ttl=60)(view))], gate) as app:
        assert bodies(app, "GET /x", "GET /x") == ["call 1", "call 2"]


def test_a_view_that_another_view_calls_is_simply_called(via):
    gate = gateway()
    inner = Calls()

    @gate.cache(ttl=60)
    def cached_page(request):
        return inner(request)

    def outer(request):
        return cached_page(request)

    with project(via, [path("x", outer), path("y", cached_page)], gate) as app:
        assert bodies(app, "GET /x", "GET /x", "GET /y", "GET /y") == ["call 1", "call 2", "call 3", "call 3"]


def test_outside_of_any_request_a_decorated_view_is_simply_called():
    view = gateway().cache(ttl=60)(hello)
    assert view(SimpleNamespace(method="GET")).content == b"hello"


def test_wrong_settings_are_named():
    gate = gateway()
    with pytest.raises(ConfigurationError, match="with parentheses"):
        gate.cache(hello)
    with pytest.raises(ConfigurationError, match="not both"):
        gate.cache(CachePolicy(), ttl=60)
    with pytest.raises(ConfigurationError, match="ttll"):
        gate.cache(ttll=60)
    with pytest.raises(ConfigurationError, match="cannot be called"):
        gate.cache(ttl=60)("x")


# ---- warming


def test_what_was_warmed_is_there_for_the_first_client_and_took_from_no_limit(via):
    view = fresh()
    gate = cached(throttle="1/day")
    urls = ["http://testserver/x", ("http://testserver/x", {"accept": "text/html"}), "http://testserver/none"]
    with project(via, [path("x", view)], gate, ALLOWED_HOSTS=["testserver"]) as app:
        assert warm(urls) == 1
        assert warm(urls[:1]) == 0
        told = ask(app, "GET /x", {"host": "testserver"})
    assert "hit" in told.headers["cache-status"]
    assert view.number == 1


def test_a_gateway_warms_the_project_once_however_often_its_middleware_is_loaded(via):
    view, private = fresh(), Calls(Cache_Control="private")
    gate = cached()
    urls = ["http://testserver/x", "http://testserver/private"]
    with project(via, [path("x", view), path("private", private)], gate, ALLOWED_HOSTS=["testserver"]) as app:
        ask(app, "GET /none", {"host": "testserver"})  # loads the middleware under ASGI too
        assert [gate.warm(urls), gate.warm(urls)] == [1, 0]
    assert (view.number, private.number) == (1, 2)


def test_no_client_can_pass_for_one_that_warms(via):
    with project(via, [path("x", fresh())], cached(throttle="1/day")) as app:
        fields = {"apigate.unasked": "1", "apigate-unasked": "1"}
        assert [ask(app, "GET /x", fields).status for _ in range(2)] == [200, 429]


def test_https_and_http_have_responses_of_their_own():
    view = fresh()
    with project("asgi", [path("x", view)], cached()) as app:
        seen = [asyncio.run(_by(app, scheme)) for scheme in ("http", "https", "https")]
    assert seen == [b"call 1", b"call 2", b"call 2"]


async def _by(app, scheme):
    sent = []
    asked = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        if asked:
            return asked.pop()
        return await asyncio.get_running_loop().create_future()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "scheme": scheme, "path": "/x", "query_string": b"", "headers": []}
    await app({**scope, "server": ("testserver", 80), "client": ("192.0.2.1", 1)}, receive, send)
    return b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize(
    "decorated",
    [lambda inner: inner.cache(ttl=60), lambda inner: inner.throttle("9/second")],
    ids=["cache", "throttle"],
)
def test_what_a_view_that_is_its_own_gate_answers_for_one_a_gate_further_out_does_not_keep(via, decorated):
    inner = gateway(name="inner", policies=[ByToken()])
    view = decorated(inner)(lambda request: HttpResponse(request.headers.get("x-token", "nobody")))
    outer = gateway(cache=ResponseCache(policy=CachePolicy(60)))
    with project(via, [path("a", view)], outer) as app:
        for who in ("alice", "bob"):
            assert ask(app, "GET /a", {"x-token": who}).body == who.encode()
        assert ask(app, "GET /a").body == b"nobody"


def test_nor_what_is_asked_for_anew_behind_the_answer_to_one(via):
    inner = gateway(name="inner", policies=[ByToken()])

    @inner.throttle("9/second")
    def view(request):
        return HttpResponse(request.headers.get("x-token", "nobody"))

    def asked_to_the_end(app, headers):
        if via == "asgi":
            return asyncio.run(asked_by_task(app, headers))
        answer = ask(app, "GET /a", headers)
        for thread in threading.enumerate():
            if thread.name == "apigate refresh":
                thread.join(20)
        return answer

    async def asked_by_task(app, headers):
        answer = await exchanged(app, "GET", "/a", headers)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        return answer

    outer = gateway(cache=ResponseCache(policy=CachePolicy(60, stale_while_revalidate=600)))
    with project(via, [path("a", view)], outer) as app:
        ask(app, "GET /a")
        outer.clock.advance(61)
        assert asked_to_the_end(app, {"x-token": "alice"}).body == b"nobody"
        assert [ask(app, "GET /a").body for _ in range(2)] == [b"nobody"] * 2


def test_a_view_that_is_its_own_gate_is_not_asked_by_head_for_what_is_stored_for_get(via):
    gate = gateway()

    @gate.cache(ttl=60, stale_while_revalidate=600)
    def view(request):
        return HttpResponse("" if request.method == "HEAD" else "page")

    with project(via, [path("a", view)], None) as app:
        assert ask(app, "GET /a").body == b"page"
        gate.clock.advance(61)
        assert ask(app, "HEAD /a").status == 200
        assert ask(app, "GET /a").body == b"page"
