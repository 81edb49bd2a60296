"""Bugs of other caches, each by its issue or CVE; it fails as they behave and passes here. The numbers are of list 3 of
the research on caches.
"""

import asyncio
import gc
import pickle
import threading

import pytest

from apigate import CachePolicy, Method, ResponseCache, asgi, wsgi
from apigate.caching.codec import decode, encode
from apigate.caching.entry import StoredResponse
from apigate.caching.store import mark_of
from apigate.core.message import Response
from apigate.core.policy import Phase
from tests.caching.asking import Broken, Principal, Reply, World, cached, numbered

PUBLIC = cached()
TTL = CachePolicy(ttl=60)


def stored(**given):
    settled = {"status": 200, "fields": [], "body": b"", "initial_age": 0.0, "received_us": 0, "lifetime": 60.0}
    return StoredResponse(**{**settled, "grace": 0.0, **given})


# ---- 1


class Bomb:
    went_off = False

    def __reduce__(self):
        return setattr, (Bomb, "went_off", True)


def test_1_flask_caching_345_cve_2021_33026_nothing_that_is_stored_is_unpickled():
    for raw in (pickle.dumps(Bomb()), b"sum:0:" + pickle.dumps(Bomb()), b"!" + pickle.dumps(Bomb())):
        assert decode(raw, 0.0, 0) is None
    assert not Bomb.went_off
    raw = encode(stored(body=b"x"), mark_of(b"x" * 8, 0), 0.0, 0)
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(raw)


# ---- 2


def test_2_flask_caching_104_the_answer_to_one_bearer_is_not_given_to_another(world):
    shop = world(lambda seen: Reply(200, (), (seen.fields.get("authorization", "nobody").encode(),)), TTL)
    for who in ("Bearer alice", "Bearer bob"):
        assert shop.ask(authorization=who).body == who.encode()
    assert shop.ask().body == b"nobody"
    assert shop.ask(authorization="Bearer carol").body == b"Bearer carol"


def test_2_no_store_private_and_set_cookie_of_alice_are_not_replayed_to_bob(world):
    shop = world(numbered(("Cache-Control", "no-store, private"), ("Set-Cookie", "session=alice")), TTL)
    assert [shop.ask().body for _ in range(3)] == [b"1", b"2", b"3"]


# ---- 3


class Keys:
    """An authorizer that lets in who has a key."""

    phase = Phase.AUTHORIZE

    def __init__(self):
        self.asked = 0

    def on_request(self, context):
        self.asked += 1
        if context.request.headers.get("x-api-key") != "good":
            return Response("UNAUTHORIZED", 401, [], b"")
        return None


def test_3_apicache_225_a_hit_does_not_skip_the_check_of_the_key(world):
    keys = Keys()
    shop = world(numbered(*PUBLIC), policies=[keys])
    assert shop.ask(x_api_key="good").status == 200
    assert shop.ask(x_api_key="good").hit
    assert shop.ask(x_api_key="bad").status == 401
    assert shop.ask().status == 401
    assert keys.asked == 4


def test_3_kong_5887_principals_do_not_share_what_was_made_for_one(world):
    shop = world(lambda seen: Reply(200, PUBLIC, (seen.fields["authorization"].encode(),)), policies=[Principal()])
    assert shop.ask(authorization="Bearer alice").body == b"Bearer alice"
    assert shop.ask(authorization="Bearer bob").body == b"Bearer bob"


def test_3_aspnetcore_48025_who_is_logged_in_is_cached_too(world):
    shop = world(numbered(*PUBLIC), policies=[Principal()])
    assert [shop.ask(authorization="Bearer alice").body for _ in range(2)] == [b"1", b"1"]
    assert "detail=principal" in shop.ask(authorization="Bearer alice").one("cache-status")


# ---- 4: five CVEs of Django in 2026


@pytest.mark.parametrize("vary", ["Accept, *", "*, Accept", "accept , * "])
def test_4_cve_2026_6907_a_vary_that_contains_a_star_is_not_stored(world, vary):
    shop = world(numbered(*PUBLIC, ("Vary", vary)), TTL)
    assert [shop.ask().body for _ in range(2)] == [b"1", b"2"]


@pytest.mark.parametrize("said", ["Private", "PRIVATE", "No-Store", "NO-CACHE", "Max-Age=60, pRiVaTe"])
def test_4_cve_2026_8404_the_case_of_cache_control_makes_no_difference(world, said):
    shop = world(numbered(("CACHE-control", said)), TTL)
    assert [shop.ask().body for _ in range(2)] == [b"1", b"2"]


