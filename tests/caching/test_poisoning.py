"""Ways to have something stored for others, which one request finds that an app and a cache understand differently."""

import tracemalloc
from io import BytesIO
from operator import methodcaller

import pytest
from asgiref.wsgi import WsgiToAsgi
from django.core.handlers.asgi import ASGIRequest
from django.test import AsyncRequestFactory
from flask import Flask, request

from apigate import CachePolicy, ConfigurationError, Gateway, Method, ResponseCache, Stage, asgi, wsgi
from apigate.caching.codec import decode, encode
from apigate.caching.entry import StoredResponse
from apigate.core.policy import Phase
from apigate.routing.django_exchange import has_read_content
from apigate.staging.selector import Header
from apigate.stores.cache_file import FileResponses
from tests.caching.asking import Reply, World, cached, numbered

ORIGIN = "https://shop.example"


def test_an_origin_with_a_comma_takes_no_permission_from_the_same_without(world):
    def answered(seen):
        allowed = [("Access-Control-Allow-Origin", ORIGIN)] if seen.fields.get("origin") == ORIGIN else []
        return Reply(200, cached(("Vary", "Origin"), *allowed))

    shop = world(answered)
    for sent in (f"{ORIGIN},", f",{ORIGIN}", f"{ORIGIN} "):
        shop.ask(origin=sent)
    assert shop.ask(origin=ORIGIN).one("access-control-allow-origin") == ORIGIN


@pytest.mark.parametrize(
    ("name", "sent", "usual"),
    [
        ("accept", "TEXT/HTML", "text/html"),
        ("accept", "application/json, text/html", "application/json,text/html"),
        ("accept-language", "de,", "de"),
        ("x-tenant", "alice,", "alice"),
        ("x-filter", '{"name":"a,b"}', '{"name":"a, b"}'),
    ],
)
def test_a_value_that_an_app_tells_apart_is_another_variant(world, name, sent, usual):
    shop = world(lambda seen: Reply(200, cached(("Vary", name)), (repr(seen.fields[name]).encode(),)))
    shop.ask(fields=[(name, sent)])
    assert shop.ask(fields=[(name, usual)]).body == repr(usual).encode()
    assert shop.ask(fields=[(name, usual)]).hit


@pytest.mark.parametrize("name", ["x_forwarded_host", "x_forwarded-host", "x-forwarded_host"])
def test_a_field_with_underscores_counts_as_what_wsgi_makes_of_it(name):
    def answered(seen):
        fields = {name.replace("_", "-"): value for name, value in seen.fields.items()}  # as a bridge to WSGI does
        return Reply(200, cached(), (fields.get("x-forwarded-host", "none").encode(),))

    shop = World("asgi", answered)
    assert shop.ask(fields=[(name, "evil.example")]).body == b"evil.example"
    assert shop.ask().body == b"none"
    shop.close()


def test_a_varying_field_with_underscores_counts_as_what_wsgi_makes_of_it():
    def answered(seen):
        fields = {name.replace("_", "-"): value for name, value in seen.fields.items()}
        return Reply(200, cached(("Vary", "Accept-Language")), (fields.get("accept-language", "none").encode(),))

    shop = World("asgi", answered)
    assert shop.ask(fields=[("accept_language", "de")]).body == b"de"
    assert shop.ask().body == b"none"
    shop.close()


def test_a_query_written_like_one_that_was_normalized_is_another(world):
    def answered(seen):
        if " " in seen.query:  # some servers let spaces pass in HTTP/2
            return Reply(200, cached(), (b"evil",))
        return Reply(200, cached(("No-Vary-Search", 'params=("utm")')), (seen.query.encode(),))

    shop = world(answered)
    assert shop.ask("/pets?ordered but utm? page=1").body == b"evil"
    shop.ask("/pets?page=2&utm=x")
    assert shop.ask("/pets?page=1").body == b"page=1"


