"""A cache as a setting of stages and methods, and what is told of it: lint, listings, explanations, events, warming."""

import asyncio
import gc

import pytest

from apigate import CachePolicy, ConfigurationError, Gateway, Method, ResponseCache, Stage
from apigate.asgi import GatewayMiddleware as ASGIGateway
from apigate.audit import audit
from apigate.caching.settings import KeyParts
from apigate.core.events import CacheLooked
from apigate.core.policy import Phase
from apigate.staging.selector import PathPrefix
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware as WSGIGateway
from tests.response_stores import LoggedStore

TTL = {"*": Method(cache=CachePolicy(ttl=60))}


class App:
    """Counts what reaches it."""

    def __init__(self, headers=()):
        self.asked = []
        self.headers = list(headers)

    def wsgi(self, environ, start_response):
        self.asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5"), *self.headers])
        return [b"three"]

    async def asgi(self, scope, receive, send):
        self.asked.append(f"{scope['method']} {scope['path']}")
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"three"})


class Badge:
    """Verifies whoever says who it is."""

    phase = Phase.AUTHORIZE

    def on_request(self, context):
        context.principal = context.request.headers.get("badge")


def ask(gate, path="/pets", verb="GET", **fields):
    environ = {
        "REQUEST_METHOD": verb,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "HTTP_HOST": "shop.example",
        "wsgi.url_scheme": "https",
        **{f"HTTP_{name.upper()}": value for name, value in fields.items()},
    }
    told = {}

    def start_response(status, headers, _=None):
        told.update({name.lower(): value for name, value in headers}, status=status)

    body = gate(environ, start_response)
    content = b"".join(body)
    getattr(body, "close", lambda: None)()
    return told, content


# ---- settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cache": 5}, "cache: 5 is not a ResponseCache"),
        ({"cache": {"max_byte": 1}}, "did you mean 'max_bytes'"),
        ({"cache": {"max_bytes": "1 XB"}}, "is no size"),
        ({"cache": {"max_bytes": 0}}, "max_bytes"),
        ({"cache": {"max_bytes": 60}}, "60 has room for no response, as each takes 2,400 bytes and more; give a size"),
        ({"cache": {"max_bytes": "2KB"}}, "'2KB' has room for no response"),
        ({"cache": {"shared": 7}}, "cache shared: 7 is not"),
        ({"cache": {"shared": True}}, "keeps no responses"),
        ({"cache": {"shared": "ftp://x"}}, "ftp"),
        ({"cache": {"max_lag": 0}}, "max_lag: 0 is not a number of seconds"),
        ({"cache": {"policy": {"ttl": -1}}}, "ttl: -1 is not a number of seconds"),
        ({"methods": {"GET /x": {"cache": [7]}}}, "not a CachePolicy"),
        ({"methods": {"GET /x": {"cache": {"tll": 7}}}}, "did you mean 'ttl'"),
        ({"methods": {"GET /x": {"cache": {"key": {"querry": "kept"}}}}}, "did you mean 'query'"),
        ({"methods": {"GET /x": {"cache": {"key": {"query": "some"}}}}}, "'some' is unknown"),
        ({"methods": {"GET /x": {"cache": {"key": {"headers": ["a b"]}}}}}, "'a b' is not the name of a field"),
        ({"methods": {"GET /x": {"cache": {"methods": ["PUT"]}}}}, "'PUT' cannot be cached"),
        ({"methods": {"GET /x": {"cache": {"statuses": [206]}}}}, "206 is not a status"),
        ({"methods": {"GET /x": {"cache": {"per": "claim:"}}}}, "'claim:' is unknown"),
        ({"methods": {"GET /x": {"cache": {"jitter": 2}}}}, "jitter: 2 is not a number from 0 to 1"),
        ({"methods": {"GET /x": {"cache": {"unauthorized": "no"}}}}, "allowed are FAIL_WITH_403"),
        *(
            ({"methods": {"GET /x": {"cache": {"unauthorized": kind}}}}, f"'{kind}' has no effect without invalidate")
            for kind in ("FAIL_WITH_403", "SUCCEED_WITHOUT_RESPONSE_HEADER")
        ),
        ({"methods": {"GET /x": {"cache": {"cookies": "sid"}}}}, "'sid' is not a list of texts"),
        ({"methods": {"GET /x": {"cache": {"invalidate": True}}}}, "True is not a function"),
    ],
)
def test_what_cannot_be_used_is_said_when_the_gateway_is_built(settings, said):
    with pytest.raises(ConfigurationError, match=said.replace("(", r"\(")):
        Gateway.from_dict(settings)