def test_4_cve_2026_48588_no_cookie_makes_a_page_public_that_depends_on_another(world):
    shop = world(lambda seen: Reply(200, (), (seen.fields.get("cookie", "").encode(),)), TTL)
    for cookie in ("session=alice; theme=dark", "theme=dark", "session=bob"):
        assert shop.ask(cookie=cookie).body == cookie.encode()
    assert shop.ask().body == b""
    assert shop.ask(cookie="theme=dark").body == b"theme=dark"


def test_4_cve_2026_113593_an_absent_field_is_not_an_empty_one(world):
    shop = world(
        lambda seen: Reply(200, [*PUBLIC, ("Vary", "X-Tenant")], (repr(seen.fields.get("x-tenant")).encode(),))
    )
    assert shop.ask().body == b"None"
    assert shop.ask(x_tenant="").body == b"''"
    assert shop.ask().body == b"None"


def test_4_cve_2026_35192_a_page_that_sets_a_session_cookie_is_not_stored(world):
    shop = world(numbered(*PUBLIC, ("Set-Cookie", "sessionid=1")), TTL)
    assert [shop.ask().body for _ in range(2)] == [b"1", b"2"]


# ---- 5


@pytest.mark.parametrize("policy", [CachePolicy(), TTL, CachePolicy.amazon()])
def test_5_souin_805_set_cookie_is_neither_stored_nor_replayed(world, policy):
    shop = world(numbered(*PUBLIC, ("Set-Cookie", "a=1")), policy)
    assert shop.ask().one("set-cookie") == "a=1"
    assert not shop.ask().hit


def test_5_cookies_that_are_added_outside_the_cache_are_not_in_it():
    shop = World("wsgi", numbered(*PUBLIC))
    visits = iter("abc")

    def outer(environ, start_response):
        cookie = ("Set-Cookie", f"visit={next(visits)}")
        return shop.wrapped(environ, lambda status, headers, *rest: start_response(status, [*headers, cookie], *rest))

    def ask():
        got = []
        list(outer(shop.environ("/", "GET", b"", ()), lambda status, headers, *rest: got.extend(headers)))
        return [value for name, value in got if name == "Set-Cookie"]

    assert [ask(), ask(), ask()] == [["visit=a"], ["visit=b"], ["visit=c"]]
    assert shop.calls == 1


# ---- 6 to 10: one app call for many


class Crowd:
    """Tasks that ask a gateway at once; the app waits until all have asked."""

    def __init__(self, policy, respond, *, cache=None):
        self.shop = World("asgi", None, policy, cache=cache)
        self.calls = 0
        self.gate = asyncio.Event()
        self.respond = respond
        self.wrapped = asgi.GatewayMiddleware(self.app, self.shop.gateway)

    async def app(self, scope, receive, send):
        self.calls += 1
        number = self.calls
        await self.gate.wait()
        await self.respond(number, scope, receive, send)

    async def client(self, path="/", headers=(), left=None):
        sent = []

        async def receive():
            await (left or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if left is not None and left.is_set():
                raise OSError("the client has left")
            sent.append(message)

        await self.wrapped(self.shop.scope(path, "GET", [("host", "shop.example"), *headers]), receive, send)
        return sent

    def run(self, crowd):
        async def all_of_them():
            self.gate = asyncio.Event()
            return await asyncio.wait_for(crowd(), 10)

        try:
            return self.shop.loop.run_until_complete(all_of_them())
        finally:
            self.shop.close()


def answering(*fields, chunks=(b"whole",)):
    async def respond(number, scope, receive, send):
        headers = [(name.encode(), value.format(number).encode()) for name, value in fields]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})

    return respond


def body_of(sent):
    return b"".join(message.get("body", b"") for message in sent)


async def settled():
    for _ in range(50):
        await asyncio.sleep(0)


def test_6_ocache_61_who_waits_does_not_get_the_cookie_of_who_leads():
    crowd = Crowd(TTL, answering(("set-cookie", "session={}")))

    async def go():
        tasks = [asyncio.ensure_future(crowd.client()) for _ in range(20)]
        await settled()
        crowd.gate.set()
        return await asyncio.gather(*tasks)

    cookies = [value for sent in crowd.run(go) for name, value in sent[0]["headers"] if name == b"set-cookie"]
    assert len(set(cookies)) == 20
    assert crowd.calls == 20