def test_mounts_whose_path_does_not_tell_them_are_told_apart():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": scope["root_path"].encode()})

    shop = World("asgi")
    shop.wrapped = asgi.GatewayMiddleware(app, shop.gateway)

    def ask(root):
        sent = []

        async def send(message):
            sent.append(message)

        scope = {**shop.scope("/pets", "GET", [("host", "shop.example")]), "root_path": root}
        del scope["raw_path"]
        shop.loop.run_until_complete(shop.wrapped(scope, None, send))
        return sent[1]["body"]

    assert [ask(root) for root in ("/one", "/two", "/one")] == [b"/one", b"/two", b"/one"]
    shop.close()


def test_whom_the_server_has_identified_is_not_answered_for_all():
    def app(environ, start_response):
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return [environ.get("REMOTE_USER", "nobody").encode()]

    shop = World("wsgi", policy=CachePolicy(ttl=60))
    shop.wrapped = wsgi.GatewayMiddleware(app, shop.gateway)

    def ask(**more):
        environ = {**shop.environ("/account", "GET", b"", [("host", "shop.example")]), **more}
        return b"".join(shop.wrapped(environ, lambda *_: None))

    assert ask(REMOTE_USER="alice") == b"alice"
    assert ask() == b"nobody"
    assert ask(REMOTE_USER="bob") == b"bob"
    assert ask(REMOTE_USER="") == b"nobody"


@pytest.mark.parametrize("method", ["get", "Head", "options"])
def test_a_safe_method_in_lower_case_invalidates_nothing(world, method):
    shop = world(numbered(*cached()))
    assert shop.ask().body == b"1"
    shop.ask(method=method)
    assert shop.ask().body == b"1"


# ---- content of a GET, of which over HTTP/2 no field tells


def test_content_that_no_field_tells_of_poisons_nobody():
    shop = World("asgi", lambda seen: Reply(200, cached(), (b"echo " + seen.body,)))

    def ask(body):
        sent = []
        inbox = [{"type": "http.request", "body": body}]

        async def receive():
            return inbox.pop()

        async def send(message):
            sent.append(message)

        scope = {**shop.scope("/", "GET", [("host", "shop.example")]), "http_version": "2"}
        shop.loop.run_until_complete(shop.wrapped(scope, receive, send))
        return b"".join(message.get("body", b"") for message in sent)

    assert ask(b"evil") == b"echo evil"
    assert ask(b"") == b"echo "
    assert ask(b"evil") == b"echo "
    shop.close()


@pytest.mark.parametrize(
    "read",
    [methodcaller("read"), methodcaller("readline"), lambda stream: b"".join(stream.readlines()), b"".join],
    ids=["read", "readline", "readlines", "iterated"],
)
def test_content_that_no_field_tells_of_poisons_nobody_under_wsgi(read):
    def app(environ, start_response):
        start_response("200 OK", cached())
        return [b"echo " + read(environ["wsgi.input"])]

    shop = World("wsgi")
    shop.wrapped = wsgi.GatewayMiddleware(app, shop.gateway)

    def ask(body):
        environ = {**shop.environ("/", "GET", body, [("host", "shop.example")]), "wsgi.input_terminated": True}
        return b"".join(shop.wrapped(environ, lambda *_: None))

    assert [ask(b"evil"), ask(b""), ask(b"evil")] == [b"echo evil", b"echo ", b"echo "]


def test_content_that_no_field_tells_of_poisons_nobody_at_a_view_of_flask():
    app, gateway = Flask(__name__), Gateway()

    @app.get("/echo")
    @gateway.cache(ttl=60)
    def echo():
        return b"echo " + request.get_data()

    def ask(body):
        environ = {"wsgi.input_terminated": True, "wsgi.input": BytesIO(body), "SERVER_PROTOCOL": "HTTP/2"}
        return app.test_client().get("/echo", environ_overrides=environ).data

    assert [ask(b"evil"), ask(b"")] == [b"echo evil", b"echo "]