def test_a_strategy_for_those_who_may_not_invalidate_needs_somebody_who_may():
    for make in (CachePolicy, CachePolicy.amazon):
        with pytest.raises(ConfigurationError, match="unauthorized: 'FAIL_WITH_403' has no effect without invalidate"):
            make(unauthorized="FAIL_WITH_403")
        assert make(unauthorized="FAIL_WITH_403", invalidate=bool).invalidate is bool


def test_the_same_cache_is_not_that_of_two_stages():
    cache = ResponseCache()
    with pytest.raises(ConfigurationError, match="make one for"):
        Gateway(stages=[Stage("a", cache=cache, methods=TTL), Stage("b", cache=cache, methods=TTL)], stage_by="host")


def test_a_table_says_the_same_as_the_objects():
    table = {"cache": {"max_bytes": "1MB"}, "methods": {"GET /pets": {"cache": {"ttl": 60, "key": {"query": ["a"]}}}}}
    policy = Gateway.from_dict(table).stage().settings.methods["GET /pets"].cache
    assert policy == CachePolicy(ttl=60, key=KeyParts(query=["a"]))


@pytest.mark.parametrize("off", [None, "off"])
def test_a_method_or_a_stage_without_cache_asks_the_app_each_time(off):
    for settings in (
        {"cache": ResponseCache(), "methods": {**TTL, "GET /pets": Method(cache=off)}},
        {"cache": off, "methods": TTL},
    ):
        app = App()
        gate = WSGIGateway(app.wsgi, Gateway(**settings))
        assert [ask(gate)[1], ask(gate)[1]] == [b"three", b"three"]
        assert len(app.asked) == 2


def test_a_method_with_a_policy_needs_no_cache_of_the_stage():
    app = App()
    gate = WSGIGateway(app.wsgi, Gateway(methods={"GET /pets": Method(cache={"ttl": 60})}))
    ask(gate), ask(gate), ask(gate, "/others"), ask(gate, "/others")
    assert app.asked == ["GET /pets", "GET /others", "GET /others"]


def test_what_a_stage_has_stored_stays_when_its_settings_change():
    app = App()
    gateway = Gateway(cache=ResponseCache(), methods=TTL)
    gate = WSGIGateway(app.wsgi, gateway)
    ask(gate)
    gateway.stage().update(throttle="100/second")
    assert ask(gate)[0]["cache-status"].startswith("apigate; hit")
    gateway.stage().update("*", cache=None)
    ask(gate)
    assert len(app.asked) == 2


def test_two_methods_at_one_path_are_cached_only_if_they_are_cached_alike():
    for other, times in ((CachePolicy(ttl=60), 1), (CachePolicy(ttl=30), 2), (None, 2)):
        app = App()
        methods = {"GET /{name}": Method(cache=other), "GET /{name}/": Method(cache=CachePolicy(ttl=60))}
        gate = WSGIGateway(app.wsgi, Gateway(methods=methods))
        ask(gate, "/pets/"), ask(gate, "/pets/")
        assert len(app.asked) == times


def test_two_apps_behind_one_gateway_have_responses_of_their_own():
    shop, office = App(), App()
    gateway = Gateway(methods=TTL)
    gates = [WSGIGateway(app.wsgi, gateway) for app in (shop, office, shop)]
    for gate in gates:
        ask(gate), ask(gate)
    assert (len(shop.asked), len(office.asked)) == (1, 1)


# ---- operators


