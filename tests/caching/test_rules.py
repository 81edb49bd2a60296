"""Every rule of the design's section on the response cache, each through ASGI and WSGI."""

import pytest

from apigate import CachePolicy, ConfigurationError, Method, Rate, Throttled
from apigate.caching.head import head_of
from apigate.caching.lookup import Lookup
from apigate.core.message import Response
from apigate.core.policy import Phase
from apigate.testing import FakeClock
from tests.caching.asking import Broken, Principal, Reply, World, cached, numbered

PUBLIC = cached()
TTL = CachePolicy(ttl=60)
TAGGED = [*PUBLIC, ("ETag", '"a"')]


def bodies(shop, *asked, **fields):
    return [shop.ask(target, **fields).body.decode() for target in asked]


def validated(first, then, body=b"body"):
    """An app that answers with `first`, and to a condition with a 304 of `then`."""

    def app(seen):
        if "if-none-match" in seen.fields or "if-modified-since" in seen.fields:
            return Reply(304, then, ())
        return Reply(200, first, (body,))

    return app


# ---- the profile that honours the app's fields


@pytest.mark.parametrize(
    ("fields", "hit"),
    [
        ([], False),
        ([("Cache-Control", "max-age=60")], True),
        ([("Cache-Control", "max-age=0")], False),
        ([("Cache-Control", "s-maxage=60, max-age=0")], True),
        ([("Cache-Control", "s-maxage=0, max-age=60")], False),
        ([("Cache-Control", "public")], False),
        ([("Expires", "Thu, 01 Jan 2026 00:01:00 GMT")], True),
        ([("Expires", "0")], False),
        ([("Expires", "Thu, 01 Jan 2026 00:01:00 GMT"), ("Cache-Control", "max-age=0")], False),
        ([("Last-Modified", "Thu, 01 Jan 2015 00:00:00 GMT")], False),
        ([("Cache-Control", "max-age=60, no-cache"), ("ETag", '"a"')], False),
        ([("Cache-Control", "max-age=60, no-store")], False),
        ([("Cache-Control", "max-age=60, private")], False),
        ([("Cache-Control", "max-age=60"), ("Age", "60")], False),
        ([("Cache-Control", "max-age=60"), ("Date", "Wed, 31 Dec 2025 23:58:00 GMT")], False),
        ([("Cache-Control", "max-age=60, immutable")], True),
    ],
)
def test_without_a_ttl_the_app_says_for_how_long(world, fields, hit):
    shop = world(numbered(*fields))
    shop.ask()
    assert shop.ask().hit is hit


def test_nothing_is_reused_after_its_lifetime(world):
    shop = world(numbered(*PUBLIC))
    shop.ask()
    shop.clock.advance(59.999)
    assert shop.ask().hit
    shop.clock.advance(0.001)
    assert not shop.ask().hit


def test_a_lifetime_is_guessed_only_where_the_policy_says_so(world):
    fields = [("Last-Modified", "Wed, 31 Dec 2025 23:50:00 GMT")]
    shop = world(numbered(*fields), CachePolicy(heuristic=True))
    assert bodies(shop, "/", "/") == ["1", "1"]
    shop.clock.advance(60)
    assert not shop.ask().hit


# ---- the profile with a ttl


@pytest.mark.parametrize(
    ("said", "hit"),
    [
        ("", True),
        ("max-age=0", True),
        ("s-maxage=0", True),
        ("max-age=1", True),
        ("no-store", False),
        ("private", False),
        ("no-cache", False),
        ("public", True),
        ("must-revalidate", True),
    ],
)
def test_a_ttl_replaces_lifetimes_and_no_restriction(world, said, hit):
    shop = world(numbered(("Cache-Control", said), ("Expires", "0")), TTL)
    shop.ask()
    shop.clock.advance(59)
    assert shop.ask().hit is hit
    shop.clock.advance(1)
    assert not shop.ask().hit


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308])
def test_a_ttl_is_for_successes_and_lasting_redirections(world, status):
    shop = world(lambda _: Reply(status, (), ()), TTL)
    shop.ask()
    assert shop.ask().hit


@pytest.mark.parametrize("status", [201, 302, 303, 307, 400, 401, 403, 404, 410, 429, 500, 502, 503])
def test_a_ttl_is_for_no_error_unless_the_policy_names_it(world, status):
    shop = world(lambda _: Reply(status, (), ()), TTL)
    shop.ask()
    assert not shop.ask().hit
    shop = world(lambda _: Reply(status, (), ()), CachePolicy(ttl=60, statuses=[status]))
    shop.ask()
    assert shop.ask().hit


def test_amazon_is_three_hundred_seconds_of_get(world):
    shop = world(numbered(), CachePolicy.amazon())
    shop.ask()
    shop.clock.advance(299)
    assert shop.ask().hit
    assert not shop.ask(method="QUERY").hit
    shop.clock.advance(1)
    assert not shop.ask().hit
    shop = world(numbered(), CachePolicy.amazon(ttl=10))
    shop.ask()
    shop.clock.advance(10)
    assert not shop.ask().hit


def test_a_ttl_of_zero_stores_nothing_but_invalidates(world):
    shop = world(numbered(*PUBLIC), CachePolicy(ttl=0))
    shop.ask()
    assert not shop.ask().hit
    assert shop.cache.stats()["entries"] == 0


def test_jitter_shortens_a_lifetime_by_no_more_than_its_part(world):
    shop = world(numbered(), CachePolicy(ttl=100, jitter=0.5))
    ends = []
    for number in range(200):
        shop.ask(f"/{number}")
    for _ in range(100):
        ends.append(
            sum(entry.responses[0].fresh_until_us > shop.clock.now_us() for entry in shop.cache._tier._order.values())
        )
        shop.clock.advance(1)
    assert ends[49] == 200
    assert 60 < ends[75] < 140
    assert shop.ask("/0").hit is False


def test_jitter_may_take_all_and_never_more(world):
    shop = world(numbered(), CachePolicy(ttl=100, jitter=1.0))
    for chance in (0.0, 0.25, 1.0):
        lookup = Lookup(shop.cache, CachePolicy(ttl=100, jitter=1.0), shop.clock, chance=lambda chance=chance: chance)
        assert lookup.lifetime(200, head_of([]), 0.0) == 100 * (1 - chance)


# ---- Authorization