def test_6_who_waits_gets_no_variant_of_another():
    async def respond(number, scope, receive, send):
        language = dict(scope["headers"])[b"accept-language"]
        await answering(("vary", "accept-language"), chunks=(language,))(number, scope, receive, send)

    crowd = Crowd(TTL, respond)

    async def go():
        languages = [f"l{number % 4}" for number in range(40)]
        tasks = [asyncio.ensure_future(crowd.client(headers=[("accept-language", one)])) for one in languages]
        await settled()
        crowd.gate.set()
        return list(zip(languages, await asyncio.gather(*tasks), strict=True))

    assert all(body_of(sent) == language.encode() for language, sent in crowd.run(go))
    assert crowd.calls <= 8


def test_7_aspnetcore_52310_a_leader_that_leaves_gives_nobody_a_truncated_body():
    crowd = Crowd(TTL, answering(chunks=(b"wh", b"ole")))

    async def go():
        left = asyncio.Event()
        leader = asyncio.ensure_future(crowd.client(left=left))
        await settled()
        others = [asyncio.ensure_future(crowd.client()) for _ in range(10)]
        await settled()
        left.set()
        crowd.gate.set()
        await asyncio.gather(leader, return_exceptions=True)
        return await asyncio.gather(*others)

    assert {body_of(sent) for sent in crowd.run(go)} == {b"whole"}
    assert crowd.calls == 1


def test_7_a_leader_that_is_cancelled_promotes_one_who_waits():
    crowd = Crowd(TTL, answering(chunks=(b"wh", b"ole")))

    async def go():
        leader = asyncio.ensure_future(crowd.client())
        await settled()
        others = [asyncio.ensure_future(crowd.client()) for _ in range(10)]
        await settled()
        leader.cancel()
        await settled()
        crowd.gate.set()
        return await asyncio.gather(*others)

    assert {body_of(sent) for sent in crowd.run(go)} == {b"whole"}
    assert crowd.calls == 2


@pytest.mark.parametrize(
    "policy", [TTL, CachePolicy(ttl=60, per=lambda request: ""), CachePolicy(ttl=60, key={"query": []})]
)
def test_8_aspnetcore_67763_no_key_is_empty_and_merges_other_requests(world, policy):
    shop = world(lambda seen: Reply(200, (), (seen.path.encode(),)), policy)
    for path in ("/", "/a", "//", "/a/"):
        assert shop.ask(path).body == path.encode()
        assert shop.ask(path, host="").body == path.encode()
    assert all(len(key) >= 7 and key[0] and key[3] for key in shop.cache._tier._order)


@pytest.mark.parametrize("length", [(), (("Content-Length", "10"),)])
def test_9_cache_handler_73_a_part_is_not_stored_as_the_whole(world, length):
    shop = world(lambda _: Reply(200, [*PUBLIC, *length], (b"half ",), Broken()), TTL)
    with pytest.raises(Broken):
        shop.ask()
    shop.respond = lambda _: Reply(200, [*PUBLIC, *length], (b"half ", b"whole"))
    assert shop.ask().body == b"half whole"
    assert shop.ask().body == b"half whole"


def test_9_a_body_shorter_than_its_content_length_is_not_stored(world):
    shop = world(lambda _: Reply(200, [*PUBLIC, ("Content-Length", "10")], (b"half ",)), TTL)
    shop.ask()
    assert not shop.ask().hit


def test_9_an_app_that_stops_without_an_end_is_not_stored():
    shop = World("asgi", lambda _: Reply(200, PUBLIC, (b"half",), ends=False), TTL)
    try:
        shop.ask()
        assert not shop.ask().hit
    finally:
        shop.close()


def test_9_a_wsgi_response_that_is_closed_early_is_not_stored():
    shop = World("wsgi", lambda _: Reply(200, PUBLIC, (b"half ", b"whole")), TTL)
    chunks = shop.wrapped(shop.environ("/", "GET", b"", [("host", "shop.example")]), lambda *_: None)
    assert next(iter(chunks)) == b"half "
    chunks.close()
    got = shop.ask()
    assert (got.hit, got.body) == (False, b"half whole")