@pytest.mark.parametrize(
    ("named", "gone"),
    [
        ({"path": "/pets"}, True),
        ({"path": "/pet"}, False),
        ({"prefix": "/pe"}, True),
        ({"prefix": "/x"}, False),
        ({"tag": "animals"}, True),
        ({"tag": "plants"}, False),
        ({"method": "GET /pets"}, True),
        ({"method": "GET /plants"}, False),
    ],
)
def test_what_is_invalidated_is_asked_for_again(named, gone):
    app = App()
    method = Method(cache=CachePolicy(ttl=60, tags=["animals"]))
    gateway = Gateway(methods={"GET /pets": method, "GET /plants": method})
    gate = WSGIGateway(app.wsgi, gateway)
    ask(gate)
    gateway.stage().cache.invalidate(**named)
    ask(gate)
    assert len(app.asked) == (2 if gone else 1)


@pytest.mark.parametrize("named", [{}, {"path": "/", "tag": "x"}, {"path": 5}])
def test_an_invalidation_names_exactly_one_thing(named):
    with pytest.raises(ConfigurationError, match="exactly one"):
        ResponseCache().invalidate(**named)


def test_a_flush_forgets_all_and_frees_the_room():
    app = App()
    gateway = Gateway(methods=TTL)
    gate = WSGIGateway(app.wsgi, gateway)
    ask(gate), ask(gate, "/others")
    cache = gateway.stage().cache
    assert cache.stats()["entries"] == 2
    cache.flush()
    assert cache.stats() == {"bytes": 0, "entries": 0, "evictions": 0, "expirations": 0}
    asyncio.run(cache.flush_async())
    ask(gate)
    assert len(app.asked) == 3


def test_a_stage_without_cache_says_so():
    with pytest.raises(ConfigurationError, match="has no cache"):
        _ = Gateway(cache=None).stage().cache


def test_requests_are_counted_by_what_became_of_them():
    app, clock, told = App(), FakeClock(), []
    policy = CachePolicy(ttl=60, stale_while_revalidate=60)
    gateway = Gateway(methods={"GET /pets": Method(cache=policy)}, clock=clock, on_event=told.append)
    gate = WSGIGateway(app.wsgi, gateway)
    ask(gate), ask(gate), ask(gate, cookie="a=b")
    clock.advance(61)
    ask(gate)
    counts = gateway.stats()["default"]["GET /pets"]
    assert counts == {"admitted": 4, "cache:hit": 1, "cache:stale": 1, "cache:miss": 1, "cache:bypass": 1}
    assert [event.outcome for event in told if isinstance(event, CacheLooked)] == ["miss", "hit", "bypass", "stale"]
    assert {event.path for event in told} == {"/pets"}


def test_who_listens_is_told_why_a_request_went_to_the_app():
    told, clock, login = [], FakeClock(), App([("Set-Cookie", "sid=1")])
    gateway = Gateway(methods=TTL, clock=clock, on_event=told.append)
    gate, other = WSGIGateway(App([("Vary", "Accept")]).wsgi, gateway), WSGIGateway(login.wsgi, gateway)
    ask(gate), ask(gate), ask(gate, accept="text/html"), ask(gate, cookie="a=b"), ask(gate, verb="PUT")
    ask(gate, verb="OPTIONS"), ask(gate)
    clock.advance(61)
    ask(gate), ask(other, "/login"), ask(other, "/login")
    assert [event.reason for event in told] == [
        "uri-miss",
        None,
        "vary-miss",
        "bypass: it has cookies, and the policy has a ttl and names none",
        "method",
        "method: its method is not cached here",
        "uri-miss",  # as the PUT has invalidated it
        "stale",
        "uri-miss",
        "uri-miss: the last answer was not stored: Set-Cookie of 'sid'",
    ]


# ---- explanations


def notes(gateway, verb="GET", path="/pets", **fields):
    return [note for note in gateway.explain(verb, path, fields).notes if note.startswith("cache:")]