@pytest.mark.parametrize(
    ("said", "hit"),
    [
        ("max-age=60", False),
        ("max-age=60, public", True),
        ("s-maxage=60", True),
        ("max-age=60, must-revalidate", True),
        ("max-age=60, proxy-revalidate", False),
        ("max-age=60, immutable", False),
        ("public, private, max-age=60", False),
    ],
)
def test_a_response_to_authorization_is_shared_only_as_the_standard_allows(world, said, hit):
    for policy in (CachePolicy(), TTL):
        shop = world(numbered(("Cache-Control", said)), policy)
        shop.ask(authorization="Basic YTpi")
        assert shop.ask(authorization="Basic Yjpi").hit is hit
        assert shop.ask().hit is hit


def test_what_was_stored_without_authorization_is_not_given_to_one_with_it(world):
    shop = world(numbered(), TTL)
    shop.ask()
    assert shop.ask().hit
    assert not shop.ask(authorization="Basic YTpi").hit


# ---- whose a response is


@pytest.mark.parametrize("policy", [CachePolicy(), TTL, CachePolicy(ttl=60, per="principal")])
def test_behind_an_authorizer_each_principal_has_its_own(world, policy):
    shop = world(
        lambda seen: Reply(200, PUBLIC, (seen.fields["authorization"].encode(),)), policy, policies=[Principal()]
    )
    for _ in range(2):
        for who in ("Bearer a", "Bearer b"):
            assert shop.ask(authorization=who).body == who.encode()
    assert shop.calls == 2


def test_per_public_is_one_for_all_where_the_app_lets_it_or_a_gate_has_verified_them(world):
    shop = world(numbered(("Cache-Control", "public, max-age=60")), CachePolicy(per="public"))
    assert [shop.ask(authorization=f"Bearer {who}").body for who in "ab"] == [b"1", b"1"]
    shop = world(numbered(*PUBLIC), CachePolicy(ttl=60, per="public"), policies=[Principal()])
    assert [shop.ask(authorization=f"Bearer {who}").body for who in "ab"] == [b"1", b"1"]
    shop = world(numbered(*PUBLIC), CachePolicy(ttl=60, per="public"))
    assert [shop.ask(authorization=f"Bearer {who}").body for who in "ab"] == [b"1", b"2"]


def test_per_principal_is_each_ones_own_though_the_app_says_public(world):
    said = ("Cache-Control", "public, s-maxage=60")
    shop = world(numbered(said), CachePolicy(per="principal"), policies=[Principal()])
    assert [shop.ask(authorization=f"Bearer {who}").body for who in "aba"] == [b"1", b"2", b"1"]
    assert not shop.ask().hit
    assert not shop.ask().hit


def test_per_claim_is_one_for_all_who_have_it(world):
    shop = world(numbered(), CachePolicy(ttl=60, per="claim:team"), policies=[Principal()])
    assert [shop.ask(x_claims=f"team={team}").body for team in "abab"] == [b"1", b"2", b"1", b"2"]
    assert not shop.ask().hit
    assert not shop.ask().hit


def test_per_a_function_is_one_for_all_of_whom_it_gives_the_same(world):
    shop = world(numbered(), CachePolicy(ttl=60, per=lambda request: request.headers.get("x-tenant")))
    assert [shop.ask(x_tenant=tenant).body for tenant in ("a", "b", "a", "")] == [b"1", b"2", b"1", b"3"]
    assert not shop.ask().hit
    assert not shop.ask().hit


def test_what_a_claim_is_for_is_not_private_to_one(world):
    policy = CachePolicy(per="claim:team")
    shop = world(numbered(("Cache-Control", "private, max-age=60")), policy, policies=[Principal()])
    shop.ask(x_claims="team=a")
    assert not shop.ask(x_claims="team=a").hit


# ---- cookies


def test_under_a_ttl_a_request_with_cookies_passes_by(world):
    shop = world(numbered(), TTL)
    shop.ask()
    got = shop.ask(cookie="a=1")
    assert (got.body, got.one("cache-status")) == (b"2", "apigate; fwd=bypass")
    assert shop.ask().body == b"1"


def test_under_a_ttl_a_policy_may_ignore_cookies_or_name_them(world):
    shop = world(numbered(), CachePolicy(ttl=60, cookies="ignore"))
    assert [shop.ask(cookie=cookie).body for cookie in ("a=1", "a=2")] == [b"1", b"1"]
    shop = world(numbered(), CachePolicy(ttl=60, cookies=["a"]))
    assert [shop.ask(cookie=cookie).body for cookie in ("a=1", "a=2", "b=1; a=1")] == [b"1", b"2", b"1"]


def test_without_a_ttl_the_app_says_whether_cookies_matter(world):
    shop = world(numbered(*PUBLIC))
    assert [shop.ask(cookie=cookie).body for cookie in ("a=1", "a=2")] == [b"1", b"1"]
    shop = world(numbered(*PUBLIC, ("Vary", "Cookie")))
    assert [shop.ask(cookie=cookie).body for cookie in ("a=1", "a=2", "a=1")] == [b"1", b"2", b"1"]


# ---- what a request says


ANEW = [
    {"cache_control": "no-cache"},
    {"cache_control": "max-age=0"},
    {"pragma": "no-cache"},
    {"cache_control": "Max-Age=0"},
]


@pytest.mark.parametrize("fields", ANEW)
def test_without_a_ttl_a_client_may_ask_anew(world, fields):
    shop = world(numbered(*PUBLIC))
    shop.ask()
    got = shop.ask(**fields)
    assert (got.body, got.one("cache-status")) == (b"2", "apigate; fwd=request; stored")
    assert shop.ask().body == b"2"


@pytest.mark.parametrize("fields", [*ANEW, {"cache_control": "no-store"}, {"cache_control": "min-fresh=100"}])
def test_with_a_ttl_a_client_may_not_ask_anew(world, fields):
    shop = world(numbered(*PUBLIC), TTL)
    shop.ask()
    assert shop.ask(**fields).hit


def test_max_age_and_min_fresh_of_a_request_are_obeyed(world):
    shop = world(numbered(*PUBLIC))
    shop.ask()
    shop.clock.advance(10)
    assert shop.ask(cache_control="max-age=10").hit
    assert shop.ask(cache_control="min-fresh=50").hit
    assert not shop.ask(cache_control="min-fresh=51").hit
    shop.clock.advance(10)
    assert not shop.ask(cache_control="max-age=9").hit


def test_max_stale_of_a_request_is_obeyed_unless_the_response_forbids_it(world):
    shop = world(numbered(*TAGGED))
    shop.ask()
    shop.clock.advance(70)
    assert shop.ask(cache_control="max-stale=10").hit
    assert shop.ask(cache_control="max-stale").hit
    assert not shop.ask(cache_control="max-stale=9").hit
    for said in ("must-revalidate", "proxy-revalidate", "s-maxage=60"):
        shop = world(numbered(("Cache-Control", f"max-age=60, {said}"), ("ETag", '"a"')))
        shop.ask()
        shop.clock.advance(70)
        assert not shop.ask(cache_control="max-stale=100").hit