def test_content_that_no_field_tells_of_poisons_nobody_at_a_view_of_django():
    asked = AsyncRequestFactory().get("/echo")
    assert not has_read_content(asked)
    assert asked.body == b""
    assert not has_read_content(asked)
    asked = ASGIRequest({**asked.scope, "http_version": "2"}, BytesIO(b"evil"))
    assert not has_read_content(asked)
    assert asked.body == b"evil"
    assert has_read_content(asked)


# ---- several apps behind one gateway, whose views are their own gates


def test_apps_whose_views_are_their_own_gates_do_not_share_what_one_path_means():
    gateway = Gateway()

    def made(name):
        app = Flask(name)

        @app.get("/about")
        @gateway.cache(ttl=60)
        def about():
            return name

        return app.test_client()

    shop, office = made("shop"), made("office")
    assert [app.get("/about").data for app in (office, shop, office)] == [b"office", b"shop", b"office"]


def test_two_stages_do_not_share_one_store_that_cannot_tell_them_apart(tmp_path):
    store = FileResponses(tmp_path / "cache", name="shop")
    stages = [Stage(name, cache=ResponseCache(policy=60, shared=store)) for name in ("one", "two")]
    with pytest.raises(ConfigurationError, match="is of stage 'one' already"):
        Gateway(stage_by=Header("X-Stage"), stages=stages)


# ---- what somebody else has put into a store


@pytest.mark.parametrize(
    ("status", "field"),
    [
        (200, ("X-Odd", "a\r\nSet-Cookie: session=evil")),
        (200, ("X-Odd\r\nSet-Cookie", "session=evil")),
        (200, ("X-Odd", "a\nb")),
        (200, ("X-Odd", "a\0b")),
        (200, ("X-\u20ac", "1")),
        (0, ("X-Odd", "1")),
        (101, ("Upgrade", "websocket")),
        (999, ("X-Odd", "1")),
    ],
)
def test_what_no_server_could_send_is_not_read_from_a_store(status, field):
    def raw(status, *fields):
        response = StoredResponse(
            status=status, fields=fields, body=b"", initial_age=0.0, received_us=0, lifetime=60.0, grace=0.0
        )
        return encode(response, b"", 0.0, 0)

    assert decode(raw(200, ("X-Odd", "\xe4\t\u20ac")), 0.0, 0) is not None
    assert decode(raw(status, field), 0.0, 0) is None


# ---- exhaustion


def test_content_in_endless_empty_parts_takes_no_memory():
    shop = World("asgi", policy=CachePolicy(ttl=60))
    left = iter(range(100_000, -1, -1))

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": next(left) > 0}

    async def send(_):
        pass

    tracemalloc.start()
    try:
        shop.loop.run_until_complete(shop.wrapped(shop.scope("/", "QUERY", []), receive, send))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
        shop.close()


def test_content_in_many_parts_reaches_the_app_as_it_was_sent():
    shop = World("asgi", lambda seen: Reply(200, cached(), (seen.body,)), CachePolicy(max_request_bytes=3))

    def ask(*parts, kind="http.request"):
        inbox = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        inbox.append({"type": kind, "body": b"", "more_body": False})
        sent = []

        async def receive():
            return inbox.pop(0)

        async def send(message):
            sent.append(message)

        shop.loop.run_until_complete(shop.wrapped(shop.scope("/", "QUERY", []), receive, send))
        return b"".join(message.get("body", b"") for message in sent)

    assert ask(b"a", b"", b"bc") == b"abc"
    assert ask(b"ab", b"cd", b"ef") == b"abcdef"
    assert ask(b"ab", b"c", b"d", b"e") == b"abcde"
    assert ask(b"ab", kind="http.disconnect") == b"ab"
    shop.close()


@pytest.mark.parametrize("is_shared", [False, True])
def test_unsafe_requests_to_long_paths_forget_nothing_else(world, tmp_path, is_shared):
    """A client may send any number of them; each is told to other workers by its digest."""
    shared = {"shared": f"file://{tmp_path}/cache"} if is_shared else {}
    shop = world(numbered(), CachePolicy(ttl=60), cache=shared)
    long = "/items/" + "a" * 600
    shop.ask("/short")
    shop.ask(long)
    assert shop.ask(long).hit
    for number in range(1_100):
        assert shop.ask(f"{long}{number}", method="PUT").status == 200
    assert shop.ask("/short").hit
    assert shop.ask(long).hit
    shop.ask(long, method="PUT")
    assert not shop.ask(long).hit