def test_an_explanation_says_what_would_be_served_and_why():
    app, clock = App(), FakeClock()
    gateway = Gateway(methods={"GET /pets": Method(cache=CachePolicy(ttl=60))}, clock=clock)
    gate = WSGIGateway(app.wsgi, gateway)
    asked = {"host": "shop.example"}
    made = (
        "cache: its policy is 60 s, GET HEAD QUERY; "
        "its key is verb, scheme, host, path, the query as it was sent, keyed as public"
    )
    assert notes(gateway, **asked) == ["cache: nothing that it may be given is stored, so the app is asked", made]
    ask(gate)
    url = "https://shop.example/pets"
    clock.advance(20)
    kept = "cache: a response of 200, keyed as public, 20 s old, fresh for 40 s more: it is served"
    assert notes(gateway, path=url) == [kept]
    assert notes(gateway, cookie="a=b") == [
        "cache: it passes by: it has cookies, and the policy has a ttl and names none"
    ]


def test_an_explanation_says_why_the_last_answer_was_not_stored():
    app = App([("Set-Cookie", "sid=1")])
    gateway = Gateway(methods=TTL)
    asyncio.run(ask_async(ASGIGateway(app.asgi, gateway)))
    note, _ = notes(gateway, path="https://shop.example/pets")
    assert note.endswith("the last answer was not stored: Set-Cookie of 'sid'")


def test_an_explanation_says_that_no_host_was_given():
    gateway = Gateway(methods=TTL)
    ask(WSGIGateway(App().wsgi, gateway))
    assert notes(gateway)[0] == (
        "cache: no host was given, which is part of the key; give the whole URL or a Host to find what is stored"
    )
    assert "is served" in notes(gateway, path="https://shop.example/pets")[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "as the app says, GET HEAD QUERY; its key is verb, scheme, host, path, the query as it was sent, keyed"),
        ({"key": {"query": "sorted", "path": False}}, "host, decoded path, the query sorted by name, keyed as public"),
        ({"key": {"query": ["size", "page"], "headers": ["X-Tenant"]}}, "of the query page, size, the field x-tenant,"),
        ({"key": {"query": []}, "cookies": ["b", "a"]}, "of the query nothing, the cookie a, the cookie b, keyed"),
        ({"ttl": 5, "cookies": "ignore", "per": "public"}, "5 s, GET HEAD QUERY, per public; its key is verb, scheme"),
        ({"per": lambda request: "me"}, ", per function; its key is verb, scheme, host, path, the query as it was"),
    ],
)
def test_an_explanation_of_a_miss_says_by_which_terms_and_what_the_key_is(settings, said):
    assert said in notes(Gateway(methods={"*": Method(cache=settings)}), path="https://shop.example/pets")[1]


def test_an_explanation_may_be_told_who_is_asking():
    app, clock, url = App(), FakeClock(), "https://shop.example/pets"
    policy = CachePolicy(ttl=60, per="principal")
    gateway = Gateway(methods={"*": Method(cache=policy)}, policies=[Badge()], clock=clock)
    ask(WSGIGateway(app.wsgi, gateway), badge="ada")
    assert "nobody can tell" in gateway.explain("GET", url).notes[-1]
    assert "keyed as principal, 0 s old" in gateway.explain("GET", url, principal="ada").notes[-1]
    assert "keyed as principal" in asyncio.run(gateway.explain_async("GET", url, principal="bob")).notes[-1]
    assert "nothing that it may be given" in gateway.explain("GET", url, principal="bob").notes[-2]


@pytest.mark.parametrize("is_awaited", [False, True])
def test_an_explanation_looks_where_workers_share_responses(is_awaited):
    store, clock = LoggedStore(is_awaited=is_awaited), FakeClock()

    def worker():
        gateway = Gateway(name="shop", methods=TTL, cache=ResponseCache(shared=store), clock=clock)
        return gateway, ASGIGateway(App().asgi, gateway)

    async def first_note(gateway, verb="GET"):
        return (await gateway.explain_async(verb, "https://shop.example/pets")).notes[0]

    async def look():
        (one, gate), (other, _), (third, _) = worker(), worker(), worker()
        await ask_async(gate)
        clock.advance(20)
        kept = "cache: a response of 200, keyed as public, 20 s old, fresh for 40 s more: it is served"
        assert await first_note(third, "HEAD") == "cache: nothing that it may be given is stored, so the app is asked"
        assert await first_note(other) == kept
        await one.stage().cache.invalidate_async(path="/pets")
        for gateway in (one, other, third):
            assert "nothing that it may be given is stored" in await first_note(gateway)

    asyncio.run(look())