def test_10_fastapi_cache_203_twenty_who_ask_at_once_make_one_call():
    crowd = Crowd(TTL, answering(chunks=(b"once",)))

    async def go():
        tasks = [asyncio.ensure_future(crowd.client()) for _ in range(20)]
        await settled()
        crowd.gate.set()
        return await asyncio.gather(*tasks)

    assert {body_of(sent) for sent in crowd.run(go)} == {b"once"}
    assert crowd.calls == 1


def test_10_the_same_among_threads():
    shop = World("wsgi", None, TTL)
    calls = []
    begun, gate = threading.Event(), threading.Event()

    def app(environ, start_response):
        calls.append(1)
        begun.set()
        gate.wait(10)
        start_response("200 OK", [])
        return [b"once"]

    wrapped = wsgi.GatewayMiddleware(app, shop.gateway)
    bodies = []

    def client():
        bodies.append(b"".join(wrapped(shop.environ("/", "GET", b"", ()), lambda *_: None)))

    threads = [threading.Thread(target=client) for _ in range(20)]
    for thread in threads:
        thread.start()
    begun.wait(10)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert bodies == [b"once"] * 20
    assert len(calls) == 1


# ---- 11 to 20


def test_11_fastapi_cache_566_objects_in_memory_are_no_part_of_the_key(world):
    shop = world(numbered(*PUBLIC))
    for _ in range(3):
        gc.collect()
        assert shop.ask("/a?x=1").body == b"1"


def test_11_a_query_is_not_answered_by_that_of_another_user(world):
    shop = world(lambda seen: Reply(200, (), (seen.query.encode(),)), TTL)
    assert shop.ask("/?x=1").body == b"x=1"
    assert shop.ask("/?x=2").body == b"x=2"


def test_12_flask_caching_270_a_head_is_answered_by_a_get_and_never_the_reverse(world):
    shop = world(lambda seen: Reply(200, PUBLIC, () if seen.method == "HEAD" else (b"body",)), TTL)
    shop.ask(method="HEAD")
    assert shop.ask().body == b"body"
    head = shop.ask(method="HEAD")
    assert (head.hit, head.body, head.one("content-length")) == (True, b"", "4")
    assert shop.ask().body == b"body"


def test_13_flask_caching_71_a_post_is_stored_by_its_content_where_a_policy_says_so(world):
    shop = world(lambda seen: Reply(200, PUBLIC, (seen.body,)), CachePolicy(ttl=60, methods=["POST"]))
    assert shop.ask(method="POST", body=b"one").body == b"one"
    assert shop.ask(method="POST", body=b"two").body == b"two"
    assert shop.ask(method="POST", body=b"one").hit
    assert not shop.ask(method="POST", body=b"one", content_type="text/x").hit
    assert shop.ask(method="POST", body=b"x" * 70_000).body == b"x" * 70_000
    assert not shop.ask(method="POST", body=b"x" * 70_000).hit


def test_13_a_query_is_stored_by_its_content_without_being_asked(world):
    shop = world(lambda seen: Reply(200, PUBLIC, (seen.body,)))
    assert shop.ask(method="QUERY", body=b"one").body == b"one"
    assert shop.ask(method="QUERY", body=b"two").body == b"two"
    assert shop.ask(method="QUERY", body=b"one").hit
    assert not shop.ask(method="GET").hit


@pytest.mark.parametrize("status", [203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_14_fastapi_cache_140_a_hit_has_the_status_and_the_fields_of_the_miss(world, status):
    fields = [
        ("Cache-Control", "max-age=60"),
        ("X-Own", "1"),
        ("X-Own", "2"),
        ("Content-Type", "text/odd"),
        ("Link", "<x>"),
    ]
    body = () if status == 204 else (b"body",)
    shop = world(lambda _: Reply(status, fields, body))
    miss, hit = shop.ask(), shop.ask()
    assert hit.hit
    assert (hit.status, hit.body) == (miss.status, miss.body)
    for name in ("x-own", "content-type", "link", "cache-control"):
        assert hit.all(name) == miss.all(name)


def test_15_fastapi_cache_97_the_first_chunk_is_sent_before_the_last_is_made():
    shop = World("asgi", None, TTL)
    order = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            order.append(f"made {number}")
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 2})

    async def go():
        async def send(message):
            if message["type"] == "http.response.body":
                order.append("sent")

        await asgi.GatewayMiddleware(app, shop.gateway)(shop.scope("/", "GET", ()), None, send)

    try:
        shop.loop.run_until_complete(go())
        assert order == ["made 0", "sent", "made 1", "sent", "made 2", "sent"]
        assert shop.cache.stats()["entries"] == 1
    finally:
        shop.close()