class ByKey:
    """An authorizer: the principal is whoever the key is of."""

    phase = Phase.AUTHORIZE

    def on_request(self, context):
        context.principal = context.request.value("x-api-key")


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_cache_further_out_keeps_nothing_that_a_gate_further_in_has_verified_somebody_for(kind):
    middleware = {"asgi": asgi, "wsgi": wsgi}[kind].GatewayMiddleware
    shop = World(kind, lambda seen: Reply(200, cached(), (seen.fields["x-api-key"].encode(),)), policies=[ByKey()])
    shop.wrapped = middleware(shop.wrapped, Gateway(methods={"*": Method(cache=60)}, clock=shop.clock))
    assert [shop.ask(x_api_key=name).body for name in ("alice", "bob")] == [b"alice", b"bob"]
    shop.close()


def bridged(respond):
    """A WSGI app behind a bridge: there `X_Tenant` and `X-Tenant` are one field."""
    shop = World("asgi", respond)
    shop.wrapped = asgi.GatewayMiddleware(WsgiToAsgi(shop._wsgi_app), shop.gateway)
    return shop


BRIDGED = pytest.mark.filterwarnings("ignore:async_to_sync was passed a non-async-marked callable")  # of the bridge


@BRIDGED
def test_a_field_with_an_underscore_is_the_one_that_a_bridge_to_wsgi_takes_it_for():
    fields = cached(("Vary", "X-Tenant"))
    shop = bridged(lambda seen: Reply(200, fields, (seen.fields.get("x-tenant", "nobody").encode(),)))
    assert shop.ask(fields=[("X_Tenant", "mallory")]).body == b"mallory"
    assert shop.ask().body == b"nobody"
    assert shop.ask().hit
    shop.close()


@BRIDGED
def test_nor_may_it_stand_for_the_condition_of_the_cache():
    """The app would call current what is not, and everybody would be given it again."""
    version = iter((b"old", b"new", b"new"))

    def respond(seen):
        if "2050" in seen.fields.get("if-modified-since", ""):
            return Reply(304, cached())
        return Reply(200, cached(("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")), (next(version),))

    shop = bridged(respond)
    assert shop.ask().body == b"old"
    shop.clock.advance(61)
    assert shop.ask(fields=[("If_Modified_Since", "Sat, 01 Jan 2050 00:00:00 GMT")]).body == b"new"
    assert shop.ask().body == b"new"
    shop.close()


def test_an_app_that_changes_the_path_of_its_request_has_the_one_that_came_forgotten():
    """As ProxyFix does with the prefix of a proxy."""
    shop = World("wsgi", numbered(), CachePolicy(ttl=60))
    within = shop.wrapped.app

    def moved(environ, start_response):
        environ["PATH_INFO"] = f"/elsewhere{environ['PATH_INFO']}"
        return within(environ, start_response)

    shop.wrapped.app = moved
    shop.ask("/pets")
    assert shop.ask("/pets").hit
    shop.ask("/pets", method="PUT")
    assert not shop.ask("/pets").hit
    shop.close()


def test_what_forwarded_says_of_the_host_counts_to_the_letter_and_who_asks_does_not(world):
    shop = world(numbered(), CachePolicy(ttl=60))
    sent = ["for=192.0.2.1;host=a", 'For="[2001:db8::1]:80";host=a', "for=1 host=evil;host=a", "for=1;host=A"]
    assert [shop.ask(forwarded=each).body for each in sent] == [b"1", b"1", b"2", b"3"]


def test_a_stored_205_says_that_it_has_no_content(world):
    shop = world(lambda _: Reply(205, (), ()), CachePolicy(ttl=60, statuses=[205]))
    assert not shop.ask().hit
    assert shop.ask().one("content-length") == "0"