def test_no_store_of_a_request_keeps_its_response_out(world):
    for policy in (CachePolicy(), TTL):
        shop = world(numbered(*PUBLIC), policy)
        shop.ask(cache_control="no-store")
        assert shop.ask().body == b"2"


def test_only_if_cached_is_504_where_nothing_can_be_served(world):
    shop = world(numbered(*PUBLIC))
    got = shop.ask(cache_control="only-if-cached")
    assert (got.status, shop.calls) == (504, 0)
    shop.ask()
    assert shop.ask(cache_control="only-if-cached").hit
    shop.clock.advance(60)
    assert shop.ask(cache_control="only-if-cached").status == 504
    shop = world(numbered(*PUBLIC), TTL)
    assert shop.ask(cache_control="only-if-cached").status == 200


@pytest.mark.parametrize("name", ["if-match", "if-unmodified-since"])
def test_a_precondition_is_for_the_app_to_judge(world, name):
    shop = world(numbered(*TAGGED))
    shop.ask()
    assert shop.ask(fields=[(name, '"a"')]).one("cache-status") == "apigate; fwd=bypass"


# ---- invalidation by a client


def admin(request):
    return request.headers.get("x-admin") == "1"


@pytest.mark.parametrize("fields", [{"cache_control": "max-age=0"}, {"cache_control": "no-cache"}])
@pytest.mark.parametrize("ttl", [None, 60])
def test_an_authorized_client_invalidates(world, ttl, fields):
    shop = world(numbered(*PUBLIC), CachePolicy(ttl=ttl, invalidate=admin))
    shop.ask()
    assert shop.ask(x_admin="1", **fields).body == b"2"
    assert shop.ask().body == b"2"


@pytest.mark.parametrize("fields", [{"if_none_match": '"a"'}, {"range": "bytes=0-0"}])
def test_an_authorized_wish_counts_though_the_app_answers_it_with_less_than_all(world, fields):
    def app(seen):
        if "if-none-match" in seen.fields:
            return Reply(304, TAGGED, ())
        if "range" in seen.fields:
            return Reply(206, [*TAGGED, ("Content-Range", "bytes 0-0/4")], (b"b",))
        return Reply(200, TAGGED)

    shop = world(app, CachePolicy(ttl=60, invalidate=admin))
    shop.ask()
    shop.ask(x_admin="1", cache_control="max-age=0", **fields)
    assert not shop.ask().hit


def test_the_three_strategies_for_who_may_not_invalidate(world):
    def asking(strategy):
        shop = world(numbered(*PUBLIC), CachePolicy(ttl=60, invalidate=admin, unauthorized=strategy))
        shop.ask()
        return shop.ask(cache_control="max-age=0")

    assert asking("FAIL_WITH_403").status == 403
    got = asking("SUCCEED_WITH_RESPONSE_HEADER")
    assert (got.hit, got.one("warning")) == (True, '199 apigate "cache invalidation was not authorized"')
    got = asking("SUCCEED_WITHOUT_RESPONSE_HEADER")
    assert (got.hit, got.one("warning")) == (True, None)


def test_the_warning_to_one_client_is_not_told_to_the_next(world):
    shop = world(numbered(*PUBLIC), CachePolicy(ttl=60, invalidate=admin))
    shop.ask()
    shop.ask(cache_control="max-age=0")
    assert shop.ask().all("warning") == []


# ---- ranges


@pytest.fixture
def ranged(world):
    shop = world(lambda _: Reply(200, [*TAGGED, ("Content-Type", "text/plain")], (b"0123456789",)), TTL)
    shop.ask()
    return shop