@pytest.mark.parametrize(("tag", "said"), [([], "asked anew"), ([("ETag", '"a"')], "asked whether it still holds")])
def test_an_explanation_of_something_stale_says_whether_the_app_can_be_asked_if_it_holds(tag, said):
    clock = FakeClock()
    policy = CachePolicy(ttl=60, stale_if_error=600)
    gateway = Gateway(methods={"*": Method(cache=policy)}, clock=clock)
    ask(WSGIGateway(App(tag).wsgi, gateway))
    clock.advance(61)
    (note,) = notes(gateway, path="https://shop.example/pets")
    assert note == f"cache: a response of 200, keyed as public, stale for 1 s: the app is {said}"


@pytest.mark.parametrize("verb", ["PUT", "POST", "PURGE"])
@pytest.mark.parametrize("methods", [TTL, {"GET /pets": Method(cache=CachePolicy(ttl=60))}])
def test_an_explanation_says_that_an_unsafe_request_invalidates(methods, verb):
    gateway = Gateway(methods=methods)
    assert notes(gateway, verb) == [f"cache: {verb} is not cached here; it invalidates its path, unless it fails"]
    assert notes(gateway, "OPTIONS") == ["cache: OPTIONS is not cached here"]


def test_listings_say_that_an_unsafe_request_invalidates():
    gateway = Gateway(methods={"GET /pets": Method(cache=CachePolicy(ttl=60))})
    for listing in (repr(gateway), "\n".join(audit(gateway))):
        assert "not cached; an unsafe request invalidates its path" in listing
        assert "InvalidatingPolicy" not in listing


async def ask_async(gate, path="/pets"):
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"shop.example")]
    scope = {"type": "http", "method": "GET", "scheme": "https", "path": path, "raw_path": path.encode()}
    await gate({**scope, "query_string": b"", "headers": headers}, receive, send)
    return dict(sent[0]["headers"]), sent[1]["body"]