def test_15_the_same_under_wsgi():
    shop = World("wsgi", None, TTL)
    order = []

    def app(environ, start_response):
        start_response("200 OK", [])
        for number in range(3):
            order.append(f"made {number}")
            yield b"x"

    chunks = wsgi.GatewayMiddleware(app, shop.gateway)(shop.environ("/", "GET", b"", ()), lambda *_: None)
    order.extend("sent" for _ in chunks)
    chunks.close()
    assert order == ["made 0", "sent", "made 1", "sent", "made 2", "sent"]
    assert shop.cache.stats()["entries"] == 1


def test_15_a_body_over_the_cap_is_streamed_whole_and_not_stored(world):
    shop = world(lambda _: Reply(200, PUBLIC, [b"x" * 400] * 5), TTL, cache={"max_item_bytes": 1_000})
    assert len(shop.ask().body) == 2_000
    assert not shop.ask().hit
    assert shop.cache.stats()["entries"] == 0


@pytest.mark.parametrize(
    "content_type", ["text/event-stream", "Text/Event-Stream; charset=utf-8", " text/event-stream ;x"]
)
def test_15_a_stream_of_events_never_enters(world, content_type):
    shop = world(numbered(*PUBLIC, ("Content-Type", content_type)), TTL)
    shop.ask()
    assert not shop.ask().hit


def test_15_an_upgrade_never_enters(world):
    shop = world(numbered(*PUBLIC), TTL)
    shop.ask(upgrade="websocket", connection="upgrade")
    assert not shop.ask(upgrade="websocket", connection="upgrade").hit
    assert not shop.ask().hit


def test_16_fastapi_cache_562_memory_has_a_bound_in_bytes_that_counts_everything(world):
    policy = CachePolicy(ttl=60, tags=["t" * 100])
    shop = world(lambda seen: Reply(200, [("X-Pad", "y" * 500)], (b"z" * 500,)), policy, cache={"max_bytes": 50_000})
    for number in range(200):
        shop.ask(f"/{'p' * 200}{number}")
        assert shop.cache.stats()["bytes"] <= 50_000
    stats = shop.cache.stats()
    assert stats["bytes"] / stats["entries"] > 200 + 100 + 500 + 500


def test_16_what_has_expired_does_not_stay(world):
    shop = world(numbered(*PUBLIC))
    for number in range(50):
        shop.ask(f"/{number}")
    shop.clock.advance(100)
    for number in range(60):
        shop.ask(f"/new/{number}")
    assert shop.cache.stats()["entries"] <= 60
    assert shop.cache.stats()["expirations"] == 50


def test_17_cache_handler_118_a_purge_by_tag_forgets_the_response_and_not_an_index(world):
    shop = world(numbered(*PUBLIC), CachePolicy(tags=lambda request: [request.path.strip("/"), "all"]))
    assert [shop.ask(path).body for path in ("/a", "/b")] == [b"1", b"2"]
    shop.cache.invalidate(tag="a")
    assert [shop.ask(path).body for path in ("/a", "/b")] == [b"3", b"2"]
    shop.cache.invalidate(tag="all")
    assert [shop.ask(path).body for path in ("/a", "/b")] == [b"4", b"5"]


def test_17_cache_handler_127_an_empty_or_unknown_tag_purges_nothing(world):
    shop = world(numbered(*PUBLIC, ("Cache-Groups", '""')), CachePolicy(tags=lambda request: []))
    shop.ask()
    for tag in ("", "x", "path:/"):
        shop.cache.invalidate(tag=tag)
        assert shop.ask().hit


def test_18_cashews_283_an_etag_is_bound_to_its_response(world):
    shop = world(lambda seen: Reply(200, [*PUBLIC, ("ETag", f'"{seen.path}"')], (seen.path.encode(),)))
    shop.ask("/a")
    shop.ask("/b")
    assert shop.ask("/a", if_none_match='"/a"').status == 304
    assert shop.ask("/b", if_none_match='"/a"').status == 200
    assert shop.ask("/c", if_none_match='"/a"').status == 200