@pytest.mark.parametrize(
    ("asked", "sent", "body"),
    [
        ("bytes=0-0", "bytes 0-0/10", b"0"),
        ("bytes=8-", "bytes 8-9/10", b"89"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=5-99", "bytes 5-9/10", b"56789"),
        ("bytes=-99", "bytes 0-9/10", b"0123456789"),
        ("Bytes=1-2", "bytes 1-2/10", b"12"),
    ],
)
def test_one_range_is_cut_from_what_is_stored(ranged, asked, sent, body):
    got = ranged.ask(range=asked)
    assert (got.status, got.one("content-range"), got.body) == (206, sent, body)
    assert got.one("content-length") == str(len(body))
    assert got.one("etag") == '"a"'
    assert ranged.calls == 1


def test_several_ranges_are_sent_in_parts(ranged):
    got = ranged.ask(range="bytes=0-1,8-9")
    kind, _, boundary = got.one("content-type").partition("; boundary=")
    assert (got.status, kind) == (206, "multipart/byteranges")
    assert got.body.count(b"--" + boundary.encode()) == 3
    assert b"bytes 0-1/10\r\n\r\n01\r\n" in got.body
    assert got.one("content-length") == str(len(got.body))


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=-0", "bytes=99-100"])
def test_a_range_beyond_the_end_is_416(ranged, asked):
    got = ranged.ask(range=asked)
    assert (got.status, got.one("content-range"), got.body) == (416, "bytes */10", b"")


@pytest.mark.parametrize(
    "asked", ["bytes=a", "bytes=2-1", "lines=0-1", "bytes", "bytes=0-0,0-0", "0-1", "bytes=0-1;2-3"]
)
def test_a_range_that_cannot_be_read_is_ignored(ranged, asked):
    assert (ranged.ask(range=asked).status, ranged.ask(range=asked).body) == (200, b"0123456789")


@pytest.mark.parametrize(
    ("condition", "status"),
    [('"a"', 206), ('"b"', 200), ('W/"a"', 200), ("Thu, 01 Jan 2026 00:00:00 GMT", 200), ("x", 200)],
)
def test_if_range_needs_the_strong_validator(ranged, condition, status):
    assert ranged.ask(range="bytes=0-0", if_range=condition).status == status


def test_a_head_has_no_range(ranged):
    got = ranged.ask(method="HEAD", range="bytes=0-0")
    assert (got.status, got.one("content-length")) == (200, "10")


def test_a_range_of_what_is_not_stored_is_the_apps_affair(world):
    shop = world(
        lambda seen: Reply(206 if "range" in seen.fields else 200, [*PUBLIC, ("X", seen.fields.get("range", ""))])
    )
    assert shop.ask(range="bytes=0-0").one("x") == "bytes=0-0"
    assert shop.ask().body == b"body"


# ---- conditional requests of clients


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if_none_match": '"a"'}, 304),
        ({"if_none_match": 'W/"a"'}, 304),
        ({"if_none_match": '"x", "a"'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"b"'}, 200),
        ({"if_none_match": "a"}, 200),
        ({"if_modified_since": "Wed, 31 Dec 2025 00:00:00 GMT"}, 304),
        ({"if_modified_since": "Thu, 01 Jan 2026 00:00:00 GMT"}, 304),
        ({"if_modified_since": "Tue, 30 Dec 2025 23:59:59 GMT"}, 200),
        ({"if_modified_since": "x"}, 200),
        ({"if_none_match": '"b"', "if_modified_since": "Thu, 01 Jan 2026 00:00:00 GMT"}, 200),
        ({"if_none_match": '"a"', "if_modified_since": "Thu, 01 Jan 2015 00:00:00 GMT"}, 304),
    ],
)
def test_a_client_is_told_that_it_has_what_is_stored(world, fields, status):
    app = numbered(
        *TAGGED, ("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT"), ("Content-Type", "text/x"), ("X-Own", "1")
    )
    shop = world(app)
    shop.ask()
    for method in ("GET", "HEAD"):
        got = shop.ask(method=method, **fields)
        assert got.status == status
        if status == 304:
            assert (got.body, got.one("etag"), got.one("content-type"), got.one("x-own")) == (b"", '"a"', None, None)
            assert got.one("cache-control") == "max-age=60"
    assert shop.calls == 1


# ---- validation of what is stored, with the app


def test_the_app_is_asked_with_both_validators_and_without_the_clients(world):
    shop = world(numbered(*TAGGED, ("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT")))
    shop.ask()
    shop.clock.advance(61)
    shop.ask(if_none_match='"mine"', range="bytes=0-0", if_range='"mine"')
    asked = shop.seen[-1].fields
    assert asked["if-none-match"] == '"a"'
    assert asked["if-modified-since"] == "Wed, 31 Dec 2025 00:00:00 GMT"
    assert "range" not in asked
    assert "if-range" not in asked


def test_a_304_makes_a_response_fresh_again_with_the_new_fields(world):
    then = [("Cache-Control", "max-age=30"), ("X-New", "1"), ("Content-Type", "text/other"), ("Content-Length", "99")]
    shop = world(validated([*TAGGED, ("X-New", "0"), ("Content-Type", "text/plain")], then))
    shop.ask()
    shop.clock.advance(61)
    got = shop.ask()
    assert (got.status, got.body, got.one("age")) == (200, b"body", "0")
    assert (got.one("x-new"), got.one("content-type"), got.one("content-length")) == ("1", "text/plain", "4")
    assert "fwd-status=304" in got.one("cache-status")
    shop.clock.advance(29)
    assert shop.ask().hit
    shop.clock.advance(1)
    assert not shop.ask().hit


@pytest.mark.parametrize("other", ['"b"', 'W/"b"'])
def test_a_304_of_another_tag_freshens_nothing_and_ends_what_was_stored(world, other):
    shop = world(validated(TAGGED, [*PUBLIC, ("ETag", other)]))
    shop.ask()
    shop.clock.advance(61)
    got = shop.ask()
    assert (got.status, got.body, got.one("etag"), got.one("age")) == (200, b"body", '"a"', "61")
    assert got.one("cache-status") == "apigate; fwd=stale; fwd-status=304"
    assert shop.cache.stats()["entries"] == 0
    assert shop.ask().one("cache-status") == "apigate; fwd=uri-miss; stored"
    assert shop.ask().hit


def test_a_304_of_another_tag_ends_what_workers_share_too(tmp_path):
    app = validated(TAGGED, [*PUBLIC, ("ETag", '"b"')])
    shared = {"shared": f"file://{tmp_path}/cache"}
    shop, other = World("wsgi", app, name="shop", cache=shared), World("wsgi", app, name="shop", cache=shared)
    shop.ask()
    for each in (shop, other):
        each.clock.advance(61)
    assert shop.ask().one("cache-status") == "apigate; fwd=stale; fwd-status=304"
    assert other.ask().one("cache-status") == "apigate; fwd=uri-miss; stored"


@pytest.mark.parametrize(
    ("first", "then", "hit"),
    [
        ('W/"a"', '"a"', True),  # as the 200 was compressed
        ('"a"', 'W/"a"', True),
        (None, 'W/"a"', True),
        (None, '"a"', False),
        ('"a"', None, True),
    ],
)
def test_a_304_freshens_what_has_its_tag(world, first, then, hit):
    dated = [*PUBLIC, ("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT")]
    tags = [[] if tag is None else [("ETag", tag)] for tag in (first, then)]
    shop = world(validated([*dated, *tags[0]], [*dated, *tags[1]]))
    shop.ask()
    shop.clock.advance(61)
    assert shop.ask().body == b"body"
    assert shop.ask().hit is hit


def test_a_client_that_has_it_gets_a_304_of_a_validated_response(world):
    shop = world(validated(TAGGED, TAGGED))
    shop.ask()
    shop.clock.advance(61)
    assert shop.ask(if_none_match='"a"').status == 304
    assert shop.ask().hit


def test_no_cache_is_validated_each_time(world):
    fields = [("Cache-Control", "no-cache"), ("ETag", '"a"')]
    for policy in (CachePolicy(), TTL):
        shop = world(validated(fields, fields), policy)
        assert [shop.ask().body for _ in range(3)] == [b"body"] * 3
        assert shop.calls == 3


def test_an_answer_that_may_not_be_stored_ends_what_was_stored(world):
    answers = iter(
        [Reply(200, TAGGED, (b"1",)), Reply(200, [("Cache-Control", "no-store")], (b"2",)), Reply(404, (), (b"3",))]
    )
    shop = world(lambda _: next(answers), CachePolicy(stale_if_error=600))
    shop.ask()
    shop.clock.advance(61)
    assert shop.ask().body == b"2"
    assert shop.cache.stats()["entries"] == 0


# ---- must-understand, immutable, targeted fields, groups


@pytest.mark.parametrize(("status", "hit"), [(200, True), (404, True), (226, False), (599, False)])
def test_must_understand_overrides_no_store_for_statuses_that_are_known(world, status, hit):
    shop = world(lambda _: Reply(status, [("Cache-Control", "max-age=60, must-understand, no-store")]))
    shop.ask()
    assert shop.ask().hit is hit


def test_immutable_makes_nothing_fresh(world):
    shop = world(numbered(("Cache-Control", "max-age=60, immutable")))
    shop.ask()
    shop.clock.advance(61)
    assert not shop.ask().hit


@pytest.mark.parametrize(
    ("fields", "hit"),
    [
        ([("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "no-store")], True),
        ([("CDN-Cache-Control", "no-store"), ("Cache-Control", "max-age=60")], False),
        ([("CDN-Cache-Control", "max-age=60, &&"), ("Cache-Control", "no-store")], False),
        ([("CDN-Cache-Control", ""), ("Cache-Control", "max-age=60")], True),
        ([("Apigate-Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=60")], False),
        ([("Apigate-Cache-Control", "max-age=60"), ("CDN-Cache-Control", "no-store")], True),
        ([("CDN-Cache-Control", "public"), ("Expires", "Thu, 01 Jan 2026 00:01:00 GMT")], False),
    ],
)
def test_a_targeted_field_counts_before_cache_control(world, fields, hit):
    shop = world(numbered(*fields))
    shop.ask()
    assert shop.ask().hit is hit


def test_an_unsafe_answer_invalidates_groups_of_its_own_origin(world):
    def app(seen):
        if seen.method == "GET":
            return Reply(200, [*PUBLIC, ("Cache-Groups", '"pets", "all"')], (str(shop.calls).encode(),))
        return Reply(int(seen.fields.get("x-status", "200")), [("Cache-Group-Invalidation", '"pets"')])

    shop = world(app)
    shop.ask("/a")
    shop.ask("/b", method="POST", x_status="500")
    assert shop.ask("/a").hit
    shop.ask("/b", method="POST", host="other.example")
    assert shop.ask("/a").hit
    shop.ask("/b", method="POST")
    assert not shop.ask("/a").hit
    shop.respond = lambda seen: Reply(200, [*PUBLIC, ("Cache-Group-Invalidation", '"pets"')])
    shop.ask("/c")
    assert shop.ask("/a").hit


# ---- No-Vary-Search


def test_no_vary_search_makes_queries_one(world):
    shop = world(numbered(*PUBLIC, ("No-Vary-Search", 'key-order, params=("utm")')))
    assert bodies(shop, "/?a=1&b=2&utm=x", "/?b=2&a=1", "/?a=1&b=2&utm=y", "/?a=1&b=3") == ["1", "1", "1", "2"]


def test_a_response_that_no_longer_says_so_is_given_to_its_own_query_alone(world):
    shop = world(lambda seen: Reply(200, [*PUBLIC, ("No-Vary-Search", 'params=("utm")')], (seen.query.encode(),)))
    shop.ask("/?utm=1")
    shop.clock.advance(61)
    shop.respond = lambda seen: Reply(200, PUBLIC, (seen.query.encode(),))
    assert bodies(shop, "/?utm=2", "/?utm=3", "/?utm=2") == ["utm=2", "utm=3", "utm=2"]


def test_what_one_path_says_of_queries_is_not_true_of_another(world):
    shop = world(numbered(*PUBLIC, ("No-Vary-Search", "params")))
    assert bodies(shop, "/a?1", "/a?2", "/b?1", "/b?2") == ["1", "1", "2", "2"]


def test_what_principals_are_told_of_queries_holds_for_what_is_public(world):
    app = numbered(("Cache-Control", "public, max-age=60"), ("No-Vary-Search", "params"))
    shop = world(app, policies=[Principal()])
    assert [shop.ask(f"/?{who}", authorization=f"Bearer {who}").body for who in "aba"] == [b"1", b"1", b"1"]


# ---- unsafe methods


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "FOO"])
@pytest.mark.parametrize(("status", "gone"), [(200, True), (204, True), (302, True), (404, False), (500, False)])
def test_an_unsafe_method_invalidates_its_path_unless_it_fails(world, method, status, gone):
    shop = world(lambda seen: Reply(200, PUBLIC) if seen.method == "GET" else Reply(status, (), ()))
    shop.ask("/a?x")
    shop.ask("/b")
    shop.ask("/a", method=method)
    assert shop.ask("/a?x").hit is not gone
    assert shop.ask("/b").hit


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    ("value", "gone"),
    [
        ("/a", True),
        ("a", True),
        ("http://shop.example/a", True),
        ("HTTP://SHOP.EXAMPLE/a", True),
        ("//shop.example/a", True),
        ("./x/../a", True),
        ("/a?q", True),
        ("http://other.example/a", False),
        ("https://shop.example/a", False),
        ("//other.example/a", False),
        ("http://shop.example:81/a", False),
        ("http://shop.example:443/a", False),
        ("http://shop.example:80/a", True),
        ("http://[", False),
        ("/A", False),
        ("", False),
    ],
)
def test_what_an_unsafe_answer_points_to_is_invalidated_on_its_own_origin(world, name, value, gone):
    shop = world(lambda seen: Reply(200, PUBLIC) if seen.method == "GET" else Reply(201, [(name, value)]))
    shop.ask("/a")
    shop.ask("/b", method="POST")
    assert shop.ask("/a").hit is not gone


@pytest.mark.parametrize(
    ("path", "location"), [("/caf%C3%A9", "/caf%C3%A9"), ("/a%20b", "/a%20b"), ("/%E2%82%AC", "/%e2%82%ac")]
)
def test_paths_beyond_ascii_are_invalidated_too(world, path, location):
    shop = world(lambda seen: Reply(200, PUBLIC) if seen.method == "GET" else Reply(201, [("Location", location)]))
    shop.ask(path)
    shop.ask("/other", method="POST")
    assert not shop.ask(path).hit
    shop.ask(path, method="DELETE")
    assert not shop.ask(path).hit
    shop.cache.invalidate(path="/café" if "caf" in path else "/a b" if "20" in path else "/€")
    assert not shop.ask(path).hit


def test_a_target_in_absolute_form_is_the_base_of_what_its_answer_points_to():
    shop = World("wsgi", lambda seen: Reply(200, PUBLIC) if seen.method == "GET" else Reply(201, [("Location", "b c")]))
    shop.ask("/a/b%20c")
    environ = shop.environ("/a/%3F%C3%A9", "POST", b"", [("host", "shop.example")])
    environ["RAW_URI"] = "http://shop.example/a/%3F%C3%A9"
    list(shop.wrapped(environ, lambda *_: None))
    assert not shop.ask("/a/b%20c").hit


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"])
def test_a_safe_method_invalidates_nothing(world, method):
    shop = world(lambda seen: Reply(200, [*PUBLIC, ("Location", "/a")]))
    shop.ask("/a")
    shop.ask("/a", method=method)
    shop.ask("/b", method=method)
    assert shop.ask("/a").hit


def test_a_response_that_was_on_its_way_is_invalidated_as_well(world):
    def app(seen):
        if seen.method == "GET" and shop.calls == 1:
            shop.cache.invalidate(path="/a")
        return Reply(200, PUBLIC)

    shop = world(app)
    shop.ask("/a")
    assert not shop.ask("/a").hit
    assert shop.ask("/a").hit


# ---- operators invalidate


def test_operators_invalidate_by_path_prefix_tag_method_and_stage(world):
    methods = {"GET /pets/{id}": Method(cache=CachePolicy(ttl=60, tags=["pets"])), "*": Method(cache=TTL)}
    shop = world(numbered(), methods=methods)
    cache = shop.gateway.stage().cache
    for how in ({"path": "/pets/1"}, {"prefix": "/pets/"}, {"tag": "pets"}, {"method": "GET /pets/{id}"}):
        shop.ask("/pets/1")
        shop.ask("/dogs")
        assert shop.ask("/pets/1").hit
        cache.invalidate(**how)
        assert not shop.ask("/pets/1").hit, how
        assert shop.ask("/dogs").hit
    cache.flush()
    assert not shop.ask("/dogs").hit
    for wrong in ({}, {"path": "/", "tag": "x"}):
        with pytest.raises(ConfigurationError):
            cache.invalidate(**wrong)


# ---- stale responses


def test_stale_while_revalidate_serves_and_asks_anew_behind(world):
    shop = world(numbered(("Cache-Control", "max-age=60, stale-while-revalidate=30"), ("ETag", '"a"')))
    shop.ask()
    shop.clock.advance(75)
    got = shop.ask()
    assert (got.body, got.one("age")) == (b"1", "75")
    assert shop.calls == 2
    assert shop.seen[-1].fields["if-none-match"] == '"a"'
    assert shop.ask().body == b"2"
    shop.clock.advance(90)
    assert shop.ask().body == b"3"


@pytest.mark.parametrize(
    "answer", [Reply(200, (), (b"new",)), Reply(500, (), (b"new",)), Reply(200, [("Cache-Control", "private")])]
)
def test_what_a_client_invalidates_all_workers_that_share_it_have_forgotten(world, tmp_path, answer):
    clock = FakeClock()

    def worker():
        policy = CachePolicy(ttl=60, invalidate=lambda _: True)
        shared = {"shared": f"file://{tmp_path}/cache"}
        return world(lambda _: Reply(200, (), (b"old",)), policy, clock=clock, cache=shared)

    one, other = worker(), worker()
    assert [shop.ask().body for shop in (one, other, other)] == [b"old"] * 3
    assert (one.calls, other.calls) == (1, 0)
    for shop in (one, other):
        shop.respond = lambda _: answer
    one.ask(cache_control="no-cache")
    assert b"old" not in {one.ask().body, other.ask().body}


@pytest.mark.parametrize("sent", ["min-fresh=999999999", "max-age=1"])
def test_who_may_not_invalidate_cannot_have_the_app_asked_by_another_directive(world, sent):
    policy = CachePolicy(invalidate=lambda _: False, unauthorized="FAIL_WITH_403")
    shop = world(numbered(*PUBLIC), policy)
    shop.ask()
    shop.clock.advance(5)
    assert shop.ask(cache_control=sent).body == b"1"
    assert shop.ask(cache_control="no-cache").status == 403


def test_of_a_long_cache_control_of_a_client_the_beginning_is_read(world):
    shop = world(numbered(*PUBLIC))
    shop.ask()
    assert shop.ask(cache_control=f"no-cache, {'a' * 60_000}").body == b"2"
    assert shop.ask(cache_control=f"{'a' * 60_000}, no-cache").body == b"2"


@pytest.mark.parametrize("policy", [None, CachePolicy(ttl=60, stale_while_revalidate=30)])
def test_a_request_that_says_no_store_sets_off_no_refresh(world, policy):
    shop = world(numbered(("Cache-Control", "max-age=60, stale-while-revalidate=30")), policy)
    shop.ask()
    shop.clock.advance(75)
    assert shop.ask(cache_control="no-store").body == b"1"
    assert shop.calls == 1
    assert shop.ask().body == b"1"
    assert shop.calls == 2


def test_stale_while_revalidate_of_the_policy_is_for_apps_that_do_not_say(world):
    policy = CachePolicy(stale_while_revalidate=30)
    shop = world(numbered(*PUBLIC), policy)
    shop.ask()
    shop.clock.advance(75)
    assert shop.ask().body == b"1"
    shop = world(numbered(("Cache-Control", "max-age=60, stale-while-revalidate=0")), policy)
    shop.ask()
    shop.clock.advance(75)
    assert shop.ask().body == b"2"


def test_a_refresh_that_fails_leaves_what_is_stored_and_nobody_knows(world):
    shop = world(numbered(("Cache-Control", "max-age=60, stale-while-revalidate=30")))
    shop.ask()
    shop.clock.advance(75)

    def broken(_):
        raise Broken

    shop.respond = broken
    assert shop.ask().body == b"1"
    assert shop.ask().body == b"1"


def test_the_refresh_behind_a_head_is_a_get(world):
    shop = world(numbered(("Cache-Control", "max-age=60, stale-while-revalidate=30")))
    shop.ask()
    shop.clock.advance(75)
    assert shop.ask(method="HEAD").hit
    assert [seen.method for seen in shop.seen] == ["GET", "GET"]
    assert shop.ask().body == b"2"


FAILURES = {
    "raises": Reply(200, PUBLIC, (), Broken()),
    "500": Reply(500, (), (b"oops",)),
    "502": Reply(502, (), (b"oops",)),
    "503": Reply(503, (), (b"oops",)),
    "504": Reply(504, (), (b"oops",)),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("by", ["app", "policy", "request"])
def test_stale_if_error_serves_where_the_app_fails(world, failure, by):
    said = "max-age=60, stale-if-error=30" if by == "app" else "max-age=60"
    policy = CachePolicy(stale_if_error=30 if by == "policy" else None)
    asked = {"cache_control": "stale-if-error=30"} if by == "request" else {}
    shop = world(numbered(("Cache-Control", said), ("ETag", '"a"')), policy)
    shop.ask()
    shop.respond = lambda _: failure
    shop.clock.advance(89)
    got = shop.ask(**asked)
    assert (got.status, got.body, got.one("age")) == (200, b"1", "89")
    shop.clock.advance(1)
    if failure.fails is None:
        assert shop.ask(**asked).status == failure.status
    else:
        with pytest.raises(Broken):
            shop.ask(**asked)


@pytest.mark.parametrize("said", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"])
def test_no_error_makes_stale_what_may_not_be(world, said):
    shop = world(
        numbered(("Cache-Control", f"max-age=60, stale-if-error=99, {said}"), ("ETag", '"a"')),
        CachePolicy(stale_if_error=99),
    )
    shop.ask()
    shop.clock.advance(70)
    shop.respond = lambda _: Reply(500)
    assert shop.ask().status == 500


def test_an_error_that_is_not_the_servers_is_passed_on(world):
    shop = world(numbered(("Cache-Control", "max-age=60, stale-if-error=30")))
    shop.ask()
    shop.clock.advance(61)
    shop.respond = lambda _: Reply(404)
    assert shop.ask().status == 404


def test_a_failure_after_the_head_is_not_hidden(world):
    shop = world(numbered(("Cache-Control", "max-age=60, stale-if-error=30")))
    shop.ask()
    shop.clock.advance(61)
    shop.respond = lambda _: Reply(200, PUBLIC, (b"ha",), Broken())
    with pytest.raises(Broken):
        shop.ask()


# ---- what is never stored


@pytest.mark.parametrize(
    "name",
    [
        "RateLimit",
        "RateLimit-Policy",
        "RateLimit-Limit",
        "RateLimit-Remaining",
        "RateLimit-Reset",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
        "Retry-After",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Transfer-Encoding",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Proxy-Authentication-Info",
        "Age",
        "X-Request-Id",
        "X-Correlation-Id",
        "Request-Id",
        "X-Trace-Id",
        "Traceparent",
        "Tracestate",
        "Server-Timing",
        "X-Amzn-RequestId",
        "X-Amzn-Trace-Id",
        "X-Amz-Request-Id",
        "X-Amz-Cf-Id",
        "X-B3-TraceId",
        "X-B3-SpanId",
        "B3",
        "CF-Ray",
        "X-Cloud-Trace-Context",
        "Authentication-Info",
        "Cache-Status",
    ],
)
def test_what_is_of_one_request_or_connection_is_passed_on_and_not_stored(world, name):
    shop = world(numbered(*PUBLIC, (name, "once")))
    assert "once" in shop.ask().all(name)
    got = shop.ask()
    assert got.hit
    assert "once" not in got.all(name)


def test_what_connection_names_is_not_stored(world):
    shop = world(numbered(*PUBLIC, ("Connection", "close, X-Hop"), ("X-Hop", "1"), ("X-End", "1")))
    shop.ask()
    got = shop.ask()
    assert (got.one("x-hop"), got.one("x-end")) == (None, "1")


def test_what_no_cache_and_private_name_is_not_stored(world):
    shop = world(
        numbered(
            ("Cache-Control", 'max-age=60, no-cache="X-A, X-B", private="x-c"'),
            ("X-A", "1"),
            ("X-C", "1"),
            ("X-D", "1"),
        )
    )
    shop.ask()
    got = shop.ask()
    assert (got.hit, got.one("x-a"), got.one("x-c"), got.one("x-d")) == (True, None, None, "1")


def test_the_gateways_own_fields_and_refusals_never_enter(world):
    shop = world(numbered(*PUBLIC), throttle=Rate(3, per=60))
    remaining = [shop.ask(path).one("ratelimit") for path in ("/a", "/a")]
    assert remaining[0] != remaining[1]
    assert shop.ask("/b").status == 200
    assert shop.ask("/c").status == 429
    shop.clock.advance(20)
    assert shop.ask("/c").status == 200
    assert all("ratelimit" not in kept.responses[0].headers for kept in shop.cache._tier._order.values())


class Refusing:
    """A gate that is shut for a while."""

    phase = Phase.GUARD
    shut = True

    def on_request(self, context):
        return Response("CLOSED", 503, [], b"closed") if self.shut else None


def test_a_503_of_the_gateway_never_enters_nor_is_made_good_by_what_is_stale(world):
    gate = Refusing()
    shop = world(
        numbered(("Cache-Control", "max-age=60, stale-if-error=600")), CachePolicy(stale_if_error=600), policies=[gate]
    )
    assert shop.ask().status == 503
    gate.shut = False
    assert shop.ask().body == b"1"
    gate.shut = True
    assert shop.ask().status == 503


def test_a_hit_is_counted_and_throttled_like_any_request(world):
    shop = world(numbered(*PUBLIC), throttle=Rate(2, per=60))
    assert [shop.ask().status for _ in range(3)] == [200, 200, 429]


def test_an_endpoint_that_throttles_is_neither_hidden_by_what_is_stale_nor_stored(world):
    shop = world(numbered(("Cache-Control", "max-age=60, stale-if-error=600")), CachePolicy(stale_if_error=600))

    @shop.gateway.throttle("1/hour")
    def limited():
        return None

    def app(seen):
        limited()
        return Reply(200, [("Cache-Control", "max-age=60, stale-if-error=600")], (b"served",))

    shop.respond = app
    assert shop.ask().body == b"served"
    shop.clock.advance(61)
    assert shop.ask().status == 429
    assert shop.ask("/other").status == 429


def test_what_an_app_makes_of_a_refusal_is_sent_whole_where_something_stale_is_stored(world):
    said = ("Cache-Control", "max-age=60, stale-if-error=600")
    shop = world(numbered(said))

    @shop.gateway.throttle("1/hour")
    def limited():
        return None

    def app(seen):
        try:
            limited()
        except Throttled as error:
            return Reply(error.status, [], (b"slow ", b"down"))
        return Reply(200, [said], (b"served",))

    shop.respond = app
    assert shop.ask().body == b"served"
    shop.clock.advance(61)
    refused = shop.ask()
    assert (refused.status, refused.body) == (429, b"slow down")


# ---- vary, key parts, sizes


def test_vary_of_the_policy_is_added_to_that_of_the_app(world):
    shop = world(
        lambda seen: Reply(200, [("Vary", "Accept")], (seen.fields.get("x-tenant", "").encode(),)),
        CachePolicy(ttl=60, vary=["X-Tenant"]),
    )
    got = shop.ask(x_tenant="a")
    assert ", ".join(got.all("vary")).lower() == "accept, x-tenant"
    assert shop.ask(x_tenant="b").body == b"b"
    assert shop.ask(x_tenant="a").body == b"a"
    assert shop.ask(x_tenant="a", accept="x").hit is False


@pytest.mark.parametrize(
    ("one", "other"), [("en", "EN"), ("en,de", "en, de"), ("en", "de"), ("en", ""), ("en,,de", "en,de"), ("en,", "en")]
)
def test_vary_tells_apart_whatever_an_app_may_tell_apart(world, one, other):
    shop = world(numbered(*PUBLIC, ("Vary", "Accept-Language")))
    shop.ask(accept_language=one)
    assert shop.ask(accept_language=other).hit is False
    assert shop.ask(accept_language=one).hit is True


def test_the_names_in_vary_are_compared_without_case_and_values_with_it(world):
    shop = world(numbered(*PUBLIC, ("vary", "X-ONE,x-two")))
    shop.ask(x_one="a", x_two="b")
    assert shop.ask(x_one="a", x_two="b").hit
    assert not shop.ask(x_one="A", x_two="b").hit
    assert not shop.ask(x_one="a").hit


def test_the_query_in_the_key_is_kept_sorted_or_an_allow_list(world):
    for query, expected in (("kept", "1234"), ("sorted", "1123"), (["a", "b"], "1111")):
        shop = world(numbered(), CachePolicy(ttl=60, key={"query": query}))
        assert "".join(bodies(shop, "/?a=1&b=2", "/?b=2&a=1", "/?a=1&b=2&c", "/?c=3&a=1&b=2")) == expected


def test_headers_in_the_key_tell_responses_apart_without_a_vary(world):
    shop = world(numbered(), CachePolicy(ttl=60, key={"headers": ["X-Tenant"]}))
    assert [shop.ask(x_tenant=tenant).body for tenant in ("a", "b", "a")] == [b"1", b"2", b"1"]
    assert shop.ask().body == b"3"
    assert shop.ask(x_tenant="").body == b"4"


def test_the_path_in_the_key_may_be_the_decoded_one(world):
    shop = world(numbered(), CachePolicy(ttl=60, key={"path": False}))
    assert bodies(shop, "/a%62", "/ab", "/abc") == ["1", "1", "2"]


def test_scheme_and_host_are_in_every_key(world):
    """The host as it was sent: some apps, such as Starlette's `Host` before 1.0, tell its letter cases apart."""
    shop = world(numbered(), TTL)
    assert [shop.ask(host=host).body for host in ("a", "b", "A", "a:80", "a")] == [b"1", b"2", b"3", b"4", b"1"]


@pytest.mark.parametrize(("size", "hit"), [(1_000, True), (1_001, False)])
@pytest.mark.parametrize("declared", [True, False])
def test_the_longest_item_is_just_stored(world, size, hit, declared):
    fields = [("Content-Length", str(size))] if declared else []
    shop = world(lambda _: Reply(200, fields, (b"x" * (size - 10), b"y" * 10)), TTL, cache={"max_item_bytes": 1_000})
    shop.ask()
    assert shop.ask().hit is hit


# ---- Age and Date


class TwoClocks:
    """A clock whose wall may be set without time passing."""

    def __init__(self):
        self.us = 1_000_000_000
        self.seconds = 1_767_225_600.0

    def now_us(self):
        return self.us

    def wall(self):
        return self.seconds

    def advance(self, seconds):
        self.us += round(seconds * 1_000_000)
        self.seconds += seconds

    def sleep(self, seconds):
        self.advance(seconds)

    async def sleep_async(self, seconds):
        self.advance(seconds)


def test_the_age_is_what_the_app_says_and_the_time_since(world):
    shop = world(numbered(("Cache-Control", "max-age=100"), ("Age", "40")))
    shop.ask()
    shop.clock.advance(9.9)
    assert shop.ask().one("age") == "49"
    shop.clock.advance(50)
    assert shop.ask().one("age") == "99"
    shop.clock.advance(0.2)
    assert not shop.ask().hit


def test_an_old_date_is_an_age(world):
    shop = world(numbered(("Cache-Control", "max-age=100"), ("Date", "Wed, 31 Dec 2025 23:59:30 GMT")))
    shop.ask()
    assert shop.ask().one("age") == "30"


def test_the_time_that_the_app_takes_is_part_of_the_age(world):
    def app(_):
        shop.clock.advance(7)
        return Reply(200, cached(("Age", "3")))

    shop = world(app)
    shop.ask()
    assert shop.ask().one("age") == "10"


@pytest.mark.parametrize("step", [-10 * 365 * 86_400, -3_600, 3_600, 50 * 365 * 86_400])
def test_a_step_of_the_wall_clock_makes_nothing_younger_or_older(world, step):
    clock = TwoClocks()
    shop = world(numbered(*PUBLIC), clock=clock)
    shop.ask()
    clock.advance(30)
    clock.seconds += step
    assert shop.ask().one("age") == "30"
    clock.advance(30)
    assert not shop.ask().hit


def test_an_age_is_never_below_zero(world):
    clock = TwoClocks()
    shop = world(numbered(*PUBLIC, ("Date", "Thu, 01 Jan 2099 00:00:00 GMT")), clock=clock)
    shop.ask()
    clock.seconds -= 1e9
    assert shop.ask().one("age") == "0"


# ---- what it costs to be wrong


@pytest.mark.parametrize("method", ["POST", "PUT", "FOO"])
@pytest.mark.parametrize(
    "others", [{}, {"POST /pets": Method(cache=None)}, {"POST /pets": Method()}, {"*": Method(cache=None)}]
)
@pytest.mark.parametrize("default", ["off", {"ttl": 0}, {}])
def test_what_is_not_cached_itself_invalidates_what_is(world, default, others, method):
    shop = world(numbered(), methods={"GET /pets": Method(cache=TTL), **others}, cache={"policy": default})
    shop.ask("/pets")
    assert shop.ask("/pets").hit
    shop.ask("/pets", method=method)
    assert not shop.ask("/pets").hit
    assert shop.ask("/dogs").all("cache-status") in ([], ["apigate; fwd=uri-miss"], ["apigate; fwd=method"])


def test_two_policies_of_one_cache_do_not_meet_in_a_key(world):
    shop = world(numbered(), CachePolicy(ttl=60, key={"headers": ["x-a"]}))
    assert shop.ask(x_a="v").body == b"1"
    shop.gateway.stage().update("*", cache=CachePolicy(ttl=60, key={"headers": ["x-b"]}))
    assert shop.ask(x_b="v").body == b"2"


@pytest.mark.parametrize("status", [200, 204])
@pytest.mark.parametrize("why", ["no-store", "private"])
def test_what_a_304_takes_back_is_stored_no_more_though_it_has_all_fields_of_the_response(world, status, why):
    """A 204 has no Content-Length, so a 304 may bring the very fields that the stored response is to have then."""
    modified = [("Last-Modified", "Wed, 31 Dec 2025 23:40:00 GMT")]

    def app(seen):
        if "if-modified-since" in seen.fields:
            return Reply(304, [("Cache-Control", f"max-age=60, {why}"), *modified])
        return Reply(status, [("Cache-Control", "max-age=60"), *modified])

    shop = world(app)
    shop.ask()
    shop.clock.advance(60)
    assert shop.ask().status == status
    assert shop.cache.stats()["entries"] == 0
    assert not shop.ask().hit