def test_lint_finds_a_cache_that_each_of_several_workers_has_for_itself(monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    found = {finding.check for finding in Gateway(methods=TTL).lint()}
    assert "cache-of-one-worker" in found
    quiet = Gateway(cache=ResponseCache(shared=False), methods=TTL)
    assert "cache-of-one-worker" not in {finding.check for finding in quiet.lint()}
    assert "cache-of-one-worker" not in {finding.check for finding in Gateway().lint()}


def test_a_listing_shows_what_is_cached():
    gateway = Gateway(methods={"GET /pets": Method(cache=CachePolicy(ttl=60, per="principal"))})
    assert any("60 s, GET HEAD QUERY, per principal" in line for line in audit(gateway))
    assert "cache 60 s" in repr(gateway)


SECONDS = r"'ttl'\?$"
HINTS = [("timeout", SECONDS), ("expire", SECONDS), ("max_age", SECONDS), ("query", r"key=\{'query': \.\.\.\}\?$")]


@pytest.mark.parametrize(("name", "hint"), HINTS)
def test_settings_as_other_caches_have_them_say_what_is_meant(name, hint):
    error = f"{name!r} is no setting; did you mean {hint}"
    with pytest.raises(ConfigurationError, match=f"^cache: {error}"):
        Gateway().cache(**{name: 60})
    with pytest.raises(ConfigurationError, match=f"^Method cache: {error}"):
        Method(cache={name: 60})


@pytest.mark.parametrize("name", ["ttl", "timeout", "max_age"])
def test_a_ttl_of_a_stages_cache_stands_in_its_policy(name):
    with pytest.raises(
        ConfigurationError, match=rf'^ResponseCache: {name!r} is no setting; did you mean policy=\{{"ttl": 60\}}\?'
    ):
        ResponseCache(**{name: 60})
    with pytest.raises(
        ConfigurationError, match=rf"^Stage 'prod' cache: {name!r} is no setting; did you mean policy\.ttl\?"
    ):
        Stage("prod", cache={name: 60})


def test_a_slip_in_a_setting_of_a_cache_says_the_nearest():
    with pytest.raises(ConfigurationError, match=r"^ResponseCache: 'max_byte' is no setting; did you mean 'max_bytes'"):
        ResponseCache(max_byte=1)


def test_a_methods_cache_is_a_policy_and_no_cache():
    with pytest.raises(ConfigurationError, match=r"^Method cache: .*Method\(cache=CachePolicy\(ttl=60\)\)"):
        Method(cache=ResponseCache())
    with pytest.raises(ConfigurationError, match=r"^method 'GET /pets': Method cache: "):
        Gateway().stage().update("GET /pets", cache=ResponseCache())


def test_a_number_of_seconds_is_a_ttl():
    assert Method(cache=60).cache == CachePolicy(ttl=60)
    assert ResponseCache(policy=60).policy == CachePolicy(ttl=60)
    with pytest.raises(ConfigurationError, match="write ttl=60"):
        Gateway().cache(60)


# ---- sharing


@pytest.mark.parametrize("address", ["file:///run/app/cache", "redis://me:secret@localhost:6379/0"])
@pytest.mark.parametrize("settings", [{"cache": True}, {"stages": True}])
def test_what_is_shared_needs_a_name_as_a_store_does(address, settings):
    cache = ResponseCache(shared=address, policy=CachePolicy(ttl=60))
    given = {"cache": cache} if "cache" in settings else {"stages": [Stage("prod", cache=cache)]}
    with pytest.raises(ConfigurationError, match=r"^Gateway name: .* a name is needed") as raised:
        Gateway(**given)
    assert "secret" not in str(raised.value)


def test_what_is_shared_by_the_store_of_the_gateway_needs_a_name(tmp_path):
    for shared in (True, None):
        with pytest.raises(ConfigurationError, match=r"^Gateway name: .* a name is needed"):
            Gateway(store=f"file://{tmp_path}/limits", cache=ResponseCache(shared=shared))


@pytest.mark.parametrize("address", ["ftp://x", "file://x", "file:///run/cache?max_byte=1"])
def test_errors_about_what_is_shared_name_that_setting(address):
    with pytest.raises(ConfigurationError, match=r"^cache shared: "):
        Gateway(name="shop", cache=ResponseCache(shared=address))


# ---- warming

URLS = ["https://shop.example/pets", ("https://shop.example/pets", {"accept": "text/html"}), "https://shop.example/a?b"]


def test_what_was_warmed_is_there_for_the_first_client_and_took_from_no_limit():
    app = App()
    gate = ASGIGateway(app.asgi, Gateway(throttle="1/day", methods=TTL))

    async def serve():
        assert await gate.warm(URLS) == 2
        return await ask_async(gate)

    headers, body = asyncio.run(serve())
    assert headers[b"cache-status"].startswith(b"apigate; hit")
    assert body == b"three"
    assert app.asked == ["GET /pets", "GET /a"]


def test_a_wsgi_app_is_warmed_alike():
    app = App()
    gate = WSGIGateway(app.wsgi, Gateway(throttle="1/day", methods=TTL))
    assert gate.warm(URLS) == 2
    assert gate.gateway.stage().cache.stats()["entries"] == 2
    assert gate.warm(URLS) == 0


def test_a_gateway_warms_all_its_gates():
    gateway, pets, cats = Gateway(methods=TTL), App(), App()
    gates = [WSGIGateway(app.wsgi, gateway) for app in (pets, cats)]
    assert gateway.warm(iter(URLS)) == 4
    assert gateway.warm(URLS) == 0
    assert pets.asked == cats.asked == ["GET /pets", "GET /a"]
    assert [ask(gate)[0]["cache-status"].split(";")[1] for gate in gates] == [" hit", " hit"]


def test_asgi_gates_are_warmed_by_a_task():
    gateway, app = Gateway(methods=TTL), App()
    gate = ASGIGateway(app.asgi, gateway)

    async def serve():
        assert await gateway.warm_async(URLS) == 2
        return await ask_async(gate)

    assert asyncio.run(serve())[0][b"cache-status"].startswith(b"apigate; hit")
    with pytest.raises(ConfigurationError, match="warm_async"):
        gateway.warm(URLS)


def test_without_a_gate_warming_says_what_to_do():
    gateway = Gateway(methods=TTL)
    WSGIGateway(App().wsgi, gateway)  # and it is gone
    gc.collect()
    with pytest.raises(ConfigurationError, match=r"put GatewayMiddleware around it.*lifespan.*apigate\.django"):
        gateway.warm(URLS)
    with pytest.raises(ConfigurationError, match="no ASGI gate"):
        asyncio.run(gateway.warm_async(URLS))


@pytest.mark.parametrize("fields", [[("Cache-Control", "no-store")], [("Set-Cookie", "a=1")]])
def test_only_what_was_stored_is_counted(fields):
    app = App(fields)
    assert WSGIGateway(app.wsgi, Gateway(methods=TTL)).warm(URLS) == 0
    assert asyncio.run(ASGIGateway(app.asgi, Gateway(methods=TTL)).warm(URLS)) == 0
    assert len(app.asked) == 6


def test_a_single_url_is_no_list_of_urls():
    gate = WSGIGateway(App().wsgi, Gateway(methods=TTL))
    for asked in (gate, gate.gateway):
        with pytest.raises(ConfigurationError, match="give a list of URLs"):
            asked.warm("https://shop.example/pets")


@pytest.mark.parametrize("url", ["/pets", "shop.example/pets", "ftp://shop.example/", "https://"])
def test_only_whole_urls_can_be_warmed(url):
    gate = WSGIGateway(App().wsgi, Gateway(methods=TTL))
    with pytest.raises(ConfigurationError, match="whole URL"):
        gate.warm([url])


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (
            ("https://shop.example/pets", "en"),
            "what stands beside 'https://shop.example/pets' is not a mapping of names",
        ),
        (("https://shop.example/pets", {"Accept": 1}), "is not a mapping of names to texts"),
        (("https://shop.example/pets",), "is neither a URL nor a pair"),
        (b"https://shop.example/pets", "is neither a URL nor a pair of a URL and request fields"),
        (None, "None is neither a URL nor a pair"),
    ],
)
def test_what_is_no_request_is_an_error_that_says_what_one_is(request_, said):
    asgi, wsgi = ASGIGateway(App().asgi, Gateway(methods=TTL)), WSGIGateway(App().wsgi, Gateway(methods=TTL))
    with pytest.raises(ConfigurationError, match=f"^warm: .*{said}"):
        wsgi.warm([request_])
    with pytest.raises(ConfigurationError, match=f"^warm: .*{said}"):
        asyncio.run(asgi.gateway.warm_async([request_]))


def test_a_stage_has_a_cache_for_its_own_policies_and_decorators_only_in_whatever_order():
    for names in (("cached", "plain"), ("plain", "cached")):
        stages = [Stage(name, methods=TTL if name == "cached" else {}) for name in names]
        gateway = Gateway(stages=stages, stage_by=PathPrefix())
        assert {name: gateway.stage(name).has_cache for name in names} == {"cached": True, "plain": False}


def test_a_gateway_knows_when_nothing_is_cached_any_more():
    gateway = Gateway(methods={"GET /pets": Method(cache=60)})
    assert (gateway.caches, gateway.reads_content) == (True, True)
    gateway.stage().update("GET /pets", cache=None)
    assert (gateway.caches, gateway.reads_content) == (False, False)