def test_18_cashews_318_a_304_comes_after_authorization(world):
    keys = Keys()
    shop = world(numbered(*PUBLIC, ("ETag", '"a"')), policies=[keys])
    shop.ask(x_api_key="good")
    assert shop.ask(x_api_key="good", if_none_match='"a"').status == 304
    assert shop.ask(if_none_match='"a"').status == 401


@pytest.mark.parametrize("name", ["x-forwarded-host", "x-forwarded-proto", "x-original-url", "x-rewrite-url"])
def test_19_cve_2024_46982_a_field_that_is_not_in_the_key_poisons_nobody(world, name):
    shop = world(lambda seen: Reply(200, (), (repr(seen.fields.get(name)).encode(),)), TTL)
    shop.ask(fields=[(name, "evil.example")])
    assert shop.ask().body == b"None"


@pytest.mark.parametrize(
    ("vary", "policy"),
    [
        ([("Vary", "RSC, Next-Router-Prefetch")], TTL),
        ([], CachePolicy(ttl=60, vary=["RSC"])),
        ([], CachePolicy(ttl=60, key={"headers": ["RSC"]})),
    ],
    ids=["app says so", "policy says so", "in the key"],
)
def test_19_cve_2026_44576_what_is_made_for_components_of_a_page_is_not_served_as_the_page(world, vary, policy):
    def app(seen):
        return Reply(200, vary, (b"payload" if seen.fields.get("rsc") == "1" else b"page",))

    shop = world(app, policy)
    assert shop.ask(rsc="1").body == b"payload"  # an attacker comes first
    assert shop.ask().body == b"page"
    assert [(got.hit, got.body) for got in (shop.ask(rsc="1"), shop.ask())] == [(True, b"payload"), (True, b"page")]
    assert shop.ask(rsc="0").body == b"page"


def test_19_rs_cors_10_a_page_of_one_origin_is_not_told_that_it_is_for_another(world):
    def app(seen):
        origin = seen.fields.get("origin")
        return Reply(200, [*PUBLIC, *([("Access-Control-Allow-Origin", origin)] if origin else [])])

    shop = world(app)
    for origin in ("https://a.example", "https://b.example", "null"):
        assert shop.ask(origin=origin).one("access-control-allow-origin") == origin
        assert shop.ask(origin=origin).hit
    assert shop.ask().one("access-control-allow-origin") is None


@pytest.mark.parametrize("path", ["/account/a.css", "/account/a.js?x", "/account;a.png", "/account%2Fa.ico"])
def test_19_web_cache_deception_no_suffix_makes_a_page_cacheable(world, path):
    methods = {"GET /account/{rest+}": Method(cache=None), "*": Method(cache=TTL)}
    shop = world(lambda seen: Reply(200, (), (seen.fields.get("cookie", "nobody").encode(),)), methods=methods)
    shop.ask(path, cookie="session=alice")
    assert shop.ask(path).body == b"nobody"


def test_20_fastapi_1695_two_workers_share_and_forget_together(tmp_path):
    address = f"file://{tmp_path}/cache"
    one = World("wsgi", numbered(*PUBLIC), name="shop", cache={"shared": address})
    other = World("wsgi", numbered(*PUBLIC), name="shop", cache={"shared": address})
    assert one.ask("/a").body == b"1"
    got = other.ask("/a")
    assert (got.hit, got.body, other.calls) == (True, b"1", 0)
    one.cache.flush()
    assert not other.ask("/a").hit


def test_20_a_client_may_invalidate_by_any_authorizer(world):
    policy = CachePolicy(ttl=60, invalidate=lambda request: request.headers.get("x-role") == "admin")
    shop = world(numbered(), policy)
    shop.ask()
    assert shop.ask(cache_control="max-age=0").body == b"1"
    assert shop.ask(cache_control="max-age=0", x_role="admin").body == b"2"
    assert shop.ask().body == b"2"


# ---- Django's 500 of the report's section 1


@pytest.mark.parametrize(
    "said", ["max-age=3600a", "max-age=", "max-age=-1", "max-age=1.5", 'max-age="60', "=", ",,", "\xff"]
)
def test_no_cache_control_of_an_app_is_an_error(world, said):
    shop = world(numbered(("Cache-Control", said)))
    assert [shop.ask().status for _ in range(2)] == [200, 200]


def test_a_cache_is_of_one_stage():
    cache = ResponseCache()
    cache.bind("stage 'a'", World("wsgi").clock)
    with pytest.raises(Exception, match="make one for"):
        cache.bind("stage 'b'", World("wsgi").clock)
